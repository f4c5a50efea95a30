//! Workers that lie, each in its own way: the host gets a typed error or a harmless frame, the liar is dead within a
//! second where the lie can be proven, and a worker beside it notices nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;
#[path = "common/rig.rs"]
mod rig;

use common::{Random, Watched, attack, is_picture, picture, resident, role, send_all, small_worker, take_pages_out};
use frameport::spec::{PixelFormat, Spec, VideoSpec};
use frameport::{Error, Exit, Frame, Link, Worker};
use frameport_wire::control::ToHost;
use frameport_wire::descriptor::{Descriptor, MAX_META, MAX_PAYLOAD};
use frameport_wire::layout::{CLOSED, meta_offset, released};
use rig::{Rig, say};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Provable lies: the attack, and what the violation says of it.
const LIES: [(&str, &str); 28] = [
    ("wrong_entry", "the entry where 0 is due says it is 5"),
    ("max", "the entry where 0 is due says it is 18446744073709551614"),
    ("taken_ahead", "it has taken 9 entries, after 0 and of 2"),
    ("taken_back", "entries, after 2 and of 2"),
    ("kind", "kind 9"),
    ("reserved", "reserved bits"),
    ("pool", "names pool 77"),
    ("slot", "names slot 3 of a pool of 3"),
    ("slot_max", "names slot 4294967295"),
    ("held", "slot 0, which is held here since entry 0"),
    ("old_generation", "slot 0 went from generation 5 to 5"),
    ("payload_short", "7748 bytes"),
    ("payload_long", "1099511627775 bytes"),
    ("meta_long", "4097 of metadata"),
    ("meta_max", "16777215 of metadata"),
    ("return_free", "does not hold"),
    ("return_beyond", "names slot 3 of a pool of 3"),
    ("return_twice", "slot 0, which is held here since entry 0"),
    ("return_again", "slot 0"),
    ("return_stale", "slot 0 in generation 9"),
    ("return_released", "slot 0"),
    ("word", "release word 7777"),
    ("word_max", "release word 18446744073709551615"),
    ("word_of_another", "slot 0 (generation 1): it wrote release word 5"),
    ("word_early", "slot 2"),
    ("nonsense", "control message"),
    ("event_level", "control message"),
    ("event_deep", "control message"),
];

/// The workers of this file.
#[test]
fn worker_process() {
    let Some(role) = role() else { return };
    if role == "neighbour" {
        let link = Link::from_env().unwrap();
        while let Ok(frame) = link.recv() {
            link.send_back(frame).unwrap();
        }
        return;
    }
    let rig = Rig::connect();
    rig.await_frames(if role == "word_early" { 0 } else { 2 });
    if lie(&rig, &role).is_none() {
        misbehave(&rig, &role);
    }
    loop {
        std::thread::park();
    }
}

/// `None`: not one of [`LIES`].
fn lie(rig: &Rig, role: &str) -> Option<()> {
    let first = rig.first();
    // Slot 0 of the input pool, as the host sent it.
    let back = Descriptor { pool: rig.welcome.channels[0].pool.id, ..first };
    let publish = |index: u64, descriptor: Descriptor| {
        rig.publish(index, Descriptor { ring_seq: index, ..descriptor }.encode());
    };
    match role {
        "max" => rig.publish(0, Descriptor { ring_seq: u64::MAX - 1, ..first }.encode()),
        "taken_ahead" => rig.say_taken(9),
        "taken_back" => loop {
            rig.say_taken(2);
            std::thread::yield_now();
            rig.say_taken(1);
            std::thread::yield_now();
        },
        "wrong_entry" => rig.publish(0, Descriptor { ring_seq: 5, ..first }.encode()),
        "kind" | "reserved" => {
            let mut words = first.encode();
            words[1] |= if role == "kind" { 9 } else { 1 << 20 };
            rig.publish(0, words);
        }
        "pool" => publish(0, Descriptor { pool: 77, ..first }),
        "slot" => publish(0, Descriptor { slot: 3, ..first }),
        "slot_max" => publish(0, Descriptor { slot: u32::MAX, ..first }),
        "held" => {
            publish(0, first);
            publish(1, Descriptor { generation: 2, ..first });
            // Nothing is received any more, be it right or wrong.
            publish(2, Descriptor { slot: 1, ..first });
        }
        "old_generation" => {
            publish(0, Descriptor { generation: 5, ..first });
            rig.await_word(0, released(0));
            publish(1, Descriptor { generation: 5, ..first });
        }
        "payload_short" => publish(0, Descriptor { payload_len: 7748, ..first }),
        "payload_long" => publish(0, Descriptor { payload_len: MAX_PAYLOAD, ..first }),
        "meta_long" => publish(0, Descriptor { meta_len: 4097, ..first }),
        "meta_max" => publish(0, Descriptor { meta_len: MAX_META, ..first }),
        "return_free" => publish(0, Descriptor { slot: 2, ..back }),
        "return_beyond" => publish(0, Descriptor { slot: 3, ..back }),
        "return_twice" | "return_again" => {
            publish(0, back);
            publish(1, back);
        }
        "return_stale" => publish(0, Descriptor { generation: 9, ..back }),
        "return_released" => {
            rig.say_of(0, released(0));
            publish(0, back);
        }
        "word" => rig.say_of(0, 7777),
        "word_max" => rig.say_of(0, u64::MAX),
        "word_of_another" => rig.say_of(0, released(1)),
        "word_early" => rig.say_of(2, released(9)),
        "nonsense" => rig.link.send(&[0xff; 64], &[]).unwrap(),
        "event_level" => rig.say_json(r#"{"type":"event","level":"loud","message":""}"#),
        "event_deep" => {
            let (open, close) = ("[".repeat(1000), "]".repeat(1000));
            let fields = format!(r#"{{"deep":{open}{close}}}"#);
            rig.say_json(&format!(r#"{{"type":"event","level":"info","message":"","fields":{fields}}}"#));
        }
        _ => return None,
    }
    Some(())
}

/// What cannot be proven or does no harm.
fn misbehave(rig: &Rig, role: &str) {
    match role {
        "flip" => {
            let mut random = Random(std::process::id().into());
            let end = Instant::now() + 2 * SECOND;
            let legal = [0, 1, 2, 3, 4, 7, 8, 9, u64::from(u32::MAX), u64::MAX];
            while Instant::now() < end {
                let region = [1, 4, 7][random.below(3) as usize];
                let words = (rig.regions[region].map.len() / 8).min(128) as u64;
                let word = if random.below(4) == 0 { random.next() } else { legal[random.below(10) as usize] };
                rig.store(region, random.below(words) as usize * 8, word);
                rig.ring();
            }
            std::process::exit(0);
        }
        "remap" => {
            rig.regions.iter().for_each(|got| attack(&got.region, got.sealed));
            std::process::exit(0);
        }
        "scribble" => {
            let size = rig.first().payload_len as usize;
            let meta = meta_offset(3, 4096, 0);
            rig.store(7, meta, u64::from_le_bytes(*b"{\"a\":\"\xff\xff"));
            rig.publish(0, Descriptor { meta_len: 64, ..rig.first() }.encode());
            let mut random = Random(3);
            loop {
                rig.store(5, random.below(size as u64 / 8) as usize * 8, random.next());
                take_pages_out(&rig.regions[5].region);
            }
        }
        "close_early" => rig.set(CLOSED, 1),
        "wake_flood" => loop {
            rig.ring();
        },
        "chatter" => loop {
            send_all(&rig.link, &frameport_wire::control::encode(&ToHost::Ready).unwrap().repeat(100));
        },
        // About pools that are not there, of others, of its own that are in use; and it asks for changes without reading.
        "pool_lies" => {
            for pool in [0, 1, 2, 31, 77, u32::MAX] {
                say(&rig.link, &ToHost::Joined { pool });
                say(&rig.link, &ToHost::Left { pool });
            }
            let spec: Spec = VideoSpec::new(PixelFormat::Gray, 30_000, 30_000).into();
            for channel in [0, 1, 9, usize::MAX] {
                say(&rig.link, &ToHost::Respec { channel, spec: spec.clone() });
            }
            let wish = frameport_wire::control::encode(&ToHost::Respec { channel: 9, spec }).unwrap();
            for _ in 0..100_000 {
                send_all(&rig.link, &wish);
            }
            rig.publish(0, rig.first().encode());
        }
        "mute" => say(&rig.link, &ToHost::Unknown),
        other => unreachable!("no role {other}"),
    }
}

/// A worker in the part `role` that was sent two frames.
fn start(role: &str) -> Worker {
    let worker = small_worker(role).slots(3).grace(Duration::from_millis(50)).spawn().unwrap();
    for seq in 0..2 {
        let mut frame = worker.loan().unwrap();
        frame.fill(&picture(seq, 63 * 41 * 3)).unwrap();
        worker.send(frame).unwrap();
    }
    worker
}

/// Does what a host does until the link ends or `limit` is over: receives, and looks for free slots.
fn use_it(worker: &Worker, role: &str, limit: Duration) -> Option<Error> {
    let end = Instant::now() + limit;
    let mut kept: Vec<Frame> = Vec::new();
    let keep = !matches!(role, "old_generation" | "return_again");
    let mut sent_third = role != "word_early";
    while Instant::now() < end {
        match worker.try_recv() {
            Ok(Some(frame)) => {
                let _ = (frame.snapshot(), frame.meta(), frame.planes().count());
                kept.extend(keep.then_some(frame));
            }
            Ok(None) => {}
            Err(error) => return Some(error),
        }
        match worker.try_loan() {
            Ok(frame) if !sent_third => {
                sent_third = worker.send(frame).is_ok();
            }
            Ok(_) | Err(Error::PoolExhausted(_)) => {}
            Err(error) => return Some(error),
        }
        let stats = worker.stats();
        assert_eq!(stats.sent, stats.received + stats.lost + stats.in_flight);
        std::thread::yield_now();
    }
    None
}

/// A worker beside the liar.
struct Neighbour(Worker, u64);

impl Neighbour {
    fn works(&mut self) {
        for _ in 0..5 {
            let mut frame = self.0.loan().unwrap();
            frame.fill(&picture(self.1, 63 * 41 * 3)).unwrap();
            self.0.send(frame).unwrap();
            let back = self.0.recv_timeout(5 * SECOND).unwrap();
            assert_eq!(back.seq(), self.1);
            assert!(is_picture(&back, self.1));
            self.1 += 1;
        }
    }
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_lying_worker_ends_and_harms_nobody_else() {
    if role().is_some() {
        return;
    }
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        print(info);
    }));
    let mut neighbour = Neighbour(small_worker("neighbour").spawn().unwrap(), 0);
    for (role, says) in LIES {
        let worker = start(role);
        let process = Watched::open(worker.pid()).unwrap();
        // The service thread hears nonsense on the control channel without being asked.
        assert!(role != "nonsense" || process.dies_before(Instant::now() + SECOND));
        let error = use_it(&worker, role, 10 * SECOND).unwrap_or_else(|| panic!("{role}: nothing was noticed"));
        assert!(matches!(&error, Error::Violation { what, .. } if what.contains(says)), "{role}: {error}");
        assert!(process.dies_before(Instant::now() + SECOND), "{role}: it lives on");
        assert!(matches!(worker.try_loan(), Err(Error::Violation { .. })), "{role}: the link stays closed");
        assert!(matches!(worker.recv(), Err(Error::Violation { .. })), "{role}: the link stays closed");
        neighbour.works();
        assert_eq!(worker.stop().unwrap(), Exit::Signal(9));
        assert_eq!((worker.stats().in_flight, worker.stats().held), (0, 0), "{role}");
        assert!(worker.holders().is_empty(), "{role}: {:?}", worker.holders());
    }
    misbehaviour_that_proves_nothing(&mut neighbour);
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "no thread of the host panicked");
}

fn misbehaviour_that_proves_nothing(neighbour: &mut Neighbour) {
    let worker = start("remap");
    let error = use_it(&worker, "remap", 10 * SECOND).unwrap();
    assert!(matches!(&error, Error::WorkerDied(death) if death.exit == Exit::Code(0)), "{error}");

    for _ in 0..20 {
        // Whatever comes of it, it is an error or a frame.
        let worker = start("flip");
        let end = use_it(&worker, "flip", SECOND);
        assert!(
            matches!(end, None | Some(Error::Violation { .. } | Error::LinkClosed { .. } | Error::WorkerDied(_))),
            "{end:?}"
        );
        neighbour.works();
    }

    let worker = start("scribble");
    let frame = worker.recv_timeout(5 * SECOND).unwrap();
    assert!(matches!(frame.meta(), Err(Error::Meta { .. })));
    for _ in 0..1000 {
        assert_eq!(frame.snapshot().len(), 63 * 41 * 3);
    }
    neighbour.works();
    assert!(matches!(worker.recv_timeout(Duration::from_millis(20)), Err(Error::Timeout { .. })));
    worker.kill();
    assert_eq!(worker.stop().unwrap(), Exit::Signal(9));

    let worker = start("close_early");
    assert!(matches!(worker.recv(), Err(Error::LinkClosed { .. })));

    let worker = start("wake_flood");
    assert!(matches!(worker.recv_timeout(Duration::from_millis(200)), Err(Error::Timeout { .. })));
    neighbour.works();

    // A flood of the control channel holds up neither a start nor a death.
    let worker_beside = start("chatter");
    drop(small_worker("neighbour").spawn().unwrap());
    neighbour.works();
    let process = Watched::open(worker_beside.pid()).unwrap();
    worker_beside.kill();
    assert!(process.dies_before(Instant::now() + SECOND));
    assert!(matches!(worker_beside.recv_timeout(SECOND), Err(Error::WorkerDied(_))));

    let worker = start("pool_lies");
    let before = resident();
    drop(worker.recv_timeout(60 * SECOND).unwrap());
    assert!(resident() < before + (8 << 20), "{before} bytes before, {} after", resident());
    assert_eq!(worker.output_spec(), Some(common::small().into()), "more than it may have");
    neighbour.works();

    // A worker that holds every slot and never answers costs a deadline.
    let worker = start("mute");
    worker.send(worker.loan().unwrap()).unwrap();
    let error = worker.try_loan().unwrap_err();
    assert!(matches!(error, Error::PoolExhausted(_)), "{error}");
    drop(worker);
    neighbour.works();
}
