//! Queues between tasks.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TrySendError};

use crate::sim::clock::deadline;
use crate::sim::sched::{self, Key};

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<T>,
    senders: usize,
    receiver: bool,
    room: usize,
}

type Shared<T> = Arc<std::sync::Mutex<Queue<T>>>;

/// Nothing gives way while it is taken.
fn with<T, R>(queue: &Shared<T>, look: impl FnOnce(&mut Queue<T>) -> R) -> R {
    look(&mut queue.lock().unwrap_or_else(PoisonError::into_inner))
}

fn key<T>(queue: &Shared<T>) -> Key {
    Key::Place(Arc::as_ptr(queue).addr())
}

/// The sending end.
#[derive(Debug)]
pub struct Sender<T>(Shared<T>);

/// The sending end of a queue with a bound.
#[derive(Debug)]
pub struct SyncSender<T>(Sender<T>);

/// The receiving end.
#[derive(Debug)]
pub struct Receiver<T>(Shared<T>);

fn with_room<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Queue { waiting: VecDeque::new(), senders: 1, receiver: true, room };
    let queue = Arc::new(std::sync::Mutex::new(queue));
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

/// A queue.
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    with_room(usize::MAX)
}

/// A queue of `room`.
#[must_use]
pub fn sync_channel<T>(room: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sender, receiver) = with_room(room);
    (SyncSender(sender), receiver)
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        with(&self.0, |queue| queue.senders += 1);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        with(&self.0, |queue| queue.senders -= 1);
        sched::with(|state| state.tasks.wake(key(&self.0)));
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        with(&self.0, |queue| queue.receiver = false);
    }
}

impl<T> Sender<T> {
    /// Puts something in.
    ///
    /// # Errors
    /// Nobody will take it.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        sched::point("queue send");
        let sent = with(&self.0, |queue| match queue.receiver {
            true => {
                queue.waiting.push_back(value);
                Ok(())
            }
            false => Err(SendError(value)),
        });
        sched::with(|state| state.tasks.wake(key(&self.0)));
        sent
    }
}

impl<T> SyncSender<T> {
    /// Puts something in, if there is room.
    ///
    /// # Errors
    /// There is none.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        if with(&self.0.0, |queue| queue.waiting.len() >= queue.room) {
            return Err(TrySendError::Full(value));
        }
        self.0.send(value).map_err(|SendError(value)| TrySendError::Disconnected(value))
    }
}

impl<T> Receiver<T> {
    /// Takes something out, waiting for it.
    ///
    /// # Errors
    /// Nothing will come.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.take(None).map_err(|_| RecvError)
    }

    /// Takes something out, waiting `limit` at most.
    ///
    /// # Errors
    /// Nothing came, or will.
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.take(deadline(Some(limit)))
    }

    fn take(&self, deadline: Option<u64>) -> Result<T, RecvTimeoutError> {
        sched::point("queue recv");
        loop {
            let (found, over) = with(&self.0, |queue| (queue.waiting.pop_front(), queue.senders == 0));
            match found {
                Some(value) => return Ok(value),
                None if over => return Err(RecvTimeoutError::Disconnected),
                None if !sched::block(vec![key(&self.0)], deadline, "waits for a queue", false) => {
                    return Err(RecvTimeoutError::Timeout);
                }
                None => {}
            }
        }
    }
}
