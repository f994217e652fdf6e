//! [`WalWriter`], the handle of a log.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use walstream::Lsn;
use walstream::wal::encode::NewRecord;

use super::buffer::{AppendBuffer, AppendedRecord, encoder_at, first_record};
use super::control::LogControl;
use super::error::{OpenError, WriterError};
use super::message::LogicalMessage;
use super::options::WriterOptions;
use super::recovery::recover;
use super::segment_directory::SegmentDirectory;
use super::segment_readers::SegmentReaders;
use super::segment_writer::SegmentWriter;
use super::shared::{AppendState, Shared};
use super::storage::{DiskStorage, LogStorage};
use super::{flusher, retention, source};
use crate::durable::{FileError, sync_directory};
use crate::lock_file::LockFile;

/// Directory of the segments within that of the log.
const WAL_DIRECTORY: &str = "pg_wal";
const LOCK_FILE: &str = "walstream.lock";

/// A log that records are appended to. Clones share it; it is closed with [`close`](Self::close), or when the last is dropped,
/// which blocks for as long as a flush takes.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use walsender::writer::{LogControl, LogicalMessage, WalWriter, WriterOptions};
/// use walstream::PgMajor;
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let log = WalWriter::create(directory, &LogControl::new(PgMajor::V15), WriterOptions::default())?;
/// let record = log.append_message(&LogicalMessage::new("ledger", b"paid")).await?;
/// log.flush(record.end_lsn).await?;
/// log.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct WalWriter {
    pub(super) shared: Arc<Shared>,
    owner: Arc<Owner>,
}

/// What ends with the last handle.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    threads: Mutex<Threads>,
}

#[derive(Debug)]
struct Threads {
    handles: Vec<JoinHandle<()>>,
    /// Given up after the threads have ended.
    lock: Option<LockFile>,
}

impl WalWriter {
    /// Makes a log in this directory, which is made where it is missing, and opens it. Blocks.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn create(
        directory: &Path,
        control: &LogControl,
        options: WriterOptions,
    ) -> Result<Self, OpenError> {
        make_directory(directory)?;
        let lock = lock(directory)?;
        if LogControl::read(directory)?.is_some() {
            return Err(OpenError::Exists {
                path: directory.join(LogControl::NAME),
            });
        }
        if !control.is_possible() {
            return Err(OpenError::Start {
                lsn: control.start_lsn,
            });
        }
        make_directory(&directory.join(WAL_DIRECTORY))?;
        control.write(directory)?;
        Self::open_locked(directory, lock, *control, options)
    }

    /// Opens the log of this directory, wherever an earlier process left it. Blocks, for as long as it takes to read the last
    /// segments, or all of them.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::Damaged`] and its like when WAL that was flushed is lost.
    pub fn open(directory: &Path, options: WriterOptions) -> Result<Self, OpenError> {
        let path = directory.join(LogControl::NAME);
        if !path.exists() {
            return Err(OpenError::NoLog { path });
        }
        let lock = lock(directory)?;
        let control = LogControl::read(directory)?.ok_or(OpenError::NoLog { path })?;
        Self::open_locked(directory, lock, control, options)
    }

    /// Opens the log of this directory, or makes it when there is none. Blocks.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_or_create(
        directory: &Path,
        control: &LogControl,
        options: WriterOptions,
    ) -> Result<Self, OpenError> {
        if directory.join(LogControl::NAME).exists() {
            Self::open(directory, options)
        } else {
            Self::create(directory, control, options)
        }
    }

    fn open_locked(
        directory: &Path,
        lock: LockFile,
        control: LogControl,
        options: WriterOptions,
    ) -> Result<Self, OpenError> {
        let storage = Arc::new(DiskStorage::open(directory, control.timeline)?);
        sync_directory(directory)?;
        let wal = directory.join(WAL_DIRECTORY);
        Self::open_on(storage, &wal, Some(lock), control, options)
    }

    pub(super) fn open_on(
        storage: Arc<dyn LogStorage>,
        wal: &Path,
        lock: Option<LockFile>,
        control: LogControl,
        options: WriterOptions,
    ) -> Result<Self, OpenError> {
        let segment_size = control.dialect.segment_size;
        let directory = Arc::new(SegmentDirectory::new(
            storage,
            wal.to_owned(),
            control.timeline,
            segment_size,
        ));
        let recovered = recover(&directory, &control, options.check_all)?;
        let encoder = encoder_at(&control, recovered.end, recovered.prev)?;
        let shared = Arc::new(Shared::new(
            control,
            source::identity(&control, options.server_version_num),
            Arc::clone(&directory),
            SegmentReaders::new(recovered.oldest),
            AppendBuffer::new(encoder, options.buffer_size),
            options,
        ));
        let writer =
            SegmentWriter::new(directory, control.dialect.wal_page_size, recovered.current);
        let (segment_began, began) = sync_channel(1);
        let flushing = Arc::clone(&shared);
        let keeping = Arc::clone(&shared);
        let threads = [
            spawn("wal-flusher", move || {
                flusher::run(&flushing, writer, &segment_began);
            }),
            spawn("wal-keeper", move || retention::run(&keeping, &began)),
        ];
        let mut handles = Vec::with_capacity(threads.len());
        let mut failure = None;
        for thread in threads {
            match thread {
                Ok(handle) => handles.push(handle),
                Err(error) => failure = Some(error),
            }
        }
        let owner = Owner {
            shared: Arc::clone(&shared),
            threads: Mutex::new(Threads { handles, lock }),
        };
        if let Some(error) = failure {
            // What was started ends with the owner.
            drop(owner);
            return Err(FileError::of("start a thread for", wal)(error).into());
        }
        let new = Self {
            shared,
            owner: Arc::new(owner),
        };
        if recovered.prev == Lsn::INVALID {
            new.to_append(|state| state.buffer.append(&first_record()))
                .map_err(OpenError::Writer)?;
        }
        Ok(new)
    }

    /// What the log is.
    #[must_use]
    pub fn control(&self) -> &LogControl {
        &self.shared.control
    }

    /// Appends a record. It has its place in the log now, and is durable after a [`flush`](Self::flush). Waits only while too
    /// much is appended that is not flushed yet; dropping the future then appends nothing.
    ///
    /// # Errors
    /// [`WriterError`]; the log is then as it was.
    pub async fn append(&self, record: &NewRecord<'_>) -> Result<AppendedRecord, WriterError> {
        self.append_when_there_is_room(|state| state.buffer.append(record))
            .await
    }

    /// Appends a message, as [`append`](Self::append) does a record.
    ///
    /// # Errors
    /// [`WriterError`]; the log is then as it was.
    pub async fn append_message(
        &self,
        message: &LogicalMessage<'_>,
    ) -> Result<AppendedRecord, WriterError> {
        self.append_when_there_is_room(|state| state.buffer.append_message(message))
            .await
    }

    /// Appends a record without ever waiting.
    ///
    /// # Errors
    /// [`WriterError::BufferFull`] where [`append`](Self::append) would wait, otherwise as there.
    pub fn try_append(&self, record: &NewRecord<'_>) -> Result<AppendedRecord, WriterError> {
        self.to_append(|state| state.buffer.append(record))
    }

    /// Appends a message without ever waiting.
    ///
    /// # Errors
    /// As [`try_append`](Self::try_append).
    pub fn try_append_message(
        &self,
        message: &LogicalMessage<'_>,
    ) -> Result<AppendedRecord, WriterError> {
        self.to_append(|state| state.buffer.append_message(message))
    }

    /// Ends the segment, so that an archive gets it whole; what follows is in the next one.
    ///
    /// # Errors
    /// [`WriterError`].
    pub async fn switch_segment(&self) -> Result<AppendedRecord, WriterError> {
        self.append_when_there_is_room(|state| state.buffer.switch_segment())
            .await
    }

    async fn append_when_there_is_room(
        &self,
        mut append: impl FnMut(&mut AppendState) -> Result<AppendedRecord, WriterError>,
    ) -> Result<AppendedRecord, WriterError> {
        loop {
            let end = match self.to_append(&mut append) {
                Err(WriterError::BufferFull { .. }) => self.appended_lsn(),
                result => return result,
            };
            self.flush(end).await?;
        }
    }

    fn to_append(
        &self,
        append: impl FnOnce(&mut AppendState) -> Result<AppendedRecord, WriterError>,
    ) -> Result<AppendedRecord, WriterError> {
        let mut state = self.shared.to_append()?;
        let was_empty = state.buffer.waiting() == 0;
        let result = append(&mut state);
        let is_much = state.buffer.waiting() >= self.shared.options.buffer_size / 2;
        drop(state);
        if was_empty || is_much {
            self.shared.work.notify_one();
        }
        result
    }

    /// End of what was appended.
    #[must_use]
    pub fn appended_lsn(&self) -> Lsn {
        self.shared.lock().buffer.end()
    }

    /// Up to where the log is durable.
    #[must_use]
    pub fn flushed_lsn(&self) -> Lsn {
        self.shared.flushed_lsn()
    }

    /// Waits until the log is durable up to `lsn`, and sees to it that it will be. Dropping the future ends the wait, and what
    /// was appended is flushed all the same.
    ///
    /// # Errors
    /// [`WriterError::NotAppended`], or [`WriterError::Failed`]: whether it is durable is not known then.
    pub async fn flush(&self, lsn: Lsn) -> Result<(), WriterError> {
        if self.flushed_lsn() >= lsn {
            return Ok(());
        }
        self.shared.check()?;
        {
            let mut state = self.shared.lock();
            let end = state.buffer.end();
            if lsn > end {
                return Err(WriterError::NotAppended { lsn, end });
            }
            state.requested = state.requested.max(lsn);
        }
        self.shared.work.notify_one();
        let mut flushed = self.shared.watch_flushed();
        let shared = &self.shared;
        // The sender of this value is in `shared`.
        let _ = flushed
            .wait_for(|position| position.lsn >= lsn || shared.has_failed())
            .await;
        if self.flushed_lsn() >= lsn {
            return Ok(());
        }
        self.shared.check()
    }

    /// The service itself no longer needs WAL before `lsn`, for instance as it has saved its state. Segments before it are
    /// removed once no slot needs them; that in which the last record begins never is. Nothing is ever removed before this was
    /// called.
    pub fn release(&self, lsn: Lsn) {
        self.shared.set_needed(lsn);
    }

    /// Start of the oldest segment that is there.
    #[must_use]
    pub fn oldest_lsn(&self) -> Lsn {
        let oldest = self.shared.readers.oldest();
        oldest
            .start_lsn(self.shared.control.dialect.segment_size)
            .unwrap_or(Lsn::MAX)
    }

    /// Removes what nobody needs now, which otherwise happens every few seconds. Blocks.
    ///
    /// # Errors
    /// [`FileError`]; nothing that is needed is lost by it.
    pub fn remove_old_segments(&self) -> Result<(), FileError> {
        retention::remove_old(&self.shared).map(|_| ())
    }

    /// Flushes everything and closes the log; then another process may open it. Nothing can be appended any more.
    ///
    /// # Errors
    /// [`WriterError::Failed`] when writing has failed.
    pub async fn close(&self) -> Result<(), WriterError> {
        let owner = Arc::clone(&self.owner);
        // A panic of a thread of ours would be a defect; there is nothing to hand on.
        let _ = tokio::task::spawn_blocking(move || owner.end()).await;
        self.shared.check()
    }
}

impl Owner {
    /// Ends the threads and lets go of the lock.
    fn end(&self) {
        self.shared.lock().is_closing = true;
        self.shared.work.notify_one();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for handle in threads.handles.drain(..) {
            let _ = handle.join();
        }
        // Not a second time: another process may have the log by then.
        if let Some(lock) = threads.lock.take() {
            if let Err(error) = self.shared.directory.storage.sync_flushed() {
                tracing::warn!("the flush LSN may be forgotten by a loss of power: {error}");
            }
            drop(lock);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn make_directory(path: &Path) -> Result<(), FileError> {
    std::fs::create_dir_all(path).map_err(FileError::of("create", path))?;
    // Of a path without a directory in front, the directory is the current one.
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    sync_directory(parent.unwrap_or(Path::new(".")))
}

fn lock(directory: &Path) -> Result<LockFile, OpenError> {
    let path = directory.join(LOCK_FILE);
    LockFile::acquire(&path).map_err(|source| OpenError::Lock { path, source })
}
