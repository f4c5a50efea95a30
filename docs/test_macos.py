"""The programs of macos.md: the Rust ones are in a test, which is compiled for macOS everywhere, the Python one is run."""

import re
import sys
import textwrap
from pathlib import Path

import frameport as fp

PAGE = (Path(__file__).parent / "macos.md").read_text()
TESTS = Path(__file__).parent.parent / "crates" / "frameport" / "tests" / "macos.rs"


def programs(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_rust_programs_are_the_tests_own() -> None:
    modules = re.findall(r"^mod \w+ \{\n(.*?)^\}", TESTS.read_text(), re.DOTALL | re.MULTILINE)
    assert [textwrap.dedent(module).replace("pub(super) ", "") for module in modules] == programs("rust,no_run")


def test_the_python_program_starts_a_worker(tmp_path: Path) -> None:
    names = {"fp": fp}
    exec(programs("python")[0], names)
    worker = tmp_path / "worker.py"
    worker.write_text("import frameport as fp\nwith fp.connect() as link:\n    for frame in link:\n        link.send_back(frame)\n")
    with names["start"]([sys.executable, str(worker)], fp.Spec("gray", 4, 2)) as w:
        with w.loan():
            pass
        assert w.recv(timeout=20).spec == fp.Spec("gray", 4, 2)
