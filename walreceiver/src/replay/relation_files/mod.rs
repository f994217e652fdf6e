//! [`RelationFiles`]: the files of relations, read and written by block.
//!
//! A fork is one or more files of at most 1 GB. How many blocks it has is known here from when it is first used, and may be more than
//! its files hold: a page that redo adds is written when the cache gives it up, and the files get their full length at the
//! latest at the next restartpoint. Only so many files are open at a time.
//!
//! **Invariant:** a segment is written only when those before it have their full size, so that the blocks of a fork can always be
//! counted from its files as the server counts them.
//!
//! # Source
//! `src/backend/storage/smgr/md.c`; `XLogReadBufferExtended` in `src/backend/access/transam/xlogutils.c`.

mod durability;
mod open_segments;
mod pages;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use walstream::types::{BlockNumber, ForkNumber, RelFileLocator};

use super::key_hasher::KeyHashing;
use super::layout::{ClusterLayout, segment_path};
use super::small_file::remove_file;
use super::storage::DataStorage;
use crate::mirror::durable::FileError;

/// Every fork there is.
pub(super) const FORKS: [ForkNumber; 4] = [
    ForkNumber::Main,
    ForkNumber::FreeSpaceMap,
    ForkNumber::VisibilityMap,
    ForkNumber::Init,
];

/// Number of a fork while this process runs; used again when the fork was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ForkId(pub(super) u32);

#[derive(Debug)]
pub(super) struct RelationFiles<S: DataStorage> {
    storage: S,
    layout: ClusterLayout,
    forks: Vec<Option<Fork<S::File>>>,
    free: Vec<ForkId>,
    by_name: HashMap<(RelFileLocator, ForkNumber), ForkId, KeyHashing>,
    /// Forks asked for lately, each in the place that its relation's number gives it: a transaction changes few tables and their
    /// indexes, in turn.
    recent: Box<[Option<(RelFileLocator, ForkNumber, ForkId)>; RECENT]>,
    /// Segments that are open, in the order in which the hand goes round.
    open: Vec<(ForkId, u32)>,
    hand: usize,
    open_limit: usize,
    /// Directories in which files were made or removed.
    unsynced_directories: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Fork<F> {
    locator: RelFileLocator,
    fork: ForkNumber,
    path: PathBuf,
    /// How many blocks it has.
    blocks: BlockNumber,
    /// How many of them its files hold.
    disk_blocks: BlockNumber,
    segments: Vec<Segment<F>>,
}

#[derive(Debug)]
struct Segment<F> {
    file: Option<F>,
    /// Written since it was last synced.
    unsynced: bool,
    /// Used since the hand last came by.
    used: bool,
}

impl<F> Default for Segment<F> {
    fn default() -> Self {
        Self {
            file: None,
            unsynced: false,
            used: false,
        }
    }
}

/// Number of forks of which no hash has to be taken: 8 kB of memory.
const RECENT: usize = 256;

/// Where in them a fork is kept, if it is.
fn recent_place(locator: RelFileLocator, fork: ForkNumber) -> usize {
    // Maps change along with their heaps, and relations that were made together have numbers that follow each other.
    let relation = to_usize(locator.relation).wrapping_add(to_usize(locator.database) << 4);
    (relation ^ usize::from(fork.number()) << 6) % RECENT
}

/// An id that is not in use: our own mistake.
fn no_fork() -> FileError {
    FileError {
        operation: "use",
        path: PathBuf::new(),
        source: io::Error::other("a fork that is not open"),
    }
}

impl<S: DataStorage> RelationFiles<S> {
    pub(super) fn new(storage: S, layout: ClusterLayout, open_limit: usize) -> Self {
        Self {
            storage,
            layout,
            forks: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::default(),
            recent: Box::new([None; RECENT]),
            open: Vec::new(),
            hand: 0,
            open_limit: open_limit.max(1),
            unsynced_directories: BTreeSet::new(),
        }
    }

    /// A fork; made, empty, if there is none, as redo does with what a later record dropped.
    pub(super) fn fork(
        &mut self,
        locator: RelFileLocator,
        fork: ForkNumber,
    ) -> Result<ForkId, FileError> {
        if let Some(found) = self.find(locator, fork)? {
            return Ok(found);
        }
        let path = self.layout.fork_path(locator, fork);
        let made = match self.storage.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(Path::new("."));
                self.storage
                    .make_directory(directory)
                    .map_err(FileError::of("create directory", directory))?;
                self.storage.create(&path)
            }
            made => made,
        };
        let file = made.map_err(FileError::of("create", &path))?;
        self.directory_changed(&path);
        let segment = Segment {
            file: Some(file),
            unsynced: true,
            used: true,
        };
        self.add(locator, fork, path, 0, vec![segment])
    }

    /// A fork, if there is one.
    pub(super) fn find(
        &mut self,
        locator: RelFileLocator,
        fork: ForkNumber,
    ) -> Result<Option<ForkId>, FileError> {
        if let Some(Some((recent, recent_fork, id))) = self.recent.get(recent_place(locator, fork))
            && *recent == locator
            && *recent_fork == fork
        {
            return Ok(Some(*id));
        }
        if let Some(id) = self.by_name.get(&(locator, fork)).copied() {
            self.keep_recent(locator, fork, id);
            return Ok(Some(id));
        }
        let path = self.layout.fork_path(locator, fork);
        let mut blocks: BlockNumber = 0;
        let mut segments = Vec::new();
        loop {
            let number = u32::try_from(segments.len()).unwrap_or(u32::MAX);
            let segment = segment_path(&path, number);
            let file = match self.storage.open(&segment) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(FileError::of("open", &segment)(error)),
            };
            let size = self
                .storage
                .size(&file)
                .map_err(FileError::of("read", &segment))?;
            // A block that is there in part does not count.
            let held = size / u64::try_from(self.layout.block_size).unwrap_or(u64::MAX);
            let held = u32::try_from(held).unwrap_or(u32::MAX);
            blocks = blocks.saturating_add(held.min(self.layout.segment_blocks));
            // Of a fork with many segments the first stays open.
            segments.push(Segment {
                file: segments.is_empty().then_some(file),
                unsynced: false,
                used: true,
            });
            if held < self.layout.segment_blocks {
                break;
            }
        }
        if segments.is_empty() {
            return Ok(None);
        }
        self.add(locator, fork, path, blocks, segments).map(Some)
    }

    fn add(
        &mut self,
        locator: RelFileLocator,
        fork: ForkNumber,
        path: PathBuf,
        blocks: BlockNumber,
        segments: Vec<Segment<S::File>>,
    ) -> Result<ForkId, FileError> {
        let entry = Fork {
            locator,
            fork,
            path,
            blocks,
            disk_blocks: blocks,
            segments,
        };
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.forks.push(None);
                ForkId(u32::try_from(self.forks.len() - 1).unwrap_or(u32::MAX))
            }
        };
        *self.slot(id).ok_or_else(no_fork)? = Some(entry);
        self.by_name.insert((locator, fork), id);
        self.keep_recent(locator, fork, id);
        self.make_room();
        self.open.push((id, 0));
        Ok(id)
    }

    fn keep_recent(&mut self, locator: RelFileLocator, fork: ForkNumber, id: ForkId) {
        if let Some(place) = self.recent.get_mut(recent_place(locator, fork)) {
            *place = Some((locator, fork, id));
        }
    }

    fn slot(&mut self, id: ForkId) -> Option<&mut Option<Fork<S::File>>> {
        self.forks.get_mut(usize::try_from(id.0).ok()?)
    }

    fn get_mut(&mut self, id: ForkId) -> Result<&mut Fork<S::File>, FileError> {
        self.slot(id).and_then(Option::as_mut).ok_or_else(no_fork)
    }

    fn get(&self, id: ForkId) -> Option<&Fork<S::File>> {
        self.forks.get(usize::try_from(id.0).ok()?)?.as_ref()
    }

    /// Which fork an id stands for.
    pub(super) fn name(&self, id: ForkId) -> Option<(RelFileLocator, ForkNumber)> {
        self.get(id).map(|fork| (fork.locator, fork.fork))
    }

    /// The file that holds a block.
    pub(super) fn path_of(&self, id: ForkId, block: BlockNumber) -> PathBuf {
        let segment = block / self.layout.segment_blocks;
        self.get(id)
            .map(|fork| segment_path(&fork.path, segment))
            .unwrap_or_default()
    }

    /// How many blocks a fork has.
    pub(super) fn blocks(&self, id: ForkId) -> BlockNumber {
        self.get(id).map_or(0, |fork| fork.blocks)
    }

    /// Lets a fork grow, by blocks of zeros, so that it has at least so many.
    pub(super) fn extend(&mut self, id: ForkId, blocks: BlockNumber) -> Result<(), FileError> {
        let fork = self.get_mut(id)?;
        fork.blocks = fork.blocks.max(blocks);
        Ok(())
    }

    /// Removes all forks of a relation; what is not there is no error. Gives the ids that end.
    pub(super) fn remove(&mut self, locator: RelFileLocator) -> Result<(), FileError> {
        for fork in FORKS {
            if let Some(id) = self.by_name.remove(&(locator, fork)) {
                self.forget(id);
            }
            let path = self.layout.fork_path(locator, fork);
            let mut segments = 1;
            while self.exists(&segment_path(&path, segments))? {
                segments += 1;
            }
            // From the end, so that after a crash in between all the rest is found again.
            for segment in (0..segments).rev() {
                remove_file(&self.storage, &segment_path(&path, segment))?;
            }
            self.directory_changed(&path);
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool, FileError> {
        match self.storage.size_of(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(FileError::of("read", path)(error)),
        }
    }

    /// Forgets forks whose files go or come otherwise. Their pages were forgotten before.
    pub(super) fn forget_if(&mut self, mut forget: impl FnMut(RelFileLocator) -> bool) {
        let ids: Vec<_> = self
            .by_name
            .extract_if(|(locator, _), _| forget(*locator))
            .map(|(_, id)| id)
            .collect();
        for id in ids {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: ForkId) {
        if let Some(slot) = self.slot(id)
            && slot.take().is_some()
        {
            self.free.push(id);
        }
        self.open.retain(|(open, _)| *open != id);
        for place in self.recent.iter_mut() {
            if place.is_some_and(|(_, _, recent)| recent == id) {
                *place = None;
            }
        }
    }

    /// The ids of a relation's forks that were used.
    pub(super) fn ids_of(&self, locator: RelFileLocator) -> impl Iterator<Item = ForkId> + '_ {
        FORKS
            .into_iter()
            .filter_map(move |fork| self.by_name.get(&(locator, fork)).copied())
    }

    /// Notes that a name was made or removed beside `path`.
    pub(super) fn directory_changed(&mut self, path: &Path) {
        if let Some(directory) = path.parent()
            && !self.unsynced_directories.contains(directory)
        {
            self.unsynced_directories.insert(directory.to_owned());
        }
    }

    fn place(&self, block: BlockNumber) -> (u32, u64) {
        let segment = block / self.layout.segment_blocks;
        let within = u64::from(block % self.layout.segment_blocks);
        let size = u64::try_from(self.layout.block_size).unwrap_or(u64::MAX);
        (segment, within * size)
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
