//! [`SyncRep`]: the one owner of what is known of all standbys, and of the commits that wait for them.

#[cfg(test)]
mod tests;

use super::candidates::{SyncStandby, select_synchronous};
use super::greenplum::GreenplumRule;
use super::lag::{LagTracker, ReplicationLag};
use super::released::{ReleasedLsns, nth_latest, oldest};
use super::standby_names::{StandbyNames, SyncMethod};
use super::state::{StandbyLsns, SyncState, WalSenderState};
use super::waiters::{WaitMode, WaiterId, Waiters};
use crate::{Lsn, PgTimestamp, SegmentSize};

/// Which standbys commits wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SyncRule {
    /// None.
    #[default]
    Off,
    /// Those that `synchronous_standby_names` chooses.
    Names(StandbyNames),
    /// Those that are near enough, as a coordinator of the Greenplum family does.
    Greenplum(GreenplumRule),
}

impl From<Option<StandbyNames>> for SyncRule {
    fn from(names: Option<StandbyNames>) -> Self {
        names.map_or(Self::Off, Self::Names)
    }
}

/// Names one connection of a standby, of all there ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StandbyId {
    slot: usize,
    /// Tells it from those that had the same slot before.
    connection: u64,
}

/// What is known of a standby: a line of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbyRow {
    /// The connection.
    pub id: StandbyId,
    /// The standby's `application_name`.
    pub application_name: String,
    /// What its sender is doing.
    pub state: WalSenderState,
    /// End of the WAL that it was sent; 0/0 before the first.
    pub sent_lsn: Lsn,
    /// What it has reported.
    pub lsns: StandbyLsns,
    /// How late it is.
    pub lag: ReplicationLag,
    /// Its `sync_priority`, 0 when it can never be synchronous.
    pub sync_priority: u32,
    /// What it is to commits.
    pub sync_state: SyncState,
    /// The standby's clock when it sent its last status update (`reply_time`).
    pub replied_at: Option<PgTimestamp>,
}

/// All standbys of a sender, the rule, the released LSNs and the commits that wait, each with a `T` to wake it with.
///
/// It is told what happens, in any order: standbys [`join`](Self::join), change their state, are sent WAL, reply and
/// [`leave`](Self::leave); the rule changes; WAL is flushed here. After each of these, call
/// [`poll_released`](Self::poll_released) until it gives `None` and wake what it gave, better after the lock that guards
/// this was let go. An id of a connection that has left is ignored.
///
/// Whatever the event, all commits are released that the new state allows. PostgreSQL looks only when a synchronous
/// standby replies, and since commit 21c1125d66 when the setting changes; so a commit is released here at the latest when
/// it is there. **Invariant:** no position is released beyond what is flushed here, whatever a standby claims.
///
/// # Source
/// `src/backend/replication/syncrep.c`; `WalSndCtlData` in `src/include/replication/walsender_private.h`.
#[derive(Debug)]
pub struct SyncRep<T> {
    rule: SyncRule,
    /// By slot: a new standby gets the lowest that is free, and the lower one goes first where priorities are equal.
    standbys: Vec<Option<Standby>>,
    next_connection: u64,
    flushed_here: Lsn,
    released: ReleasedLsns,
    /// Whether the rule requires any standby now.
    required: bool,
    waiters: Waiters<T>,
    /// Memory that is used again and again.
    selected: Vec<SyncStandby>,
    sorted: Vec<Lsn>,
}

#[derive(Debug)]
struct Standby {
    connection: u64,
    application_name: String,
    priority: u32,
    state: WalSenderState,
    /// Whether it has been near enough for the Greenplum rule since its stream began.
    was_within_range: bool,
    sent_lsn: Lsn,
    lsns: StandbyLsns,
    lag: LagTracker,
    replied_at: Option<PgTimestamp>,
}

/// What the rule says of the standbys that are there.
enum Requirement {
    /// No standby is waited for.
    Nothing,
    /// Not as many are there as are waited for.
    TooFew,
    /// Those that are waited for are at these positions.
    At(StandbyLsns),
}

impl<T> SyncRep<T> {
    /// Without standbys; WAL up to `flushed_here` is on this side's stable storage.
    #[must_use]
    pub fn new(rule: SyncRule, flushed_here: Lsn) -> Self {
        let mut new = Self {
            rule,
            standbys: Vec::new(),
            next_connection: 0,
            flushed_here,
            released: ReleasedLsns::default(),
            required: false,
            waiters: Waiters::default(),
            selected: Vec::new(),
            sorted: Vec::new(),
        };
        new.update();
        new
    }

    /// The rule.
    #[must_use]
    pub const fn rule(&self) -> &SyncRule {
        &self.rule
    }

    /// The setting was changed. Releases at once what the new one does not wait for.
    pub fn set_rule(&mut self, rule: SyncRule) {
        self.rule = rule;
        for standby in self.standbys.iter_mut().flatten() {
            standby.priority = self.rule.priority(&standby.application_name);
        }
        self.update();
    }

    /// WAL up to here is on this side's stable storage. A lower position than before changes nothing.
    pub fn handle_local_flush(&mut self, flushed_here: Lsn) {
        if flushed_here > self.flushed_here {
            self.flushed_here = flushed_here;
            self.update();
        }
    }

    /// A standby has connected. It begins in state [`WalSenderState::Startup`] with no position known.
    pub fn join(&mut self, application_name: &str) -> StandbyId {
        let connection = self.next_connection;
        self.next_connection = self.next_connection.wrapping_add(1);
        let standby = Some(Standby {
            connection,
            application_name: application_name.to_owned(),
            priority: self.rule.priority(application_name),
            state: WalSenderState::default(),
            was_within_range: false,
            sent_lsn: Lsn::INVALID,
            lsns: StandbyLsns::default(),
            lag: LagTracker::default(),
            replied_at: None,
        });
        let slot = match self
            .standbys
            .iter_mut()
            .enumerate()
            .find(|(_, place)| place.is_none())
        {
            Some((slot, place)) => {
                *place = standby;
                slot
            }
            None => {
                self.standbys.push(standby);
                self.standbys.len().saturating_sub(1)
            }
        };
        // Nothing to update: in this state it counts nowhere.
        StandbyId { slot, connection }
    }

    /// A standby's connection has ended.
    pub fn leave(&mut self, id: StandbyId) {
        if self.standby_mut(id).is_some() {
            if let Some(place) = self.standbys.get_mut(id.slot) {
                *place = None;
            }
            while let Some(None) = self.standbys.last() {
                self.standbys.pop();
            }
            self.update();
        }
    }

    /// A standby's sender does something else now.
    pub fn handle_state(&mut self, id: StandbyId, state: WalSenderState) {
        if let Some(standby) = self.standby_mut(id) {
            standby.state = state;
            if matches!(state, WalSenderState::Startup | WalSenderState::Backup) {
                standby.was_within_range = false;
            }
            self.update();
        }
    }

    /// A standby is going to be sent WAL up to `flushed_lsn`, the end of what is flushed here.
    pub fn handle_send(&mut self, id: StandbyId, flushed_lsn: Lsn, now: PgTimestamp) {
        if let Some(standby) = self.standby_mut(id) {
            standby.lag.handle_send(flushed_lsn, now);
        }
    }

    /// A standby was sent WAL up to `sent_lsn`: the system has taken it.
    pub fn handle_sent(&mut self, id: StandbyId, sent_lsn: Lsn) {
        let by_range = matches!(self.rule, SyncRule::Greenplum(_));
        if let Some(standby) = self.standby_mut(id) {
            standby.sent_lsn = sent_lsn;
            if by_range && !standby.was_within_range {
                self.update();
            }
        }
    }

    /// A standby's status update. What it says is taken as it is, also when it goes back.
    pub fn handle_reply(
        &mut self,
        id: StandbyId,
        lsns: StandbyLsns,
        replied_at: PgTimestamp,
        now: PgTimestamp,
    ) {
        if let Some(standby) = self.standby_mut(id) {
            standby.lag.handle_reply(lsns, standby.sent_lsn, now);
            standby.replied_at = Some(replied_at);
            if standby.lsns != lsns {
                standby.lsns = lsns;
                self.update();
            }
        }
    }

    /// The standby has said something else than how far it is.
    pub fn handle_reply_time(&mut self, id: StandbyId, replied_at: PgTimestamp) {
        if let Some(standby) = self.standby_mut(id) {
            standby.replied_at = Some(replied_at);
        }
    }

    /// Waits until `lsn` is released in this mode. `None` when it is already, and then `token` is not called.
    pub fn wait(
        &mut self,
        lsn: Lsn,
        mode: WaitMode,
        token: impl FnOnce() -> T,
    ) -> Option<WaiterId> {
        if lsn <= self.released_lsn(mode) {
            return None;
        }
        Some(self.waiters.wait(lsn, mode, token()))
    }

    /// Waits no longer; `None` when it was released, though perhaps not taken yet. The WAL is there all the same, and may
    /// or may not reach the standbys.
    pub fn cancel(&mut self, id: WaiterId) -> Option<T> {
        self.waiters.cancel(id)
    }

    /// The next commit that need not wait any longer; each is given once.
    pub fn poll_released(&mut self) -> Option<(WaiterId, T)> {
        self.waiters.poll_released()
    }

    /// How many commits wait in this mode.
    #[must_use]
    pub fn waiting(&self, mode: WaitMode) -> usize {
        self.waiters.waiting(mode)
    }

    /// Whether commits wait for any standby now: the rule asks for one, and in the Greenplum family one is near enough.
    #[must_use]
    pub const fn standbys_required(&self) -> bool {
        self.required
    }

    /// Up to where commits need not wait in this mode: what is flushed here where no standby is waited for, otherwise what
    /// the required standbys have reached.
    #[must_use]
    pub const fn released_lsn(&self, mode: WaitMode) -> Lsn {
        let released = self.released.lsns();
        match mode {
            _ if !self.required => self.flushed_here,
            WaitMode::Local => self.flushed_here,
            WaitMode::RemoteWrite => released.write,
            WaitMode::RemoteFlush => released.flush,
            WaitMode::RemoteApply => released.apply,
        }
    }

    /// What the required standbys have reached, whichever they were. Stays as it was while none is required.
    #[must_use]
    pub const fn released_lsns(&self) -> StandbyLsns {
        self.released.lsns()
    }

    /// All standbys, by slot.
    pub fn rows(&self) -> impl Iterator<Item = StandbyRow> {
        let mut selected = Vec::new();
        self.select(&mut selected);
        let method = self.rule.method();
        self.standbys
            .iter()
            .enumerate()
            .filter_map(move |(slot, place)| {
                let standby = place.as_ref()?;
                let sync = standby.for_choice(slot);
                Some(StandbyRow {
                    id: StandbyId {
                        slot,
                        connection: standby.connection,
                    },
                    application_name: standby.application_name.clone(),
                    state: standby.state,
                    sent_lsn: standby.sent_lsn,
                    lsns: standby.lsns,
                    lag: standby.lag.lag(),
                    sync_priority: sync.shown_priority(),
                    sync_state: sync.sync_state(method, &selected),
                    replied_at: standby.replied_at,
                })
            })
    }

    fn standby_mut(&mut self, id: StandbyId) -> Option<&mut Standby> {
        let standby = self.standbys.get_mut(id.slot)?.as_mut();
        standby.filter(|standby| standby.connection == id.connection)
    }

    /// Brings the released positions up to date, and releases who waits for no more than them.
    fn update(&mut self) {
        if let SyncRule::Greenplum(rule) = &self.rule {
            for standby in self.standbys.iter_mut().flatten() {
                standby.was_within_range |= match standby.state {
                    WalSenderState::Startup | WalSenderState::Backup => false,
                    WalSenderState::Catchup => {
                        rule.within_range(standby.sent_lsn, self.flushed_here)
                    }
                    WalSenderState::Streaming | WalSenderState::Stopping => true,
                };
            }
        }
        let requirement = self.requirement();
        self.required = !matches!(requirement, Requirement::Nothing);
        if let Requirement::At(lsns) = requirement {
            self.released.advance(lsns.up_to(self.flushed_here));
        }
        for mode in WaitMode::ALL {
            self.waiters.release(mode, self.released_lsn(mode));
        }
    }

    /// # Source
    /// `SyncRepGetSyncRecPtr` in `src/backend/replication/syncrep.c`.
    fn requirement(&mut self) -> Requirement {
        let mut selected = std::mem::take(&mut self.selected);
        self.select(&mut selected);
        let lsns = match &self.rule {
            SyncRule::Off => None,
            SyncRule::Greenplum(_) => oldest(&selected),
            SyncRule::Names(names) => {
                let wanted = usize::try_from(names.num_sync()).unwrap_or(usize::MAX);
                match names.method() {
                    _ if selected.len() < wanted => None,
                    SyncMethod::Priority => oldest(&selected),
                    SyncMethod::Quorum => nth_latest(&selected, wanted, &mut self.sorted),
                }
            }
        };
        self.selected = selected;
        match (lsns, &self.rule) {
            (Some(lsns), _) => Requirement::At(lsns),
            (None, SyncRule::Names(_)) => Requirement::TooFew,
            (None, SyncRule::Off | SyncRule::Greenplum(_)) => Requirement::Nothing,
        }
    }

    /// The standbys that are synchronous by the rule.
    fn select(&self, selected: &mut Vec<SyncStandby>) {
        let standbys = self.standbys.iter().enumerate();
        let there = standbys.filter_map(|(slot, place)| Some((slot, place.as_ref()?)));
        match &self.rule {
            SyncRule::Off => selected.clear(),
            SyncRule::Names(names) => {
                select_synchronous(
                    names,
                    there.map(|(slot, standby)| standby.for_choice(slot)),
                    selected,
                );
            }
            SyncRule::Greenplum(rule) => {
                selected.clear();
                let near = |standby: &Standby| {
                    standby.priority > 0 && rule.waits_for(standby.state, standby.was_within_range)
                };
                selected.extend(
                    there
                        .filter(|(_, standby)| near(standby))
                        .map(|(slot, standby)| standby.for_choice(slot)),
                );
            }
        }
    }
}

impl Standby {
    const fn for_choice(&self, slot: usize) -> SyncStandby {
        SyncStandby {
            slot,
            priority: self.priority,
            state: self.state,
            lsns: self.lsns,
        }
    }
}

impl SyncRule {
    /// The same rule where WAL segments have this size: in them the Greenplum rule counts how near a standby is.
    #[must_use]
    pub fn with_segment_size(self, segment_size: SegmentSize) -> Self {
        match self {
            Self::Greenplum(rule) => Self::Greenplum(GreenplumRule {
                segment_size,
                ..rule
            }),
            other => other,
        }
    }

    fn priority(&self, application_name: &str) -> u32 {
        match self {
            Self::Off => 0,
            Self::Names(names) => names.priority(application_name),
            Self::Greenplum(rule) => rule.priority(application_name),
        }
    }

    const fn method(&self) -> SyncMethod {
        match self {
            Self::Names(names) => names.method(),
            Self::Off | Self::Greenplum(_) => SyncMethod::Priority,
        }
    }
}
