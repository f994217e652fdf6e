//! [`ServedArchive`]: an archive of WAL as a source, also while a receiver fills it.
//!
//! What it says of the server comes from the first page of a segment. WAL ends with the last whole record of the newest
//! timeline; a thread looks every second how far that is. A timeline that appears is followed as soon as its history's
//! WAL is there up to where it began, and standbys switch as a promoted server's do.
//!
//! Plain segments go to standbys from their files. Compressed ones, and those of object stores, are unpacked into a
//! temporary file, once however many standbys follow; it is gone when the last has passed it. Which of several files of a
//! segment is taken, `source::archive` says.
//!
//! A timeline that was left within a segment is read from the next timeline's file, as PostgreSQL does, where that is
//! known to hold it, and else from its own.
//!
//! It keeps nothing for slots: whoever removes files from the archive decides how far behind a standby may be.
//!
//! | module | what |
//! |---|---|
//! | `identity` | the server that the WAL is of |
//! | `wal_end` | where the WAL ends |
//! | `watch` | the thread that looks for more |
//! | `segment_file` | segments as files to send |

mod error;
mod identity;
mod segment_file;
#[cfg(test)]
mod tests;
mod wal_end;
mod watch;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch::{Receiver, Sender};
use walstream::timeline::TimelineHistory;
use walstream::wal::segment_name::SegmentName;
use walstream::{Dialect, Lsn, PageSize, TimelineId};

pub use error::ServedArchiveError;
pub(super) use identity::of_version as identity_of_version;

use super::archive::{Archive, ArchiveLocation, ArchiveOptions};
use super::segment_cache::SegmentCache;
use super::{
    FilePiece, LaterPiece, SegmentFile, SourceDescription, SourceError, SourceIdentity,
    StoredBackup, WalPiece, WalPosition, WalSource,
};
use watch::{Watch, Watcher};

/// How an archive is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServeOptions {
    /// How often to look for more WAL; `None` for every second in a directory, and every ten in an object store, which has
    /// to be listed for it.
    pub poll_interval: Option<Duration>,
}

const POLL_DIRECTORY: Duration = Duration::from_secs(1);
const POLL_STORE: Duration = Duration::from_secs(10);

/// An archive as a source of WAL.
#[derive(Debug)]
pub struct ServedArchive {
    inner: Arc<Inner>,
    /// Ends with this.
    _watcher: Watcher,
}

#[derive(Debug)]
struct Inner {
    archive: Archive,
    dialect: Dialect,
    identity: SourceIdentity,
    flushed: Sender<WalPosition>,
    timelines: RwLock<Timelines>,
    segments: SegmentCache,
    /// How often it was looked for more.
    #[cfg(test)]
    looks: Sender<u64>,
}

/// What is known of timelines.
#[derive(Debug)]
struct Timelines {
    /// Of the timeline that WAL ends on.
    history: Arc<TimelineHistory>,
    /// Content of every history file.
    files: BTreeMap<TimelineId, Bytes>,
}

impl ServedArchive {
    /// Opens an archive, finds its end of WAL and begins to watch it. Blocks; not to be called within an async runtime.
    ///
    /// # Errors
    /// [`ServedArchiveError`]: it cannot be read, is empty, or its newest WAL is damaged.
    pub fn open(
        location: &ArchiveLocation,
        options: ServeOptions,
    ) -> Result<Self, ServedArchiveError> {
        Self::new(
            Archive::open(location, &ArchiveOptions::default())?,
            options,
        )
    }

    /// As [`open`](Self::open), of an archive that is open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn new(archive: Archive, options: ServeOptions) -> Result<Self, ServedArchiveError> {
        let place = archive.place_name();
        let Some(header) = archive.header().copied() else {
            return Err(ServedArchiveError::NoHeader { place });
        };
        let dialect = header
            .dialect(PageSize::DEFAULT)
            .map_err(|source| ServedArchiveError::Dialect { place, source })?;
        let by_place = match archive.changed_at() {
            Some(_) => POLL_DIRECTORY,
            None => POLL_STORE,
        };
        let poll_interval = options.poll_interval.unwrap_or(by_place);
        let (watch, first) = Watch::begin(&archive, dialect, header.system_identifier)?;
        let inner = Arc::new(Inner {
            identity: identity::identity(&header, &dialect),
            dialect,
            flushed: Sender::new(first.position),
            timelines: RwLock::new(first.timelines),
            segments: SegmentCache::default(),
            #[cfg(test)]
            looks: Sender::new(0),
            archive,
        });
        Ok(Self {
            _watcher: Watcher::start(Arc::downgrade(&inner), watch, poll_interval),
            inner,
        })
    }

    /// How far its WAL goes.
    #[must_use]
    pub fn wal_end(&self) -> WalPosition {
        *self.inner.flushed.borrow()
    }
}

impl Inner {
    /// The names of the segment's files that hold WAL of this timeline from `lsn` on, best first, each with the end up to
    /// which it does.
    ///
    /// # Source
    /// `WalSndSegmentOpen` in `src/backend/replication/walsender.c`.
    fn names(&self, timeline: TimelineId, lsn: Lsn) -> Vec<(SegmentName, Lsn)> {
        let segment_size = self.dialect.segment_size;
        let number = lsn.segment_number(segment_size);
        let name = |timeline| SegmentName { timeline, number };
        let own = (name(timeline), Lsn::MAX);
        let end = *self.flushed.borrow();
        let history = Arc::clone(&self.read_timelines().history);
        let within = |switch_lsn: Lsn| switch_lsn.segment_number(segment_size) == number;
        if let Some(switch_lsn) = history.switch_point(timeline)
            && within(switch_lsn)
            && let Some(next) = history.next_timeline(timeline)
        {
            // Until there is more than the copy of its parent's WAL in it, it may still be written.
            let next_is_whole = next != end.timeline || end.lsn > switch_lsn;
            let next = (name(next), switch_lsn);
            return if next_is_whole {
                vec![next, own]
            } else {
                vec![own, next]
            };
        }
        if timeline == history.timeline()
            && let Some(parent) = history.parent()
            && within(parent.switch_lsn)
            && lsn < parent.switch_lsn
        {
            // The timeline's file begins with a copy of its parent's.
            let parent_file = (name(parent.timeline), parent.switch_lsn);
            return if end.lsn > parent.switch_lsn {
                vec![own, parent_file]
            } else {
                vec![parent_file, own]
            };
        }
        vec![own]
    }

    fn read_timelines(&self) -> std::sync::RwLockReadGuard<'_, Timelines> {
        // No code that holds the lock can leave it half changed.
        self.timelines
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment where it is at hand; `Ok(None)` when it has to be made ready, or is not there.
    fn at_hand(
        &self,
        name: SegmentName,
        needed: u64,
    ) -> Result<Option<Arc<SegmentFile>>, SourceError> {
        if let Some(found) = self.segments.find(name) {
            if found.usable_length() >= needed {
                return Ok(Some(found));
            }
            // It was unpacked, or opened, when it was shorter.
            self.segments.forget(name);
        }
        let opened = segment_file::open_plain(&self.archive, name)?;
        Ok(opened.map(|file| self.segments.insert(name, Arc::new(file))))
    }

    /// The segment, made ready where that is necessary; `None` when it is not there.
    async fn prepared(
        self: Arc<Self>,
        name: SegmentName,
    ) -> Result<Option<Arc<SegmentFile>>, SourceError> {
        let pending = self.segments.pending(name);
        let inner = Arc::clone(&self);
        let segment_size = self.dialect.segment_size;
        // Before it is read: what comes meanwhile may not be in it.
        let end = self.flushed.borrow().lsn;
        let prepared = pending
            .get_or_try_init(|| async move {
                let opening = tokio::task::spawn_blocking(move || {
                    let file = segment_file::open_any(&inner.archive, name, end)?;
                    file.map(|file| inner.segments.insert(name, Arc::new(file)))
                        .ok_or_else(|| segment_file::removed(&inner.archive, name))
                });
                opening.await.unwrap_or_else(|error| {
                    Err(SourceError::Unreadable {
                        segment: name.file_name(segment_size),
                        reason: error.to_string(),
                    })
                })
            })
            .await;
        match prepared {
            Ok(file) => Ok(Some(Arc::clone(file))),
            Err(error) => {
                self.segments.end_pending(name);
                match error {
                    SourceError::SegmentRemoved { .. } => Ok(None),
                    error => Err(error),
                }
            }
        }
    }

    fn piece(&self, file: Arc<SegmentFile>, start: Lsn, end: Lsn) -> WalPiece {
        let offset = start.segment_offset(self.dialect.segment_size);
        WalPiece::File(FilePiece::new(file, offset, end.saturating_sub(start)))
    }
}

impl WalSource for ServedArchive {
    fn identity(&self) -> &SourceIdentity {
        &self.inner.identity
    }

    fn flushed(&self) -> Receiver<WalPosition> {
        self.inner.flushed.subscribe()
    }

    fn read(&self, timeline: TimelineId, range: Range<Lsn>) -> Result<WalPiece, SourceError> {
        let segment_size = self.inner.dialect.segment_size;
        let start = range.start;
        let segment_end = start.next_segment_start(segment_size).unwrap_or(Lsn::MAX);
        let names = self.inner.names(timeline, start);
        let end_in = move |limit: Lsn| range.end.min(segment_end).min(limit);
        let catalog = self.inner.archive.catalog();
        for (name, limit) in &names {
            let end = end_in(*limit);
            let needed = start
                .segment_offset(segment_size)
                .saturating_add(end.saturating_sub(start));
            if let Some(file) = self.inner.at_hand(*name, needed)? {
                return Ok(self.inner.piece(file, start, end));
            }
            if !catalog.candidates(*name).is_empty() {
                // Not a plain file of this machine.
                break;
            }
        }
        let inner = Arc::clone(&self.inner);
        Ok(WalPiece::Later(LaterPiece::new(async move {
            for (name, limit) in &names {
                if let Some(file) = Arc::clone(&inner).prepared(*name).await? {
                    return Ok(inner.piece(file, start, end_in(*limit)));
                }
            }
            let first = names.first().map(|(name, _)| *name);
            let fallback = SegmentName::at(timeline, start, segment_size);
            Err(segment_file::removed(
                &inner.archive,
                first.unwrap_or(fallback),
            ))
        })))
    }

    fn timeline_history(&self, timeline: TimelineId) -> Result<Option<Bytes>, SourceError> {
        Ok(self.inner.read_timelines().files.get(&timeline).cloned())
    }

    /// The start of the segment in which WAL ends: nothing says where the last checkpoint began.
    fn restart_lsn(&self) -> Lsn {
        let end = self.inner.flushed.borrow().lsn;
        end.segment_start(self.inner.dialect.segment_size)
    }

    fn description(&self) -> SourceDescription {
        SourceDescription {
            kind: "archive",
            place: self.inner.archive.place_name(),
        }
    }

    fn oldest_lsn(&self) -> Option<Lsn> {
        let segment_size = self.inner.dialect.segment_size;
        let catalog = self.inner.archive.catalog();
        let numbers = catalog.segments().map(|(segment, _)| segment.number);
        numbers.min()?.start_lsn(segment_size)
    }

    fn base_backup(&self) -> Result<Option<StoredBackup>, SourceError> {
        Ok(None)
    }
}
