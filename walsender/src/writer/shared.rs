//! [`Shared`]: what callers, threads and standbys share of one log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;
use walstream::Lsn;

use super::buffer::{AppendBuffer, Batch};
use super::control::LogControl;
use super::error::WriterError;
use super::options::WriterOptions;
use super::recent::RecentWal;
use super::segment_directory::SegmentDirectory;
use super::segment_readers::SegmentReaders;
use crate::durable::FileError;
use crate::source::{SourceIdentity, WalPosition};

/// What all share. The locks of what is appended and of what is recent are never held over I/O, nor one within the other.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) control: LogControl,
    pub(super) options: WriterOptions,
    pub(super) identity: SourceIdentity,
    pub(super) directory: Arc<SegmentDirectory>,
    pub(super) readers: SegmentReaders,
    append: Mutex<AppendState>,
    /// There is work for the flusher.
    pub(super) work: Condvar,
    recent: Mutex<RecentWal>,
    flushed: watch::Sender<WalPosition>,
    /// Start of the last record that is durable; 0 while there is none.
    last_record: AtomicU64,
    failed: OnceLock<Arc<FileError>>,
    /// The service needs WAL from here on; 0 while it has not said.
    needed_lsn: AtomicU64,
    /// Held by the one who removes segments.
    pub(super) removing: Mutex<()>,
}

#[derive(Debug)]
pub(super) struct AppendState {
    pub(super) buffer: AppendBuffer,
    /// Somebody waits for a flush up to here.
    pub(super) requested: Lsn,
    pub(super) is_closing: bool,
}

impl Shared {
    pub(super) fn new(
        control: LogControl,
        identity: SourceIdentity,
        directory: Arc<SegmentDirectory>,
        readers: SegmentReaders,
        buffer: AppendBuffer,
        options: WriterOptions,
    ) -> Self {
        let end = buffer.end();
        Self {
            last_record: AtomicU64::new(buffer.last_record().0),
            append: Mutex::new(AppendState {
                buffer,
                requested: Lsn::INVALID,
                is_closing: false,
            }),
            work: Condvar::new(),
            recent: Mutex::new(RecentWal::new(end, options.recent_size)),
            flushed: watch::Sender::new(WalPosition {
                timeline: control.timeline,
                lsn: end,
            }),
            failed: OnceLock::new(),
            needed_lsn: AtomicU64::new(0),
            removing: Mutex::new(()),
            control,
            options,
            identity,
            directory,
            readers,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, AppendState> {
        // A panic while a record was half appended would be one of the encoder, which has none.
        self.append.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, RecentWal> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log, for appending, while it can be written.
    pub(super) fn to_append(&self) -> Result<MutexGuard<'_, AppendState>, WriterError> {
        self.check()?;
        let state = self.lock();
        if state.is_closing {
            return Err(WriterError::Closed);
        }
        Ok(state)
    }

    /// Whether writing has failed.
    pub(super) fn check(&self) -> Result<(), WriterError> {
        self.failed.get().map_or(Ok(()), |source| {
            Err(WriterError::Failed {
                flushed: self.flushed_lsn(),
                source: Arc::clone(source),
            })
        })
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Writing failed: nothing is flushed any more, and all who wait are told.
    pub(super) fn fail(&self, error: FileError) {
        tracing::error!(
            "the log stands still at {}, as it could not be written: {error}",
            self.flushed_lsn()
        );
        let _ = self.failed.set(Arc::new(error));
        self.flushed.send_modify(|_| {});
    }

    pub(super) fn flushed_lsn(&self) -> Lsn {
        self.flushed.borrow().lsn
    }

    pub(super) fn watch_flushed(&self) -> watch::Receiver<WalPosition> {
        self.flushed.subscribe()
    }

    /// WAL up to the end of this batch is durable.
    pub(super) fn publish(&self, batch: &Batch) {
        self.last_record
            .store(batch.last_record.0, Ordering::Release);
        self.flushed
            .send_modify(|position| position.lsn = batch.end);
    }

    /// WAL from here on says where the log ends, so it is needed to open it.
    pub(super) fn last_record(&self) -> Lsn {
        Lsn(self.last_record.load(Ordering::Acquire))
    }

    pub(super) fn needed_lsn(&self) -> Option<Lsn> {
        Lsn(self.needed_lsn.load(Ordering::Relaxed)).valid()
    }

    pub(super) fn set_needed(&self, lsn: Lsn) {
        self.needed_lsn.fetch_max(lsn.0, Ordering::Relaxed);
    }
}
