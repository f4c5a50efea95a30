//! The end of all lives, and what is left of them.

use super::*;

impl Host {
    /// Ends the worker, and looks at what is left of it.
    pub(super) fn finish(mut self) {
        let over = world::below(6);
        if over & 1 == 0 {
            self.kill();
        }
        if over < 4 {
            self.worker.finish();
            self.is_finished = true;
            if over == 1 {
                self.kill();
            }
            for channel in [0, 1] {
                while self.told[channel].ended.is_none() {
                    self.recv(channel, true);
                }
                let (told, restarts) = (&self.told[channel], self.worker.stats().restarts as usize);
                let least = restarts + usize::from(!matches!(told.ended, Some(Error::LinkClosed { .. })));
                let is_all = (least..=restarts + 1).contains(&told.deaths.len());
                // One that is killed as it leaves has said that nothing follows, and is started again.
                let may_lack = self.plan.leaves && matches!(told.ended, Some(Error::LinkClosed { .. }));
                ensure(is_all || may_lack, || format!("{restarts} restarts: {told:?}"));
            }
            let [one, other] = &self.told;
            // One that is killed as it leaves has said so on one channel, and not on the other.
            ensure(one.deaths.iter().zip(&other.deaths).all(|(one, other)| one == other), || {
                format!("{one:?}, {other:?}")
            });
        }
        self.worker.stop().unwrap();
        let stats = self.worker.stats();
        check_counts(&stats);
        ensure(stats.in_flight == 0, || format!("in flight after the stop: {stats:?}"));
        let again = self.worker.loan().unwrap_err();
        let given_up = matches!(self.ended, Some(Error::GivenUp { .. }));
        ensure(!given_up || matches!(again, Error::GivenUp { .. }), || format!("{again:?} after it was given up"));
        (self.loans, self.pins) = Default::default();
        while !self.held.is_empty() {
            self.let_go();
        }
        let holders = self.worker.holders();
        ensure(holders.is_empty(), || format!("not at home: {holders:?}"));
        let (sent, taken, results, lives) = self.truth.with(|truth| {
            let lives = truth.lives.values();
            let outputs = lives.clone().flat_map(|life| &life.outputs).map(|output| output.received());
            let (sent, taken) = (lives.clone().map(|life| life.input.sent()), lives.map(|life| life.input.received()));
            (sent.sum::<usize>() as u64, taken.sum::<usize>() as u64, outputs.sum::<usize>() as u64, truth.starts)
        });
        let (counted, known) = ((stats.sent, stats.results, stats.no_slot), (sent, results, self.no_slot));
        ensure(counted == known, || format!("{known:?}: {stats:?}"));
        ensure(stats.refused == self.refused, || format!("{} refused: {stats:?}", self.refused));
        let is_right = (taken..=taken + u64::from(lives)).contains(&stats.received);
        ensure(is_right || self.plan.stall.is_some(), || format!("{taken} taken: {stats:?}"));
    }
}
