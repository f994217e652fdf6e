//! Records the coordinator that `walreceiver demo` mirrors where no PostgreSQL is installed.
//!
//! ```text
//! cargo run -p walstream-tests --bin record-coordinator -- walreceiver/src/demo/coordinator.tar.zst
//! ```
//!
//! It starts a PostgreSQL 15 server (`WALSTREAM_POSTGRES` names its directory of programs), takes a base backup while
//! schema changes go on, goes on with them, and packs what the server sent and wrote. What is in the archive is told in
//! `walreceiver/src/demo/README.md`.

mod archive;
mod startup;
mod workload;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, LONG, SHORT, StopMode, Workdir, wait_for, wait_for_some,
};

const SEGMENT: u64 = 1 << 20;
/// Schema changes before, and mostly beside, the base backup; and after it.
const CHANGES_BESIDE: usize = 60;
const CHANGES_AFTER: usize = 900;

/// What a receiver may ask with `SHOW`.
const SHOWN: &[&str] = &[
    "block_size",
    "data_checksums",
    "data_directory_mode",
    "max_wal_senders",
    "server_version",
    "server_version_num",
    "wal_block_size",
    "wal_level",
    "wal_segment_size",
    "wal_sender_timeout",
];

fn main() -> Result<()> {
    let target = std::env::args_os()
        .nth(1)
        .context("usage: record-coordinator ARCHIVE")?;
    let mut cluster = ClusterOptions::default()
        .own_system()
        .initdb_option("--wal-segsize=1")
        .set("wal_keep_size", "512MB")
        .set("min_wal_size", "2MB")
        .set("checkpoint_timeout", "1h")
        .set("autovacuum", "off")
        .set("cluster_name", "coordinator")
        .start()?;
    ensure!(
        cluster.programs().major() == 15,
        "the recording is one of PostgreSQL 15: set WALSTREAM_POSTGRES"
    );
    let work = Workdir::new()?;
    cluster.query("CREATE DATABASE warehouse")?;

    let backup = work.join("backup");
    let beside = back_up_beside_changes(&cluster, &work, &backup)?;
    let after = workload::script(CHANGES_BESIDE, CHANGES_AFTER);
    let commits =
        workload::commit_lsns(&cluster.run("psql", &workload::arguments(&cluster, &after))?)?;

    let manifest: Value = serde_json::from_slice(&std::fs::read(backup.join("backup_manifest"))?)?;
    let range = manifest
        .pointer("/WAL-Ranges/0")
        .context("the manifest has no WAL range")?;
    let lsn = |name: &str| -> Result<Lsn> {
        Ok(range
            .get(name)
            .and_then(Value::as_str)
            .with_context(|| format!("the range has no {name}"))?
            .parse()?)
    };
    let (start_lsn, end_lsn) = (lsn("Start-LSN")?, lsn("End-LSN")?);
    let identity = startup::identity(&cluster)?;
    let shown = SHOWN
        .iter()
        .map(|name| Ok((*name, cluster.query(&format!("SHOW {name}"))?)));
    let shown = shown.collect::<Result<std::collections::BTreeMap<_, _>>>()?;
    let counts = workload::catalog_counts(&cluster)?;
    let server_version = cluster.query("SHOW server_version")?;
    let system_identifier = cluster.system_identifier()?;
    let flush_lsn = quiet_flush_lsn(&cluster)?;
    cluster.stop(StopMode::Immediate)?;

    let segments = archive::segments(&cluster, start_lsn, flush_lsn)?;
    let facts = json!({
        "format": 1,
        "server_version": server_version,
        "system_identifier": system_identifier.to_string(),
        "timeline": 1,
        "parameter_status": identity,
        "show": shown,
        "backup": { "start_lsn": start_lsn.to_string(), "end_lsn": end_lsn.to_string() },
        "wal": {
            "segment_size": SEGMENT,
            "start_lsn": start_lsn.segment_start_of(SEGMENT).to_string(),
            "flush_lsn": flush_lsn.to_string(),
            "segments": segments.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        },
        "commits": {
            "beside_backup": beside,
            "after_backup": commits.len(),
            "last_commit_lsn": commits.last().context("no commit was recorded")?.to_string(),
            "lsns_after_backup": commits.iter().map(Lsn::to_string).collect::<Vec<_>>(),
        },
        "warehouse": counts,
    });
    let size = archive::write(Path::new(&target), &facts, &backup, &segments)?;
    println!(
        "{} commits, WAL {start_lsn} to {flush_lsn}, {size} bytes",
        beside + commits.len()
    );
    Ok(())
}

/// Takes a base backup while a session changes the schema, and returns the number of its commits.
fn back_up_beside_changes(cluster: &Cluster, work: &Workdir, backup: &Path) -> Result<usize> {
    let program = |name: &str| work.external(&cluster.programs().program(name));
    let script = workload::paced_script(0, CHANGES_BESIDE);
    let session = program("psql")
        .args(workload::arguments(cluster, &script))
        .start()?;
    wait_for("the first change", SHORT, || {
        Ok(!session.stdout().is_empty())
    })?;
    let before = session.stdout().lines().count();
    let dump = program("pg_basebackup").arg("-D").arg(backup).args([
        "-Ft",
        "-X",
        "none",
        "-c",
        "fast",
        "--no-sync",
    ]);
    let dump = dump.args([
        "-l",
        "walreceiver demo",
        "--max-rate",
        "16M",
        "-d",
        &cluster.conninfo(),
    ]);
    dump.succeed(LONG)?;
    ensure!(
        session.stdout().lines().count() > before + 5,
        "the backup was taken while nothing changed"
    );
    let finished = session.wait(LONG)?;
    ensure!(finished.code() == Some(0), "{finished}");
    Ok(workload::commit_lsns(&finished.stdout)?.len())
}

/// The flush LSN of a server at rest: all that was written is flushed, so that it is the end of a record.
fn quiet_flush_lsn(cluster: &Cluster) -> Result<Lsn> {
    wait_for_some("a server at rest", SHORT, || {
        let flush = cluster.flush_lsn()?;
        Ok((flush == cluster.current_lsn()?).then_some(flush))
    })
}

/// Arithmetic on the recording's fixed segment size.
trait SegmentStart {
    fn segment_start_of(self, size: u64) -> Self;
}

impl SegmentStart for Lsn {
    fn segment_start_of(self, size: u64) -> Self {
        Self(self.0 - self.0 % size)
    }
}
