//! Waking a task that waits in an event loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::clock::deadline;
use super::handle::{Handle, check};
use super::kernel::{Bell, State, What};
use super::sched::{self, Key};

/// One side's end of the pair: the other side rings it.
#[derive(Debug)]
pub struct Doorbell(Handle);

impl Doorbell {
    /// This side's end, and the handle for the other side.
    ///
    /// # Errors
    /// As the world's faults say.
    pub fn pair() -> io::Result<(Self, Handle)> {
        sched::point("doorbell pair");
        check(|state| state.faults.handles)?;
        let bells = sched::inside(|state| {
            let bells = state.new_id();
            state.bells.insert(bells, [Bell::default(), Bell::default()]);
            bells
        });
        let end = |side| Handle::new(|_| What::Doorbell { bells, side });
        Ok((Self(end(0)), end(1)))
    }

    /// The other side's end, as it came.
    #[must_use]
    pub fn adopt(handle: Handle) -> Self {
        Self(handle)
    }

    fn parts(&self) -> Option<(u64, usize)> {
        match self.0.what() {
            Some(What::Doorbell { bells, side }) => Some((bells, side)),
            _ => None,
        }
    }

    /// Makes the other side's [`Event`] readable.
    pub fn ring(&self) {
        sched::point("ring");
        let Some((bells, side)) = self.parts() else { return };
        sched::with(|state| {
            let other = state.bells.get_mut(&bells).and_then(|pair| pair.get_mut(1 - side));
            other.into_iter().for_each(|bell| bell.rung = true);
            state.tasks.wake(Key::Object(bells));
        });
    }
}

/// Readable once the doorbell was rung or [`signal`](Self::signal) called, until [`clear`](Self::clear).
#[derive(Debug)]
pub struct Event(Handle);

impl Event {
    /// An event for `doorbell`.
    ///
    /// # Errors
    /// As the world's faults say.
    pub fn new(doorbell: &Doorbell) -> io::Result<Self> {
        sched::point("event");
        check(|state| state.faults.handles)?;
        let (bells, side) = doorbell.parts().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self(Handle::new(|_| What::Event { bells, side, own: false, hung_up: false, follows: None })))
    }

    fn change(&self, change: impl FnOnce(&mut State, &mut What)) {
        sched::with(|state| {
            let Some(mut what) = state.objects.get(&self.0.0).map(|object| object.what.clone()) else { return };
            change(state, &mut what);
            state.objects.get_mut(&self.0.0).into_iter().for_each(|object| object.what = what.clone());
            state.tasks.wake(Key::Object(self.0.0));
        });
    }

    /// From now on it is readable while `other` is, too.
    ///
    /// # Errors
    /// Never.
    pub fn follow(&self, other: &Self) -> io::Result<()> {
        self.set_followed(Some(other.0.0));
        Ok(())
    }

    /// No longer.
    pub fn unfollow(&self, _other: &Self) {
        self.set_followed(None);
    }

    fn set_followed(&self, other: Option<u64>) {
        sched::point("follow an event");
        self.change(|_, what| {
            if let What::Event { follows, .. } = what {
                *follows = other;
            }
        });
    }

    /// Makes it readable.
    pub fn signal(&self) {
        sched::point("signal");
        self.change(|_, what| {
            if let What::Event { own, .. } = what {
                *own = true;
            }
        });
    }

    /// Makes it unreadable. Look at what is waited for after it. Whether the doorbell was rung, which another event for it
    /// does not see any more.
    pub fn clear(&self, _doorbell: &Doorbell) -> bool {
        sched::point("clear");
        let mut rung = false;
        self.change(|state, what| {
            let What::Event { bells, side, own, hung_up, .. } = what else { return };
            *own = false;
            let Some(pair) = state.bells.get_mut(bells) else { return };
            let is_gone = pair.get(1 - *side).is_some_and(|other| other.owners == 0);
            if let Some(bell) = pair.get_mut(*side).filter(|_| !*hung_up) {
                rung = std::mem::take(&mut bell.rung);
                *hung_up = !rung && is_gone;
            }
        });
        rung
    }
}

impl AsFd for Event {
    /// Nothing that could be waited for: use [`wait_any`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: standard input is never closed by this crate, and a number that is not open would be an error to use.
        unsafe { BorrowedFd::borrow_raw(0) }
    }
}

/// Whether it is readable, and what may change that.
fn is_readable(state: &State, id: u64, keys: &mut Vec<Key>) -> bool {
    let what = state.objects.get(&id).map(|object| &object.what);
    let Some(What::Event { bells, side, own, hung_up, follows }) = what else { return false };
    keys.extend([Key::Object(id), Key::Object(*bells)]);
    let pair = state.bells.get(bells);
    let rung = pair.and_then(|pair| pair.get(*side)).is_some_and(|bell| bell.rung);
    let gone = pair.and_then(|pair| pair.get(1 - *side)).is_some_and(|bell| bell.owners == 0);
    let followed = follows.is_some_and(|other| is_readable(state, other, keys));
    followed || *own || (!*hung_up && (rung || gone))
}

/// Waits until one of `events` is readable or `limit` is over; `None` is for ever.
///
/// # Errors
/// Never.
pub fn wait_any(events: &[&Event], limit: Option<Duration>) -> io::Result<()> {
    sched::point("wait for events");
    let deadline = deadline(limit);
    let (mut keys, mut found) = (Vec::new(), false);
    sched::with(|state| {
        for event in events {
            found |= is_readable(state, event.0.0, &mut keys);
        }
    });
    if !found {
        sched::block(keys, deadline, "waits for events", true);
    }
    Ok(())
}
