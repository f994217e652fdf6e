//! A mirror's WAL against that of its server, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walreceiver::mirror::flushed::TimelinePosition;
use walreceiver::mirror::resume::{Depth, resume};
use walreceiver::mirror::state::MirrorState;
use walstream::wal::segment_name::{SegmentName, WalFileName};

/// What [`ensure_same_wal`] has compared.
#[derive(Clone, Debug)]
pub struct SameWal {
    /// End of the mirror's WAL.
    pub end: TimelinePosition,
    /// Names of the segments compared, sorted.
    pub segments: Vec<String>,
}

/// Checks that a mirror that nobody has open is whole, that its segments have the bytes of the files of the same names
/// in the first of these servers' data directories that has them, up to the end of each timeline; the same for history files.
///
/// # Errors
/// With the file and the first byte that differs, or with what the mirror lacks to be whole.
pub fn ensure_same_wal(mirror: &Path, servers: &[&Path]) -> Result<SameWal> {
    let state = MirrorState::load(mirror)?;
    let segment_size = state.facts.dialect.segment_size;
    let found = resume(mirror, &state, Depth::All, &mut |_| true)?;
    let mut segments = Vec::new();
    for entry in fs::read_dir(mirror.join("pg_wal"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let ours = mirror.join("pg_wal").join(&name);
        let segment = match WalFileName::parse(&name, segment_size) {
            Ok((WalFileName::Segment(segment), None)) => segment,
            Ok((WalFileName::History(_), None)) => {
                ensure!(
                    fs::read(&ours)? == fs::read(find(servers, &name)?)?,
                    "{name} is not the server's"
                );
                continue;
            }
            _ => continue,
        };
        let end = match found.files.history().switch_point(segment.timeline) {
            Some(switch) => switch,
            None if segment.timeline == found.end.timeline => found.end.lsn,
            None => continue,
        };
        let SegmentName { number, .. } = segment;
        let start = number
            .start_lsn(segment_size)
            .with_context(|| format!("{name} lies behind every LSN"))?;
        let length = end.0.saturating_sub(start.0).min(segment_size.bytes());
        if length == 0 {
            continue;
        }
        compare(&ours, &find(servers, &name)?, usize::try_from(length)?)?;
        let size = fs::metadata(&ours)?.len();
        ensure!(
            size == segment_size.bytes(),
            "{name} has {size} bytes, a segment has {segment_size:?}"
        );
        segments.push(name);
    }
    segments.sort();
    ensure!(
        !segments.is_empty(),
        "no WAL in the mirror {}",
        mirror.display()
    );
    Ok(SameWal {
        end: found.end,
        segments,
    })
}

/// The file of this name of the first server that has it.
fn find(servers: &[&Path], name: &str) -> Result<PathBuf> {
    let mut paths = servers
        .iter()
        .map(|server| server.join("pg_wal").join(name));
    paths
        .find(|path| path.exists())
        .with_context(|| format!("no server has {name}"))
}

/// Compares the first `length` bytes of two files.
fn compare(ours: &Path, theirs: &Path, length: usize) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let (a, b) = (read(ours)?, read(theirs)?);
    ensure!(
        a.len() >= length && b.len() >= length,
        "{} is shorter than {length} bytes",
        ours.display()
    );
    let differs = a.iter().zip(&b).take(length).position(|(a, b)| a != b);
    ensure!(
        differs.is_none(),
        "{} differs from {} first at offset {differs:?}",
        ours.display(),
        theirs.display()
    );
    Ok(())
}
