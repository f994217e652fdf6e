//! [`SegmentReaders`]: segments that standbys read, and which segments there are.
//!
//! A file that somebody reads must not become another segment under him. So files are opened and given up under one lock:
//! a segment that is given up is not opened any more, and who gave it up is told whether somebody still has it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walstream::SegmentNumber;

/// Files that stay open though nobody reads them at the moment.
const MAX_OPEN: usize = 8;

#[derive(Debug)]
pub(super) struct SegmentReaders {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    oldest: SegmentNumber,
    open: BTreeMap<SegmentNumber, Arc<File>>,
}

impl SegmentReaders {
    /// Segments from `oldest` on are there.
    pub(super) const fn new(oldest: SegmentNumber) -> Self {
        Self {
            state: Mutex::new(State {
                oldest,
                open: BTreeMap::new(),
            }),
        }
    }

    pub(super) fn oldest(&self) -> SegmentNumber {
        self.lock().oldest
    }

    /// The open file of a segment, which is opened at most once; `None` when it was given up.
    pub(super) fn open(&self, number: SegmentNumber, path: &Path) -> io::Result<Option<Arc<File>>> {
        let mut state = self.lock();
        if number < state.oldest {
            return Ok(None);
        }
        if let Some(file) = state.open.get(&number) {
            return Ok(Some(Arc::clone(file)));
        }
        let file = Arc::new(File::open(path)?);
        if state.open.len() >= MAX_OPEN {
            // Standbys go forward: the oldest is the least likely to be needed again. Whoever reads it reads it on, but to
            // know that, it has to stay here.
            let unused = state
                .open
                .iter()
                .find(|(_, file)| Arc::strong_count(file) == 1);
            if let Some(number) = unused.map(|(number, _)| *number) {
                state.open.remove(&number);
            }
        }
        state.open.insert(number, Arc::clone(&file));
        Ok(Some(file))
    }

    /// The segment is going to be removed; gives whether nobody has it open.
    pub(super) fn give_up(&self, number: SegmentNumber) -> bool {
        let mut state = self.lock();
        state.oldest = state.oldest.max(number.next());
        state
            .open
            .remove(&number)
            .is_none_or(|file| Arc::strong_count(&file) == 1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_a_segment_keeps_it_from_being_recycled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        std::fs::write(&path, b"x").unwrap();
        let readers = SegmentReaders::new(SegmentNumber(1));
        let open = |number| readers.open(SegmentNumber(number), &path).unwrap();
        let (first, second) = (open(1).unwrap(), open(2).unwrap());
        assert!(Arc::ptr_eq(&first, &open(1).unwrap()));
        drop(second);
        for number in 3..20 {
            open(number).unwrap();
        }
        assert_eq!(readers.lock().open.len(), MAX_OPEN);
        assert!(!readers.give_up(SegmentNumber(1)), "it is being read");
        assert!(open(1).is_none(), "it was given up");
        assert!(readers.give_up(SegmentNumber(2)));
        assert_eq!(readers.oldest(), SegmentNumber(3));
    }
}
