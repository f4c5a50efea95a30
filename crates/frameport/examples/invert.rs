//! A worker in Rust: inverts each frame in place.
//!
//! `frameport run --input pattern -- target/debug/examples/invert`

use frameport::{Error, Link};

fn main() -> Result<(), Error> {
    let link = Link::from_env()?;
    let mut row_of_pixels = Vec::new();
    loop {
        let frame = match link.recv() {
            Ok(frame) => frame,
            Err(Error::LinkClosed { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for plane in frame.planes() {
            for row in (0..plane.layout().rows).filter_map(|y| plane.row(y)) {
                row_of_pixels.resize(row.len(), 0);
                let inside = row.copy_to(0, &mut row_of_pixels);
                row_of_pixels.iter_mut().for_each(|value| *value = !*value);
                let written = row.copy_from(0, &row_of_pixels);
                debug_assert!(inside && written);
            }
        }
        link.send_back(frame)?;
    }
}
