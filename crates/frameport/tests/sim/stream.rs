//! What one channel's frames must look like to its receiver: a plain list, beside the product.

use frameport::{Delivery, Frame, FrameMut};
use frameport_sys::clock::now_ns;
use serde_json::{Value, json};

use crate::harness::{check, ensure, fill, margin};

/// A frame that somebody began to send.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    seq: u64,
    /// What is in it.
    picture: u64,
    /// How often the parameters had been set.
    params: u64,
    /// When its send had returned.
    sent_at: Option<u64>,
}

/// A receiver's question for a frame: how many were sent by then, and when it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    sent: usize,
    at: u64,
}

/// One channel, as sender and receiver may see it.
#[derive(Debug)]
pub(crate) struct Stream {
    delivery: Delivery,
    attempts: Vec<Attempt>,
    /// How many of them were sent, as their sender knows.
    sent: usize,
    sent_at: u64,
    /// The place after the last one received.
    next: usize,
    received: usize,
    /// The newest may have been taken back to be filled again.
    disturbed: bool,
}

impl Stream {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self { delivery, attempts: Vec::new(), sent: 0, sent_at: 0, next: 0, received: 0, disturbed: false }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.delivery != Delivery::Lossless
    }

    /// Before the send: the receiver may be faster than its return.
    pub(crate) fn begin(&mut self, seq: u64, picture: u64, params: u64) {
        self.attempts.push(Attempt { seq, picture, params, sent_at: None });
    }

    /// After it.
    pub(crate) fn end(&mut self, is_sent: bool) {
        if is_sent {
            (self.sent, self.sent_at) = (self.attempts.len(), now_ns());
            self.attempts.last_mut().unwrap().sent_at = Some(self.sent_at);
            self.disturbed = false;
        } else {
            self.attempts.pop();
        }
    }

    /// A slot was asked for.
    pub(crate) fn disturb(&mut self) {
        self.disturbed = true;
    }

    /// The receiver asks for a frame.
    pub(crate) fn ask(&self) -> Asked {
        Asked { sent: self.sent, at: now_ns() }
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    pub(crate) fn received(&self) -> usize {
        self.received
    }

    /// A frame arrived: the picture in it, and the parameters it must see.
    pub(crate) fn arrive(&mut self, seq: u64, asked: Asked) -> (u64, u64) {
        let found = self.attempts.iter().enumerate().skip(self.next).find(|(_, attempt)| attempt.seq == seq);
        let Some((place, attempt)) = found else {
            frameport_sys::world::fail(&format!("frame {seq} is not one to come: {self:?}"))
        };
        let depth = self.delivery.depth().map_or(usize::MAX, |depth| depth as usize);
        ensure(self.is_live() || place == self.next, || format!("frame {seq} is not the next: {self:?}"));
        let is_new = place.saturating_add(depth) >= asked.sent;
        ensure(is_new, || format!("frame {seq} is old for {asked:?}: {self:?}"));
        // Nothing else can have kept it: time passes when nobody runs.
        let is_late = attempt.sent_at.is_some_and(|sent_at| sent_at.max(asked.at) + margin() < now_ns());
        ensure(!is_late, || format!("a wake-up was lost: frame {seq} came late for {asked:?}: {self:?}"));
        self.next = place + 1;
        self.received += 1;
        (attempt.picture, attempt.params)
    }

    /// A wait of the receiver's ended by its deadline.
    pub(crate) fn starve(&self) {
        let waits = self.next < self.sent && !self.disturbed && self.sent_at + margin() < now_ns();
        ensure(!waits, || format!("a wake-up was lost: a frame was there since {}: {self:?}", self.sent_at));
    }

    /// The receiver was told that nothing follows.
    pub(crate) fn finish(&self) {
        let all = if self.is_live() { self.disturbed || self.next >= self.sent } else { self.next >= self.sent };
        ensure(all, || format!("the end came before the last frame: {self:?}"));
    }
}

/// Fills a frame and gives it metadata that say with what.
pub(crate) fn paint(frame: &mut FrameMut, picture: u64) {
    fill(frame.pieces(), picture);
    let len = frame.payload().len();
    frame.set_meta(json!({"picture": picture, "len": len}).as_object().unwrap());
}

/// Edits a received frame in place.
pub(crate) fn edit(frame: &mut Frame, picture: u64) {
    let len = frame.payload().len();
    fill(frame.pieces(), picture);
    frame.set_meta(json!({"picture": picture, "len": len}).as_object().unwrap());
}

/// Compares a frame with what must be in it.
#[track_caller]
pub(crate) fn look(frame: &Frame, picture: u64) {
    let meta = frame.meta().unwrap();
    let is_same = |name, value| meta.get(name) == Some(&Value::from(value));
    let is_right = is_same("picture", picture) && is_same("len", frame.payload().len() as u64);
    ensure(is_right, || format!("{meta:?} are not those of {picture}, {} bytes", frame.payload().len()));
    check(frame.pieces(), picture);
}
