//! A camera at its own pace and a worker that is six times slower. A file of its own: it measures the process's memory.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod common;

use std::time::{Duration, Instant};

use common::{is_picture, picture, resident, role, worker};
use frameport::spec::{BytesSpec, PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Exit, Frame, Link, Stats, Worker, now};

const SIZE: usize = 320 * 240;
/// Five seconds of them.
const FRAMES: u64 = 300;
const WARM_UP: u64 = 60;
const PACE: Duration = Duration::from_nanos(1_000_000_000 / 60);
const TAKES: Duration = Duration::from_millis(100);

/// The workers of this file: tell which frame they got and when they asked for it.
#[test]
fn worker_process() {
    if role().is_none() {
        return;
    }
    let link = Link::from_env().unwrap();
    let tell = || -> Result<(), Error> {
        loop {
            let asked = now();
            let frame = link.recv()?;
            std::thread::sleep(TAKES);
            assert!(is_picture(&frame, frame.seq()), "frame {} changed while it was held", frame.seq());
            let mut answer = link.loan()?;
            answer.set_seq(frame.seq());
            answer.fill(&asked.to_le_bytes())?;
            link.send(answer)?;
        }
    };
    match tell() {
        Ok(()) | Err(Error::LinkClosed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// A host with its camera.
struct Camera {
    worker: Worker,
    /// Of each frame when it was there to be had.
    sent: Vec<u64>,
    answers: u64,
}

impl Camera {
    fn start() -> Self {
        let spec = VideoSpec::new(PixelFormat::Gray, 320, 240).fps(60, 1);
        let worker =
            worker("slow").input("in", spec, Delivery::Latest).output("told", BytesSpec::new(8), Delivery::Lossless);
        Self { worker: worker.spawn().unwrap(), sent: Vec::with_capacity(FRAMES as usize), answers: 0 }
    }

    /// Sends frame after frame, each at its time, and takes what the worker says meanwhile.
    fn film(&mut self, frames: u64) -> Result<(), Error> {
        let start = Instant::now();
        for number in 0..frames {
            std::thread::sleep((start + PACE * number as u32).saturating_duration_since(Instant::now()));
            let seq = self.sent.len() as u64;
            let mut frame = self.worker.loan_if_free()?.unwrap_or_else(|| panic!("frame {seq} would have to wait"));
            frame.fill(&picture(seq, SIZE))?;
            assert_eq!(self.worker.send(frame)?, seq);
            self.sent.push(now());
            while let Some(answer) = self.worker.try_recv()? {
                self.check(&answer);
            }
            assert_closed(&self.worker.stats());
        }
        Ok(())
    }

    /// It got the newest frame there was when it asked, or one that came later.
    fn check(&mut self, answer: &Frame) {
        let asked = u64::from_le_bytes(answer.snapshot().try_into().unwrap());
        let newest = self.sent.partition_point(|&sent| sent < asked).checked_sub(1);
        assert!(newest.is_none_or(|newest| answer.seq() >= newest as u64), "frame {} for {newest:?}", answer.seq());
        self.answers += 1;
    }
}

fn assert_closed(stats: &Stats) {
    let Stats { offered, received, retracted, no_slot, refused, lost, in_flight, .. } = *stats;
    assert_eq!(offered, received + retracted + no_slot + refused + lost + in_flight, "{stats:?}");
}

#[test]
fn a_slow_worker_gets_the_newest_frames_and_costs_its_camera_neither_time_nor_memory() {
    if role().is_some() {
        return;
    }
    let mut camera = Camera::start();
    camera.film(WARM_UP).unwrap();
    let before = resident();
    camera.film(FRAMES - WARM_UP).unwrap();
    let grown = resident().saturating_sub(before);
    // Kept, the frames it did not get would be 15 MB.
    assert!(grown < 1 << 20, "{grown} bytes more");
    camera.worker.finish();
    loop {
        match camera.worker.recv() {
            Ok(answer) => camera.check(&answer),
            Err(Error::LinkClosed { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(camera.worker.wait_exit(Duration::from_secs(30)), Some(Exit::Code(0)));
    let stats = camera.worker.stats();
    assert_closed(&stats);
    let Stats { sent, received, retracted, no_slot, .. } = stats;
    assert_eq!((sent, received, retracted, no_slot), (FRAMES, camera.answers, FRAMES - received, 0), "{stats:?}");
    assert!(retracted > 0, "it was to be too slow");

    // Killed in the middle.
    let mut camera = Camera::start();
    camera.film(40).unwrap();
    camera.worker.kill();
    let death = camera.film(FRAMES).unwrap_err();
    assert!(matches!(death, Error::WorkerDied(_)), "{death}");
    let stats = camera.worker.stats();
    assert_closed(&stats);
    assert_eq!((stats.no_slot, stats.in_flight), (0, 0), "{stats:?}");
}
