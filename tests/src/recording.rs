//! [`Recording`]: a mirror that stopped in the middle of a server's WAL, and all of that WAL, to be served with defects.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use walreceiver::mirror::flushed::FlushedFile;
use walreceiver::mirror::resume::{Depth, Resume, resume};
use walreceiver::mirror::state::MirrorState;
use walstream::Lsn;
use walstream::wal::segment_name::SegmentName;

use crate::cluster_options::ClusterOptions;
use crate::fake_peer::{FakePeer, FakeSystem};
use crate::mirror::Mirror;
use crate::wait::SHORT;

/// Most WAL that one message of a PostgreSQL server carries, in bytes.
const MESSAGE: usize = 128 << 10;

/// A server's WAL, in memory.
#[derive(Clone, Debug)]
pub struct RecordedWal {
    /// What a fake primary says about itself.
    pub system: FakeSystem,
    base: Lsn,
    bytes: Arc<[u8]>,
}

/// A mirror with segments of 1 MB and without relations: some MB of WAL are in it, and some more are recorded. The server
/// is gone.
#[derive(Debug)]
pub struct Recording {
    mirror: Mirror,
    /// The server's WAL, from the mirror's first segment on.
    pub wal: RecordedWal,
    /// End of the mirror's WAL.
    pub held: Lsn,
}

impl Recording {
    /// Records a server of its own.
    ///
    /// # Errors
    /// When the server cannot be started or mirrored.
    pub fn new() -> Result<Self> {
        let mut cluster = ClusterOptions::default()
            .initdb_option("--wal-segsize=1")
            .set("wal_keep_size", "64MB")
            .set("max_wal_size", "64MB")
            .start()?;
        let mirror = Mirror::init_with(&cluster.conninfo(), &["--no-slot"])?;
        let running = mirror.run(&[])?;
        cluster.query(&load("held"))?;
        cluster.wait_for_flush("gp_walreceiver", cluster.flush_lsn()?, SHORT)?;
        running.terminate(SHORT)?;
        cluster.query(&load("recorded"))?;
        // A last record that is flushed for certain, and nothing half behind it.
        cluster.query("CHECKPOINT")?;
        let end = cluster.flush_lsn()?;
        let state = MirrorState::load(mirror.directory())?;
        let segment_size = state.facts.dialect.segment_size;
        let base = state.facts.start.lsn.segment_start(segment_size);
        let mut bytes = Vec::new();
        let mut number = base.segment_number(segment_size);
        while number <= end.prev_segment_number(segment_size) {
            let name = SegmentName {
                timeline: state.facts.start.timeline,
                number,
            };
            bytes.extend(cluster.wal_file(&name.file_name(segment_size))?);
            number = number.next();
        }
        bytes.truncate(usize::try_from(end.saturating_sub(base))?);
        let mut system = FakeSystem::new(cluster.system_identifier()?, end);
        for (name, value) in [
            ("wal_segment_size", "1MB"),
            ("transaction_read_only", "off"),
        ] {
            system.settings.insert(name.to_owned(), value.to_owned());
        }
        cluster.kill_9()?;
        let wal = RecordedWal {
            system,
            base,
            bytes: bytes.into(),
        };
        // Nothing that is tested with it reads relations, and copies are quicker without.
        std::fs::remove_dir_all(mirror.directory().join("base"))?;
        let held = proven(mirror.directory())?.end.lsn;
        Ok(Self { mirror, wal, held })
    }

    /// A copy of the mirror, to be damaged or run.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn mirror(&self) -> Result<Mirror> {
        self.mirror.copy()
    }

    /// Checks that a mirror that no program has open is whole, has all that it has acknowledged, and byte for byte the
    /// server's WAL, at least up to `least`. Gives its end.
    ///
    /// # Errors
    /// With what is not so.
    pub fn ensure_whole(&self, mirror: &Mirror, least: Lsn) -> Result<Lsn> {
        let found = proven(mirror.directory())?;
        let end = found.end.lsn;
        ensure!(end >= least, "the mirror ends at {end}, before {least}");
        if let Some(acknowledged) = FlushedFile::read(mirror.directory())? {
            ensure!(
                end >= acknowledged.lsn,
                "the mirror ends at {end}, and has acknowledged {}",
                acknowledged.lsn
            );
        }
        let mut ours = Vec::new();
        let segment_size = MirrorState::load(mirror.directory())?
            .facts
            .dialect
            .segment_size;
        let mut number = self.wal.base.segment_number(segment_size);
        while number <= end.prev_segment_number(segment_size) {
            ours.extend(std::fs::read(found.files.path(number))?);
            number = number.next();
        }
        let theirs = self.wal.slice(self.wal.base..end)?;
        let differs = ours.iter().zip(theirs).position(|(a, b)| a != b);
        ensure!(
            differs.is_none() && ours.len() >= theirs.len(),
            "the mirror's WAL differs from the server's at offset {differs:?} from {}",
            self.wal.base
        );
        Ok(end)
    }
}

impl RecordedWal {
    /// The start of the first segment.
    #[must_use]
    pub const fn base(&self) -> Lsn {
        self.base
    }

    /// Where the WAL ends, which is a record's end.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.system.lsn
    }

    /// WAL between these positions.
    ///
    /// # Errors
    /// When it was not recorded.
    pub fn slice(&self, range: Range<Lsn>) -> Result<&[u8]> {
        let offset = |lsn: Lsn| usize::try_from(lsn.0.checked_sub(self.base.0)?).ok();
        offset(range.start)
            .zip(offset(range.end))
            .and_then(|(from, to)| self.bytes.get(from..to))
            .with_context(|| format!("WAL from {} to {} was not recorded", range.start, range.end))
    }

    /// Answers what comes before streaming, begins to stream, and gives the position that was asked for.
    ///
    /// # Errors
    /// When the connection ends, or the receiver asks for something else.
    pub fn begin(&self, peer: &mut FakePeer) -> Result<Lsn> {
        let lsn = start_lsn(&peer.answer(&self.system)?)?;
        peer.copy_both()?;
        Ok(lsn)
    }

    /// Sends WAL between these positions.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn send(&self, peer: &mut FakePeer, range: Range<Lsn>) -> Result<()> {
        let mut lsn = range.start;
        for piece in self.slice(range)?.chunks(MESSAGE) {
            peer.xlog_data(lsn, self.end(), piece)?;
            lsn = Lsn(lsn.0 + u64::try_from(piece.len())?);
        }
        Ok(())
    }

    /// Serves all there is, as a good server does, and lets the receiver end it.
    ///
    /// # Errors
    /// When the connection ends otherwise.
    pub fn serve(&self, peer: &mut FakePeer) -> Result<()> {
        let from = self.begin(peer)?;
        self.send(peer, from..self.end())?;
        peer.keepalive(self.end(), true)?;
        end_in_order(peer)
    }
}

/// Reads what the receiver sends until it ends the stream, and ends it, too.
///
/// # Errors
/// When the connection ends otherwise.
pub fn end_in_order(peer: &mut FakePeer) -> Result<()> {
    while peer.read_message()?.0 != b'c' {}
    peer.copy_done()?;
    peer.done("START_REPLICATION")
}

/// The position in a `START_REPLICATION` command.
///
/// # Errors
/// When there is none.
pub fn start_lsn(command: &str) -> Result<Lsn> {
    let words = command.split_whitespace();
    words
        .filter(|word| word.contains('/'))
        .find_map(|word| word.trim_end_matches(';').parse().ok())
        .with_context(|| format!("expected START_REPLICATION, got {command}"))
}

/// About 2 MB of WAL, of small records and of full-page images.
fn load(table: &str) -> String {
    format!(
        "CREATE TABLE {table} AS SELECT i, md5(i::text) AS t FROM generate_series(1, 12000) AS i;
         CREATE INDEX ON {table} (t); UPDATE {table} SET i = -i WHERE i % 10 = 0"
    )
}

fn proven(mirror: &Path) -> Result<Resume> {
    let state = MirrorState::load(mirror)?;
    Ok(resume(mirror, &state, Depth::All, &mut |_| true)?)
}

/// Where a mirror keeps the segment that holds this position.
///
/// # Errors
/// When its state cannot be read.
pub fn segment_path(mirror: &Mirror, lsn: Lsn) -> Result<PathBuf> {
    let state = MirrorState::load(mirror.directory())?;
    let segment_size = state.facts.dialect.segment_size;
    let name = SegmentName {
        timeline: state.facts.start.timeline,
        number: lsn.segment_number(segment_size),
    };
    Ok(mirror
        .directory()
        .join("pg_wal")
        .join(name.file_name(segment_size)))
}
