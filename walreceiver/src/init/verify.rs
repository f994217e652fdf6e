//! Proof that what was unpacked is the backup that the server made: against the manifest, the label and `pg_control`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use walstream::protocol::identify::BackupPosition;
use walstream::storage::backup_label::{BackupLabel, BackupSource};
use walstream::storage::control::ControlFile;

use super::error::InitError;
use super::manifest::BackupManifest;
use super::manifest_check::{WrittenFile, compare};
use super::server::ServerFacts;
use crate::mirror::durable::FileError;
use walsender::backup::file_checksum::{Checksummer, FileChecksum};
use walstream::protocol::command::ManifestChecksums;

/// Parses the manifest and compares the files with it. Blocks.
///
/// # Errors
/// [`InitError::Manifest`], [`InitError::Differs`], or [`InitError::OtherBackup`] when it is about another backup.
pub(super) fn against_manifest(
    target: &Path,
    text: &[u8],
    files: &[WrittenFile],
    facts: &ServerFacts,
    start: BackupPosition,
    end: BackupPosition,
) -> Result<(), InitError> {
    let manifest = BackupManifest::parse(text)?;
    if let Some(found) = manifest.system_identifier {
        equal("the system identifier", &found, &facts.system_identifier)?;
    }
    let (found_start, found_end) = manifest.wal_bounds().unwrap_or_default();
    equal("the start of its WAL", &found_start, &start.lsn)?;
    equal("the end of its WAL", &found_end, &end.lsn)?;
    let differences = compare(&manifest, files, |path, algorithm| {
        let path = target.join(std::ffi::OsStr::from_bytes(path));
        checksum_of_file(&path, algorithm)
    });
    if differences.is_empty() {
        Ok(())
    } else {
        Err(InitError::Differs(differences))
    }
}

/// Compares `backup_label` and `pg_control` with what the server said. Blocks.
///
/// # Errors
/// [`InitError::Label`], [`InitError::Control`], [`InitError::OtherBackup`], [`InitError::Standby`] when the label says
/// that the server is one and `standby_allowed` is not set, [`InitError::File`] when one of the files is missing.
pub(super) fn against_server(
    target: &Path,
    facts: &ServerFacts,
    start: BackupPosition,
    standby_allowed: bool,
) -> Result<(), InitError> {
    let path = target.join("backup_label");
    let content = fs::read(&path).map_err(FileError::of("read", &path))?;
    let label = BackupLabel::parse(&content, facts.dialect.segment_size)?;
    equal(
        "the backup's start in backup_label",
        &label.start_lsn,
        &start.lsn,
    )?;
    equal(
        "the backup's timeline in backup_label",
        &label.timeline,
        &start.timeline,
    )?;
    if label.from == Some(BackupSource::Standby) && !standby_allowed {
        return Err(InitError::Standby {
            peer: facts.peer.clone(),
        });
    }
    let path = target.join("global/pg_control");
    let content = fs::read(&path).map_err(FileError::of("read", &path))?;
    let control =
        ControlFile::parse(&content).map_err(|source| InitError::Control { path, source })?;
    equal(
        "the system identifier in pg_control",
        &control.system_identifier,
        &facts.system_identifier,
    )?;
    let sizes = |control: &ControlFile| {
        let bytes = [
            control.block_size.bytes(),
            control.wal_block_size.bytes(),
            control.wal_segment_size.bytes(),
        ];
        bytes.map(|size| size.to_string()).join(", ")
    };
    let dialect = facts.dialect;
    let expected = [
        dialect.block_size.bytes(),
        dialect.wal_page_size.bytes(),
        dialect.segment_size.bytes(),
    ];
    equal(
        "block, WAL page and segment size in pg_control",
        &sizes(&control),
        &expected.map(|size| size.to_string()).join(", "),
    )
}

fn equal<T: PartialEq + ToString>(
    what: &'static str,
    found: &T,
    expected: &T,
) -> Result<(), InitError> {
    if found == expected {
        return Ok(());
    }
    Err(InitError::OtherBackup {
        what,
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

fn checksum_of_file(path: &Path, algorithm: ManifestChecksums) -> io::Result<FileChecksum> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 << 10];
    let mut checksum = Checksummer::new(algorithm);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(checksum.finish()),
            length => checksum.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_read_again_has_the_checksum_of_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"123456789").unwrap();
        assert_eq!(
            checksum_of_file(&path, ManifestChecksums::Crc32c)
                .unwrap()
                .to_string(),
            "839206e3"
        );
        assert!(checksum_of_file(&dir.path().join("none"), ManifestChecksums::Crc32c).is_err());
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        assert!(equal("x", &1, &1).is_ok());
        let error = equal("the timeline", &2, &1).unwrap_err().to_string();
        assert!(
            error.contains("says 2 for the timeline") && error.contains("said 1"),
            "{error}"
        );
    }
}
