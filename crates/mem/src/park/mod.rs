//! Waiting without burning a core, waking without a system call.
//!
//! *Who calls it*: both sides of a link, from any number of threads. *Invariants*: nothing published is ever slept
//! over, and nobody awake is ever rung.
//!
//! **Why no wake-up is lost.** A waker publishes its word (a frame, a release), passes a `SeqCst` fence, then loads the
//! peer's `parked`. A sleeper stores `parked`, passes a `SeqCst` fence, then looks for published words again and sleeps
//! on the value the bell had *before* that look. The two fences are totally ordered. If the waker's comes first, the
//! sleeper's second look sees the word and it does not sleep. If the sleeper's comes first, the waker sees `parked`,
//! changes the bell and wakes: the sleeper either sleeps already and is woken, or finds the bell changed and does not.
//! Several threads of one side share `parked`: a private count for each bit keeps it set until the last has left.
//!
//! **Event loops.** A side that has asked for an [`Event`] arms it where it found nothing ([`Bells::arm`]): the bits it waits
//! for, and one that asks the waker to ring the doorbell as well. It clears the event first, arms, passes a fence and looks
//! again, as a sleeper does, and so misses nothing. Whoever finds something disarms: a side that is awake is not rung.
//! Where processes have no futex, a sleeper asks for the doorbell too: see `listening.rs`.
//!
//! **Death.** Nobody wakes a futex sleeper when its peer dies, and only the peer changes the bell. Watching a private word
//! beside it (FUTEX_WAITV) costs a third more for every sleep, and an interrupt is rare: sleepers watch the bell only. They
//! register the private word they saw before their look, under a lock and only if it still is the same, around the futex call
//! and nothing else; [`Bells::interrupt_all`] changes that word, then wakes the bell until nobody is registered with an older
//! value. Nothing of a caller's runs while registered, so an interrupter waits for a wake-up at most, whatever it holds.
//! *A hostile peer* can ring at will (each ring costs this side one look) or never ring (the sleeper wakes at its deadline or
//! interrupt, at a close, or at the peer's death).

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use frameport_sys::clock::Instant;
use frameport_sys::futex;
use frameport_sys::memory::Map;
use frameport_sys::thread::{spin_loop, yield_now};
use frameport_wire::control::WaitStrategy;
use frameport_wire::layout::{BELL, BY_EVENT, LINE, PARAMS, PARKED};

use self::listening::Listening;
use crate::sync::{AtomicU32, Doorbell, Event, Mutex, MutexGuard, fence, omits, pause};
pub use crate::until::{Ended, Until};
use crate::words::{OwnWords, PeerWords};

mod listening;

/// Longest a wait spins before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// A spin as long as this is kept even when it has not paid off lately, to notice when it would.
const SPIN_LEAST: Duration = Duration::from_micros(2);
/// Turns of a spin between two looks at the clock, which costs a tenth of a turn.
const TURNS: u32 = 4;
/// Turns, some 2 µs together, that a wait pauses instead of yielding, as long as that finds what it waits for: a yield is
/// a system call, and the answer of a peer on another core comes sooner. Where both share a core it never does.
const EAGER: u32 = 40;
/// How long an interrupter waits between two wakes of sleepers that have not noticed.
const INTERRUPT_PAUSE: Duration = Duration::from_micros(50);
/// A wait that has stopped being eager tries again this often.
const RETRY: u32 = 64;

/// What a wait's look found.
#[derive(Debug)]
pub enum Look<T> {
    /// What was waited for.
    Found(T),
    /// Not yet.
    Nothing,
}

/// Both sides' bells and `parked` words, as one side sees them.
#[derive(Debug)]
pub struct Bells {
    own_bell: OwnWords,
    own_parked: OwnWords,
    peer_bell: PeerWords,
    peer_parked: PeerWords,
    /// Changed when every wait of this side must look again for reasons of this side's own.
    private: AtomicU32,
    parked: Mutex<Parked>,
    doorbell: Doorbell,
    event: OnceLock<Event>,
    /// What sleepers do without a futex.
    listening: Option<Listening>,
    strategy: WaitStrategy,
    /// How long the next wait spins, in ns: learnt from how the last ones went.
    spin_ns: AtomicU32,
    /// How many turns the next wait pauses: learnt likewise. Above `EAGER`: waits until the next try, plus `EAGER`.
    eager: AtomicU32,
}

#[derive(Debug)]
struct Parked {
    /// For each bit of `parked`, how many of this side's threads sleep for it.
    threads: [u32; 64],
    /// The private words that the threads inside the futex call saw before their look.
    asleep: Vec<u32>,
    /// The bits of which that is not 0.
    asleep_for: u64,
    /// What an event loop of this side waits for.
    armed: u64,
}

impl Parked {
    fn bits(&self) -> u64 {
        self.asleep_for | self.armed
    }
}

impl Bells {
    /// The bells in two control regions.
    ///
    /// # Errors
    /// `InvalidInput` when a region is too small or this side's own is not writable; where there is no futex, too many open
    /// files.
    pub fn new(own: &Arc<Map>, peer: &Arc<Map>, doorbell: Doorbell, strategy: WaitStrategy) -> io::Result<Self> {
        let region = || io::Error::from(io::ErrorKind::InvalidInput);
        let listening = if futex::is_there() { None } else { Some(Listening::new(&doorbell)?) };
        Ok(Self {
            own_bell: OwnWords::new(own, BELL, LINE / 8).ok_or_else(region)?,
            own_parked: OwnWords::new(own, PARKED, LINE / 8).ok_or_else(region)?,
            peer_bell: PeerWords::new(peer, BELL, LINE / 8).ok_or_else(region)?,
            peer_parked: PeerWords::new(peer, PARKED, LINE / 8).ok_or_else(region)?,
            private: AtomicU32::new(0),
            parked: Mutex::new(Parked { threads: [0; 64], asleep: Vec::new(), asleep_for: 0, armed: 0 }),
            doorbell,
            event: OnceLock::new(),
            listening,
            strategy,
            spin_ns: AtomicU32::new(SPIN.as_nanos() as u32),
            eager: AtomicU32::new(EAGER),
        })
    }

    /// The same where there is no futex, for those who show that it is.
    ///
    /// # Errors
    /// Too many open files.
    #[cfg(any(test, loom))]
    pub fn without_futex(self) -> io::Result<Self> {
        Ok(Self { listening: Some(Listening::new(&self.doorbell)?), ..self })
    }

    /// Wakes the peer if it sleeps for `bit`. Call after publishing.
    #[inline]
    pub fn ring(&self, bit: u64) {
        // The waker's fence of the module's proof.
        if !omits("waker's fence") {
            fence(Ordering::SeqCst);
        }
        let parked = self.peer_parked.load(0);
        if parked & bit != 0 {
            self.own_bell.ring();
            if parked & BY_EVENT != 0 {
                self.doorbell.ring();
            }
        }
    }

    /// The descriptor for event loops, made when first asked for.
    ///
    /// # Errors
    /// Too many open files.
    pub fn event(&self) -> io::Result<&Event> {
        if self.event.get().is_none() {
            let _ = self.event.set(Event::new(&self.doorbell)?);
        }
        self.event.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Whether somebody has asked for the [`event`](Self::event).
    #[must_use]
    pub fn has_event(&self) -> bool {
        self.event.get().is_some()
    }

    /// Makes the event unreadable until one of `bits` is rung or [`signal`](Self::signal) called. Look again after it, and
    /// signal if something is there.
    ///
    /// Returns all bits that are armed.
    pub fn arm(&self, bits: u64) -> u64 {
        let Some(event) = self.event.get() else { return 0 };
        // What it took up may be for those who sleep on the doorbell.
        if event.clear(&self.doorbell) && !omits("word of the event loop") {
            self.listening.iter().for_each(Listening::wake);
        }
        self.change_armed(|armed| armed | bits | BY_EVENT);
        // The sleeper's fence of the module's proof.
        fence(Ordering::SeqCst);
        self.lock().armed
    }

    /// Makes the event readable for what was found at `bits`, which are not armed any more: whoever does not care for them
    /// is told once.
    pub fn report(&self, bits: u64) {
        self.change_armed(|armed| armed & !bits);
        self.signal();
    }

    /// Something was found: nobody is to ring until nothing is. The event stays readable meanwhile.
    pub fn disarm(&self) {
        if self.has_event() && self.change_armed(|_| 0) {
            self.signal();
        }
    }

    /// Makes the event readable.
    pub fn signal(&self) {
        self.event.get().inspect(|event| event.signal());
    }

    /// Whether that changed anything.
    fn change_armed(&self, change: impl FnOnce(u64) -> u64) -> bool {
        let mut parked = self.lock();
        let before = parked.armed;
        parked.armed = change(before);
        let changed = parked.armed != before;
        if changed {
            self.own_parked.store(0, parked.bits(), Ordering::Relaxed);
        }
        changed
    }

    /// Says which parameters are the newest. Who sees a frame published after it sees it too.
    pub fn set_params(&self, version: u64) {
        self.own_bell.store((PARAMS - BELL) / 8, version, Ordering::Release);
    }

    /// Which parameters the peer says are the newest.
    #[must_use]
    pub fn peer_params(&self) -> u64 {
        self.peer_bell.load_acquire((PARAMS - BELL) / 8)
    }

    /// Whether a thread of this side's own sleeps for `bit`. For a change made under a private lock that sleepers look
    /// under too: asked under that lock it needs no fence, for either their look comes after the change, or what they
    /// stored before their look is visible here.
    #[must_use]
    #[inline]
    pub fn is_own_side_asleep(&self, bit: u64) -> bool {
        self.own_parked.load(0) & bit != 0
    }

    /// Whether a thread of the peer's sleeps for `bit`, as it says. What it published before it began to is visible then.
    #[must_use]
    pub fn is_peer_asleep(&self, bit: u64) -> bool {
        let asleep = self.peer_parked.load(0) & bit != 0;
        fence(Ordering::SeqCst);
        asleep
    }

    /// Makes every wait of this side look again.
    pub fn interrupt_all(&self) {
        self.signal();
        let private = self.private.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        loop {
            match &self.listening {
                None => self.peer_bell.wake_all(),
                Some(listening) => listening.wake(),
            }
            let is_older = |seen: &u32| private.wrapping_sub(*seen).cast_signed() > 0;
            if !self.lock().asleep.iter().any(is_older) {
                return;
            }
            pause(INTERRUPT_PAUSE);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks until something is found, an error comes up or `until` gives up: spins as the strategy says, then sleeps
    /// with `bit` set; several bits are slept for together.
    ///
    /// # Errors
    /// What `look` answers, or how the wait ended.
    pub fn wait<T, E>(
        &self,
        bit: u64,
        until: &mut Until<'_>,
        mut look: impl FnMut() -> Result<Look<T>, E>,
    ) -> Result<Result<T, Ended>, E> {
        if let Look::Found(found) = look()? {
            return Ok(Ok(found));
        }
        if let Some(found) = self.spin(until, &mut look)? {
            return Ok(found);
        }
        if self.strategy == WaitStrategy::Park {
            return self.sleep(bit, until, &mut look);
        }
        let asleep = Instant::now();
        let found = self.sleep(bit, until, &mut look)?;
        self.learn(asleep.elapsed());
        Ok(found)
    }

    fn spin<T, E>(
        &self,
        until: &mut Until<'_>,
        look: &mut impl FnMut() -> Result<Look<T>, E>,
    ) -> Result<Option<Result<T, Ended>>, E> {
        let budget = match self.strategy {
            WaitStrategy::Park => return Ok(None),
            WaitStrategy::Adaptive => Duration::from_nanos(self.spin_ns.load(Ordering::Relaxed).into()),
            WaitStrategy::Spin => Duration::MAX,
        };
        let eager = match self.strategy {
            WaitStrategy::Spin => u32::MAX,
            _ => self.eager_turns(),
        };
        let mut started = None;
        // Wraps after minutes of an endless spin, and goes on.
        for turn in std::iter::successors(Some(1_u32), |turn| Some(turn.wrapping_add(1))) {
            if turn <= eager {
                spin_loop();
            } else {
                // Also lets the peer run when both share a core.
                yield_now();
            }
            if let Look::Found(found) = look()? {
                self.learn_eager(eager, turn);
                return Ok(Some(Ok(found)));
            }
            if turn > eager && turn.is_multiple_of(TURNS) {
                let now = Instant::now();
                if now.saturating_duration_since(*started.get_or_insert(now)) >= budget {
                    self.learn_eager(eager, turn);
                    break;
                }
            }
            if turn.is_multiple_of(4096)
                && let Err(ended) = until.step()
            {
                return Ok(Some(Err(ended)));
            }
        }
        Ok(None)
    }

    fn sleep<T, E>(
        &self,
        bit: u64,
        until: &mut Until<'_>,
        look: &mut impl FnMut() -> Result<Look<T>, E>,
    ) -> Result<Result<T, Ended>, E> {
        let _parked = self.park(if self.listening.is_some() && !omits("request for the doorbell") {
            bit | BY_EVENT
        } else {
            bit
        });
        loop {
            let private = self.private.load(Ordering::SeqCst);
            let bell = self.peer_bell.bell();
            // The sleeper's fence of the module's proof: after `parked`, before the look.
            if !omits("sleeper's fence") {
                fence(Ordering::SeqCst);
            }
            if !omits("sleeper's look")
                && let Look::Found(found) = look()?
            {
                return Ok(Ok(found));
            }
            match until.step() {
                Ok(limit) => self.sleep_on_bell(bell, private, limit),
                Err(ended) => return Ok(Err(ended)),
            }
        }
    }

    /// Sleeps unless somebody has interrupted since `private` was seen.
    fn sleep_on_bell(&self, bell: u32, private: u32, limit: Option<Duration>) {
        {
            let mut parked = self.lock();
            if self.private.load(Ordering::SeqCst) != private && !omits("check of the private word") {
                return;
            }
            parked.asleep.push(private);
        }
        match &self.listening {
            None => self.peer_bell.wait(bell, limit),
            Some(listening) => {
                let rung = listening.sleep(&self.doorbell, || self.peer_bell.bell() == bell, limit);
                if rung && self.lock().armed != 0 && !omits("word to the event loop") {
                    self.signal();
                }
            }
        }
        let asleep = &mut self.lock().asleep;
        if let Some(index) = asleep.iter().position(|&seen| seen == private) {
            asleep.swap_remove(index);
        }
    }

    /// How many turns this wait pauses before it yields.
    fn eager_turns(&self) -> u32 {
        match self.eager.load(Ordering::Relaxed) {
            turns @ 0..=EAGER => turns,
            until_retry => {
                let left = until_retry - 1;
                self.eager.store(left, Ordering::Relaxed);
                if left == EAGER { EAGER } else { 0 }
            }
        }
    }

    /// An answer that came while pausing keeps the pause; one that did not makes it shorter, and in the end none.
    fn learn_eager(&self, eager: u32, turn: u32) {
        if turn <= eager {
            if eager < EAGER {
                self.eager.store(EAGER, Ordering::Relaxed);
            }
        } else if eager > 0 && eager <= EAGER {
            let half = eager / 2;
            self.eager.store(if half > 4 { half } else { EAGER + RETRY }, Ordering::Relaxed);
        }
    }

    /// A sleep shorter than a spin may be is one the spin should have covered; a long one makes the next spin shorter.
    fn learn(&self, slept: Duration) {
        let now = self.spin_ns.load(Ordering::Relaxed);
        let next = if slept <= SPIN * 2 { SPIN.as_nanos() as u32 } else { (now / 2).max(SPIN_LEAST.as_nanos() as u32) };
        self.spin_ns.store(next, Ordering::Relaxed);
    }

    fn park(&self, bit: u64) -> Parking<'_> {
        self.change_parked(bit, 1);
        Parking { bells: self, bit }
    }

    fn change_parked(&self, bits: u64, by: i32) {
        let mut parked = self.lock();
        let mut asleep_for = parked.asleep_for;
        for (bit, threads) in (0..64).map(|place| 1_u64 << place).zip(&mut parked.threads) {
            if bits & bit != 0 {
                *threads = threads.saturating_add_signed(by);
                asleep_for = if *threads > 0 { asleep_for | bit } else { asleep_for & !bit };
            }
        }
        if std::mem::replace(&mut parked.asleep_for, asleep_for) != asleep_for {
            self.own_parked.store(0, parked.bits(), Ordering::Relaxed);
        }
    }
}

/// Keeps a bit of `parked` set.
struct Parking<'a> {
    bells: &'a Bells,
    bit: u64,
}

impl Drop for Parking<'_> {
    fn drop(&mut self) {
        self.bells.change_parked(self.bit, -1);
    }
}

#[cfg(test)]
mod tests;
