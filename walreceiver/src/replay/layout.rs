//! [`ClusterLayout`]: where the files of a data directory are.

use std::path::{Path, PathBuf};

use walstream::storage::control::{ControlError, ControlFile};
use walstream::types::{ForkNumber, Oid, RelFileLocator};

/// The tablespace of what belongs to no other.
///
/// # Source
/// `DEFAULTTABLESPACE_OID` in `src/include/catalog/pg_tablespace.dat`.
const DEFAULT_TABLESPACE: Oid = 1663;
/// The tablespace of shared catalogs (`GLOBALTABLESPACE_OID`).
pub(super) const GLOBAL_TABLESPACE: Oid = 1664;

/// Where a cluster's files are, and how long they may be.
#[derive(Clone, Debug)]
pub(super) struct ClusterLayout {
    /// The data directory.
    pub(super) root: PathBuf,
    /// The directory of this version in every tablespace, such as `PG_15_202209061`.
    pub(super) version_directory: String,
    /// Bytes of a page.
    pub(super) block_size: usize,
    /// Pages of a relation's segment.
    pub(super) segment_blocks: u32,
}

impl ClusterLayout {
    pub(super) fn new(root: &Path, control: &ControlFile) -> Result<Self, ControlError> {
        let dialect = control.dialect()?;
        Ok(Self {
            root: root.to_owned(),
            version_directory: format!(
                "PG_{}_{}",
                dialect.major.number(),
                control.catalog_version
            ),
            block_size: usize::try_from(dialect.block_size.bytes()).unwrap_or(usize::MAX),
            segment_blocks: control.blocks_per_relation_segment.max(1),
        })
    }

    /// The link, or directory, of a tablespace.
    pub(super) fn tablespace_link(&self, tablespace: Oid) -> PathBuf {
        self.root.join("pg_tblspc").join(tablespace.to_string())
    }

    /// The directory of a database in a tablespace.
    ///
    /// # Source
    /// `GetDatabasePath` in `src/common/relpath.c`.
    pub(super) fn database_directory(&self, tablespace: Oid, database: Oid) -> PathBuf {
        match tablespace {
            GLOBAL_TABLESPACE => self.root.join("global"),
            DEFAULT_TABLESPACE => self.root.join("base").join(database.to_string()),
            other => self
                .tablespace_link(other)
                .join(&self.version_directory)
                .join(database.to_string()),
        }
    }

    /// The first file of a fork.
    ///
    /// # Source
    /// `GetRelationPath` in `src/common/relpath.c`.
    pub(super) fn fork_path(&self, locator: RelFileLocator, fork: ForkNumber) -> PathBuf {
        let name = match fork {
            ForkNumber::Main => locator.relation.to_string(),
            other => format!("{}_{}", locator.relation, other.name()),
        };
        self.database_directory(locator.tablespace, locator.database)
            .join(name)
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
