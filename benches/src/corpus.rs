//! The corpus: WAL that a real server wrote, of schema changes of every kind, loads, index builds and `pgbench`.
//!
//! It is made once and kept below Cargo's target directory, as the data directory of a server that was stopped. Beside it lies
//! a base backup that was taken before all of this, for those who replay it. What is in it is a function of [`CorpusSize`], `corpus/round.sql` and the server's version; another hash of these makes
//! another corpus. Checkpoints are frequent, so that most bytes are page images.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise};
use walreceiver::demo::local_postgres::Listen;
use walreceiver::demo::local_postgres_clients::checked;
use walstream::{Lsn, ReadBuffer};
use walstream_tests::data_directory::control_file;
use walstream_tests::{
    Cluster, ClusterOptions, LocalPostgres, PostgresPrograms, ServerUser, StopMode,
    build_directory, server_version,
};

/// Changed whenever the code below makes other WAL than before.
const FORMAT: u32 = 2;
/// The server that writes it.
const MAJOR: u32 = 15;
const ROUND: &str = include_str!("corpus/round.sql");

/// The server keeps all WAL and takes a checkpoint only when told. A crash would only mean to make the corpus again.
const SETTINGS: [(&str, &str); 9] = [
    ("wal_keep_size", "100GB"),
    ("max_wal_size", "100GB"),
    ("checkpoint_timeout", "1d"),
    ("checkpoint_completion_target", "0"),
    ("wal_recycle", "off"),
    ("shared_buffers", "128MB"),
    ("synchronous_commit", "off"),
    ("max_worker_processes", "0"),
    ("wal_buffers", "16MB"),
];

/// How much of everything a corpus holds.
#[derive(Clone, Copy, Debug, Hash)]
pub struct CorpusSize {
    /// Least number of whole 16 MB segments.
    pub segments: u64,
    /// Scales of the `pgbench` databases.
    scales: &'static [u32],
    /// Rows of the tables of each round of schema changes.
    rows: u32,
    /// `pgbench` transactions between two checkpoints.
    transactions: u32,
}

impl CorpusSize {
    /// A bit more than 2 GB.
    pub const FULL: Self = Self {
        segments: 128,
        scales: &[1, 4, 10],
        rows: 10_000,
        transactions: 4_000,
    };
    /// Enough to show that something works, in seconds.
    pub const TINY: Self = Self {
        segments: 3,
        scales: &[1],
        rows: 1_000,
        transactions: 500,
    };
}

/// Archived WAL, and the server that wrote it.
#[derive(Debug)]
pub struct Corpus {
    directory: PathBuf,
    base: PathBuf,
    segments: Vec<PathBuf>,
}

impl Corpus {
    /// The corpus of this size: the one that was kept, or a new one. Other processes that ask for it meanwhile wait.
    ///
    /// # Errors
    /// When there is no PostgreSQL 15, or it fails to make the corpus, with its messages.
    pub fn cached(size: CorpusSize) -> Result<Self> {
        let programs = server_version(MAJOR)?;
        let mut hasher = DefaultHasher::new();
        (FORMAT, size, SETTINGS, ROUND, programs.version()).hash(&mut hasher);
        let parent = build_directory()?
            .parent()
            .context("Cargo's build directory has no parent")?
            .join("corpus");
        fs::create_dir_all(&parent)?;
        let directory = parent.join(format!("{}-{:016x}", size.segments, hasher.finish()));
        let lock = File::create(directory.with_extension("lock"))?;
        lock.lock()?;
        let base = directory.with_extension("base");
        // The base backup is there when the directory is: it is put in its place first.
        if !directory.exists() {
            make(size, &programs, &directory, &base)?;
        }
        let wal = directory.join("pg_wal");
        let mut segments: Vec<PathBuf> = fs::read_dir(&wal)?
            .map(|entry| Ok(entry?.path()))
            .filter(|path: &io::Result<PathBuf>| {
                path.as_ref().map_or(true, |path| is_segment(path))
            })
            .collect::<io::Result<_>>()?;
        segments.sort();
        segments.truncate(usize::try_from(size.segments)?);
        ensure!(
            u64::try_from(segments.len())? == size.segments,
            "\"{}\" has too few segments: remove it",
            wal.display()
        );
        Ok(Self {
            directory,
            base,
            segments,
        })
    }

    /// The whole segments, in order. There may be more behind them.
    #[must_use]
    pub fn segments(&self) -> &[PathBuf] {
        &self.segments
    }

    /// Where the last record of all its WAL starts: the checkpoint that the server took when it was stopped.
    ///
    /// # Errors
    /// When `pg_control` cannot be read.
    pub fn last_checkpoint(&self) -> Result<Lsn> {
        Ok(control_file(&self.directory)?.checkpoint_lsn)
    }

    /// Makes a directory of this name from the base backup, that lacks all WAL.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy_base(&self, to: &Path) -> Result<()> {
        copy(&self.base, to)
    }

    /// The directory with the segments.
    #[must_use]
    pub fn wal_directory(&self) -> PathBuf {
        self.directory.join("pg_wal")
    }

    /// Names of the first and the last segment.
    ///
    /// # Errors
    /// Never: a corpus has segments with names.
    pub fn range(&self) -> Result<(&str, &str)> {
        fn name(path: Option<&PathBuf>) -> Option<&str> {
            path?.file_name()?.to_str()
        }
        name(self.segments.first())
            .zip(name(self.segments.last()))
            .context("the corpus is empty")
    }

    /// Length of all segments in bytes.
    ///
    /// # Errors
    /// When one cannot be looked at.
    pub fn bytes(&self) -> Result<u64> {
        let lengths = self
            .segments
            .iter()
            .map(|path| Ok(fs::metadata(path)?.len()));
        Ok(lengths.sum::<io::Result<u64>>()?)
    }

    /// Reads the segments into the page cache, from the disk. What the kernel reads ahead it keeps in larger pieces than
    /// what was written page by page, and copies out of them in two thirds of the time: so every run finds the same.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn load(&self) -> Result<()> {
        let mut buffer = ReadBuffer::default();
        for path in &self.segments {
            let mut file = File::open(path)?;
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
            while file.read(buffer.as_mut_slice())? > 0 {}
        }
        Ok(())
    }

    /// The server that wrote it, on a copy of its directory, not started. It still has all this WAL.
    ///
    /// # Errors
    /// When the directory cannot be copied.
    pub fn server(&self) -> Result<Cluster> {
        let programs = server_version(MAJOR)?;
        let user = ServerUser::choose().context("we are root, and there is no other user")?;
        let server = LocalPostgres::empty(&programs, &user, Listen::SocketAndTcp)?;
        copy(&self.directory, server.data_dir())?;
        Ok(Cluster::from(server))
    }
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.len() == 24 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit)
}

/// Copies a data directory with its owners.
fn copy(from: &Path, to: &Path) -> Result<()> {
    checked(
        Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(from)
            .arg(to),
    )?;
    Ok(())
}

fn make(
    size: CorpusSize,
    programs: &PostgresPrograms,
    directory: &Path,
    base: &Path,
) -> Result<()> {
    eprintln!(
        "making a corpus of {} segments, kept for the next time",
        size.segments
    );
    let mut options = ClusterOptions::default().programs(programs);
    for (name, value) in SETTINGS {
        options = options.set(name, value);
    }
    let mut cluster = options.start()?;
    let backup = cluster.scratch().join("base");
    let (target, conninfo) = (backup.to_string_lossy(), cluster.conninfo());
    cluster.run(
        "pg_basebackup",
        &[
            "-D",
            &target,
            "--no-sync",
            "--no-manifest",
            "-c",
            "fast",
            "-X",
            "none",
            "-d",
            &conninfo,
        ],
    )?;
    fill(&cluster, size)?;
    let stats = cluster.query(
        "SELECT format('%s records, %s bytes each on average, %s page images', wal_records,
                       round(wal_bytes / wal_records), wal_fpi) FROM pg_stat_wal",
    )?;
    eprintln!("{stats}");
    cluster.stop(StopMode::Fast)?;
    let unfinished = directory.with_extension("new");
    for (from, to) in [(backup.as_path(), base), (cluster.data_dir(), directory)] {
        for old in [&unfinished, to] {
            match fs::remove_dir_all(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        copy(from, &unfinished)?;
        fs::rename(&unfinished, to)?;
    }
    Ok(())
}

/// Works until the segments are full.
fn fill(cluster: &Cluster, size: CorpusSize) -> Result<()> {
    let round_sql = cluster.scratch().join("round.sql");
    cluster.write_file(&round_sql, ROUND)?;
    for scale in size.scales {
        cluster.query(&format!("CREATE DATABASE scale_{scale}"))?;
        pgbench(
            cluster,
            *scale,
            &["-i", "-q", "--foreign-keys", "-s", &scale.to_string()],
        )?;
    }
    let goal = (size.segments + 1) * (16 << 20);
    let transactions = (size.transactions / 4).to_string();
    let mut round = 0;
    while cluster.current_lsn()?.0 <= goal + (16 << 20) {
        let number = format!("w{round:03}");
        let mut psql = cluster.command("psql");
        psql.args([
            "-X",
            "-q",
            "-o",
            "/dev/null",
            "-v",
            &format!("s={number}"),
            "-v",
        ])
        .args([
            &format!("name=n{number}"),
            "-v",
            &format!("rows={}", size.rows),
        ])
        .arg("-f")
        .arg(&round_sql)
        .arg("-d")
        .arg(format!("{} dbname=postgres", cluster.conninfo()));
        checked(psql.stdin(Stdio::null()))?;
        for (scale, kind) in size
            .scales
            .iter()
            .zip(["tpcb-like", "simple-update", "tpcb-like"])
        {
            cluster.query("CHECKPOINT")?;
            let script = format!("{kind}@1");
            pgbench(
                cluster,
                *scale,
                &["-n", "-c", "4", "-b", &script, "-t", &transactions],
            )?;
            cluster.query_in(&format!("scale_{scale}"), "VACUUM pgbench_tellers")?;
        }
        round += 1;
    }
    Ok(())
}

fn pgbench(cluster: &Cluster, scale: u32, arguments: &[&str]) -> Result<()> {
    let mut pgbench = cluster.pgbench_command();
    checked(
        pgbench
            .env("PGDATABASE", format!("scale_{scale}"))
            .args(arguments),
    )?;
    Ok(())
}
