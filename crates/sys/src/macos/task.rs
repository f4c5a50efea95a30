//! This process's calls about ports, as the portable half of Mach makes them. Not run: no Mac was at hand.
//!
//! *Who calls it*: [`crate::mach`]. *Invariants*: libSystem's `mach_msg`, never the trap; every send and receive of ours has a
//! time limit, which `bootstrap_check_in` and `bootstrap_look_up` have not; no voucher and no reply port is ever asked for.

use std::ffi::CString;

use mach2::message::{
    MACH_MSG_TYPE_MAKE_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE, MACH_RCV_MSG, MACH_RCV_TIMEOUT, MACH_SEND_INTERRUPT,
    MACH_SEND_MSG, MACH_SEND_TIMEOUT, mach_msg, mach_msg_destroy, mach_msg_header_t, mach_msg_option_t,
};
use mach2::port::{
    MACH_PORT_LIMITS_INFO, MACH_PORT_LIMITS_INFO_COUNT, MACH_PORT_RIGHT_RECEIVE, MACH_PORT_RIGHT_SEND, MPO_QLIMIT,
    mach_port_limits_t, mach_port_options_t, mach_port_t,
};
use mach2::traps::mach_task_self;
use mach2::{bootstrap, mach_port, task, vm};

use super::raw;
use super::surface::Surface;
use crate::mach::task::Notify;
use crate::mach::{Buffer, Kern, Name, Task};

/// This process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisTask;

/// The name of this process's own task port.
pub(super) fn own() -> mach_port_t {
    // SAFETY: libSystem sets it before any code of ours runs, and it never changes but in a forked child.
    unsafe { mach_task_self() }
}

pub(super) fn answer(code: i32) -> Result<(), Kern> {
    if code == 0 { Ok(()) } else { Err(Kern(code)) }
}

impl Task for ThisTask {
    type Surface = Surface;

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn construct(&self, queue_limit: u32) -> Result<Name, Kern> {
        let limits = mach_port_limits_t { mpl_qlimit: queue_limit };
        let mut options = mach_port_options_t { flags: MPO_QLIMIT, mpl: limits, reserved: [0; 2] };
        let mut name = 0;
        // SAFETY: both pointers are valid for the call.
        answer(unsafe { mach_port::mach_port_construct(own(), &raw mut options, 0, &raw mut name) })?;
        Ok(Name(name))
    }

    fn set_queue_limit(&self, name: Name, queue_limit: u32) -> Result<(), Kern> {
        let mut limits = mach_port_limits_t { mpl_qlimit: queue_limit };
        let (info, count) = ((&raw mut limits).cast(), MACH_PORT_LIMITS_INFO_COUNT);
        // SAFETY: the pointer is to the structure of that flavour, and `count` is its length.
        answer(unsafe { mach_port::mach_port_set_attributes(own(), name.0, MACH_PORT_LIMITS_INFO, info, count) })
    }

    fn make_send(&self, name: Name) -> Result<(), Kern> {
        // SAFETY: names only.
        answer(unsafe { mach_port::mach_port_insert_right(own(), name.0, name.0, MACH_MSG_TYPE_MAKE_SEND) })
    }

    fn release_receive(&self, name: Name) -> Result<(), Kern> {
        // SAFETY: names only.
        answer(unsafe { mach_port::mach_port_mod_refs(own(), name.0, MACH_PORT_RIGHT_RECEIVE, -1) })
    }

    fn deallocate(&self, name: Name) -> Result<(), Kern> {
        // SAFETY: names only.
        answer(unsafe { mach_port::mach_port_deallocate(own(), name.0) })
    }

    fn is_sole_send(&self, name: Name) -> bool {
        let (mut kind, mut refs) = (0, 0);
        // SAFETY: the pointer is valid for the call.
        let typed = unsafe { raw::mach_port_type(own(), name.0, &raw mut kind) };
        // SAFETY: the pointer is valid for the call.
        let counted = unsafe { raw::mach_port_get_refs(own(), name.0, MACH_PORT_RIGHT_SEND, &raw mut refs) };
        typed == 0 && counted == 0 && kind == raw::TYPE_SEND && refs == 1
    }

    fn request_notification(&self, port: Name, what: Notify, sync: u32, to: Name) -> Result<Name, Kern> {
        let (id, once, mut previous) = (what.id(), MACH_MSG_TYPE_MAKE_SEND_ONCE, 0);
        // SAFETY: the pointer is valid for the call.
        let code = unsafe {
            mach_port::mach_port_request_notification(own(), port.0, id, sync, to.0, once, &raw mut previous)
        };
        answer(code)?;
        Ok(Name(previous))
    }

    unsafe fn send(&self, message: &mut Buffer, size: u32, limit_ms: u32) -> Kern {
        let header = message.as_mut_ptr().cast::<mach_msg_header_t>();
        let options = MACH_SEND_MSG | MACH_SEND_TIMEOUT | MACH_SEND_INTERRUPT;
        // SAFETY: `size` bytes of the buffer are the message, and it is writable for what comes back; the caller answers for
        // its descriptors.
        Kern(unsafe { mach_msg(header, options, size, 0, 0, limit_ms, 0) })
    }

    fn receive(&self, from: Name, into: &mut Buffer, limit_ms: u32) -> Kern {
        let header = into.as_mut_ptr().cast::<mach_msg_header_t>();
        // MACH_RCV_TRAILER_TYPE(MACH_MSG_TRAILER_FORMAT_0) is zero.
        let trailer = (raw::TRAILER_AUDIT << 24).cast_signed() as mach_msg_option_t;
        let options = MACH_RCV_MSG | MACH_RCV_TIMEOUT | trailer;
        // SAFETY: the whole buffer may be written.
        Kern(unsafe { mach_msg(header, options, 0, Buffer::BYTES, from.0, limit_ms, 0) })
    }

    unsafe fn destroy(&self, message: &mut Buffer) {
        let header = message.as_mut_ptr().cast::<mach_msg_header_t>();
        // SAFETY: by the caller's word the kernel wrote the message, so that its descriptors are what they say, and the memory
        // in them is the message's.
        unsafe { mach_msg_destroy(header) };
    }

    fn check_in(&self, service: &str) -> Result<Name, Kern> {
        let (service, mut name) = (CString::new(service).map_err(|_| Kern::INVALID_ARGUMENT)?, 0);
        // SAFETY: libSystem sets the static before any code of ours runs.
        let launchd = unsafe { bootstrap::bootstrap_port };
        // SAFETY: the string and the pointer are valid for the call.
        answer(unsafe { bootstrap::bootstrap_check_in(launchd, service.as_ptr(), &raw mut name) })?;
        Ok(Name(name))
    }

    fn look_up(&self, service: &str) -> Result<Name, Kern> {
        let (service, mut name) = (CString::new(service).map_err(|_| Kern::INVALID_ARGUMENT)?, 0);
        // SAFETY: as above.
        let launchd = unsafe { bootstrap::bootstrap_port };
        // SAFETY: the string and the pointer are valid for the call.
        answer(unsafe { bootstrap::bootstrap_look_up(launchd, service.as_ptr(), &raw mut name) })?;
        Ok(Name(name))
    }

    fn registered(&self) -> Result<[Name; 3], Kern> {
        let (mut ports, mut count) = (std::ptr::null_mut::<mach_port_t>(), 0);
        // SAFETY: both pointers are valid for the call.
        answer(unsafe { task::mach_ports_lookup(own(), &raw mut ports, &raw mut count) })?;
        let mut names = [Name::NULL; 3];
        for (index, name) in names.iter_mut().enumerate().take(count as usize) {
            // SAFETY: the kernel has mapped `count` names there.
            let place = unsafe { ports.add(index) };
            // SAFETY: as above.
            *name = Name(unsafe { place.read() });
        }
        let (address, len) = (ports.addr() as u64, u64::from(count) * size_of::<mach_port_t>() as u64);
        // SAFETY: the array is ours alone, and nothing points into it any more.
        let _ = unsafe { vm::mach_vm_deallocate(own(), address, len) };
        Ok(names)
    }

    fn register(&self, ports: [Name; 3]) -> Result<(), Kern> {
        let mut ports = ports.map(|name| name.0);
        // SAFETY: the pointer is to three names.
        answer(unsafe { task::mach_ports_register(own(), ports.as_mut_ptr(), 3) })
    }

    fn surface_port(&self, surface: &Surface) -> Result<Name, Kern> {
        Some(surface.create_port()).filter(|name| name.is_valid()).ok_or(Kern::FAILURE)
    }

    fn surface_from_port(&self, port: Name) -> Option<Surface> {
        Surface::from_port(port)
    }
}
