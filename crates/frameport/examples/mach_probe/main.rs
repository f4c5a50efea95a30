//! Asks this Mac what the ways to a first Mach right answer, and how long each wake-up takes: the table of docs/macos.md, filled
//! in. Not run so far: no Mac was at hand.
//!
//! ```sh
//! cargo run --release -p frameport --example mach_probe
//! ```
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

#[cfg(target_os = "macos")]
mod latency;
#[cfg(target_os = "macos")]
mod ways;

#[cfg(target_os = "macos")]
fn main() {
    use frameport_sys::limits;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            println!("{} {}, {}", limits::KERNEL, limits::kernel_release(), std::env::consts::ARCH);
            ways::print();
            latency::print();
        }
        ["latency", part] => latency::peer(part),
        [part, value] => println!("{}", ways::child(part, value)),
        _ => println!("usage: mach_probe"),
    }
}

#[cfg(not(target_os = "macos"))]
fn main() {
    println!("mach_probe needs a Mac: it asks macOS what its ways to a Mach right answer");
}
