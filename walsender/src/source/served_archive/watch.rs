//! [`Watch`]: what is known of an archive's end of WAL, and [`Watcher`], the thread that keeps it up to date.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use walstream::timeline::TimelineHistory;
use walstream::{Dialect, Lsn, SystemIdentifier, TimelineId};

use super::error::ServedArchiveError;
use super::wal_end::{WalEnd, WalEndFinder};
use super::{Inner, Timelines};
use crate::source::WalPosition;
use crate::source::archive::{Archive, ArchiveTimeline, Catalog, TimelineChoice};

/// What looks like damage may be a receiver that is writing; it is looked at again, so often and after this time.
pub(super) const LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A directory's time of change is as exact as the kernel's clock tick: a change right after a look may not show.
const CLOCK_TICK: Duration = Duration::from_millis(100);

/// What was found, and what has to be looked at again.
#[derive(Debug)]
pub(super) struct Watch {
    dialect: Dialect,
    system_identifier: SystemIdentifier,
    /// The newest timeline's, although WAL may not have come to it yet.
    view: ArchiveTimeline,
    end: WalEnd,
    /// When the directory was last changed, if that is known not to have changed again unseen.
    listed_at: Option<SystemTime>,
    /// Sizes of the last segment's files, if one of them is compressed.
    compressed_tail: Option<Vec<(String, u64)>>,
    /// Looks that have found the same damage.
    damaged: (Lsn, u32),
}

/// What an archive gives at first.
pub(super) struct First {
    pub(super) position: WalPosition,
    pub(super) timelines: Timelines,
}

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Watcher {
    _stop: mpsc::Sender<()>,
}

impl Watcher {
    pub(super) fn start(inner: Weak<Inner>, mut watch: Watch, interval: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let watching = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(interval) {
                let Some(inner) = inner.upgrade() else { return };
                if let Err(error) = watch.look(&inner) {
                    tracing::warn!("the archive cannot be looked at for more WAL: {error}");
                }
                #[cfg(test)]
                inner.looks.send_modify(|looks| *looks += 1);
            }
        };
        let named = thread::Builder::new().name("archive-watch".to_owned());
        if let Err(error) = named.spawn(watching) {
            tracing::error!(
                "no thread to watch the archive, so what is added is not served: {error}"
            );
        }
        Self { _stop: stop }
    }
}

impl Watch {
    /// Finds the end of WAL.
    pub(super) fn begin(
        archive: &Archive,
        dialect: Dialect,
        system_identifier: SystemIdentifier,
    ) -> Result<(Self, First), ServedArchiveError> {
        let mut look = 0;
        let (view, end) = loop {
            look += 1;
            let view = archive.timeline(TimelineChoice::Newest)?;
            match WalEndFinder::new(&view, dialect, system_identifier).find() {
                Ok(end) => break (view, end),
                Err(ServedArchiveError::Damaged { .. }) if look < LOOKS => {
                    thread::sleep(LOOK_AGAIN);
                    archive.refresh()?;
                }
                Err(error) => return Err(error),
            }
        };
        let mut files = BTreeMap::new();
        read_histories(archive, &archive.catalog(), &mut files)?;
        let timelines = Timelines {
            history: Arc::new(history_of(&view, &files, end.position.timeline)),
            files,
        };
        let first = First {
            position: end.position,
            timelines,
        };
        let watch = Self {
            dialect,
            system_identifier,
            view,
            end,
            listed_at: None,
            compressed_tail: None,
            damaged: (Lsn::INVALID, 0),
        };
        Ok((watch, first))
    }

    /// Looks for more.
    pub(super) fn look(&mut self, inner: &Inner) -> Result<(), ServedArchiveError> {
        let archive = &inner.archive;
        let changed_at = archive.changed_at();
        let mut files = inner.read_timelines().files.clone();
        if changed_at.is_none() || changed_at != self.listed_at {
            let settled = |at: &SystemTime| at.elapsed().is_ok_and(|passed| passed > CLOCK_TICK);
            self.listed_at = changed_at.filter(settled);
            let catalog = archive.refresh()?;
            read_histories(archive, &catalog, &mut files)?;
            // One that was unpacked has no path of its own; where its source has got longer, it is unpacked anew when more of
            // it is asked for.
            inner.segments.forget_unless(|name, file| {
                if file.is_copy() {
                    !catalog.candidates(name).is_empty()
                } else {
                    file.has_its_path()
                }
            });
        }
        let newest = archive.timeline(TimelineChoice::Newest)?;
        let is_new = newest.history() != self.view.history();
        if !is_new && !self.tail_may_have_grown(archive) {
            return Ok(());
        }
        if is_new && newest.history().ancestors().is_empty() {
            // A promotion writes a history, which will come.
            return Ok(());
        }
        let mut finder = WalEndFinder::new(&newest, self.dialect, self.system_identifier);
        let found = if is_new {
            finder.find()
        } else {
            finder.go_on(&self.end)
        };
        let end = match found {
            Ok(end) => end,
            // A timeline that has just begun.
            Err(ServedArchiveError::NoRecord { .. }) => return Ok(()),
            Err(error) => match error.valid_end() {
                Some(valid_end) => {
                    self.tell_of_damage(valid_end, &error);
                    return Ok(());
                }
                None => return Err(error),
            },
        };
        if is_new {
            // The new timeline's copy of the segment may still be written: until it is as long as what there was, that
            // stands, unless it was no part of the new history.
            let known = self.end.position;
            let switch_lsn = newest.history().switch_point(known.timeline);
            let was_part = switch_lsn.is_some_and(|switch_lsn| known.lsn <= switch_lsn);
            if was_part && end.position.lsn < known.lsn {
                return Ok(());
            }
            tracing::info!(
                timeline = %newest.history().timeline(),
                "the archive has a new timeline"
            );
            self.view = newest;
        }
        if end != self.end || is_new {
            self.end = end;
            self.publish(inner, files);
        }
        Ok(())
    }

    fn publish(&self, inner: &Inner, files: BTreeMap<TimelineId, Bytes>) {
        let position = self.end.position;
        let timelines = Timelines {
            history: Arc::new(history_of(&self.view, &files, position.timeline)),
            files,
        };
        let shared = inner.timelines.write();
        *shared.unwrap_or_else(PoisonError::into_inner) = timelines;
        inner.flushed.send_if_modified(|known| {
            let is_new = *known != position;
            *known = position;
            is_new
        });
    }

    /// A plain file is looked at where its WAL ends. A compressed one has to be unpacked for that, which is worth it only
    /// when its size has changed.
    fn tail_may_have_grown(&mut self, archive: &Archive) -> bool {
        let segment_size = self.dialect.segment_size;
        let number = self.end.position.lsn.segment_number(segment_size);
        let catalog = archive.catalog();
        let mut files = Vec::new();
        let mut any_compressed = false;
        for (segment, candidates) in catalog.segments() {
            if segment.number < number {
                continue;
            }
            for candidate in candidates {
                any_compressed |= candidate.compression.is_some();
                let size = archive.file_size(&candidate.name);
                files.push((candidate.name.clone(), size.unwrap_or(candidate.size)));
            }
        }
        let tail = any_compressed.then_some(files);
        let may_have = tail.is_none() || tail != self.compressed_tail;
        self.compressed_tail = tail;
        may_have
    }

    fn tell_of_damage(&mut self, valid_end: Lsn, error: &ServedArchiveError) {
        let (known, looks) = self.damaged;
        let looks = if known == valid_end { looks + 1 } else { 1 };
        self.damaged = (valid_end, looks);
        if looks == LOOKS {
            tracing::error!("no WAL is served from {valid_end} on: {error}");
        }
        // Another look is to be taken, whatever the sizes.
        self.compressed_tail = None;
    }
}

/// The history of the timeline that WAL has come to.
fn history_of(
    view: &ArchiveTimeline,
    files: &BTreeMap<TimelineId, Bytes>,
    timeline: TimelineId,
) -> TimelineHistory {
    if view.history().timeline() == timeline {
        return view.history().clone();
    }
    files
        .get(&timeline)
        .and_then(|content| TimelineHistory::parse(timeline, content).ok())
        .unwrap_or_else(|| TimelineHistory::without_ancestors(timeline))
}

/// Reads the history files that were not read before.
fn read_histories(
    archive: &Archive,
    catalog: &Catalog,
    files: &mut BTreeMap<TimelineId, Bytes>,
) -> Result<(), ServedArchiveError> {
    for timeline in catalog.timelines() {
        if !files.contains_key(&timeline)
            && !catalog.history_files(timeline).is_empty()
            && let Some(content) = archive.history(timeline)?
        {
            files.insert(timeline, Bytes::from(content));
        }
    }
    Ok(())
}
