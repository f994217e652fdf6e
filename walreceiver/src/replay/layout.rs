//! [`ClusterLayout`]: where the files of a data directory are.

use std::path::{Path, PathBuf};

use walstream::Dialect;
use walstream::storage::control::ControlFile;
use walstream::storage::relation_path::{DatabaseDirectory, TablespaceVersionDirectory};
use walstream::types::{ForkNumber, Oid, RelFileLocator};

/// Where a cluster's files are, and how long they may be.
#[derive(Clone, Debug)]
pub(super) struct ClusterLayout {
    /// The data directory.
    pub(super) root: PathBuf,
    pub(super) dialect: Dialect,
    /// Bytes of a page.
    pub(super) block_size: usize,
    /// Pages of a relation's segment.
    pub(super) segment_blocks: u32,
}

impl ClusterLayout {
    pub(super) fn new(root: &Path, dialect: Dialect, control: &ControlFile) -> Self {
        Self {
            root: root.to_owned(),
            dialect,
            block_size: usize::try_from(dialect.block_size.bytes()).unwrap_or(usize::MAX),
            segment_blocks: control.blocks_per_relation_segment.max(1),
        }
    }

    /// The directory of this version's files in every tablespace: `PG_15_202209061`.
    pub(super) fn version_directory(&self) -> String {
        TablespaceVersionDirectory(self.dialect.major).to_string()
    }

    /// The link, or directory, of a tablespace.
    pub(super) fn tablespace_link(&self, tablespace: Oid) -> PathBuf {
        self.root.join("pg_tblspc").join(tablespace.to_string())
    }

    /// The directory of a database in a tablespace.
    pub(super) fn database_directory(&self, directory: DatabaseDirectory) -> PathBuf {
        let path = directory.path(self.dialect.major);
        self.root.join(path.to_string())
    }

    /// The first file of a fork.
    pub(super) fn fork_path(&self, locator: RelFileLocator, fork: ForkNumber) -> PathBuf {
        let path = locator.path(fork, self.dialect.major);
        self.root.join(path.to_string())
    }
}

/// A file of a fork that goes over several: the first has no number.
pub(super) fn segment_path(first: &Path, segment: u32) -> PathBuf {
    if segment == 0 {
        return first.to_owned();
    }
    let mut path = first.as_os_str().to_owned();
    path.push(format!(".{segment}"));
    path.into()
}
