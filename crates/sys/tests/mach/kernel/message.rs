//! Messages: what is taken from the sender, and what waits in a queue.

use frameport_sys::mach::message::{COMPLEX, at};
use frameport_sys::mach::{Buffer, Kern, Name};

use super::port::{Carried, Kind, Port, PortId};
use super::{State, TaskId};

/// A descriptor as a sender gives it.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Port(Name, u32),
    Memory(OutOfLine),
    Ports(Vec<Name>, u32),
    Guarded(Name),
}

/// Out-of-line memory, by what its receiver sees of it (message.h, mach_msg_ool_descriptor_t). Whether the sender keeps it is
/// no part of that, but what it keeps nothing of may be of any size (ipc_kmsg.c, ipc_kmsg_copyin_ool_descriptor).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OutOfLine {
    pub(crate) bytes: u32,
    /// MACH_MSG_VIRTUAL_COPY, else MACH_MSG_PHYSICAL_COPY.
    pub(crate) is_virtual: bool,
    /// MACH_MSG_OOL_VOLATILE_DESCRIPTOR.
    pub(crate) is_volatile: bool,
}

impl Item {
    /// Memory as it is usually sent.
    pub(crate) fn memory(bytes: u32) -> Self {
        Self::Memory(OutOfLine { bytes, is_virtual: true, is_volatile: false })
    }
}

/// Any message a hostile task can make. The destination is copied unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) to: u32,
    pub(crate) moves_to: bool,
    pub(crate) id: i32,
    pub(crate) reply: Option<(Name, u32)>,
    /// It says that it has descriptors, even where it has none.
    pub(crate) is_complex: bool,
    pub(crate) items: Vec<Item>,
    pub(crate) payload: Vec<u32>,
}

/// A descriptor in a queue.
#[derive(Debug)]
pub(crate) enum Held {
    Port(Carried),
    Memory(OutOfLine),
    Ports(Vec<Carried>, Kind),
    Guarded(Carried),
}

/// A message in a queue: the rights in it are the kernel's (ipc_kmsg.h, struct ipc_kmsg).
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) to: PortId,
    pub(crate) to_kind: Kind,
    pub(crate) id: i32,
    pub(crate) reply: Option<Carried>,
    pub(crate) is_complex: bool,
    pub(crate) held: Vec<Held>,
    pub(crate) payload: Vec<u32>,
    pub(crate) sender: [u32; 8],
}

impl Message {
    /// A notification (mach/notify.h): its word follows an NDR record.
    pub(crate) fn from_kernel(to: PortId, id: i32, word: Option<u32>) -> Self {
        let payload = word.map_or(Vec::new(), |word| vec![0, 1, word]);
        let held = Vec::new();
        // KERNEL_AUDIT_TOKEN_VALUE.
        Self { to, to_kind: Kind::Once, id, reply: None, is_complex: false, held, payload, sender: [0; 8] }
    }

    pub(crate) fn bytes(&self) -> u32 {
        let items: u32 = self.held.iter().map(|held| if let Held::Port(_) = held { 12 } else { 16 }).sum();
        24 + if self.is_complex { 4 + items } else { 0 } + 4 * self.payload.len() as u32
    }

    /// The ports whose receive rights it carries.
    fn received(&self) -> impl Iterator<Item = PortId> {
        let carried = self.held.iter().flat_map(|held| match held {
            Held::Port(carried) | Held::Guarded(carried) => std::slice::from_ref(carried),
            Held::Ports(all, _) => all,
            Held::Memory(_) => &[],
        });
        carried.filter(|carried| carried.kind == Kind::Receive).filter_map(|carried| carried.port)
    }
}

impl State {
    /// What a well-behaved task has in its buffer. Anything but inline ports is for [`Raw`].
    pub(crate) fn send_buffer(&mut self, task: TaskId, buffer: &mut Buffer, size: u32) -> Kern {
        let bits = buffer.word(at::BITS);
        // ipc_kmsg.c, ipc_kmsg_copyin_header_validate: no reply port means no disposition, and the other way round.
        let to_disposition = bits & 0x1f;
        if !matches!(to_disposition, 17 | 19)
            || bits >> 8 & 0x1f != 0
            || buffer.word(at::LOCAL) != 0
            || bits & !COMPLEX & !0x1f != 0
        {
            self.fault(task, format!("header bits {bits:#x}"));
            return Kern::SEND_INVALID_HEADER;
        }
        if buffer.word(at::SIZE) != size || !size.is_multiple_of(4) {
            self.fault(task, format!("a size of {} bytes in a message of {size}", buffer.word(at::SIZE)));
            return Kern::SEND_MSG_TOO_SMALL;
        }
        let count = if bits & COMPLEX == 0 { 0 } else { buffer.word(at::DESCRIPTORS) as usize };
        let first = if bits & COMPLEX == 0 { at::DESCRIPTORS } else { at::FIRST };
        let (mut items, mut place) = (Vec::new(), first);
        for _ in 0..count {
            let kind = buffer.word(place + 2);
            if kind >> 24 != 0 {
                self.fault(task, format!("a descriptor of type {}", kind >> 24));
                return Kern::SEND_INVALID_TYPE;
            }
            let disposition = kind >> 16 & 0xff;
            let confused = self.space(task).confuses.filter(|(from, _)| *from == disposition).map(|(_, to)| to);
            items.push(Item::Port(Name(buffer.word(place)), confused.unwrap_or(disposition)));
            place += 3;
        }
        let payload = (place..size as usize / 4).map(|at| buffer.word(at)).collect();
        let id = buffer.word(at::ID).cast_signed();
        let (moves_to, is_complex) = (to_disposition == 17, bits & COMPLEX != 0);
        let raw = Raw { to: buffer.word(at::REMOTE), moves_to, id, reply: None, is_complex, items, payload };
        self.send(task, &raw, Some(buffer))
    }

    /// `mach_msg` with `MACH_SEND_MSG` (ipc_kmsg.c, ipc_kmsg_copyin_header, ipc_kmsg_copyin_body, ipc_kmsg_send). `back` is where
    /// a message that found no room goes.
    pub(crate) fn send(&mut self, task: TaskId, raw: &Raw, back: Option<&mut Buffer>) -> Kern {
        // The header first: if that fails nothing has been touched.
        let is_dead = self.space(task).names.get(&Name(raw.to)).is_some_and(|entry| entry.dead > 0);
        if is_dead {
            return Kern::SEND_INVALID_DEST;
        }
        let to = match self.copy_in(task, Name(raw.to), if raw.moves_to { 17 } else { 19 }) {
            Ok(Carried { port: Some(port), .. }) => port,
            Ok(_) => return Kern::SEND_INVALID_DEST,
            Err(answer) => {
                self.fault(task, format!("a destination {:#x} that is no send right: {answer}", raw.to));
                return Kern::SEND_INVALID_DEST;
            }
        };
        let reply = raw.reply.and_then(|(name, disposition)| self.copy_in(task, name, disposition).ok());
        let (uid, pid) = (self.space(task).uid, task.0);
        let mut message = Message {
            to,
            to_kind: Kind::Send,
            id: raw.id,
            reply,
            is_complex: raw.is_complex || !raw.items.is_empty(),
            held: Vec::new(),
            payload: raw.payload.clone(),
            sender: [uid, uid, 0, uid, 0, pid, 0, 1],
        };
        for item in &raw.items {
            let held = match item {
                Item::Port(name, disposition) => self.copy_in_item(task, *name, *disposition).map(Held::Port),
                Item::Memory(memory) => Ok(Held::Memory(*memory)),
                Item::Guarded(name) => self.copy_in(task, *name, 16).map(Held::Guarded),
                Item::Ports(names, disposition) => self.copy_in_all(task, names, *disposition),
            };
            match held {
                Ok(held) => message.held.push(held),
                Err(answer) => {
                    // What was taken so far is destroyed with the header; the refused right and those after it stay.
                    self.fault(task, format!("{item:?} is no such right: {answer}"));
                    self.destroy_message(message);
                    return Kern::SEND_INVALID_RIGHT;
                }
            }
        }
        self.enqueue(task, message, back)
    }

    /// Those before one that is refused are destroyed (ipc_kmsg.c, ipc_kmsg_copyin_ool_ports_descriptor).
    fn copy_in_all(&mut self, task: TaskId, names: &[Name], disposition: u32) -> Result<Held, Kern> {
        let mut all = Vec::new();
        for name in names {
            match self.copy_in_item(task, *name, disposition) {
                Ok(carried) => all.push(carried),
                Err(answer) => {
                    all.into_iter().for_each(|carried| self.release(carried));
                    return Err(answer);
                }
            }
        }
        let kind = all.first().map_or(Kind::Send, |carried: &Carried| carried.kind);
        Ok(Held::Ports(all, kind))
    }

    fn copy_in_item(&mut self, task: TaskId, name: Name, disposition: u32) -> Result<Carried, Kern> {
        if name.is_valid() {
            return self.copy_in(task, name, disposition);
        }
        Ok(Carried { port: None, kind: Kind::Send })
    }

    /// Whether a receive right would come to lie in its own port's queue, directly or by way of others on their way
    /// (ipc_port.c, ipc_port_check_circularity).
    fn is_circular(&self, message: &Message) -> bool {
        let mut ports = Vec::from_iter(message.received().next().map(|_| message.to));
        while let Some(port) = ports.pop() {
            if message.received().any(|received| received == port) {
                return true;
            }
            let queued = |it: &Port| it.queue.iter().any(|message| message.received().any(|received| received == port));
            ports.extend(self.ports.iter().find(|(_, it)| queued(it)).map(|(on_its_way_to, _)| *on_its_way_to));
        }
        false
    }

    fn enqueue(&mut self, task: TaskId, message: Message, back: Option<&mut Buffer>) -> Kern {
        // ipc_kmsg.c, ipc_kmsg_send: such a loop is not made; the message is taken, and destroyed.
        if self.is_circular(&message) {
            self.destroy_message(message);
            return Kern::SUCCESS;
        }
        let it = self.port(message.to);
        // A dead port, and an object of the kernel's: taken, and destroyed.
        if !it.is_alive || it.object.is_some() || it.is_immortal {
            self.destroy_message(message);
            return Kern::SUCCESS;
        }
        let is_full = it.queue.len() >= it.limit || self.is_full_for == Some(task);
        let is_interrupted = match &mut self.interrupts {
            Some((of, left)) if *of == task && *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        };
        if is_full || is_interrupted {
            return match back {
                Some(buffer) => {
                    self.pseudo_receive(task, message, buffer);
                    if let Some(task) = self.dies_after_interruption.take() {
                        self.terminate(task);
                    }
                    if is_interrupted { Kern::SEND_INTERRUPTED } else { Kern::SEND_TIMED_OUT }
                }
                None => {
                    self.destroy_message(message);
                    Kern::SEND_TIMED_OUT
                }
            };
        }
        self.port(message.to).queue.push_back(message);
        if let Some(task) = self.dies_after_send.take() {
            self.terminate(task);
        }
        Kern::SUCCESS
    }

    /// A message that was not sent comes back, its header not turned round and every right moved
    /// (mach_msg.c, mach_msg_receive_pseudo; ipc_kmsg.c, ipc_kmsg_copyout_pseudo).
    fn pseudo_receive(&mut self, task: TaskId, message: Message, buffer: &mut Buffer) {
        let complex = if message.is_complex { COMPLEX } else { 0 };
        let to = self.copy_out(task, Carried { port: Some(message.to), kind: Kind::Send }).unwrap_or(Name::NULL);
        buffer.set(at::BITS, 17 | complex);
        buffer.set(at::REMOTE, to.0);
        self.copy_out_items(task, message.held, buffer);
    }
}
