//! [`SegmentReaders`]: segments that standbys read, and which segments there are.
//!
//! A file must not become another segment under somebody who reads it. Nor after it was read: `sendfile` lends the pages of
//! the file to the socket, where they stay until the other side has them. So a segment that was ever opened here is removed,
//! not recycled, and counts as opened before it is. One that is given up is not opened any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walstream::SegmentNumber;

use crate::source::SegmentFile;

/// Files that stay open though nobody reads them at the moment.
const MAX_OPEN: usize = 8;

#[derive(Debug)]
pub(super) struct SegmentReaders {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    oldest: SegmentNumber,
    open: BTreeMap<SegmentNumber, Arc<SegmentFile>>,
    /// Those that were ever opened, of those that are there.
    opened: BTreeSet<SegmentNumber>,
}

impl SegmentReaders {
    /// Segments from `oldest` on are there.
    pub(super) const fn new(oldest: SegmentNumber) -> Self {
        Self {
            state: Mutex::new(State {
                oldest,
                open: BTreeMap::new(),
                opened: BTreeSet::new(),
            }),
        }
    }

    pub(super) fn oldest(&self) -> SegmentNumber {
        self.lock().oldest
    }

    /// The open file of a segment, which is opened with this where it is not open; `None` when it was given up.
    pub(super) fn open(
        &self,
        number: SegmentNumber,
        open: impl FnOnce() -> io::Result<SegmentFile>,
    ) -> io::Result<Option<Arc<SegmentFile>>> {
        {
            let mut state = self.lock();
            if number < state.oldest {
                return Ok(None);
            }
            if let Some(file) = state.open.get(&number) {
                return Ok(Some(Arc::clone(file)));
            }
            // From now on it is not recycled. Should it be removed meanwhile, opening it fails, or gives what it was.
            state.opened.insert(number);
        }
        let file = Arc::new(open()?);
        let mut state = self.lock();
        if number < state.oldest {
            return Ok(Some(file));
        }
        if let Some(found) = state.open.get(&number) {
            return Ok(Some(Arc::clone(found)));
        }
        if state.open.len() >= MAX_OPEN {
            // Standbys go forward: the oldest is the least likely to be needed again. Whoever reads it reads it on.
            state.open.pop_first();
        }
        state.open.insert(number, Arc::clone(&file));
        Ok(Some(file))
    }

    /// The segment is going to be removed; gives whether it may be recycled.
    pub(super) fn give_up(&self, number: SegmentNumber) -> bool {
        let mut state = self.lock();
        state.oldest = state.oldest.max(number.next());
        state.open.remove(&number);
        !state.opened.remove(&number)
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
    fn a_segment_that_was_read_is_not_recycled() {
        let readers = SegmentReaders::new(SegmentNumber(1));
        let file = || {
            let file = tempfile::tempfile()?;
            Ok(SegmentFile::new(file, String::new(), String::new()))
        };
        let open = |number| readers.open(SegmentNumber(number), file).unwrap();
        let first = open(1).unwrap();
        assert!(Arc::ptr_eq(&first, &open(1).unwrap()));
        for number in 3..20 {
            open(number).unwrap();
        }
        assert_eq!(readers.lock().open.len(), MAX_OPEN);
        assert!(!readers.give_up(SegmentNumber(1)), "it was opened");
        assert!(open(1).is_none(), "it was given up");
        assert!(readers.give_up(SegmentNumber(2)), "it was never opened");
        assert_eq!(readers.oldest(), SegmentNumber(3));
    }
}
