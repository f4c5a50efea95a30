//! The worker's part of a world.

use frameport::{Error, Frame, FrameMut, Level, Link, Until, select};
use frameport_sys::process::exit;
use frameport_sys::thread::yield_now;
use frameport_sys::world;

use super::{IN_PLACE, Plan, Truth, WAIT, other_spec, pad, rest, timed};
use crate::harness::{Shared, chance, ensure};
use crate::stream::{edit, look, paint};

/// The worker. Answers with the status it leaves with.
pub(super) fn work(plan: Plan, truth: &Shared<Truth>) -> i32 {
    // The host may have given up meanwhile.
    let Ok(link) = Link::from_env() else { return 1 };
    let mut held: Vec<(Frame, u64)> = Vec::new();
    let let_go = |(frame, picture): (Frame, u64)| {
        look(&frame, picture);
        drop(frame);
        truth.with(Truth::come_home);
    };
    // One that was stopped between its last look and its deadline may have missed it.
    let starve = || {
        truth.with(|truth| {
            truth.wait(WAIT);
            truth.input.starve();
        });
    };
    let mut next_own = 1_000_000;
    loop {
        let asked = truth.with(|truth| truth.input.ask());
        let found = match world::below(4) {
            0 => link.try_recv().map(|found| found.ok_or(())),
            1 => match link.recv_timeout(WAIT) {
                Err(Error::Timeout { .. }) => {
                    starve();
                    Ok(Err(()))
                }
                other => other.map(Ok),
            },
            2 => match select(&[&link.receiver("in").unwrap()], Until::after(WAIT)) {
                Ok(_) => link.try_recv().map(|found| found.ok_or(())),
                Err(Error::Timeout { .. }) => {
                    starve();
                    Ok(Err(()))
                }
                Err(error) => Err(error),
            },
            _ => link.recv().map(Ok),
        };
        let frame = match found {
            Ok(Ok(frame)) => frame,
            Ok(Err(())) => {
                yield_now();
                continue;
            }
            Err(Error::LinkClosed { .. }) => break,
            Err(error) => world::fail(&format!("the worker's recv: {error}")),
        };
        let (picture, params) = truth.with(|truth| truth.input.arrive(frame.seq(), asked));
        look(&frame, picture);
        let known = frame.params().unwrap().get("n").and_then(serde_json::Value::as_u64).unwrap_or(0);
        ensure(known >= params, || format!("parameters {known} with a frame sent after {params}"));
        match world::below(5) {
            0 => let_go((frame, picture)),
            1 if held.len() + 2 < plan.slots as usize => {
                // A view less keeps the frame.
                drop(frame.hold());
                held.push((frame, picture));
            }
            2 | 3 => {
                if !answer(&link, frame, plan, truth) {
                    break;
                }
            }
            _ => {
                let answer = frame.seq() + 1_500_000;
                truth.with(|truth| truth.output.disturb());
                match link.reply_until(&frame, Until::after(WAIT)) {
                    Ok(mut reply) => {
                        paint(&mut reply, answer);
                        truth.with(|truth| truth.output.begin(frame.seq(), answer, 0));
                        let sent = link.send(reply).is_ok();
                        truth.with(|truth| truth.output.end(sent));
                    }
                    Err(Error::LinkClosed { .. }) => {}
                    Err(Error::PoolExhausted(_)) => truth.with(|truth| truth.wait(WAIT)),
                    Err(error) => world::fail(&format!("the worker's loan: {error}")),
                }
                let_go((frame, picture));
            }
        }
        if !held.is_empty() && chance(3) {
            let frame = held.swap_remove(world::below(held.len() as u64) as usize);
            let_go(frame);
        }
        if chance(8)
            && let Ok(Some(mut own)) = loan_own(&link, truth)
        {
            next_own += 1;
            paint(&mut own, next_own);
            own.set_seq(next_own);
            truth.with(|truth| truth.output.begin(next_own, next_own, 0));
            let sent = link.send(own).is_ok();
            truth.with(|truth| truth.output.end(sent));
        }
        if chance(8) && link.report(Level::Info, pad(3000), [("n", truth.with(|truth| truth.reported))]) {
            truth.with(|truth| truth.reported += 1);
        }
        if chance(10) {
            rest(truth);
        }
        if plan.changes && chance(15) {
            let sender = link.sender("out").unwrap();
            // Once it has its answer it may ask again.
            for _ in 0..=world::below(2) {
                match timed(truth, || sender.change_spec_until(other_spec(), Until::after(WAIT))) {
                    Ok(()) | Err(Error::PoolExhausted(_) | Error::Timeout { .. } | Error::LinkClosed { .. }) => {}
                    Err(error) => world::fail(&format!("the worker's change: {error:?}")),
                }
            }
        }
        if plan.fickle && chance(15) {
            match world::below(3) {
                0 => break,
                1 => {
                    truth.with(|truth| truth.left = Some(7));
                    exit(7);
                }
                _ => {
                    link.fail("enough");
                    truth.with(|truth| truth.left = Some(3));
                    return 3;
                }
            }
        }
    }
    while let Some(frame) = held.pop() {
        let_go(frame);
    }
    truth.with(|truth| truth.left = Some(0));
    0
}

fn loan_own(link: &Link, truth: &Shared<Truth>) -> Result<Option<FrameMut>, Error> {
    truth.with(|truth| truth.output.disturb());
    link.loan_if_free()
}

/// Sends a frame back in place, edited or not; false when the link is closed.
fn answer(link: &Link, mut frame: Frame, plan: Plan, truth: &Shared<Truth>) -> bool {
    let hold = chance(4).then(|| frame.hold());
    let seq = frame.seq();
    let in_place = hold.is_none() && link.sender("out").unwrap().returns(&frame);
    let picture = seq + if in_place { IN_PLACE } else { 2_000_000 };
    edit(&mut frame, picture);
    let copied = link.copied();
    truth.with(|truth| {
        truth.output.disturb();
        truth.output.begin(seq, picture, 0);
    });
    let sent = link.send_back_until(frame, Until::after(WAIT));
    truth.with(|truth| truth.output.end(sent.is_ok()));
    drop(hold);
    if sent.is_err() || !in_place {
        truth.with(Truth::come_home);
    }
    let is_copied = link.copied() != copied;
    ensure(sent.is_err() || is_copied != in_place, || format!("frame {seq}: {in_place}, {is_copied}"));
    match sent {
        Ok(()) => true,
        // Of a spec that does not go out any more.
        Err(Error::Format { .. }) if plan.changes => true,
        Err(Error::PoolExhausted(_)) => {
            truth.with(|truth| truth.wait(WAIT));
            true
        }
        Err(Error::LinkClosed { .. }) => false,
        Err(error) => world::fail(&format!("the worker's answer: {error}")),
    }
}
