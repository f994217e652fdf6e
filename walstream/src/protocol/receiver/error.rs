//! [`ReceiverError`], why a stream of WAL cannot go on.

use std::time::Duration;

use thiserror::Error;

use crate::protocol::ProtocolError;
use crate::{Lsn, TimelineId};

/// Why a stream of WAL cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReceiverError {
    /// The primary does not keep to the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// WAL between what came last and what came now is missing.
    #[error(
        "WAL stream on timeline {timeline} has a gap: expected data at {expected}, the server sent {found}"
    )]
    Gap {
        /// The stream's timeline.
        timeline: TimelineId,
        /// Where the next data had to start.
        expected: Lsn,
        /// Where it started.
        found: Lsn,
    },
    /// WAL came again, or from before the start.
    #[error(
        "WAL stream on timeline {timeline} goes back: expected data at {expected}, the server sent {found} again"
    )]
    Overlap {
        /// The stream's timeline.
        timeline: TimelineId,
        /// Where the next data had to start.
        expected: Lsn,
        /// Where it started.
        found: Lsn,
    },
    /// Nothing came from the primary for the whole timeout, although it was asked for a sign of life.
    #[error(
        "terminating the WAL stream at {received_lsn}: nothing came from the server for {} ms, although it was \
         asked for an answer; check the network and the server, or raise the receiver timeout",
        silence.as_millis()
    )]
    Timeout {
        /// How long nothing came.
        silence: Duration,
        /// End of what came before.
        received_lsn: Lsn,
    },
    /// The server says that the next timeline begins where this stream has not been, or is no later one.
    #[error(
        "server ended timeline {timeline} at {received_lsn}, but says that timeline {next_timeline} begins at \
         {next_start_lsn}"
    )]
    BadNextTimeline {
        /// The stream's timeline.
        timeline: TimelineId,
        /// End of what came of it.
        received_lsn: Lsn,
        /// The timeline that is to follow.
        next_timeline: TimelineId,
        /// Where it is to begin.
        next_start_lsn: Lsn,
    },
    /// The caller reported progress that cannot be: backwards, or ahead of what it must follow. A bug of the caller.
    #[error("{what} position {lsn} reported, which must be between {lowest} and {highest}")]
    BadProgress {
        /// `write`, `flush` or `apply`.
        what: &'static str,
        /// What was reported.
        lsn: Lsn,
        /// The position reported before.
        lowest: Lsn,
        /// The position that it may not pass.
        highest: Lsn,
    },
}
