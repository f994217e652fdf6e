//! [`WalActivity`]: tells when the server beside us has written WAL, and it is worth asking whether that is flushed.
//!
//! The kernel tells of every write to the files of `pg_wal` (`inotify`). A thread waits for it, as the runtime's clock, which ticks in
//! milliseconds, is too slow for what comes then: WAL is flushed some hundred microseconds after it is written.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::sync::Notify;

/// When to ask after a write, each from the time before: a flush takes some time, and how much nobody knows. A write in
/// between begins anew, so that under load there is a question for each of the first.
const ASK_AFTER: [Duration; 3] = [
    Duration::from_micros(200),
    Duration::from_micros(300),
    Duration::from_micros(500),
];
/// How soon the thread ends.
const LOOK_WHETHER_ENDED: Duration = Duration::from_millis(500);

/// Follows the writes to a directory's files until it is dropped.
#[derive(Debug)]
pub(super) struct WalActivity {
    told: Arc<Notify>,
    is_over: Arc<AtomicBool>,
}

impl WalActivity {
    /// Watches a directory. Where that cannot be had, nothing is ever told.
    pub(super) fn watch(pg_wal: &Path) -> Self {
        let activity = Self {
            told: Arc::default(),
            is_over: Arc::default(),
        };
        if let Err(error) = activity.start(pg_wal) {
            tracing::debug!(%error, "cannot watch pg_wal, so the primary is asked by the clock");
        }
        activity
    }

    /// Waits until it is time to ask. Cancel-safe.
    pub(super) async fn time_to_ask(&self) {
        self.told.notified().await;
    }

    fn start(&self, pg_wal: &Path) -> io::Result<()> {
        let writes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&writes, pg_wal, WatchFlags::MODIFY | WatchFlags::ONLYDIR)?;
        let (told, is_over) = (Arc::clone(&self.told), Arc::clone(&self.is_over));
        thread::Builder::new()
            .name("wal-activity".to_owned())
            .spawn(move || {
                if let Err(error) = follow(&writes, &told, &is_over) {
                    tracing::debug!(%error, "pg_wal cannot be watched any more");
                }
            })?;
        Ok(())
    }
}

impl Drop for WalActivity {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn follow(writes: &OwnedFd, told: &Notify, is_over: &AtomicBool) -> io::Result<()> {
    let mut times = [].iter();
    while !is_over.load(Ordering::Relaxed) {
        let time = times.next();
        let timeout = Timespec::try_from(*time.unwrap_or(&LOOK_WHETHER_ENDED));
        let timeout = timeout.map_err(io::Error::other)?;
        let mut fds = [PollFd::from_borrowed_fd(writes.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if time.is_some() => told.notify_one(),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => {
                drain(writes)?;
                times = ASK_AFTER.iter();
                if let Some(first) = times.next() {
                    thread::sleep(*first);
                    told.notify_one();
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads all there is.
fn drain(writes: &OwnedFd) -> io::Result<()> {
    let mut events = [0; 4096];
    loop {
        match rustix::io::read(writes, &mut events) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn each_write_is_a_time_to_ask_and_silence_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("000000010000000000000001");
        std::fs::write(&file, [0; 16]).unwrap();
        let activity = WalActivity::watch(directory.path());
        for byte in 1..4 {
            std::fs::write(&file, [byte; 16]).unwrap();
            timeout(LONG, activity.time_to_ask()).await.unwrap();
        }
        // The questions after the last write come to an end.
        let mut questions = 0;
        while timeout(Duration::from_millis(200), activity.time_to_ask())
            .await
            .is_ok()
        {
            questions += 1;
            assert!(questions < 100);
        }
    }

    #[tokio::test]
    async fn without_a_directory_nothing_is_told() {
        let activity = WalActivity::watch(Path::new("/nowhere/pg_wal"));
        let told = timeout(Duration::from_millis(20), activity.time_to_ask()).await;
        assert!(told.is_err());
    }
}
