//! [`MirrorSource`]: a mirror as a source of WAL.
//!
//! What is served ends with the last whole record that is flushed. Half a record behind it is flushed and checked as far as
//! pages go, but its CRC cannot be: it may turn out to be damaged and be received again, or be no part of the history that
//! the upstream server goes on with. Nobody who follows must ever hold a byte that the mirror itself would take back. (A
//! cascading server of PostgreSQL sends what is flushed, and its standbys come back for what was wrong.)
//!
//! **Invariant:** bytes before the served end never change, in whichever file they are: the sink writes behind it, makes
//! files and never replaces one, and begins again at the last whole record at the earliest. So a file that was opened once
//! holds all that is ever read from it, and its bytes may go to a socket without being looked at.
//!
//! The mirror removes no WAL, unless it is replayed with `--keep-wal`; then it keeps what slots need.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use walsender::source::segment_cache::SegmentCache;
use walsender::source::{
    FilePiece, SegmentFile, SourceDescription, SourceError, SourceIdentity, StoredBackup, WalPiece,
    WalPosition, WalSource, oldest_segment,
};
use walstream::timeline::TimelineHistory;
use walstream::types::FullTransactionId;
use walstream::wal::segment_name::{SegmentName, WalFileName};
use walstream::{Lsn, SegmentSize, TimelineId};

use super::identity::identity;
use super::recent_wal::RecentWal;
use crate::mirror::flushed::TimelinePosition;
use crate::mirror::state::MirrorFacts;

/// A mirror that is received into, as a source.
#[derive(Debug)]
pub struct MirrorSource {
    pg_wal: PathBuf,
    segment_size: SegmentSize,
    identity: SourceIdentity,
    flushed: watch::Sender<WalPosition>,
    history: Mutex<Known>,
    recent: RecentWal,
    segments: SegmentCache,
    /// 0 before it is known.
    next_transaction: AtomicU64,
}

/// The history of the timeline that is served.
#[derive(Clone, Debug)]
struct Known {
    history: Arc<TimelineHistory>,
    /// Its file; `None` for the first timeline.
    content: Option<Bytes>,
}

impl MirrorSource {
    /// A mirror whose WAL is whole and flushed up to `end`, with about `memory` bytes for what comes. Reads small files.
    #[must_use]
    pub fn new(mirror: &Path, facts: &MirrorFacts, end: TimelinePosition, memory: usize) -> Self {
        let new = Self {
            pg_wal: mirror.join("pg_wal"),
            segment_size: facts.dialect.segment_size,
            identity: identity(mirror, facts),
            flushed: watch::Sender::new(WalPosition {
                timeline: end.timeline,
                lsn: end.lsn,
            }),
            history: Mutex::new(Known::without_ancestors(end.timeline)),
            recent: RecentWal::new(memory),
            segments: SegmentCache::default(),
            next_transaction: AtomicU64::new(0),
        };
        new.learn_history(end.timeline);
        new
    }

    /// The mirrored server's next transaction by the WAL that came, to be told before that WAL is served.
    pub fn know_next_transaction(&self, next: FullTransactionId) {
        self.next_transaction.fetch_max(next.0, Ordering::Relaxed);
    }

    /// WAL was checked and is about to be written.
    pub fn received(&self, start_lsn: Lsn, data: &Bytes) {
        self.recent.push(start_lsn, data);
    }

    /// Whole records up to here are flushed. Without news nothing happens; the position never goes back.
    pub fn flushed_up_to(&self, position: TimelinePosition) {
        let known = *self.flushed.borrow();
        let order = |timeline: TimelineId, lsn: Lsn| (timeline, lsn);
        if order(position.timeline, position.lsn) <= order(known.timeline, known.lsn) {
            return;
        }
        if position.timeline != known.timeline {
            // The mirror has the file since before it followed the switch.
            self.learn_history(position.timeline);
        }
        self.flushed.send_replace(WalPosition {
            timeline: position.timeline,
            lsn: position.lsn,
        });
    }

    /// The bytes that are in memory.
    #[must_use]
    pub const fn recent(&self) -> &RecentWal {
        &self.recent
    }

    fn learn_history(&self, timeline: TimelineId) {
        let content = self.read_history(timeline).ok().flatten();
        let parsed = content.as_ref().and_then(|content| {
            let history = TimelineHistory::parse(timeline, content).ok()?;
            Some(Arc::new(history))
        });
        let known = match parsed {
            Some(history) => Known { history, content },
            None => {
                if timeline.0 > 1 {
                    tracing::error!(
                        timeline = timeline.0,
                        "the timeline's history cannot be read from pg_wal: followers of earlier timelines are refused"
                    );
                }
                Known::without_ancestors(timeline)
            }
        };
        *self.known() = known;
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // No code that holds the lock can leave it half changed.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_history(&self, timeline: TimelineId) -> Result<Option<Bytes>, SourceError> {
        let name = WalFileName::History(timeline).file_name(self.segment_size);
        match std::fs::read(self.pg_wal.join(&name)) {
            Ok(content) => Ok(Some(Bytes::from(content))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SourceError::Unreadable {
                segment: name,
                reason: error.to_string(),
            }),
        }
    }

    /// The segment files that hold WAL of this timeline from `lsn` on, best first, each with the end up to which it does.
    ///
    /// # Source
    /// `WalSndSegmentOpen` in `src/backend/replication/walsender.c`: where the timeline was left within the segment, the
    /// next one's file holds its bytes, too.
    fn names(&self, timeline: TimelineId, lsn: Lsn) -> Vec<(SegmentName, Lsn)> {
        let number = lsn.segment_number(self.segment_size);
        let name = |timeline| SegmentName { timeline, number };
        let within = |switch_lsn: Lsn| switch_lsn.segment_number(self.segment_size) == number;
        let history = Arc::clone(&self.known().history);
        let mut names = Vec::with_capacity(2);
        if let (Some(switch_lsn), Some(next)) = (
            history.switch_point(timeline),
            history.next_timeline(timeline),
        ) && within(switch_lsn)
        {
            names.push((name(next), switch_lsn));
        }
        names.push((name(timeline), Lsn::MAX));
        if timeline == history.timeline()
            && let Some(parent) = history.parent()
            && within(parent.switch_lsn)
            && lsn < parent.switch_lsn
        {
            names.push((name(parent.timeline), parent.switch_lsn));
        }
        names
    }

    /// The segment's file, opened once for all who follow; `None` when there is none.
    fn open(&self, name: SegmentName) -> Result<Option<Arc<SegmentFile>>, SourceError> {
        if let Some(file) = self.segments.find(name) {
            return Ok(Some(file));
        }
        let segment = name.file_name(self.segment_size);
        let path = self.pg_wal.join(&segment);
        match File::open(&path) {
            Ok(file) => {
                let file = SegmentFile::new(file, segment, path.to_string_lossy().into_owned());
                Ok(Some(self.segments.insert(name, Arc::new(file))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SourceError::Unreadable {
                segment,
                reason: error.to_string(),
            }),
        }
    }
}

impl Known {
    fn without_ancestors(timeline: TimelineId) -> Self {
        Self {
            history: Arc::new(TimelineHistory::without_ancestors(timeline)),
            content: None,
        }
    }
}

impl WalSource for MirrorSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    fn flushed(&self) -> watch::Receiver<WalPosition> {
        self.flushed.subscribe()
    }

    fn read(&self, timeline: TimelineId, range: Range<Lsn>) -> Result<WalPiece, SourceError> {
        // What timelines have in common is the same bytes, and of one that was left nothing behind the switch is asked for.
        if let Some(bytes) = self.recent.read(&range) {
            return Ok(WalPiece::Memory(bytes));
        }
        let start = range.start;
        let segment_end = start
            .next_segment_start(self.segment_size)
            .unwrap_or(Lsn::MAX);
        for (name, limit) in self.names(timeline, start) {
            if let Some(file) = self.open(name)? {
                let end = range.end.min(segment_end).min(limit);
                let offset = start.segment_offset(self.segment_size);
                let piece = FilePiece::new(file, offset, end.saturating_sub(start));
                return Ok(WalPiece::File(piece));
            }
        }
        Err(SourceError::SegmentRemoved {
            name: SegmentName::at(timeline, start, self.segment_size).file_name(self.segment_size),
        })
    }

    fn timeline_history(&self, timeline: TimelineId) -> Result<Option<Bytes>, SourceError> {
        {
            let known = self.known();
            if known.history.timeline() == timeline && known.content.is_some() {
                return Ok(known.content.clone());
            }
        }
        self.read_history(timeline)
    }

    /// The start of the segment in which WAL ends: a mirror that removes WAL removes none so new, and nothing says where the primary's last
    /// checkpoint began.
    fn restart_lsn(&self) -> Lsn {
        let end = self.flushed.borrow().lsn;
        end.segment_start(self.segment_size)
    }

    fn description(&self) -> SourceDescription {
        let mirror = self.pg_wal.parent().unwrap_or(&self.pg_wal);
        SourceDescription {
            kind: "mirror",
            place: mirror.display().to_string(),
        }
    }

    /// By all WAL that was received, so it is never behind that of a follower. `None` before a checkpoint told it.
    fn next_transaction(&self) -> Option<FullTransactionId> {
        let next = self.next_transaction.load(Ordering::Relaxed);
        (next > 0).then_some(FullTransactionId(next))
    }

    fn oldest_lsn(&self) -> Option<Lsn> {
        oldest_segment(&self.pg_wal, self.segment_size).ok()?
    }

    /// A mirror's files are as of its backup, without the WAL since.
    fn base_backup(&self) -> Result<Option<StoredBackup>, SourceError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use walstream::{Dialect, PgMajor, SystemIdentifier};

    use super::*;

    const SEGMENT: u64 = 16 << 20;

    fn at(timeline: u32, lsn: u64) -> TimelinePosition {
        TimelinePosition {
            timeline: TimelineId(timeline),
            lsn: Lsn(lsn),
        }
    }

    /// A mirror whose WAL begins with segment 1 and is flushed up to 32 bytes into segment 2. Of each segment the bytes are
    /// its file's timeline.
    fn mirror(directory: &Path, segments: &[(u32, u64)], end: TimelinePosition) -> MirrorSource {
        let pg_wal = directory.join("pg_wal");
        std::fs::create_dir(&pg_wal).unwrap();
        for (timeline, number) in segments {
            let name = format!("{timeline:08X}00000000{number:08X}");
            std::fs::write(
                pg_wal.join(name),
                vec![u8::try_from(*timeline).unwrap(); 64],
            )
            .unwrap();
        }
        let facts = MirrorFacts {
            system_identifier: SystemIdentifier(7),
            server_version_num: 150_018,
            dialect: Dialect::with_default_sizes(PgMajor::V15),
            start: at(1, SEGMENT),
            consistent_lsn: Lsn(SEGMENT),
            slot: None,
            primary: String::new(),
            tablespaces: BTreeMap::new(),
        };
        MirrorSource::new(directory, &facts, end, 1 << 20)
    }

    /// The timeline of the file, the offset and the length, or none where it comes from memory.
    fn file_of(piece: &WalPiece) -> Option<(String, u64, u64)> {
        let WalPiece::File(piece) = piece else {
            return None;
        };
        let timeline = piece.file().segment()[..8].to_owned();
        Some((timeline, piece.offset(), piece.length()))
    }

    #[test]
    fn old_wal_is_read_from_files_and_new_from_memory() {
        let dir = tempfile::tempdir().unwrap();
        let source = mirror(dir.path(), &[(1, 1), (1, 2)], at(1, 2 * SEGMENT + 32));
        let one = TimelineId(1);
        let start = Lsn(2 * SEGMENT + 32);
        source.received(start, &Bytes::from(vec![9; 32]));
        let read = |from: u64, to: u64| source.read(one, Lsn(from)..Lsn(to));
        let file =
            |timeline: u32, offset, length| Some((format!("{timeline:08X}"), offset, length));
        // Not beyond a segment's end.
        let piece = read(2 * SEGMENT - 10, 2 * SEGMENT + 10).unwrap();
        assert_eq!(file_of(&piece), file(1, SEGMENT - 10, 10));
        assert_eq!(
            file_of(&read(2 * SEGMENT, 2 * SEGMENT + 40).unwrap()),
            file(1, 0, 40)
        );
        assert_eq!(file_of(&read(start.0, start.0 + 8).unwrap()), None);
        let gone = read(0, 10).unwrap_err();
        assert_eq!(
            gone.to_string(),
            "requested WAL segment 000000010000000000000000 has already been removed"
        );
        // What is received is served once it is said to be flushed, which does not go back.
        let flushed = source.flushed();
        assert_eq!(flushed.borrow().lsn, start);
        source.flushed_up_to(at(1, start.0 + 16));
        source.flushed_up_to(at(1, start.0));
        assert_eq!(flushed.borrow().lsn, start + 16);
    }

    #[test]
    fn a_left_timeline_is_read_from_the_next_ones_file() {
        let dir = tempfile::tempdir().unwrap();
        let segments = [(1, 1), (1, 2), (2, 2), (2, 3)];
        let source = mirror(dir.path(), &segments, at(1, 2 * SEGMENT + 32));
        let (one, two) = (TimelineId(1), TimelineId(2));
        let range = Lsn(2 * SEGMENT)..Lsn(2 * SEGMENT + 20);
        let timeline = |piece: &WalPiece| file_of(piece).map(|(timeline, _, _)| timeline);
        assert_eq!(
            timeline(&source.read(one, range.clone()).unwrap()).unwrap(),
            "00000001"
        );
        assert_eq!(source.timeline_history(two), Ok(None));
        std::fs::write(
            dir.path().join("pg_wal/00000002.history"),
            format!("1\t{}\tpromoted\n", Lsn(2 * SEGMENT + 32)),
        )
        .unwrap();
        source.flushed_up_to(at(2, 2 * SEGMENT + 32));
        assert_eq!(source.flushed().borrow().timeline, two);
        assert!(source.timeline_history(two).unwrap().is_some());
        for (timeline_asked, found) in [(one, "00000002"), (two, "00000002")] {
            let piece = source.read(timeline_asked, range.clone()).unwrap();
            assert_eq!(timeline(&piece).unwrap(), found);
        }
        let before = Lsn(SEGMENT)..Lsn(SEGMENT + 20);
        assert_eq!(
            timeline(&source.read(one, before).unwrap()).unwrap(),
            "00000001"
        );
    }

    #[test]
    fn a_mirror_is_a_standby_of_its_own_version() {
        let dir = tempfile::tempdir().unwrap();
        let source = mirror(dir.path(), &[], at(1, SEGMENT));
        let identity = source.identity();
        assert_eq!(identity.server_version_num, 150_018);
        assert_eq!(identity.settings["server_version"], "15.18");
        assert_eq!(identity.settings["transaction_read_only"], "on");
        let in_hot_standby = ("in_hot_standby".to_owned(), "on".to_owned());
        assert!(identity.parameter_status.contains(&in_hot_standby));
        assert_eq!(source.base_backup(), Ok(None));
    }
}
