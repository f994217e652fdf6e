//! Tablespaces of a base backup: where each goes on this machine.
//!
//! A tablespace outside the data directory is a symbolic link in `pg_tblspc` named by its OID. The directory it names on
//! the primary need not suit this machine, so `--tablespace-mapping OLD=NEW` moves it. An in-place tablespace (a
//! developers' setting) is a plain directory in `pg_tblspc` and stays where it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;
use walstream::types::Oid;

/// Why tablespaces cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TablespaceError {
    /// A mapping without exactly one `=`.
    #[error(
        "--tablespace-mapping \"{0}\" is not of the form OLD=NEW; write a \"=\" that belongs to a directory as \"\\=\""
    )]
    NoMapping(String),
    /// A mapping of or to a relative directory.
    #[error("--tablespace-mapping: \"{}\" is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// Two mappings for one directory.
    #[error("--tablespace-mapping: \"{}\" is mapped twice", .0.display())]
    MappedTwice(PathBuf),
    /// The server names a directory that cannot be one.
    #[error("the server says that tablespace {oid} is in \"{}\", which is {rule}", location.display())]
    Location {
        /// The tablespace.
        oid: Oid,
        /// Where the server says it is.
        location: PathBuf,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// Two tablespaces, or a tablespace and the mirror, would lie within one another.
    #[error("tablespace {oid} would be in \"{}\", which overlaps with \"{}\": choose another directory with --tablespace-mapping", directory.display(), other.display())]
    Overlap {
        /// The tablespace.
        oid: Oid,
        /// Where it would be.
        directory: PathBuf,
        /// The mirror's or another tablespace's directory.
        other: PathBuf,
    },
}

/// One `OLD=NEW`: what is in OLD on the primary is put into NEW here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablespaceMapping {
    /// Directory on the primary.
    pub old: PathBuf,
    /// Directory on this machine.
    pub new: PathBuf,
}

impl FromStr for TablespaceMapping {
    type Err = TablespaceError;

    /// # Source
    /// `tablespace_list_append` in `src/bin/pg_basebackup/pg_basebackup.c`.
    fn from_str(text: &str) -> Result<Self, TablespaceError> {
        let mut halves = vec![String::new()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' if characters.peek() == Some(&'=') => {
                    characters.next();
                    if let Some(half) = halves.last_mut() {
                        half.push('=');
                    }
                }
                '=' => halves.push(String::new()),
                other => {
                    if let Some(half) = halves.last_mut() {
                        half.push(other);
                    }
                }
            }
        }
        let [old, new] = halves.as_slice() else {
            return Err(TablespaceError::NoMapping(text.to_owned()));
        };
        if old.is_empty() || new.is_empty() {
            return Err(TablespaceError::NoMapping(text.to_owned()));
        }
        for half in [old, new] {
            if !half.starts_with('/') {
                return Err(TablespaceError::Relative(half.into()));
            }
        }
        Ok(Self {
            old: canonical(Path::new(old)),
            new: canonical(Path::new(new)),
        })
    }
}

/// All mappings of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablespaceMap(Vec<TablespaceMapping>);

impl TablespaceMap {
    /// Takes mappings in any order.
    ///
    /// # Errors
    /// [`TablespaceError::MappedTwice`].
    pub fn new(mappings: Vec<TablespaceMapping>) -> Result<Self, TablespaceError> {
        for (index, mapping) in mappings.iter().enumerate() {
            if mappings
                .iter()
                .skip(index.saturating_add(1))
                .any(|other| other.old == mapping.old)
            {
                return Err(TablespaceError::MappedTwice(mapping.old.clone()));
            }
        }
        Ok(Self(mappings))
    }

    /// Where a directory of the primary is here: as mapped, else at the same place.
    #[must_use]
    pub fn map(&self, location: &Path) -> PathBuf {
        let location = canonical(location);
        self.0
            .iter()
            .find(|mapping| mapping.old == location)
            .map_or(location, |mapping| mapping.new.clone())
    }

    /// Mappings whose OLD is none of these tablespaces: most likely mistyped.
    pub fn unused<'a>(
        &'a self,
        tablespaces: &'a [Tablespace],
    ) -> impl Iterator<Item = &'a TablespaceMapping> {
        self.0.iter().filter(|mapping| {
            !tablespaces
                .iter()
                .any(|tablespace| canonical(&tablespace.server_location) == mapping.old)
        })
    }
}

/// A tablespace of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID, the name in `pg_tblspc`.
    pub oid: Oid,
    /// Where the server says it is.
    pub server_location: PathBuf,
    /// Where its files go on this machine.
    pub directory: PathBuf,
    /// Whether it is a plain directory in `pg_tblspc`, without a link.
    pub in_place: bool,
}

/// Places the tablespaces that a backup's header lists.
///
/// `target` is the absolute mirror directory; `listed` has each tablespace's OID and location.
///
/// # Errors
/// [`TablespaceError::Location`] when the server names an impossible place, [`TablespaceError::Overlap`] when two trees
/// would be within one another.
pub fn place(
    target: &Path,
    map: &TablespaceMap,
    listed: impl IntoIterator<Item = (Oid, Vec<u8>)>,
) -> Result<Vec<Tablespace>, TablespaceError> {
    let target = canonical(target);
    let mut placed: Vec<Tablespace> = Vec::new();
    for (oid, location) in listed {
        let server_location = PathBuf::from(OsString::from_vec(location));
        let wrong = |rule| TablespaceError::Location {
            oid,
            location: server_location.clone(),
            rule,
        };
        let in_place = server_location.is_relative();
        let directory = if in_place {
            let expected = Path::new("pg_tblspc").join(oid.to_string());
            if server_location != expected {
                return Err(wrong("neither absolute nor in place in pg_tblspc"));
            }
            target.join(expected)
        } else {
            if server_location
                .components()
                .any(|part| part == Component::ParentDir)
            {
                return Err(wrong("not a plain path"));
            }
            let directory = map.map(&server_location);
            let others = placed
                .iter()
                .filter(|other| !other.in_place)
                .map(|other| &other.directory);
            if let Some(other) = std::iter::once(&target)
                .chain(others)
                .find(|other| overlap(other, &directory))
            {
                return Err(TablespaceError::Overlap {
                    oid,
                    directory,
                    other: other.clone(),
                });
            }
            directory
        };
        if placed.iter().any(|other| other.oid == oid) {
            return Err(wrong("listed twice"));
        }
        placed.push(Tablespace {
            oid,
            server_location,
            directory,
            in_place,
        });
    }
    Ok(placed)
}

/// Whether one of two directories lies within the other.
fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Without doubled and trailing slashes and without `.`, so that equal directories compare equal.
fn canonical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        clean.push(part.as_os_str());
    }
    if clean.as_os_str().is_empty() {
        PathBuf::from(OsStr::from_bytes(b"."))
    } else {
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(text: &str) -> TablespaceMapping {
        text.parse().unwrap()
    }

    #[test]
    fn mappings_are_parsed_as_pg_basebackup_does() {
        let both = |old: &str, new: &str| TablespaceMapping {
            old: old.into(),
            new: new.into(),
        };
        assert_eq!(mapping("/a=/b"), both("/a", "/b"));
        assert_eq!(mapping("//a/./x/=/b//"), both("/a/x", "/b"));
        assert_eq!(mapping(r"/a\=1=/b\=2"), both("/a=1", "/b=2"));
        for bad in ["", "/a", "/a=", "=/b", "/a=/b=/c"] {
            assert!(
                matches!(
                    bad.parse::<TablespaceMapping>(),
                    Err(TablespaceError::NoMapping(_))
                ),
                "{bad}"
            );
        }
        for bad in ["a=/b", "/a=b"] {
            assert!(
                matches!(
                    bad.parse::<TablespaceMapping>(),
                    Err(TablespaceError::Relative(_))
                ),
                "{bad}"
            );
        }
        assert_eq!(
            TablespaceMap::new(vec![mapping("/a=/b"), mapping("/a/=/c")]),
            Err(TablespaceError::MappedTwice("/a".into()))
        );
    }

    #[test]
    fn tablespaces_are_placed_and_unused_mappings_named() {
        let map = TablespaceMap::new(vec![mapping("/old=/new"), mapping("/typo=/x")]).unwrap();
        let listed = [
            (16384, b"/old/".to_vec()),
            (16385, b"/same".to_vec()),
            (16386, b"pg_tblspc/16386".to_vec()),
        ];
        let placed = place(Path::new("/mirror"), &map, listed).unwrap();
        let places: Vec<_> = placed
            .iter()
            .map(|t| (t.directory.to_str().unwrap(), t.in_place))
            .collect();
        assert_eq!(
            places,
            [
                ("/new", false),
                ("/same", false),
                ("/mirror/pg_tblspc/16386", true)
            ]
        );
        assert_eq!(
            map.unused(&placed).collect::<Vec<_>>(),
            [&mapping("/typo=/x")]
        );
    }

    #[test]
    fn impossible_places_are_refused() {
        let place = |location: &[u8]| {
            place(
                Path::new("/mirror"),
                &TablespaceMap::default(),
                [(1, b"/first".to_vec()), (2, location.to_vec())],
            )
        };
        for location in [&b"pg_tblspc/3"[..], b"", b"../x", b"/a/../b"] {
            assert!(
                matches!(
                    place(location),
                    Err(TablespaceError::Location { oid: 2, .. })
                ),
                "{location:?}"
            );
        }
        for location in [&b"/mirror"[..], b"/mirror/ts", b"/", b"/first", b"/first/x"] {
            assert!(
                matches!(
                    place(location),
                    Err(TablespaceError::Overlap { oid: 2, .. })
                ),
                "{location:?}"
            );
        }
        assert!(place(b"/mirror2").is_ok() && place(b"/firstly").is_ok());
    }
}
