//! Whether a directory may become a mirror: it must be new or empty, and when it is not, the answer says what it is.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use walstream::SystemIdentifier;
use walstream::read::Reader;

use crate::exit::Exit;
use crate::mirror::durable::FileError;
use crate::mirror::state::MirrorState;

/// Name of the file that marks a directory in which an init is at work, or was when it was killed.
pub const UNFINISHED: &str = "walstream.init";

/// A directory in which a mirror, or a tablespace of it, can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vacant {
    /// It is not there yet.
    Missing,
    /// It is there and empty.
    Empty,
}

/// Whether a directory found belongs to the cluster that is to be mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same system identifier.
    SameSystem,
    /// Another one.
    OtherSystem(SystemIdentifier),
    /// It could not be found out.
    Unknown,
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SameSystem => write!(f, "this same system"),
            Self::OtherSystem(identifier) => write!(f, "another system ({identifier})"),
            Self::Unknown => write!(f, "an unknown system"),
        }
    }
}

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum TargetError {
    /// It is a mirror already.
    #[error("\"{}\" is already a mirror of {relation}: go on with \"walreceiver run\", or choose another directory", directory.display())]
    Mirror {
        /// The directory.
        directory: PathBuf,
        /// Of which cluster.
        relation: Relation,
    },
    /// It is a server's data directory.
    #[error("\"{}\" is the data directory of {relation}{}: choose another directory", directory.display(), if *.running { ", and a server may be running on it" } else { "" })]
    DataDirectory {
        /// The directory.
        directory: PathBuf,
        /// Of which cluster.
        relation: Relation,
        /// Whether it has a `postmaster.pid`.
        running: bool,
    },
    /// Another init works on it, or one was killed before it could clean up.
    #[error("\"{}\" holds an unfinished init: when no other \"walreceiver init\" is at work on it, remove it and try again", directory.display())]
    Unfinished {
        /// The directory.
        directory: PathBuf,
    },
    /// Something else is in it.
    #[error("\"{}\" is not empty (it has \"{example}\"): empty it, or choose another directory", directory.display())]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
        /// One of the names in it.
        example: String,
    },
    /// The root of a file system.
    #[error("\"{}\" is a mount point (it has \"lost+found\"): use a directory below it", directory.display())]
    MountPoint {
        /// The directory.
        directory: PathBuf,
    },
    /// Something that is no directory has this name.
    #[error("\"{}\" exists and is not a directory: choose another", directory.display())]
    NotADirectory {
        /// The path.
        directory: PathBuf,
    },
    /// It cannot be examined.
    #[error(transparent)]
    File(#[from] FileError),
}

impl TargetError {
    /// The exit code that a command ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::File(_) => Exit::LocalStorage,
            _ => Exit::Unsafe,
        }
    }
}

/// Examines a directory that is to become part of a mirror of the system `server`.
///
/// # Errors
/// Each variant of [`TargetError`]: everything but a missing or empty directory is one.
pub fn examine(directory: &Path, server: SystemIdentifier) -> Result<Vacant, TargetError> {
    let owned = || directory.to_owned();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A dangling link is not a missing directory: making it would fail.
            return match fs::symlink_metadata(directory) {
                Ok(_) => Err(TargetError::NotADirectory { directory: owned() }),
                Err(_) => Ok(Vacant::Missing),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(TargetError::NotADirectory { directory: owned() });
        }
        Err(error) => return Err(FileError::of("list", directory)(error).into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::of("list", directory))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
        if names.len() > 10_000 {
            break;
        }
    }
    names.sort_unstable();
    let has = |name: &str| directory.join(name).symlink_metadata().is_ok();
    let Some(example) = names.first().cloned() else {
        return Ok(Vacant::Empty);
    };
    if has(UNFINISHED) {
        return Err(TargetError::Unfinished { directory: owned() });
    }
    if has(MirrorState::NAME) {
        let relation = match MirrorState::load(directory) {
            Ok(state) => relation(Some(state.facts.system_identifier), server),
            Err(_) => relation(control_system_identifier(directory), server),
        };
        return Err(TargetError::Mirror {
            directory: owned(),
            relation,
        });
    }
    if has("PG_VERSION") || has("global") {
        return Err(TargetError::DataDirectory {
            directory: owned(),
            relation: relation(control_system_identifier(directory), server),
            running: has("postmaster.pid"),
        });
    }
    if names == ["lost+found"] {
        return Err(TargetError::MountPoint { directory: owned() });
    }
    Err(TargetError::NotEmpty {
        directory: owned(),
        example,
    })
}

fn relation(found: Option<SystemIdentifier>, server: SystemIdentifier) -> Relation {
    match found {
        Some(found) if found == server => Relation::SameSystem,
        Some(found) => Relation::OtherSystem(found),
        None => Relation::Unknown,
    }
}

/// The system identifier in a data directory's `pg_control`, where it is the first field in every version. The rest
/// is not checked: this only words a refusal.
fn control_system_identifier(directory: &Path) -> Option<SystemIdentifier> {
    let mut bytes = [0; 8];
    fs::File::open(directory.join("global/pg_control"))
        .ok()?
        .read_exact(&mut bytes)
        .ok()?;
    Reader::new(&bytes).u64_le().ok().map(SystemIdentifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: SystemIdentifier = SystemIdentifier(7);

    #[test]
    fn new_and_empty_directories_are_vacant() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(examine(dir.path(), SERVER).unwrap(), Vacant::Empty);
        assert_eq!(
            examine(&dir.path().join("new"), SERVER).unwrap(),
            Vacant::Missing
        );
    }

    #[test]
    fn each_kind_of_occupied_directory_is_told() {
        let kind = |files: &[(&str, &[u8])]| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("global")).unwrap();
            for (name, content) in files {
                fs::write(dir.path().join(name), content).unwrap();
            }
            if !files.iter().any(|(name, _)| name.starts_with("global")) {
                fs::remove_dir(dir.path().join("global")).unwrap();
            }
            let error = examine(dir.path(), SERVER).unwrap_err();
            assert_eq!(error.exit(), Exit::Unsafe);
            error
        };
        let control = |identifier: u64| identifier.to_le_bytes();
        let same = kind(&[("global/pg_control", &control(7)), ("postmaster.pid", b"")]);
        assert!(matches!(
            same,
            TargetError::DataDirectory {
                relation: Relation::SameSystem,
                running: true,
                ..
            }
        ));
        let other = kind(&[("global/pg_control", &control(8)), ("PG_VERSION", b"15\n")]);
        let eight = Relation::OtherSystem(SystemIdentifier(8));
        assert!(
            matches!(&other, TargetError::DataDirectory { relation, running: false, .. } if *relation == eight),
            "{other}"
        );
        let mirror = kind(&[
            ("walstream.mirror", b"damaged"),
            ("global/pg_control", &control(7)),
        ]);
        assert!(matches!(
            mirror,
            TargetError::Mirror {
                relation: Relation::SameSystem,
                ..
            }
        ));
        let mirror = kind(&[("walstream.mirror", b"damaged")]);
        assert!(matches!(
            mirror,
            TargetError::Mirror {
                relation: Relation::Unknown,
                ..
            }
        ));
        assert!(matches!(
            kind(&[(UNFINISHED, b""), ("PG_VERSION", b"15")]),
            TargetError::Unfinished { .. }
        ));
        assert!(matches!(
            kind(&[("lost+found", b"")]),
            TargetError::MountPoint { .. }
        ));
        let other = kind(&[(".hidden", b""), ("x", b"")]);
        assert!(
            matches!(&other, TargetError::NotEmpty { example, .. } if example == ".hidden"),
            "{other}"
        );
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(matches!(
            examine(&file, SERVER),
            Err(TargetError::NotADirectory { .. })
        ));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(matches!(
            examine(&link, SERVER),
            Err(TargetError::NotADirectory { .. })
        ));
    }
}
