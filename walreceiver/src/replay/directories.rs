//! Directories of databases and tablespaces, as records make and remove them.
//!
//! # Source
//! `dbase_redo` in `src/backend/commands/dbcommands.c`, `tblspc_redo` in `src/backend/commands/tablespace.c`, `copydir` in
//! `src/backend/storage/file/copydir.c`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use walstream::storage::relation_path::DatabaseDirectory;
use walstream::types::Oid;

use super::layout::ClusterLayout;
use super::listing::list;
use super::small_file::{remove_file, write_all, write_file};
use super::storage::DataStorage;
use crate::mirror::durable::FileError;

/// Bytes copied at once.
const COPY_CHUNK: usize = 1 << 20;

fn make_directory<S: DataStorage>(storage: &S, directory: &Path) -> Result<(), FileError> {
    storage
        .make_directory(directory)
        .map_err(FileError::of("create directory", directory))
}

fn sync_directory<S: DataStorage>(storage: &S, directory: &Path) -> Result<(), FileError> {
    storage
        .sync_directory(directory)
        .map_err(FileError::of("sync", directory))
}

fn sync_parent<S: DataStorage>(storage: &S, path: &Path) -> Result<(), FileError> {
    path.parent()
        .map_or(Ok(()), |parent| sync_directory(storage, parent))
}

/// Makes a database's directory as a copy of another, durably. Changed pages of the source were written before.
pub(super) fn copy_database<S: DataStorage>(
    storage: &S,
    layout: &ClusterLayout,
    from: DatabaseDirectory,
    to: DatabaseDirectory,
) -> Result<(), FileError> {
    let (from, to) = (
        layout.database_directory(from),
        layout.database_directory(to),
    );
    remove_directory(storage, &to)?;
    make_directory(storage, &to)?;
    // Dropped by a record to come, if it is not there.
    make_directory(storage, &from)?;
    for name in list(storage, &from)? {
        let source = from.join(&name);
        if !storage.is_directory(&source) {
            copy_file(storage, &source, &to.join(&name))?;
        }
    }
    sync_directory(storage, &to)?;
    sync_parent(storage, &to)
}

fn copy_file<S: DataStorage>(storage: &S, from: &Path, to: &Path) -> Result<(), FileError> {
    let source = storage
        .open_to_read(from)
        .map_err(FileError::of("open", from))?;
    let target = storage.create(to).map_err(FileError::of("create", to))?;
    let mut buffer = vec![0; COPY_CHUNK];
    let mut offset = 0;
    loop {
        let count = storage
            .read_at(&source, &mut buffer, offset)
            .map_err(FileError::of("read", from))?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        write_all(storage, &target, to, read, offset)?;
        offset += u64::try_from(count).unwrap_or(u64::MAX);
    }
    storage
        .sync_data(&target)
        .map_err(FileError::of("sync", to))
}

/// Makes a database's directory with its version file.
pub(super) fn create_database<S: DataStorage>(
    storage: &S,
    layout: &ClusterLayout,
    directory: DatabaseDirectory,
) -> Result<(), FileError> {
    let path = layout.database_directory(directory);
    make_directory(storage, &path)?;
    let version = format!("{}\n", layout.dialect.major.number());
    write_file(storage, &path.join("PG_VERSION"), version.as_bytes())?;
    sync_directory(storage, &path)?;
    sync_parent(storage, &path)
}

/// Removes a directory with all that is in it; that it is gone is durable.
pub(super) fn remove_directory<S: DataStorage>(
    storage: &S,
    directory: &Path,
) -> Result<(), FileError> {
    if !storage.is_directory(directory) {
        return Ok(());
    }
    storage
        .remove_directory(directory)
        .map_err(FileError::of("remove directory", directory))?;
    sync_parent(storage, directory)
}

/// Makes a tablespace: the directory of this version at its location, and the link there.
pub(super) fn create_tablespace<S: DataStorage>(
    storage: &S,
    layout: &ClusterLayout,
    tablespace: Oid,
    location: &[u8],
) -> Result<(), FileError> {
    let link = layout.tablespace_link(tablespace);
    if location.is_empty() {
        make_directory(storage, &link.join(layout.version_directory()))?;
        return sync_parent(storage, &link);
    }
    let location = PathBuf::from(OsStr::from_bytes(location));
    if !storage.is_directory(&location) {
        let error = io::Error::other(
            "a tablespace is made there: create this directory, and run replay again",
        );
        return Err(FileError::of("use", &location)(error));
    }
    make_directory(storage, &location.join(layout.version_directory()))?;
    sync_directory(storage, &location)?;
    make_link(storage, &location, &link)
}

/// Makes a tablespace's link, or lets it lead elsewhere.
pub(super) fn make_link<S: DataStorage>(
    storage: &S,
    target: &Path,
    link: &Path,
) -> Result<(), FileError> {
    let found = storage
        .read_link(link)
        .map_err(FileError::of("read link", link))?;
    if found.as_deref() == Some(target) {
        return Ok(());
    }
    if found.is_some() {
        remove_file(storage, link)?;
    } else {
        // A record of a database made it, before this one was seen.
        remove_directory(storage, link)?;
    }
    storage
        .link(target, link)
        .map_err(FileError::of("create link", link))?;
    sync_parent(storage, link)
}

/// Removes a tablespace: its version's directory, which holds no relations, and the link. What others left there stays.
pub(super) fn drop_tablespace<S: DataStorage>(
    storage: &S,
    layout: &ClusterLayout,
    tablespace: Oid,
) -> Result<(), FileError> {
    let link = layout.tablespace_link(tablespace);
    let version = link.join(layout.version_directory());
    for database in list(storage, &version)? {
        let database = version.join(database);
        if !list(storage, &database)?.is_empty() {
            tracing::warn!(
                directory = %database.display(),
                "tablespace {tablespace} was dropped, and this directory in it is not empty: it stays"
            );
            return Ok(());
        }
    }
    storage
        .remove_directory(&version)
        .map_err(FileError::of("remove directory", &version))?;
    let found = storage
        .read_link(&link)
        .map_err(FileError::of("read link", &link))?;
    if found.is_some() {
        remove_file(storage, &link)?;
    } else {
        storage
            .remove_directory(&link)
            .map_err(FileError::of("remove directory", &link))?;
    }
    sync_parent(storage, &link)
}
