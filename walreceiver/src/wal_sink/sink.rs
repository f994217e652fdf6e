//! [`WalSink`]: the handle that the receiving task holds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use walstream::lsn::{Lsn, SegmentSize};
use walstream::types::TimelineId;

use super::segment_file::{SegmentDirectory, file_error};
use super::segment_writer::SegmentWriter;
use super::syncer::DirtySegments;
use super::writer_thread::{Job, Reply, WriterThread};
use super::{
    Preallocation, ProgressReceiver, ProgressSender, SinkError, SinkProgress, Storage,
    WalDestination,
};

/// When written WAL is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// As soon as there is any, as a synchronous standby must.
    #[default]
    Always,
    /// When a segment is complete, when asked, and at the end.
    AtSegmentEnd,
}

/// Where and how a [`WalSink`] writes.
#[derive(Clone, Copy, Debug)]
pub struct SinkOptions {
    /// Size of the server's segments.
    pub segment_size: SegmentSize,
    /// The timeline that is received.
    pub timeline: TimelineId,
    /// End of the WAL that the directory already holds, which is where writing begins.
    pub position: Lsn,
    /// How many bytes may wait to be written, before [`WalDestination::write`] waits. One larger message is let through.
    pub queue_bytes: u32,
    /// When to sync.
    pub sync: SyncPolicy,
    /// How new segments get their blocks.
    pub preallocation: Preallocation,
}

impl SinkOptions {
    /// Options for receiving `timeline` from `position` on: a queue of 8 MiB, syncs as soon as there is anything.
    #[must_use]
    pub const fn new(segment_size: SegmentSize, timeline: TimelineId, position: Lsn) -> Self {
        Self {
            segment_size,
            timeline,
            position,
            queue_bytes: 8 << 20,
            sync: SyncPolicy::Always,
            preallocation: Preallocation::Reserve,
        }
    }
}

/// Writes received WAL into segment files and syncs them, each on a thread of its own.
///
/// Calls follow the stream: [`WalSink::write`](WalDestination::write) at [`WalSink::position`], again and again. Progress is read from
/// [`WalSink::progress`](WalDestination::progress), and is the only thing that may be reported to a server. After an error the sink is dead: every
/// later call returns that error, and the flush position stands still. Dropping the sink blocks until its threads have
/// finished what was queued; only [`WalSink::close`](WalDestination::close) says whether that succeeded.
#[derive(Debug)]
pub struct WalSink {
    jobs: Option<mpsc::Sender<Job>>,
    queue: Arc<Semaphore>,
    queue_bytes: u32,
    progress: Arc<ProgressSender>,
    segment_size: SegmentSize,
    position: Lsn,
    held: Lsn,
    threads: Vec<JoinHandle<()>>,
}

impl WalSink {
    /// Opens `pg_wal` to write from `options.position` on. Blocks on file operations.
    ///
    /// Unfinished files are removed. Segments in which an earlier process may have left unsynced WAL are written again
    /// and synced, so that progress begins with both positions at `options.position` and that is true.
    ///
    /// # Errors
    /// [`SinkError::MissingSegment`] when the position is inside a segment that is not there,
    /// [`SinkError::SegmentSize`] when a segment is not full size, and failures of storage.
    pub fn open<S: Storage>(
        storage: S,
        pg_wal: &Path,
        options: SinkOptions,
    ) -> Result<Self, SinkError> {
        let SinkOptions {
            segment_size,
            timeline,
            position,
            queue_bytes,
            ..
        } = options;
        let storage = Arc::new(storage);
        let progress = Arc::new(ProgressSender::new(SinkProgress {
            timeline,
            write_lsn: position,
            flush_lsn: position,
        }));
        let dirty = Arc::new(DirtySegments::new(
            Arc::clone(&storage),
            pg_wal.to_owned(),
            options.sync,
            Arc::clone(&progress),
        ));
        let directory = SegmentDirectory {
            storage,
            path: pg_wal.to_owned(),
            segment_size,
        };
        let writer = SegmentWriter::open(
            directory,
            Arc::clone(&dirty),
            Arc::clone(&progress),
            timeline,
            position,
            options.preallocation,
        )?;
        let queue_bytes = queue_bytes.max(1);
        let queue = Arc::new(Semaphore::new(
            usize::try_from(queue_bytes).unwrap_or(Semaphore::MAX_PERMITS),
        ));
        let (jobs, receiver) = mpsc::channel();
        let mut sink = Self {
            jobs: Some(jobs),
            queue: Arc::clone(&queue),
            queue_bytes,
            progress: Arc::clone(&progress),
            segment_size,
            position,
            held: position,
            threads: Vec::new(),
        };
        let syncer = Arc::clone(&dirty);
        sink.spawn("wal-sync", pg_wal, move || syncer.run())?;
        let thread = WriterThread {
            writer,
            jobs: receiver,
            dirty: Arc::clone(&dirty),
            progress,
            queue,
        };
        if let Err(error) = sink.spawn("wal-write", pg_wal, move || thread.run()) {
            dirty.close();
            return Err(error);
        }
        Ok(sink)
    }

    /// Where the next byte of the stream belongs.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// Size of the segments.
    #[must_use]
    pub const fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    fn spawn(
        &mut self,
        name: &str,
        path: &Path,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), SinkError> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|source| {
                file_error(
                    "start a thread for",
                    &PathBuf::from(path),
                    self.position,
                    source,
                )
            })?;
        self.threads.push(thread);
        Ok(())
    }

    fn send(&self, job: Job) -> Result<(), SinkError> {
        if let Some(failure) = self.progress.failure() {
            return Err(failure);
        }
        let jobs = self.jobs.as_ref().ok_or(SinkError::Closed)?;
        jobs.send(job)
            .map_err(|_| self.progress.failure().unwrap_or(SinkError::Closed))
    }

    /// Sends a job and waits for its answer.
    async fn call(&self, job: impl FnOnce(Reply) -> Job) -> Result<(), SinkError> {
        let (reply, answer) = oneshot::channel();
        self.send(job(reply))?;
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(self.progress.failure().unwrap_or(SinkError::Closed)),
        }
    }
}

impl WalDestination for WalSink {
    /// Cancel-safe: when dropped before it resolves, nothing was taken.
    async fn write(&mut self, lsn: Lsn, bytes: Bytes) -> Result<(), SinkError> {
        let expected = self.position;
        if lsn > expected {
            return Err(SinkError::Gap {
                expected,
                found: lsn,
            });
        }
        if lsn < expected {
            return Err(SinkError::Overlap {
                expected,
                found: lsn,
            });
        }
        let length = bytes.len();
        let end = u64::try_from(length)
            .ok()
            .and_then(|length| lsn.0.checked_add(length));
        let end = Lsn(end.ok_or(SinkError::LsnRange { lsn, length })?);
        if length == 0 {
            return Ok(());
        }
        let permits = u32::try_from(length)
            .unwrap_or(u32::MAX)
            .min(self.queue_bytes);
        let permit = match Arc::clone(&self.queue).acquire_many_owned(permits).await {
            Ok(permit) => permit,
            Err(_) => return Err(self.progress.failure().unwrap_or(SinkError::Closed)),
        };
        self.send(Job::Write { bytes, permit })?;
        self.position = end;
        self.held = self.held.max(end);
        Ok(())
    }

    fn progress(&self) -> ProgressReceiver {
        self.progress.receiver()
    }

    fn flush_now(&mut self) -> Result<(), SinkError> {
        self.send(Job::Flush)
    }

    async fn restart_at(&mut self, lsn: Lsn) -> Result<(), SinkError> {
        let lowest = self.held.segment_start(self.segment_size);
        if lsn < lowest || lsn > self.held {
            return Err(SinkError::Restart {
                requested: lsn,
                lowest,
                highest: self.held,
            });
        }
        self.send(Job::Restart(lsn))?;
        self.position = lsn;
        Ok(())
    }

    async fn switch_timeline(
        &mut self,
        timeline: TimelineId,
        switch_point: Lsn,
    ) -> Result<(), SinkError> {
        if switch_point != self.held {
            return Err(SinkError::Diverged {
                timeline,
                switch_point,
                received: self.held,
            });
        }
        self.call(|reply| Job::SwitchTimeline(timeline, reply))
            .await?;
        self.position = switch_point;
        Ok(())
    }

    async fn write_history_file(
        &mut self,
        timeline: TimelineId,
        content: Bytes,
    ) -> Result<(), SinkError> {
        self.call(|reply| Job::History(timeline, content, reply))
            .await
    }

    async fn close(self) -> Result<Lsn, SinkError> {
        self.call(Job::Close).await?;
        Ok(self.progress.current().flush_lsn)
    }
}

impl Drop for WalSink {
    fn drop(&mut self) {
        self.queue.close();
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to write.
            let _ = thread.join();
        }
    }
}
