//! A worker that speaks the protocol by hand and lies: any word anywhere it may write, any byte on its control channel.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use frameport::spec::{PixelFormat, VideoSpec};
use frameport::{Delivery, Error, Frame, Link, Until, WaitStrategy, Worker};
use frameport_mem::park::Bells;
use frameport_mem::pixels::Bytes;
use frameport_sys::clock::now_ns;
use frameport_sys::event::Doorbell;
use frameport_sys::handle::Handle;
use frameport_sys::inherit::take_link;
use frameport_sys::memory::{Map, Region, Writers};
use frameport_sys::socket::Control;
use frameport_sys::thread::{preempt, sleep, yield_now};
use frameport_sys::world::{self, Random, World};
use frameport_wire::PROTOCOL;
use frameport_wire::control::{self, Decoder, Hello, ToHost, ToWorker, Welcome};
use frameport_wire::descriptor::Descriptor;
use frameport_wire::layout::{CLOSED, ENTRIES, PARKED, PRODUCED, SIZES, TAKEN, VISIT, blocks, page_len};

use crate::harness::{chance, check_counts, check_left, ensure, explore, faults, some_time};

fn spec() -> VideoSpec {
    VideoSpec::new(PixelFormat::Gray, 8, 4)
}

/// What the liar has.
struct Liar {
    control: Control,
    welcome: Welcome,
    /// Its control region, then its page of each channel's pool.
    own: Vec<Arc<Map>>,
    blocks: Vec<usize>,
    bells: Bells,
    /// The next entry of the channel out.
    next: Cell<u64>,
}

fn say(control: &Control, message: &ToHost) -> bool {
    control.send(&control::encode(message).unwrap(), &[]).is_ok()
}

impl Liar {
    fn connect() -> Option<Self> {
        let control = take_link().ok()?;
        let pid = frameport_sys::process::id();
        say(
            &control,
            &ToHost::Hello(Hello {
                protocol: (PROTOCOL, PROTOCOL),
                layout: SIZES,
                pid,
                library: "liar".into(),
                output: None,
            }),
        );
        let (mut decoder, mut handles, mut bytes) = (Decoder::default(), Vec::<Handle>::new(), [0; 4096]);
        let welcome = loop {
            let read = control.recv_with_handles(&mut bytes, &mut handles).ok().filter(|&read| read > 0)?;
            decoder.push(&bytes[..read]);
            if let Some(ToWorker::Welcome(welcome)) = decoder.decode().ok()? {
                break welcome;
            }
        };
        let capacities: Vec<usize> = welcome.channels.iter().map(|channel| channel.capacity).collect();
        let (blocks, len) = blocks(&capacities);
        let doorbell = Doorbell::adopt(handles.pop()?);
        let mut handles = handles.into_iter();
        let map = |handle: Option<Handle>, len| {
            Some(Arc::new(Region::adopt(handle?, len, Writers::All).ok()?.map(true).ok()?))
        };
        let host = Region::adopt(handles.next()?, len, Writers::Creator).ok()?.map(false).ok()?;
        let mut own = vec![map(handles.next(), len)?];
        for channel in &welcome.channels {
            let (_pixels, _host) = (handles.next(), handles.next());
            own.push(map(handles.next(), page_len(channel.pool.slots, channel.pool.meta))?);
        }
        let bells = Bells::new(&own[0], &Arc::new(host), doorbell, WaitStrategy::Park).ok()?;
        Some(Self { control, welcome, own, blocks, bells, next: Cell::new(0) })
    }

    fn store(&self, region: usize, offset: usize, word: u64) {
        preempt();
        ensure(Bytes::new(&self.own[region], offset, 8).unwrap().copy_from(0, &word.to_le_bytes()), || {
            "store".to_owned()
        });
    }

    /// A word that is near the truth more often than not.
    fn word() -> u64 {
        match world::below(8) {
            0 => u64::MAX - world::below(3),
            1 => world::below(u64::MAX),
            _ => world::below(12),
        }
    }

    fn lie(&self) {
        let block = self.blocks[world::below(2) as usize];
        match world::below(9) {
            0 => self.store(0, block + [PRODUCED, TAKEN, VISIT, CLOSED][world::below(4) as usize], Self::word()),
            1 => self.store(0, PARKED, Self::word()),
            2 | 3 => self.store(1 + world::below(2) as usize, 8 * world::below(3) as usize, Self::word()),
            4 | 5 => self.publish(),
            6 => {
                let text = [&b"\xff\xff\xff\xff"[..], b"\x02\0\0\0{}", b"\x05\0\0\0"][world::below(3) as usize];
                let _ = self.control.send(text, &[]);
            }
            7 => drop(say(&self.control, &[ToHost::Ready, ToHost::Bye][world::below(2) as usize])),
            _ => sleep(some_time(Duration::from_micros(300))),
        }
        if chance(2) {
            self.bells.ring(u64::MAX);
        }
    }

    /// An entry that is nearly right.
    fn publish(&self) {
        let channel = &self.welcome.channels[1];
        let ring_seq = if chance(6) { world::below(4) } else { self.next.get() };
        self.next.set(ring_seq + 1);
        let mut entry = Descriptor {
            ring_seq,
            pool: channel.pool.id,
            slot: world::below(3) as u32,
            generation: 1 + ring_seq,
            payload_len: 32,
            ..Descriptor::default()
        };
        match world::below(16) {
            0 => entry.pool = world::below(4) as u32,
            1 => entry.payload_len = Self::word(),
            2 => entry.meta_len = world::below(10_000) as u32,
            3 => entry.slot = world::below(1 << 31) as u32,
            _ => {}
        }
        let at = self.blocks[1] + ENTRIES + (ring_seq as usize % channel.capacity) * 64;
        for (place, word) in entry.encode().into_iter().enumerate().rev() {
            self.store(0, at + place * 8, word);
        }
        self.store(0, self.blocks[1] + PRODUCED, ring_seq + 1);
    }
}

fn lie() -> i32 {
    let Some(liar) = Liar::connect() else { return 1 };
    if !say(&liar.control, &ToHost::Ready) {
        return 1;
    }
    for _ in 0..world::below(60) {
        liar.lie();
        yield_now();
    }
    while chance(2) {
        // One that is caught is killed.
        sleep(Duration::from_secs(10));
    }
    if chance(2) { 0 } else { 5 }
}

fn leave() -> i32 {
    Link::from_env().map_or(1, |link| i32::from(link.try_recv().is_err()))
}

fn host(input: Delivery, output: Delivery) {
    drop(Worker::command("leaves").input("in", spec(), Delivery::Lossless).slots(2).spawn());
    let before = world::census(world::this_process());
    let started = Worker::command("lies")
        .input("in", spec(), input)
        .output("out", spec(), output)
        .slots(3)
        .ready_timeout(Duration::from_secs(1))
        .spawn();
    if let Ok(worker) = started {
        let mut held: Vec<Frame> = Vec::new();
        for _ in 0..world::below(40) {
            let start = now_ns();
            let limit = Duration::from_millis(3);
            let ended = match world::below(3) {
                0 => worker.loan_until(Until::after(limit)).and_then(|frame| worker.send(frame)).err(),
                1 => worker.recv_timeout(limit).map(|frame| held.push(frame)).err(),
                _ => worker.try_recv().err(),
            };
            ensure(now_ns() - start < 10_000_000, || format!("a wait of {} ns", now_ns() - start));
            match ended {
                None | Some(Error::Timeout { .. } | Error::PoolExhausted(_)) => {}
                Some(Error::Violation { .. }) => {
                    let ends = worker.wait_exit(Duration::from_secs(1)).is_some();
                    ensure(ends, || "a liar lives".to_owned());
                }
                Some(Error::WorkerDied(_) | Error::LinkClosed { .. }) => {}
                Some(error) => world::fail(&format!("{error:?}")),
            }
            let places: BTreeSet<usize> = held.iter().map(|frame| frame.payload().as_ptr().addr()).collect();
            ensure(places.len() == held.len(), || "a slot is held twice".to_owned());
            if chance(3) {
                held.clear();
            }
            drop(worker.holders());
            let _ = worker.stats();
        }
        worker.stop().unwrap();
        check_counts(&worker.stats());
    }
    check_left(before);
}

/// What a worker does beside its channel ends it, whatever it says in it.
#[test]
fn trespassers() {
    explore("trespassers", 300, |seed| {
        World::new(seed, faults(seed))
            .program("trespasses", |_| {
                let Some(liar) = Liar::connect() else { return 1 };
                if say(&liar.control, &ToHost::Ready) && chance(2) {
                    sleep(some_time(Duration::from_micros(300)));
                }
                liar.control.trespass();
                loop {
                    sleep(Duration::from_secs(10));
                }
            })
            .program("leaves", |_| leave())
            .run(|| {
                // The service thread stays.
                drop(Worker::command("leaves").input("in", spec(), Delivery::Lossless).slots(2).spawn());
                let before = world::census(world::this_process());
                let worker = Worker::command("trespasses")
                    .input("in", spec(), Delivery::Lossless)
                    .output("out", spec(), Delivery::Lossless)
                    .slots(3);
                let error = match worker.spawn() {
                    Ok(worker) => {
                        let error = worker.recv().unwrap_err();
                        let ends = worker.wait_exit(Duration::from_secs(1)).is_some();
                        ensure(ends, || "a trespasser lives".to_owned());
                        error
                    }
                    Err(error) => error,
                };
                ensure(matches!(error, Error::Violation { .. }), || format!("{error:?}"));
                check_left(before);
            })
    });
}

#[test]
fn liars() {
    explore("liars", 2000, |seed| {
        let mut random = Random(seed ^ 0x11a5);
        let mut delivery = || [Delivery::Lossless, Delivery::Latest, Delivery::Newest(2)][random.below(3) as usize];
        let (input, output) = (delivery(), delivery());
        World::new(seed, faults(seed))
            .program("leaves", |_| leave())
            .program("lies", |_| lie())
            .run(move || host(input, output))
    });
}
