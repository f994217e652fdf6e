//! [`SlruFiles`]: the pages of SLRUs, in a small cache, and their files.
//!
//! What redo does to transaction status, multixacts and commit timestamps. A page whose file is not there, or ends before it, reads
//! as zeros, as in PostgreSQL's recovery: a later record truncated it, or it is made by a record to come.
//!
//! # Source
//! `slru.c`, `clog.c`, `multixact.c`, `commit_ts.c` in `src/backend/access/transam/`.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;

use walstream::redo::List;
use walstream::storage::page::PageFault;
use walstream::storage::slru::{
    FIRST_MULTIXACT, MultiXactMember, PAGES_PER_SEGMENT, Slru, SlruSegment, TransactionStatus,
    member_segments, set_commit_timestamp, set_member, set_multixact_offset,
    set_transaction_status,
};
use walstream::types::TransactionId;
use walstream::{Dialect, Lsn, PageSize, PgTimestamp};

use super::control::{Control, ReplayPosition};
use super::key_hasher::KeyHashing;
use super::replay_error::ReplayError;
use super::small_file::{remove_file, write_all};
use super::storage::DataStorage;
use crate::mirror::durable::FileError;

/// SLRUs that redo changes.
const KEPT: [Slru; 4] = [
    Slru::Xact,
    Slru::MultiXactOffsets,
    Slru::MultiXactMembers,
    Slru::CommitTs,
];

/// Pages in memory.
const CACHED_PAGES: usize = 256;

#[derive(Debug)]
struct CachedPage {
    slru: Slru,
    page: u64,
    bytes: Box<[u8]>,
    dirty: bool,
    used: bool,
}

#[derive(Debug)]
pub(super) struct SlruFiles<S: DataStorage> {
    storage: S,
    root: PathBuf,
    page_size: PageSize,
    /// A multixact is recorded with where the next one begins.
    records_next_offset: bool,
    pages: Vec<CachedPage>,
    by_name: HashMap<(u8, u64), usize, KeyHashing>,
    hand: usize,
    unsynced: BTreeSet<(u8, SlruSegment)>,
    /// SLRUs in which files were made or removed.
    unsynced_directories: BTreeSet<u8>,
    /// The offsets page that a record zeroed last, since replay began.
    last_offsets_page: Option<u64>,
    /// An offsets page that was made ahead of the record that zeroes it.
    early_offsets_page: Option<u64>,
}

const fn number(slru: Slru) -> u8 {
    match slru {
        Slru::Xact => 0,
        Slru::MultiXactOffsets => 1,
        Slru::MultiXactMembers => 2,
        Slru::CommitTs => 3,
        Slru::Subtrans => 4,
    }
}

fn slru_of(number: u8) -> Slru {
    KEPT.into_iter()
        .find(|slru| self::number(*slru) == number)
        .unwrap_or(Slru::Subtrans)
}

impl<S: DataStorage> SlruFiles<S> {
    pub(super) fn new(storage: S, root: PathBuf, dialect: &Dialect) -> Self {
        Self {
            storage,
            root,
            page_size: dialect.block_size,
            records_next_offset: dialect.records_next_multixact_offset(),
            pages: Vec::new(),
            by_name: HashMap::default(),
            hand: 0,
            unsynced: BTreeSet::new(),
            unsynced_directories: BTreeSet::new(),
            last_offsets_page: None,
            early_offsets_page: None,
        }
    }

    /// Sets the status of a transaction and its subtransactions.
    pub(super) fn set_status(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        xid: TransactionId,
        subxids: List<'_, TransactionId>,
        status: TransactionStatus,
    ) -> Result<(), ReplayError> {
        for xid in std::iter::once(xid).chain(subxids.iter()) {
            let page = Slru::Xact.page_of(xid, self.page_size);
            self.change(control, replayed, Slru::Xact, page, |bytes| {
                set_transaction_status(bytes, xid, status)
            })?;
        }
        Ok(())
    }

    /// Sets when a transaction and its subtransactions committed.
    pub(super) fn set_commit_timestamps(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        xid: TransactionId,
        subxids: List<'_, TransactionId>,
        (time, origin): (PgTimestamp, u16),
    ) -> Result<(), ReplayError> {
        for xid in std::iter::once(xid).chain(subxids.iter()) {
            let page = Slru::CommitTs.page_of(xid, self.page_size);
            self.change(control, replayed, Slru::CommitTs, page, |bytes| {
                set_commit_timestamp(bytes, xid, time, origin)
            })?;
        }
        Ok(())
    }

    /// Makes a page of zeros.
    pub(super) fn zero_page(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        slru: Slru,
        page: u64,
    ) -> Result<(), ReplayError> {
        if slru == Slru::MultiXactOffsets {
            let was_early = self.early_offsets_page.take() == Some(page);
            self.last_offsets_page = Some(page);
            if was_early {
                return Ok(());
            }
        }
        self.set_zero(control, replayed, slru, page)
    }

    fn set_zero(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        slru: Slru,
        page: u64,
    ) -> Result<(), ReplayError> {
        let index = self.page(control, replayed, slru, page)?;
        if let Some(cached) = self.pages.get_mut(index) {
            cached.bytes.fill(0);
            cached.dirty = true;
        }
        Ok(())
    }

    /// Records a multixact: where its members start, where they end if the server does that, and the members.
    pub(super) fn new_multixact(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        (multi, offset): (u32, u32),
        members: List<'_, MultiXactMember>,
    ) -> Result<(), ReplayError> {
        let page = Slru::MultiXactOffsets.page_of(multi, self.page_size);
        self.change(control, replayed, Slru::MultiXactOffsets, page, |bytes| {
            set_multixact_offset(bytes, multi, offset)
        })?;
        if self.records_next_offset {
            let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
            self.next_multixact_begins(control, replayed, multi, offset.wrapping_add(count))?;
        }
        for (distance, member) in (0..).zip(members.iter()) {
            let at = offset.wrapping_add(distance);
            let page = Slru::MultiXactMembers.page_of(at, self.page_size);
            self.change(control, replayed, Slru::MultiXactMembers, page, |bytes| {
                set_member(bytes, at, member)
            })?;
        }
        Ok(())
    }

    /// Records that the members of a multixact end here, which is where those of the next begin.
    fn next_multixact_begins(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        multi: u32,
        end: u32,
    ) -> Result<(), ReplayError> {
        let offsets = Slru::MultiXactOffsets;
        let page = offsets.page_of(multi, self.page_size);
        let next = multi.wrapping_add(1).max(FIRST_MULTIXACT);
        let next_page = offsets.page_of(next, self.page_size);
        self.early_offsets_page = None;
        if next_page != page {
            // A server before the fix zeroes the next page only in a later record.
            let is_needed = match self.last_offsets_page {
                Some(last) => last == page,
                None => !self.exists(offsets, next_page)?,
            };
            if is_needed {
                self.set_zero(control, replayed, offsets, next_page)?;
                self.early_offsets_page = Some(next_page);
                self.last_offsets_page = Some(next_page);
            }
        }
        // The offset 0 means that there is none.
        let end = end.max(1);
        self.change(control, replayed, offsets, next_page, |bytes| {
            set_multixact_offset(bytes, next, end)
        })
    }

    /// Removes the files that lie before a page.
    pub(super) fn truncate(&mut self, slru: Slru, cutoff_page: u64) -> Result<(), ReplayError> {
        let page_size = self.page_size;
        for segment in self.segments(slru)? {
            if segment.is_before(cutoff_page, slru, page_size) {
                self.remove_segment(slru, segment)?;
            }
        }
        Ok(())
    }

    /// Removes the files of multixacts before these.
    pub(super) fn truncate_multixacts(
        &mut self,
        end_multi: u32,
        start_offset: u32,
        end_offset: u32,
    ) -> Result<(), ReplayError> {
        for segment in member_segments(start_offset, end_offset, self.page_size) {
            self.remove_segment(Slru::MultiXactMembers, segment)?;
        }
        // The one before is looked at, too, to find where it ends.
        let before = match end_multi.wrapping_sub(1) {
            0 => u32::MAX,
            before => before,
        };
        let cutoff = Slru::MultiXactOffsets.page_of(before, self.page_size);
        self.truncate(Slru::MultiXactOffsets, cutoff)
    }

    /// Begins to keep commit timestamps: the page of the next transaction exists.
    ///
    /// # Source
    /// `ActivateCommitTs` in `src/backend/access/transam/commit_ts.c`.
    pub(super) fn activate_commit_timestamps(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        next_xid: TransactionId,
    ) -> Result<(), ReplayError> {
        let page = Slru::CommitTs.page_of(next_xid, self.page_size);
        if self.exists(Slru::CommitTs, page)? {
            return Ok(());
        }
        self.set_zero(control, replayed, Slru::CommitTs, page)
    }

    /// Ends keeping commit timestamps: all files go. A server that had such a page in memory may write it again afterwards, which nobody
    /// reads then.
    ///
    /// # Source
    /// `DeactivateCommitTs` in `src/backend/access/transam/commit_ts.c`.
    pub(super) fn deactivate_commit_timestamps(&mut self) -> Result<(), ReplayError> {
        for segment in self.segments(Slru::CommitTs)? {
            self.remove_segment(Slru::CommitTs, segment)?;
        }
        Ok(())
    }

    /// Writes all pages that changed, and makes them durable. Gives the number of files.
    pub(super) fn sync(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
    ) -> Result<u64, ReplayError> {
        let mut dirty: Vec<_> = (0..self.pages.len())
            .filter(|index| self.pages.get(*index).is_some_and(|page| page.dirty))
            .collect();
        dirty.sort_by_key(|index| {
            self.pages
                .get(*index)
                .map(|page| (number(page.slru), page.page))
        });
        for index in dirty {
            self.write(control, replayed, index)?;
        }
        let unsynced = std::mem::take(&mut self.unsynced);
        let files = u64::try_from(unsynced.len()).unwrap_or(0);
        for (slru, segment) in unsynced {
            let path = self.path(slru_of(slru), segment);
            match self.storage.open(&path) {
                // It was truncated since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => {
                    let file = opened.map_err(FileError::of("open", &path))?;
                    self.storage
                        .sync_data(&file)
                        .map_err(FileError::of("sync", &path))?;
                }
            }
        }
        for slru in std::mem::take(&mut self.unsynced_directories) {
            let directory = self.root.join(slru_of(slru).directory());
            self.storage
                .sync_directory(&directory)
                .map_err(FileError::of("sync", &directory))?;
        }
        Ok(files)
    }

    fn change(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        slru: Slru,
        page: u64,
        change: impl FnOnce(&mut [u8]) -> Result<(), PageFault>,
    ) -> Result<(), ReplayError> {
        let index = self.page(control, replayed, slru, page)?;
        if let Some(cached) = self.pages.get_mut(index) {
            cached.dirty = true;
            if let Err(fault) = change(&mut cached.bytes) {
                return Err(ReplayError::DamagedFile {
                    path: self.path(slru, SlruSegment::of_page(page)),
                    what: fault.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Place of a page in the cache, into which it is read.
    fn page(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        slru: Slru,
        page: u64,
    ) -> Result<usize, ReplayError> {
        let name = (number(slru), page);
        if let Some(index) = self.by_name.get(&name).copied() {
            if let Some(cached) = self.pages.get_mut(index) {
                cached.used = true;
            }
            return Ok(index);
        }
        let index = if self.pages.len() < CACHED_PAGES {
            let size = usize::try_from(self.page_size.bytes()).unwrap_or(0);
            self.pages.push(CachedPage {
                slru,
                page,
                bytes: vec![0; size].into(),
                dirty: false,
                used: true,
            });
            self.pages.len() - 1
        } else {
            let index = self.victim();
            self.write(control, replayed, index)?;
            index
        };
        let path = self.path(slru, SlruSegment::of_page(page));
        let offset = SlruSegment::offset_of(page, self.page_size);
        if let Some(cached) = self.pages.get_mut(index) {
            self.by_name.remove(&(number(cached.slru), cached.page));
            cached.slru = slru;
            cached.page = page;
            cached.used = true;
            let count = match self.storage.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                opened => {
                    let file = opened.map_err(FileError::of("open", &path))?;
                    self.storage
                        .read_at(&file, &mut cached.bytes, offset)
                        .map_err(FileError::of("read", &path))?
                }
            };
            if let Some(rest) = cached.bytes.get_mut(count..) {
                rest.fill(0);
            }
            self.by_name.insert(name, index);
        }
        Ok(index)
    }

    fn victim(&mut self) -> usize {
        loop {
            if self.hand >= self.pages.len() {
                self.hand = 0;
            }
            let index = self.hand;
            self.hand += 1;
            match self.pages.get_mut(index) {
                Some(page) if page.used => page.used = false,
                _ => return index,
            }
        }
    }

    fn write(
        &mut self,
        control: &mut Control<S>,
        replayed: ReplayPosition,
        index: usize,
    ) -> Result<(), ReplayError> {
        let Some(cached) = self.pages.get(index).filter(|cached| cached.dirty) else {
            return Ok(());
        };
        // The page has no LSN: everything up to now counts.
        control.cover(Lsn::MAX, replayed)?;
        let segment = SlruSegment::of_page(cached.page);
        let path = self.path(cached.slru, segment);
        let file = match self.storage.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.unsynced_directories.insert(number(cached.slru));
                self.storage.create(&path)
            }
            opened => opened,
        };
        let file = file.map_err(FileError::of("open", &path))?;
        let offset = SlruSegment::offset_of(cached.page, self.page_size);
        write_all(&self.storage, &file, &path, &cached.bytes, offset)?;
        self.unsynced.insert((number(cached.slru), segment));
        if let Some(cached) = self.pages.get_mut(index) {
            cached.dirty = false;
        }
        Ok(())
    }

    /// Whether a page is in the cache or in its file.
    fn exists(&self, slru: Slru, page: u64) -> Result<bool, ReplayError> {
        if self.by_name.contains_key(&(number(slru), page)) {
            return Ok(true);
        }
        let path = self.path(slru, SlruSegment::of_page(page));
        let end = SlruSegment::offset_of(page, self.page_size) + self.page_size.bytes();
        match self.storage.size_of(&path) {
            Ok(size) => Ok(size >= end),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(FileError::of("read", &path)(error).into()),
        }
    }

    /// The segments of which there are files.
    fn segments(&self, slru: Slru) -> Result<Vec<SlruSegment>, ReplayError> {
        let directory = self.root.join(slru.directory());
        let names = self
            .storage
            .list(&directory)
            .map_err(FileError::of("list", &directory))?;
        Ok(names
            .iter()
            .filter_map(|name| SlruSegment::parse(name.to_str()?))
            .collect())
    }

    fn remove_segment(&mut self, slru: Slru, segment: SlruSegment) -> Result<(), ReplayError> {
        for page in segment.first_page()..segment.first_page().saturating_add(PAGES_PER_SEGMENT) {
            if let Some(index) = self.by_name.remove(&(number(slru), page))
                && let Some(cached) = self.pages.get_mut(index)
            {
                // The place stays, under a name that nothing has.
                cached.dirty = false;
                cached.used = false;
                cached.slru = Slru::Subtrans;
            }
        }
        self.unsynced.remove(&(number(slru), segment));
        if remove_file(&self.storage, &self.path(slru, segment))? {
            self.unsynced_directories.insert(number(slru));
        }
        Ok(())
    }

    fn path(&self, slru: Slru, segment: SlruSegment) -> PathBuf {
        self.root.join(slru.directory()).join(segment.to_string())
    }
}
