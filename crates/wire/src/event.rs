//! Events: what a worker reports beside its frames, for its host's log.
//!
//! *Who calls it*: the worker before it sends one, the host when one arrives. *Invariants*: an event that was [`cut`](Event::cut)
//! is one message with room to spare and takes little to keep. *A hostile worker* can send any text: the host cuts it too.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Characters of an event's message.
pub const MAX_TEXT: usize = 4096;
/// Characters of an event's source.
pub const MAX_SOURCE: usize = 256;
/// Bytes of an event's fields, as JSON.
pub const MAX_FIELDS: usize = 8192;
/// How deep lists and objects may lie in each other: well within what readers of JSON accept.
pub const MAX_DEPTH: usize = 32;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Worth knowing.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Each step.
    Trace,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Its word in the protocol.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// One event, or one record of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub message: String,
    /// What in the worker says so: a logger's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The rest, by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
    /// Events lost since the last one that got through.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Event {
    /// Shortens what is too long: texts lose their end; fields that are too many or too deep are replaced by one, `cut`,
    /// that says so.
    #[must_use]
    pub fn cut(mut self) -> Self {
        shorten(&mut self.message, MAX_TEXT);
        shorten(&mut self.source, MAX_SOURCE);
        if !is_flat(&self.fields) {
            self.fields = Map::from_iter([("cut".into(), "the fields nest too deep".into())]);
        }
        let len = self.fields_len();
        if len > MAX_FIELDS {
            self.fields = Map::from_iter([("cut".into(), format!("{len} bytes of fields").into())]);
        }
        self
    }

    /// Bytes of the fields as JSON.
    #[must_use]
    pub fn fields_len(&self) -> usize {
        serde_json::to_vec(&self.fields).map_or(0, |json| json.len())
    }
}

fn shorten(text: &mut String, limit: usize) {
    if let Some((at, _)) = text.char_indices().nth(limit) {
        text.truncate(at);
    }
}

/// Whether no list or object in `values` lies deeper than [`MAX_DEPTH`].
#[must_use]
pub fn is_flat(values: &Map<String, Value>) -> bool {
    fn within(value: &Value, left: usize) -> bool {
        match value {
            Value::Array(items) => left > 0 && items.iter().all(|item| within(item, left - 1)),
            Value::Object(items) => left > 0 && items.values().all(|item| within(item, left - 1)),
            _ => true,
        }
    }
    values.values().all(|value| within(value, MAX_DEPTH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Decoder, MAX_MESSAGE, ToHost, encode};

    fn nested(depth: usize) -> Value {
        (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
    }

    #[test]
    fn whatever_is_cut_fits_a_message_and_is_read_again() {
        let wide: Map<String, Value> = (0..5000).map(|n| (n.to_string(), n.into())).collect();
        for (fields, kept) in [
            (Map::from_iter([("deep".into(), nested(MAX_DEPTH))]), true),
            (Map::from_iter([("deep".into(), nested(MAX_DEPTH + 1))]), false),
            (Map::from_iter([("deep".into(), nested(500))]), false),
            (wide, false),
        ] {
            // A control character is six bytes of JSON, the longest there are.
            let (message, source) = ("\u{1}".repeat(100_000), "\u{1}".repeat(1000));
            let event = Event { level: Level::Warn, message, source, fields: fields.clone(), dropped: u64::MAX }.cut();
            assert_eq!((event.message.len(), event.source.len()), (MAX_TEXT, MAX_SOURCE));
            assert_eq!(event.fields == fields, kept);
            let bytes = encode(&ToHost::Event(event.clone())).unwrap();
            assert!(bytes.len() < MAX_MESSAGE);
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            assert_eq!(decoder.decode::<ToHost>().unwrap(), Some(ToHost::Event(event)));
        }
    }

    #[test]
    fn numbers_are_read_as_they_were_to_the_last_bit() {
        for number in [3.283943269517306e-133, 3.3275237887358027e-289, f64::MIN_POSITIVE, 5e-324, f64::MAX] {
            let fields = Map::from_iter([("number".into(), number.into())]);
            let event = Event { level: Level::Info, message: String::new(), source: String::new(), fields, dropped: 0 };
            let mut decoder = Decoder::default();
            decoder.push(&encode(&ToHost::Event(event.clone())).unwrap());
            assert_eq!(decoder.decode::<ToHost>().unwrap(), Some(ToHost::Event(event)));
        }
    }

    #[test]
    fn a_level_is_its_word() {
        for level in Level::ALL {
            assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
        }
    }

    #[test]
    fn an_event_keeps_its_golden_text() {
        let fields = Map::from_iter([("model".into(), "x".into())]);
        let event = Event { level: Level::Info, message: "loaded".into(), source: String::new(), fields, dropped: 0 };
        let text = r#"{"type":"event","level":"info","message":"loaded","fields":{"model":"x"}}"#;
        assert_eq!(encode(&ToHost::Event(event)).unwrap()[4..], *text.as_bytes());
    }
}
