//! Whether the files that were written are the files of the backup manifest: none missing, none more, each as it should be.

use std::collections::HashMap;
use std::fmt;
use std::io;

use super::manifest::BackupManifest;
use walsender::backup::file_checksum::FileChecksum;
use walstream::protocol::command::ManifestChecksums;

/// Differences that a report keeps; the rest are counted.
const SHOWN: usize = 20;

/// A file of the backup as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenFile {
    /// Relative to the data directory, as [`super::manifest::ManifestFile::path`].
    pub path: Box<[u8]>,
    /// Bytes written.
    pub size: u64,
    /// Checksum of these bytes.
    pub checksum: FileChecksum,
}

/// One way in which the files differ from the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The file, relative to the data directory.
    pub path: String,
    /// What is wrong with it.
    pub kind: DifferenceKind,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// In the manifest, never received.
    Missing,
    /// Received, not in the manifest.
    Extra,
    /// Twice in the manifest or twice received.
    Duplicate,
    /// Of another length.
    Size {
        /// Bytes written.
        found: u64,
        /// Bytes by the manifest.
        expected: u64,
    },
    /// Of another content.
    Checksum {
        /// Checksum of what was written.
        found: String,
        /// Checksum by the manifest.
        expected: String,
    },
    /// It could not be read again to compute its checksum.
    Unreadable(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" ", self.path)?;
        match &self.kind {
            DifferenceKind::Missing => write!(f, "is in the manifest and was not received"),
            DifferenceKind::Extra => write!(f, "was received and is not in the manifest"),
            DifferenceKind::Duplicate => write!(f, "is there twice"),
            DifferenceKind::Size { found, expected } => {
                write!(f, "has {found} bytes, the manifest says {expected}")
            }
            DifferenceKind::Checksum { found, expected } => {
                write!(f, "has checksum {found}, the manifest says {expected}")
            }
            DifferenceKind::Unreadable(reason) => write!(f, "cannot be read again: {reason}"),
        }
    }
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// The first of them.
    pub shown: Vec<Difference>,
    /// How many there are in all.
    pub count: usize,
}

impl Differences {
    /// Whether the backup is as the manifest says.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, path: &[u8], kind: DifferenceKind) {
        self.count = self.count.saturating_add(1);
        if self.shown.len() < SHOWN {
            let path = String::from_utf8_lossy(path).into_owned();
            self.shown.push(Difference { path, kind });
        }
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, difference) in self.shown.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{difference}")?;
        }
        match self.count.saturating_sub(self.shown.len()) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Compares what was written with the manifest. WAL files are in no manifest, so those in `pg_wal` are left out.
///
/// `recompute` reads a written file again with another algorithm: it is only asked where the manifest uses one that was
/// not computed while the file was written.
pub fn compare(
    manifest: &BackupManifest,
    written: &[WrittenFile],
    mut recompute: impl FnMut(&[u8], ManifestChecksums) -> io::Result<FileChecksum>,
) -> Differences {
    let mut differences = Differences::default();
    let mut unclaimed: HashMap<&[u8], &WrittenFile> = HashMap::new();
    for file in written {
        if unclaimed.insert(&file.path, file).is_some() {
            differences.add(&file.path, DifferenceKind::Duplicate);
        }
    }
    let mut claimed = HashMap::new();
    for entry in &manifest.files {
        let path = &*entry.path;
        let Some(file) = unclaimed.remove(path) else {
            let kind = if claimed.contains_key(path) {
                DifferenceKind::Duplicate
            } else {
                DifferenceKind::Missing
            };
            differences.add(path, kind);
            continue;
        };
        claimed.insert(path, ());
        if file.size != entry.size {
            let kind = DifferenceKind::Size {
                found: file.size,
                expected: entry.size,
            };
            differences.add(path, kind);
            continue;
        }
        let Some(expected) = &entry.checksum else {
            continue;
        };
        let found = if file.checksum.algorithm == expected.algorithm {
            Ok(file.checksum.clone())
        } else {
            recompute(path, expected.algorithm)
        };
        match found {
            Ok(found) if found == *expected => {}
            Ok(found) => {
                let kind = DifferenceKind::Checksum {
                    found: found.to_string(),
                    expected: expected.to_string(),
                };
                differences.add(path, kind);
            }
            Err(error) => differences.add(path, DifferenceKind::Unreadable(error.to_string())),
        }
    }
    let mut extra: Vec<_> = unclaimed
        .into_keys()
        .filter(|path| !path.starts_with(b"pg_wal/"))
        .collect();
    extra.sort_unstable();
    for path in extra {
        differences.add(path, DifferenceKind::Extra);
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::manifest::ManifestFile;
    use walsender::backup::file_checksum::Checksummer;

    fn sum(algorithm: ManifestChecksums, content: &[u8]) -> FileChecksum {
        let mut sum = Checksummer::new(algorithm);
        sum.update(content);
        sum.finish()
    }

    fn written(path: &str, content: &[u8]) -> WrittenFile {
        WrittenFile {
            path: path.as_bytes().into(),
            size: content.len() as u64,
            checksum: sum(ManifestChecksums::Crc32c, content),
        }
    }

    fn manifest(files: &[(&str, ManifestChecksums, &[u8])]) -> BackupManifest {
        BackupManifest {
            version: 1,
            system_identifier: None,
            files: files
                .iter()
                .map(|(path, algorithm, content)| ManifestFile {
                    path: path.as_bytes().into(),
                    size: content.len() as u64,
                    checksum: (*algorithm != ManifestChecksums::None)
                        .then(|| sum(*algorithm, content)),
                })
                .collect(),
            wal_ranges: Vec::new(),
        }
    }

    fn never(_: &[u8], _: ManifestChecksums) -> io::Result<FileChecksum> {
        panic!("nothing needs a second reading")
    }

    const CRC: ManifestChecksums = ManifestChecksums::Crc32c;

    #[test]
    fn equal_sets_in_any_order_are_equal() {
        let manifest = manifest(&[("a", CRC, b"1"), ("b", ManifestChecksums::None, b"22")]);
        let files = [
            written("b", b"xx"),
            written("a", b"1"),
            written("pg_wal/000", b"w"),
        ];
        assert!(compare(&manifest, &files, never).is_empty());
    }

    #[test]
    fn each_difference_is_found() {
        let manifest = manifest(&[
            ("gone", CRC, b""),
            ("longer", CRC, b"1"),
            ("other", CRC, b"1"),
            ("same", CRC, b"1"),
            ("same", CRC, b"1"),
        ]);
        let files = [
            written("longer", b"12"),
            written("other", b"2"),
            written("same", b"1"),
            written("more", b""),
        ];
        let found = compare(&manifest, &files, never);
        let kinds: Vec<_> = found
            .shown
            .iter()
            .map(|d| (d.path.as_str(), &d.kind))
            .collect();
        assert_eq!(kinds[0], ("gone", &DifferenceKind::Missing));
        assert_eq!(
            kinds[1],
            (
                "longer",
                &DifferenceKind::Size {
                    found: 2,
                    expected: 1
                }
            )
        );
        assert!(matches!(
            kinds[2],
            ("other", DifferenceKind::Checksum { .. })
        ));
        assert_eq!(kinds[3], ("same", &DifferenceKind::Duplicate));
        assert_eq!(kinds[4], ("more", &DifferenceKind::Extra));
        assert_eq!(found.count, 5);
    }

    #[test]
    fn another_algorithm_reads_the_file_again() {
        let manifest = manifest(&[("a", ManifestChecksums::Sha256, b"1")]);
        let files = [written("a", b"1")];
        assert!(compare(&manifest, &files, |_, algorithm| Ok(sum(algorithm, b"1"))).is_empty());
        assert_eq!(
            compare(&manifest, &files, |_, algorithm| Ok(sum(algorithm, b"2"))).count,
            1
        );
        let failed = compare(
            &manifest,
            &files,
            |_, _| Err(io::ErrorKind::NotFound.into()),
        );
        assert!(matches!(
            failed.shown[0].kind,
            DifferenceKind::Unreadable(_)
        ));
    }

    #[test]
    fn many_differences_are_counted_not_kept() {
        let files: Vec<_> = (0..100)
            .map(|index| written(&index.to_string(), b""))
            .collect();
        let found = compare(&manifest(&[]), &files, never);
        assert_eq!((found.shown.len(), found.count), (SHOWN, 100));
        assert!(found.to_string().ends_with("and 80 more"), "{found}");
    }
}
