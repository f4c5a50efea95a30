//! Messages on their way out: what the receiver finds, and what is destroyed.

use frameport_sys::mach::message::{COMPLEX, at};
use frameport_sys::mach::{Buffer, Kern, Name};

use super::message::{Held, Message, OutOfLine};
use super::port::{Carried, Kind};
use super::{Space, State, TaskId};

/// Bytes of a trailer with and without the audit token.
const AUDIT: u32 = 52;
const MINIMAL: u32 = 8;
/// MACH_MSG_VM_SPACE.
const VM_SPACE: Kern = Kern(0x1000);

/// Writes a descriptor of memory: its second and third words are deallocate:8 | copy:8 | disposition:8 | type:8 and a size.
fn describe(buffer: &mut Buffer, place: &mut usize, address: Option<u64>, [how, size]: [u32; 2]) {
    let address = address.unwrap_or(0);
    for word in [address as u32, (address >> 32) as u32, how, size] {
        buffer.set(*place, word);
        *place += 1;
    }
}

impl State {
    /// `ipc_kmsg_copyout_descriptors`; goes on after errors.
    pub(crate) fn copy_out_items(
        &mut self,
        task: TaskId,
        held: Vec<Held>,
        buffer: &mut Buffer,
    ) -> (usize, Option<Kern>) {
        let (mut place, mut error) = (at::FIRST, None);
        for held in held {
            let mut out = |state: &mut Self, carried| {
                state.copy_out(task, carried).unwrap_or_else(|answer| {
                    error = Some(answer);
                    Name::NULL
                })
            };
            match held {
                Held::Port(carried) => {
                    let disposition = carried.kind.disposition();
                    buffer.set(place, out(self, carried).0);
                    buffer.set(place + 2, disposition << 16);
                    place += 3;
                }
                Held::Guarded(carried) => {
                    buffer.set(place + 2, 4 << 24 | 16 << 16);
                    buffer.set(place + 3, out(self, carried).0);
                    place += 4;
                }
                // ipc_kmsg_copyout_ool_descriptor, ipc_kmsg_deflate_memory_descriptor: to be deallocated if the sender called its
                // copy virtual; what found no room has no size.
                Held::Memory(OutOfLine { bytes, is_virtual, is_volatile }) => {
                    let address = if bytes == 0 { None } else { self.map_message(task, Vec::new()) };
                    if bytes > 0 && address.is_none() {
                        error = Some(VM_SPACE);
                    }
                    let (kind, copy) = (if is_volatile { 3 } else { 1 }, u32::from(is_virtual));
                    let size = if address.is_some() { bytes } else { 0 };
                    let how = [kind << 24 | copy << 8 | copy, size];
                    describe(buffer, &mut place, address, how);
                }
                // ipc_kmsg_copyout_ool_ports_descriptor, ipc_kmsg_deflate_port_array_descriptor: always to be deallocated; an array
                // that found no room keeps its count.
                Held::Ports(all, kind) => {
                    let how = [2 << 24 | kind.disposition() << 16 | 1 << 8 | 1, all.len() as u32];
                    let has_room = !self.space(task).is_map_full;
                    let address = if all.is_empty() {
                        None
                    } else if has_room {
                        let names = all.into_iter().map(|carried| out(self, carried)).collect();
                        self.map_message(task, names)
                    } else {
                        all.into_iter().for_each(|carried| self.release(carried));
                        error = Some(VM_SPACE);
                        None
                    };
                    describe(buffer, &mut place, address, how);
                }
            }
        }
        (place, error)
    }

    /// Memory of a message, with names in it where it is an array of ports.
    fn map_message(&mut self, task: TaskId, names: Vec<Name>) -> Option<u64> {
        let address = u64::from(self.count()) << 14 | 1 << 40;
        let space = self.space(task);
        (!space.is_map_full).then(|| {
            space.memory.insert(address, names);
            address
        })
    }

    /// `mach_msg` with `MACH_RCV_MSG` (mach_msg.c, mach_msg_receive_results; ipc_kmsg.c, ipc_kmsg_copyout).
    pub(crate) fn receive(&mut self, task: TaskId, name: Name, buffer: &mut Buffer) -> Kern {
        let receives = |space: &mut Space| space.names.get(&name).filter(|it| it.receive).and_then(|it| it.port);
        let Some(port) = receives(self.space(task)) else {
            self.fault(task, format!("receives from {name:?}"));
            return Kern::RCV_INVALID_NAME;
        };
        let Some(mut message) = self.port(port).queue.pop_front() else { return Kern::RCV_TIMED_OUT };
        let size = message.bytes();
        // ipc_mqueue.c, ipc_mqueue_msg_too_large; without MACH_RCV_LARGE the message is destroyed, and a bare header stays.
        if size + AUDIT > Buffer::BYTES {
            self.destroy_message(message);
            buffer.set(at::SIZE, 24);
            return Kern::RCV_TOO_LARGE;
        }
        // ipc_kmsg.c, ipc_kmsg_copyout_header; mach_msg.c, mach_msg_receive_error.
        let reply = match message.reply.take().map(|reply| (reply.kind, self.copy_out(task, reply))) {
            Some((_, Err(answer))) => {
                self.destroy_message(message);
                buffer.set(at::SIZE, 24);
                return Kern(Kern::RCV_HEADER_ERROR.0 | answer.0);
            }
            Some((kind, Ok(name))) => (kind.disposition(), name),
            None => (0, Name::NULL),
        };
        // The header is turned round: remote is the reply right, local our own name.
        let mut bits = message.to_kind.disposition() << 8 | reply.0;
        if message.is_complex {
            bits |= COMPLEX;
            buffer.set(at::DESCRIPTORS, message.held.len() as u32);
        }
        buffer.set(at::REMOTE, reply.1.0);
        buffer.set(at::BITS, bits);
        buffer.set(at::SIZE, size);
        buffer.set(at::LOCAL, name.0);
        buffer.set(at::ID, message.id.cast_unsigned());
        let (mut place, error) = self.copy_out_items(task, std::mem::take(&mut message.held), buffer);
        if !message.is_complex {
            place = at::DESCRIPTORS;
        }
        for word in message.payload.iter().chain(&[0, if self.omits_audit { MINIMAL } else { AUDIT }]) {
            buffer.set(place, *word);
            place += 1;
        }
        if !self.omits_audit {
            message.sender.iter().enumerate().for_each(|(index, word)| buffer.set(place + 3 + index, *word));
        }
        // The destination's right is used up (ipc_object.c, ipc_object_copyout_dest).
        self.use_up(Carried { port: Some(message.to), kind: message.to_kind });
        error.map_or(Kern::SUCCESS, |answer| Kern(Kern::RCV_BODY_ERROR.0 | answer.0))
    }

    /// A destination's right, at the end of its message: a send-once right is used up quietly.
    fn use_up(&mut self, carried: Carried) {
        if carried.kind == Kind::Send {
            self.release(carried);
        }
    }

    /// `ipc_kmsg_destroy`: every right in it is released.
    pub(crate) fn destroy_message(&mut self, message: Message) {
        self.use_up(Carried { port: Some(message.to), kind: message.to_kind });
        message.reply.into_iter().for_each(|reply| self.release(reply));
        for held in message.held {
            match held {
                Held::Port(carried) | Held::Guarded(carried) => self.release(carried),
                Held::Memory(_) => {}
                Held::Ports(all, _) => all.into_iter().for_each(|carried| self.release(carried)),
            }
        }
    }

    /// libSystem's `mach_msg_destroy` (libsyscall/mach/mach_msg.c): the local port is no right of the message's.
    pub(crate) fn destroy(&mut self, task: TaskId, buffer: &mut Buffer) {
        let bits = buffer.word(at::BITS);
        self.destroy_right(task, Name(buffer.word(at::REMOTE)), bits & 0x1f);
        let count = if bits & COMPLEX == 0 { 0 } else { buffer.word(at::DESCRIPTORS) };
        let mut place = at::FIRST;
        for _ in 0..count {
            let kind = buffer.word(place + 2);
            let disposition = kind >> 16 & 0xff;
            match kind >> 24 {
                0 => self.destroy_right(task, Name(buffer.word(place)), disposition),
                4 => self.destroy_right(task, Name(buffer.word(place + 3)), disposition),
                3 => {}
                _ => {
                    let address = u64::from(buffer.word(place)) | u64::from(buffer.word(place + 1)) << 32;
                    let (is_deallocated, size) = (kind & 0xff != 0, buffer.word(place + 3));
                    let names = self.space(task).memory.get(&address).cloned();
                    if names.is_none() && size > 0 && (is_deallocated || kind >> 24 == 2) {
                        self.fault(task, format!("unmaps {address:#x}, or reads there"));
                    }
                    names.into_iter().flatten().for_each(|name| self.destroy_right(task, name, disposition));
                    if is_deallocated && size > 0 {
                        self.space(task).memory.remove(&address);
                    }
                }
            }
            place += if kind >> 24 == 0 { 3 } else { 4 };
        }
    }

    fn destroy_right(&mut self, task: TaskId, name: Name, disposition: u32) {
        if !name.is_valid() {
            return;
        }
        let answer = match disposition {
            17 | 18 => self.deallocate(task, name),
            16 => self.release_receive(task, name),
            _ => Ok(()),
        };
        if let Err(answer) = answer {
            self.fault(task, format!("destroys {name:?}, disposition {disposition}: {answer}"));
        }
    }
}
