#!/bin/bash
# What of the macOS build can be proven without a Mac: clippy with warnings denied and a link of code, tests and
# examples for both processors, and declarations made by hand compared with Apple's headers. Nothing is run.
#   ci/check-macos.sh [OUTDIR for the sysroot]
set -euo pipefail
cd "$(dirname "$0")/.."
lap() { echo "== [${SECONDS}s] $*"; }

# Everything but the benchmarks, whose floors are Linux's.
everything=(--workspace --exclude frameport-bench --all-features)

# The choice between systems is made in frameport-sys alone: what uses it is the same code everywhere, but for what only one
# system has, which stands in modules of its own.
if grep -rn "target_os" crates bindings examples --include='*.rs' |
  grep -vE '^crates/(sys/src/lib|frameport/src/os/mod)\.rs|^crates/[a-z]+/tests/|^crates/frameport/examples/mach_probe/'; then
  echo "target_os outside of crates/sys/src/lib.rs and crates/frameport/src/os/mod.rs, in the lines above" >&2
  exit 1
fi

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
  cargo clippy -q --locked --target "$target" "${everything[@]}" --exclude frameport-python --lib --bins --tests --examples -- -D warnings
  cargo clippy -q --locked --target "$target" -p frameport-python --lib -- -D warnings
  lap "link $target"
  # Tests of the Python extension itself are written in Python.
  programs=("${everything[@]}" --exclude frameport-python --lib --bins --tests --examples)
  cargo test -q --no-run --locked --target "$target" "${programs[@]}"
  cargo build -q --locked --target "$target" -p frameport-cli --bins
  cargo rustc -q --locked --target "$target" -p frameport-python --lib -- "${module[@]}"
  built=$CARGO_TARGET_DIR/$target/debug
  linked=$(cargo test --no-run --locked --target "$target" "${programs[@]}" --message-format json 2> /dev/null)
  mapfile -t linked < <(python3 -c 'import json, sys; print(*filter(None, (json.loads(line).get("executable") for line in sys.stdin)), sep="\n")' <<< "$linked")
  python3 ci/apple_imports.py "${linked[@]}" "$built/libframeport_native.dylib"
done
# The models and the simulated system, which make test runs too, have flags of their own.
lap "models"
other=${CARGO_TARGET_AARCH64_APPLE_DARWIN_RUSTFLAGS:-}
RUSTFLAGS="$other --cfg loom" CARGO_TARGET_DIR=$CARGO_TARGET_DIR/model \
  cargo check -q --locked --target aarch64-apple-darwin -p frameport-mem --test model
RUSTFLAGS="$other --cfg frameport_sim" CARGO_TARGET_DIR=$CARGO_TARGET_DIR/sim \
  cargo check -q --locked --target aarch64-apple-darwin -p frameport --test sim
lap "done"
