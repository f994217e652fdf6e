//! The tablespaces of a data directory: the links in its `pg_tblspc`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::BackupError;

/// A tablespace outside of the directories that every cluster has.
///
/// # Source
/// `tablespaceinfo` in `src/include/backup/basebackup.h`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID.
    pub oid: u32,
    /// Where it is.
    pub path: PathBuf,
    /// Where it is within the data directory, when it lies there.
    pub inside: Option<PathBuf>,
}

/// The tablespaces, in the order of the directory. What is no link is no tablespace with a place of its own. Blocks.
///
/// # Errors
/// [`BackupError::File`].
///
/// # Source
/// `do_pg_backup_start` in `src/backend/access/transam/xlog.c`.
pub(crate) fn find_tablespaces(data_directory: &Path) -> Result<Vec<Tablespace>, BackupError> {
    let directory = data_directory.join("pg_tblspc");
    // The server knows its directory by its real path.
    let real = fs::canonicalize(data_directory).unwrap_or_else(|_| data_directory.to_owned());
    let mut tablespaces = Vec::new();
    for entry in
        fs::read_dir(&directory).map_err(BackupError::file("open directory", &directory))?
    {
        let entry = entry.map_err(BackupError::file("read directory", &directory))?;
        let name = entry.file_name();
        let Some(oid) = name
            .to_str()
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        else {
            continue;
        };
        let Ok(oid) = oid.parse() else { continue };
        let path = entry.path();
        match fs::read_link(&path) {
            Ok(target) => tablespaces.push(Tablespace {
                oid,
                inside: target.strip_prefix(&real).ok().map(Path::to_owned),
                path: target,
            }),
            // No link, or dropped meanwhile.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                ) => {}
            Err(error) => return Err(BackupError::file("read symbolic link", &path)(error)),
        }
    }
    Ok(tablespaces)
}
