//! Making a directory tree durable before success is reported.
//!
//! Files are synced by a few threads at once, since each waits for the disk and not for a processor; then the
//! directories, then the directory that each tree was made in. A failed sync is an error, never a warning.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::mirror::durable::{FileError, sync_directory};

/// Syncs in flight at once.
const THREADS: usize = 8;

/// What was synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Number of plain files.
    pub files: usize,
    /// Number of directories, the trees' parents among them.
    pub directories: usize,
}

/// Syncs every file and directory below these roots, the roots, and the directories they are in. Links are not
/// followed, so each tablespace must be a root of its own. Blocks.
///
/// # Errors
/// [`FileError`] for the first file or directory that cannot be listed or synced.
///
/// # Source
/// `fsync_pgdata` in `src/common/file_utils.c`, which does it one file after the other.
pub fn sync_trees(roots: &[PathBuf]) -> Result<Synced, FileError> {
    let mut files = Vec::new();
    let mut directories = Vec::new();
    for root in roots {
        list(root, &mut files, &mut directories)?;
        let parent = root
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        directories.push(parent.unwrap_or(Path::new(".")).to_owned());
    }
    sync_files(&files)?;
    // Children were listed before their parents.
    directories
        .iter()
        .try_for_each(|directory| sync_directory(directory))?;
    Ok(Synced {
        files: files.len(),
        directories: directories.len(),
    })
}

fn list(
    directory: &Path,
    files: &mut Vec<PathBuf>,
    directories: &mut Vec<PathBuf>,
) -> Result<(), FileError> {
    for entry in fs::read_dir(directory).map_err(FileError::of("list", directory))? {
        let entry = entry.map_err(FileError::of("list", directory))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(FileError::of("examine", &path))?;
        if kind.is_dir() {
            list(&path, files, directories)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    directories.push(directory.to_owned());
    Ok(())
}

fn sync_files(files: &[PathBuf]) -> Result<(), FileError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), FileError> {
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = File::open(path).and_then(|file| file.sync_all());
            if let Err(error) = result {
                // The other threads need not go on.
                next.store(files.len(), Ordering::Relaxed);
                return Err(FileError::of("sync", path)(error));
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS.min(files.len()))
            .map(|_| scope.spawn(work))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .fold(Ok(()), Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_and_directory_is_synced_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        for index in 0..20 {
            fs::write(root.join(format!("a/b/{index}")), b"x").unwrap();
        }
        fs::write(root.join("top"), b"x").unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join("dangling")).unwrap();
        let synced = sync_trees(&[root]).unwrap();
        // root, a, b and the directory that root is in.
        assert_eq!(
            synced,
            Synced {
                files: 21,
                directories: 4
            }
        );
    }

    #[test]
    fn what_cannot_be_opened_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let missing: Vec<_> = (0..100)
            .map(|index| dir.path().join(index.to_string()))
            .collect();
        let error = sync_files(&missing).unwrap_err();
        assert_eq!(error.operation, "sync");
        assert!(sync_trees(&[dir.path().join("none")]).is_err());
    }
}
