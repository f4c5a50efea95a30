//! Names of the bootstrap namespace, and registered ports.

use frameport_sys::mach::{Kern, Name};

use super::port::{Carried, Kind, PortId};
use super::{State, TaskId};

impl State {
    /// `bootstrap_check_in` of a name without a plist: launchd makes the port, keeps a right to send for look-ups, and gives
    /// the receive right away (bootstrap.h; macos.md §3.1).
    pub(crate) fn check_in(&mut self, task: TaskId, service: &str) -> Result<Name, Kern> {
        if service.len() >= 128 {
            self.fault(task, format!("a name of {} bytes", service.len()));
        }
        if self.space(task).sandbox.register {
            return Err(Kern::NOT_PRIVILEGED);
        }
        if self.services.contains_key(service) {
            return Err(Kern::SERVICE_ACTIVE);
        }
        // MACH_PORT_QLIMIT_DEFAULT.
        let port = self.new_port(None, 5);
        self.make_send(port);
        self.services.insert(service.to_owned(), port);
        self.copy_out(task, Carried { port: Some(port), kind: Kind::Receive })
    }

    pub(crate) fn look_up(&mut self, task: TaskId, service: &str) -> Result<Name, Kern> {
        if self.space(task).sandbox.look_up {
            return Err(Kern::NOT_PRIVILEGED);
        }
        let port = *self.services.get(service).ok_or(Kern::UNKNOWN_SERVICE)?;
        self.add_send(port);
        self.copy_out(task, Carried { port: Some(port), kind: Kind::Send })
    }

    /// `mach_ports_lookup` (ipc_tt.c, _kernelrpc_mach_ports_lookup3; ipc_port.c, ipc_port_copy_send_any).
    pub(crate) fn registered(&mut self, task: TaskId) -> [Name; 3] {
        self.space(task).registered.map(|port| {
            let Some(port) = port else { return Name::NULL };
            if self.is_alive(port) {
                self.add_send(port);
            }
            self.copy_out(task, Carried { port: Some(port), kind: Kind::Send }).unwrap_or(Name::NULL)
        })
    }

    /// `mach_ports_register` (ipc_tt.c, _kernelrpc_mach_ports_register3).
    pub(crate) fn register(&mut self, task: TaskId, names: [Name; 3]) -> Result<(), Kern> {
        let mut ports = [None; 3];
        for (place, name) in ports.iter_mut().zip(names).filter(|(_, name)| *name != Name::NULL) {
            *place = self.copy_in(task, name, 19)?.port;
        }
        if ports[0] != self.space(task).registered[0] {
            self.fault(task, "libxpc's registered port was replaced".to_owned());
        }
        for (slot, port) in ports.into_iter().enumerate() {
            self.replace_registered(task, slot, port);
        }
        Ok(())
    }

    pub(crate) fn replace_registered(&mut self, task: TaskId, slot: usize, port: Option<PortId>) {
        let old = std::mem::replace(&mut self.space(task).registered[slot], port);
        // launchd's own is not counted.
        if let Some(old) = old.filter(|old| self.ports.get(old).is_some_and(|port| !port.is_immortal)) {
            self.release_send(old);
        }
    }
}
