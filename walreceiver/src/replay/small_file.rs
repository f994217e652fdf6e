//! Small files of a data directory, read and replaced as a whole through the storage seam.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::storage::DataStorage;
use crate::mirror::durable::FileError;

/// The content of a file; `None` when there is none.
pub(super) fn read_file<S: DataStorage>(
    storage: &S,
    path: &Path,
) -> Result<Option<Vec<u8>>, FileError> {
    let file = match storage.open_to_read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::of("open", path)(error)),
    };
    let mut content = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let at = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let count = storage
            .read_at(&file, &mut buffer, at)
            .map_err(FileError::of("read", path))?;
        match buffer.get(..count) {
            Some(read) if !read.is_empty() => content.extend_from_slice(read),
            _ => return Ok(Some(content)),
        }
    }
}

/// Writes all bytes at `offset`, however many calls it takes.
pub(super) fn write_all<S: DataStorage>(
    storage: &S,
    file: &S::File,
    path: &Path,
    bytes: &[u8],
    offset: u64,
) -> Result<(), FileError> {
    let (mut rest, mut offset) = (bytes, offset);
    while !rest.is_empty() {
        match storage.write_at(file, &[IoSlice::new(rest)], offset) {
            Ok(0) => {
                return Err(FileError::of("write", path)(
                    io::ErrorKind::WriteZero.into(),
                ));
            }
            Ok(written) => {
                offset += u64::try_from(written).unwrap_or(u64::MAX);
                rest = rest.get(written..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::of("write", path)(error)),
        }
    }
    Ok(())
}

/// Writes a new file, which is durable under its name once its directory is synced.
pub(super) fn write_file<S: DataStorage>(
    storage: &S,
    path: &Path,
    content: &[u8],
) -> Result<(), FileError> {
    let file = storage
        .create(path)
        .map_err(FileError::of("create", path))?;
    write_all(storage, &file, path, content, 0)?;
    storage
        .sync_data(&file)
        .map_err(FileError::of("sync", path))
}

/// Replaces a file by one of this content, so that a crash leaves either the one or the other.
///
/// # Source
/// `durable_rename` in `src/backend/storage/file/fd.c`.
pub(super) fn replace_file<S: DataStorage>(
    storage: &S,
    path: &Path,
    content: &[u8],
) -> Result<(), FileError> {
    let temporary = temporary_name(path);
    write_file(storage, &temporary, content)?;
    rename_durably(storage, &temporary, path)
}

/// How the names end of files that are not whole yet.
pub(super) const TEMPORARY: &str = ".tmp";

/// The name under which [`replace_file`] writes.
pub(super) fn temporary_name(path: &Path) -> PathBuf {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    temporary.into()
}

/// Gives a file another name in its directory, durably.
pub(super) fn rename_durably<S: DataStorage>(
    storage: &S,
    from: &Path,
    to: &Path,
) -> Result<(), FileError> {
    storage
        .rename(from, to)
        .map_err(FileError::of("rename to", to))?;
    let directory = to.parent().unwrap_or(Path::new("."));
    storage
        .sync_directory(directory)
        .map_err(FileError::of("sync", directory))
}

/// Removes a file; one that is not there is no error. Gives whether it was.
pub(super) fn remove_file<S: DataStorage>(storage: &S, path: &Path) -> Result<bool, FileError> {
    match storage.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::of("remove", path)(error)),
    }
}
