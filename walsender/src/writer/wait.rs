//! Waiting for standbys: [`WalWriter::wait`].

use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use walstream::Lsn;
use walstream::sync::WaitMode;

use super::WalWriter;
use super::error::WriterError;
use crate::sender::{Sender, WaitInterrupted};

/// A wait that has not ended well. The record stays in the log whatever it is, and may reach any standby later; what was told
/// to nobody may have happened all the same.
#[derive(Clone, Debug, Error)]
pub enum WaitError {
    /// The log cannot be flushed.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// The sender ended.
    #[error(transparent)]
    Sender(#[from] WaitInterrupted),
    /// The time is over.
    #[error("{lsn} was not released for \"{}\" in time: see which standbys follow, and how far they are", mode.name())]
    Deadline {
        /// What was waited for.
        lsn: Lsn,
        /// How.
        mode: WaitMode,
    },
}

impl WalWriter {
    /// Waits until the log up to `lsn` is durable here, and written, flushed or applied as `mode` says by the standbys that
    /// the rule of `sender` requires. The sender serves this log. Without a deadline it waits for as long as it takes; dropping
    /// the future ends the wait.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn wait(
        &self,
        sender: &Sender,
        lsn: Lsn,
        mode: WaitMode,
        deadline: Option<Instant>,
    ) -> Result<(), WaitError> {
        let waiting = async {
            // First, as without a required standby the sender waits for no more than this.
            self.flush(lsn).await?;
            if mode != WaitMode::Local {
                sender.wait_for(lsn, mode).await?;
            }
            Ok(())
        };
        match deadline {
            Some(deadline) => timeout_at(deadline, waiting)
                .await
                .unwrap_or(Err(WaitError::Deadline { lsn, mode })),
            None => waiting.await,
        }
    }
}
