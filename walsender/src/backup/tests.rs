//! Whole backups of a directory that changes while it is read.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::mpsc;
use walstream::protocol::command::{BaseBackup, ManifestOption};
use walstream::{Lsn, SegmentSize, SystemIdentifier, TimelineId};

use super::{
    BackupError, BackupEvent, BackupFacts, BackupJob, BackupStart, BackupStop, Boxed,
    CompressionSpec, LiveServer, produce,
};
use crate::source::WalPosition;

const START: WalPosition = WalPosition {
    timeline: TimelineId(1),
    lsn: Lsn(0x10_0028),
};
const END: WalPosition = WalPosition {
    timeline: TimelineId(1),
    lsn: Lsn(0x20_0100),
};

#[derive(Debug)]
struct Directory(TempDir);

impl Directory {
    fn new(files: &[(&str, usize)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["global", "base/1", "pg_wal", "pg_tblspc"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        for (name, size) in files {
            fs::write(directory.path().join(name), vec![b'x'; *size]).unwrap();
        }
        fs::write(directory.path().join("global/pg_control"), "control").unwrap();
        Self(directory)
    }
}

impl LiveServer for Directory {
    fn data_directory(&self) -> &Path {
        self.0.path()
    }

    fn facts(&self) -> BackupFacts {
        BackupFacts {
            system_identifier: SystemIdentifier(7),
            server_version_num: 150_000,
            catalog_version: 202_209_061,
            segment_size: SegmentSize::new(1 << 20).unwrap(),
            block_size: 8192,
            blocks_per_relation_segment: 131_072,
            has_data_checksums: true,
        }
    }

    fn control_file(&self) -> Result<Vec<u8>, BackupError> {
        Ok(b"whole control".to_vec())
    }

    fn start(&self, _: String, _: bool) -> Boxed<'_, BackupStart> {
        unreachable!("the test starts the backup")
    }
}

/// What a backup gave.
#[derive(Default)]
struct Taken {
    pieces: Vec<Vec<u8>>,
    manifest: Vec<u8>,
    warnings: Vec<String>,
}

impl Taken {
    fn archive(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    fn members(&self) -> BTreeMap<String, Vec<u8>> {
        let archive = self.archive();
        let mut members = BTreeMap::new();
        for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            members.insert(
                String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
                content,
            );
        }
        members
    }
}

/// Takes a backup; `at_first_data` runs when the first piece has come, while the thread waits with the next ones.
fn take(
    directory: Directory,
    change: impl FnOnce(&mut BackupJob),
    at_first_data: impl FnOnce(&Path),
) -> (Taken, Result<(), BackupError>) {
    let root = directory.data_directory().to_owned();
    let command = BaseBackup {
        manifest: ManifestOption::Yes,
        verify_checksums: false,
        ..BaseBackup::default()
    };
    let mut job = BackupJob {
        server: Arc::new(directory),
        command,
        compression: CompressionSpec::NONE,
        start: START,
        label: "label\n".to_owned(),
        tablespaces: Vec::new(),
        piece_size: 1024,
        is_before_15: false,
    };
    change(&mut job);
    let (events, mut received) = mpsc::channel(1);
    let thread = std::thread::spawn(move || produce(&job, events));
    let (mut taken, mut at_first_data) = (Taken::default(), Some(at_first_data));
    while let Some(event) = received.blocking_recv() {
        match event {
            BackupEvent::Data { bytes, .. } => {
                if let Some(act) = at_first_data.take() {
                    act(&root);
                }
                taken.pieces.push(bytes.to_vec());
            }
            BackupEvent::Stop(answer) => {
                let history = vec![(TimelineId(1), Lsn::INVALID)];
                answer
                    .send(BackupStop {
                        end: END,
                        history,
                        hold: None,
                    })
                    .unwrap();
            }
            BackupEvent::ManifestData(bytes) => taken.manifest.extend_from_slice(&bytes),
            BackupEvent::Warning(text) => taken.warnings.push(text),
            _ => {}
        }
    }
    (taken, thread.join().unwrap())
}

#[test]
fn files_that_change_have_the_size_that_they_had() {
    let directory = Directory::new(&[("base/1/1000", 1 << 20)]);
    let (taken, result) = take(
        directory,
        |_| {},
        |root| {
            let file = fs::File::options()
                .write(true)
                .open(root.join("base/1/1000"))
                .unwrap();
            // The thread has not come to it, or is at its beginning: the buffers between us are small.
            file.set_len(300_000).unwrap();
        },
    );
    result.unwrap();
    let members = taken.members();
    let content = &members["base/1/1000"];
    // Found before or after it was cut.
    assert!([300_000, 1 << 20].contains(&content.len()));
    assert!(content[..300_000].iter().all(|&byte| byte == b'x'));
    assert!(
        content[300_000..]
            .iter()
            .all(|&byte| byte == 0 || byte == b'x')
    );
    assert_eq!(
        members["global/pg_control"], b"whole control",
        "as it was at one moment"
    );
    let manifest: serde_json::Value = serde_json::from_slice(&taken.manifest).unwrap();
    for file in manifest["Files"].as_array().unwrap() {
        let content = &members[file["Path"].as_str().unwrap()];
        assert_eq!(file["Size"], content.len());
        let crc = crc32c::crc32c(content).swap_bytes();
        assert_eq!(file["Checksum"], format!("{crc:08x}"), "{file}");
    }
    assert!(taken.archive().ends_with(&[0; 1024]));
}

#[test]
fn files_that_vanish_are_left_out() {
    let directory = Directory::new(&[
        ("base/1/1000", 5000),
        ("base/1/2000", 5000),
        ("base/1/3000", 5000),
    ]);
    let (taken, result) = take(
        directory,
        |_| {},
        |root| fs::remove_dir_all(root.join("base")).unwrap(),
    );
    result.unwrap();
    let names: Vec<_> = taken.members().into_keys().collect();
    assert!(
        names.contains(&"global/pg_control".to_owned())
            && names.contains(&"backup_label".to_owned())
    );
}

/// The clients of before 15 take the first message after a member for a header, and the last for its padding.
#[test]
fn before_15_a_piece_is_a_header_or_content_or_padding() {
    let directory = Directory::new(&[
        ("base/1/1000", 5000),
        ("base/1/2000", 0),
        ("base/1/3000", 1024),
    ]);
    let (taken, result) = take(directory, |job| job.is_before_15 = true, |_| {});
    result.unwrap();
    let mut pieces = taken.pieces.iter();
    while let Some(piece) = pieces.next() {
        assert_eq!(piece.len(), 512, "a header");
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(piece);
        let size = usize::try_from(header.size().unwrap()).unwrap();
        let mut left = size;
        while left > 0 {
            left = left
                .checked_sub(pieces.next().unwrap().len())
                .expect("content of this member alone");
        }
        let padding = size.next_multiple_of(512) - size;
        assert!(padding == 0 || pieces.next().unwrap().len() == padding);
    }
    assert!(
        !taken.archive().ends_with(&[0; 1024]),
        "the end is the client's"
    );
}

#[test]
fn damaged_pages_are_named_and_fail_the_backup_at_its_end() {
    // Pages of one byte value: used, old, and with a checksum that none has.
    let directory = Directory::new(&[("base/1/1000", 0)]);
    let mut page = vec![1; 8192];
    page[..8].fill(0);
    fs::write(
        directory.data_directory().join("base/1/1000"),
        page.repeat(7),
    )
    .unwrap();
    fs::write(
        directory.data_directory().join("base/1/1001"),
        [page.clone(), vec![1; 100]].concat(),
    )
    .unwrap();
    let (taken, result) = take(directory, |job| job.command.verify_checksums = true, |_| {});
    assert!(matches!(result, Err(BackupError::Checksums)));
    assert_eq!(
        taken.members()["base/1/1000"].len(),
        7 * 8192,
        "everything is sent"
    );
    let count = |text: &str| {
        taken
            .warnings
            .iter()
            .filter(|warning| warning.contains(text))
            .count()
    };
    assert_eq!(
        count("checksum verification failed in file \"./base/1/1000\""),
        5
    );
    assert_eq!(
        count(
            "further checksum verification failures in file \"./base/1/1000\" will not be reported"
        ),
        1
    );
    assert_eq!(
        count("file \"./base/1/1000\" has a total of 7 checksum verification failures"),
        1
    );
    assert_eq!(
        count(
            "could not verify checksum in file \"./base/1/1001\", block 0: read buffer size 8292"
        ),
        1
    );
    assert_eq!(count("7 total checksum verification failures"), 1);
}

#[test]
fn wal_within_a_backup_is_whole_or_refused() {
    let names = [
        "pg_wal/000000010000000000000001",
        "pg_wal/000000010000000000000002",
    ];
    let with_wal = |job: &mut BackupJob| job.command.wal = true;
    let whole = Directory::new(&[
        (names[0], 1 << 20),
        (names[1], 1 << 20),
        ("pg_wal/000000010000000000000003", 1 << 20),
    ]);
    fs::write(
        whole.data_directory().join("pg_wal/00000002.history"),
        "1\t0/1\tx\n",
    )
    .unwrap();
    let (taken, result) = take(whole, with_wal, |_| {});
    result.unwrap();
    let members = taken.members();
    assert_eq!(members[names[1]].len(), 1 << 20);
    assert!(members.contains_key("pg_wal/archive_status/000000010000000000000001.done"));
    assert!(members.contains_key("pg_wal/00000002.history"));
    assert!(
        !members.contains_key("pg_wal/000000010000000000000003"),
        "after the end"
    );
    for (files, expected) in [
        (&[][..], "could not find any WAL files"),
        (
            &[(names[1], 1 << 20)],
            "could not find WAL file \"000000010000000000000001\"",
        ),
        (
            &[(names[0], 1 << 20)],
            "could not find WAL file \"000000010000000000000002\"",
        ),
        (
            &[(names[0], 1 << 20), (names[1], 5)],
            "unexpected WAL file size \"000000010000000000000002\"",
        ),
    ] {
        let (_, result) = take(Directory::new(files), with_wal, |_| {});
        assert_eq!(result.unwrap_err().to_string(), expected);
    }
}
