//! Replacing a small file so that a crash leaves either the old or the new content, never a mixture.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file operation that failed, with the path it was about.
#[derive(Debug, Error)]
#[error("cannot {operation} \"{}\": {source}", path.display())]
pub struct FileError {
    /// What was tried, as a verb: `read`, `write`, `sync`, `rename`.
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system answered.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: adds the operation and path to a system error.
    pub fn of(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            operation,
            path,
            source,
        }
    }
}

/// Makes the entries of a directory durable; the empty path, which is the parent of a plain name, is the current one.
///
/// # Errors
/// [`FileError`] when the directory cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> Result<(), FileError> {
    let directory = match directory {
        empty if empty.as_os_str().is_empty() => Path::new("."),
        named => named,
    };
    File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(FileError::of("sync", directory))
}

/// Replaces `path` by a file of this content: a temporary file beside it, synced, renamed, the directory synced.
///
/// # Errors
/// [`FileError`] naming the step that failed; the old content is then still there.
///
/// # Source
/// `durable_rename` in `src/common/file_utils.c`.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = directory.join(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary)
        .map_err(FileError::of("create", &temporary))?;
    file.write_all(content)
        .map_err(FileError::of("write", &temporary))?;
    file.sync_all().map_err(FileError::of("sync", &temporary))?;
    std::fs::rename(&temporary, path).map_err(FileError::of("rename to", path))?;
    sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace_file(&path, b"a long first content").unwrap();
        replace_file(&path, b"short").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_plain_name_is_in_the_current_directory() {
        let parent = Path::new("state").parent().unwrap();
        sync_directory(parent).unwrap();
    }

    #[test]
    fn names_the_file_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        let error = replace_file(&dir.path().join("missing/state"), b"").unwrap_err();
        assert!(error.to_string().contains("missing/state.tmp"), "{error}");
    }
}
