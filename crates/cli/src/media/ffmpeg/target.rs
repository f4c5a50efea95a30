//! How an output file is made: codec, pixels, colour, sound.
//!
//! *What it is*: ffmpeg's arguments for one output, and what is lost by them. *Who calls it*: the encoder. *Invariants*:
//! pure but for asking ffmpeg which encoders it has; the picture's size is never changed. *A hostile input* reaches it
//! with codec names and colour numbers only, which are compared or written as numbers.

use std::path::Path;
use std::process::Command;

use frameport::spec::{Colour, PixelFormat, Rational, VideoSpec};

use crate::media::Origin;

/// What a container asks for.
struct Container {
    /// Encoder and its options, by preference; empty leaves the choice to ffmpeg.
    video: &'static [&'static str],
    /// Audio codecs it can hold; `None` for all.
    audio: Option<&'static [&'static str]>,
    /// What to make of others; empty for a container without sound.
    audio_encoder: &'static str,
    is_constant_rate: bool,
    has_milliseconds: bool,
}

// Visually lossless and faster than real time.
const H264: &[&str] = &["libx264", "-preset", "veryfast", "-crf", "18"];
const MPEG4: &[&str] = &["mpeg4", "-q:v", "3"];
const VP9: &[&str] =
    &["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "6", "-row-mt", "1", "-crf", "24", "-b:v", "0"];
/// The largest part of a second MPEG-4 can count in.
const MPEG4_TICKS: u32 = 65_535;
/// The sound of the input file, if it has any.
const SOUND: &str = "1:a?";

fn container(extension: &str) -> Container {
    let base =
        Container { video: &[], audio: None, audio_encoder: "aac", is_constant_rate: false, has_milliseconds: false };
    let mp4_audio: &[&str] = &["aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "mp2", "dts"];
    let mov_audio: &[&str] = &["aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le"];
    match extension {
        "mp4" | "m4v" => Container { video: H264, audio: Some(mp4_audio), ..base },
        "mov" => Container { video: H264, audio: Some(mov_audio), ..base },
        "mkv" => Container { video: H264, has_milliseconds: true, ..base },
        "webm" => Container {
            video: VP9,
            audio: Some(&["opus", "vorbis"]),
            audio_encoder: "libopus",
            has_milliseconds: true,
            ..base
        },
        "avi" => Container {
            video: MPEG4,
            audio: Some(&["mp3", "ac3", "mp2", "pcm_s16le", "pcm_u8"]),
            audio_encoder: "libmp3lame",
            is_constant_rate: true,
            ..base
        },
        "gif" => Container { video: &["gif"], audio: Some(&[]), audio_encoder: "", ..base },
        "y4m" => Container {
            video: &["wrapped_avframe"],
            audio: Some(&[]),
            audio_encoder: "",
            is_constant_rate: true,
            ..base
        },
        _ => base,
    }
}

/// Extensions to recommend; each is known.
pub(super) const RECOMMENDED: [&str; 7] = ["mp4", "mkv", "mov", "webm", "avi", "gif", "y4m"];

/// In lower case; empty without one.
pub(super) fn extension(text: &str) -> String {
    Path::new(text).extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Whether what it asks for is known here; others are ffmpeg's to know.
pub(super) fn is_known(extension: &str) -> bool {
    !container(extension).video.is_empty()
}

/// The arguments that write `text` from Matroska on standard input, and what they lose.
pub(super) fn arguments(
    ffmpeg: &Path,
    text: &str,
    origin: &Origin,
    spec: &VideoSpec,
    time_base: Rational,
) -> (Vec<String>, Vec<String>) {
    let extension = if text == "-" { "y4m".to_owned() } else { extension(text) };
    let mut container = container(&extension);
    let mut notes = Vec::new();
    if container.video == H264 && !has_encoder(ffmpeg, "libx264") {
        container.video = MPEG4;
        notes.push("this ffmpeg has no libx264: the video is MPEG-4 part 2".to_owned());
    }
    let target = target_colour(spec, origin);
    let target = if target.matrix == 0 { Colour { matrix: 1, full_range: Some(false), ..target } } else { target };
    let pixels = pixel_format(container.video, spec, origin.chroma, &mut notes);

    let mut words = Arguments::default();
    words.add(["-copyts"]);
    words.late_start(origin.late_start_us);
    words.add(["-f", "matroska", "-i", "pipe:0"]);
    let file = origin.file.as_ref().filter(|_| origin.y4m_header.is_none() && extension != "y4m");
    if let Some(file) = file {
        words.late_start(origin.late_start_us);
        words.add(["-i".to_owned(), format!("file:{}", file.display())]);
        words.add(["-map_metadata", "1", "-map_chapters", "1"]);
    }
    words.add(["-map", "0:v:0"]);
    sound(&mut words, &container, &extension, if file.is_some() { &origin.audio } else { &[] }, &mut notes);
    if file.is_none() && !origin.audio.is_empty() {
        notes.push("the input's sound is not kept".to_owned());
    }

    let filters = if extension == "gif" {
        notes.push("gif has 256 colours, and times in hundredths of a second".to_owned());
        "split[a][b];[a]palettegen[p];[b][p]paletteuse".to_owned()
    } else {
        filters(spec, target, pixels)
    };
    words.add(["-vf", filters.as_str()]);
    if let Some(encoder) = container.video.first() {
        words.add(["-c:v", encoder]);
        words.add(container.video.iter().skip(1));
    }
    if extension != "gif" && target.full_range.is_some() {
        words.add(["-color_range", if target.full_range == Some(true) { "2" } else { "1" }]);
    }
    if extension != "gif" {
        for (option, value) in
            [("-color_primaries", target.primaries), ("-color_trc", target.transfer), ("-colorspace", target.matrix)]
        {
            words.add([option.to_owned(), value.to_string()]);
        }
    }
    timing(&mut words, &container, spec, time_base, &mut notes);
    if container.has_milliseconds && 1000 * u64::from(time_base.num) % u64::from(time_base.den.max(1)) != 0 {
        notes.push(format!("{extension} keeps times to the millisecond only"));
    }
    words.add(muxing(&extension));
    words.add(["-max_muxing_queue_size", "9999"]);
    match text {
        "-" => words.add(["-f", "yuv4mpegpipe", "pipe:1"]),
        _ => words.add(["-y".to_owned(), format!("file:{text}")]),
    }
    (words.0, notes)
}

/// What the file's own form asks for, whatever is in it.
pub(super) fn muxing(extension: &str) -> &'static [&'static str] {
    match extension {
        "mp4" | "m4v" | "mov" => &["-movflags", "+faststart"],
        // Older versions move all times by the few milliseconds the sound starts before 0.
        _ if container(extension).has_milliseconds => &["-avoid_negative_ts", "disabled"],
        _ => &[],
    }
}

/// Whether these arguments take sound from the input file.
pub(super) fn has_sound(arguments: &[String]) -> bool {
    arguments.iter().any(|word| word == SOUND)
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add<S: ToString>(&mut self, words: impl IntoIterator<Item = S>) {
        self.0.extend(words.into_iter().map(|word| word.to_string()));
    }

    /// Moves the next input to the start of time.
    fn late_start(&mut self, microseconds: i64) {
        if microseconds != 0 {
            self.add(["-itsoffset".to_owned(), format!("-{}us", microseconds.unsigned_abs())]);
        }
    }
}

fn sound(words: &mut Arguments, container: &Container, extension: &str, codecs: &[String], notes: &mut Vec<String>) {
    if codecs.is_empty() {
        return;
    }
    let foreign: Vec<&str> = codecs
        .iter()
        .map(String::as_str)
        .filter(|codec| container.audio.is_some_and(|known| !known.contains(codec)))
        .collect();
    if foreign.is_empty() {
        words.add(["-map", SOUND, "-c:a", "copy"]);
    } else if container.audio_encoder.is_empty() {
        notes.push(format!("{extension} has no sound: the input's is not kept"));
    } else {
        words.add(["-map", SOUND, "-c:a", container.audio_encoder]);
        notes.push(format!(
            "{extension} cannot hold {} sound: it becomes {}",
            foreign.join(", "),
            container.audio_encoder
        ));
    }
}

fn timing(
    words: &mut Arguments,
    container: &Container,
    spec: &VideoSpec,
    time_base: Rational,
    notes: &mut Vec<String>,
) {
    if container.is_constant_rate {
        words.add(["-fps_mode", "cfr"]);
        if let Some(fps) = spec.fps {
            words.add(["-r".to_owned(), format!("{}/{}", fps.num, fps.den)]);
        }
        notes.push("this kind of file has a constant rate: frames at uneven times are repeated or left out".to_owned());
        return;
    }
    words.add(["-fps_mode", "passthrough"]);
    let mut tick = time_base;
    if container.video == MPEG4 && tick.den > MPEG4_TICKS {
        tick = Rational { num: 1, den: 60_000 };
        notes.push("MPEG-4 part 2 cannot count this finely: times are rounded to 1/60000 s".to_owned());
    }
    words.add(["-enc_time_base".to_owned(), format!("{}/{}", tick.num, tick.den)]);
}

fn has_encoder(ffmpeg: &Path, name: &str) -> bool {
    let output = Command::new(ffmpeg).args(["-hide_banner", "-encoders"]).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&format!(" {name} ")))
}

/// What the encoder gets: 4:2:0 unless the input had or the worker sends more, or the size is odd, which 4:2:0 cannot
/// have in H.264.
fn pixel_format(
    video: &[&str],
    spec: &VideoSpec,
    chroma: Option<PixelFormat>,
    notes: &mut Vec<String>,
) -> &'static str {
    if video.is_empty() {
        return "";
    }
    if video.first() == Some(&"wrapped_avframe") {
        return "yuv444p";
    }
    let sent = match spec.format {
        PixelFormat::Yuyv422 | PixelFormat::Uyvy422 => Some(PixelFormat::Yuv422p),
        PixelFormat::Yuv422p | PixelFormat::Yuv444p => Some(spec.format),
        format if super::is_rgb(format) => chroma,
        _ => None,
    };
    let wanted = sent.filter(|_| video == H264).map_or("yuv420p", PixelFormat::name);
    if let Some(finer) = sent.filter(|_| video != H264) {
        notes.push(format!("the colour of {finer} becomes that of yuv420p, at half the resolution"));
    }
    if matches!(spec.format, PixelFormat::Gray16le | PixelFormat::Rgb48le | PixelFormat::P010le) {
        notes.push(format!("{} frames are written with 8 bits a value", spec.format));
    }
    if matches!(spec.format, PixelFormat::Rgba | PixelFormat::Bgra) {
        notes.push("the frames' transparency is not kept".to_owned());
    }
    let (odd_width, odd_height) = (spec.width % 2 == 1, spec.height % 2 == 1);
    let needs_444 = video == H264 && ((odd_width && wanted != "yuv444p") || (odd_height && wanted == "yuv420p"));
    if needs_444 {
        let size = format!("{}x{}", spec.width, spec.height);
        notes.push(format!("{size} is odd: written as H.264 4:4:4 to keep the size, which some players cannot show"));
        return "yuv444p";
    }
    wanted
}

/// What the output says of its colours: what the input said, unless the worker sends another matrix of its own.
fn target_colour(spec: &VideoSpec, origin: &Origin) -> Colour {
    let sent =
        if super::is_rgb(spec.format) { Colour { matrix: 2, full_range: None, ..spec.colour } } else { spec.colour };
    let is_other = sent.matrix != 2 && sent.matrix != origin.colour.matrix;
    let colour = if is_other || origin.colour.is_unspecified() { sent } else { origin.colour };
    Colour { full_range: origin.colour.full_range.or(colour.full_range), ..colour }
}

/// Converts with the matrix the output is tagged with, then tags it.
fn filters(spec: &VideoSpec, target: Colour, pixels: &str) -> String {
    let tag = |colour: Colour| {
        format!(
            "setparams=range={}:color_primaries={}:color_trc={}:colorspace={}",
            range(colour.full_range),
            colour.primaries,
            colour.transfer,
            colour.matrix
        )
    };
    let mut chain = Vec::new();
    if super::is_rgb(spec.format) {
        let range = if target.full_range == Some(true) { "pc" } else { "tv" };
        chain.push(format!("scale=out_color_matrix={}:out_range={range}", matrix(target.matrix)));
    } else {
        let sent = spec.colour.full_range.or(target.full_range);
        chain.push(tag(Colour { full_range: sent, ..target }));
        if sent != target.full_range {
            chain.push(format!("scale=in_range={}:out_range={}", range(sent), range(target.full_range)));
        }
    }
    if pixels.is_empty() {
        return chain.join(",");
    }
    chain.push(format!("format={pixels}"));
    chain.push(tag(target));
    chain.join(",")
}

fn range(full: Option<bool>) -> u8 {
    full.map_or(0, |full| 1 + u8::from(full))
}

/// The scaler's names. For an unknown one, the matrix it also decodes unknown ones with.
fn matrix(number: u8) -> &'static str {
    match number {
        1 => "bt709",
        4 => "fcc",
        7 => "smpte240m",
        9 | 10 => "bt2020",
        _ => "bt601",
    }
}
