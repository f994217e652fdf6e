//! Ending the receiver that still holds the mirror: what it received must be durable before PostgreSQL reads it.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::ActivateError;
use crate::mirror::lock::MirrorLock;

/// How long it may take: it makes durable what it has and says goodbye to a primary that does not answer.
const LONGEST: Duration = Duration::from_secs(30);

/// Asks the receiver to end, and waits until it has released the mirror.
///
/// # Errors
/// [`ActivateError::ReceiverStays`].
pub(super) async fn stop_receiver(mirror: &Path, pid: u32) -> Result<(), ActivateError> {
    let stays = || ActivateError::ReceiverStays { pid };
    let process = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(stays)?;
    tracing::info!(pid, "stopping the receiver");
    // One that has ended meanwhile needs no signal.
    let _ = kill_process(process, Signal::TERM);
    let released = async {
        while MirrorLock::holder(mirror).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONGEST, released)
        .await
        .map_err(|_| stays())
}
