#!/usr/bin/env python3
"""Compares what crates/sys declares of macOS by hand with Apple's own C headers, as ziglang brings them.

    ZIG=... SDKROOT=... ci/apple_headers.py

- A constant whose comment begins with a name in backticks has that name's value in the headers.
- A structure in `layout!` has that size, and its fields lie there.
- A function in an `extern` block of raw.rs has the prototype of the header its comment names. Where that is "no header", its
  symbol must be in libSystem's stub: the headers at hand lack it.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SYS = Path(__file__).resolve().parent.parent / "crates" / "sys" / "src"
RAW = SYS / "macos" / "raw.rs"
HEADERS = ["stddef.h", "mach/mach.h", "mach/message.h", "mach/notify.h", "mach/port.h", "mach/kern_return.h", "pthread.h"]
# Of headers nobody can have here; raw.rs compares them with mach2's.
NO_HEADER = re.compile(r"BOOTSTRAP_|MACH_RCV_TRAILER_TYPE")

CONSTANT = re.compile(
    r"///\s+`([A-Z][A-Z0-9_]+)`.*\n(?:\s*///.*\n)*\s*(?:pub(?:\(\w+\))? )?const (\w+): [\w:]+ = (?:Self\()?([^;]*?)\)?;"
)
LAYOUT = re.compile(r"^layout!\((\w+) \{([^}]*)\} (\d+)\);", re.M)
FUNCTION = re.compile(r"/// (no header: )?([\w/.]+)\n\s*pub\(super\) fn (\w+)\(([^;]*?)\) -> (\w+);", re.S)


def value(text: str) -> int:
    return int(eval(text.replace("u32::MAX", "0xffffffff"), {"__builtins__": {}}))  # noqa: S307: our own sources


def c_type(rust: str) -> str:
    rust = " ".join(rust.split())
    if rust == 'Option<unsafe extern "C" fn()>':
        return "void (*)(void)"
    if rust.startswith("*mut "):
        return c_type(rust[5:]) + " *"
    return {"c_int": "int"}.get(rust, rust)


def parameters(text: str) -> str:
    types = re.findall(r"\w+:\s*([^,]+)", text)
    return ", ".join(map(c_type, types))


def main() -> int:
    lines = [f"#include <{header}>" for header in HEADERS]
    counted = {"constants": 0, "structures": 0, "functions": 0, "symbols": 0}
    wrong = []
    for path in [*sorted((SYS / "mach").glob("*.rs")), RAW]:
        for apple, ours, text in CONSTANT.findall(path.read_text()):
            if not NO_HEADER.match(apple):
                where = f"{path.relative_to(SYS)}: {ours} is not {apple}"
                lines.append(f'_Static_assert((long long)({apple}) == {value(text)}LL, "{where}");')
                counted["constants"] += 1
    raw = RAW.read_text()
    for structure, fields, size in LAYOUT.findall(raw):
        lines.append(f'_Static_assert(sizeof({structure}) == {size}, "size of {structure}");')
        for field, place in re.findall(r"(\w+): (\d+)", fields):
            lines.append(f'_Static_assert(offsetof({structure}, {field}) == {place}, "place of {field} in {structure}");')
        counted["structures"] += 1
    stub = (Path(os.environ["SDKROOT"]) / "usr/lib/libSystem.tbd").read_text()
    for missing, _, name, arguments, result in FUNCTION.findall(raw):
        if missing:
            counted["symbols"] += 1
            if not re.search(rf"\b_{name}\b", stub):
                wrong.append(f"libSystem has no {name}")
        else:
            counted["functions"] += 1
            lines.append(f"{c_type(result)} (*const check_{name})({parameters(arguments)}) = {name};")
    source = "\n".join(lines) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "check.c").write_text(source)
        for target in ["aarch64-macos", "x86_64-macos"]:
            command = [os.environ["ZIG"], "cc", "-target", target, "-std=c11", "-Werror", "-c", "check.c", "-o", "check.o"]
            said = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if said.returncode:
                wrong.append(f"{target}:\n{said.stderr}")
    if min(counted.values()) == 0:
        wrong.append("nothing was compared: has the form of the declarations changed?")
    print(*wrong, f"compared with Apple's headers: {counted}", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
