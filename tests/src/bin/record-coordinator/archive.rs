//! Packs the recording: a tar archive, compressed with zstd.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use walstream::Lsn;
use walstream_tests::Cluster;

use crate::SEGMENT;

/// Slow to pack and as quick to unpack as any.
const LEVEL: i32 = 19;

/// Every segment from the one that holds `start_lsn` to the one that holds the last byte before `end_lsn`: name and
/// bytes. What follows `end_lsn` was never sent, and is zeros here.
pub(crate) fn segments(
    cluster: &Cluster,
    start_lsn: Lsn,
    end_lsn: Lsn,
) -> Result<Vec<(String, Vec<u8>)>> {
    let last = end_lsn.0.checked_sub(1).context("no WAL")? / SEGMENT;
    let per_4gib = (1 << 32) / SEGMENT;
    (start_lsn.0 / SEGMENT..=last)
        .map(|number| {
            let name = format!(
                "{:08X}{:08X}{:08X}",
                1,
                number / per_4gib,
                number % per_4gib
            );
            let mut bytes = cluster.wal_file(&name)?;
            let written = usize::try_from(end_lsn.0.saturating_sub(number * SEGMENT))?;
            if let Some(rest) = bytes.get_mut(written..) {
                rest.fill(0);
            }
            Ok((name, bytes))
        })
        .collect()
}

/// Writes the archive and returns its size in bytes.
pub(crate) fn write(
    target: &Path,
    facts: &Value,
    backup: &Path,
    segments: &[(String, Vec<u8>)],
) -> Result<u64> {
    let file =
        File::create(target).with_context(|| format!("cannot write {}", target.display()))?;
    let mut encoder = zstd::Encoder::new(file, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.long_distance_matching(true)?;
    let mut archive = tar::Builder::new(encoder);
    append(
        &mut archive,
        "facts.json",
        format!("{facts:#}\n").as_bytes(),
    )?;
    for name in ["backup_manifest", "base.tar"] {
        append(&mut archive, name, &fs::read(backup.join(name))?)?;
    }
    for (name, bytes) in segments {
        append(&mut archive, &format!("wal/{name}"), bytes)?;
    }
    archive.into_inner()?.finish()?.sync_all()?;
    Ok(fs::metadata(target)?.len())
}

fn append(archive: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(u64::try_from(bytes.len())?);
    header.set_mode(0o644);
    archive
        .append_data(&mut header, name, bytes)
        .with_context(|| format!("cannot pack {name}"))
}
