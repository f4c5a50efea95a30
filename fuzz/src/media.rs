//! Pictures from files and pipes: y4m, the NUT that ffmpeg writes, and what ffmpeg says about its input.
//!
//! Nothing panics or takes more memory than a header may; what y4m is read to its end is written again byte for byte.

// Not otherwise to be had: they have no part in the library's own interface.
#[expect(dead_code, reason = "what a decoder asks of it is not all asked here")]
#[path = "../../crates/cli/src/media/ffmpeg/nut.rs"]
mod nut;
#[path = "../../crates/cli/src/media/ffmpeg/probe.rs"]
mod probe;

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use frameport_cli::media::{open_sink, open_source};

/// The largest pictures that are read, in bytes.
const LARGEST: usize = 1 << 16;

/// The first byte says what the others are.
pub fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind {
        b'y' => y4m(bytes),
        b'n' => nut(bytes),
        b'p' => probe(bytes),
        _ => {}
    }
}

fn y4m(bytes: &[u8]) {
    // Anything else would be ffmpeg's.
    if !bytes.starts_with(b"YUV4MPEG2") {
        return;
    }
    let path =
        |name: &str| -> PathBuf { std::env::temp_dir().join(format!("frameport-{}-{name}", std::process::id())) };
    let (from, to) = (path("in.y4m"), path("out.y4m"));
    fs::write(&from, bytes).expect("a temporary file");
    let copied = copy(&from.display().to_string(), &to.display().to_string());
    let (removed, written) = (fs::remove_file(&from), fs::read(&to));
    removed.expect("it was there");
    let Ok(written) = written else { return };
    fs::remove_file(&to).expect("it was there");
    if copied.is_some() {
        assert_eq!(written.escape_ascii().to_string(), bytes.escape_ascii().to_string());
    }
}

/// Nothing if not all of it is pictures.
fn copy(from: &str, to: &str) -> Option<()> {
    let mut source = open_source(from, None).ok()?;
    let spec = source.spec().clone();
    let size = spec.layout().expect("it was checked").size;
    if size > LARGEST {
        return None;
    }
    let mut sink = open_sink(to, source.origin(), &spec).ok()?;
    loop {
        let Some(mut frame) = source.next().ok()? else { break };
        assert_eq!(frame.bytes, size);
        let mut pixels = Vec::new();
        frame.payload.read_to_end(&mut pixels).ok()?;
        assert_eq!(pixels.len(), size);
        let info = frame.info.clone();
        sink.put(&info, &mut |out| out.write_all(&pixels)).expect("a file takes it");
    }
    sink.finish().ok().map(drop)
}

fn nut(bytes: &[u8]) {
    let Ok((mut reader, stream)) = nut::NutReader::open(bytes) else { return };
    assert!(stream.time_base.num > 0 && stream.time_base.den > 0);
    while let Ok(Some(frame)) = reader.next() {
        assert!(frame.front.len() <= 256);
        let skipped = io::copy(&mut reader.input().take(frame.rest), &mut io::sink()).expect("memory is read");
        if skipped < frame.rest {
            break;
        }
    }
}

fn probe(bytes: &[u8]) {
    let lines: Vec<String> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    let probe = probe::Probe::read(&lines);
    for stream in &probe.streams {
        assert!(stream.fps.is_none_or(|fps| fps.num > 0 && fps.den > 0) && (0..360).contains(&stream.rotation));
    }
    assert!(probe.video().is_none_or(|video| !video.is_cover) && probe.count("Video") <= probe.streams.len());
}
