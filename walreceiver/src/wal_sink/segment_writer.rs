//! [`SegmentWriter`]: puts received bytes where they belong, one segment after another.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use walstream::lsn::{Lsn, SegmentNumber};
use walstream::types::TimelineId;
use walstream::wal::segment_name::SegmentName;

use super::segment_file::{CHUNK, Prefix, SegmentDirectory};
use super::syncer::{DirtySegments, MAX_DIRTY_SEGMENTS, sync_failed};
use super::{Preallocation, ProgressSender, SinkError, Storage};

/// How many buffers one write takes at most.
const BUFFERS_PER_WRITE: usize = 32;

struct OpenSegment<F> {
    file: Arc<F>,
    path: PathBuf,
    number: SegmentNumber,
}

/// Writes WAL into segments. It blocks, and belongs to one thread.
///
/// `position` is where the next byte comes from the stream; `held` is the end of the WAL that is here. Bytes between them
/// are compared with what is here, and never written again.
pub(super) struct SegmentWriter<S: Storage> {
    directory: SegmentDirectory<S>,
    dirty: Arc<DirtySegments<S>>,
    progress: Arc<ProgressSender>,
    timeline: TimelineId,
    position: Lsn,
    held: Lsn,
    current: Option<OpenSegment<S::File>>,
    preallocation: Preallocation,
    compared: Vec<u8>,
}

impl<S: Storage> SegmentWriter<S> {
    /// Makes everything before `position` durable and gets ready to write there.
    pub(super) fn open(
        directory: SegmentDirectory<S>,
        dirty: Arc<DirtySegments<S>>,
        progress: Arc<ProgressSender>,
        timeline: TimelineId,
        position: Lsn,
        preallocation: Preallocation,
    ) -> Result<Self, SinkError> {
        let mut writer = Self {
            directory,
            dirty,
            progress,
            timeline,
            position,
            held: position,
            current: None,
            preallocation,
            compared: Vec::new(),
        };
        writer.directory.remove_temporary_files(position)?;
        writer.make_held_wal_durable()?;
        if position.segment_offset(writer.directory.segment_size) != 0 {
            let number = position.segment_number(writer.directory.segment_size);
            let path = writer.directory.segment_path(timeline, number);
            let Some(file) = writer.directory.open(&path, position)? else {
                return Err(SinkError::MissingSegment {
                    file: path,
                    lsn: position,
                });
            };
            writer.begin(file, path, number)?;
        }
        Ok(writer)
    }

    /// Writes the buffers, which follow one another from `position` on, and takes them out of the queue.
    pub(super) fn write(&mut self, buffers: &mut VecDeque<Bytes>) -> Result<(), SinkError> {
        while let Some(first) = buffers.front_mut() {
            if first.is_empty() {
                buffers.pop_front();
                continue;
            }
            if self.position < self.held {
                let length = self.room_until(self.held).min(first.len());
                let bytes = first.split_to(length);
                self.compare(&bytes)?;
                self.position = self.after(length);
                continue;
            }
            let written = self.write_some(buffers)?;
            self.held = self.after(written);
            self.position = self.held;
            advance(buffers, written);
            let sealed = self.position.segment_offset(self.directory.segment_size) == 0;
            self.dirty.written(self.position, sealed);
            if sealed {
                self.current = None;
            }
        }
        Ok(())
    }

    /// Lets the stream begin again at `lsn`, from which on the WAL is already here.
    pub(super) fn restart_at(&mut self, lsn: Lsn) {
        self.position = lsn;
    }

    /// Makes the old timeline durable and goes on at the switch point in a segment of the new one, which begins with
    /// the old one's bytes.
    pub(super) fn switch_timeline(&mut self, timeline: TimelineId) -> Result<(), SinkError> {
        let switch_point = self.held;
        self.dirty.drain()?;
        let length = switch_point.segment_offset(self.directory.segment_size);
        self.timeline = timeline;
        if length > 0 {
            let old = self.current.take().ok_or(SinkError::Closed)?;
            self.dirty.written(switch_point, true);
            let path = self.directory.segment_path(timeline, old.number);
            let file = match self.directory.open(&path, switch_point)? {
                Some(file) => file,
                None => {
                    let prefix = Prefix {
                        file: &*old.file,
                        path: &old.path,
                        length,
                    };
                    self.directory
                        .create(&path, switch_point, self.preallocation, Some(&prefix))?
                }
            };
            self.begin(file, path, old.number)?;
            self.dirty.drain()?;
        }
        self.position = switch_point;
        self.progress.timeline(timeline);
        Ok(())
    }

    /// Writes a timeline history file; it is whole and durable when this returns.
    pub(super) fn write_history_file(
        &self,
        timeline: TimelineId,
        content: &[u8],
    ) -> Result<(), SinkError> {
        let path = self
            .directory
            .path
            .join(format!("{:08X}.history", timeline.0));
        self.directory.write_file(&path, content, self.position)
    }

    /// Rewrites and syncs the segments in which a process that was killed may have left unsynced WAL.
    fn make_held_wal_durable(&self) -> Result<(), SinkError> {
        let segment_size = self.directory.segment_size;
        let last = self.held.prev_segment_number(segment_size).0;
        let first = last.saturating_sub(MAX_DIRTY_SEGMENTS as u64);
        let mut segments = self.directory.segments(self.held)?;
        segments.retain(|name| {
            name.timeline <= self.timeline && (first..=last).contains(&name.number.0)
        });
        segments.sort_by_key(|name| (name.number, name.timeline));
        for SegmentName { timeline, number } in segments {
            let path = self.directory.segment_path(timeline, number);
            let start = number.start_lsn(segment_size).unwrap_or(Lsn::MAX);
            let length = self
                .held
                .0
                .saturating_sub(start.0)
                .min(segment_size.bytes());
            if let Some(file) = self.directory.open(&path, self.held)? {
                self.directory.rewrite(&file, &path, length, self.held)?;
            }
        }
        self.directory
            .storage
            .sync_directory(&self.directory.path)
            .map_err(|source| sync_failed(&self.directory.path, self.held, source))
    }

    /// Writes as much as one call takes, no further than the segment's end.
    fn write_some(&mut self, buffers: &VecDeque<Bytes>) -> Result<usize, SinkError> {
        self.open_current()?;
        let mut room = self.room_until(Lsn::MAX);
        let mut slices = [IoSlice::new(&[]); BUFFERS_PER_WRITE];
        let mut count = 0;
        for (slice, buffer) in slices.iter_mut().zip(buffers) {
            let length = buffer.len().min(room);
            *slice = IoSlice::new(buffer.get(..length).unwrap_or_default());
            room -= length;
            count += 1;
            if room == 0 {
                break;
            }
        }
        let segment = self.current.as_ref().ok_or(SinkError::Closed)?;
        let offset = self.position.segment_offset(self.directory.segment_size);
        let slices = slices.get(..count).unwrap_or_default();
        self.directory
            .write_some(&segment.file, &segment.path, slices, offset, self.position)
    }

    /// Compares bytes of the stream with those that are here.
    fn compare(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let segment_size = self.directory.segment_size;
        // WAL is held past the position, so the segment of both is open.
        let segment = self.current.as_ref().ok_or(SinkError::Closed)?;
        let mut offset = self.position.segment_offset(segment_size);
        let mut lsn = self.position;
        for piece in bytes.chunks(CHUNK) {
            self.compared.resize(piece.len(), 0);
            self.directory.read_exact(
                &segment.file,
                &segment.path,
                &mut self.compared,
                offset,
                lsn,
            )?;
            if piece != self.compared {
                let mut pairs = piece.iter().zip(&self.compared);
                let at = pairs
                    .position(|(sent, held)| sent != held)
                    .unwrap_or_default();
                return Err(SinkError::Differs {
                    file: segment.path.clone(),
                    lsn: Lsn(lsn.0.saturating_add(at as u64)),
                });
            }
            offset += piece.len() as u64;
            lsn = Lsn(lsn.0.saturating_add(piece.len() as u64));
        }
        Ok(())
    }

    /// Has the segment of the write position open, making it when it is not there.
    fn open_current(&mut self) -> Result<(), SinkError> {
        if self.current.is_some() {
            return Ok(());
        }
        let number = self.position.segment_number(self.directory.segment_size);
        let path = self.directory.segment_path(self.timeline, number);
        let file = match self.directory.open(&path, self.position)? {
            Some(file) => file,
            None => self
                .directory
                .create(&path, self.position, self.preallocation, None)?,
        };
        self.begin(file, path, number)
    }

    fn begin(
        &mut self,
        file: S::File,
        path: PathBuf,
        number: SegmentNumber,
    ) -> Result<(), SinkError> {
        let file = Arc::new(file);
        self.dirty
            .begin(Arc::clone(&file), path.clone(), self.held)?;
        self.current = Some(OpenSegment { file, path, number });
        Ok(())
    }

    /// Bytes from the position to the end of its segment, but not past `end`.
    fn room_until(&self, end: Lsn) -> usize {
        let segment_size = self.directory.segment_size;
        let room = segment_size.bytes() - self.position.segment_offset(segment_size);
        usize::try_from(room.min(end.0.saturating_sub(self.position.0))).unwrap_or(usize::MAX)
    }

    fn after(&self, length: usize) -> Lsn {
        Lsn(self.position.0.saturating_add(length as u64))
    }
}

/// Takes the first `count` bytes out of the queue.
fn advance(buffers: &mut VecDeque<Bytes>, mut count: usize) {
    while let Some(first) = buffers.front_mut() {
        if first.len() > count {
            first.advance(count);
            return;
        }
        count -= first.len();
        buffers.pop_front();
    }
}
