//! Video files, in and out: needs ffmpeg, found as the command finds it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use frameport::spec::{Colour, PixelFormat};
use frameport_cli::media::{MediaError, find_ffmpeg, open_sink, open_source};

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs ffmpeg; gives what it prints on standard output, and on standard error.
fn ffmpeg(arguments: &str) -> (String, String) {
    let path = find_ffmpeg().unwrap_or_else(|error| panic!("{error}"));
    let output =
        Command::new(path).args(["-y", "-hide_banner", "-nostdin"]).args(arguments.split(' ')).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "ffmpeg {arguments}: {err}");
    (out.into_owned(), err.into_owned())
}

/// A test clip of ffmpeg's own.
fn clip(file: &Path, size: &str, options: &str) -> String {
    let file = file.to_str().unwrap();
    ffmpeg(&format!("-f lavfi -i testsrc2=s={size}:r=25:d=1 {options} {file}"));
    file.to_owned()
}

struct Copied {
    frames: usize,
    notes: Vec<String>,
}

/// Copies every frame, as an identity worker does.
fn copy(input: &str, output: &Path, format: Option<PixelFormat>) -> Result<Copied, MediaError> {
    let mut source = open_source(input, format)?;
    let mut sink = open_sink(output.to_str().unwrap(), source.origin(), source.spec())?;
    let mut frames = 0;
    while let Some(mut frame) = source.next()? {
        let mut pixels = vec![0; frame.bytes];
        frame.payload.read_exact(&mut pixels)?;
        let info = frame.info.clone();
        drop(frame);
        sink.put(&info, &mut |out| out.write_all(&pixels))?;
        frames += 1;
    }
    let mut notes = source.notes().to_vec();
    notes.extend(sink.finish()?);
    Ok(Copied { frames, notes })
}

/// Times of a file's video frames in seconds, by ffmpeg alone.
fn times(file: &str) -> Vec<f64> {
    let (_, said) = ffmpeg(&format!("-copyts -i {file} -map 0:v:0 -vf showinfo=checksum=0 -f null -"));
    let word = |line: &str, key: &str| {
        line.split_once(key).map(|(_, rest)| rest.trim_start().split([' ', ',']).next().unwrap_or_default().to_owned())
    };
    let base = said.lines().find_map(|line| word(line, "config in time_base: ")).unwrap();
    let (num, den) = base.split_once('/').unwrap();
    let tick = num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap();
    let shown = said.lines().filter(|line| line.contains("pts_time:"));
    shown.map(|line| word(line, " pts:").unwrap().parse::<f64>().unwrap() * tick).collect()
}

/// ffmpeg's description of a file.
fn describe(file: &Path) -> String {
    ffmpeg(&format!("-i {} -map 0 -c copy -f null -", file.display())).1
}

/// Mean difference of two files' pictures, 0 to 255.
fn difference(one: &str, other: &Path) -> f64 {
    let mut sources = [open_source(one, None).unwrap(), open_source(other.to_str().unwrap(), None).unwrap()];
    let [a, b] = sources.each_mut().map(|source| {
        let mut pixels = Vec::new();
        while let Some(mut frame) = source.next().unwrap() {
            frame.payload.read_to_end(&mut pixels).unwrap();
        }
        pixels
    });
    assert_eq!(a.len(), b.len());
    let sum: u64 = a.iter().zip(&b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.len() as f64
}

#[test]
fn variable_rate_keeps_every_time() {
    let folder = folder("vfr");
    // Uneven steps, a first frame that is not at 0, and sound that is.
    let options = "-f lavfi -i sine=d=1.5 -vf select='not(mod(n*n\\,3))',settb=1/12800,setpts=PTS+N*N*137+1300 \
                   -fps_mode passthrough -enc_time_base 1/12800 -c:v libx264 -c:a aac";
    let input = clip(&folder.join("in.mp4"), "64x48", options);
    for name in ["out.mp4", "out.mov", "out.mkv"] {
        let output = folder.join(name);

        let copied = copy(&input, &output, None).unwrap();

        let (before, after) = (times(&input), times(output.to_str().unwrap()));
        assert!(before[0] > 0.09 && copied.frames == before.len(), "{before:?}");
        assert_eq!(before.len(), after.len());
        let precision = if name == "out.mkv" { 0.0006 } else { 1e-9 };
        for (before, after) in before.iter().zip(&after) {
            assert!((before - after).abs() < precision, "{name}: {before} became {after}");
        }
        assert!(describe(&output).contains("Audio: aac"), "{name}");
        let said = copied.notes.iter().any(|note| note.contains("mkv keeps times to the millisecond"));
        assert_eq!(said, name == "out.mkv", "{:?}", copied.notes);
    }
}

#[test]
fn ntsc_rate_is_exact() {
    let folder = folder("ntsc");
    let input = clip(&folder.join("in.mov"), "64x48", "-r 30000/1001 -c:v libx264");

    copy(&input, &folder.join("out.mov"), None).unwrap();

    assert_eq!(times(&input), times(folder.join("out.mov").to_str().unwrap()));
    let source = open_source(&input, None).unwrap();
    let fps = source.spec().fps.unwrap();
    assert_eq!((fps.num, fps.den), (30_000, 1001));
    assert_eq!(source.spec().time_base.unwrap().den % 30_000, 0);
    assert_eq!(source.frames_hint(), Some(30));
}

#[test]
fn rotated_clip_comes_out_upright() {
    let folder = folder("rotation");
    let plain = clip(&folder.join("plain.mp4"), "64x48", "-c:v libx264");
    let turned = folder.join("turned.mp4");
    let (path, version_5) = (turned.to_str().unwrap(), format!("-i {plain} -c copy -metadata:s:v rotate=90"));
    let new = Command::new(find_ffmpeg().unwrap())
        .args(["-y", "-display_rotation", "-90", "-i", &plain, "-c", "copy", path])
        .output()
        .unwrap();
    if !new.status.success() {
        ffmpeg(&format!("{version_5} {path}"));
    }

    let copied = copy(path, &folder.join("out.mp4"), None).unwrap();

    assert!(copied.notes.iter().any(|note| note.contains("turn its picture by")), "{:?}", copied.notes);
    let out = describe(&folder.join("out.mp4"));
    assert!(out.contains("48x64") && !out.contains("rotation of"), "{out}");
    assert!(difference(path, &folder.join("out.mp4")) < 4.0);
}

#[test]
fn colour_tags_and_colours_are_kept() {
    let folder = folder("colour");
    let cases = [
        ("tv", "bt709", "bt709", "bt709", "(tv, bt709, "),
        ("pc", "bt709", "bt709", "bt709", "(pc, bt709, "),
        ("tv", "bt2020nc", "bt2020", "smpte2084", "(tv, bt2020nc/bt2020/smpte2084, "),
        ("tv", "smpte170m", "smpte170m", "smpte170m", "(tv, smpte170m, "),
    ];
    for (range, matrix, primaries, transfer, shown) in cases {
        let options = format!(
            "-vf scale=out_color_matrix={}:out_range={range},format=yuv420p,\
             setparams=range={range}:color_primaries={primaries}:color_trc={transfer}:colorspace={matrix} \
             -color_range {range} -colorspace {matrix} -color_primaries {primaries} -color_trc {transfer} -c:v libx264",
            if matrix == "bt2020nc" { "bt2020" } else { matrix }
        );
        let input = clip(&folder.join("in.mp4"), "64x48", &options);
        assert!(describe(Path::new(&input)).contains(shown), "{}", describe(Path::new(&input)));
        for format in [PixelFormat::Bgr24, PixelFormat::Yuv420p, PixelFormat::Nv12] {
            let output = folder.join("out.mp4");

            copy(&input, &output, Some(format)).unwrap();

            let out = describe(&output);
            assert!(out.contains(shown), "{format} {shown}: {out}");
            let off = difference(&input, &output);
            assert!(off < 3.0, "{format} {shown}: off by {off}");
        }
    }
    let source = open_source(folder.join("in.mp4").to_str().unwrap(), None).unwrap();
    assert_eq!(source.spec().colour, Colour { primaries: 6, transfer: 6, matrix: 0, full_range: Some(true) });
}

#[test]
fn untagged_colours_stay_untagged_and_the_same() {
    let folder = folder("untagged");
    let input = clip(&folder.join("in.mp4"), "64x48", "-c:v libx264");
    copy(&input, &folder.join("out.mp4"), None).unwrap();
    let source = open_source(folder.join("out.mp4").to_str().unwrap(), None).unwrap();
    assert_eq!(source.origin().colour.matrix, 2);
    let off = difference(&input, &folder.join("out.mp4"));
    assert!(off < 3.0, "off by {off}");
}

#[test]
fn every_format_goes_through() {
    let folder = folder("formats");
    let even = clip(&folder.join("even.mp4"), "64x48", "-c:v libx264");
    let odd = clip(&folder.join("odd.mkv"), "65x49", "-c:v ffv1 -pix_fmt yuv420p");
    for (input, format) in PixelFormat::ALL.into_iter().flat_map(|format| [(&even, format), (&odd, format)]) {
        let output = folder.join("out.mp4");
        if format == PixelFormat::Rgbaf16le {
            let error = copy(input, &output, Some(format)).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("cannot convert rgbaf16le"), "{error}");
            continue;
        }

        let copied = copy(input, &output, Some(format)).unwrap();

        assert_eq!(copied.frames, 25);
        if !matches!(format, PixelFormat::Gray | PixelFormat::Gray16le) {
            let off = difference(input, &output);
            assert!(off < 9.0, "{format} of {input}: off by {off}");
        }
        let is_420 = !describe(&output).contains("yuv444p");
        let said = copied.notes.iter().any(|note| note.contains("65x49 is odd"));
        assert!(format == PixelFormat::Yuv444p || is_420 != said, "{format} of {input}: {:?}", copied.notes);
    }
}

#[test]
fn other_containers_hold_what_they_can_and_say_the_rest() {
    let folder = folder("containers");
    let input = clip(&folder.join("in.mkv"), "64x48", "-f lavfi -i sine=d=1 -c:v libx264 -c:a pcm_s16le");
    let cases = [
        ("out.mp4", "Audio: aac", "mp4 cannot hold pcm_s16le sound"),
        ("out.mkv", "Audio: pcm_s16le", ""),
        ("out.webm", "Audio: opus", "webm cannot hold pcm_s16le sound"),
        ("out.avi", "Audio: pcm_s16le", "constant rate"),
        ("out.gif", "Video: gif", "gif has no sound"),
        ("out.y4m", "Video: rawvideo", "sound is not kept"),
    ];
    for (name, stream, note) in cases {
        let output = folder.join(name);

        let copied = copy(&input, &output, None).unwrap();

        let out = describe(&output);
        assert!(out.contains(stream), "{name}: {out}");
        assert!(note.is_empty() || copied.notes.iter().any(|said| said.contains(note)), "{name}: {:?}", copied.notes);
        assert_eq!(times(output.to_str().unwrap()).len(), 25, "{name}");
    }
}

#[test]
fn late_start_is_moved_with_its_sound() {
    let folder = folder("late");
    let options = "-f lavfi -i sine=d=1 -c:v libx264 -c:a aac -output_ts_offset 5000";
    let input = clip(&folder.join("in.mkv"), "64x48", options);

    copy(&input, &folder.join("out.mp4"), None).unwrap();

    let after = times(folder.join("out.mp4").to_str().unwrap());
    assert!(after[0] < 0.2, "starts at {}", after[0]);
}

#[test]
fn pixel_aspect_is_kept() {
    let folder = folder("aspect");
    let input = clip(&folder.join("in.mp4"), "64x48", "-vf setsar=16/11 -c:v libx264");
    copy(&input, &folder.join("out.mp4"), None).unwrap();
    assert!(describe(&folder.join("out.mp4")).contains("SAR 16:11"));
}

#[test]
fn bad_inputs_are_named() {
    let folder = folder("bad-clips");
    let good = clip(&folder.join("good.mp4"), "64x48", "-c:v libx264");
    ffmpeg(&format!("-f lavfi -i sine=d=1 {}", folder.join("sound.wav").display()));
    let bytes = fs::read(&good).unwrap();
    fs::write(folder.join("text.mp4"), "not a video at all\n").unwrap();
    fs::write(folder.join("empty.mp4"), "").unwrap();
    fs::write(folder.join("cut.mp4"), &bytes[..bytes.len() / 2]).unwrap();
    for (name, reason) in [
        ("text.mp4", "Invalid data"),
        ("empty.mp4", ""),
        ("cut.mp4", "moov atom not found"),
        ("sound.wav", "no video stream"),
    ] {
        let input = folder.join(name);
        let error = copy(input.to_str().unwrap(), &folder.join("out.mp4"), None).map(|_| ()).unwrap_err();
        assert!(matches!(error, MediaError::NotVideo { .. }), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    assert!(!folder.join("out.mp4").exists());
}

#[test]
fn truncated_clip_gives_its_frames_and_a_note() {
    let folder = folder("truncated");
    let good = clip(&folder.join("good.mkv"), "320x240", "-c:v libx264 -g 5");
    let bytes = fs::read(&good).unwrap();
    fs::write(folder.join("cut.mkv"), &bytes[..bytes.len() * 2 / 3]).unwrap();

    let copied = copy(folder.join("cut.mkv").to_str().unwrap(), &folder.join("out.mp4"), None).unwrap();

    assert!((5..25).contains(&copied.frames), "{} frames", copied.frames);
    assert!(copied.notes.iter().any(|note| note.contains("damaged or incomplete")), "{:?}", copied.notes);
}

#[test]
fn output_that_cannot_be_written_is_named() {
    let error = copy("pattern:64x48:50", Path::new("/no/such/folder/out.mp4"), None).map(|_| ()).unwrap_err();
    assert!(matches!(error, MediaError::Encode { .. }), "{error:?}");
    assert!(error.to_string().contains("No such file"), "{error}");
}

#[test]
fn output_without_frames_is_not_touched() {
    let output = folder("nothing").join("out.mp4");
    fs::write(&output, "kept").unwrap();
    let source = open_source("pattern:64x48:0", None).unwrap();
    let notes = open_sink(output.to_str().unwrap(), source.origin(), source.spec()).unwrap().finish().unwrap();
    assert!(notes[0].contains("no frames came"), "{notes:?}");
    assert_eq!(fs::read(&output).unwrap(), b"kept");
}

#[test]
fn stopper_ends_a_blocked_decoder() {
    let input = clip(&folder("stopped").join("in.mp4"), "640x480", "-c:v libx264");
    let mut source = open_source(&input, None).unwrap();
    let stopper = source.stopper();
    let stopping = std::thread::spawn(move || stopper.stop());
    // Whatever moment it is stopped at, reading ends, and soon: the pipe is closed.
    while let Ok(Some(mut frame)) = source.next() {
        if std::io::copy(&mut frame.payload, &mut std::io::sink()).is_err() {
            break;
        }
    }
    stopping.join().unwrap();
}

#[test]
fn finer_colour_is_kept_or_said() {
    let folder = folder("chroma");
    let input = clip(&folder.join("in.mkv"), "64x48", "-c:v ffv1 -pix_fmt yuv444p10le");

    let copied = copy(&input, &folder.join("out.mp4"), None).unwrap();

    assert!(describe(&folder.join("out.mp4")).contains("yuv444p("));
    assert!(copied.notes.iter().any(|note| note.contains("keeps 8 bits")), "{:?}", copied.notes);
    let copied = copy(&input, &folder.join("out.webm"), None).unwrap();
    assert!(copied.notes.iter().any(|note| note.contains("half the resolution")), "{:?}", copied.notes);
}

#[test]
fn missing_ffmpeg_names_the_remedy() {
    // Where ffmpeg is looked for is fixed once per process, so this runs in one of its own.
    if std::env::var_os("WITHOUT_FFMPEG").is_none() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "missing_ffmpeg_names_the_remedy"]).env_clear().env("WITHOUT_FFMPEG", "1");
        let output = child.env("PATH", "/nonexistent").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let error = open_source(std::env::current_exe().unwrap().to_str().unwrap(), None).map(|_| ()).unwrap_err();
    assert!(matches!(error, MediaError::FfmpegMissing { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("apt install ffmpeg") && error.contains("pip install imageio-ffmpeg"), "{error}");
}

#[test]
fn an_input_that_changes_its_size_goes_on_in_the_size_it_began_with() {
    let folder = folder("resized");
    let [large, small, both] = ["large.ts", "small.ts", "both.ts"].map(|name| folder.join(name));
    clip(&large, "320x240", "-c:v libx264 -g 1");
    clip(&small, "160x128", "-c:v libx264 -g 1");
    fs::write(&both, [fs::read(large).unwrap(), fs::read(small).unwrap()].concat()).unwrap();
    let copied = copy(both.to_str().unwrap(), &folder.join("out.mp4"), None).unwrap();
    assert_eq!(copied.frames, 50);
    let said =
        |note: &String| note.contains("changes its size (to 160x128)") && note.contains("to the 320x240 it began");
    assert!(copied.notes.iter().any(said), "{:?}", copied.notes);
}
