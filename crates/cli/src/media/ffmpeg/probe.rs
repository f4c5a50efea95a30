//! What ffmpeg says about its inputs.
//!
//! *What it is*: the few facts read from its messages: colour, rotation, rate, start, audio codecs. *Who calls it*: the
//! decoder. *Invariants*: what cannot be read is left unknown; sizes and times never come from here. *A hostile input*
//! can fake a message in its metadata at most to mislead about its own colour, rate or audio.

use frameport::spec::{Colour, Rational};

/// One `Stream #0:…` line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stream {
    /// `Video`, `Audio`, `Subtitle`, `Data` or `Attachment`.
    pub(super) kind: String,
    pub(super) codec: String,
    pub(super) pixel_format: String,
    pub(super) colour: Colour,
    pub(super) fps: Option<Rational>,
    /// Units of its time base a second.
    pub(super) ticks: Option<u32>,
    /// Degrees the picture is turned by, clockwise as shown.
    pub(super) rotation: i32,
    pub(super) is_cover: bool,
    pub(super) is_interlaced: bool,
}

/// What is known of the first input.
#[derive(Clone, Debug, Default)]
pub(super) struct Probe {
    pub(super) duration_ms: Option<u64>,
    pub(super) start_us: i64,
    pub(super) streams: Vec<Stream>,
}

impl Probe {
    /// Reads the messages up to the start of the output.
    pub(super) fn read(lines: &[String]) -> Self {
        let mut probe = Self::default();
        let mut in_output = false;
        for line in lines.iter().filter_map(|line| line.strip_prefix("[info] ")) {
            in_output |= line.starts_with("Output #0");
            if let Some(facts) = line.strip_prefix("  Duration: ") {
                probe.duration_ms = clock_ms(facts.split(',').next().unwrap_or_default());
                let start = facts.split(", ").find_map(|fact| fact.strip_prefix("start: "));
                probe.start_us = start.and_then(micros).unwrap_or(0);
            } else if let Some(facts) = line.trim_start().strip_prefix("Stream #0:").and_then(stream) {
                probe.streams.extend((!in_output).then_some(facts));
            } else if let Some((_, angle)) = line.split_once(": rotation of ") {
                let angle = angle.split(['.', ' ']).next().and_then(|angle| angle.parse::<i32>().ok());
                if let (false, Some(stream), Some(angle)) = (in_output, probe.streams.last_mut(), angle) {
                    stream.rotation = angle.saturating_neg().rem_euclid(360);
                }
            }
        }
        probe
    }

    /// The stream that is decoded.
    pub(super) fn video(&self) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.kind == "Video" && !stream.is_cover)
    }

    /// How many streams of a kind there are; covers are not video.
    pub(super) fn count(&self, kind: &str) -> usize {
        self.streams.iter().filter(|stream| stream.kind == kind && !stream.is_cover).count()
    }
}

/// `0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt709, progressive), 640x272, 25 fps, 12800 tbn`
fn stream(line: &str) -> Option<Stream> {
    let (_, rest) = line.split_once(": ")?;
    let (kind, facts) = rest.split_once(": ")?;
    let mut stream = Stream { kind: kind.to_owned(), ..Stream::default() };
    stream.codec = facts.split([' ', ',']).next().unwrap_or_default().to_owned();
    stream.is_cover = facts.contains("(attached pic)");
    let facts = top_level(facts);
    if let Some(pixels) = facts.get(1) {
        let (name, colour) = pixels.split_once('(').unwrap_or((pixels, ""));
        name.trim().clone_into(&mut stream.pixel_format);
        stream.is_interlaced = colour.contains(" first");
        stream.colour = colours(colour.trim_end_matches(')'));
    }
    stream.fps = facts.iter().find_map(|fact| fact.strip_suffix(" fps")).and_then(rate);
    let ticks = facts
        .iter()
        .filter_map(|fact| fact.split_once(" tbn"))
        .find(|(_, rest)| !rest.starts_with(char::is_alphabetic));
    stream.ticks = ticks.and_then(|(ticks, _)| match ticks.strip_suffix('k') {
        Some(thousands) => thousands.parse::<u32>().ok()?.checked_mul(1000),
        None => ticks.parse().ok(),
    });
    Some(stream)
}

/// Splits at commas outside brackets.
fn top_level(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let split = text.split(|c| {
        depth += i32::from(matches!(c, '(' | '[')) - i32::from(matches!(c, ')' | ']'));
        c == ',' && depth == 0
    });
    split.map(str::trim).collect()
}

/// `tv, bt709/bt709/bt709, progressive`: matrix, primaries, transfer; one word where all three have the same name.
fn colours(text: &str) -> Colour {
    let mut colour = Colour::UNSPECIFIED;
    for word in text.split(',').map(str::trim) {
        match word {
            "tv" => colour.full_range = Some(false),
            "pc" => colour.full_range = Some(true),
            _ => {
                let mut names = word.split('/');
                let matrix = names.next().unwrap_or_default();
                let (primaries, transfer) = (names.next().unwrap_or(matrix), names.next().unwrap_or(matrix));
                let known = (matrix_number(matrix), primaries_number(primaries), transfer_number(transfer));
                let is_colour = word.contains('/') || (known.0 != 2 && known.1 != 2);
                if is_colour {
                    (colour.matrix, colour.primaries, colour.transfer) = known;
                }
            }
        }
    }
    colour
}

fn number(name: &str, names: &[(&str, u8)]) -> u8 {
    names.iter().find(|(known, _)| *known == name).map_or(2, |(_, number)| *number)
}

fn matrix_number(name: &str) -> u8 {
    let names = [
        ("gbr", 0),
        ("bt709", 1),
        ("fcc", 4),
        ("bt470bg", 5),
        ("smpte170m", 6),
        ("smpte240m", 7),
        ("ycgco", 8),
        ("bt2020nc", 9),
        ("bt2020c", 10),
        ("smpte2085", 11),
        ("ictcp", 14),
    ];
    number(name, &names)
}

fn primaries_number(name: &str) -> u8 {
    let names = [
        ("bt709", 1),
        ("bt470m", 4),
        ("bt470bg", 5),
        ("smpte170m", 6),
        ("smpte240m", 7),
        ("film", 8),
        ("bt2020", 9),
        ("smpte428", 10),
        ("smpte431", 11),
        ("smpte432", 12),
        ("ebu3213", 22),
    ];
    number(name, &names)
}

fn transfer_number(name: &str) -> u8 {
    let names = [
        ("bt709", 1),
        ("bt470m", 4),
        ("gamma22", 4),
        ("bt470bg", 5),
        ("gamma28", 5),
        ("smpte170m", 6),
        ("smpte240m", 7),
        ("linear", 8),
        ("log100", 9),
        ("log316", 10),
        ("iec61966-2-4", 11),
        ("bt1361e", 12),
        ("iec61966-2-1", 13),
        ("bt2020-10", 14),
        ("bt2020-12", 15),
        ("smpte2084", 16),
        ("smpte428", 17),
        ("arib-std-b67", 18),
    ];
    number(name, &names)
}

/// `29.97`, which ffmpeg has rounded: the NTSC rates are meant exactly.
fn rate(text: &str) -> Option<Rational> {
    let thousands = match text.strip_suffix('k') {
        Some(thousands) => thousands.parse::<f64>().ok()? * 1000.0,
        None => text.parse::<f64>().ok()?,
    };
    if !(0.001..100_000.0).contains(&thousands) {
        return None;
    }
    let ntsc = thousands * 1.001;
    let (value, den) = if (thousands - thousands.round()).abs() > 0.001 && (ntsc - ntsc.round()).abs() < 0.006 {
        (ntsc.round() * 1000.0, 1001)
    } else {
        ((thousands * 100.0).round(), 100)
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 to 100 million, see above")]
    let num = value as u32;
    if den == 100 && num.is_multiple_of(100) {
        return (num > 0).then_some(Rational { num: num / 100, den: 1 });
    }
    (num > 0).then_some(Rational { num, den })
}

/// `00:01:02.50`
fn clock_ms(text: &str) -> Option<u64> {
    let mut parts = text.trim().split(':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds = u64::try_from(micros(parts.next()?)?).ok()? / 1000;
    hours.checked_mul(3_600_000)?.checked_add(minutes.checked_mul(60_000)?)?.checked_add(seconds)
}

/// `-1.400000` in microseconds.
fn micros(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part: i64 = format!("{part:0<6}").get(..6)?.parse().ok()?;
    let whole_us = whole.parse::<i64>().ok()?.checked_mul(1_000_000)?;
    if text.starts_with('-') { whole_us.checked_sub(part) } else { whole_us.checked_add(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_line_gives_colour_rate_and_time_base() {
        let line = "0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt2020nc/bt2020/smpte2084, \
                    progressive), 640x272 [SAR 1:1 DAR 40:17], 404 kb/s, 29.97 fps, 29.97 tbr, 90k tbn (default)";

        let stream = stream(line).unwrap();

        assert_eq!((stream.kind.as_str(), stream.codec.as_str()), ("Video", "h264"));
        assert_eq!(stream.pixel_format, "yuv420p");
        assert_eq!(stream.colour, Colour { primaries: 9, transfer: 16, matrix: 9, full_range: Some(false) });
        assert_eq!(stream.fps, Some(Rational { num: 30_000, den: 1001 }));
        assert_eq!(stream.ticks, Some(90_000));
    }

    #[test]
    fn progressive_is_no_colour() {
        assert_eq!(colours("progressive"), Colour::UNSPECIFIED);
        assert_eq!(colours("pc, bt709, progressive").matrix, 1);
    }

    #[test]
    fn rates_are_exact_where_they_have_names() {
        let exact = |text| rate(text).map(|rate| (rate.num, rate.den));
        assert_eq!(exact("25"), Some((25, 1)));
        assert_eq!(exact("23.98"), Some((24_000, 1001)));
        assert_eq!(exact("59.94"), Some((60_000, 1001)));
        assert_eq!(exact("12.50"), Some((1250, 100)));
        assert_eq!(exact("0"), None);
    }

    #[test]
    fn times_are_read_to_the_unit() {
        assert_eq!(clock_ms("00:01:02.50"), Some(62_500));
        assert_eq!(clock_ms("N/A"), None);
        assert_eq!(micros("-0.007000"), Some(-7000));
    }
}
