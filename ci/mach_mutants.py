#!/usr/bin/env python3
"""Leaves out or weakens, one at a time, what crates/sys/src/mach rests on: a test on the simulated kernel must notice each.

    ci/mach_mutants.py [WORD]    only those whose name has WORD

Works on a copy of the sources in target/mach-mutants; the first run builds the dependencies there.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "mach-mutants"
SOURCES = Path("crates/sys/src/mach")

# Name, file, what stands there, what stands there instead.
MUTANTS = [
    ("id unchecked", "received.rs", "if self.id() != shape.id {", "if false {"),
    ("complex bit unchecked", "received.rs", "if (bits & COMPLEX != 0) != (shape.ports > 0) {", "if false {"),
    ("size unchecked", "received.rs", "if word(at::SIZE) != shape.size() {", "if false {"),
    ("number of rights unchecked", "received.rs", "word(at::DESCRIPTORS) as usize != shape.ports {", "false {"),
    ("type of descriptor unchecked", "received.rs", "if kind != PORT_DESCRIPTOR {", "if false {"),
    ("disposition unchecked", "received.rs", "if disposition != MOVE_SEND {", "if false {"),
    ("dead right unchecked", "received.rs", "if !Name(word(place)).is_valid() {", "if false {"),
    ("reply port unchecked", "received.rs", "if word(at::REMOTE) != Name::NULL.0 || bits & 0x1f != 0 {", "if false {"),
    ("trailer unchecked", "received.rs", "if word(trailer) != 0 || word(trailer + 1) < AUDIT_TRAILER {", "if false {"),
    ("guard gone after a taken right", "received.rs", "self.message.buffer.set(next, Name::NULL.0);", ""),
    ("refused message kept", "received.rs", "unsafe { self.task.destroy(&mut self.buffer) };", ""),
    ("incomplete message kept", "received.rs",
     "drop(Self::returned(task, buffer));\n                Err(ReceiveError::Unfit(Check::Incomplete))",
     "Err(ReceiveError::Unfit(Check::Incomplete))"),
    ("message without its header taken for an end", "received.rs",
     "Kern::RCV_HEADER_ERROR => Err(ReceiveError::Unfit(Check::Incomplete)),", ""),
    ("too large message destroyed again", "received.rs",
     "Kern::RCV_TOO_LARGE => Err(ReceiveError::Unfit(Check::TooLarge)),",
     "Kern::RCV_TOO_LARGE => Ok(Some(Self::returned(task, buffer))),"),
    ("memory kept that its sender called copied", "received.rs",
     "MEMORY_DESCRIPTOR << 24 | how & 0xff_ff00 | 1", "MEMORY_DESCRIPTOR << 24 | how & 0xff_ffff"),
    ("volatile memory kept", "received.rs", "MEMORY_DESCRIPTOR | VOLATILE_DESCRIPTOR => {", "MEMORY_DESCRIPTOR => {"),
    ("memory behind a port kept", "received.rs", "PORT_DESCRIPTOR => PORT_WORDS,", "PORT_DESCRIPTOR => return,"),
    ("memory behind an array kept", "received.rs",
     "buffer.set(place + 3, 0);\n                }\n                OTHER_WORDS",
     "buffer.set(place + 3, 0);\n                }\n                return"),
    ("memory behind a guarded port kept", "received.rs", "GUARDED_DESCRIPTOR => OTHER_WORDS,", "GUARDED_DESCRIPTOR => return,"),
    ("names read at null", "received.rs", "buffer.set(place + 3, 0);", ""),
    ("nonce unchecked", "rendezvous.rs", "if expected.nonce.is(&nonce) {", "if true {"),
    ("nonce not burnt", "rendezvous.rs", "let Expected { worker, .. } = self.expected.swap_remove(index);",
     "let worker = self.expected[index].worker;"),
    ("worker given up still expected", "rendezvous.rs", "self.expected.retain(|expected| expected.worker != worker);", "let _ = worker;"),
    ("half a nonce compared", "check_in.rs", "self.0.iter().zip(&other.0)", "self.0.iter().zip(&other.0).take(4)"),
    ("user unchecked", "rendezvous.rs", "if audit.euid() != self.uid {", "if false {"),
    ("version unchecked", "rendezvous.rs", "if message.word(0) != VERSION {", "if false {"),
    ("shared right unchecked", "rendezvous.rs",
     "if message.names().any(|name| !message.task().is_sole_send(name)) {", "if false {"),
    ("welcome of anybody", "worker.rs", "if sender != self.host {", "if false {"),
    ("no last look for the answer", "worker.rs", "let waited = wait();", "let waited = Ok::<(), SetupError>(wait()?);"),
    ("death unnoticed while the answer is awaited", "worker.rs",
     "if let Some(Fate::Died(sign)) = self.news.fate()? {", "if let (Some(Fate::Died(sign)), false) = (self.news.fate()?, true) {"),
    ("forged news end the wait", "worker.rs", "self.news.fate()? {", "self.news.next(Duration::ZERO)?.map(Fate::Died) {"),
    ("welcome not in the queue", "worker.rs",
     "Ok([self.port.name()?, self.news.port().name()?])", "Ok([self.news.port().name()?; 2])"),
    ("refusal not in the queue", "worker.rs",
     "Ok([self.port.name()?, self.news.port().name()?])", "Ok([self.port.name()?; 2])"),
    ("slot left to the worker's children", "worker.rs",
     "if hello.lent { slot::take(task) } else", "if hello.lent && hello.service.is_none() { slot::take(task) } else"),
    ("entrance kept", "worker.rs", "drop(found);", "std::mem::forget(found);"),
    ("host's death unwatched", "worker.rs", "match self.news.port().told_of_death(&host) {", "match Ok(()) {"),
    ("worker's port unwatched", "worker.rs", "port.tell_when_unreachable(news.port())?;", ""),
    ("worker's death unwatched", "host.rs", "match news.port().told_of_death(&peer) {", "match Ok(()) {"),
    ("death before the watch unnoticed", "host.rs",
     "Err(Kern::INVALID_ARGUMENT) => Err(SetupError::Died(Sign::DeadName)),",
     "Err(Kern::INVALID_ARGUMENT) => Ok(HostLink { worker, audit, peer, port, news }),"),
    ("loss of the port unwatched", "host.rs", "port.tell_when_unreachable(news.port())?;", ""),
    ("told at once", "right.rs", "request_notification(port, what, 1, to)", "request_notification(port, what, 0, to)"),
    ("earlier request's right kept", "right.rs",
     "drop(SendOnce::own(&self.0.task, previous));", "std::mem::forget(SendOnce::own(&self.0.task, previous));"),
    ("released in a fork", "right.rs", "self.name.is_valid() && self.is_ours()", "self.name.is_valid()"),
    ("used in a fork", "right.rs",
     "if self.is_ours() { Ok(self.name) } else { Err(Forked { owner: self.owner }) }", "Ok(self.name)"),
    ("notification of anybody", "death.rs", "if message.sender().pid() != 0 {", "if false {"),
    ("dead name's reference kept", "death.rs", "drop(SendRight::own(task, Name(message.word(NDR))));", ""),
    ("unread news keep a reference", "death.rs", "for _ in 0..2 * NEWS {", "for _ in 0..0 {"),
    ("news behind a full queue keep a reference", "death.rs", "for _ in 0..2 * NEWS {", "for _ in 0..NEWS {"),
    ("withdrawn request taken for a death", "death.rs",
     "if id == PORT_DELETED || id == SEND_ONCE { Ok(None) }", "if id == PORT_DELETED { Ok(Some(Sign::DeadName)) }"),
    ("second sign believed", "death.rs", "let first = self.0.is_none();", "let first = true;"),
    ("forged news taken for a violation", "death.rs",
     "Err(ReceiveError::Unfit(_)) => Ok(None),", "Err(ReceiveError::Unfit(check)) => Ok(Some(Fate::Lied(check))),"),
    ("end before all was read", "death.rs", "match read() {", "match if self.0.is_some() { Ok(0) } else { read() } {"),
    ("ports asked after the read", "death.rs", "        if self.0.is_none()\n            && let",
     "        let found = read();\n        let read = || found;\n        if self.0.is_none()\n            && let"),
    ("ports asked for good", "death.rs", "        if self.0.is_none()\n            && let", "        if let"),
    ("dead peer waited for", "death.rs",
     "Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.0.is_some() => Ok(0),", ""),
    ("pipe's end no sign", "death.rs", "self.is_news(Fate::Died(Sign::EndOfFile));", ""),
    ("violation read over", "death.rs", "if let Some(Fate::Lied(check)) = self.0 {", "if let (Some(Fate::Lied(check)), false) = (self.0, true) {"),
    ("message to the worker's port passed over", "host.rs",
     "Ok(Some(message)) => Ok(Some(Fate::Lied(Check::Id { found: message.id() }))),", "Ok(Some(_)) => self.news.fate(),"),
    ("unfit message to the worker's port passed over", "host.rs",
     "Err(ReceiveError::Unfit(check)) => Ok(Some(Fate::Lied(check))),", "Err(ReceiveError::Unfit(_)) => self.news.fate(),"),
    ("worker's port not in the queue", "host.rs",
     "Ok([self.port.name()?, self.news.port().name()?])", "Ok([self.news.port().name()?; 2])"),
    ("news not in the host's queue", "host.rs",
     "Ok([self.port.name()?, self.news.port().name()?])", "Ok([self.port.name()?; 2])"),
    ("news not in the worker's queue", "worker.rs", "Ok([self.news.port().name()?])", "Ok([self.port.name()?])"),
    ("message that came back kept", "message.rs", "if came_back {\n            drop(Received::returned(to.task(), buffer));\n        }", ""),
    ("sent message taken for one that came back", "message.rs", "let came_back = answer != Kern::SUCCESS && ", "let came_back = "),
    ("interruption taken for the end", "message.rs", "if answer.message_code() != Kern::SEND_INTERRUPTED {", "if true {"),
    ("moved right released twice", "message.rs", "answer == Kern::SUCCESS || came_back", "came_back"),
    ("moved right of a returned message released twice", "message.rs",
     "answer == Kern::SUCCESS || came_back", "answer == Kern::SUCCESS"),
    ("moved right forgotten when nothing was sent", "message.rs", "answer == Kern::SUCCESS || came_back", "true"),
    ("copied instead of moved", "message.rs", "rights.push((moved.name()?, MOVE_SEND));", "rights.push((moved.name()?, COPY_SEND));"),
    ("moved instead of copied", "message.rs", "(right.name()?, COPY_SEND),", "(right.name()?, MOVE_SEND),"),
    ("surface's port kept by the worker", "surface.rs", "        drop(port);\n", "        std::mem::forget(port);\n"),
    ("surface's port kept until the checks", "surface.rs", "        drop(port);\n",
     "        let port = (key.slot as usize == self.arriving.len()).then_some(port).map(std::mem::forget);\n        drop(port);\n"),
    ("surface of anybody", "surface.rs", "if sender != host {", "if false {"),
    ("geometry unchecked", "pool.rs",
     "checked.map_err(|mismatch| SetupError::SurfaceMismatch { slot, mismatch })?;", "let _ = (slot, checked);"),
    ("strides unchecked", "surface.rs", 'same("stride", agreed.stride.into(), found.stride.into())?;', ""),
    ("offsets unchecked", "surface.rs", 'same("offset of a plane", agreed.offset.into(), found.offset.into())?;', ""),
    ("planes beyond the first unchecked", "surface.rs",
     "self.planes.iter().zip(&agreed.planes)", "self.planes.iter().zip(&agreed.planes).take(1)"),
    ("number of surfaces unchecked", "pool.rs", "if surfaces.len() != count as usize {", "if false {"),
    ("planes outside", "surface.rs", "if end > u128::from(self.len) {", "if false {"),
    ("surfaces without a bound", "surface.rs", "if self.known.len() >= MAX_SURFACES {", "if false {"),
    ("surfaces that are gone still counted", "surface.rs", "self.known.retain(|surface| surface.strong_count() > 0);", ""),
    ("surface of another pool", "surface.rs", "key.pool != number || ", ""),
    ("surfaces out of order", "surface.rs", "key.slot as usize != self.arriving.len() || ", ""),
    ("surface beyond the last", "surface.rs", " || key.slot >= key.of", ""),
    ("use not begun", "pool.rs", "surface.begin_use();", ""),
    ("use not ended", "pool.rs", "self.surface.end_use();", ""),
    ("not locked", "pool.rs", "self.is_locked || self.surface.lock(self.intent).is_ok()", "false"),
    ("locked again", "pool.rs", "self.is_locked || self.surface.lock(self.intent).is_ok()", "self.surface.lock(self.intent).is_ok()"),
    ("locked before anybody looks", "pool.rs",
     "surface.begin_use();\n        Self { surface, intent, is_locked: false }",
     "surface.begin_use();\n        let is_locked = surface.lock(intent).is_ok();\n        Self { surface, intent, is_locked }"),
    ("readers locked where somebody writes", "pool.rs", "writers.as_mut().or(readers.as_mut())", "readers.as_mut().or(writers.as_mut())"),
    ("readers unlocked with the last writer", "pool.rs", "hold.is_locked", "false"),
    ("views write on after a send", "pool.rs", "hold.only_read();", ""),
    ("views lose their lock with a send", "pool.rs", "self.surface.lock(Intent::Read).is_ok();\n            self", "false;\n            self"),
    ("unlocked though not locked", "pool.rs", "if self.is_locked {", "if true {"),
    ("not unlocked", "pool.rs", "self.surface.unlock(self.intent);", ""),
    ("unlocked with other options", "pool.rs", "self.surface.unlock(self.intent);", "self.surface.unlock(Intent::Read);"),
    ("users not counted", "pool.rs", "Some((count, _)) => *count += 1,", "Some(_) => {}"),
    ("used until the pool is gone", "pool.rs", "_ => *users = None,", "_ => {}"),
    ("rights of anybody", "handover.rs", "if sender != host {", "if false {"),
    ("rights out of order", "handover.rs", "if message.word(0) != number {", "if false {"),
    ("slots not restored", "slot.rs", "let _ = self.task.register(self.found);", ""),
    ("slot not taken out", "slot.rs", "let _ = task.register([zero, one, Name::NULL]);", "let _ = (zero, one);"),
    ("libxpc's slot replaced", "slot.rs", "task.register([zero, one, name])?;", "task.register([name, one, zero])?;"),
    ("room for five workers", "entrance.rs", "port.set_queue_limit(QUEUE)?;", "let _ = port;"),
    ("worker spawned that would find nobody", "entrance.rs", "(Err(_), None) => (once(), false),", "(Err(_), _) => (once(), false),"),
    ("no name no host", "entrance.rs", "let unnamed =", "if let Err(answer) = named { return Err(answer); }\n        let unnamed ="),
]


def copy() -> None:
    for part in ["Cargo.toml", "Cargo.lock", "clippy.toml", "crates", "benches", "bindings"]:
        source, target = ROOT / part, COPY / part
        if source.is_dir():
            # With the time of now: what the last run left built is of a mutant.
            ignore = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignore, copy_function=shutil.copy)
        else:
            COPY.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def run() -> subprocess.CompletedProcess[str]:
    command = ["cargo", "test", "-q", "--locked", "-p", "frameport-sys", "--test", "mach"]
    environment = dict(os.environ, CARGO_TARGET_DIR=str(COPY / "target"), RUST_BACKTRACE="0", CARGO_INCREMENTAL="1")
    return subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True, timeout=300)


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    shutil.rmtree(COPY / "crates", ignore_errors=True)
    copy()
    whole = run()
    if whole.returncode:
        print(whole.stdout, whole.stderr, "the tests fail without a mutant", sep="\n")
        return 1
    chosen = [mutant for mutant in MUTANTS if word in mutant[0]]
    wrong = []
    for name, file, old, new in chosen:
        path = COPY / SOURCES / file
        text = path.read_text()
        if text.count(old) < 1:
            wrong.append(f"{name}: {file} has no such text any more")
            continue
        path.write_text(text.replace(old, new))
        said = run()
        path.write_text(text)
        if said.returncode == 0:
            wrong.append(f"{name}: no test notices")
        elif "could not compile" in said.stderr:
            why = re.search(r"error.*\n.*", said.stderr)
            wrong.append(f"{name}: does not compile: {why.group() if why else said.stderr}")
    print(*wrong, f"{len(chosen) - len(wrong)} of {len(chosen)} mutants are noticed", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
