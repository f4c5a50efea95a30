//! What is declared by hand, and what the portable half assumes of structures that others declare.
//!
//! *Who calls it*: the backend's other files. *Invariants*: every declaration here stands in Apple's headers or, where it says
//! so, in none that can be had; `ci/apple_headers.py` compares it with the former and looks for the symbol of the latter.

use std::ffi::c_int;
use std::mem::{align_of, offset_of, size_of};

use mach2::kern_return::kern_return_t;
use mach2::message::{
    mach_msg_audit_trailer_t, mach_msg_body_t, mach_msg_header_t, mach_msg_ool_descriptor_t,
    mach_msg_ool_ports_descriptor_t, mach_msg_port_descriptor_t,
};
use mach2::port::{
    mach_port_name_t, mach_port_options_t, mach_port_right_t, mach_port_t, mach_port_type_t, mach_port_urefs_t,
};
use mach2::vm_types::natural_t;

use crate::mach::message::{BODY_WORDS, Buffer, HEADER_WORDS, OTHER_WORDS, PORT_WORDS, at};

unsafe extern "C" {
    /// mach/mach_port.h
    pub(super) fn mach_port_type(
        task: mach_port_t,
        name: mach_port_name_t,
        kind: *mut mach_port_type_t,
    ) -> kern_return_t;
    /// mach/mach_port.h
    pub(super) fn mach_port_get_refs(
        task: mach_port_t,
        name: mach_port_name_t,
        right: mach_port_right_t,
        refs: *mut mach_port_urefs_t,
    ) -> kern_return_t;
    /// pthread.h
    pub(super) fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> c_int;
    /// no header: sys/fileport.h
    pub(super) fn fileport_makeport(fd: c_int, port: *mut mach_port_t) -> c_int;
    /// no header: sys/fileport.h
    pub(super) fn fileport_makefd(port: mach_port_t) -> c_int;
}

/// `MACH_PORT_TYPE_SEND`: the name is a send right and nothing else, and nobody asked to be told of its death.
pub(super) const TYPE_SEND: mach_port_type_t = 1 << 16;
/// `MACH_RCV_TRAILER_AUDIT`: how much of the trailer is asked for.
pub(super) const TRAILER_AUDIT: natural_t = 3;
/// `MAP_MEM_NAMED_CREATE`: the entry is of new memory.
pub(super) const MAP_MEM_NAMED_CREATE: c_int = 0x02_0000;

/// Compares a structure with what is assumed of it, in bytes.
macro_rules! layout {
    ($structure:ty { $($field:ident: $at:expr),* } $size:expr) => {
        const _: () = {
            assert!(size_of::<$structure>() == $size);
            assert!(align_of::<$structure>() <= align_of::<Buffer>());
            $(assert!(offset_of!($structure, $field) == $at);)*
        };
    };
}

layout!(mach_msg_header_t {
    msgh_bits: 0,
    msgh_size: 4,
    msgh_remote_port: 8,
    msgh_local_port: 12,
    msgh_voucher_port: 16,
    msgh_id: 20
} 24);
layout!(mach_msg_body_t { msgh_descriptor_count: 0 } 4);
layout!(mach_msg_port_descriptor_t { name: 0 } 12);
layout!(mach_msg_ool_descriptor_t { address: 0, size: 12 } 16);
layout!(mach_msg_ool_ports_descriptor_t { address: 0, count: 12 } 16);
layout!(mach_msg_audit_trailer_t {
    msgh_trailer_type: 0,
    msgh_trailer_size: 4,
    msgh_seqno: 8,
    msgh_sender: 12,
    msgh_audit: 20
} 52);
layout!(mach_port_options_t { flags: 0, mpl: 4 } 24);

// The bytes of the word between, bit-fields in C, which has no places of those.
const _: () = {
    assert!(offset_of!(mach_msg_ool_descriptor_t, deallocate) == 8);
    assert!(offset_of!(mach_msg_ool_descriptor_t, type_) == 11);
    assert!(offset_of!(mach_msg_ool_ports_descriptor_t, type_) == 11);
};

// The places the portable half counts in words.
const _: () = {
    assert!(HEADER_WORDS * 4 == size_of::<mach_msg_header_t>());
    assert!(BODY_WORDS * 4 == size_of::<mach_msg_body_t>());
    assert!(PORT_WORDS * 4 == size_of::<mach_msg_port_descriptor_t>());
    assert!(OTHER_WORDS * 4 == size_of::<mach_msg_ool_descriptor_t>());
    assert!(at::BITS * 4 == offset_of!(mach_msg_header_t, msgh_bits));
    assert!(at::SIZE * 4 == offset_of!(mach_msg_header_t, msgh_size));
    assert!(at::REMOTE * 4 == offset_of!(mach_msg_header_t, msgh_remote_port));
    assert!(at::LOCAL * 4 == offset_of!(mach_msg_header_t, msgh_local_port));
    assert!(at::ID * 4 == offset_of!(mach_msg_header_t, msgh_id));
    assert!(at::DESCRIPTORS * 4 == size_of::<mach_msg_header_t>());
    assert!(at::FIRST * 4 == size_of::<mach_msg_header_t>() + size_of::<mach_msg_body_t>());
};
