//! What the receivers are told, and how it ends.

use super::*;

/// What one receiver was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Whose deaths, where that was said.
    pub(super) deaths: Vec<Option<u32>>,
    /// Whose frame came last.
    pub(super) at: u32,
    /// Why nothing comes any more.
    pub(super) ended: Option<Error>,
}

impl Host {
    pub(super) fn recv(&mut self, channel: usize, blocks: bool) {
        let (_, process) = self.now();
        let was_dead = !world::is_alive(process) && !self.told[channel].deaths.contains(&Some(process));
        let asks = self.truth.with(|truth| {
            let asks = truth.lives.iter().map(|(process, life)| (*process, life.outputs[channel].ask()));
            asks.collect::<BTreeMap<u32, Asked>>()
        });
        let of_later = Stream::new(Delivery::Lossless).ask();
        let receiver = &self.receivers[channel];
        let timed_out = || {
            self.truth.with(|truth| {
                truth.wait(WAIT);
                // What one that has stalled sends before it is killed may come after its end.
                if self.plan.stall != Some(Stall::Kill) {
                    truth.lives.values().for_each(|life| life.outputs[channel].starve());
                }
            });
            let is_sure = margin() < 1_000_000_000 && self.plan.stall.is_none();
            ensure(!(was_dead && is_sure), || format!("the death of {process} is not told"));
            Ok(None)
        };
        let found = match world::below(3) {
            _ if blocks => receiver.recv().map(Some),
            0 => receiver.try_recv(),
            1 => match receiver.recv_timeout(WAIT) {
                Err(Error::Timeout { .. }) => timed_out(),
                other => other.map(Some),
            },
            _ => match select(&[&self.receivers[0], &self.receivers[1]], Until::after(WAIT)) {
                Ok(_) => receiver.try_recv(),
                Err(Error::Timeout { .. }) => timed_out(),
                Err(error) => Err(error),
            },
        };
        let told = &mut self.told[channel];
        match found {
            Ok(Some(frame)) => {
                let of = shown(&frame) / OF_LIFE;
                let passed = told.at == of as u32
                    || told.at == 0
                    || told
                        .deaths
                        .last()
                        .is_some_and(|last| last.is_none_or(|last| last >= told.at && u64::from(last) < of));
                ensure(passed, || format!("a frame of {of} before what was to come: {told:?}"));
                told.at = of as u32;
                let asked = asks.get(&told.at).copied().unwrap_or(of_later);
                let arrive = |truth: &mut Truth| truth.life(of as u32).outputs[channel].arrive(frame.seq(), asked);
                let (picture, _) = self.truth.with(arrive);
                look(&frame, picture);
                self.held.push(frame);
                if chance(2) || self.held.len() > 4 {
                    self.let_go();
                }
            }
            Ok(None) => {}
            Err(error @ (Error::GivenUp { .. } | Error::LinkClosed { .. })) => {
                self.check_end(&error);
                self.told[channel].ended = Some(error);
            }
            Err(error) => self.hear(channel, error),
        }
    }

    /// A death is told.
    fn hear(&mut self, channel: usize, error: Error) {
        let restarts = self.worker.stats().restarts;
        let told = &mut self.told[channel];
        // The last one's is what a link that goes no further ends in.
        let is_last = self.is_finished && told.deaths.len() as u64 > restarts;
        let of = match &error {
            Error::WorkerDied(death) => {
                let process = death.pid;
                let is_next = told.at <= process && told.deaths.iter().flatten().all(|earlier| *earlier < process);
                let is_again = is_last && told.deaths.last() == Some(&Some(process));
                ensure(is_next || is_again, || format!("the death of {process} is not the next: {told:?}"));
                self.truth.with(|truth| {
                    let life = truth.life(process);
                    life.outputs[channel].finish();
                    let is_right = match death.exit {
                        Exit::Signal(9) => true,
                        Exit::Code(code) => life.left == Some(code),
                        _ => false,
                    };
                    ensure(is_right, || format!("{death:?}: {life:?}"));
                });
                ensure(!world::is_alive(process), || format!("{death:?} lives"));
                Some(process)
            }
            Error::Stalled { .. } if self.plan.stall == Some(Stall::Kill) => None,
            error => world::fail(&format!("the host's recv: {error}")),
        };
        if is_last {
            told.ended = Some(error);
        } else {
            told.deaths.push(of);
        }
    }

    pub(super) fn let_go(&mut self) {
        if !self.held.is_empty() {
            let frame = self.held.swap_remove(world::below(self.held.len() as u64) as usize);
            // It has not changed meanwhile.
            look(&frame, shown(&frame));
        }
    }
}

/// The picture a frame's metadata tell of.
fn shown(frame: &Frame) -> u64 {
    frame.meta().unwrap().get("picture").and_then(Value::as_u64).unwrap()
}
