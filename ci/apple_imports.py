#!/usr/bin/env python3
"""Compares what Mach-O programs import with the reviewed list ci/apple-imports.txt: nothing private gets in unnoticed.

    ci/apple_imports.py PROGRAM...            each import must be in the list
    ci/apple_imports.py --write PROGRAM...    writes the list anew, to be reviewed
"""

import struct
import sys
from pathlib import Path

LIST = Path(__file__).resolve().parent / "apple-imports.txt"
HEAD = "# What programs built for macOS import, reviewed: public names of libSystem and frameworks. ci/apple_imports.py writes it.\n"


def imports(program: Path) -> set[str]:
    """Undefined symbols of a 64-bit Mach-O: LC_DYSYMTAB says which of LC_SYMTAB's they are (mach-o/loader.h)."""
    data = program.read_bytes()
    magic, _, _, _, commands = struct.unpack_from("<5I", data)
    if magic != 0xFEEDFACF:
        raise SystemExit(f"{program} is no 64-bit Mach-O")
    at, symbols, strings, undefined = 32, 0, 0, (0, 0)
    for _ in range(commands):
        command, size = struct.unpack_from("<2I", data, at)
        if command == 0x2:
            symbols, _, strings, _ = struct.unpack_from("<4I", data, at + 8)
        elif command == 0xB:
            undefined = struct.unpack_from("<2I", data, at + 24)
        at += size
    found = set()
    for index in range(undefined[0], undefined[0] + undefined[1]):
        (name,) = struct.unpack_from("<I", data, symbols + 16 * index)
        start = strings + name
        found.add(data[start : data.index(0, start)].decode())
    # Python's: those of its stable interface, as the feature abi3-py311 of pyo3 has it.
    return {name for name in found if not name.startswith("_Py")}


def main() -> int:
    write = sys.argv[1] == "--write"
    programs = [Path(name) for name in sys.argv[1 + write :]]
    found = {program: imports(program) for program in programs}
    if write:
        LIST.write_text(HEAD + "\n".join(sorted(set().union(*found.values()))) + "\n")
        return 0
    known = {line for line in LIST.read_text().splitlines() if not line.startswith("#")}
    wrong = [f"{program.name} imports {name}" for program, names in found.items() for name in sorted(names - known)]
    print(*wrong, f"{sum(map(len, found.values()))} imports of {len(programs)} programs compared", sep="\n")
    return 1 if wrong or not programs else 0


if __name__ == "__main__":
    sys.exit(main())
