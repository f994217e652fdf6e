//! A backup that the source holds goes to the client, as the server of the source's version sends it.

use std::time::Instant;

use bytes::Bytes;
use walstream::protocol::base_backup::{BackupGeneration, BackupMessage};
use walstream::protocol::command::{
    BaseBackup, CompressionAlgorithm, ManifestChecksums, ManifestOption,
};
use walstream::protocol::identify::{BackupPosition, BackupTablespace};

use super::pace::Pace;
use super::{CHUNK, PROGRESS_INTERVAL, position, put};
use crate::command::unsupported;
use crate::connection::{Client, Interruption, Session};
use crate::counters::RunningBackup;
use crate::refusal::Refusal;
use crate::source::StoredBackup;

/// Zero blocks at the end of a tar archive, which servers before 15 leave to the client.
const ARCHIVE_END: usize = 1024;

/// Sends it.
pub(super) async fn run(
    client: &mut Client,
    session: &Session,
    command: &BaseBackup,
    running: &RunningBackup,
) -> Result<(), Interruption> {
    let source = &session.shared.source;
    let backup = source
        .base_backup()
        .map_err(Refusal::from)?
        .ok_or_else(|| {
            unsupported("a base backup").with_hint(
                "This server has WAL only. Take the base backup from the primary or from one of its standbys.",
            )
        })?;
    check(command, &backup)?;
    let generation = BackupGeneration::for_version(source.identity().server_version_num);
    let tablespace = BackupTablespace {
        oid: None,
        location: None,
        size_kib: command.progress.then(|| backup.archive.len() as u64 / 1024),
    };
    let answer = &mut client.answer;
    answer.single_row(&BackupPosition::COLUMNS, &position(backup.start).values());
    answer.command_complete("SELECT");
    answer.single_row(&BackupTablespace::COLUMNS, &tablespace.values());
    answer.command_complete("SELECT");
    let mut pace = Pace::new(command.max_rate_kib);
    match generation {
        BackupGeneration::SingleCopy => {
            single_copy(client, command, &backup, &mut pace, running).await?;
        }
        BackupGeneration::CopyPerArchive => {
            copy_per_archive(client, command, &backup, &mut pace, running).await?;
        }
    }
    let answer = &mut client.answer;
    answer.single_row(&BackupPosition::COLUMNS, &position(backup.end).values());
    answer.command_complete("SELECT");
    answer.command_complete("BASE_BACKUP");
    Ok(())
}

/// What was asked for must be what the backup is; nothing is left out in silence.
fn check(command: &BaseBackup, backup: &StoredBackup) -> Result<(), Refusal> {
    if command.wal {
        return Err(unsupported("WAL inside of a base backup")
            .with_hint("Stream the WAL beside the backup, as pg_basebackup -X stream does."));
    }
    if command.incremental {
        return Err(unsupported("an incremental backup"));
    }
    let compression = command
        .compression
        .as_ref()
        .map(|compression| compression.algorithm);
    if compression.is_some_and(|algorithm| algorithm != CompressionAlgorithm::None) {
        return Err(unsupported("compression of a base backup"));
    }
    match &command.target {
        Some(target) if target.name != "client" => {
            return Err(unsupported("a base backup that stays on the server"));
        }
        _ => {}
    }
    if command.manifest == ManifestOption::No {
        return Ok(());
    }
    let checksums = command
        .manifest_checksums
        .unwrap_or(ManifestChecksums::Crc32c);
    let mark = format!("\"Checksum-Algorithm\": \"{}\"", checksums.name());
    let has_them = memmem(&backup.manifest, mark.as_bytes())
        || (checksums == ManifestChecksums::None
            && !memmem(&backup.manifest, b"\"Checksum-Algorithm\""));
    if has_them && command.manifest == ManifestOption::Yes {
        Ok(())
    } else {
        Err(unsupported(
            "a manifest with other checksums or names than those of the stored backup",
        ))
    }
}

async fn single_copy(
    client: &mut Client,
    command: &BaseBackup,
    backup: &StoredBackup,
    pace: &mut Pace,
    running: &RunningBackup,
) -> Result<(), Interruption> {
    client.answer.copy_out_response();
    let begin = BackupMessage::NewArchive {
        name: "base.tar",
        location: None,
    };
    put(client, &begin);
    let mut bytes_done = 0;
    let mut reported_at = Instant::now();
    for chunk in chunks(&backup.archive) {
        put(client, &BackupMessage::Data(&chunk));
        running.count(chunk.len());
        bytes_done += chunk.len() as u64;
        if reported_at.elapsed() >= PROGRESS_INTERVAL {
            reported_at = Instant::now();
            put(client, &BackupMessage::Progress { bytes_done });
        }
        client.flush().await?;
        pace.wait(bytes_done).await;
    }
    put(client, &BackupMessage::Progress { bytes_done });
    if command.manifest != ManifestOption::No {
        put(client, &BackupMessage::Manifest);
        for chunk in chunks(&backup.manifest) {
            put(client, &BackupMessage::Data(&chunk));
            running.count(chunk.len());
            client.flush().await?;
        }
    }
    client.answer.copy_done();
    Ok(())
}

async fn copy_per_archive(
    client: &mut Client,
    command: &BaseBackup,
    backup: &StoredBackup,
    pace: &mut Pace,
    running: &RunningBackup,
) -> Result<(), Interruption> {
    let archive = backup
        .archive
        .slice(..backup.archive.len().saturating_sub(ARCHIVE_END));
    let manifest = (command.manifest != ManifestOption::No).then(|| backup.manifest.clone());
    for part in std::iter::once(archive).chain(manifest) {
        client.answer.copy_out_response();
        let mut bytes_done = 0;
        for chunk in chunks(&part) {
            client.answer.copy_data(&chunk);
            running.count(chunk.len());
            client.flush().await?;
            bytes_done += chunk.len() as u64;
            pace.wait(bytes_done).await;
        }
        client.answer.copy_done();
    }
    Ok(())
}

fn chunks(content: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut rest = content.clone();
    std::iter::from_fn(move || (!rest.is_empty()).then(|| rest.split_to(CHUNK.min(rest.len()))))
}

fn memmem(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::WalPosition;
    use walstream::{Lsn, TimelineId};

    #[test]
    fn only_what_is_stored_is_promised() {
        let at = WalPosition {
            timeline: TimelineId(1),
            lsn: Lsn(8),
        };
        let backup = StoredBackup {
            start: at,
            end: at,
            archive: Bytes::new(),
            manifest: Bytes::from_static(br#"{"Path": "a", "Checksum-Algorithm": "SHA256"}"#),
        };
        let with = |change: &dyn Fn(&mut BaseBackup)| {
            let mut command = BaseBackup::default();
            change(&mut command);
            check(&command, &backup).map_err(|refusal| refusal.sqlstate)
        };
        let manifest = |command: &mut BaseBackup, checksums| {
            command.manifest = ManifestOption::Yes;
            command.manifest_checksums = checksums;
        };
        assert_eq!(with(&|_| {}), Ok(()));
        assert_eq!(
            with(&|command| manifest(command, Some(ManifestChecksums::Sha256))),
            Ok(())
        );
        assert_eq!(with(&|command| manifest(command, None)), Err("0A000"));
        assert_eq!(
            with(&|command| manifest(command, Some(ManifestChecksums::None))),
            Err("0A000")
        );
        assert_eq!(with(&|command| command.wal = true), Err("0A000"));
        assert_eq!(with(&|command| command.incremental = true), Err("0A000"));
    }

    #[test]
    fn chunks_are_the_whole_content() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let content = Bytes::from(vec![7; length]);
            let lengths: Vec<usize> = chunks(&content).map(|chunk| chunk.len()).collect();
            assert_eq!(lengths.iter().sum::<usize>(), length);
            assert!(
                lengths.iter().all(|&part| 0 < part && part <= CHUNK),
                "{length}"
            );
        }
    }
}
