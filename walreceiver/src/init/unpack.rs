//! The tar archives of a base backup become files, checksummed while they are written.
//!
//! What an archive may do is narrow, since its names come from another machine: plain files and directories below its own
//! root, and in the main archive symbolic links `pg_tblspc/OID`, whose targets are chosen here and never followed while
//! unpacking. Absolute names, `..`, other links, devices, a file that is there already and bytes after the end are
//! refused. A length field reserves no memory.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};
use thiserror::Error;

use super::manifest_check::WrittenFile;
use super::tablespaces::{Tablespace, TablespaceMap};
use walsender::backup::file_checksum::Checksummer;
use walstream::protocol::command::ManifestChecksums;

const BUFFER: usize = 256 << 10;

/// Where an archive goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// The data directory itself.
    Main {
        /// The mirror directory.
        target: PathBuf,
        /// The tablespaces that the backup's header lists.
        tablespaces: Vec<Tablespace>,
        /// Places tablespaces that the header does not list, because they were made after it.
        map: TablespaceMap,
    },
    /// One tablespace.
    Tablespace(Tablespace),
}

impl Destination {
    fn root(&self) -> &Path {
        match self {
            Self::Main { target, .. } => target,
            Self::Tablespace(tablespace) => &tablespace.directory,
        }
    }

    /// What comes before an entry's name in the manifest.
    fn manifest_prefix(&self) -> String {
        match self {
            Self::Main { .. } => String::new(),
            Self::Tablespace(tablespace) => format!("pg_tblspc/{}/", tablespace.oid),
        }
    }
}

/// What an archive became.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Every file received, in order.
    pub files: Vec<WrittenFile>,
    /// Names of files that were received and checksummed but not kept, since a mirror must not have them.
    pub dropped: Vec<String>,
    /// Tablespaces made after the backup's header: link and the directory it names here.
    pub late_links: Vec<(PathBuf, PathBuf)>,
}

/// Why an archive cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The archive ended early, its header is damaged, or its source failed.
    #[error("the archive cannot be read: {0}")]
    Read(#[source] io::Error),
    /// A name that leaves the archive's root, or is none.
    #[error("the archive names \"{name}\", which {rule}: refused")]
    Name {
        /// The name as sent.
        name: String,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// An entry that is neither file, directory nor tablespace link.
    #[error("the archive has \"{name}\" as an entry of type {kind:?}: refused")]
    Kind {
        /// Name of the entry.
        name: String,
        /// Type byte of the header.
        kind: char,
    },
    /// A file shorter than its header says.
    #[error("\"{name}\" ended after {found} of {expected} bytes")]
    Short {
        /// Name of the entry.
        name: String,
        /// Bytes received.
        found: u64,
        /// Bytes promised.
        expected: u64,
    },
    /// Bytes other than zero after the archive's end.
    #[error("the archive goes on after its end")]
    Trailing,
    /// The local disk refused.
    #[error("cannot {operation} \"{}\": {source}", path.display())]
    Storage {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

fn storage(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UnpackError {
    let path = path.to_owned();
    move |source| UnpackError::Storage {
        operation,
        path,
        source,
    }
}

/// Files that a mirror must not take over from the server: those of walstream itself, which an activated mirror still
/// has, and the signal files of a standby, since it is activation that decides how a mirror starts.
fn is_dropped(name: &Path) -> bool {
    let bytes = name.as_os_str().as_bytes();
    let at_root = !bytes.contains(&b'/');
    at_root
        && (bytes.starts_with(b"walstream.")
            || bytes == b"standby.signal"
            || bytes == b"recovery.signal")
}

/// Unpacks one archive; blocks, so it is for a thread of its own.
///
/// # Errors
/// Each variant of [`UnpackError`]. What was written until then stays; the caller removes it.
///
/// # Source
/// Written by `sendDir`, `sendTablespace` and `_tarWriteHeader` in `src/backend/backup/basebackup.c`.
pub fn unpack(
    source: impl Read,
    destination: &Destination,
    algorithm: ManifestChecksums,
) -> Result<Unpacked, UnpackError> {
    let mut unpacker = Unpacker {
        destination,
        algorithm,
        links: HashSet::new(),
        buffer: vec![0; BUFFER],
        unpacked: Unpacked::default(),
    };
    let mut archive = Archive::new(source);
    // Extensions for long names would be read into memory whole; PostgreSQL sends none, and raw entries have none.
    for entry in archive.entries().map_err(UnpackError::Read)?.raw(true) {
        unpacker.entry(entry.map_err(UnpackError::Read)?)?;
    }
    let mut rest = archive.into_inner();
    loop {
        match rest.read(&mut unpacker.buffer) {
            Ok(0) => return Ok(unpacker.unpacked),
            Ok(length) if unpacker.buffer.iter().take(length).all(|&byte| byte == 0) => {}
            Ok(_) => return Err(UnpackError::Trailing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(UnpackError::Read(error)),
        }
    }
}

struct Unpacker<'a> {
    destination: &'a Destination,
    algorithm: ManifestChecksums,
    links: HashSet<PathBuf>,
    buffer: Vec<u8>,
    unpacked: Unpacked,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: Entry<'_, R>) -> Result<(), UnpackError> {
        let name = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&name).into_owned();
        let relative = relative_path(&name).map_err(|rule| UnpackError::Name {
            name: shown.clone(),
            rule,
        })?;
        if relative
            .ancestors()
            .any(|parent| self.links.contains(parent))
        {
            return Err(UnpackError::Name {
                name: shown,
                rule: "lies behind a link",
            });
        }
        let path = self.destination.root().join(&relative);
        let mode = entry.header().mode().map_err(UnpackError::Read)? & 0o777;
        match entry.header().entry_type() {
            EntryType::Regular => self.file(entry, &relative, &path, mode),
            EntryType::Directory => directory(&path, mode),
            EntryType::Symlink => self.link(&entry, &relative, &path),
            other => Err(UnpackError::Kind {
                name: shown,
                kind: char::from(other.as_byte()),
            }),
        }
    }

    fn file<R: Read>(
        &mut self,
        mut entry: Entry<'_, R>,
        relative: &Path,
        path: &Path,
        mode: u32,
    ) -> Result<(), UnpackError> {
        let mut file =
            if is_dropped(relative) && matches!(self.destination, Destination::Main { .. }) {
                self.unpacked.dropped.push(relative.display().to_string());
                None
            } else {
                Some(create(path)?)
            };
        let mut checksum = Checksummer::new(self.algorithm);
        let mut size = 0_u64;
        loop {
            let length = match entry.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(UnpackError::Read(error)),
            };
            let bytes = self.buffer.get(..length).unwrap_or_default();
            checksum.update(bytes);
            if let Some(file) = &mut file {
                file.write_all(bytes).map_err(storage("write", path))?;
            }
            size = size.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        }
        if size != entry.size() {
            let name = relative.display().to_string();
            return Err(UnpackError::Short {
                name,
                found: size,
                expected: entry.size(),
            });
        }
        if let Some(file) = &file {
            let permissions = Permissions::from_mode(mode | 0o600);
            file.set_permissions(permissions)
                .map_err(storage("set the permissions of", path))?;
        }
        let mut name = self.destination.manifest_prefix().into_bytes();
        name.extend_from_slice(relative.as_os_str().as_bytes());
        self.unpacked.files.push(WrittenFile {
            path: name.into(),
            size,
            checksum: checksum.finish(),
        });
        Ok(())
    }

    fn link<R: Read>(
        &mut self,
        entry: &Entry<'_, R>,
        relative: &Path,
        path: &Path,
    ) -> Result<(), UnpackError> {
        let refused = |rule| UnpackError::Name {
            name: relative.display().to_string(),
            rule,
        };
        let Destination::Main {
            tablespaces, map, ..
        } = self.destination
        else {
            return Err(refused("is a link within a tablespace"));
        };
        let oid: u32 = relative
            .strip_prefix("pg_tblspc")
            .ok()
            .and_then(Path::to_str)
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| refused("is a link that belongs to no tablespace"))?;
        let listed = tablespaces.iter().find(|tablespace| tablespace.oid == oid);
        let directory = match listed {
            Some(tablespace) if tablespace.in_place => {
                return Err(refused("is a link and was listed as a directory"));
            }
            Some(tablespace) => tablespace.directory.clone(),
            None => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = Path::new(OsStr::from_bytes(&target));
                if !target.is_absolute() {
                    return Err(refused("is a link to a relative path"));
                }
                let directory = map.map(target);
                self.unpacked
                    .late_links
                    .push((path.to_owned(), directory.clone()));
                directory
            }
        };
        std::os::unix::fs::symlink(&directory, path).map_err(storage("create the link", path))?;
        self.links.insert(relative.to_owned());
        Ok(())
    }
}

fn create(path: &Path) -> Result<File, UnpackError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(storage("create", path))
}

/// Makes a directory. `pg_wal` and those that hold other archives may be there already, but never as a link.
fn directory(path: &Path, mode: u32) -> Result<(), UnpackError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path).map_err(storage("examine", path))?;
            if !found.is_dir() {
                return Err(storage("create the directory", path)(error));
            }
        }
        Err(error) => return Err(storage("create the directory", path)(error)),
    }
    fs::set_permissions(path, Permissions::from_mode(mode | 0o700))
        .map_err(storage("set the permissions of", path))
}

/// A name of an entry as a path below the archive's root, or the rule that it breaks.
fn relative_path(name: &[u8]) -> Result<PathBuf, &'static str> {
    if name.contains(&0) {
        return Err("has a zero byte");
    }
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err("is absolute"),
            Component::ParentDir => return Err("leaves its directory"),
        }
    }
    if path.as_os_str().is_empty() {
        return Err("is empty");
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
