//! [`Workplace`]: the directory in which a demonstration works.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::DemoError;
use super::scratch_dir::scratch_dir;
use super::server_user::ServerUser;

/// How long tasks that were ended may go on making files while these are removed.
const REMOVAL: Duration = Duration::from_secs(5);

/// A directory for the mirror, removed when this is dropped unless the user asked to keep it.
#[derive(Debug)]
pub(super) enum Workplace {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Workplace {
    /// A temporary directory, or the one to keep.
    ///
    /// # Errors
    /// [`DemoError::NotEmpty`], or that it cannot be made.
    pub(super) fn new(keep: Option<&Path>) -> Result<Self, DemoError> {
        match keep {
            Some(directory) => kept(directory).map(Self::Kept),
            None => {
                let made = tempfile::Builder::new().prefix("walstream-demo-").tempdir();
                let made = made.map_err(io_error("make a directory in", &std::env::temp_dir()))?;
                Ok(Self::Temporary(made))
            }
        }
    }

    /// The same where a server's user must be able to work, too.
    ///
    /// # Errors
    /// As [`Workplace::new`].
    pub(super) fn for_server(keep: Option<&Path>, user: &ServerUser) -> Result<Self, DemoError> {
        match keep {
            Some(directory) => kept(directory).map(Self::Kept),
            None => Ok(Self::Temporary(scratch_dir(user)?)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Kept(directory) => directory,
        }
    }

    /// The mirror's directory.
    pub(super) fn mirror(&self) -> PathBuf {
        self.path().join("mirror")
    }

    /// Where the mirror stays, if it does.
    pub(super) fn kept(&self) -> Option<PathBuf> {
        match self {
            Self::Temporary(_) => None,
            Self::Kept(_) => Some(self.mirror()),
        }
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if let Self::Temporary(directory) = self {
            // Threads of a receiver that was ended may be in the middle of something.
            let began = Instant::now();
            while let Err(error) = fs::remove_dir_all(directory.path()) {
                if error.kind() == io::ErrorKind::NotFound || began.elapsed() > REMOVAL {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn kept(directory: &Path) -> Result<PathBuf, DemoError> {
    let directory =
        std::path::absolute(directory).map_err(io_error("find the absolute path of", directory))?;
    match fs::read_dir(&directory) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(DemoError::NotEmpty { directory }),
            None => Ok(directory),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&directory);
            made.map_err(io_error("make", &directory))?;
            Ok(directory)
        }
        Err(error) => Err(io_error("read", &directory)(error)),
    }
}

/// For `map_err`: adds what was tried to a system error.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DemoError {
    let path = path.to_owned();
    move |source| DemoError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_is_removed_and_a_kept_one_stays() {
        let temporary = Workplace::new(None).unwrap();
        let path = temporary.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(temporary);
        assert!(!path.exists());

        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let kept = Workplace::new(Some(&path)).unwrap();
        assert_eq!(kept.kept(), Some(path.join("mirror")));
        fs::write(path.join("file"), "x").unwrap();
        drop(kept);
        assert!(path.join("file").exists());
        let error = Workplace::new(Some(&path)).unwrap_err();
        assert!(matches!(error, DemoError::NotEmpty { .. }), "{error}");
    }
}
