//! Everything the proofs of ring and parking rest on, left out or weakened: a model must notice.
//!
//! *Survivors*, and why they are no gap:
//! - The look at `oldest` before the words: the one after them rejects the same claims. It spares copying what is gone.
//! - `produced` loaded relaxed, on a live channel: what is below the first `produced` a visit loads is visible after its
//!   fence; what is due only by a later `oldest` was published before that was stored.
//! - The ticket stored or loaded relaxed, on a live channel: `produced`, stored after it, carries it. A lossless one needs it.
//! - `taken` stored relaxed: the end of the visit carries it.
//! - The waker's fence on a live channel: that of the send before it serves. A lossless one needs it.
//!
//! *Not decided*: that the end of an empty visit is a release store. By the proof it must be (a later store does not carry on
//! what an earlier one released), but the schedule that shows it takes five preemptions.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use frameport_mem::model::Mutant::{self, Load, NoStore, Omit, Store, Swap};
use frameport_mem::model::set_mutant;
use frameport_wire::layout::{BLOCKS, CLOSED, ENTRIES, OLDEST, PRODUCED, VISIT};

use crate::checked::Bounds;
use crate::listening;
use crate::live::{LIVE, Live, Twist};
use crate::lossless::{Lossless, end, interrupt};

/// What is wrong.
enum Wrong {
    /// In the ring, the page or the bells.
    Here(Mutant),
    /// In what a channel's end does with them.
    End(Twist),
}

/// What runs with it.
enum Model {
    Live(Live),
    Lossless(Lossless),
    End(Bounds),
    Interrupt(Bounds),
    Listening(fn(Bounds) -> u64),
}

/// A mutant, the model that notices it, and as what.
struct Case {
    name: &'static str,
    wrong: Wrong,
    model: Model,
    found_as: &'static str,
}

impl Case {
    fn run(&self) -> u64 {
        let mut twist = None;
        match self.wrong {
            Wrong::Here(mutant) => set_mutant(Some(mutant)),
            Wrong::End(wrong) => twist = Some(wrong),
        }
        match self.model {
            Model::Live(live) => Live { twist, ..live }.passes(),
            Model::Lossless(lossless) => lossless.passes(),
            Model::End(bounds) => end(bounds),
            Model::Interrupt(bounds) => interrupt(bounds),
            Model::Listening(model) => model(within(2, 1)),
        }
    }

    /// Runs it in a process of its own, for loom does not outlive a deadlock.
    fn is_found(&self) -> bool {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["mutants::one_mutant", "--exact", "--ignored", "--nocapture"]).env("MUTANT", self.name);
        let ran = child.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        let is_found = !ran.status.success() && said.contains(self.found_as);
        if !is_found {
            eprintln!("'{}' is not found as '{}': {said}", self.name, self.found_as);
        }
        is_found
    }
}

#[test]
#[ignore = "takes its name from the environment"]
fn one_mutant() {
    let name = std::env::var("MUTANT").unwrap();
    CASES.iter().find(|case| case.name == name).unwrap().run();
}

#[test]
fn every_mutant_is_found() {
    let (next, found) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(case) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = std::time::Instant::now();
            found.fetch_add(case.is_found().into(), Ordering::Relaxed);
            eprintln!("{:.1} s: {}", started.elapsed().as_secs_f32(), case.name);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    assert_eq!(found.into_inner(), CASES.len());
}

const fn is_produced(at: usize) -> bool {
    at == BLOCKS + PRODUCED
}

const fn is_oldest(at: usize) -> bool {
    at == BLOCKS + OLDEST
}

const fn is_closed(at: usize) -> bool {
    at == BLOCKS + CLOSED
}

const fn is_visit(at: usize) -> bool {
    at == BLOCKS + VISIT
}

const fn is_entry(at: usize) -> bool {
    at >= BLOCKS + ENTRIES
}

/// In the page; regions have their bells there.
const fn is_state(at: usize) -> bool {
    at < 64
}

const fn is_begin(visit: u64) -> bool {
    matches!(visit % 4, 1 | 2)
}

const fn within(preemptions: usize, claims: usize) -> Bounds {
    Bounds { preemptions: Some(preemptions), claims }
}

/// Three sends, two looks.
const THREE: Live = Live { sends: 3, recvs: 2, bounds: within(3, 1), ..LIVE };
/// The same, the receiver being told what was sent.
const TOLD: Live = Live { told: true, bounds: within(2, 1), ..THREE };
/// Every visit is one for any.
const ANY: Live = Live { bounds: within(2, 0), ..THREE };
/// The fewest slots: a loan takes the oldest back, an entry is overwritten while a claim reads it.
const TIGHT: Live = Live { slots: 2, capacity: 2, early: 1, bounds: within(2, 1), ..THREE };
const BLOCKS_LIVE: Live = Live { blocks: true, bounds: within(3, 1), ..LIVE };
const LOSSLESS: Lossless = Lossless { slots: 2, sends: 3, blocks: false, bounds: within(3, 1) };
const BLOCKS_BOTH: Lossless = Lossless { slots: 1, sends: 2, blocks: true, bounds: within(3, 1) };

const fn live(name: &'static str, wrong: Mutant, model: Live, found_as: &'static str) -> Case {
    Case { name, wrong: Wrong::Here(wrong), model: Model::Live(model), found_as }
}

const fn twisted(name: &'static str, wrong: Twist, model: Live, found_as: &'static str) -> Case {
    Case { name, wrong: Wrong::End(wrong), model: Model::Live(model), found_as }
}

const fn lossless(name: &'static str, wrong: Mutant, model: Lossless, found_as: &'static str) -> Case {
    Case { name, wrong: Wrong::Here(wrong), model: Model::Lossless(model), found_as }
}

const fn listening(name: &'static str, omitted: &'static str, model: fn(Bounds) -> u64) -> Case {
    Case { name, wrong: Wrong::Here(Omit(omitted)), model: Model::Listening(model), found_as: "deadlock" }
}

const CASES: &[Case] = &[
    live("no fence in a send", Omit("sender's fence"), THREE, "frame 0 after 3"),
    live("no fence in a claim", Omit("visit's fence"), THREE, "frame 0 after 3"),
    live("no fence in a visit for any", Omit("visit's fence"), ANY, "frame 0 after 3"),
    live("no fence after the words", Omit("fence after the words"), Live { recvs: 1, ..TIGHT }, "torn entry"),
    live("no look after the words", Omit("look after the words"), Live { recvs: 1, ..TIGHT }, "torn entry"),
    live("a claim begins relaxed", Store(|at, value| is_visit(at) && is_begin(value)), THREE, "frames received"),
    live(
        "a visit for any begins relaxed",
        Store(|at, value| is_visit(at) && is_begin(value)),
        Live { bounds: within(3, 0), ..THREE },
        "frames received",
    ),
    live("a visit ends relaxed", Store(|at, value| is_visit(at) && value % 4 == 0), THREE, "frames received"),
    live("a visit is loaded relaxed", Load(is_visit), THREE, "frames received"),
    live("a claim is not announced", NoStore(|at, value| is_visit(at) && value % 4 == 1), THREE, "frames received"),
    live(
        "a visit for any is not announced",
        NoStore(|at, value| is_visit(at) && value % 4 == 2),
        ANY,
        "frames received",
    ),
    live(
        "an empty visit does not end",
        NoStore(|at, value| is_visit(at) && value % 4 == 3),
        Live { keeps: 1, bounds: within(3, 1), ..TIGHT },
        "counters at the end",
    ),
    live("produced is stored relaxed", Store(|at, _| is_produced(at)), THREE, "WrongEntry"),
    live("oldest is stored relaxed", Store(|at, _| is_oldest(at)), TOLD, "none, although"),
    live("oldest is loaded relaxed", Load(is_oldest), Live { bounds: within(2, 0), ..TOLD }, "Counts {"),
    live("oldest is not stored", NoStore(|at, _| is_oldest(at)), THREE, "frame 0 after 3"),
    live(
        "produced is loaded before oldest",
        Swap { first: BLOCKS + OLDEST, second: BLOCKS + PRODUCED },
        THREE,
        "Counts {",
    ),
    live(
        "released is stored relaxed",
        Store(|at, value| is_state(at) && value % 2 == 1),
        Live { recvs: 1, ..TIGHT },
        "Causality violation",
    ),
    live("states are loaded relaxed", Load(is_state), Live { recvs: 1, ..TIGHT }, "Causality violation"),
    live("taken is not said", NoStore(|at, value| is_state(at) && value % 2 == 0), THREE, "frames received"),
    twisted("taken is said after the visit", Twist::TakenAfterVisit, THREE, "frames received"),
    twisted("states are loaded before the visit", Twist::StatesBeforeVisit, THREE, "frames received"),
    twisted("an open visit is ignored", Twist::VisitIgnored, THREE, "frames received"),
    twisted("the visit is loaded before the fence", Twist::VisitBeforeUnlink, THREE, "frames received"),
    twisted("unlink before publish", Twist::UnlinkFirst, TOLD, "none, although"),
    twisted("fewer positions than slots", Twist::FewPositions, ANY, "torn entry"),
    live("no fence before the sleep of a live receiver", Omit("sleeper's fence"), BLOCKS_LIVE, "deadlock"),
    live("no look before the sleep of a live receiver", Omit("sleeper's look"), BLOCKS_LIVE, "deadlock"),
    lossless("no fence before the sleep", Omit("sleeper's fence"), BLOCKS_BOTH, "deadlock"),
    lossless("no look before the sleep", Omit("sleeper's look"), BLOCKS_BOTH, "deadlock"),
    lossless("no fence before the wake-up", Omit("waker's fence"), BLOCKS_BOTH, "deadlock"),
    lossless("a ticket is stored relaxed", Store(|at, _| is_entry(at)), LOSSLESS, "Causality violation"),
    lossless("a ticket is loaded relaxed", Load(is_entry), LOSSLESS, "Causality violation"),
    lossless("a lossless release is stored relaxed", Store(|at, _| is_state(at)), LOSSLESS, "Causality violation"),
    lossless("a lossless release is loaded relaxed", Load(is_state), LOSSLESS, "Causality violation"),
    Case {
        name: "closed is stored relaxed",
        wrong: Wrong::Here(Store(|at, _| is_closed(at))),
        model: Model::End(within(3, 1)),
        found_as: "the last entry is not seen",
    },
    Case {
        name: "closed is loaded relaxed",
        wrong: Wrong::Here(Load(is_closed)),
        model: Model::End(within(3, 1)),
        found_as: "the last entry is not seen",
    },
    Case {
        name: "a sleeper does not check the private word",
        wrong: Wrong::Here(Omit("check of the private word")),
        model: Model::Interrupt(within(3, 1)),
        found_as: "deadlock",
    },
    listening("the doorbell is not asked for", "request for the doorbell", listening::two_sleepers),
    listening("no comparison before listening", "comparison before listening", listening::two_sleepers),
    listening("a listener leaves without a word", "word of the listener", listening::two_sleepers),
    listening("an event loop keeps a ring", "word of the event loop", listening::a_sleeper_and_an_event_loop),
    listening("a listener keeps a ring", "word to the event loop", listening::a_sleeper_and_an_event_loop),
];
