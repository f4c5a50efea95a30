//! Rights: in and out of spaces, and released.

use frameport_sys::mach::{Kern, Name};

use super::port::{Carried, Entry, Kind};
use super::{State, TaskId};

impl State {
    /// A name never used before: an over-release is noticed whatever came since.
    pub(crate) fn new_name(&mut self) -> Name {
        Name(self.count() << 8 | 3)
    }

    pub(crate) fn entry(&mut self, task: TaskId, name: Name) -> Option<&mut Entry> {
        self.space(task).names.get_mut(&name)
    }

    pub(crate) fn drop_if_empty(&mut self, task: TaskId, name: Name) {
        let Some(entry) = self.entry(task, name) else { return };
        if entry.is_empty() {
            let request = entry.request;
            self.space(task).names.remove(&name);
            // ipc_right.c, ipc_right_dealloc: whoever waits for its death learns that the name is gone.
            if let Some(notify) = request {
                self.tell(notify, 65, Some(name.0));
            }
        }
    }

    /// Takes a right out of a space (ipc_right.c, ipc_right_copyin). Dead rights are taken too, as for a message's body
    /// (ipc_object.c, ipc_object_copyin).
    pub(crate) fn copy_in(&mut self, task: TaskId, name: Name, disposition: u32) -> Result<Carried, Kern> {
        let entry = self.entry(task, name).ok_or(Kern::INVALID_NAME)?;
        let port = entry.port;
        let carried = |kind| Carried { port, kind };
        match disposition {
            16 if entry.receive => {
                entry.receive = false;
                let port = port.expect("a receive right has a port");
                // ipc_port.c, ipc_port_clear_receiver.
                self.port(port).receiver = None;
                self.port(port).made = 0;
                self.drop_if_empty(task, name);
                Ok(carried(Kind::Receive))
            }
            17..=19 if entry.dead > 0 => {
                if disposition != 19 {
                    entry.dead -= 1;
                    self.drop_if_empty(task, name);
                }
                Ok(Carried { port: None, kind: if disposition == 18 { Kind::Once } else { Kind::Send } })
            }
            17 if entry.send > 0 => {
                entry.send -= 1;
                if entry.send > 0 {
                    // One reference less, one right more (ipc_port_copy_send_any_locked).
                    self.add_send(port.expect("a send right has a port"));
                }
                self.drop_if_empty(task, name);
                Ok(carried(Kind::Send))
            }
            18 if entry.once => {
                entry.once = false;
                self.drop_if_empty(task, name);
                Ok(carried(Kind::Once))
            }
            19 if entry.send > 0 => {
                self.add_send(port.expect("a send right has a port"));
                Ok(carried(Kind::Send))
            }
            20 if entry.receive => {
                self.make_send(port.expect("a receive right has a port"));
                Ok(carried(Kind::Send))
            }
            21 if entry.receive => {
                self.port(port.expect("a receive right has a port")).onces += 1;
                Ok(carried(Kind::Once))
            }
            _ => Err(Kern::INVALID_RIGHT),
        }
    }

    /// Puts a right into a space (ipc_object.c, ipc_object_copyout; ipc_right.c, ipc_right_copyout). Send and receive rights of
    /// one port share a name.
    pub(crate) fn copy_out(&mut self, task: TaskId, carried: Carried) -> Result<Name, Kern> {
        let Some(port) = carried.port.filter(|port| self.is_alive(*port)) else {
            return Ok(Name::DEAD);
        };
        let same = |(_, entry): &(&Name, &Entry)| entry.port == Some(port) && !entry.once;
        let known = self.space(task).names.iter().find(same).map(|(name, _)| *name);
        let known = known.filter(|_| carried.kind != Kind::Once);
        if known.is_none()
            && let Some(room) = &mut self.space(task).room
        {
            if *room == 0 {
                self.release(carried);
                return Err(Kern(0x2000));
            }
            *room -= 1;
        }
        let name = known.unwrap_or_else(|| self.new_name());
        let entry = self.space(task).names.entry(name).or_default();
        entry.port = Some(port);
        match carried.kind {
            Kind::Receive => {
                entry.receive = true;
                self.port(port).receiver = Some(task);
            }
            Kind::Once => entry.once = true,
            Kind::Send => {
                entry.send += 1;
                if entry.send > 1 {
                    // The space has one right, however many references.
                    self.port(port).sends -= 1;
                }
            }
        }
        Ok(name)
    }

    /// Destroys a right the kernel holds (ipc_object.c, ipc_object_destroy).
    pub(crate) fn release(&mut self, carried: Carried) {
        let Some(port) = carried.port else { return };
        match carried.kind {
            Kind::Send => self.release_send(port),
            Kind::Once => self.tell(port, 71, None),
            Kind::Receive => self.destroy_port(port),
        }
    }

    /// `mach_port_deallocate` (ipc_right.c, ipc_right_dealloc).
    pub(crate) fn deallocate(&mut self, task: TaskId, name: Name) -> Result<(), Kern> {
        let Some(entry) = self.entry(task, name) else { return Err(Kern::INVALID_NAME) };
        let port = entry.port;
        if entry.dead > 0 {
            entry.dead -= 1;
        } else if entry.once {
            entry.once = false;
            self.tell(port.expect("a right has a port"), 71, None);
        } else if entry.send > 0 {
            entry.send -= 1;
            if entry.send == 0 {
                self.release_send(port.expect("a right has a port"));
            }
        } else {
            return Err(Kern::INVALID_RIGHT);
        }
        self.drop_if_empty(task, name);
        Ok(())
    }

    /// `mach_port_mod_refs(RECEIVE, -1)` (ipc_right.c, ipc_right_delta).
    pub(crate) fn release_receive(&mut self, task: TaskId, name: Name) -> Result<(), Kern> {
        let Some(entry) = self.entry(task, name) else { return Err(Kern::INVALID_NAME) };
        let Some(port) = entry.port.filter(|_| entry.receive) else { return Err(Kern::INVALID_RIGHT) };
        entry.receive = false;
        self.destroy_port(port);
        self.drop_if_empty(task, name);
        Ok(())
    }
}
