//! [`Reported`]: what a stream tells the server of how far WAL is, which may be others' progress, and when that changes.

use std::time::Duration;

use tokio::sync::watch;
use walstream::Lsn;
use walstream::sync::StandbyLsns;

use crate::hub::Relay;

/// When to look how far replay is that nobody waits for, if no message and no flush gives an opportunity before.
const LOOK_AT_APPLIED: Duration = Duration::from_millis(100);

/// Our own write and flush LSN and what is applied here, or what those have for whom a hub relays.
#[derive(Debug)]
pub(super) struct Reported {
    /// Whose progress is reported, as far as it is here, too.
    relay: Option<Relay>,
    /// How far the receiver has replayed, where it does.
    applied: Option<watch::Receiver<Lsn>>,
}

impl Reported {
    pub(super) const fn of(relay: Option<Relay>, applied: Option<watch::Receiver<Lsn>>) -> Self {
        Self { relay, applied }
    }

    /// For whom the stream is relayed.
    pub(super) const fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// What to report when WAL of the stream, which has come to `received`, is written and flushed so far.
    pub(super) fn lsns(&mut self, write: Lsn, flush: Lsn, received: Lsn) -> StandbyLsns {
        let applied = self.applied.as_mut();
        let is_replayed = applied.is_some();
        let applied = applied.map_or(Lsn::INVALID, |applied| *applied.borrow_and_update());
        let here = StandbyLsns {
            write: write.min(received),
            flush: flush.min(received),
            apply: applied.min(received),
        };
        match &mut self.relay {
            Some(relay) => relayed(relay.lsns(), here, is_replayed),
            None => here,
        }
    }

    /// Waits until there is more to report that somebody waits for. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            () = relay_changed(&mut self.relay) => {}
            () = applied_changed(&mut self.applied) => {}
        }
    }

    /// When to look again, because less was reported as applied than as flushed and nobody will tell.
    pub(super) fn look_after(&self, applied: Lsn, flushed: Lsn) -> Option<Duration> {
        let is_replaying = |applied: &watch::Receiver<Lsn>| applied.has_changed().is_ok();
        (applied < flushed && self.applied.as_ref().is_some_and(is_replaying))
            .then_some(LOOK_AT_APPLIED)
    }
}

/// What is reported for others: what they have, as far as it is here, too. What is applied here does not count, but where nobody is
/// waited for.
fn relayed(theirs: Option<StandbyLsns>, here: StandbyLsns, is_replayed: bool) -> StandbyLsns {
    // Nobody is waited for: what is flushed is as good as applied, or a commit that waits for that would wait for ever. One that
    // replays tells what it has applied itself.
    let theirs = theirs.unwrap_or(StandbyLsns {
        apply: if is_replayed { here.apply } else { here.flush },
        ..here
    });
    StandbyLsns {
        write: theirs.write.min(here.write),
        flush: theirs.flush.min(here.flush),
        apply: theirs.apply.min(here.flush),
    }
}

/// Waits until those for whom the stream is relayed have come further.
async fn relay_changed(relay: &mut Option<Relay>) {
    match relay {
        Some(relay) => relay.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits until more is replayed that a commit waits for; for ever once nothing will be.
async fn applied_changed(applied: &mut Option<watch::Receiver<Lsn>>) {
    match applied {
        // Not that it ended: what it has applied stays what is reported.
        Some(receiver) => {
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_is_looked_for_while_replay_is_behind_and_alive() {
        let (teller, applied) = watch::channel(Lsn(100));
        let mut reported = Reported::of(None, Some(applied));
        let lsns = reported.lsns(Lsn(300), Lsn(200), Lsn(250));
        assert_eq!(
            (lsns.write, lsns.flush, lsns.apply),
            (Lsn(250), Lsn(200), Lsn(100))
        );
        let behind = reported.look_after(lsns.apply, lsns.flush);
        assert_eq!(behind, Some(LOOK_AT_APPLIED));
        // Not notified, and read all the same.
        teller.send_if_modified(|lsn| {
            *lsn = Lsn(200);
            false
        });
        let lsns = reported.lsns(Lsn(300), Lsn(200), Lsn(250));
        assert_eq!(lsns.apply, Lsn(200));
        assert_eq!(reported.look_after(lsns.apply, lsns.flush), None);
        drop(teller);
        assert_eq!(reported.look_after(Lsn(1), Lsn(2)), None);
        assert_eq!(reported.lsns(Lsn(300), Lsn(200), Lsn(250)).apply, Lsn(200));
    }

    #[test]
    fn for_others_their_progress_counts_as_far_as_it_is_here() {
        let of = |write, flush, apply| StandbyLsns {
            write: Lsn(write),
            flush: Lsn(flush),
            apply: Lsn(apply),
        };
        let here = of(30, 20, 10);
        assert_eq!(relayed(Some(of(40, 15, 18)), here, true), of(30, 15, 18));
        assert_eq!(relayed(None, here, true), of(30, 20, 10));
        assert_eq!(relayed(None, here, false), of(30, 20, 20));
    }
}
