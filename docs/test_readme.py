"""The README's Python programs, run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


def block(name: str) -> str:
    found = [text for text in BLOCKS if text.partition("\n")[0].endswith(f"# {name}")]
    assert len(found) == 1, f"the README has {len(found)} programs named {name}"
    return found[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pairs = ("worker host", "short many", "tuned tune", "detect live", "mean audience", "resize", "lives")
    for name in (f"{word}.py" for pair in pairs for word in pair.split()):
        (tmp_path / name).write_text(block(name))
    return tmp_path


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", ["worker.py", "short.py"])
def test_the_workers_serve_the_command(folder: Path, name: str) -> None:
    frameport = (sys.executable, "-m", "frameport", "run")
    run(*frameport, "--input", "pattern:320x180@30:20", "--output", "out.y4m", "--format", "bgr24", "--json", "--", sys.executable, name, cwd=folder)
    assert (folder / "out.y4m").stat().st_size > 0


def test_the_knob_turns_and_the_worker_is_heard(folder: Path) -> None:
    said = run(sys.executable, "tune.py", cwd=folder).splitlines()
    assert [line for line in said if line[0].isdigit()] == ["20 100", "200 0"]
    assert [line for line in said if line.startswith("INFO:frameport.tuned:frame")] == [
        "INFO:frameport.tuned:frame 0",
        "INFO:frameport.tuned:frame 1",
    ]


def test_a_camera_does_not_wait_for_a_slow_model(folder: Path) -> None:
    *found, stats = run(sys.executable, "live.py", cwd=folder).splitlines()
    seqs = [int(line.split()[0]) for line in found]
    assert seqs == sorted(set(seqs)) and seqs[-1] == 59, found
    assert "offered: 60, sent: 60" in stats and "no_slot: 0" in stats, stats


def test_a_source_changes_its_size(folder: Path) -> None:
    lines = run(sys.executable, "resize.py", cwd=folder).splitlines()
    assert ["640x360" in line or "960x360" in line for line in lines] == [True] * 4 and len(set(lines)) == 2


def test_a_worker_that_dies_is_started_again(folder: Path) -> None:
    *lines, restarts = [line for line in run(sys.executable, "lives.py", cwd=folder).splitlines() if line[0].isdigit()]
    # The frame of the kill may have been answered before it; then the death is told with the next.
    told = [line for line in lines if "went with" in line]
    assert len(lines) == 6 and len(told) == 1 and told[0][0] in "34" and restarts == "1 restart", lines


def test_one_frame_is_read_by_many(folder: Path) -> None:
    assert run(sys.executable, "audience.py", cwd=folder).splitlines() == [f"{n} [{n}.0, {n}.0]" for n in range(5)]


def test_the_host_gets_its_frames_back(folder: Path) -> None:
    assert "frame 9" in run(sys.executable, "host.py", cwd=folder)


def test_several_workers_keep_the_order(folder: Path) -> None:
    lines = [line.partition(":")[0] for line in run(sys.executable, "many.py", cwd=folder).splitlines()]
    assert [line for line in lines if line.startswith("frame ")] == [f"frame {n}" for n in range(40)]
