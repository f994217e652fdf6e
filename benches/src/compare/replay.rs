//! PostgreSQL's own recovery against `walreceiver replay`: the same WAL onto the same base backup, with as much memory, on a file
//! system in memory.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use rustix::fs::statvfs;
use walstream::Lsn;
use walstream_tests::data_directory::{control_file, ensure_same_data};
use walstream_tests::{PostgresPrograms, Workdir, server_version};

use super::{Effort, Report, Runs, Target, command_in, gigabytes, megabytes, run};
use crate::corpus::Corpus;
use crate::measure::{Measured, Measuring};
use crate::table::Table;

/// Memory for pages, of either.
const CACHE: &str = "1GB";
/// Least speed, as a multiple of PostgreSQL's.
const SPEED: f64 = 1.5;
/// Most resident memory, as a multiple of PostgreSQL's.
const MEMORY: f64 = 1.0;
/// Where a file system in memory is found.
const IN_MEMORY: &str = "/dev/shm";
/// What a run needs there besides the WAL, in bytes: two data directories.
const ROOM: u64 = 4 << 30;

/// Compares.
///
/// # Errors
/// When a program fails or cannot be built, or the two data directories differ in the end.
pub fn compare(effort: Effort) -> Result<Report> {
    let corpus = Corpus::cached(effort.corpus_size())?;
    let is_in_memory = has_room(corpus.bytes()?.saturating_add(ROOM));
    let place = if is_in_memory {
        Workdir::new_in(Path::new(IN_MEMORY))?
    } else {
        Workdir::new()?
    };
    let wal = place.make_dir("wal")?;
    for entry in fs::read_dir(corpus.wal_directory())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), wal.join(entry.file_name()))?;
        }
    }
    fs::create_dir(wal.join("archive_status"))?;
    place.own(&wal)?;
    let scene = Scene {
        corpus,
        programs: server_version(15)?,
        place,
    };
    let mut peer = Runs::new("PostgreSQL's recovery");
    let mut ours = Runs::new("walreceiver replay");
    let mut small = Runs::new("walreceiver replay, its own settings");
    for round in 0..effort.rounds {
        peer.runs.push(scene.postgres()?);
        ours.runs
            .push(scene.replay(&["--cache-size", CACHE, "--max-dirty", "1TB"])?);
        if round == 0 {
            ensure_same_data(&scene.place.join("peer"), &scene.place.join("ours"))?;
        }
        small.runs.push(scene.replay(&[])?);
    }
    let bytes = scene.replayed()?;
    let mut table = Table::new(&[
        "",
        "wall s",
        "MB/s",
        "CPU s",
        "of it system",
        "peak MB",
        "speed",
        "by CPU time",
        "memory",
    ]);
    for contestant in [&peer, &ours, &small] {
        let wall = contestant.spread(|run| run.wall_s)?;
        table.row([
            contestant.name.clone(),
            wall.to_string(),
            format!("{:.0}", megabytes(bytes) / wall.median),
            contestant.spread(Measured::cpu_s)?.to_string(),
            contestant.spread(|run| run.system_s)?.to_string(),
            format!("{:.0}", contestant.peak_mb()?),
            peer.ratio(contestant, |run| run.wall_s)?.to_string(),
            peer.ratio(contestant, Measured::cpu_s)?.to_string(),
            contestant.ratio(&peer, memory)?.to_string(),
        ]);
    }
    let where_it_was = if is_in_memory {
        "on a file system in memory".to_owned()
    } else {
        format!("on a disk, as {IN_MEMORY} is not there or too small")
    };
    Ok(Report {
        title: format!(
            "{:.2} GB of WAL replayed onto a base backup {where_it_was}; {CACHE} for pages; speed as a multiple of PostgreSQL's",
            gigabytes(bytes)
        ),
        table,
        targets: vec![
            Target::at_least(
                "speed of replay",
                peer.ratio(&ours, |run| run.wall_s)?.median,
                SPEED,
            ),
            // What a machine that has other things to do can tell.
            Target::at_least(
                "speed of replay by CPU time",
                peer.ratio(&ours, Measured::cpu_s)?.median,
                SPEED,
            ),
            Target::at_most(
                "memory of replay",
                ours.ratio(&peer, memory)?.median,
                MEMORY,
            ),
        ],
    })
}

#[expect(clippy::cast_precision_loss, reason = "a measured size")]
fn memory(run: &Measured) -> f64 {
    run.peak_rss as f64
}

fn has_room(bytes: u64) -> bool {
    statvfs(IN_MEMORY).is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) >= bytes)
}

/// Where it is done, and with what.
struct Scene {
    corpus: Corpus,
    programs: PostgresPrograms,
    place: Workdir,
}

impl Scene {
    /// A data directory from the base backup.
    fn base(&self, name: &str) -> Result<std::path::PathBuf> {
        let directory = self.place.join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        self.corpus.copy_base(&directory)?;
        Ok(directory)
    }

    /// Bytes of WAL from where redo begins to where it ends.
    fn replayed(&self) -> Result<u64> {
        let start = control_file(&self.base("start")?)?.checkpoint.redo_lsn;
        Ok(self.end()?.saturating_sub(start))
    }

    /// The record to end with. As it is a checkpoint, both write everything then.
    fn end(&self) -> Result<Lsn> {
        self.corpus.last_checkpoint()
    }

    /// PostgreSQL replays as a standby without a primary, which shuts itself down at the end.
    fn postgres(&self) -> Result<Measured> {
        let directory = self.base("peer")?;
        let wal = directory.join("pg_wal");
        fs::remove_dir_all(&wal)?;
        symlink(self.place.join("wal"), &wal)?;
        File::create(directory.join("standby.signal"))?;
        self.place.own(&wal)?;
        self.place.own(&directory.join("standby.signal"))?;
        let mut command = command_in(&self.place, &self.programs.program("postgres"));
        command.arg("-D").arg(&directory);
        for setting in [
            format!("shared_buffers={CACHE}"),
            format!("recovery_target_lsn={}", self.end()?),
            "recovery_target_action=shutdown".to_owned(),
            "fsync=off".to_owned(),
            "hot_standby=off".to_owned(),
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", self.place.path().display()),
        ] {
            command.args(["-c", &setting]);
        }
        let log = self.place.join("postgres.log");
        let output = File::create(&log)?;
        let (status, measured) = Measuring::start(command.stderr(output))?.finish()?;
        let text = fs::read_to_string(&log)?;
        ensure!(status.success(), "PostgreSQL ended with {status}: {text}");
        ensure!(
            text.contains("recovery stopping after"),
            "PostgreSQL did not get to the end: {text}"
        );
        Ok(measured)
    }

    fn replay(&self, options: &[&str]) -> Result<Measured> {
        let directory = self.base("ours")?;
        let mut command: Command =
            command_in(&self.place, &self.place.program_path("walreceiver")?);
        command.arg("replay").arg("-D").arg(&directory);
        command.arg("--wal").arg(self.place.join("wal"));
        command.args([
            "--target-lsn",
            &self.end()?.to_string(),
            "--quiet",
            "--log-level",
            "warn",
        ]);
        run(command.args(options).stdout(Stdio::null()))
    }
}
