//! Where relations and databases lie, relative to the data directory.
//!
//! | tablespace | directory of a database |
//! |---|---|
//! | 1663 `pg_default` | `base/5` |
//! | 1664 `pg_global` | `global`, of no database |
//! | another | `pg_tblspc/16385/PG_15_202209061/5`, where `pg_tblspc/16385` is a link to its location |
//!
//! There a relation's fork is `16384`, `16384_fsm`, `16384_vm` or `16384_init`; what is beyond the first gigabyte has a suffix: `16384.1`.
//!
//! # Source
//! `src/common/relpath.c`, `src/backend/storage/smgr/md.c`.

use std::fmt;

use super::control::catalog_version;
use crate::dialect::PgMajor;
use crate::types::{ForkNumber, Oid, RelFileLocator};

/// `DEFAULTTABLESPACE_OID`.
pub const DEFAULT_TABLESPACE: Oid = 1663;
/// `GLOBALTABLESPACE_OID`.
pub const GLOBAL_TABLESPACE: Oid = 1664;

/// The directory of a server's version in a tablespace: `PG_15_202209061`. Printing it allocates nothing.
///
/// # Source
/// `TABLESPACE_VERSION_DIRECTORY` in `src/include/common/relpath.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablespaceVersionDirectory(pub PgMajor);

impl fmt::Display for TablespaceVersionDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PG_{}_{}", self.0.number(), catalog_version(self.0))
    }
}

/// Where a database's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatabaseDirectory {
    /// The tablespace.
    pub tablespace: Oid,
    /// The database; 0 for shared catalogs.
    pub database: Oid,
}

impl DatabaseDirectory {
    /// Its path: `base/5`.
    ///
    /// # Source
    /// `GetDatabasePath` in `src/common/relpath.c`.
    #[must_use]
    pub const fn path(self, major: PgMajor) -> DatabasePath {
        DatabasePath {
            directory: self,
            major,
        }
    }
}

impl From<RelFileLocator> for DatabaseDirectory {
    fn from(locator: RelFileLocator) -> Self {
        Self {
            tablespace: locator.tablespace,
            database: locator.database,
        }
    }
}

/// The path of a database's directory, for printing. Printing it allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabasePath {
    directory: DatabaseDirectory,
    major: PgMajor,
}

impl fmt::Display for DatabasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DatabaseDirectory {
            tablespace,
            database,
        } = self.directory;
        match tablespace {
            GLOBAL_TABLESPACE => f.write_str("global"),
            DEFAULT_TABLESPACE => write!(f, "base/{database}"),
            _ => write!(
                f,
                "pg_tblspc/{tablespace}/{}/{database}",
                TablespaceVersionDirectory(self.major)
            ),
        }
    }
}

/// The path of a file of a relation, for printing. Printing it allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationPath {
    /// The relation.
    pub locator: RelFileLocator,
    /// The file's name.
    pub file: RelationFileName,
    /// The server's version.
    pub major: PgMajor,
}

impl RelFileLocator {
    /// The path of a fork's first file.
    ///
    /// # Source
    /// `GetRelationPath` in `src/common/relpath.c`.
    #[must_use]
    pub const fn path(self, fork: ForkNumber, major: PgMajor) -> RelationPath {
        RelationPath {
            locator: self,
            file: RelationFileName {
                relation: self.relation,
                fork,
                segment: 0,
            },
            major,
        }
    }
}

impl RelationPath {
    /// The path of another file of the fork: `segment` counts from 0.
    #[must_use]
    pub const fn with_segment(mut self, segment: u32) -> Self {
        self.file.segment = segment;
        self
    }
}

impl fmt::Display for RelationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = DatabaseDirectory::from(self.locator);
        write!(f, "{}/{}", directory.path(self.major), self.file)
    }
}

/// The name of a relation's file in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelationFileName {
    /// File number of the relation.
    pub relation: Oid,
    /// Its fork.
    pub fork: ForkNumber,
    /// Which piece of the fork, from 0; each but the last has `relseg_size` blocks, a gigabyte.
    pub segment: u32,
}

impl RelationFileName {
    /// The parts of a file's name; `None` for other files (`PG_VERSION`, temporary relations).
    ///
    /// # Source
    /// `parse_filename_for_nontemp_relation` in `src/backend/storage/file/reinit.c`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (rest, segment) = match name.split_once('.') {
            Some((rest, segment)) => (rest, number(segment).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (relation, fork) = match rest.split_once('_') {
            Some((relation, fork)) => {
                let mut forks = [
                    ForkNumber::FreeSpaceMap,
                    ForkNumber::VisibilityMap,
                    ForkNumber::Init,
                ]
                .into_iter();
                (relation, forks.find(|known| known.name() == fork)?)
            }
            None => (rest, ForkNumber::Main),
        };
        Some(Self {
            relation: number(relation)?,
            fork,
            segment,
        })
    }
}

impl fmt::Display for RelationFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.relation)?;
        if self.fork != ForkNumber::Main {
            write!(f, "_{}", self.fork.name())?;
        }
        if self.segment > 0 {
            write!(f, ".{}", self.segment)?;
        }
        Ok(())
    }
}

/// A number as the server writes it: digits, none of them a leading zero.
fn number(text: &str) -> Option<u32> {
    let is_canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_server_s() {
        let path = |tablespace, database, fork, segment| {
            let locator = RelFileLocator {
                tablespace,
                database,
                relation: 16384,
            };
            let path = locator.path(fork, PgMajor::V15).with_segment(segment);
            path.to_string()
        };
        assert_eq!(path(1663, 5, ForkNumber::Main, 0), "base/5/16384");
        assert_eq!(
            path(1664, 0, ForkNumber::FreeSpaceMap, 0),
            "global/16384_fsm"
        );
        assert_eq!(
            path(16385, 5, ForkNumber::VisibilityMap, 2),
            "pg_tblspc/16385/PG_15_202209061/5/16384_vm.2"
        );
        let global = DatabaseDirectory {
            tablespace: GLOBAL_TABLESPACE,
            database: 0,
        };
        assert_eq!(global.path(PgMajor::V12).to_string(), "global");
    }

    #[test]
    fn names_of_files_are_read_back() {
        for name in [
            "1",
            "16384_fsm",
            "16384_vm.3",
            "16384_init",
            "4294967295.131071",
        ] {
            let parsed = RelationFileName::parse(name).expect(name);
            assert_eq!(parsed.to_string(), name);
        }
        for other in [
            "",
            "PG_VERSION",
            "t3_16384",
            "16384_main",
            "16384.",
            "16384.0",
            "016384",
            "16384.01",
            "16384_fsm_vm",
            "4294967296",
            "+1",
            "pg_filenode.map",
            "16384 ",
            "_fsm",
        ] {
            assert_eq!(RelationFileName::parse(other), None, "{other}");
        }
    }
}
