//! Ports, rights, and what each task calls them.

use std::collections::VecDeque;

use frameport_sys::mach::{Kern, Name};

use super::message::Message;
use super::surface::Object;
use super::{State, TaskId};

/// A port, for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortId(u32);

/// A port (ipc_port.h, struct ipc_port).
#[derive(Debug, Default)]
pub(crate) struct Port {
    pub(crate) is_alive: bool,
    pub(crate) is_immortal: bool,
    /// Who may receive; nobody while the right travels, and for the kernel's own.
    pub(crate) receiver: Option<TaskId>,
    pub(crate) limit: usize,
    pub(crate) queue: VecDeque<Message>,
    pub(crate) sends: usize,
    pub(crate) onces: usize,
    /// Send rights made from the receive right (`ip_mscount`).
    pub(crate) made: u32,
    pub(crate) no_senders: Option<PortId>,
    pub(crate) object: Option<Object>,
}

/// A name in a space (ipc_entry.h, struct ipc_entry).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) port: Option<PortId>,
    pub(crate) receive: bool,
    pub(crate) send: u32,
    pub(crate) once: bool,
    pub(crate) dead: u32,
    /// Whom to tell of its death.
    pub(crate) request: Option<PortId>,
}

impl Entry {
    pub(crate) fn is_empty(&self) -> bool {
        !self.receive && self.send == 0 && !self.once && self.dead == 0
    }
}

/// Kinds of rights on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Receive,
    Send,
    Once,
}

impl Kind {
    /// As the receiver sees it (ipc_object.c, ipc_object_copyin_type).
    pub(crate) fn disposition(self) -> u32 {
        match self {
            Self::Receive => 16,
            Self::Send => 17,
            Self::Once => 18,
        }
    }
}

/// A right the kernel has taken out of a space. No port: it was dead.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) port: Option<PortId>,
    pub(crate) kind: Kind,
}

impl State {
    pub(crate) fn new_port(&mut self, receiver: Option<TaskId>, limit: usize) -> PortId {
        let id = PortId(self.count());
        self.ports.insert(id, Port { is_alive: true, receiver, limit, ..Port::default() });
        id
    }

    pub(crate) fn port(&mut self, port: PortId) -> &mut Port {
        self.ports.get_mut(&port).expect("the port exists")
    }

    pub(crate) fn is_alive(&self, port: PortId) -> bool {
        self.ports.get(&port).is_some_and(|port| port.is_alive)
    }

    pub(crate) fn add_send(&mut self, port: PortId) {
        self.port(port).sends += 1;
    }

    pub(crate) fn make_send(&mut self, port: PortId) {
        self.port(port).made += 1;
        self.port(port).sends += 1;
    }

    /// One send right less; the last brings the notification (ipc_notify.c, ipc_notify_no_senders_prepare).
    pub(crate) fn release_send(&mut self, port: PortId) {
        let it = self.port(port);
        it.sends = it.sends.checked_sub(1).expect("the kernel counts right");
        if it.sends > 0 || !it.is_alive {
            return;
        }
        let made = it.made;
        if let Some(notify) = it.no_senders.take() {
            self.tell(notify, 70, Some(made));
        }
        if let Some(object) = self.port(port).object.take() {
            self.object_is_unreachable(object);
            self.destroy_port(port);
        }
    }

    /// Destroys a port: its messages, then who waits for it (ipc_port.c, ipc_port_destroy).
    pub(crate) fn destroy_port(&mut self, port: PortId) {
        let it = self.port(port);
        it.is_alive = false;
        it.receiver = None;
        let (queue, no_senders) = (std::mem::take(&mut it.queue), it.no_senders.take());
        queue.into_iter().for_each(|message| self.destroy_message(message));
        if let Some(notify) = no_senders {
            self.tell(notify, 71, None);
        }
        self.services.retain(|_, service| *service != port);
        let mut told = Vec::new();
        for space in self.spaces.values_mut() {
            for (name, entry) in space.names.iter_mut().filter(|(_, entry)| entry.port == Some(port)) {
                // ipc_right.c, ipc_right_check: a dead name, with the reference its notification brings.
                let request = entry.request.take();
                let dead = entry.send + u32::from(entry.once) + u32::from(request.is_some());
                *entry = Entry { dead, ..Entry::default() };
                told.extend(request.map(|notify| (notify, *name)));
            }
            space.names.retain(|_, entry| !entry.is_empty());
        }
        told.into_iter().for_each(|(notify, name)| self.tell(notify, 72, Some(name.0)));
    }

    /// Uses a send-once right for a message of the kernel's own (ipc_notify.c); the queue limit does not hold for those
    /// (ipc_mqueue.c, ipc_mqueue_send_locked).
    pub(crate) fn tell(&mut self, to: PortId, id: i32, word: Option<u32>) {
        let it = self.port(to);
        it.onces = it.onces.checked_sub(1).expect("the kernel counts right");
        if it.is_alive {
            it.queue.push_back(Message::from_kernel(to, id, word));
        }
    }

    /// `mach_port_request_notification` (mach_port.c; ipc_port.c, ipc_port_nsrequest; ipc_right.c, ipc_right_request_alloc).
    pub(crate) fn request(&mut self, task: TaskId, name: Name, id: i32, sync: u32, to: Name) -> Result<Name, Kern> {
        let notify = self.copy_in(task, to, 21)?.port.expect("made from a receive right");
        let refused = |state: &mut Self, why| {
            state.port(notify).onces -= 1;
            Err(why)
        };
        let Some(entry) = self.entry(task, name) else { return refused(self, Kern::INVALID_NAME) };
        let previous = if id == 70 {
            let Some(port) = entry.port.filter(|_| entry.receive) else { return refused(self, Kern::INVALID_RIGHT) };
            let it = self.port(port);
            if it.sends == 0 && sync <= it.made {
                let (previous, made) = (it.no_senders.take(), it.made);
                self.tell(notify, 70, Some(made));
                previous
            } else {
                it.no_senders.replace(notify)
            }
        } else {
            // Only send-possible requests are answered at once for a name that is dead already.
            if entry.dead > 0 {
                return refused(self, Kern::INVALID_ARGUMENT);
            }
            entry.request.replace(notify)
        };
        Ok(previous.map_or(Name::NULL, |port| {
            self.copy_out(task, Carried { port: Some(port), kind: Kind::Once }).unwrap_or(Name::NULL)
        }))
    }

    /// `mach_port_set_attributes(MACH_PORT_LIMITS_INFO)` (mach_port.c).
    pub(crate) fn limit(&mut self, task: TaskId, name: Name, limit: u32) -> Result<(), Kern> {
        let Some(entry) = self.entry(task, name) else { return Err(Kern::INVALID_NAME) };
        let Some(port) = entry.port.filter(|_| entry.receive) else { return Err(Kern::INVALID_RIGHT) };
        // MACH_PORT_QLIMIT_MAX.
        if limit > 1024 {
            return Err(Kern::INVALID_VALUE);
        }
        self.port(port).limit = limit as usize;
        Ok(())
    }

    /// The end of a task: its receive rights first, then the rest (ipc_space.c, ipc_space_terminate).
    pub(crate) fn terminate(&mut self, task: TaskId) {
        if !self.space(task).is_alive {
            return;
        }
        let receives =
            |state: &mut Self| state.space(task).names.iter().find(|(_, entry)| entry.receive).map(|(name, _)| *name);
        while let Some(name) = receives(self) {
            let _ = self.release_receive(task, name);
        }
        while let Some(name) = self.space(task).names.keys().next().copied() {
            let _ = self.deallocate(task, name);
        }
        for slot in 0..3 {
            self.replace_registered(task, slot, None);
        }
        self.surfaces_of_dead(task);
        self.space(task).memory.clear();
        self.space(task).is_alive = false;
    }
}
