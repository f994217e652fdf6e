//! [`PageStore`]: pages of relations by name, from the cache or from files, and back.
//!
//! **Invariant:** WAL before data. Only WAL that is in a file is replayed, so what a page holds is in the log that a restart reads; and
//! before a page is written, [`Control::cover`] puts its LSN below the minimum recovery point.
//! **Invariant:** a page that a record could not be replayed on is never written: replay ends there.

use std::io::IoSlice;

use walstream::Lsn;
use walstream::storage::page::Page;
use walstream::storage::relation_path::DatabaseDirectory;
use walstream::types::{BlockNumber, ForkNumber, Oid, RelFileLocator};

use super::control::{Control, ReplayPosition};
use super::page_cache::{FrameId, PageCache, PageKey};
use super::relation_files::{ForkId, RelationFiles};
use super::replay_error::{FoundPage, PageDefect, ReplayError};
use super::storage::DataStorage;

/// Pages written by one call at most.
const RUN: usize = 32;

/// What is to become of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageUse {
    /// It is changed, and must be there and have been written before.
    Change,
    /// It is set as a whole, and is made if it is not there.
    Overwrite,
    /// It is changed; when it is not there, or damaged, it is one of zeros: the maps' pages, which may be wrong.
    ChangeOrMake,
}

/// A page that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Here it is.
    Page(FrameId),
    /// There is none, or one of zeros.
    Missing {
        /// It is of zeros.
        is_empty: bool,
    },
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// Pages read from files.
    pub read: u64,
    /// Pages written to files.
    pub written: u64,
    /// Of those, pages that had to make room for others.
    pub evicted: u64,
}

#[derive(Debug)]
pub(super) struct PageStore<S: DataStorage> {
    pub(super) files: RelationFiles<S>,
    pub(super) cache: PageCache,
    has_checksums: bool,
    segment_blocks: u32,
    pub(super) counts: PageCounts,
}

impl<S: DataStorage> PageStore<S> {
    pub(super) fn new(
        files: RelationFiles<S>,
        cache: PageCache,
        has_checksums: bool,
        segment_blocks: u32,
    ) -> Self {
        Self {
            files,
            cache,
            has_checksums,
            segment_blocks,
            counts: PageCounts::default(),
        }
    }

    /// A page of a fork, which is made if it does not exist.
    pub(super) fn page(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        fork: ForkId,
        block: BlockNumber,
        page_use: PageUse,
    ) -> Result<Found, ReplayError> {
        let key = PageKey::new(fork, block);
        if let Some(frame) = self.cache.find(key) {
            if page_use == PageUse::Change && is_new(self.cache.bytes(frame)) {
                return Ok(Found::Missing { is_empty: true });
            }
            return Ok(Found::Page(frame));
        }
        let is_there = block < self.files.blocks(fork);
        if !is_there {
            if page_use == PageUse::Change {
                return Ok(Found::Missing { is_empty: false });
            }
            self.files.extend(fork, block.saturating_add(1))?;
        }
        let frame = self.cache.victim();
        if self.cache.is_dirty(frame) {
            self.counts.evicted += 1;
            self.write_beside(control, replayed, frame)?;
        }
        self.cache.claim(frame, key);
        if page_use == PageUse::Overwrite {
            return Ok(Found::Page(frame));
        }
        if !is_there {
            self.cache.bytes_mut(frame).fill(0);
            return Ok(Found::Page(frame));
        }
        let read = self.files.read(fork, block, self.cache.bytes_mut(frame));
        if let Err(error) = read {
            self.cache.release(frame);
            return Err(error.into());
        }
        self.counts.read += 1;
        if let Some(defect) = self.defect(frame, block) {
            if page_use == PageUse::ChangeOrMake {
                self.cache.bytes_mut(frame).fill(0);
                return Ok(Found::Page(frame));
            }
            self.cache.release(frame);
            let page = self.describe(fork, block);
            return Err(ReplayError::DamagedPage { page, defect });
        }
        if page_use == PageUse::Change && is_new(self.cache.bytes(frame)) {
            return Ok(Found::Missing { is_empty: true });
        }
        Ok(Found::Page(frame))
    }

    /// What a page is called in an error.
    pub(super) fn describe(&self, fork: ForkId, block: BlockNumber) -> FoundPage {
        let nowhere = RelFileLocator {
            tablespace: 0,
            database: 0,
            relation: 0,
        };
        let (locator, fork_number) = self.files.name(fork).unwrap_or((nowhere, ForkNumber::Main));
        FoundPage {
            path: self.files.path_of(fork, block),
            locator,
            fork: fork_number,
            block,
        }
    }

    /// What is wrong with a page as it was read.
    ///
    /// # Source
    /// `PageIsVerifiedExtended` in `src/backend/storage/page/bufpage.c`.
    fn defect(&self, frame: FrameId, block: BlockNumber) -> Option<PageDefect> {
        let bytes = self.cache.bytes(frame);
        if is_new(bytes) {
            return bytes
                .iter()
                .any(|byte| *byte != 0)
                .then_some(PageDefect::Header);
        }
        let page = Page::new(bytes).ok()?;
        if self.has_checksums {
            let computed = page.computed_checksum(block);
            let found = page.checksum();
            if found != computed {
                return Some(PageDefect::Checksum { found, computed });
            }
        }
        page.bounds().err().map(|_| PageDefect::Header)
    }

    /// Writes a page that changed, and those beside it that did, too.
    fn write_beside(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        frame: FrameId,
    ) -> Result<(), ReplayError> {
        let Some(key) = self.cache.key(frame) else {
            return Ok(());
        };
        let (fork, block) = (key.fork(), key.block());
        let segment_start = block - block % self.segment_blocks;
        let mut first = block;
        while first > segment_start
            && to_usize(block - first) + 1 < RUN / 2
            && self
                .cache
                .peek_dirty(PageKey::new(fork, first - 1))
                .is_some()
        {
            first -= 1;
        }
        let mut frames = [frame; RUN];
        let mut count = 0;
        for (next, slot) in (first..).zip(&mut frames) {
            if next - segment_start >= self.segment_blocks {
                break;
            }
            let Some(dirty) = self.cache.peek_dirty(PageKey::new(fork, next)) else {
                break;
            };
            *slot = dirty;
            count += 1;
        }
        let frames = frames.get(..count).unwrap_or_default();
        self.write_run(control, replayed, PageKey::new(fork, first), frames)
    }

    /// Writes pages that follow each other in one segment.
    fn write_run(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        first: PageKey,
        frames: &[FrameId],
    ) -> Result<(), ReplayError> {
        let mut newest = Lsn::INVALID;
        for (block, frame) in (first.block()..).zip(frames) {
            let bytes = self.cache.bytes_mut(*frame);
            let Ok(mut page) = Page::new(bytes) else {
                continue;
            };
            newest = newest.max(page.lsn());
            if self.has_checksums {
                page.stamp_checksum(block);
            }
        }
        control.cover(newest, replayed)?;
        let mut slices = [IoSlice::new(&[]); RUN];
        for (slice, frame) in slices.iter_mut().zip(frames) {
            *slice = IoSlice::new(self.cache.bytes(*frame));
        }
        let slices = slices.get_mut(..frames.len()).unwrap_or_default();
        self.files.write(first.fork(), first.block(), slices)?;
        for frame in frames {
            self.cache.clean(*frame);
        }
        self.counts.written += u64::try_from(frames.len()).unwrap_or(0);
        Ok(())
    }

    /// Writes all pages that changed and are wanted. They are in the system's hands then, not yet durable.
    pub(super) fn flush(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        mut wanted: impl FnMut(RelFileLocator, ForkNumber) -> bool,
    ) -> Result<(), ReplayError> {
        let files = &self.files;
        let dirty = self.cache.dirty_in_order(|key| {
            files
                .name(key.fork())
                .is_some_and(|(locator, fork)| wanted(locator, fork))
        });
        let mut rest = dirty.as_slice();
        let mut frames = Vec::with_capacity(RUN);
        while let Some(((first, _), _)) = rest.split_first() {
            frames.clear();
            for ((key, frame), block) in rest.iter().zip(first.block()..) {
                let follows = *key == PageKey::new(first.fork(), block)
                    && block / self.segment_blocks == first.block() / self.segment_blocks;
                if !follows || frames.len() == RUN {
                    break;
                }
                frames.push(*frame);
            }
            self.write_run(control, replayed, *first, &frames)?;
            rest = rest.get(frames.len()..).unwrap_or_default();
        }
        Ok(())
    }

    /// Cuts a fork.
    pub(super) fn truncate(
        &mut self,
        fork: ForkId,
        blocks: BlockNumber,
    ) -> Result<(), ReplayError> {
        let before = self.files.blocks(fork);
        if blocks < before {
            self.cache.forget_from(fork, blocks, before);
        }
        Ok(self.files.truncate(fork, blocks)?)
    }

    /// Removes a relation's files.
    pub(super) fn drop_relation(&mut self, locator: RelFileLocator) -> Result<(), ReplayError> {
        let ids: Vec<_> = self.files.ids_of(locator).collect();
        for id in ids {
            let blocks = self.files.blocks(id);
            self.cache.forget_from(id, 0, blocks);
        }
        Ok(self.files.remove(locator)?)
    }

    /// Forgets all pages and files of a database.
    pub(super) fn forget_database(&mut self, database: Oid) {
        self.forget_if(|locator| locator.database == database);
    }

    /// Forgets all pages and files in a database's directory.
    pub(super) fn forget_directory(&mut self, directory: DatabaseDirectory) {
        self.forget_if(|locator| DatabaseDirectory::from(locator) == directory);
    }

    fn forget_if(&mut self, mut forget: impl FnMut(RelFileLocator) -> bool) {
        let files = &self.files;
        self.cache.forget_if(|key| {
            files
                .name(key.fork())
                .is_none_or(|(locator, _)| forget(locator))
        });
        self.files.forget_if(forget);
    }
}

/// Whether a page was never initialised.
fn is_new(bytes: &[u8]) -> bool {
    Page::new(bytes).is_ok_and(|page| page.is_new())
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
