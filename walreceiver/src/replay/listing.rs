//! [`list`]: what is in a directory.

use std::io;
use std::path::Path;

use super::storage::DataStorage;
use crate::mirror::durable::FileError;

/// Names in a directory that are text; none when it does not exist.
pub(super) fn list<S: DataStorage>(
    storage: &S,
    directory: &Path,
) -> Result<Vec<String>, FileError> {
    match storage.list(directory) {
        Ok(names) => Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(FileError::of("list", directory)(error)),
    }
}
