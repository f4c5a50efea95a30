#!/bin/bash
# What of the macOS build can be proven without a Mac: clippy with warnings denied and a link of code and tests for both
# processors, and declarations made by hand compared with Apple's headers. Nothing is run.
#   ci/check-macos.sh [OUTDIR for the sysroot]
set -euo pipefail
cd "$(dirname "$0")/.."
lap() { echo "== [${SECONDS}s] $*"; }

# What compiles for macOS so far: all that ships, and the tests of frameport-sys. Other tests are Linux's alone.
sys=(-p frameport-sys --lib --test mach --test macos)
product=(-p frameport-wire -p frameport-mem -p frameport -p frameport-cli -p frameport-python --lib --bins)

sysroot=${1:-.cache/apple}
ci/apple-sysroot.sh "$sysroot" || {
  status=$?
  [[ $status == 3 ]] || exit $status
  printf '%s\n' "" "!!! SKIPPED: nothing was checked for macOS, for the reason above." "" >&2
  exit 0
}
# shellcheck disable=SC1091
. "$sysroot/env.sh"
# One for both targets, and apart from the ordinary one, whose flags are others.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/apple}
# Nobody debugs what cannot run.
export CARGO_PROFILE_DEV_DEBUG=false CARGO_INCREMENTAL=0

lap "declarations"
python3 ci/apple_headers.py
# As maturin says it: for a Python nobody has here, by whose program the module is loaded.
export PYO3_NO_PYTHON=1 PYO3_BUILD_EXTENSION_MODULE=1
module=(-C link-arg=-undefined -C link-arg=dynamic_lookup)

for target in aarch64-apple-darwin x86_64-apple-darwin; do
  lap "clippy $target"
  cargo clippy -q --locked --target "$target" "${sys[@]}" -- -D warnings
  cargo clippy -q --locked --target "$target" "${product[@]}" -- -D warnings
  lap "link $target"
  cargo test -q --no-run --locked --target "$target" "${sys[@]}"
  cargo build -q --locked --target "$target" -p frameport-cli --bins
  cargo rustc -q --locked --target "$target" -p frameport-python --lib -- "${module[@]}"
  built=$CARGO_TARGET_DIR/$target/debug
  tests=$(cargo test --no-run --locked --target "$target" "${sys[@]}" --message-format json 2> /dev/null)
  mapfile -t tests < <(python3 -c 'import json, sys; print(*filter(None, (json.loads(line).get("executable") for line in sys.stdin)), sep="\n")' <<< "$tests")
  python3 ci/apple_imports.py "${tests[@]}" "$built/frameport" "$built/libframeport_native.dylib"
done
lap "done"
