//! [`StatusFacts`]: everything that was found out about a mirror at one moment, and the lag that follows of it.

use std::path::PathBuf;
use std::time::Duration;

use walstream::{Lsn, TimelineId};

use super::primary_facts::PrimaryAnswer;
use crate::mirror::flushed::TimelinePosition;
use crate::mirror::state::MirrorState;
use crate::run::live::{LiveStatus, ReceiverState};

/// After this long without a message, what the primary said last says nothing about now: the receiver's own default for
/// taking a connection for lost.
const HEARD_LATELY: Duration = Duration::from_secs(60);

/// What is known of a mirror.
#[derive(Clone, Debug)]
pub struct StatusFacts {
    /// The mirror directory.
    pub mirror: PathBuf,
    /// When this was found out, in microseconds since 1970.
    pub asked_at_us: i64,
    /// Its state file.
    pub state: MirrorState,
    /// The process that keeps it current.
    pub receiver: Receiver,
    /// What was acknowledged to the primary as flushed, as the mirror's files have it.
    pub acknowledged: TimelinePosition,
    /// End of its WAL, looked for when no receiver runs.
    pub tail: Option<Tail>,
    /// A PostgreSQL server that runs on the directory.
    pub postmaster: Option<u32>,
    /// What the primary says.
    pub primary: PrimaryAnswer,
}

/// The process that keeps a mirror current.
#[derive(Clone, Debug)]
pub enum Receiver {
    /// It runs and said this.
    Running(LiveStatus),
    /// None runs.
    NotRunning {
        /// What it said last, if one ever ran.
        last: Option<LiveStatus>,
        /// Another command that has the mirror locked.
        locked_by: Option<u32>,
    },
    /// It could not be asked.
    Unknown {
        /// Why.
        reason: String,
        /// Its process, where that is known.
        pid: Option<u32>,
        /// What it said last, if it did.
        last: Option<LiveStatus>,
    },
}

/// What reading the end of a mirror's WAL gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// It is whole from the last acknowledged segment on.
    Whole {
        /// Up to here.
        end: TimelinePosition,
        /// Damage right behind that, where nothing is known to have been acknowledged.
        unacknowledged_damage: Option<String>,
    },
    /// It is not, or could not be read.
    Broken {
        /// Why.
        reason: String,
    },
}

/// How far a mirror is behind its primary. What is not known is absent, never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// WAL that the primary has and the mirror has not, in bytes.
    pub bytes: Option<u64>,
    /// How long ago the mirror last had everything, at most. Absent without a receiver.
    pub time: Option<Duration>,
    /// When the mirror last had everything that the primary had told of, in microseconds since 1970.
    pub caught_up_at_us: Option<i64>,
    /// When the primary was last heard of, in microseconds since 1970.
    pub heard_at_us: Option<i64>,
}

impl Receiver {
    /// What it says, or said last.
    #[must_use]
    pub const fn last(&self) -> Option<&LiveStatus> {
        match self {
            Self::Running(live) => Some(live),
            Self::NotRunning { last, .. } | Self::Unknown { last, .. } => last.as_ref(),
        }
    }

    /// What it says, while it runs.
    #[must_use]
    pub const fn running(&self) -> Option<&LiveStatus> {
        match self {
            Self::Running(live) => Some(live),
            Self::NotRunning { .. } | Self::Unknown { .. } => None,
        }
    }

    /// Whether it runs and has a stream.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.running().is_some_and(|live| {
            matches!(
                live.state,
                ReceiverState::Catchup | ReceiverState::Streaming
            )
        })
    }
}

impl StatusFacts {
    /// As `gpstate -f` says it.
    #[must_use]
    pub fn standby_status(&self) -> &'static str {
        match &self.receiver {
            _ if self.state.activation.is_some() => "Activated",
            Receiver::Running(_) if self.receiver.is_streaming() => "Standby host passive",
            Receiver::Running(_) => "Standby process running, not streaming",
            Receiver::NotRunning { .. } => "Standby process not running",
            Receiver::Unknown { .. } => "Status could not be determined",
        }
    }

    /// Where its stream stands, as the primary says, else as the receiver says: `streaming`, `catchup` and so on.
    #[must_use]
    pub fn stream_state(&self) -> Option<&str> {
        let live = self.receiver.running()?;
        let seen = self.primary.facts().and_then(|facts| facts.sender_row());
        match seen {
            Some(row) if self.receiver.is_streaming() => Some(&row.state),
            _ => Some(live.state.name()),
        }
    }

    /// Everything before this is durable in the mirror.
    #[must_use]
    pub fn flush_lsn(&self) -> Lsn {
        let live = self.receiver.running().and_then(|live| live.flush_lsn);
        live.map_or(self.acknowledged.lsn, |lsn| lsn.max(self.acknowledged.lsn))
    }

    /// Timeline of the mirror's WAL.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        match self.receiver.running() {
            Some(live) if live.timeline > 0 => TimelineId(live.timeline),
            _ => self.acknowledged.timeline,
        }
    }

    /// How long ago that was.
    #[must_use]
    pub fn age(&self, at_us: i64) -> Duration {
        Duration::from_micros(u64::try_from(self.asked_at_us.saturating_sub(at_us)).unwrap_or(0))
    }

    /// How far it is behind.
    ///
    /// Only what the primary says now, or has lately said on a living stream, counts as knowledge of its WAL: with a
    /// stream that died, or a primary that does not answer, nobody is 0 behind.
    #[must_use]
    pub fn lag(&self) -> Lag {
        let last = self.receiver.last();
        let heard_at_us = last.and_then(|live| live.last_message_at_us);
        // A connection that died unnoticed seems caught up for as long as nothing arrives.
        let caught_up_at_us = last
            .and_then(|live| live.caught_up_at_us)
            .map(|at| heard_at_us.map_or(at, |heard| at.min(heard)));
        let told_now = self.primary.facts().and_then(|facts| facts.wal_end);
        let told_lately = self
            .receiver
            .running()
            .filter(|_| self.receiver.is_streaming() && !self.primary.is_silent())
            .filter(|_| heard_at_us.is_some_and(|at| self.age(at) <= HEARD_LATELY))
            .and_then(|live| live.server_wal_end);
        let bytes = told_now
            .or(told_lately)
            .map(|end| end.saturating_sub(self.has_lsn()));
        let time = match self.receiver.running() {
            None => None,
            Some(_) if told_now.is_some() && bytes == Some(0) && self.receiver.is_streaming() => {
                Some(Duration::ZERO)
            }
            Some(_) => caught_up_at_us.map(|at| self.age(at)),
        };
        Lag {
            bytes,
            time,
            caught_up_at_us,
            heard_at_us,
        }
    }

    /// End of the WAL that is not lost when the primary is.
    fn has_lsn(&self) -> Lsn {
        match (&self.receiver, &self.tail) {
            (Receiver::NotRunning { .. }, Some(Tail::Whole { end, .. })) => {
                end.lsn.max(self.flush_lsn())
            }
            _ => self.flush_lsn(),
        }
    }
}
