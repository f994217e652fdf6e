//! The backup manifest that servers since 13 send: every file with size and checksum, and the WAL that is needed.
//!
//! The text is JSON whose last line holds the SHA-256 of all lines before it, so damage to the manifest itself shows
//! before anything in it is believed. Parsing never panics and its memory is bounded by the text, whose length the
//! caller bounds ([`MAX_LENGTH`]).

use serde::Deserialize;
use sha2::{Digest, Sha256};
use thiserror::Error;
use walstream::{Lsn, SystemIdentifier, TimelineId};

use walsender::backup::file_checksum::{FileChecksum, decode_hex};
use walstream::protocol::command::ManifestChecksums;

/// Greatest length of a manifest in bytes that is accepted: about four million files.
pub const MAX_LENGTH: usize = 512 << 20;

/// A manifest whose own checksum was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupManifest {
    /// Format: 1, or since PostgreSQL 17 2.
    pub version: u64,
    /// The server's system identifier; since version 2.
    pub system_identifier: Option<SystemIdentifier>,
    /// Every file of the backup except WAL, in the order sent.
    pub files: Vec<ManifestFile>,
    /// The WAL without which the backup is not consistent, newest timeline first.
    pub wal_ranges: Vec<WalRange>,
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Relative to the data directory, tablespaces through `pg_tblspc/OID`. Bytes, since it need not be UTF-8.
    pub path: Box<[u8]>,
    /// Length in bytes.
    pub size: u64,
    /// Checksum of the content, unless the backup was taken without.
    pub checksum: Option<FileChecksum>,
}

/// WAL of one timeline that a backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// First byte needed.
    pub start_lsn: Lsn,
    /// Exclusive end.
    pub end_lsn: Lsn,
}

/// Why a manifest cannot be believed.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Longer than [`MAX_LENGTH`].
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// It does not end as a manifest does.
    #[error("it has no last line with its checksum: it was cut off")]
    CutOff,
    /// Its own checksum is wrong.
    #[error("its checksum is {found}, its text has {computed}")]
    Checksum {
        /// What the last line says.
        found: String,
        /// SHA-256 of the text.
        computed: String,
    },
    /// Not the JSON of a manifest.
    #[error("its text is wrong: {0}")]
    Json(#[from] serde_json::Error),
    /// A version that is not known.
    #[error("its version is {0}, and 1 and 2 are known: use a newer walreceiver")]
    Version(u64),
    /// An entry breaks a rule.
    #[error("file {index} (\"{path}\"): {rule}")]
    File {
        /// Position in the list of files, from 0.
        index: usize,
        /// Its path as written.
        path: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A WAL range breaks a rule.
    #[error("WAL range {index}: {rule}")]
    WalRange {
        /// Position in the list, from 0.
        index: usize,
        /// The rule that it breaks.
        rule: &'static str,
    },
}

impl BackupManifest {
    /// Parses a manifest after checking its own checksum.
    ///
    /// # Errors
    /// Each variant of [`ManifestError`].
    ///
    /// # Source
    /// `json_parse_manifest` in `src/common/parse_manifest.c`; written by `src/backend/backup/backup_manifest.c`.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        if text.len() > MAX_LENGTH {
            return Err(ManifestError::TooLong);
        }
        let computed = checksum_of_text(text)?;
        let document: Document = serde_json::from_slice(text)?;
        if !document.checksum.eq_ignore_ascii_case(&computed) {
            return Err(ManifestError::Checksum {
                found: document.checksum,
                computed,
            });
        }
        if !matches!(document.version, 1 | 2) {
            return Err(ManifestError::Version(document.version));
        }
        let files = document
            .files
            .into_iter()
            .enumerate()
            .map(|(index, entry)| entry.check(index))
            .collect::<Result<_, _>>()?;
        let wal_ranges = document
            .wal_ranges
            .into_iter()
            .enumerate()
            .map(|(index, entry)| entry.check(index))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            version: document.version,
            system_identifier: document.system_identifier.map(SystemIdentifier),
            files,
            wal_ranges,
        })
    }

    /// First and exclusive last LSN over all timelines; `None` when the manifest names no WAL.
    #[must_use]
    pub fn wal_bounds(&self) -> Option<(Lsn, Lsn)> {
        let start = self.wal_ranges.iter().map(|range| range.start_lsn).min()?;
        let end = self.wal_ranges.iter().map(|range| range.end_lsn).max()?;
        Some((start, end))
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u64,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Files")]
    files: Vec<FileEntry>,
    #[serde(rename = "WAL-Ranges")]
    wal_ranges: Vec<WalRangeEntry>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
struct FileEntry {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct WalRangeEntry {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start_lsn: String,
    #[serde(rename = "End-LSN")]
    end_lsn: String,
}

impl FileEntry {
    fn check(self, index: usize) -> Result<ManifestFile, ManifestError> {
        let shown = self
            .path
            .clone()
            .or_else(|| self.encoded_path.clone())
            .unwrap_or_default();
        let broken = |rule| ManifestError::File {
            index,
            path: shown.clone(),
            rule,
        };
        let path = match (self.path, self.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(hex)) => decode_hex(hex.as_bytes())
                .ok_or_else(|| broken("its path is no hexadecimal text"))?,
            (Some(_), Some(_)) => return Err(broken("it has two paths")),
            (None, None) => return Err(broken("it has no path")),
        };
        let checksum = match (self.algorithm, self.checksum) {
            (None, None) => None,
            (Some(name), Some(hex)) => {
                let algorithm: ManifestChecksums = name
                    .parse()
                    .map_err(|_| broken("its checksum algorithm is unknown"))?;
                let checksum = FileChecksum::parse(algorithm, &hex).ok_or_else(|| {
                    broken("its checksum has the wrong length or is no hexadecimal text")
                })?;
                (algorithm != ManifestChecksums::None).then_some(checksum)
            }
            _ => return Err(broken("it has a checksum without algorithm or the reverse")),
        };
        Ok(ManifestFile {
            path: path.into(),
            size: self.size,
            checksum,
        })
    }
}

impl WalRangeEntry {
    fn check(self, index: usize) -> Result<WalRange, ManifestError> {
        let lsn = |text: &str| {
            text.parse::<Lsn>().map_err(|_| ManifestError::WalRange {
                index,
                rule: "an LSN is unreadable",
            })
        };
        let range = WalRange {
            timeline: TimelineId(self.timeline),
            start_lsn: lsn(&self.start_lsn)?,
            end_lsn: lsn(&self.end_lsn)?,
        };
        if range.timeline.0 == 0 {
            return Err(ManifestError::WalRange {
                index,
                rule: "timeline 0 does not exist",
            });
        }
        if range.end_lsn < range.start_lsn {
            return Err(ManifestError::WalRange {
                index,
                rule: "it ends before it starts",
            });
        }
        Ok(range)
    }
}

/// SHA-256 over all lines but the last, as the server computed it.
fn checksum_of_text(text: &[u8]) -> Result<String, ManifestError> {
    let lines = text.strip_suffix(b"\n").ok_or(ManifestError::CutOff)?;
    let last_line = lines
        .iter()
        .rposition(|&byte| byte == b'\n')
        .ok_or(ManifestError::CutOff)?;
    let (covered, rest) = lines.split_at(last_line.saturating_add(1));
    if !rest.starts_with(b"\"Manifest-Checksum\"") {
        return Err(ManifestError::CutOff);
    }
    let digest = Sha256::digest(covered);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A manifest around these file and WAL entries, with the right checksum.
    pub(in super::super) fn manifest_text(
        version: &str,
        files: &[&str],
        ranges: &[&str],
    ) -> Vec<u8> {
        let mut text = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n\"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n{}\n],\n",
            files.join(",\n"),
            ranges.join(",\n")
        );
        let digest = Sha256::digest(text.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("\"Manifest-Checksum\": \"{hex}\"}}\n"));
        text.into_bytes()
    }

    const FILE: &str = r#"{ "Path": "backup_label", "Size": 224, "Last-Modified": "2026-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "c11d2a1f" }"#;
    const RANGE: &str = r#"{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }"#;

    #[test]
    fn both_versions_are_read() {
        let one = BackupManifest::parse(&manifest_text("1", &[FILE], &[RANGE])).unwrap();
        assert_eq!(one.system_identifier, None);
        assert_eq!(&*one.files[0].path, b"backup_label");
        assert_eq!(one.files[0].size, 224);
        assert_eq!(
            one.files[0].checksum.as_ref().unwrap().to_string(),
            "c11d2a1f"
        );
        assert_eq!(one.wal_bounds(), Some((Lsn(0x200_0028), Lsn(0x200_0100))));
        let two = "2,\n\"System-Identifier\": 18446744073709551615";
        let two = BackupManifest::parse(&manifest_text(two, &[], &[])).unwrap();
        assert_eq!(two.system_identifier, Some(SystemIdentifier(u64::MAX)));
        assert_eq!(two.wal_bounds(), None);
    }

    #[test]
    fn encoded_paths_and_files_without_checksum() {
        let file = r#"{ "Encoded-Path": "62617365ff", "Size": 0, "Last-Modified": "x" }"#;
        let manifest = BackupManifest::parse(&manifest_text("1", &[file], &[])).unwrap();
        assert_eq!(&*manifest.files[0].path, b"base\xff");
        assert_eq!(manifest.files[0].checksum, None);
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let good = manifest_text("1", &[FILE], &[RANGE]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(BackupManifest::parse(&bad).is_err(), "byte {at}");
            assert!(BackupManifest::parse(&good[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn entries_that_break_a_rule_are_refused() {
        for (version, file, range) in [
            ("3", FILE, RANGE),
            ("1", r#"{ "Size": 1 }"#, RANGE),
            (
                "1",
                r#"{ "Path": "a", "Encoded-Path": "61", "Size": 1 }"#,
                RANGE,
            ),
            ("1", r#"{ "Encoded-Path": "6", "Size": 1 }"#, RANGE),
            ("1", r#"{ "Path": "a" }"#, RANGE),
            ("1", r#"{ "Path": "a", "Size": -1 }"#, RANGE),
            (
                "1",
                r#"{ "Path": "a", "Size": 1, "Checksum": "c11d2a1f" }"#,
                RANGE,
            ),
            (
                "1",
                r#"{ "Path": "a", "Size": 1, "Checksum-Algorithm": "MD5", "Checksum": "00" }"#,
                RANGE,
            ),
            (
                "1",
                r#"{ "Path": "a", "Size": 1, "Checksum-Algorithm": "CRC32C", "Checksum": "00" }"#,
                RANGE,
            ),
            (
                "1",
                FILE,
                r#"{ "Timeline": 0, "Start-LSN": "0/1", "End-LSN": "0/2" }"#,
            ),
            (
                "1",
                FILE,
                r#"{ "Timeline": 1, "Start-LSN": "0/2", "End-LSN": "0/1" }"#,
            ),
            (
                "1",
                FILE,
                r#"{ "Timeline": 1, "Start-LSN": "x", "End-LSN": "0/1" }"#,
            ),
        ] {
            let text = manifest_text(version, &[file], &[range]);
            assert!(
                BackupManifest::parse(&text).is_err(),
                "{version} {file} {range}"
            );
        }
    }
}
