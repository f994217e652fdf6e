//! [`LastStatus`]: what the daemon last said of itself, for when it says nothing any more.
//!
//! Written beside the mirror's files about once a second, and not synced: it is for people, and nothing depends on it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::live::LiveStatus;
use crate::mirror::durable::FileError;

/// The file `walstream.status`.
#[derive(Debug)]
pub struct LastStatus;

impl LastStatus {
    /// Name within the mirror directory.
    pub const NAME: &'static str = "walstream.status";

    /// Reads it; `None` when no daemon ever ran, or what it wrote is cut off.
    ///
    /// # Errors
    /// [`FileError`] when it is there and cannot be read.
    pub fn read(mirror: &Path) -> Result<Option<LiveStatus>, FileError> {
        let path = mirror.join(Self::NAME);
        match std::fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of("read", &path)(error)),
        }
    }

    /// Replaces it.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(mirror: &Path, status: &LiveStatus) -> io::Result<()> {
        let temporary = mirror.join("walstream.status.tmp");
        std::fs::write(&temporary, serde_json::to_vec(status)?)?;
        std::fs::rename(&temporary, mirror.join(Self::NAME))
    }

    /// Writes it whenever it has changed, about once a second.
    pub async fn keep(mirror: PathBuf, mut status: watch::Receiver<LiveStatus>) {
        while status.changed().await.is_ok() {
            let snapshot = status.borrow_and_update().clone();
            if let Err(error) = Self::write(&mirror, &snapshot) {
                tracing::debug!(%error, "cannot write the status file");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_back_and_may_be_missing_or_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LastStatus::read(dir.path()).unwrap(), None);
        let status = LiveStatus {
            pid: 7,
            ..LiveStatus::default()
        };
        LastStatus::write(dir.path(), &status).unwrap();
        assert_eq!(LastStatus::read(dir.path()).unwrap(), Some(status));
        std::fs::write(dir.path().join(LastStatus::NAME), "{\"pid\": 7").unwrap();
        assert_eq!(LastStatus::read(dir.path()).unwrap(), None);
    }
}
