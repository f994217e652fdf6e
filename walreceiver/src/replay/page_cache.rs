//! [`PageCache`]: pages in memory, so many and no more, and which of them are newer than their files.
//!
//! It reads and writes nothing. When it is full, the hand of a clock goes round the pages: one that was used since the last time
//! is passed over once, the next that was not is given up; its owner writes it first if it changed.

use std::collections::HashMap;

use walstream::types::BlockNumber;

use super::key_hasher::KeyHashing;
use super::relation_files::ForkId;

/// Which page: a fork's number and the block's, in one word that sorts as files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PageKey(u64);

impl PageKey {
    pub(super) fn new(fork: ForkId, block: BlockNumber) -> Self {
        Self(u64::from(fork.0) << 32 | u64::from(block))
    }

    pub(super) fn fork(self) -> ForkId {
        ForkId(u32::try_from(self.0 >> 32).unwrap_or(u32::MAX))
    }

    pub(super) fn block(self) -> BlockNumber {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }
}

/// Place of a page in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameId(u32);

#[derive(Clone, Copy, Debug)]
struct Frame {
    key: PageKey,
    state: FrameState,
    /// Used since the hand last came by.
    used: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameState {
    Free,
    Clean,
    Dirty,
}

#[derive(Debug)]
pub(super) struct PageCache {
    block_size: usize,
    /// Memory of all frames. It is reserved at once, and the system gives it as it is first used.
    arena: Vec<u8>,
    frames: Vec<Frame>,
    capacity: usize,
    table: HashMap<PageKey, FrameId, KeyHashing>,
    free: Vec<FrameId>,
    hand: usize,
    dirty: usize,
}

impl PageCache {
    /// The least number of pages that a cache may have: a record references at most 33, and a few more are wanted beside it.
    pub(super) const LEAST_PAGES: usize = 64;

    /// A cache of so many bytes of pages, rounded to whole ones.
    pub(super) fn new(bytes: usize, block_size: usize) -> Self {
        let capacity = (bytes / block_size.max(1)).max(Self::LEAST_PAGES);
        Self {
            block_size,
            arena: vec![0; capacity.saturating_mul(block_size)],
            frames: Vec::new(),
            capacity,
            table: HashMap::default(),
            free: Vec::new(),
            hand: 0,
            dirty: 0,
        }
    }

    /// The page, if it is here.
    pub(super) fn find(&mut self, key: PageKey) -> Option<FrameId> {
        let id = *self.table.get(&key)?;
        if let Some(frame) = self.frame_mut(id) {
            frame.used = true;
        }
        Some(id)
    }

    /// The page, if it is here, without counting as a use.
    pub(super) fn peek_dirty(&self, key: PageKey) -> Option<FrameId> {
        let id = *self.table.get(&key)?;
        self.is_dirty(id).then_some(id)
    }

    /// A frame for another page. When it [`is_dirty`](Self::is_dirty) it is to be written before it is [`claim`](Self::claim)ed.
    pub(super) fn victim(&mut self) -> FrameId {
        if let Some(id) = self.free.pop() {
            return id;
        }
        if self.frames.len() < self.capacity {
            self.frames.push(Frame {
                key: PageKey(u64::MAX),
                state: FrameState::Free,
                used: false,
            });
            return FrameId(u32::try_from(self.frames.len() - 1).unwrap_or(u32::MAX));
        }
        loop {
            if self.hand >= self.frames.len() {
                self.hand = 0;
            }
            let id = FrameId(u32::try_from(self.hand).unwrap_or(u32::MAX));
            self.hand += 1;
            match self.frame_mut(id) {
                Some(frame) if frame.used => frame.used = false,
                _ => return id,
            }
        }
    }

    /// Makes the frame hold this page, whose bytes are then the caller's to set.
    pub(super) fn claim(&mut self, id: FrameId, key: PageKey) {
        self.clean(id);
        let Some(frame) = self.frame_mut(id) else {
            return;
        };
        let before = frame.key;
        let was_free = frame.state == FrameState::Free;
        *frame = Frame {
            key,
            state: FrameState::Clean,
            used: true,
        };
        if !was_free {
            self.table.remove(&before);
        }
        self.table.insert(key, id);
    }

    /// Gives up a frame, that holds a page or was got as a victim.
    pub(super) fn release(&mut self, id: FrameId) {
        self.clean(id);
        if let Some(frame) = self.frame_mut(id)
            && frame.state != FrameState::Free
        {
            frame.state = FrameState::Free;
            frame.used = false;
            let key = frame.key;
            self.table.remove(&key);
        }
        self.free.push(id);
    }

    /// The page's bytes.
    pub(super) fn bytes(&self, id: FrameId) -> &[u8] {
        let start = to_usize(id.0).saturating_mul(self.block_size);
        self.arena
            .get(start..start.saturating_add(self.block_size))
            .unwrap_or_default()
    }

    /// The page's bytes, to be changed.
    pub(super) fn bytes_mut(&mut self, id: FrameId) -> &mut [u8] {
        let start = to_usize(id.0).saturating_mul(self.block_size);
        self.arena
            .get_mut(start..start.saturating_add(self.block_size))
            .unwrap_or_default()
    }

    /// Which page a frame holds.
    pub(super) fn key(&self, id: FrameId) -> Option<PageKey> {
        let frame = self.frames.get(to_usize(id.0))?;
        (frame.state != FrameState::Free).then_some(frame.key)
    }

    /// Whether the page is newer than its file.
    pub(super) fn is_dirty(&self, id: FrameId) -> bool {
        self.frames
            .get(to_usize(id.0))
            .is_some_and(|frame| frame.state == FrameState::Dirty)
    }

    /// The page was changed.
    pub(super) fn mark_dirty(&mut self, id: FrameId) {
        if let Some(frame) = self.frame_mut(id)
            && frame.state == FrameState::Clean
        {
            frame.state = FrameState::Dirty;
            self.dirty += 1;
        }
    }

    /// The page was written.
    pub(super) fn clean(&mut self, id: FrameId) {
        if let Some(frame) = self.frame_mut(id)
            && frame.state == FrameState::Dirty
        {
            frame.state = FrameState::Clean;
            self.dirty -= 1;
        }
    }

    /// How many pages are newer than their files.
    pub(super) const fn dirty_pages(&self) -> usize {
        self.dirty
    }

    /// Pages in the cache.
    #[cfg(test)]
    fn pages(&self) -> usize {
        self.table.len()
    }

    /// Throws away the pages of a fork from this block on, changed or not. `blocks` is how many the fork has.
    pub(super) fn forget_from(&mut self, fork: ForkId, first: BlockNumber, blocks: BlockNumber) {
        // Few blocks are looked up one by one, as scanning a large cache costs more.
        if to_usize(blocks.saturating_sub(first)) < self.frames.len() / 32 {
            for block in first..blocks {
                if let Some(id) = self.table.get(&PageKey::new(fork, block)).copied() {
                    self.release(id);
                }
            }
        } else {
            self.forget_if(|key| key.fork() == fork && key.block() >= first);
        }
    }

    /// Throws away pages, changed or not.
    pub(super) fn forget_if(&mut self, mut forget: impl FnMut(PageKey) -> bool) {
        for index in 0..self.frames.len() {
            let id = FrameId(u32::try_from(index).unwrap_or(u32::MAX));
            if self.key(id).is_some_and(&mut forget) {
                self.release(id);
            }
        }
    }

    /// All pages that are newer than their files, in the order of files and blocks.
    pub(super) fn dirty_in_order(
        &self,
        mut wanted: impl FnMut(PageKey) -> bool,
    ) -> Vec<(PageKey, FrameId)> {
        let mut dirty: Vec<_> = (0..)
            .zip(&self.frames)
            .filter(|(_, frame)| frame.state == FrameState::Dirty && wanted(frame.key))
            .map(|(index, frame)| (frame.key, FrameId(index)))
            .collect();
        dirty.sort_unstable_by_key(|(key, _)| *key);
        dirty
    }

    fn frame_mut(&mut self, id: FrameId) -> Option<&mut Frame> {
        self.frames.get_mut(to_usize(id.0))
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(block: BlockNumber) -> PageKey {
        PageKey::new(ForkId(3), block)
    }

    #[test]
    fn a_key_is_its_fork_and_block() {
        let key = PageKey::new(ForkId(7), u32::MAX - 1);
        assert_eq!((key.fork(), key.block()), (ForkId(7), u32::MAX - 1));
    }

    #[test]
    fn a_full_cache_gives_up_what_was_not_used() {
        let mut cache = PageCache::new(0, 512);
        for block in 0..64 {
            let frame = cache.victim();
            assert!(!cache.is_dirty(frame));
            cache.claim(frame, key(block));
            cache.bytes_mut(frame).fill(u8::try_from(block).unwrap());
        }
        // The hand passes all once and comes back to the first.
        let first = cache.victim();
        assert_eq!(cache.key(first), Some(key(0)));
        let next = cache.find(key(1)).unwrap();
        cache.mark_dirty(next);
        cache.claim(first, key(100));
        assert_eq!(cache.find(key(0)), None);
        assert_eq!(cache.find(key(100)), Some(first));
        assert_eq!(cache.key(first), Some(key(100)));
        // The second was used meanwhile: the third goes.
        let third = cache.victim();
        assert_eq!(cache.key(third), Some(key(2)));
        assert_eq!(cache.bytes(next)[0], 1);
        assert_eq!(cache.dirty_pages(), 1);
        assert_eq!(cache.pages(), 64);
    }

    #[test]
    fn pages_of_a_dropped_fork_are_gone_and_their_frames_used_again() {
        for blocks in [1, 1000] {
            let mut cache = PageCache::new(1 << 20, 512);
            for block in 0..200 {
                let frame = cache.victim();
                cache.claim(frame, key(block));
                cache.mark_dirty(frame);
            }
            cache.forget_from(ForkId(3), 0, blocks);
            cache.forget_from(ForkId(3), 1, 1000);
            assert_eq!((cache.pages(), cache.dirty_pages()), (0, 0));
            assert!(cache.dirty_in_order(|_| true).is_empty());
            let frame = cache.victim();
            cache.claim(frame, key(5));
            assert_eq!(cache.find(key(5)), Some(frame));
        }
    }

    #[test]
    fn dirty_pages_come_in_the_order_of_files() {
        let mut cache = PageCache::new(0, 512);
        for block in [9, 3, 7] {
            let frame = cache.victim();
            cache.claim(frame, key(block));
            cache.mark_dirty(frame);
        }
        let order = cache.dirty_in_order(|key| key.block() != 7);
        let blocks: Vec<_> = order.iter().map(|(key, _)| key.block()).collect();
        assert_eq!(blocks, [3, 9]);
    }
}
