//! Whether ffmpeg can write a video of some name, before there is one.
//!
//! *What it is*: for extensions that `target` does not know, two frames through the encoder into a folder of their own.
//! *Who calls it*: `check_output`, before anything is started. *Invariants*: nothing of it stays. *A hostile peer* does
//! not reach it.

use std::fs;
use std::path::Path;

use frameport::spec::{PixelFormat, VideoSpec};

use super::{Encoder, target};
use crate::media::{FrameInfo, MediaError, Origin, Sink};

/// An error for a name that ffmpeg finds no kind of video file for, and where there is no ffmpeg.
pub(in crate::media) fn check_name(text: &str) -> Result<(), MediaError> {
    super::find()?;
    let extension = target::extension(text);
    if target::is_known(&extension) {
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("frameport-{}-{}", std::process::id(), frameport::now()));
    if fs::create_dir(&folder).is_err() {
        // Nowhere to try: the first frame tells.
        return Ok(());
    }
    let file = folder.join(Path::new(text).file_name().unwrap_or_default());
    let written = write(&file.to_string_lossy());
    // It has opened the file and takes no picture of this size: another it may take.
    let is_picky = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
    let _ = fs::remove_dir_all(&folder);
    match written {
        Err(error) if !is_picky => {
            let detail = if let MediaError::Encode { detail, .. } = error { detail } else { error.to_string() };
            // What follows is advice on ffmpeg's own options.
            let reason = detail.split(';').next().unwrap_or_default();
            let detail = reason.replace(&format!("file:{}", file.display()), text);
            let supported = target::RECOMMENDED.map(|extension| format!(".{extension}")).join(", ");
            Err(MediaError::OutputExtension { path: text.to_owned(), extension, detail, supported })
        }
        _ => Ok(()),
    }
}

/// Two frames: for one only, a picture's name would do.
fn write(file: &str) -> Result<(), MediaError> {
    let spec = VideoSpec::new(PixelFormat::Gray, 352, 288).fps(25, 1).time_base(1, 25);
    let black = vec![0; spec.layout()?.size];
    let mut sink = Encoder::open(file, &Origin::default(), &spec)?;
    for pts in 0..2 {
        let info = FrameInfo { pts: Some(pts), ..FrameInfo::default() };
        sink.put(&info, &mut |out| out.write_all(&black))?;
    }
    Box::new(sink).finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recommended_is_known() {
        assert!(target::RECOMMENDED.into_iter().all(target::is_known) && !target::is_known("xyz"));
    }
}
