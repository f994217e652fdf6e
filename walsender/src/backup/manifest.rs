//! [`ManifestWriter`]: writes a `backup_manifest`, into a temporary file, as there may be a million files to name.
//!
//! # Source
//! `src/backend/backup/backup_manifest.c`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use walstream::protocol::command::{ManifestChecksums, ManifestOption};
use walstream::{Lsn, SystemIdentifier, TimelineId};

use super::error::BackupError;
use super::file_checksum::Checksummer;
use crate::source::WalPosition;

/// Manifests name the cluster since.
const NAMES_SYSTEM_SINCE: u32 = 170_000;

/// A manifest that is being written; nothing is where none was asked for.
pub(super) struct ManifestWriter {
    out: Option<Out>,
    checksums: ManifestChecksums,
    force_encode: bool,
    is_first: bool,
}

struct Out {
    file: BufWriter<File>,
    hash: Sha256,
}

impl Out {
    fn put(&mut self, text: &str) -> Result<(), BackupError> {
        self.hash.update(text);
        self.file
            .write_all(text.as_bytes())
            .map_err(BackupError::Spool)
    }
}

impl ManifestWriter {
    pub(super) fn new(
        option: ManifestOption,
        checksums: Option<ManifestChecksums>,
        server_version_num: u32,
        system: SystemIdentifier,
    ) -> Result<Self, BackupError> {
        let mut manifest = Self {
            out: None,
            checksums: ManifestChecksums::None,
            force_encode: option == ManifestOption::ForceEncode,
            is_first: true,
        };
        if option == ManifestOption::No {
            return Ok(manifest);
        }
        manifest.checksums = checksums.unwrap_or(ManifestChecksums::Crc32c);
        let file = tempfile::tempfile().map_err(BackupError::Spool)?;
        let mut out = Out {
            file: BufWriter::new(file),
            hash: Sha256::new(),
        };
        if server_version_num >= NAMES_SYSTEM_SINCE {
            out.put(&format!(
                "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system},\n"
            ))?;
        } else {
            out.put("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n")?;
        }
        out.put("\"Files\": [")?;
        manifest.out = Some(out);
        Ok(manifest)
    }

    /// A checksum for the next file.
    pub(super) fn checksum(&self) -> Checksummer {
        Checksummer::new(self.checksums)
    }

    /// Adds a file; `path` is below the data directory, through the link for one in a tablespace.
    pub(super) fn add_file(
        &mut self,
        path: &[u8],
        size: u64,
        mtime_unix_s: i64,
        checksum: Checksummer,
    ) -> Result<(), BackupError> {
        let Some(out) = &mut self.out else {
            return Ok(());
        };
        let mut line = String::from(if self.is_first { "\n" } else { ",\n" });
        self.is_first = false;
        match std::str::from_utf8(path) {
            Ok(path) if !self.force_encode => {
                line.push_str("{ \"Path\": ");
                push_json(&mut line, path);
            }
            _ => {
                line.push_str("{ \"Encoded-Path\": \"");
                push_hex(&mut line, path);
                line.push('"');
            }
        }
        // Writing to a string does not fail.
        let _ = write!(
            line,
            ", \"Size\": {size}, \"Last-Modified\": \"{}\"",
            gmt(mtime_unix_s)
        );
        if self.checksums != ManifestChecksums::None {
            let checksum = checksum.finish();
            let _ = write!(
                line,
                ", \"Checksum-Algorithm\": \"{}\", \"Checksum\": \"{checksum}\"",
                checksum.algorithm
            );
        }
        line.push_str(" }");
        out.put(&line)
    }

    /// Adds the WAL that the backup needs: of each timeline from the newest back to that of the start. `history` is
    /// the timelines, newest first, with where each began.
    pub(super) fn add_wal(
        &mut self,
        start: WalPosition,
        end: WalPosition,
        history: &[(TimelineId, Lsn)],
    ) -> Result<(), BackupError> {
        let Some(out) = &mut self.out else {
            return Ok(());
        };
        let mut text = String::from("\n],\n\"WAL-Ranges\": [\n");
        let (mut end_lsn, mut is_first) = (end.lsn, true);
        for &(timeline, begin_lsn) in history {
            let is_last = timeline == start.timeline;
            let from = if is_last { start.lsn } else { begin_lsn };
            let comma = if is_first { "" } else { ",\n" };
            let _ = write!(
                text,
                "{comma}{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{from}\", \"End-LSN\": \"{end_lsn}\" }}"
            );
            (end_lsn, is_first) = (begin_lsn, false);
            if is_last {
                text.push_str("\n],\n");
                return out.put(&text);
            }
        }
        Err(BackupError::NotInHistory {
            start: start.timeline,
            end: end.timeline,
        })
    }

    /// Ends the manifest, and gives it from its beginning; `None` where there is none.
    pub(super) fn finish(self) -> Result<Option<File>, BackupError> {
        let Some(mut out) = self.out else {
            return Ok(None);
        };
        let mut line = String::from("\"Manifest-Checksum\": \"");
        push_hex(&mut line, &out.hash.finalize());
        line.push_str("\"}\n");
        out.file
            .write_all(line.as_bytes())
            .map_err(BackupError::Spool)?;
        let mut file = out
            .file
            .into_inner()
            .map_err(|error| BackupError::Spool(error.into_error()))?;
        file.seek(io::SeekFrom::Start(0))
            .map_err(BackupError::Spool)?;
        Ok(Some(file))
    }
}

/// # Source
/// `escape_json` in `src/backend/utils/adt/json.c`.
fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

fn gmt(unix_s: i64) -> String {
    let time = Timestamp::from_second(unix_s).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn write(option: ManifestOption, version: u32) -> String {
        let system = SystemIdentifier(77);
        let mut manifest = ManifestWriter::new(option, None, version, system).unwrap();
        for (path, content) in [
            (&b"a\"\\\n\x01\xC3\xA9"[..], &b"123456789"[..]),
            (b"b\xFF", b""),
        ] {
            let mut checksum = manifest.checksum();
            checksum.update(content);
            manifest
                .add_file(path, content.len() as u64, 1_700_000_000, checksum)
                .unwrap();
        }
        let position = |timeline, lsn| WalPosition {
            timeline: TimelineId(timeline),
            lsn: Lsn(lsn),
        };
        let history = [
            (TimelineId(3), Lsn(0x30)),
            (TimelineId(2), Lsn(0x20)),
            (TimelineId(1), Lsn(0)),
        ];
        manifest
            .add_wal(position(2, 0x28), position(3, 0x38), &history)
            .unwrap();
        assert!(
            manifest
                .add_wal(position(9, 0), position(3, 0x38), &history)
                .is_err()
                || option == ManifestOption::No
        );
        let mut text = String::new();
        if let Some(mut file) = manifest.finish().unwrap() {
            file.read_to_string(&mut text).unwrap();
        }
        text
    }

    #[test]
    fn a_manifest_is_as_postgresql_writes_it() {
        let text = write(ManifestOption::Yes, 150_000);
        let expected = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n\
            { \"Path\": \"a\\\"\\\\\\n\\u0001é\", \"Size\": 9, \"Last-Modified\": \"2023-11-14 22:13:20 GMT\", \
            \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"839206e3\" },\n\
            { \"Encoded-Path\": \"62ff\", \"Size\": 0, \"Last-Modified\": \"2023-11-14 22:13:20 GMT\", \
            \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }\n],\n\"WAL-Ranges\": [\n\
            { \"Timeline\": 3, \"Start-LSN\": \"0/30\", \"End-LSN\": \"0/38\" },\n\
            { \"Timeline\": 2, \"Start-LSN\": \"0/28\", \"End-LSN\": \"0/30\" }\n],\n";
        let (body, last) = text.split_at(expected.len());
        assert_eq!(body, expected);
        let mut line = String::from("\"Manifest-Checksum\": \"");
        push_hex(&mut line, &Sha256::digest(expected));
        assert_eq!(last, line + "\"}\n");
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }

    #[test]
    fn variants_of_it() {
        assert!(
            write(ManifestOption::ForceEncode, 150_000)
                .contains("\"Encoded-Path\": \"61225c0a01c3a9\"")
        );
        assert!(write(ManifestOption::Yes, 170_000).starts_with(
            "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 77,\n\"Files\": ["
        ));
        assert_eq!(write(ManifestOption::No, 150_000), "");
    }
}
