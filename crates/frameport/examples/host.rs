//! A host in Rust: sends a moving ramp through any worker and prints what comes back.
//!
//! `cargo run -p frameport --example host -- python examples/overlay.py`
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Worker};

fn main() -> Result<(), Error> {
    let mut command = std::env::args_os().skip(1);
    let program = command.next().unwrap_or_else(|| "python3".into());
    let spec = VideoSpec::new(PixelFormat::Bgr24, 640, 360).fps(30, 1);
    let worker = Worker::command(program)
        .args(command)
        .input("in", &spec, Delivery::Lossless)
        .output("out", &spec, Delivery::Lossless)
        .spawn()?;

    for n in 0..30_usize {
        let ramp: Vec<u8> = (0..640).flat_map(|x| [(x + n * 8) as u8; 3]).collect();
        let mut frame = worker.loan()?;
        if let Some(plane) = frame.plane_mut(0) {
            plane.copy_from(&ramp.repeat(360))?;
        }
        worker.send(frame)?;
        let out = worker.recv()?;
        let ms = (frameport::now() - out.timestamp_ns()) as f64 / 1e6;
        println!("frame {}: {} bytes, {ms:.2} ms after it was sent", out.seq(), out.payload().len());
    }
    Ok(())
}
