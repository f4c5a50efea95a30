//! The `frameport` program: the library's `main` and nothing else.
#![forbid(unsafe_code)]

fn main() {
    std::process::exit(frameport_cli::main(std::env::args_os()));
}
