//! [`WalDestination`]: what a receiver needs of the place where WAL goes, so that another service can be that place.

use std::future::Future;

use bytes::Bytes;
use walstream::lsn::Lsn;
use walstream::types::TimelineId;

use super::{ProgressReceiver, SinkError};

/// Takes WAL in order and says how far it has written and flushed it.
///
/// [`WalSink`](super::WalSink) is the project's own. Another service implements this to receive into its own store: it
/// keeps a [`ProgressSender`](super::ProgressSender) and hands out its receivers; its own errors travel as
/// [`SinkError::Destination`].
pub trait WalDestination: Send {
    /// Takes the bytes at `lsn`, waiting only while too much is unwritten. What they hold was checked already.
    ///
    /// # Errors
    /// [`SinkError::Gap`] or [`SinkError::Overlap`] when `lsn` is not the next position; otherwise what the destination
    /// died of.
    fn write(
        &mut self,
        lsn: Lsn,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Nothing more has arrived for now, and the receiver is about to wait: what was taken is to be written and, where
    /// somebody waits for it, flushed. A destination that works on its own threads has nothing to do here.
    ///
    /// # Errors
    /// What the destination died of.
    fn settle(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Where progress is reported. The receiver loop sends the server what it reads here and nothing else.
    fn progress(&self) -> ProgressReceiver;

    /// Asks that everything taken so far be flushed without delay; does not wait for it.
    ///
    /// # Errors
    /// What the destination died of.
    fn flush_now(&mut self) -> Result<(), SinkError>;

    /// Lets the stream begin again at `lsn`, which is not after the next position. What is sent again is compared with
    /// what was taken.
    ///
    /// # Errors
    /// [`SinkError::Restart`] when `lsn` lies outside what can be sent again.
    fn restart_at(&mut self, lsn: Lsn) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Ends the current timeline at `switch_point`, durably, and goes on there on `timeline`.
    ///
    /// # Errors
    /// [`SinkError::Diverged`] when something else than `switch_point` is the end of what was taken.
    fn switch_timeline(
        &mut self,
        timeline: TimelineId,
        switch_point: Lsn,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Keeps a timeline history file; it is durable when this returns.
    ///
    /// # Errors
    /// What the destination died of.
    fn write_history_file(
        &mut self,
        timeline: TimelineId,
        content: Bytes,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Flushes everything taken, ends, and returns the final flush position.
    ///
    /// # Errors
    /// What the destination died of; then what [`WalDestination::progress`] said last is what is durable.
    fn close(self) -> impl Future<Output = Result<Lsn, SinkError>> + Send;
}
