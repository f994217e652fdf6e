//! Puts one file after the other elsewhere, each for as long as it takes.

use std::io;
use std::path::Path;
use std::time::Duration;

use walsender::source::archive::{ArchiveError, UploadError, Uploaded, Uploader};

use super::queue::{Queue, WaitingFile};
use crate::receive::messages::{Messages, system_error};

/// When something is tried again, and how long an end waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Wait after the first failure; doubled after each further one.
    pub(super) first_wait: Duration,
    /// The longest wait.
    pub(super) longest_wait: Duration,
    /// How long an end waits.
    pub(super) at_end: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            at_end: Duration::from_secs(60),
        }
    }
}

/// Puts a file elsewhere, once.
pub(super) trait Put {
    /// Succeeds when the whole file is there under this name, which was confirmed.
    fn put(
        &self,
        file: &Path,
        name: &str,
    ) -> impl Future<Output = Result<Uploaded, UploadError>> + Send;
}

impl Put for Uploader {
    async fn put(&self, file: &Path, name: &str) -> Result<Uploaded, UploadError> {
        self.upload(file, name).await
    }
}

/// What an attempt that failed means.
enum Failure {
    /// The file was taken away; there is nothing to put elsewhere.
    Gone,
    /// No attempt can succeed.
    Final(UploadError),
    /// Another attempt may succeed; `true` if not by itself.
    Retry(UploadError, bool),
}

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Self {
        match &error {
            UploadError::Local { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Self::Gone
            }
            UploadError::Different { .. }
            | UploadError::Name { .. }
            | UploadError::NotWhole { .. } => Self::Final(error),
            // A disk that fails may come back; WAL that does not stays as it is.
            UploadError::Damaged(ArchiveError::Io { .. }) => Self::Retry(error, true),
            UploadError::Damaged(_) => Self::Final(error),
            UploadError::Unconfirmed { .. } => Self::Retry(error, true),
            _ => {
                let lasts = !error.is_passing();
                Self::Retry(error, lasts)
            }
        }
    }
}

/// Puts files elsewhere for ever, or until that fails for good. `place` is how messages call it.
pub(super) async fn work<P: Put>(
    put: &P,
    queue: &Queue,
    pace: Pace,
    place: &str,
    messages: &Messages,
) {
    loop {
        let file = queue.first().await;
        let mut wait = pace.first_wait;
        loop {
            match put.put(&file.path, &file.name).await.map_err(Failure::from) {
                Ok(uploaded) => {
                    stored(queue, &file, &uploaded, place, messages);
                    break;
                }
                Err(Failure::Gone) => {
                    messages.warning(&format!(
                        "file \"{}\" was removed before it was put into {place}",
                        file.path.display()
                    ));
                    queue.gone();
                    break;
                }
                Err(Failure::Final(error)) => {
                    queue.fail(error);
                    return;
                }
                Err(Failure::Retry(error, lasts)) => {
                    let waiting = queue.failing();
                    let text = format!(
                        "{error}; {} in \"{}\", next try in {} seconds",
                        count(waiting),
                        file.path.parent().unwrap_or(Path::new(".")).display(),
                        wait.as_secs()
                    );
                    if lasts {
                        messages.error(&text);
                    } else {
                        messages.warning(&text);
                    }
                    queue.wait(wait).await;
                    wait = wait.saturating_mul(2).min(pace.longest_wait);
                }
            }
        }
    }
}

fn count(waiting: usize) -> String {
    match waiting {
        1 => "1 finished file waits".to_owned(),
        more => format!("{more} finished files wait"),
    }
}

fn stored(
    queue: &Queue,
    file: &WaitingFile,
    uploaded: &Uploaded,
    place: &str,
    messages: &Messages,
) {
    if queue.is_failing() {
        messages.info(&format!("{place} takes files again"));
    }
    let how = if uploaded.was_there {
        "found the same"
    } else {
        "stored"
    };
    messages.verbose(&format!("{how} \"{}\"", uploaded.object));
    queue.stored(|| match std::fs::remove_file(&file.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => messages.warning(&format!(
            "could not remove file \"{}\", which is in {place}: {}",
            file.path.display(),
            system_error(&error)
        )),
        _ => {}
    });
}
