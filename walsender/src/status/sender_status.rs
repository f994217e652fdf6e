//! [`SenderStatus`]: all that a sender says of itself when it is asked.

use serde::{Deserialize, Serialize};
use walstream::sync::{SyncRule, WaitMode};
use walstream::{Lsn, PgTimestamp};

use super::slot::SlotLine;
use super::standby::StandbyLine;
use super::text::lsn_text;
use crate::config::ListenAddress;
use crate::counters::RefusedConnections;
use crate::sender::Shared;

/// One answer on the status socket, a JSON object. LSNs are texts; null where nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderStatus {
    /// Process that serves.
    pub pid: u32,
    /// When it began to, in microseconds since 1970.
    pub started_at_us: i64,
    /// Where it listens.
    pub address: String,
    /// What it serves.
    pub source: SourceStatus,
    /// Which standbys are synchronous, and what they have.
    pub sync: SyncStatus,
    /// How many clients there are, and were.
    pub connections: ConnectionCounts,
    /// Bytes of WAL sent since the start.
    pub wal_bytes_sent: u64,
    /// Bytes of base backups sent since the start.
    pub backup_bytes_sent: u64,
    /// Base backups that run.
    pub backups_running: u64,
    /// Base backups begun since the start.
    pub backups: u64,
    /// Those who are connected, by number.
    pub standbys: Vec<StandbyLine>,
    /// Their slots, by name.
    pub slots: Vec<SlotLine>,
}

/// What a sender serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `primary`, `archive`, `recording`, `mirror`, `writer`, `other`.
    pub kind: String,
    /// Directory, file or URL.
    pub place: String,
    /// The cluster whose WAL it is, a text as it is too large for some readers of JSON.
    pub system_identifier: String,
    /// Version that it answers as (`server_version_num`).
    pub server_version_num: u32,
    /// Size of a segment, in bytes.
    pub segment_size: u64,
    /// Timeline that is served.
    pub timeline: u32,
    /// End of the WAL that is served.
    #[serde(with = "lsn_text")]
    pub flush_lsn: Option<Lsn>,
    /// Start of the oldest WAL that there is.
    #[serde(with = "lsn_text")]
    pub oldest_lsn: Option<Lsn>,
}

/// Which standbys are synchronous, and what they have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// `off`, `names` or `greenplum`.
    pub rule: String,
    /// The setting that chooses them; empty for none.
    pub synchronous_standby_names: String,
    /// File that the setting is read from.
    pub synchronous_standby_names_file: Option<String>,
    /// What they have all written, as far as commits may rely on it; null until they said so.
    #[serde(with = "lsn_text")]
    pub released_write_lsn: Option<Lsn>,
    /// Likewise what they have flushed.
    #[serde(with = "lsn_text")]
    pub released_flush_lsn: Option<Lsn>,
    /// Likewise what they have replayed.
    #[serde(with = "lsn_text")]
    pub released_replay_lsn: Option<Lsn>,
    /// Commits that wait for them, of a service that appends to a log of its own: a server's own commits wait there.
    #[serde(default)]
    pub waiting_commits: WaitingCommits,
}

/// How many commits wait, by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingCommits {
    /// Until their WAL is flushed here (`local`).
    pub local: usize,
    /// Until it is written there (`remote_write`).
    pub write: usize,
    /// Until it is flushed there (`on`).
    pub flush: usize,
    /// Until it is replayed there (`remote_apply`).
    pub replay: usize,
}

impl WaitingCommits {
    /// All of them.
    #[must_use]
    pub const fn total(self) -> usize {
        let there = self.write.saturating_add(self.flush);
        there.saturating_add(self.replay).saturating_add(self.local)
    }
}

/// How many clients there are, and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// Sessions now.
    pub sessions: usize,
    /// Most sessions at a time.
    pub max_connections: usize,
    /// Clients that are not let in yet, or are being told why not.
    pub waiting: usize,
    /// Most of those at a time.
    pub max_waiting_clients: usize,
    /// Connections taken since the start, refused ones included.
    pub accepted: u64,
    /// Those that were not let in.
    pub refused: RefusedConnections,
}

/// Asks a sender that listens there.
pub(crate) fn gather(shared: &Shared, address: &ListenAddress) -> SenderStatus {
    let (config, counters) = (&shared.config, &shared.counters);
    let end = shared.source.flushed().borrow().lsn;
    let slots = shared.judged_slots().into_iter();
    SenderStatus {
        pid: std::process::id(),
        started_at_us: PgTimestamp::from(counters.started_at).unix_us(),
        address: address.to_string(),
        source: source(shared, shared.source.oldest_lsn()),
        sync: sync(shared),
        connections: ConnectionCounts {
            sessions: config
                .max_connections
                .saturating_sub(shared.places.available_permits()),
            max_connections: config.max_connections,
            waiting: config
                .max_waiting
                .saturating_sub(shared.waiting.available_permits()),
            max_waiting_clients: config.max_waiting,
            accepted: counters.accepted(),
            refused: counters.refused(),
        },
        wal_bytes_sent: counters.wal_bytes(),
        backup_bytes_sent: counters.backup_bytes(),
        backups_running: counters.backups_running(),
        backups: counters.backups(),
        standbys: shared.standbys.list().iter().map(Into::into).collect(),
        slots: slots.map(|slot| SlotLine::of(slot, end)).collect(),
    }
}

fn source(shared: &Shared, oldest_lsn: Option<Lsn>) -> SourceStatus {
    let source = &shared.source;
    let (identity, description) = (source.identity(), source.description());
    let end = *source.flushed().borrow();
    SourceStatus {
        kind: description.kind.to_owned(),
        place: description.place,
        system_identifier: identity.system_identifier.to_string(),
        server_version_num: identity.server_version_num,
        segment_size: identity.segment_size.bytes(),
        timeline: end.timeline.0,
        flush_lsn: end.lsn.valid(),
        oldest_lsn,
    }
}

fn sync(shared: &Shared) -> SyncStatus {
    let released = *shared.standbys.released().borrow();
    let (rule, names) = match shared.standbys.rule() {
        SyncRule::Off => ("off", String::new()),
        SyncRule::Names(names) => ("names", names.to_string()),
        SyncRule::Greenplum(_) => ("greenplum", String::new()),
    };
    let [local, write, flush, replay] = shared.standbys.waiting(WaitMode::ALL);
    SyncStatus {
        waiting_commits: WaitingCommits {
            local,
            write,
            flush,
            replay,
        },
        rule: rule.to_owned(),
        synchronous_standby_names: names,
        synchronous_standby_names_file: shared
            .config
            .sync_names_file
            .as_ref()
            .map(|file| file.path.display().to_string()),
        released_write_lsn: released.write.valid(),
        released_flush_lsn: released.flush.valid(),
        released_replay_lsn: released.apply.valid(),
    }
}
