//! The members of an archive, in the order in which PostgreSQL sends them: that of the directories.
//!
//! # Source
//! `sendDir` and `sendTablespace` in `src/backend/backup/basebackup.c`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::BackupError;
use super::exclusions::{
    init_fork_of, is_emptied_directory, is_excluded, is_number, is_temporary_relation,
};
use super::tar_header::{Attributes, BLOCK, padding};

/// `pg_wal` has a directory for summaries of WAL since.
const SUMMARIES_SINCE: u32 = 170_000;

/// Takes the members of an archive.
pub(super) trait Members {
    fn directory(&mut self, name: &[u8], attributes: &Attributes) -> Result<(), BackupError>;
    fn link(
        &mut self,
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), BackupError>;
    fn file(&mut self, file: &FoundFile<'_>) -> Result<(), BackupError>;
    /// Something that is no file, directory or link, and is left out.
    fn special(&mut self, shown: &str) -> Result<(), BackupError>;
}

/// A file to be sent.
pub(super) struct FoundFile<'a> {
    /// Where it is.
    pub(super) path: &'a Path,
    /// Its path as the server names it in messages.
    pub(super) shown: &'a str,
    /// Its name in the archive.
    pub(super) name: &'a [u8],
    /// What it was when it was found.
    pub(super) attributes: Attributes,
}

/// A directory that becomes an archive.
pub(super) struct Tree<'a> {
    /// The data directory, or where a tablespace is.
    root: &'a Path,
    /// The same, as the server names it in messages.
    shown: String,
    /// Tablespaces within, which have archives of their own.
    inside: Vec<Vec<u8>>,
    with_links: bool,
    is_base: bool,
    /// Name of the directory in a tablespace that is this server's.
    version_directory: &'a [u8],
    server_version_num: u32,
    /// Mode of directories that the server makes.
    directory_mode: u32,
}

impl<'a> Tree<'a> {
    /// The data directory; links to tablespaces are members unless they are told in a `tablespace_map`.
    pub(super) fn base(
        root: &'a Path,
        inside: &[PathBuf],
        with_links: bool,
        version_directory: &'a [u8],
        server_version_num: u32,
    ) -> Result<Self, BackupError> {
        let metadata =
            fs::metadata(root).map_err(BackupError::file("stat file or directory", root))?;
        Ok(Self {
            root,
            shown: ".".to_owned(),
            inside: inside
                .iter()
                .map(|path| path.as_os_str().as_bytes().to_vec())
                .collect(),
            with_links,
            is_base: true,
            version_directory,
            server_version_num,
            directory_mode: directory_mode(&metadata),
        })
    }

    /// A tablespace.
    pub(super) fn tablespace(root: &'a Path, version_directory: &'a [u8]) -> Self {
        Self {
            root,
            shown: root.to_string_lossy().into_owned(),
            inside: Vec::new(),
            with_links: true,
            is_base: false,
            version_directory,
            server_version_num: 0,
            directory_mode: 0o700,
        }
    }

    /// Gives all members but those that a backup adds itself, and `pg_control`.
    pub(super) fn walk(&self, members: &mut dyn Members) -> Result<(), BackupError> {
        if self.is_base {
            return self.descend(b"", members);
        }
        let path = self.path(self.version_directory);
        // Of a tablespace that was dropped meanwhile there is nothing.
        let Some(metadata) = stat(&path)? else {
            return Ok(());
        };
        members.directory(self.version_directory, &Attributes::of(&metadata))?;
        self.descend(self.version_directory, members)
    }

    fn descend(&self, directory: &[u8], members: &mut dyn Members) -> Result<(), BackupError> {
        let path = self.path(directory);
        let has_relations = self.is_database(directory);
        let listed = match fs::read_dir(&path) {
            Ok(listed) => listed,
            // A database that was dropped meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.is_empty() => {
                return Ok(());
            }
            Err(error) => return Err(BackupError::file("open directory", &path)(error)),
        };
        for entry in listed {
            let entry = entry.map_err(BackupError::file("read directory", &path))?;
            let name = entry.file_name();
            let name = name.as_bytes();
            if is_excluded(name) || (has_relations && self.is_left_out(&path, name)) {
                continue;
            }
            let member = join(directory, name);
            if self.is_base && member == b"global/pg_control" {
                continue;
            }
            self.member(directory, name, &member, members)?;
        }
        Ok(())
    }

    fn member(
        &self,
        directory: &[u8],
        name: &[u8],
        member: &[u8],
        members: &mut dyn Members,
    ) -> Result<(), BackupError> {
        let path = self.path(member);
        let Some(metadata) = stat(&path)? else {
            return Ok(());
        };
        let attributes = Attributes::of(&metadata);
        if is_emptied_directory(name) {
            return members.directory(member, &self.as_directory(&metadata));
        }
        if self.is_base && member == b"pg_wal" {
            let attributes = self.as_directory(&metadata);
            members.directory(member, &attributes)?;
            members.directory(b"./pg_wal/archive_status", &attributes)?;
            if self.server_version_num >= SUMMARIES_SINCE {
                members.directory(b"./pg_wal/summaries", &attributes)?;
            }
            return Ok(());
        }
        if self.is_base && directory == b"pg_tblspc" && metadata.is_symlink() {
            let target =
                fs::read_link(&path).map_err(BackupError::file("read symbolic link", &path))?;
            return members.link(member, target.as_os_str().as_bytes(), &attributes);
        }
        if metadata.is_dir() {
            members.directory(member, &attributes)?;
            let is_apart = self.is_base && self.inside.iter().any(|inside| inside == member);
            let is_told_elsewhere = self.is_base && member == b"pg_tblspc" && !self.with_links;
            return if is_apart || is_told_elsewhere {
                Ok(())
            } else {
                self.descend(member, members)
            };
        }
        let shown = format!("{}/{}", self.shown, String::from_utf8_lossy(member));
        if metadata.is_file() {
            members.file(&FoundFile {
                path: &path,
                shown: &shown,
                name: member,
                attributes,
            })
        } else {
            members.special(&shown)
        }
    }

    /// Whether a directory holds a database's relations: `base/N`, or `N` in a tablespace.
    fn is_database(&self, directory: &[u8]) -> bool {
        let mut parts = directory.rsplit(|&byte| byte == b'/');
        let (name, parent) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        is_number(name)
            && (parent == self.version_directory || directory.strip_suffix(name) == Some(b"base/"))
    }

    /// Whether a file in a database's directory belongs to a temporary relation, or to an unlogged one and is not its init
    /// fork: recovery makes the others anew.
    fn is_left_out(&self, directory: &Path, name: &[u8]) -> bool {
        if is_temporary_relation(name) {
            return true;
        }
        let init_fork = init_fork_of(name);
        init_fork.is_some_and(|init| {
            fs::symlink_metadata(directory.join(OsStr::from_bytes(&init))).is_ok()
        })
    }

    /// As of a directory, also when it is a link to one.
    fn as_directory(&self, metadata: &fs::Metadata) -> Attributes {
        let attributes = Attributes::of(metadata);
        if metadata.is_symlink() {
            Attributes {
                mode: self.directory_mode,
                ..attributes
            }
        } else {
            attributes
        }
    }

    fn path(&self, member: &[u8]) -> PathBuf {
        if member.is_empty() {
            self.root.to_owned()
        } else {
            self.root.join(OsStr::from_bytes(member))
        }
    }
}

/// Mode of the directories that the server makes: its group may read them if it may read the data directory.
///
/// # Source
/// `GetDataDirectoryCreatePerm` in `src/common/file_perm.c`.
fn directory_mode(data_directory: &fs::Metadata) -> u32 {
    if data_directory.permissions().mode() & 0o050 == 0o050 {
        0o750
    } else {
        0o700
    }
}

/// Mode of the files that the server makes.
pub(super) fn file_mode(data_directory: &fs::Metadata) -> u32 {
    directory_mode(data_directory) & 0o640
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        name.to_vec()
    } else {
        [directory, b"/", name].concat()
    }
}

/// `None` when it is not there any more.
fn stat(path: &Path) -> Result<Option<fs::Metadata>, BackupError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BackupError::file("stat file or directory", path)(error)),
    }
}

/// Adds up what an archive takes.
#[derive(Debug, Default)]
pub(super) struct ArchiveSize(pub(super) u64);

impl Members for ArchiveSize {
    fn directory(&mut self, _: &[u8], _: &Attributes) -> Result<(), BackupError> {
        self.0 += BLOCK as u64;
        Ok(())
    }

    fn link(&mut self, _: &[u8], _: &[u8], _: &Attributes) -> Result<(), BackupError> {
        self.0 += BLOCK as u64;
        Ok(())
    }

    fn file(&mut self, file: &FoundFile<'_>) -> Result<(), BackupError> {
        let size = file.attributes.size;
        self.0 += size + padding(size) as u64 + BLOCK as u64;
        Ok(())
    }

    fn special(&mut self, _: &str) -> Result<(), BackupError> {
        Ok(())
    }
}
