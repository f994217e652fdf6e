//! Unlogged relations, whose content is not in WAL: all but their init forks is removed before redo, and made anew from those after
//! recovery ended.
//!
//! # Source
//! `ResetUnloggedRelations` in `src/backend/storage/file/reinit.c`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use walstream::storage::relation_path::RelationFileName;
use walstream::types::ForkNumber;

use super::layout::ClusterLayout;
use super::listing::list;
use super::small_file::{read_file, remove_file, write_file};
use super::storage::DataStorage;
use crate::mirror::durable::FileError;

/// Removes what unlogged relations hold, but for their init forks. Gives the number of files.
pub(super) fn remove_unlogged<S: DataStorage>(
    storage: &S,
    layout: &ClusterLayout,
) -> Result<u64, FileError> {
    let mut removed = 0;
    for directory in database_directories(storage, layout)? {
        let files = relation_files(storage, &directory)?;
        let unlogged: BTreeSet<_> = files
            .iter()
            .filter(|file| file.fork == ForkNumber::Init)
            .map(|file| file.relation)
            .collect();
        for file in files {
            if file.fork != ForkNumber::Init && unlogged.contains(&file.relation) {
                remove_file(storage, &directory.join(file.to_string()))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Makes the main forks of unlogged relations from their init forks, durably. Gives the number of files.
pub(super) fn restore_unlogged<S: DataStorage>(
    storage: &S,
    layout: &ClusterLayout,
) -> Result<u64, FileError> {
    let mut made = 0;
    for directory in database_directories(storage, layout)? {
        let before = made;
        for file in relation_files(storage, &directory)? {
            if file.fork != ForkNumber::Init {
                continue;
            }
            // Init forks are a page or a few.
            let content = read_file(storage, &directory.join(file.to_string()))?;
            let main = RelationFileName {
                fork: ForkNumber::Main,
                ..file
            };
            write_file(
                storage,
                &directory.join(main.to_string()),
                &content.unwrap_or_default(),
            )?;
            made += 1;
        }
        if made > before {
            storage
                .sync_directory(&directory)
                .map_err(FileError::of("sync", &directory))?;
        }
    }
    Ok(made)
}

/// Directories of all databases in all tablespaces, but not that of shared catalogs, none of which is unlogged.
pub(super) fn database_directories<S: DataStorage>(
    storage: &S,
    layout: &ClusterLayout,
) -> Result<Vec<PathBuf>, FileError> {
    let mut places = vec![layout.root.join("base")];
    for tablespace in list(storage, &layout.root.join("pg_tblspc"))? {
        places.push(
            layout
                .root
                .join("pg_tblspc")
                .join(tablespace)
                .join(layout.version_directory()),
        );
    }
    let mut directories = Vec::new();
    for place in places {
        for name in list(storage, &place)? {
            if name.bytes().all(|byte| byte.is_ascii_digit()) {
                directories.push(place.join(name));
            }
        }
    }
    Ok(directories)
}

fn relation_files<S: DataStorage>(
    storage: &S,
    directory: &Path,
) -> Result<Vec<RelationFileName>, FileError> {
    let names = list(storage, directory)?;
    Ok(names
        .iter()
        .filter_map(|name| RelationFileName::parse(name))
        .collect())
}
