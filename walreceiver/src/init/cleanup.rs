//! [`Created`], what an init has made on this machine, so that a failure can take back exactly that.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::target::{TargetError, UNFINISHED, Vacant};
use crate::mirror::durable::FileError;

/// Directories that an init made or filled.
#[derive(Debug, Default)]
pub struct Created {
    /// Directories that were not there, outermost first.
    made: Vec<PathBuf>,
    /// Directories whose whole content is ours: made by us, or found empty.
    filled: Vec<PathBuf>,
}

impl Created {
    /// Makes `directory` ours: creates it with the missing ones above it, or takes over the empty one that is there.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be made or its permissions cannot be set.
    pub fn occupy(&mut self, directory: &Path, vacant: Vacant, mode: u32) -> Result<(), FileError> {
        if vacant == Vacant::Missing {
            let mut missing: Vec<&Path> = directory
                .ancestors()
                .take_while(|path| {
                    !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err()
                })
                .collect();
            while let Some(path) = missing.pop() {
                let mut builder = fs::DirBuilder::new();
                builder
                    .mode(mode)
                    .create(path)
                    .map_err(FileError::of("create the directory", path))?;
                self.made.push(path.to_owned());
            }
        }
        self.filled.push(directory.to_owned());
        fs::set_permissions(directory, fs::Permissions::from_mode(mode))
            .map_err(FileError::of("set the permissions of", directory))
    }

    /// Marks the mirror directory as unfinished, atomically: of two inits that found it empty, one gets it. Only after
    /// this may [`Created::occupy`] have made the directory's content ours.
    ///
    /// # Errors
    /// [`TargetError::Unfinished`] when another init was first.
    pub fn claim(
        &mut self,
        directory: &Path,
        vacant: Vacant,
        mode: u32,
    ) -> Result<(), TargetError> {
        let mut mine = Self::default();
        match mine.occupy_and_mark(directory, vacant, mode) {
            Ok(()) => {
                self.made.append(&mut mine.made);
                self.filled.append(&mut mine.filled);
                Ok(())
            }
            Err(error) => {
                // Only empty directories go: another init may be at work in them.
                for path in mine.made.iter().rev() {
                    let _ = fs::remove_dir(path);
                }
                Err(error)
            }
        }
    }

    fn occupy_and_mark(
        &mut self,
        directory: &Path,
        vacant: Vacant,
        mode: u32,
    ) -> Result<(), TargetError> {
        self.occupy(directory, vacant, mode)?;
        let path = directory.join(UNFINISHED);
        let mut options = fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                // What it says is for people; that it is there is what counts.
                let _ = writeln!(file, "walreceiver init, process {}", std::process::id());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(TargetError::Unfinished {
                    directory: directory.to_owned(),
                })
            }
            Err(error) => Err(FileError::of("create", &path)(error).into()),
        }
    }

    /// Directories in which a directory was made: they have new names in them that are to be made durable.
    #[must_use]
    pub fn parents(&self) -> Vec<PathBuf> {
        self.made
            .iter()
            .filter_map(|path| path.parent())
            .map(Path::to_owned)
            .collect()
    }

    /// Takes the mark away: everything in the directory is whole, and only the mirror's state file is missing.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be removed.
    pub fn finish(directory: &Path) -> Result<(), FileError> {
        let path = directory.join(UNFINISHED);
        fs::remove_file(&path).map_err(FileError::of("remove", &path))
    }

    /// Removes everything again. Goes on after an error, and returns what could not be removed.
    ///
    /// Links are removed and never followed. A directory above ours goes only when it was made here and is empty.
    pub fn remove(self) -> Vec<FileError> {
        let mut failures = Vec::new();
        for directory in &self.filled {
            if let Err(failure) = empty(directory) {
                failures.push(failure);
            }
        }
        for directory in self.made.iter().rev() {
            match fs::remove_dir(directory) {
                Ok(()) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                    ) => {}
                Err(error) => failures.push(FileError::of("remove", directory)(error)),
            }
        }
        failures
    }
}

/// Removes what is in a directory; the mark goes last, so that a directory half emptied is not taken for another's.
fn empty(directory: &Path) -> Result<(), FileError> {
    let mut mark = None;
    for entry in fs::read_dir(directory).map_err(FileError::of("list", directory))? {
        let entry = entry.map_err(FileError::of("list", directory))?;
        let path = entry.path();
        if entry.file_name() == UNFINISHED {
            mark = Some(path);
            continue;
        }
        let is_directory = entry
            .file_type()
            .map_err(FileError::of("examine", &path))?
            .is_dir();
        let removed = if is_directory {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(FileError::of("remove", &path))?;
    }
    mark.map_or(Ok(()), |path| {
        fs::remove_file(&path).map_err(FileError::of("remove", &path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_goes_and_what_was_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, b"mine").unwrap();
        let new = dir.path().join("a/b/new");
        let found = dir.path().join("found");
        fs::create_dir(&found).unwrap();
        let mut created = Created::default();
        created.claim(&new, Vacant::Missing, 0o700).unwrap();
        created.occupy(&found, Vacant::Empty, 0o750).unwrap();
        fs::create_dir(new.join("sub")).unwrap();
        fs::write(new.join("sub/file"), b"").unwrap();
        fs::write(found.join("file"), b"").unwrap();
        std::os::unix::fs::symlink(&outside, new.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), new.join("sub/link")).unwrap();
        assert_eq!(
            fs::metadata(&found).unwrap().permissions().mode() & 0o777,
            0o750
        );
        assert!(created.remove().is_empty());
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["found", "outside"]);
        assert_eq!(fs::read_dir(&found).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_above_that_others_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut created = Created::default();
        created
            .claim(&dir.path().join("shared/new"), Vacant::Missing, 0o700)
            .unwrap();
        fs::write(dir.path().join("shared/other"), b"").unwrap();
        assert!(created.remove().is_empty());
        assert!(
            dir.path().join("shared/other").exists() && !dir.path().join("shared/new").exists()
        );
    }

    #[test]
    fn of_two_inits_one_gets_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (mut first, mut second) = (Created::default(), Created::default());
        first.claim(dir.path(), Vacant::Empty, 0o700).unwrap();
        let error = second.claim(dir.path(), Vacant::Empty, 0o700).unwrap_err();
        assert!(matches!(error, TargetError::Unfinished { .. }), "{error}");
        assert!(second.remove().is_empty());
        assert!(
            dir.path().join(UNFINISHED).exists(),
            "the second leaves the first alone"
        );
        Created::finish(dir.path()).unwrap();
        assert!(!dir.path().join(UNFINISHED).exists());
    }
}
