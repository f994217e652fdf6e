//! [`StandbyStatus`], what a sender knows of one connection, and the list of all of them, with the commits that wait.
//!
//! One [`SyncRep`] behind one lock says who is synchronous and up to where commits are released. Whoever is released is
//! woken after the lock was let go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{oneshot, watch};
use walstream::protocol::copy::StandbyStatusUpdate;
use walstream::protocol::horizon::XminHorizon;
use walstream::sync::{
    StandbyId, StandbyLsns, StandbyRow, SyncRep, SyncRule, SyncState, WaitMode, WaiterId,
    WalSenderState,
};
use walstream::types::{FullTransactionId, TransactionId};
use walstream::{Lsn, PgTimestamp};

/// What a sender knows of one connection: a line of `pg_stat_replication`.
///
/// `apply_lsn <= flush_lsn <= write_lsn <= sent_lsn` for a standby that keeps to the protocol; 0/0 is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbyStatus {
    /// Number of the connection, as the client knows it for cancel requests.
    pub pid: u32,
    /// User that the client named.
    pub user: String,
    /// The client's `application_name`.
    pub application_name: String,
    /// Address of the client; `None` over a unix socket.
    pub client_address: Option<SocketAddr>,
    /// When the connection began (`backend_start`).
    pub connected_at: SystemTime,
    /// The oldest transaction that the standby still needs (`backend_xmin`), as it says in its feedback. `None` for one with
    /// a slot, which keeps that instead.
    pub xmin: Option<TransactionId>,
    /// What the sender is doing for it.
    pub state: WalSenderState,
    /// End of the WAL that was handed to the system for sending.
    pub sent_lsn: Lsn,
    /// End of the WAL that the standby has handed to its system.
    pub write_lsn: Lsn,
    /// End of the WAL that is on the standby's stable storage.
    pub flush_lsn: Lsn,
    /// End of the WAL that the standby has replayed (`replay_lsn`).
    pub apply_lsn: Lsn,
    /// How long WAL took to be written there, once flushed here; `None` while that is not known.
    pub write_lag: Option<Duration>,
    /// How long WAL took to be flushed there.
    pub flush_lag: Option<Duration>,
    /// How long WAL took to be replayed there (`replay_lag`).
    pub apply_lag: Option<Duration>,
    /// Its place among those that may be synchronous, from 1; 0 when it never is.
    pub sync_priority: u32,
    /// What it is to commits.
    pub sync_state: SyncState,
    /// The standby's clock when it sent its last status update (`reply_time`).
    pub reply_time: Option<PgTimestamp>,
    /// When the last status update came.
    pub replied_at: Option<Instant>,
}

/// All connections of a sender that have begun, and the commits that wait for them. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Standbys {
    state: Arc<Mutex<State>>,
    /// What the required standbys have reached.
    released: watch::Sender<StandbyLsns>,
    /// Whether any is required.
    required: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    sync: SyncRep<oneshot::Sender<()>>,
    connections: BTreeMap<u32, Connection>,
}

/// What is known of a connection beside its row in [`SyncRep`].
#[derive(Debug)]
struct Connection {
    id: StandbyId,
    user: String,
    client_address: Option<SocketAddr>,
    connected_at: SystemTime,
    xmin: Option<FullTransactionId>,
    replied_at: Option<Instant>,
}

/// One connection's place in the list, until it is dropped.
#[derive(Debug)]
pub(crate) struct StandbyEntry {
    standbys: Standbys,
    pid: u32,
    id: StandbyId,
}

/// A commit that waits. Dropping it ends the wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    standbys: Standbys,
    id: Option<WaiterId>,
    pub(crate) released: oneshot::Receiver<()>,
}

impl Standbys {
    pub(crate) fn new(rule: SyncRule, flushed_here: Lsn) -> Self {
        let sync = SyncRep::new(rule, flushed_here);
        Self {
            released: watch::Sender::new(StandbyLsns::default()),
            required: watch::Sender::new(sync.standbys_required()),
            state: Arc::new(Mutex::new(State {
                sync,
                connections: BTreeMap::new(),
            })),
        }
    }

    /// What the required standbys have reached, whenever it changes; as it was while none is required.
    pub(crate) fn released(&self) -> watch::Receiver<StandbyLsns> {
        self.released.subscribe()
    }

    /// Whether any standby is required, whenever it changes.
    pub(crate) fn required(&self) -> watch::Receiver<bool> {
        self.required.subscribe()
    }

    pub(crate) fn enter(
        &self,
        pid: u32,
        user: &str,
        application_name: &str,
        client_address: Option<SocketAddr>,
    ) -> StandbyEntry {
        let id = self.change(|state| {
            let id = state.sync.join(application_name);
            let connection = Connection {
                id,
                user: user.to_owned(),
                client_address,
                connected_at: SystemTime::now(),
                xmin: None,
                replied_at: None,
            };
            state.connections.insert(pid, connection);
            id
        });
        StandbyEntry {
            standbys: self.clone(),
            pid,
            id,
        }
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn list(&self) -> Vec<StandbyStatus> {
        let state = self.lock();
        let rows: BTreeMap<StandbyId, StandbyRow> =
            state.sync.rows().map(|row| (row.id, row)).collect();
        let statuses = state.connections.iter();
        statuses
            .filter_map(|(pid, connection)| {
                Some(connection.status(*pid, rows.get(&connection.id)?))
            })
            .collect()
    }

    /// The oldest transaction that a standby without a slot needs.
    pub(crate) fn oldest_xmin(&self) -> Option<FullTransactionId> {
        let state = self.lock();
        state
            .connections
            .values()
            .filter_map(|connection| connection.xmin)
            .min()
    }

    pub(crate) fn rule(&self) -> SyncRule {
        self.lock().sync.rule().clone()
    }

    pub(crate) fn set_rule(&self, rule: SyncRule) {
        self.change(|state| state.sync.set_rule(rule));
    }

    pub(crate) fn handle_local_flush(&self, flushed_here: Lsn) {
        self.change(|state| state.sync.handle_local_flush(flushed_here));
    }

    /// How many commits wait in each of these modes, at one moment.
    pub(crate) fn waiting<const N: usize>(&self, modes: [WaitMode; N]) -> [usize; N] {
        let state = self.lock();
        modes.map(|mode| state.sync.waiting(mode))
    }

    pub(crate) fn released_lsn(&self, mode: WaitMode) -> Lsn {
        self.lock().sync.released_lsn(mode)
    }

    /// `None` when the LSN is released already.
    pub(crate) fn wait(&self, lsn: Lsn, mode: WaitMode) -> Option<Waiting> {
        let (wake, released) = oneshot::channel();
        let id = self.lock().sync.wait(lsn, mode, || wake)?;
        Some(Waiting {
            standbys: self.clone(),
            id: Some(id),
            released,
        })
    }

    /// Changes something, and wakes all commits that need not wait any longer.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut released = Vec::new();
        let result = {
            let mut state = self.lock();
            let result = change(&mut state);
            while let Some((_, wake)) = state.sync.poll_released() {
                released.push(wake);
            }
            let lsns = state.sync.released_lsns();
            // Under the lock, so that an older value never comes after a newer one.
            self.released.send_if_modified(|known| {
                let is_new = *known != lsns;
                *known = lsns;
                is_new
            });
            let required = state.sync.standbys_required();
            self.required
                .send_if_modified(|known| std::mem::replace(known, required) != required);
            result
        };
        for wake in released {
            // Who does not wait any longer does not need to hear it.
            let _ = wake.send(());
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn status(&self, pid: u32, row: &StandbyRow) -> StandbyStatus {
        StandbyStatus {
            pid,
            user: self.user.clone(),
            application_name: row.application_name.clone(),
            client_address: self.client_address,
            connected_at: self.connected_at,
            xmin: self.xmin.map(FullTransactionId::xid),
            state: row.state,
            sent_lsn: row.sent_lsn,
            write_lsn: row.lsns.write,
            flush_lsn: row.lsns.flush,
            apply_lsn: row.lsns.apply,
            write_lag: row.lag.write,
            flush_lag: row.lag.flush,
            apply_lag: row.lag.apply,
            sync_priority: row.sync_priority,
            sync_state: row.sync_state,
            reply_time: row.replied_at,
            replied_at: self.replied_at,
        }
    }
}

impl StandbyEntry {
    pub(crate) fn set_state(&self, new: WalSenderState) {
        self.standbys
            .change(|state| state.sync.handle_state(self.id, new));
    }

    /// WAL up to `flushed_lsn` is going to be sent.
    pub(crate) fn handle_send(&self, flushed_lsn: Lsn) {
        let now = SystemTime::now().into();
        let mut state = self.standbys.lock();
        state.sync.handle_send(self.id, flushed_lsn, now);
    }

    /// WAL up to `sent_lsn` was taken by the system.
    pub(crate) fn handle_sent(&self, sent_lsn: Lsn) {
        self.standbys
            .change(|state| state.sync.handle_sent(self.id, sent_lsn));
    }

    pub(crate) fn handle_reply(&self, reply: &StandbyStatusUpdate, now: Instant) {
        let lsns = StandbyLsns {
            write: reply.write_lsn,
            flush: reply.flush_lsn,
            apply: reply.apply_lsn,
        };
        let clock = SystemTime::now().into();
        self.standbys.change(|state| {
            state.sync.handle_reply(self.id, lsns, reply.sent_at, clock);
            if let Some(connection) = state.connections.get_mut(&self.pid) {
                connection.replied_at = Some(now);
            }
        });
    }

    /// The standby has sent feedback at this time of its clock.
    pub(crate) fn handle_feedback_time(&self, sent_at: PgTimestamp) {
        let mut state = self.standbys.lock();
        state.sync.handle_reply_time(self.id, sent_at);
    }

    /// The standby, which has no slot, needs transactions from here on.
    pub(crate) fn keep_transactions(&self, horizon: XminHorizon) {
        if let Some(connection) = self.standbys.lock().connections.get_mut(&self.pid) {
            connection.xmin = horizon.oldest();
        }
    }
}

impl Drop for StandbyEntry {
    fn drop(&mut self) {
        self.standbys.change(|state| {
            state.sync.leave(self.id);
            state.connections.remove(&self.pid);
        });
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.standbys.lock().sync.cancel(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use walstream::sync::StandbyNames;

    use super::*;

    const fn reply(lsn: u64) -> StandbyStatusUpdate {
        StandbyStatusUpdate {
            write_lsn: Lsn(lsn),
            flush_lsn: Lsn(lsn),
            apply_lsn: Lsn(0),
            sent_at: PgTimestamp(1),
            reply_requested: false,
        }
    }

    fn one_of(names: &str) -> SyncRule {
        SyncRule::from(StandbyNames::parse(names).unwrap())
    }

    #[tokio::test]
    async fn a_reply_wakes_whoever_waits_for_it() {
        let standbys = Standbys::new(one_of("FIRST 1 (a, b)"), Lsn(100));
        let (b, a) = (
            standbys.enter(1, "u", "b", None),
            standbys.enter(2, "u", "a", None),
        );
        for entry in [&a, &b] {
            entry.set_state(WalSenderState::Streaming);
        }
        assert!(standbys.wait(Lsn(0), WaitMode::RemoteFlush).is_none());
        let mut waiting = standbys.wait(Lsn(90), WaitMode::RemoteFlush).unwrap();
        let given_up = standbys.wait(Lsn(80), WaitMode::RemoteFlush).unwrap();
        drop(given_up);
        let modes = [WaitMode::RemoteWrite, WaitMode::RemoteFlush];
        assert_eq!(standbys.waiting(modes), [0, 1], "one has given up");
        // Only a standby that has flushed something is chosen.
        a.handle_reply(&reply(50), Instant::now());
        b.handle_reply(&reply(95), Instant::now());
        assert!(waiting.released.try_recv().is_err());
        a.handle_reply(&reply(90), Instant::now());
        assert_eq!((&mut waiting.released).await, Ok(()));
        let shown: Vec<_> = standbys
            .list()
            .into_iter()
            .map(|standby| {
                (
                    standby.application_name,
                    standby.sync_state,
                    standby.flush_lsn,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("b".to_owned(), SyncState::Potential, Lsn(95)),
                ("a".to_owned(), SyncState::Sync, Lsn(90))
            ]
        );
        drop(a);
        assert_eq!(standbys.list().len(), 1);
    }

    #[tokio::test]
    async fn a_changed_rule_wakes_at_once() {
        let standbys = Standbys::new(one_of("absent"), Lsn(100));
        let mut waiting = standbys.wait(Lsn(90), WaitMode::RemoteApply).unwrap();
        standbys.set_rule(SyncRule::Off);
        assert_eq!((&mut waiting.released).await, Ok(()));
        assert_eq!(standbys.released_lsn(WaitMode::RemoteApply), Lsn(100));
    }
}
