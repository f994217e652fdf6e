//! A mirror belongs to one user: the one that will run PostgreSQL on it.
//!
//! A segment written by somebody else, such as root, would keep PostgreSQL from starting when it is needed most.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::durable::FileError;
use crate::exit::Exit;

/// The directory's owner is another user.
#[derive(Debug, Error)]
pub enum OwnerError {
    /// As the variant's message says.
    #[error(
        "\"{}\" belongs to user {owner}, and this runs as user {user}: run it as the directory's owner, who will also \
         run PostgreSQL on it", directory.display()
    )]
    OtherUser {
        /// The directory.
        directory: PathBuf,
        /// User number of its owner.
        owner: u32,
        /// User number of this process.
        user: u32,
    },
    /// The directory cannot be looked at.
    #[error(transparent)]
    File(#[from] FileError),
}

impl OwnerError {
    /// The exit code that a command ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::OtherUser { .. } => Exit::Usage,
            Self::File(_) => Exit::LocalStorage,
        }
    }
}

/// Makes sure that this process runs as the owner of the directory. A directory that does not exist passes: what is to be
/// done with it says so better.
///
/// # Errors
/// [`OwnerError`].
///
/// # Source
/// `checkDataDir` in `src/backend/utils/init/miscinit.c` makes the same demand.
pub fn require_owner(directory: &Path) -> Result<(), OwnerError> {
    let owner = match std::fs::metadata(directory) {
        Ok(metadata) => metadata.uid(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::of("look at", directory)(error).into()),
    };
    let user = rustix::process::geteuid().as_raw();
    if owner == user {
        Ok(())
    } else {
        Err(OwnerError::OtherUser {
            directory: directory.to_owned(),
            owner,
            user,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_passes_and_another_does_not() {
        let dir = tempfile::tempdir().unwrap();
        require_owner(dir.path()).unwrap();
        require_owner(&dir.path().join("missing")).unwrap();
        // Root owns the file system's root; as root, another user's directory must be refused.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
            let error = require_owner(dir.path()).unwrap_err();
            assert!(matches!(
                error,
                OwnerError::OtherUser {
                    owner: 12345,
                    user: 0,
                    ..
                }
            ));
        } else {
            assert!(matches!(
                require_owner(Path::new("/")),
                Err(OwnerError::OtherUser { owner: 0, .. })
            ));
        }
    }
}
