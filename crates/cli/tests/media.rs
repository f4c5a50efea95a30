//! The test picture and y4m: no ffmpeg needed.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use frameport::spec::PixelFormat;
use frameport_cli::media::{FrameInfo, MediaError, open_sink, open_source};

/// A folder of its own for each test.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Copies every frame, as an identity worker does. Gives the frames' times.
fn copy(input: &str, output: &str, format: Option<PixelFormat>) -> Result<Vec<FrameInfo>, MediaError> {
    let mut source = open_source(input, format)?;
    let mut sink = open_sink(output, source.origin(), source.spec())?;
    let mut seen = Vec::new();
    while let Some(mut frame) = source.next()? {
        let mut pixels = vec![0; frame.bytes];
        frame.payload.read_exact(&mut pixels)?;
        sink.put(&frame.info, &mut |out| out.write_all(&pixels))?;
        seen.push(frame.info);
    }
    sink.finish()?;
    Ok(seen)
}

fn y4m(header: &str, frame_lines: &[&str], bytes: usize) -> Vec<u8> {
    let mut stream = format!("{header}\n").into_bytes();
    for (number, line) in frame_lines.iter().enumerate() {
        stream.extend(format!("{line}\n").bytes());
        stream.extend((0..bytes).map(|index| u8::try_from((index * 7 + number * 31) % 256).unwrap()));
    }
    stream
}

#[test]
fn y4m_comes_back_byte_for_byte() {
    let folder = folder("identity");
    let cases = [
        ("YUV4MPEG2 W6 H4 F30000:1001 It A4:3 C420mpeg2 XYSCSS=420MPEG2 Xfoo=bar", 36),
        ("YUV4MPEG2 H3 W5 F25:1", 15 + 2 * 6),
        ("YUV4MPEG2 W5 H3 F0:0 Ip A0:0 C422", 15 + 2 * 9),
        ("YUV4MPEG2 W04 H2 F1:1 C444 XCOLORRANGE=FULL", 24),
        ("YUV4MPEG2 W5 H3 F50:1 Cmono", 15),
        ("YUV4MPEG2 W9 W6 H8 H4 C421 C420", 36),
        ("YUV4MPEG2 W5 H3 F50:1 Cmono16", 30),
    ];
    for (header, bytes) in cases {
        let stream = y4m(header, &["FRAME", "FRAME Ixyz Xnote=1", "FRAME"], bytes);
        let (input, output) = (folder.join("in.y4m"), folder.join("out.y4m"));
        fs::write(&input, &stream).unwrap();

        let seen = copy(input.to_str().unwrap(), output.to_str().unwrap(), None).unwrap();

        assert_eq!(seen.len(), 3);
        assert_eq!(seen[1].tag.as_deref(), Some(b" Ixyz Xnote=1".as_slice()));
        assert!(fs::read(&output).unwrap() == stream, "{header}");
    }
}

#[test]
fn y4m_header_follows_the_worker_that_changes_the_size() {
    let folder = folder("resized");
    let (input, output) = (folder.join("in.y4m"), folder.join("out.y4m"));
    fs::write(&input, y4m("YUV4MPEG2 W6 H4 F25:1 Ip A1:1 C420jpeg Xa", &["FRAME"], 36)).unwrap();
    let source = open_source(input.to_str().unwrap(), None).unwrap();
    let mut spec = source.spec().clone();
    (spec.width, spec.height, spec.format) = (2, 2, PixelFormat::Gray);

    let mut sink = open_sink(output.to_str().unwrap(), source.origin(), &spec).unwrap();
    sink.put(&FrameInfo::default(), &mut |out| out.write_all(&[1, 2, 3, 4])).unwrap();
    sink.finish().unwrap();

    assert_eq!(fs::read(&output).unwrap(), b"YUV4MPEG2 W2 H2 F25:1 Ip A1:1 Cmono Xa\nFRAME\n\x01\x02\x03\x04");
}

#[test]
fn y4m_that_cannot_be_used_says_why() {
    let folder = folder("bad");
    let whole = y4m("YUV4MPEG2 W6 H4 F25:1 C420", &["FRAME", "FRAME"], 36);
    let cases: [(&[u8], &str); 6] = [
        (b"YUV4MPEG2 W6 H4 F25:1 C420p10\nFRAME\n", "colourspace \"420p10\""),
        (b"YUV4MPEG2 W6 F25:1\nFRAME\n", "has no width and height"),
        (b"YUV4MPEG2 W6 H99999999 F25:1\n", "height is 99999999"),
        (b"YUV4MPEG2 W6 H4", "header line has no end"),
        (&whole[..whole.len() - 10], "ends 10 bytes early at frame 1"),
        (&[whole.as_slice(), b"garbage\n"].concat(), "there is no FRAME line at frame 2"),
    ];
    for (bytes, reason) in cases {
        let input = folder.join("in.y4m");
        fs::write(&input, bytes).unwrap();

        let error = copy(input.to_str().unwrap(), "null", None).unwrap_err().to_string();

        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }
}

#[test]
fn output_that_is_the_input_is_refused() {
    let file = folder("same").join("in.y4m");
    fs::write(&file, y4m("YUV4MPEG2 W6 H4 F25:1 C420", &["FRAME"], 36)).unwrap();

    let error = copy(file.to_str().unwrap(), file.to_str().unwrap(), None).unwrap_err();

    assert!(matches!(error, MediaError::SameFile { .. }), "{error}");
    assert_eq!(fs::metadata(&file).unwrap().len(), 27 + 6 + 36);
}

#[test]
fn missing_input_is_named() {
    let error = open_source("/no/such/clip.mp4", None).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("cannot open input \"/no/such/clip.mp4\": No such file"), "{error}");
}

#[test]
fn pattern_is_what_its_text_says() {
    for format in ["bgr24", "rgb24", "bgra", "rgba", "gray", "yuv420p", "nv12"] {
        let mut source = open_source("pattern:161x91@30000/1001:3", Some(format.parse().unwrap())).unwrap();
        let spec = source.spec().clone();
        assert_eq!((spec.width, spec.height, source.frames_hint()), (161, 91, Some(3)));

        let mut frames = Vec::new();
        while let Some(mut frame) = source.next().unwrap() {
            let mut pixels = Vec::new();
            frame.payload.read_to_end(&mut pixels).unwrap();
            assert_eq!(frame.info.pts, Some(i64::try_from(frames.len()).unwrap()));
            assert_eq!(pixels.len(), spec.layout().unwrap().size);
            frames.push(pixels);
        }
        assert_eq!(frames.len(), 3);
        assert!(frames[0] != frames[1] && frames[1] != frames[2], "{format}: every frame is another");
    }
}

#[test]
fn pattern_text_that_makes_no_sense_is_named() {
    for text in ["pattern:12", "pattern", "pattern:64x48@60", "pattern:@29.97:10", "pattern:1x1:1"] {
        let mut source = open_source(text, None).unwrap();
        assert!(source.next().unwrap().is_some(), "{text}");
    }
    for (text, reason) in [
        ("pattern:64xcat", "\"64xcat\" is no size"),
        ("pattern:64x48@0", "\"0\" is no frame rate"),
        ("pattern:abc", "\"abc\" is no number of frames"),
        ("pattern:0x48", "width is 0"),
    ] {
        let error = open_source(text, None).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let error = open_source("pattern", Some(PixelFormat::P010le)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("use one of bgr24, rgb24"), "{error}");
}

#[test]
fn stopper_ends_an_endless_source() {
    let mut source = open_source("pattern:16x16", None).unwrap();
    source.stopper().stop();
    assert!(source.next().unwrap().is_none());
}

#[test]
fn sink_refuses_a_payload_of_another_size() {
    let source = open_source("pattern:16x16", None).unwrap();
    let mut sink = open_sink("null", source.origin(), source.spec()).unwrap();
    for bytes in [16 * 16 * 3 - 1, 16 * 16 * 3 + 1] {
        let error = sink.put(&FrameInfo::default(), &mut |out| out.write_all(&vec![0; bytes])).unwrap_err();
        assert!(matches!(error, MediaError::Io { .. }), "{error}");
    }
}
