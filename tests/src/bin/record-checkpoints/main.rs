//! Records WAL with many checkpoints, which goes on from the recorded coordinator, for the tests of replay that loses power.
//!
//! ```text
//! cargo run -p walstream-tests --bin record-checkpoints -- walreceiver/src/replay/recorded/checkpoints.tar.zst
//! ```
//!
//! The recorded coordinator is replayed to its end and promoted; a PostgreSQL 15 server (`WALSTREAM_POSTGRES` names its directory of
//! programs) goes on from there on timeline 2. While a session writes all the time, so that records lie between each checkpoint and where
//! its redo begins, others do what `workload` says, with checkpoints in between. What is in the archive is told in
//! `walreceiver/src/replay/recorded/README.md`.

mod workload;

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use walstream::SegmentSize;
use walstream::wal::segment_name::WalFileName;
use walstream_tests::data_directory::control_file;
use walstream_tests::{Cluster, ClusterOptions, LONG, StopMode, Workdir};

/// Slow to pack and as quick to unpack as any.
const LEVEL: i32 = 19;
/// The timeline that the server begins.
const TIMELINE: u32 = 2;

/// `wal_log_hints` lets the log have what it would have with page checksums: so it can be replayed with and without.
const SETTINGS: &[(&str, &str)] = &[
    ("wal_log_hints", "on"),
    ("track_commit_timestamp", "on"),
    ("max_wal_size", "4GB"),
    ("checkpoint_completion_target", "0"),
    ("synchronous_commit", "off"),
];

fn main() -> Result<()> {
    let target = std::env::args_os()
        .nth(1)
        .context("usage: record-checkpoints ARCHIVE")?;
    let recorded =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../walreceiver/src/demo/coordinator.tar.zst");
    let work = Workdir::new()?;
    let (data, wal) = (work.make_dir("data")?, work.make_dir("wal")?);
    unpack(&recorded, &data, &wal)?;
    if let Some((user, group)) = work.user().ids() {
        let owner = format!("{user}:{group}");
        run(Command::new("chown")
            .args(["-R", &owner])
            .args([&data, &wal]))?;
    }
    run(Command::new("chmod").args(["-R", "go-rwx"]).arg(&data))?;
    let replay = work.program("walreceiver")?;
    replay
        .args(["replay", "--target-action", "promote", "-D"])
        .arg(&data)
        .arg("--wal")
        .arg(&wal)
        .succeed(LONG)?;

    let other = ClusterOptions::default().create()?;
    ensure!(
        other.programs().major() == 15,
        "the recording is one of PostgreSQL 15: set WALSTREAM_POSTGRES"
    );
    let mut server = Cluster::on_directory(&other, &data)?;
    server.configure(SETTINGS)?;
    server.start()?;
    let load = work.join("load.sql");
    std::fs::write(&load, workload::LOAD)?;
    work.own(&load)?;
    server.query(workload::BEFORE_LOAD)?;
    let mut bench = server.pgbench_command();
    bench
        .args(["-n", "-c", "2", "-R", "150", "-T", "100000", "-f"])
        .arg(&load);
    let mut bench = bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let worked = workload::run(&server);
    bench.kill()?;
    bench.wait()?;
    worked?;
    server.stop(StopMode::Fast)?;

    let end = control_file(&data)?.checkpoint_lsn;
    let files = wal_files(&data.join("pg_wal"))?;
    let size = write(Path::new(&target), &files)?;
    println!("{} files of WAL, to {end}, {size} bytes", files.len());
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Unpacks the recorded coordinator's base backup and WAL.
fn unpack(recorded: &Path, data: &Path, wal: &Path) -> Result<()> {
    let packed = std::fs::File::open(recorded)?;
    for entry in tar::Archive::new(zstd::Decoder::new(packed)?).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        if path == Path::new("base.tar") {
            tar::Archive::new(entry).unpack(data)?;
        } else if let Ok(name) = path.strip_prefix("wal") {
            let mut entry = entry;
            entry.unpack(wal.join(name))?;
        }
    }
    Ok(())
}

/// The new timeline's history and segments, by name.
fn wal_files(pg_wal: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(pg_wal)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = SegmentSize::new(1 << 20)?;
        let is_wanted = match WalFileName::parse(&name, size) {
            Ok((WalFileName::Segment(segment), None)) => segment.timeline.0 == TIMELINE,
            Ok((WalFileName::History(timeline), None)) => timeline.0 == TIMELINE,
            _ => false,
        };
        if is_wanted {
            files.push((name, std::fs::read(entry.path())?));
        }
    }
    files.sort();
    Ok(files)
}

/// Writes the archive and returns its size in bytes.
fn write(target: &Path, files: &[(String, Vec<u8>)]) -> Result<u64> {
    let file = std::fs::File::create(target)
        .with_context(|| format!("cannot write {}", target.display()))?;
    let mut encoder = zstd::Encoder::new(file, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.long_distance_matching(true)?;
    let mut archive = tar::Builder::new(encoder);
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(u64::try_from(bytes.len())?);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, bytes.as_slice())
            .with_context(|| format!("cannot pack {name}"))?;
    }
    archive.into_inner()?.finish()?.sync_all()?;
    Ok(std::fs::metadata(target)?.len())
}
