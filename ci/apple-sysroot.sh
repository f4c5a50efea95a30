#!/bin/bash
# Lets a Linux machine check, lint and link Rust for macOS, with nothing but the tool chain's own targets or Debian's sources of
# the standard library, and PyPI's ziglang.
#   ci/apple-sysroot.sh OUTDIR && . OUTDIR/env.sh && cargo clippy --target aarch64-apple-darwin
# Where the tool chain has no target, the standard library is built for it from Debian's rust-src, of the very release. What is
# linked against are stubs: libSystem from ziglang, which brings the C headers too, and hand-listed symbols of libobjc and the
# frameworks. A stub confirms that a name is in its list and nothing else; nothing built here can be run here.
# Exit status 3: this machine lacks what it takes, and says what.
set -euo pipefail
OUT=$(mkdir -p "${1:?OUTDIR}" && cd "$1" && pwd)
TARGETS=${TARGETS:-"aarch64-apple-darwin x86_64-apple-darwin"}
# The release of rust-src below, its Debian version and checksum: all three change together.
RELEASE=1.95.0
PACKAGE=1.95.0+dfsg1-2~bpo13+1
SHA256=7b76db5b880a77f9e52975d2baa6209d2f76d2c9c2789515c3088cb960e2c83b
ZIGLANG=0.17.1
lap() { echo "[${SECONDS}s] $*"; }
lacking() { echo "no macOS sysroot: $*" >&2; exit 3; }

[[ $(uname) == Linux ]] || lacking "this is for Linux; on a Mac, make test runs everything"
release=$(rustc -vV | awk '/^release/{print $2}')
host=$(rustc -vV | awk '/^host/{print $2}')
own=$(rustc --print sysroot)
mkdir -p "$OUT/src" "$OUT/sysroot"
[[ -x $own/lib/rustlib/$host/bin/rust-lld ]] || lacking "this tool chain has no rust-lld"

missing=
for target in $TARGETS; do
  [[ -d $own/lib/rustlib/$target/lib ]] || missing="$missing $target"
done
built="$release$missing"
if [[ -n $missing && ! ( -e $OUT/built && $(<"$OUT/built") == "$built" ) ]]; then
  [[ $release == "$RELEASE" ]] || lacking "no target$missing in Rust $release, and sources of the standard library are known for $RELEASE"
  command -v apt-get dpkg-deb > /dev/null || lacking "no target$missing in this tool chain, and no Debian to get the standard library's sources from"
  uri=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources 2> /dev/null) || lacking "no list of Debian's sources"
  mkdir -p "$OUT"/apt/{lists/partial,cache/archives/partial,parts}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri trixie-backports main" > "$OUT/apt/sources.list"
  cat > "$OUT/apt/conf" <<C
Dir::Etc::sourcelist "$OUT/apt/sources.list"; Dir::Etc::sourceparts "$OUT/apt/parts";
Dir::State::lists "$OUT/apt/lists"; Dir::Cache "$OUT/apt/cache"; Acquire::Languages "none";
C
  export APT_CONFIG=$OUT/apt/conf
  apt-get -qq update || lacking "the package lists cannot be had"
  (cd "$OUT" && apt-get -qq download "rust-src=$PACKAGE" 2> /dev/null) || lacking "rust-src $PACKAGE cannot be had"
  unset APT_CONFIG
  echo "$SHA256  $(ls "$OUT"/rust-src_*.deb)" | sha256sum -c --quiet
  dpkg-deb --fsys-tarfile "$OUT"/rust-src_*.deb | tar -x -C "$OUT/src" --wildcards "./usr/src/rustc-$RELEASE/library/*"
  library=$OUT/src/usr/src/rustc-$RELEASE/library
  # A dylib would want a linker for macOS before there is one.
  sed -i 's/crate-type = \["dylib", "rlib"\]/crate-type = ["rlib"]/' "$library/std/Cargo.toml"
  lap "sources of the standard library"
  RUSTC_BOOTSTRAP=1 cargo fetch -q --locked --manifest-path "$library/sysroot/Cargo.toml" || lacking "what the standard library depends on cannot be had"
  for target in $missing; do
    RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$OUT/build __CARGO_DEFAULT_LIB_METADATA=xstd \
      RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=no" \
      cargo build -q --release --locked --manifest-path "$library/sysroot/Cargo.toml" --target "$target" --features "panic-unwind backtrace"
    mkdir -p "$OUT/sysroot/lib/rustlib/$target/lib"
    cp "$OUT/build/$target"/release/deps/*.rlib "$OUT/sysroot/lib/rustlib/$target/lib/"
    lap "std for $target"
  done
  # Build scripts and macros of this machine.
  ln -sfn "$own/lib/rustlib/$host" "$OUT/sysroot/lib/rustlib/$host"
  rm -rf "$OUT/build" "$OUT/src" "$OUT/apt" "$OUT"/rust-src_*.deb
  echo "$built" > "$OUT/built"
fi

if [[ ! -e $OUT/venv/ziglang-$ZIGLANG ]]; then
  python3 -m venv "$OUT/venv" || lacking "no python3 with venv"
  "$OUT/venv/bin/pip" install -q --disable-pip-version-check "ziglang==$ZIGLANG" || lacking "ziglang $ZIGLANG cannot be had"
  touch "$OUT/venv/ziglang-$ZIGLANG"
fi
sdk=$OUT/sdk
mkdir -p "$sdk/usr/lib"
# ziglang's libSystem is for arm64e among others; the linker wants arm64 by name.
python3 - "$OUT"/venv/lib/python3*/site-packages/ziglang/lib/libc/darwin/libSystem.tbd "$sdk/usr/lib/libSystem.tbd" <<'P'
import re
import sys


def plain_arm64(match):
    targets = []
    for target in re.sub(r"\s+", "", match.group(2)).split(","):
        if target.endswith("-maccatalyst") or target.startswith(("arm64e.x1", "x86_64h")):
            continue
        target = target.replace("arm64e-", "arm64-")
        if target and target not in targets:
            targets.append(target)
    return match.group(1) + "[ " + ", ".join(targets) + " ]"


text = open(sys.argv[1]).read()
open(sys.argv[2], "w").write(re.sub(r"(targets:\s*)\[([^\]]*)\]", plain_arm64, text))
P
ln -sf libSystem.tbd "$sdk/usr/lib/libc.tbd"
ln -sf libSystem.tbd "$sdk/usr/lib/libm.tbd"
stub() { # PATH INSTALL_NAME SYMBOLS
  mkdir -p "$(dirname "$sdk/$1")"
  printf -- "--- !tapi-tbd\ntbd-version: 4\ntargets: [ x86_64-macos, arm64-macos ]\ninstall-name: '%s'\nexports:\n  - targets: [ x86_64-macos, arm64-macos ]\n    symbols: [ %s ]\n...\n" "$2" "$3" > "$sdk/$1"
}
# One line for each library in ci/apple-symbols.txt: the symbols code may use of it.
while read -r library symbols; do
  case $library in
    ''|'#'*) continue ;;
    lib*) stub "usr/lib/$library.tbd" "/usr/lib/$library.dylib" "$symbols" ;;
    *) path=System/Library/Frameworks/$library.framework
       stub "$path/$library.tbd" "/$path/Versions/A/$library" "$symbols" ;;
  esac
done < <(sed -e ':join' -e '/\\$/{N; s/\\\n//; b join' -e '}' "$(dirname "$0")/apple-symbols.txt")
{
  echo "export SDKROOT=$sdk MACOSX_DEPLOYMENT_TARGET=13.0 CARGO_PROFILE_RELEASE_STRIP=none ZIG=$OUT/venv/bin/python-zig"
  for target in $TARGETS; do
    variable=CARGO_TARGET_$(tr a-z- A-Z_ <<< "$target")
    echo "export ${variable}_LINKER=$own/lib/rustlib/$host/bin/rust-lld"
    case " $missing " in
      *" $target "*) echo "export ${variable}_RUSTFLAGS=--sysroot=$OUT/sysroot" ;;
    esac
  done
} > "$OUT/env.sh"
lap "ready: . $OUT/env.sh"
