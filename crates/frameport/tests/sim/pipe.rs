//! One worker with a channel in and one out.

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Link, Worker};
use frameport_sys::world::{self, World};

use crate::harness::{check, explore, faults, fill};

fn spec() -> VideoSpec {
    VideoSpec::new(PixelFormat::Bgr24, 7, 5)
}

#[test]
fn echo() {
    explore("echo", 300, |seed| {
        World::new(seed, faults(seed))
            .program("echo", |_| {
                let link = Link::from_env().unwrap();
                while let Ok(frame) = link.recv() {
                    check(frame.payload(), frame.seq());
                    link.send_back(frame).unwrap();
                }
                0
            })
            .run(|| {
                let worker = Worker::command("echo")
                    .input("in", spec(), Delivery::Lossless)
                    .output("out", spec(), Delivery::Lossless)
                    .spawn()
                    .unwrap();
                for seq in 0..20 {
                    let mut frame = worker.loan().unwrap();
                    fill(&mut frame, seq);
                    assert_eq!(worker.send(frame).unwrap(), seq);
                    let back = worker.recv().unwrap();
                    check(back.payload(), back.seq());
                }
                worker.stop().unwrap();
            })
    });
}
