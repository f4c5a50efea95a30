//! The worker that comes with the command.
//!
//! *Who calls it*: `main`, in a process that `demo` or `doctor` started. *Invariants*: a frame without metadata goes
//! straight back, untouched; one with metadata is read to its last byte, drawn on in place, and goes back with what was
//! read. The host does the same sums and drawing and compares.

use frameport::{Error, Frame, Link};
use serde_json::{Map, Value};

/// Works until the host has finished, and returns the exit status.
pub(crate) fn work() -> i32 {
    let link = match Link::from_env() {
        Ok(link) => link,
        Err(error) => {
            crate::complain(&error);
            return crate::FAILED;
        }
    };
    loop {
        let done = link.recv().and_then(|frame| answer(&link, frame));
        match done {
            Ok(()) => {}
            Err(Error::LinkClosed { .. }) => return crate::OK,
            Err(error) => {
                link.fail(&error.to_string());
                return crate::FAILED;
            }
        }
    }
}

fn answer(link: &Link, mut frame: Frame) -> Result<(), Error> {
    if !frame.meta_bytes().is_empty() {
        let mut meta = Map::new();
        meta.insert("sum".to_owned(), Value::from(sum(&frame.snapshot())));
        meta.insert("copied".to_owned(), Value::from(link.copied()));
        draw(&frame);
        frame.set_meta(&meta);
    }
    link.send_back(frame)
}

/// A number that depends on every byte and its place.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

/// Inverts a bar that moves down the picture, in place.
fn draw(frame: &Frame) {
    let Some(plane) = frame.plane(0) else { return };
    let mut pixels = vec![0; plane.layout().row_bytes];
    for row in bar(frame.seq(), plane.layout().rows).filter_map(|y| plane.row(y)) {
        if row.copy_to(0, &mut pixels) {
            invert(&mut pixels);
            // The frame is this worker's to edit: the copy cannot fail.
            let _ = row.copy_from(0, &pixels);
        }
    }
}

/// The rows of frame `seq` that are inverted.
pub(crate) fn bar(seq: u64, rows: usize) -> std::ops::Range<usize> {
    let height = rows.div_ceil(16);
    let steps = (rows - height + 1) as u64;
    let top = (seq.wrapping_mul(8) % steps) as usize;
    top..top + height
}

/// What happens to the pixels of the bar.
pub(crate) fn invert(pixels: &mut [u8]) {
    pixels.iter_mut().for_each(|value| *value = !*value);
}
