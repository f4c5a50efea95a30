//! Each way once, from this process and from children of it.
//!
//! What is deprecated, or what the library has no use for, is looked up by name, so that nothing of it is linked.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::process::{Command, Stdio};

use frameport_sys::mach::{Kern, Name, ReceiveRight, SendRight, Task};
use frameport_sys::memory::{Region, Writers};
use frameport_sys::pixels::{Picture, Place, Plane};
use frameport_sys::surface::Surface;
use frameport_sys::task::ThisTask;
use objc2_core_foundation::{CFBoolean, CFDictionary, CFNumber, CFRetained, CFString, CFType};
use objc2_io_surface::IOSurfaceRef;

const BGRA: u32 = u32::from_be_bytes(*b"BGRA");

/// Tries one way and says what came of it.
type Ask = fn() -> String;

/// Prints the table.
pub(crate) fn print() {
    let rows: [(&str, Ask); 14] = [
        ("A    CFMessagePort by name", message_port),
        ("B    task_for_pid of a child", task_for_pid),
        ("C    bootstrap_register", bootstrap_register),
        ("D    fileport_makefd of a plain port", plain_port_as_file),
        ("     fileport_makefd of a fileport", file_and_back),
        ("     check_in, and look_up by a child", || named(&[])),
        ("     the same, child denied mach-lookup", || named(&["(deny mach-lookup)"])),
        ("     check_in, denied mach-register", || sandboxed("(deny mach-register)", "check-in", &name("denied"))),
        ("     registered port through posix_spawn", || registered(None)),
        ("     the same, in a sandbox without lookup", || registered(Some("(deny mach-lookup)"))),
        ("     registered port through fork", registered_fork),
        ("     surface by its ID, not global", || by_id(false)),
        ("     surface by its ID, global", || by_id(true)),
        ("     read-only memory entry mapped to write", read_only),
    ];
    for (what, ask) in rows {
        println!("{what:44}  {}", ask());
    }
    println!("{:44}  not asked: an endpoint travels only in an XPC message", "E    anonymous XPC endpoint");
}

/// What a child of this program does and says.
pub(crate) fn child(part: &str, value: &str) -> String {
    match part {
        "check-in" => match ThisTask.check_in(value) {
            Ok(port) => drop_receive(port, "a receive right"),
            Err(answer) => format!("error {answer}"),
        },
        "look-up" => told(ThisTask.look_up(value)),
        "slot" => told(slot()),
        "surface" => match value.parse() {
            Ok(id) => if surface_exists(id) { "found" } else { "not found" }.to_owned(),
            Err(_) => "no ID".to_owned(),
        },
        "message-port" => message_port_found(value),
        _ => "no such part".to_owned(),
    }
}

fn name(what: &str) -> String {
    format!("{}.probe.{}.{what}", frameport_sys::mach::entrance::PREFIX, std::process::id())
}

fn told(found: Result<Name, Kern>) -> String {
    match found {
        Ok(name) => match SendRight::own(&ThisTask, name) {
            Some(_) => "a send right".to_owned(),
            None => "no right".to_owned(),
        },
        Err(answer) => format!("error {answer}"),
    }
}

fn drop_receive(port: Name, said: &str) -> String {
    drop(ReceiveRight::own(&ThisTask, port));
    said.to_owned()
}

/// This program again, in a sandbox if there is a rule.
fn ask_child(rule: Option<&str>, part: &str, value: &str) -> String {
    let Ok(program) = std::env::current_exe() else { return "no program".to_owned() };
    let mut command = match rule {
        None => Command::new(program),
        Some(rule) => {
            let mut command = Command::new("/usr/bin/sandbox-exec");
            command.args(["-p", &format!("(version 1)(allow default){rule}")]).arg(program);
            command
        }
    };
    match command.args([part, value]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(output) => format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("not started: {error}"),
    }
}

fn sandboxed(rule: &str, part: &str, value: &str) -> String {
    ask_child(Some(rule), part, value)
}

fn named(rules: &[&str]) -> String {
    let name = name("named");
    let port = match ThisTask.check_in(&name) {
        Ok(port) => ReceiveRight::own(&ThisTask, port),
        Err(answer) => return format!("check_in: error {answer}"),
    };
    let said = ask_child(rules.first().copied(), "look-up", &name);
    drop(port);
    format!("{said}; after the port's end {}", told(ThisTask.look_up(&name)))
}

/// The third registered port.
fn slot() -> Result<Name, Kern> {
    let [zero, one, ours] = ThisTask.registered()?;
    drop((SendRight::own(&ThisTask, zero), SendRight::own(&ThisTask, one)));
    Ok(ours)
}

/// Does something while a port of this process is its third registered one.
fn with_slot(act: impl FnOnce() -> String) -> String {
    let asked = (|| {
        let port = ReceiveRight::new(&ThisTask, 1)?;
        let right = port.make_send()?;
        let [zero, one, found] = ThisTask.registered()?;
        let held = [zero, one, found].map(|name| SendRight::own(&ThisTask, name));
        ThisTask.register([zero, one, right.name().unwrap_or(Name::NULL)])?;
        let said = act();
        ThisTask.register([zero, one, found])?;
        drop(held);
        Ok(said)
    })();
    asked.unwrap_or_else(|answer: Kern| format!("error {answer}"))
}

fn registered(rule: Option<&str>) -> String {
    with_slot(|| ask_child(rule, "slot", "2"))
}

fn registered_fork() -> String {
    with_slot(|| {
        // SAFETY: this program has one thread here, and the child only asks for its ports and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let has = slot().is_ok_and(Name::is_valid);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if has { 1 } else { 2 }) };
        }
        let mut status = 0;
        // SAFETY: the pointer is valid for the call.
        if pid < 0 || unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
            return format!("no child: {}", io::Error::last_os_error());
        }
        let child = match libc::WEXITSTATUS(status) {
            1 => "a right",
            2 => "no right",
            _ => "nothing it could say",
        };
        format!("the child has {child}, and this process then {}", told(slot()))
    })
}

unsafe extern "C" {
    fn fileport_makeport(fd: c_int, port: *mut u32) -> c_int;
    fn fileport_makefd(port: u32) -> c_int;
}

fn as_file(right: &SendRight<ThisTask>) -> String {
    let Ok(name) = right.name() else { return "a right of another process".to_owned() };
    // SAFETY: any name may be passed.
    let fd = unsafe { fileport_makefd(name.0) };
    if fd < 0 {
        return format!("-1, {}", io::Error::last_os_error());
    }
    // SAFETY: the call has just made it.
    unsafe { libc::close(fd) };
    "a descriptor".to_owned()
}

fn plain_port() -> Result<(SendRight<ThisTask>, ReceiveRight<ThisTask>), Kern> {
    let port = ReceiveRight::new(&ThisTask, 1)?;
    Ok((port.make_send()?, port))
}

fn plain_port_as_file() -> String {
    plain_port().map_or_else(|answer| format!("error {answer}"), |(right, _port)| as_file(&right))
}

fn file_and_back() -> String {
    let mut name = 0;
    // SAFETY: the pointer is valid for the call.
    if unsafe { fileport_makeport(1, &raw mut name) } != 0 {
        return format!("no fileport of stdout: {}", io::Error::last_os_error());
    }
    SendRight::own(&ThisTask, Name(name)).map_or("no right".to_owned(), |right| as_file(&right))
}

fn read_only() -> String {
    let asked = Region::create("probe", 1 << 16, Writers::Creator).map(|(region, map)| {
        drop(map);
        match region.map(true) {
            Ok(_) => "mapped: the peer could write".to_owned(),
            Err(error) => format!("refused: {error}"),
        }
    });
    asked.unwrap_or_else(|error| format!("no region: {error}"))
}

/// A function by its name.
fn function(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends in zero.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// `kern_return_t task_for_pid(mach_port_name_t, int, mach_port_name_t *)`, mach/mach_traps.h.
type TaskForPid = unsafe extern "C" fn(u32, c_int, *mut u32) -> c_int;
/// `kern_return_t bootstrap_register(mach_port_t, name_t, mach_port_t)`, servers/bootstrap.h.
type Register = unsafe extern "C" fn(u32, *const c_char, u32) -> c_int;
/// `IOSurfaceRef IOSurfaceLookup(IOSurfaceID)`, IOSurface/IOSurfaceRef.h.
type Lookup = unsafe extern "C" fn(u32) -> *mut c_void;
/// `IOSurfaceID IOSurfaceGetID(IOSurfaceRef)`, as above.
type GetId = unsafe extern "C" fn(*const IOSurfaceRef) -> u32;
/// `CFMessagePortRef CFMessagePortCreateLocal(CFAllocatorRef, CFStringRef, callback, context *, Boolean *)`, CFMessagePort.h.
type CreateLocal =
    unsafe extern "C" fn(*const c_void, *const CFString, *const c_void, *const c_void, *mut u8) -> *mut c_void;
/// `CFMessagePortRef CFMessagePortCreateRemote(CFAllocatorRef, CFStringRef)`, as above.
type CreateRemote = unsafe extern "C" fn(*const c_void, *const CFString) -> *mut c_void;

const ABSENT: &str = "this system has no such function";

fn task_for_pid() -> String {
    let Some(found) = function(c"task_for_pid") else { return ABSENT.to_owned() };
    // SAFETY: the header gives the function by that name this type.
    let call = unsafe { std::mem::transmute::<*mut c_void, TaskForPid>(found) };
    let Ok(mut child) = Command::new("/bin/sleep").arg("60").spawn() else { return "no child".to_owned() };
    let mut port = 0;
    // SAFETY: a global that is set before main.
    let own = unsafe { mach2::traps::mach_task_self() };
    // SAFETY: the pointer is valid for the call.
    let answer = unsafe { call(own, child.id().cast_signed(), &raw mut port) };
    let _ = child.kill();
    let _ = child.wait();
    if answer == 0 { told(Ok(Name(port))) } else { format!("error {answer}") }
}

fn bootstrap_register() -> String {
    let Some(found) = function(c"bootstrap_register") else { return ABSENT.to_owned() };
    // SAFETY: the header gives the function by that name this type.
    let call = unsafe { std::mem::transmute::<*mut c_void, Register>(found) };
    let Ok((right, port)) = plain_port() else { return "no port".to_owned() };
    let name = name("registered");
    let Ok(text) = std::ffi::CString::new(name.as_str()) else { return "no name".to_owned() };
    // SAFETY: a global that is set before main.
    let launchd = unsafe { mach2::bootstrap::bootstrap_port };
    // SAFETY: the text ends in zero; both names are rights.
    let answer = unsafe { call(launchd, text.as_ptr(), right.name().unwrap_or(Name::NULL).0) };
    let said = format!("{answer}; a child looks it up: {}", ask_child(None, "look-up", &name));
    drop(port);
    said
}

fn by_id(global: bool) -> String {
    let Some(get) = function(c"IOSurfaceGetID") else { return ABSENT.to_owned() };
    // SAFETY: the header gives the function by that name this type.
    let get = unsafe { std::mem::transmute::<*mut c_void, GetId>(get) };
    if !global {
        let plane = Plane { width: 64, rows: 48, element: 4, place: Place { offset: 0, stride: 0 } };
        let picture = Picture { format: "bgra", full_range: false, width: 64, height: 48, planes: vec![plane] };
        let Some(surface) = Surface::create(&picture) else { return "no surface".to_owned() };
        // SAFETY: the surface is alive.
        let id = unsafe { get(surface.as_io_surface()) };
        return format!("by a child: {}", ask_child(None, "surface", &id.to_string()));
    }
    let keys =
        ["IOSurfaceWidth", "IOSurfaceHeight", "IOSurfacePixelFormat", "IOSurfaceBytesPerElement", "IOSurfaceIsGlobal"];
    let keys: Vec<CFRetained<CFString>> = keys.into_iter().map(CFString::from_str).collect();
    let numbers = [64, 48, i64::from(BGRA), 4].map(CFNumber::new_i64);
    let mut values: Vec<&CFType> = numbers.iter().map(|number| number.as_ref()).collect();
    let yes = CFBoolean::new(true);
    values.push(yes.as_ref());
    let keys: Vec<&CFString> = keys.iter().map(|key| &**key).collect();
    let properties = CFDictionary::<CFString, CFType>::from_slices(&keys, &values);
    // SAFETY: the dictionary has the types IOSurfaceRef.h asks for under those keys.
    let Some(surface) = (unsafe { IOSurfaceRef::new(properties.as_opaque()) }) else { return "no surface".to_owned() };
    // SAFETY: the surface is alive.
    let id = unsafe { get(&*surface) };
    format!("by a child: {}", ask_child(None, "surface", &id.to_string()))
}

fn surface_exists(id: u32) -> bool {
    let Some(found) = function(c"IOSurfaceLookup") else { return false };
    // SAFETY: the header gives the function by that name this type.
    let call = unsafe { std::mem::transmute::<*mut c_void, Lookup>(found) };
    // SAFETY: any number may be asked for. What is found is this process's until it ends, at once.
    !unsafe { call(id) }.is_null()
}

extern "C" fn nobody_calls() {}

fn message_port() -> String {
    let Some(found) = function(c"CFMessagePortCreateLocal") else { return ABSENT.to_owned() };
    // SAFETY: the header gives the function by that name this type.
    let call = unsafe { std::mem::transmute::<*mut c_void, CreateLocal>(found) };
    let name = name("message");
    let (text, null) = (CFString::from_str(&name), std::ptr::null());
    let callback: extern "C" fn() = nobody_calls;
    // SAFETY: the text is alive; without a run loop the callback is never called.
    let port = unsafe { call(null, &*text, callback as *const c_void, null, std::ptr::null_mut()) };
    if port.is_null() {
        return "none made".to_owned();
    }
    format!("made; a child {}; it carries data only, and no right", ask_child(None, "message-port", &name))
}

fn message_port_found(name: &str) -> String {
    let Some(found) = function(c"CFMessagePortCreateRemote") else { return ABSENT.to_owned() };
    // SAFETY: the header gives the function by that name this type.
    let call = unsafe { std::mem::transmute::<*mut c_void, CreateRemote>(found) };
    // SAFETY: the text is alive.
    let port = unsafe { call(std::ptr::null(), &*CFString::from_str(name)) };
    if port.is_null() { "does not find it" } else { "finds it" }.to_owned()
}
