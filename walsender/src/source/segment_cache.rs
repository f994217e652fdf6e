//! [`SegmentCache`]: open segment files, shared by all standbys of a source.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::OnceCell;
use walstream::wal::segment_name::SegmentName;

use super::piece::SegmentFile;

/// Files that stay open though no standby reads them at the moment.
const KEPT: usize = 16;

/// A segment file that is being made ready.
pub(crate) type Pending = Arc<OnceCell<Arc<SegmentFile>>>;

/// The open files of a source, by timeline and segment: each is opened once however many standbys follow. A file is
/// open for as long as a standby holds it, and the last few stay open beyond that.
#[derive(Debug, Default)]
pub(crate) struct SegmentCache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<SegmentName, Weak<SegmentFile>>,
    recent: VecDeque<(SegmentName, Arc<SegmentFile>)>,
    pending: HashMap<SegmentName, Pending>,
}

impl SegmentCache {
    /// The open file of this segment.
    pub(crate) fn find(&self, name: SegmentName) -> Option<Arc<SegmentFile>> {
        self.lock().open.get(&name)?.upgrade()
    }

    /// Takes a file that was just opened, and gives the one to use: another was faster, perhaps.
    pub(crate) fn insert(&self, name: SegmentName, file: Arc<SegmentFile>) -> Arc<SegmentFile> {
        let mut state = self.lock();
        state.pending.remove(&name);
        if let Some(found) = state.open.get(&name).and_then(Weak::upgrade) {
            return found;
        }
        state.open.insert(name, Arc::downgrade(&file));
        state.recent.push_back((name, Arc::clone(&file)));
        if state.recent.len() > KEPT {
            state.recent.pop_front();
        }
        state.open.retain(|_, file| file.strong_count() > 0);
        file
    }

    /// The place where all who need this segment wait until it is ready.
    pub(crate) fn pending(&self, name: SegmentName) -> Pending {
        Arc::clone(self.lock().pending.entry(name).or_default())
    }

    /// It cannot be made ready; whoever asks later tries again.
    pub(crate) fn end_pending(&self, name: SegmentName) {
        self.lock().pending.remove(&name);
    }

    /// Forgets the file of this segment, so that it is opened anew.
    pub(crate) fn forget(&self, name: SegmentName) {
        self.forget_unless(|other, _| other != name);
    }

    /// Forgets the files of which `is_current` says no. Who reads one of them reads it on.
    pub(crate) fn forget_unless(&self, is_current: impl Fn(SegmentName, &SegmentFile) -> bool) {
        let mut state = self.lock();
        state
            .open
            .retain(|name, file| file.upgrade().is_some_and(|file| is_current(*name, &file)));
        let open = std::mem::take(&mut state.open);
        state.recent.retain(|(name, _)| open.contains_key(name));
        state.open = open;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use walstream::{SegmentNumber, TimelineId};

    use super::*;

    fn name(number: u64) -> SegmentName {
        SegmentName {
            timeline: TimelineId(1),
            number: SegmentNumber(number),
        }
    }

    fn file() -> Arc<SegmentFile> {
        let file = tempfile::tempfile().unwrap();
        Arc::new(SegmentFile::new(file, String::new(), String::new()))
    }

    #[test]
    fn a_file_is_open_once_and_as_long_as_somebody_reads_it() {
        let cache = SegmentCache::default();
        let held = cache.insert(name(0), file());
        assert!(Arc::ptr_eq(&cache.insert(name(0), file()), &held));
        for number in 1..=KEPT as u64 + 1 {
            cache.insert(name(number), file());
        }
        assert!(cache.find(name(0)).is_some(), "it is held");
        assert!(cache.find(name(1)).is_none(), "it was the oldest");
        assert!(cache.find(name(2)).is_some(), "it is kept");
        cache.forget(name(0));
        assert!(cache.find(name(0)).is_none());
        cache.forget_unless(|other, _| other == name(5));
        assert!(cache.find(name(5)).is_some());
        assert!(cache.find(name(6)).is_none());
        assert_eq!(cache.lock().recent.len(), 1);
    }
}
