//! [`RunError`]: why the daemon ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use walstream::protocol::ProtocolError;
use walstream::timeline::HistoryError;
use walstream::{Lsn, SystemIdentifier, TimelineId};

use super::metrics::MetricsError;
use super::stream_error::StreamError;
use crate::connection::{ConnInfoError, ConnectError, ConnectionError, ServerError};
use crate::exit::{Exit, Recovery};
use crate::hub::HubError;
use crate::mirror::durable::FileError;
use crate::mirror::lock::LockError;
use crate::mirror::owner::OwnerError;
use crate::mirror::resume::ResumeError;
use crate::mirror::state::StateError;
use crate::replay::ReplayError;
use crate::wal_sink::SinkError;

/// Why the daemon ended, or why one of its connections did.
#[derive(Debug, Error)]
pub enum RunError {
    /// The connection string is wrong.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// No connection was made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server accepted the connection and then fell silent.
    #[error("the server did not answer within {} s; check it, or raise --receiver-timeout", timeout.as_secs_f64())]
    NoAnswer {
        /// How long we waited.
        timeout: Duration,
    },
    /// A command before the stream failed.
    #[error("{source}{}", next_step(source))]
    Connection {
        /// What the connection or the server said.
        #[from]
        source: ConnectionError,
    },
    /// The stream failed.
    #[error("{source}{}", stream_next_step(source))]
    Stream {
        /// Why.
        #[from]
        source: StreamError,
    },
    /// An answer of the server makes no sense.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The timeline history that the server sent makes no sense.
    #[error("the server's history of timeline {timeline} is damaged: {source}")]
    History {
        /// The timeline.
        timeline: TimelineId,
        /// What is wrong with it.
        source: HistoryError,
    },
    /// The server is not the one that is mirrored.
    #[error(
        "the server at {peer} is another system: its identifier is {found}, the mirror's is {expected}; \
         point --primary to the mirrored server, or make a new mirror with \"walreceiver init\""
    )]
    OtherSystem {
        /// The server.
        peer: String,
        /// The mirror's system.
        expected: SystemIdentifier,
        /// The server's.
        found: SystemIdentifier,
    },
    /// The server left our timeline before the end of what we have.
    #[error(
        "the mirror has diverged from the server at {peer}: timeline {timeline} was left at {switch_lsn} there, and \
         the mirror has WAL of it up to {ours}; make a new mirror with \"walreceiver init\", or activate this one if \
         it is the one to keep"
    )]
    Diverged {
        /// The server.
        peer: String,
        /// The mirror's timeline.
        timeline: TimelineId,
        /// Where the server's history leaves it.
        switch_lsn: Lsn,
        /// End of the mirror's WAL.
        ours: Lsn,
    },
    /// The mirror's timeline is no part of the server's history.
    #[error(
        "the mirror has diverged from the server at {peer}: the server is on timeline {theirs}, whose history has no \
         timeline {ours} as the mirror has it (WAL up to {lsn}); make a new mirror with \"walreceiver init\", or \
         activate this one if it is the one to keep"
    )]
    NotInHistory {
        /// The server.
        peer: String,
        /// The server's timeline.
        theirs: TimelineId,
        /// The mirror's timeline.
        ours: TimelineId,
        /// End of the mirror's WAL.
        lsn: Lsn,
    },
    /// The server has less WAL than it sent before.
    #[error(
        "the server at {peer} has WAL up to {theirs} on timeline {timeline}, the mirror up to {ours}: the server was \
         set back, or lost WAL; activate this mirror if it is the one to keep, or make a new one with \
         \"walreceiver init\""
    )]
    ServerBehind {
        /// The server.
        peer: String,
        /// The timeline of both.
        timeline: TimelineId,
        /// End of the server's WAL.
        theirs: Lsn,
        /// End of the mirror's WAL.
        ours: Lsn,
        /// Whether the server is a standby, which may still catch up.
        is_standby: bool,
    },
    /// WAL is damaged at the same place again, so it is not the way here that damages it.
    #[error("{source}; it was received twice")]
    DamagedTwice {
        /// What is damaged.
        source: StreamError,
    },
    /// The mirror became a primary.
    #[error(
        "\"{}\" was activated at {at} on timeline {timeline}, after {end_lsn}: it is no mirror any more; make a new \
         one with \"walreceiver init\"", mirror.display()
    )]
    Activated {
        /// The directory.
        mirror: PathBuf,
        /// When.
        at: String,
        /// On which timeline.
        timeline: u32,
        /// Where its WAL ended.
        end_lsn: String,
    },
    /// Activation was begun and not finished.
    #[error(
        "activation of \"{}\" was begun: finish it with \"walreceiver activate\", or remove recovery.signal from it \
         to go on mirroring", mirror.display()
    )]
    ActivationBegun {
        /// The directory.
        mirror: PathBuf,
    },
    /// Metrics cannot be served.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The mirror is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The mirror belongs to another user.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The state file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The mirror's WAL cannot be proven whole.
    #[error(transparent)]
    Wal(#[from] ResumeError),
    /// The mirror cannot be served.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The replaying thread could not be started, or the slots whose WAL is to be kept not be read.
    #[error("cannot begin to replay: {0}")]
    ReplayThread(#[source] io::Error),
    /// Replay had stopped, which ended nothing else.
    #[error(
        "replay had stopped: {source}; everything received is flushed, up to {end}; run again to try once more, without --replay \
         to go on receiving only"
    )]
    Replay {
        /// Why.
        source: ReplayError,
        /// Where the mirror's WAL ends.
        end: Lsn,
    },
    /// SIGTERM and SIGINT cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signals(#[source] io::Error),
    /// The program ends.
    #[error("the program is ending")]
    RuntimeEnded,
    /// Received WAL cannot be kept.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// One of the mirror's small files cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RunError {
    /// The exit code that the command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::ConnInfo(_) => Exit::Usage,
            Self::Metrics(error) => error.exit(),
            Self::Connect(error) => error.exit(),
            Self::NoAnswer { .. } => Exit::Unreachable,
            Self::Connection { source } => source.exit(),
            Self::Stream { source } => source.exit(),
            Self::Protocol(_) | Self::History { .. } | Self::DamagedTwice { .. } => Exit::Corrupt,
            Self::OtherSystem { .. }
            | Self::Diverged { .. }
            | Self::NotInHistory { .. }
            | Self::ServerBehind { .. } => Exit::WrongSystem,
            Self::Activated { .. } | Self::ActivationBegun { .. } => Exit::Unsafe,
            Self::Lock(error) => error.exit(),
            Self::Owner(error) => error.exit(),
            Self::State(error) => error.exit(),
            Self::Wal(error) => error.exit(),
            Self::Hub(error) => error.exit(),
            Self::File(_) => Exit::LocalStorage,
            Self::RuntimeEnded => Exit::Interrupted,
            Self::Signals(_) => Exit::Failure,
            Self::ReplayThread(_) => Exit::LocalStorage,
            Self::Replay { source, .. } => source.exit(),
            Self::Sink(error) => error.exit(),
        }
    }

    /// Whether another connection may do better.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Connect(error) => error.recovery(),
            Self::Connection { source } => source.recovery(),
            Self::Stream { source } => source.recovery(),
            Self::Sink(error) => error.recovery(),
            Self::NoAnswer { .. }
            | Self::ServerBehind {
                is_standby: true, ..
            } => Recovery::Passing,
            _ => Recovery::Permanent,
        }
    }
}

fn stream_next_step(error: &StreamError) -> &'static str {
    match error {
        StreamError::Connection(error) | StreamError::Start(error) => next_step(error),
        _ => "",
    }
}

/// What to do about a refusal, where the server's own hint does not say it.
fn next_step(error: &ConnectionError) -> &'static str {
    match error
        .server_error()
        .map(|error: &ServerError| error.sqlstate.as_str())
    {
        // undefined_file: the segment that the mirror needs next was removed.
        Some("58P01") => {
            "; the mirror cannot go on without this WAL: restore it into the server's pg_wal from an archive, or make a \
             new mirror with \"walreceiver init\" (a server keeps what a mirror needs through a slot, up to \
             max_slot_wal_keep_size)"
        }
        // object_not_in_prerequisite_state: the slot is lost.
        Some("55000") => {
            "; the server no longer keeps the WAL that the mirror needs: drop the slot, make a new mirror with \
             \"walreceiver init\", and give max_slot_wal_keep_size more room"
        }
        // undefined_object: no such slot.
        Some("42704") => {
            "; create the slot there with pg_create_physical_replication_slot('NAME', true), or name another with \
             --slot; WAL that was removed meanwhile cannot come back"
        }
        // object_in_use
        Some("55006") => {
            "; another receiver uses the slot, or the server has not noticed yet that ours has gone"
        }
        // insufficient_privilege
        Some("42501") => "; give the role the REPLICATION attribute: ALTER ROLE ... REPLICATION",
        _ => "",
    }
}
