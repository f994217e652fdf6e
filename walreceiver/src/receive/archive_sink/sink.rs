//! [`ArchiveSink`]: received WAL into the archive, segment after segment.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use walstream::wal::segment_name::SegmentName;
use walstream::{Lsn, TimelineId};

use super::compressed_segment::CompressedSegment;
use super::directory::{Archive, ArchiveSync};
use super::encoder::Encoder;
use super::error::ArchiveError;
use super::plain_segment::PlainSegment;
use crate::receive::compression::Compression;
use crate::wal_sink::{
    ProgressReceiver, ProgressSender, SinkError, SinkProgress, Storage, WalDestination,
};

/// How much WAL is gathered before it is written, in bytes.
const GATHERED: usize = 1 << 20;

/// A file that is complete, durable and has its final name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its timeline.
    pub timeline: TimelineId,
    /// End of the segment; `None` for a timeline history file.
    pub end_lsn: Option<Lsn>,
}

/// Is told of each file that is finished: to say so, or to carry it somewhere else.
pub trait FinishedFiles: Send {
    /// Called right after the file got its name; must be quick.
    fn finished(&mut self, file: FinishedFile);
}

impl<F: FnMut(FinishedFile) + Send> FinishedFiles for F {
    fn finished(&mut self, file: FinishedFile) {
        self(file);
    }
}

enum OpenSegment<F> {
    Plain(PlainSegment<F>),
    Compressed(Box<CompressedSegment<F>>),
}

/// Archives one stream at a time. Calls block while they write and sync.
///
/// Of WAL that is compressed, `write_lsn` says what was taken: the compressor may still hold some of it. Nothing is ever
/// reported as flushed that is not. After an error the sink is dead; a new one begins with what is on the disk.
pub struct ArchiveSink<S: Storage> {
    archive: Archive<S>,
    timeline: TimelineId,
    /// Where the next byte of the stream belongs.
    position: Lsn,
    current: Option<(SegmentName, OpenSegment<S::File>)>,
    gathered: VecDeque<Bytes>,
    gathered_bytes: usize,
    progress: Arc<ProgressSender>,
    finished: Box<dyn FinishedFiles>,
}

impl<S: Storage> ArchiveSink<S> {
    /// Archives `timeline` from `start` on, which is a segment's start.
    pub fn new(
        archive: Archive<S>,
        timeline: TimelineId,
        start: Lsn,
        finished: Box<dyn FinishedFiles>,
    ) -> Self {
        Self {
            archive,
            timeline,
            position: start,
            current: None,
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            progress: progress_from(timeline, start),
            finished,
        }
    }

    /// Where the next byte of the stream belongs.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// The archive.
    #[must_use]
    pub const fn archive(&self) -> &Archive<S> {
        &self.archive
    }

    /// Ends the segment that is not complete: its file is whole as far as it goes, durable, and keeps its partial name,
    /// which is returned.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn end_segment(&mut self) -> Result<Option<String>, ArchiveError> {
        let ended = self.try_end_segment();
        self.publish(ended)
    }

    fn try_end_segment(&mut self) -> Result<Option<String>, ArchiveError> {
        self.write_gathered()?;
        let Some((_, segment)) = self.current.take() else {
            return Ok(None);
        };
        let name = match segment {
            OpenSegment::Plain(mut segment) => {
                segment.sync(&self.archive, self.position)?;
                segment.name().to_owned()
            }
            OpenSegment::Compressed(segment) => {
                let name = segment.partial_name().to_owned();
                segment.leave(&self.archive, self.position)?;
                name
            }
        };
        self.progress.written(self.position);
        self.progress.flushed(self.position);
        Ok(Some(name))
    }

    /// Takes bytes that follow, and writes them once enough are there or their segment is complete.
    fn take(&mut self, lsn: Lsn, mut bytes: Bytes) -> Result<(), ArchiveError> {
        if lsn != self.position {
            return Err(ArchiveError::Position {
                expected: self.position,
                found: lsn,
            });
        }
        while !bytes.is_empty() {
            let size = self.archive.segment_size;
            let room = size.bytes() - self.position.segment_offset(size);
            let length = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            let piece = bytes.split_to(length);
            self.position = Lsn(self.position.0.saturating_add(length as u64));
            self.gathered_bytes += length;
            self.gathered.push_back(piece);
            let complete = self.position.segment_offset(size) == 0;
            if complete || self.gathered_bytes >= GATHERED {
                self.write_gathered()?;
            }
            if complete {
                self.finish_segment()?;
            }
        }
        Ok(())
    }

    /// Writes what was gathered, all of one segment.
    fn write_gathered(&mut self) -> Result<(), ArchiveError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let end = self.position;
        let segment = match &mut self.current {
            Some((_, segment)) => segment,
            None => {
                let number = end.prev_segment_number(self.archive.segment_size);
                let name = SegmentName {
                    timeline: self.timeline,
                    number,
                };
                let opened = open_segment(&self.archive, name, end)?;
                &mut self.current.insert((name, opened)).1
            }
        };
        match segment {
            OpenSegment::Plain(segment) => segment.write(&self.archive, &mut self.gathered, end)?,
            OpenSegment::Compressed(segment) => {
                segment.write(&self.archive, &mut self.gathered, end)?;
            }
        }
        self.gathered_bytes = 0;
        self.progress.written(end);
        Ok(())
    }

    fn finish_segment(&mut self) -> Result<(), ArchiveError> {
        let Some((name, segment)) = self.current.take() else {
            return Ok(());
        };
        let (end, segment_name) = (self.position, name.file_name(self.archive.segment_size));
        let finished = match segment {
            OpenSegment::Plain(segment) => segment.finish(&self.archive, &segment_name, end)?,
            OpenSegment::Compressed(segment) => {
                segment.finish(&self.archive, &segment_name, end)?
            }
        };
        self.progress.flushed(end);
        self.finished.finished(FinishedFile {
            path: self.archive.path.join(finished),
            timeline: self.timeline,
            end_lsn: Some(end),
        });
        Ok(())
    }

    /// Writes and syncs everything taken.
    fn flush(&mut self) -> Result<(), ArchiveError> {
        self.write_gathered()?;
        let end = self.position;
        match &mut self.current {
            Some((_, OpenSegment::Plain(segment))) => segment.sync(&self.archive, end)?,
            Some((_, OpenSegment::Compressed(segment))) => segment.sync(&self.archive, end)?,
            None => {}
        }
        self.progress.flushed(end);
        Ok(())
    }

    fn keep_history_file(
        &self,
        timeline: TimelineId,
        content: &[u8],
    ) -> Result<PathBuf, ArchiveError> {
        let name = format!(
            "{:08X}.history{}",
            timeline.0,
            self.archive.compression.suffix()
        );
        let temporary = format!("{name}.tmp");
        let failed = |source| ArchiveError::History {
            name: name.clone(),
            source: Arc::new(source),
        };
        let content = compressed(self.archive.compression, content).map_err(failed)?;
        let path = self.archive.path.join(&temporary);
        let file = self.archive.storage.create(&path).map_err(failed)?;
        let slices = &mut [IoSlice::new(&content)];
        self.archive
            .write_all(&file, &temporary, slices, 0, self.position)?;
        self.archive.sync_file(&file, &temporary, self.position)?;
        self.archive.rename(&temporary, &name)?;
        self.archive.sync_names(self.position)?;
        Ok(self.archive.path.join(name))
    }

    /// Tells everyone who waits of a failure.
    fn publish<T>(&self, result: Result<T, ArchiveError>) -> Result<T, ArchiveError> {
        if let Err(error) = &result {
            self.progress.fail(error.clone().into());
        }
        result
    }

    fn check_alive(&self) -> Result<(), SinkError> {
        self.progress.failure().map_or(Ok(()), Err)
    }
}

impl<S: Storage> WalDestination for ArchiveSink<S> {
    async fn write(&mut self, lsn: Lsn, bytes: Bytes) -> Result<(), SinkError> {
        self.check_alive()?;
        let taken = self.take(lsn, bytes);
        Ok(self.publish(taken)?)
    }

    fn settle(&mut self) -> Result<(), SinkError> {
        self.check_alive()?;
        let settled = match self.archive.sync {
            ArchiveSync::AtOnce if self.progress.current().flush_lsn < self.position => {
                self.flush()
            }
            _ => self.write_gathered(),
        };
        Ok(self.publish(settled)?)
    }

    fn progress(&self) -> ProgressReceiver {
        self.progress.receiver()
    }

    fn flush_now(&mut self) -> Result<(), SinkError> {
        self.check_alive()?;
        let flushed = self.flush();
        Ok(self.publish(flushed)?)
    }

    /// A stream begins where a sink does.
    async fn restart_at(&mut self, lsn: Lsn) -> Result<(), SinkError> {
        if lsn == self.position {
            return Ok(());
        }
        Err(SinkError::Restart {
            requested: lsn,
            lowest: self.position,
            highest: self.position,
        })
    }

    /// Leaves the old timeline's segment under its partial name and goes on at the start of the switch point's segment,
    /// which the server sends from there on.
    async fn switch_timeline(
        &mut self,
        timeline: TimelineId,
        switch_point: Lsn,
    ) -> Result<(), SinkError> {
        self.check_alive()?;
        self.end_segment()?;
        self.timeline = timeline;
        self.position = switch_point.segment_start(self.archive.segment_size);
        // The new timeline's files hold nothing yet, whatever was flushed of the old one.
        self.progress = progress_from(timeline, self.position);
        Ok(())
    }

    async fn write_history_file(
        &mut self,
        timeline: TimelineId,
        content: Bytes,
    ) -> Result<(), SinkError> {
        self.check_alive()?;
        let kept = self.keep_history_file(timeline, &content);
        let path = self.publish(kept)?;
        self.finished.finished(FinishedFile {
            path,
            timeline,
            end_lsn: None,
        });
        Ok(())
    }

    async fn close(mut self) -> Result<Lsn, SinkError> {
        self.check_alive()?;
        self.end_segment()?;
        Ok(self.progress.current().flush_lsn)
    }
}

fn progress_from(timeline: TimelineId, start: Lsn) -> Arc<ProgressSender> {
    Arc::new(ProgressSender::new(SinkProgress {
        timeline,
        write_lsn: start,
        flush_lsn: start,
    }))
}

fn open_segment<S: Storage>(
    archive: &Archive<S>,
    name: SegmentName,
    lsn: Lsn,
) -> Result<OpenSegment<S::File>, ArchiveError> {
    let name = name.file_name(archive.segment_size);
    Ok(match archive.compression {
        Compression::None => OpenSegment::Plain(PlainSegment::open(archive, &name, lsn)?),
        _ => OpenSegment::Compressed(Box::new(CompressedSegment::open(archive, &name, lsn)?)),
    })
}

/// A small file's content, compressed as segments are.
fn compressed(compression: Compression, content: &[u8]) -> std::io::Result<Vec<u8>> {
    let Some((mut encoder, output)) = Encoder::new(compression)? else {
        return Ok(content.to_owned());
    };
    encoder.write_all(content)?;
    encoder.finish()?;
    Ok(output.swap(Vec::new()))
}
