//! The writing thread: takes the receiving task's jobs in order.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use walstream::lsn::Lsn;
use walstream::types::TimelineId;

use super::segment_writer::SegmentWriter;
use super::syncer::DirtySegments;
use super::{ProgressSender, SinkError, Storage};

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<(), SinkError>>;

/// What the writing thread is asked to do.
pub(super) enum Job {
    /// Write the bytes that come next; the permit is their room in the queue.
    Write {
        bytes: Bytes,
        permit: OwnedSemaphorePermit,
    },
    /// Sync what was written so far.
    Flush,
    /// Let the stream begin again at an earlier position.
    Restart(Lsn),
    /// Go on with another timeline.
    SwitchTimeline(TimelineId, Reply),
    /// Write a timeline history file.
    History(TimelineId, Bytes, Reply),
    /// Sync everything, and end.
    Close(Reply),
}

/// The writing thread: takes jobs in order.
pub(super) struct WriterThread<S: Storage> {
    pub(super) writer: SegmentWriter<S>,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) dirty: Arc<DirtySegments<S>>,
    pub(super) progress: Arc<ProgressSender>,
    pub(super) queue: Arc<Semaphore>,
}

impl<S: Storage> WriterThread<S> {
    pub(super) fn run(mut self) {
        // A failure has been published where it arose, before any job or permit was dropped.
        let _ = self.serve();
        self.queue.close();
        self.dirty.close();
    }

    /// Serves jobs until there are no more, or one failed.
    fn serve(&mut self) -> Result<(), SinkError> {
        let mut buffers = VecDeque::new();
        let mut permits = Vec::new();
        let mut next = self.jobs.recv().ok();
        while let Some(job) = next.take() {
            if let Some(failure) = self.progress.failure() {
                return Err(failure);
            }
            match job {
                Job::Write { bytes, permit } => {
                    buffers.push_back(bytes);
                    permits.push(permit);
                    // What has queued up meanwhile goes out in the same call.
                    while let Ok(job) = self.jobs.try_recv() {
                        let Job::Write { bytes, permit } = job else {
                            next = Some(job);
                            break;
                        };
                        buffers.push_back(bytes);
                        permits.push(permit);
                    }
                    let result = self.writer.write(&mut buffers);
                    self.publish(result)?;
                    permits.clear();
                }
                Job::Flush => self.dirty.request(),
                Job::Restart(lsn) => self.writer.restart_at(lsn),
                Job::SwitchTimeline(timeline, reply) => {
                    let result = self.writer.switch_timeline(timeline);
                    self.answer(reply, result)?;
                }
                Job::History(timeline, content, reply) => {
                    let result = self.writer.write_history_file(timeline, &content);
                    self.answer(reply, result)?;
                }
                Job::Close(reply) => {
                    let result = self.dirty.drain();
                    return self.answer(reply, result);
                }
            }
            next = next.or_else(|| self.jobs.recv().ok());
        }
        Ok(())
    }

    /// Makes a failure known to everyone.
    fn publish(&self, result: Result<(), SinkError>) -> Result<(), SinkError> {
        if let Err(failure) = &result {
            self.progress.fail(failure.clone());
        }
        result
    }

    fn answer(&self, reply: Reply, result: Result<(), SinkError>) -> Result<(), SinkError> {
        let result = self.publish(result);
        let _ = reply.send(result.clone());
        result
    }
}
