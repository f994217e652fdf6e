//! `pg_receivewal` against `walreceiver receive`, the same WAL from the same server: plain, gzip and LZ4.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walstream_tests::{Cluster, Workdir};

use super::{Effort, Report, Runs, Target, command_in, gigabytes, megabytes, run};
use crate::corpus::Corpus;
use crate::measure::Measured;
use crate::table::Table;

const SEGMENT: u64 = 16 << 20;
/// Most time, as a multiple of the peer's. A tenth is for the noise of a disk that both wait for.
const WALL: f64 = 1.1;
/// Most CPU time, as a multiple of the peer's.
const CPU: f64 = 0.5;
/// Most resident memory, in MB.
const PEAK_MB: f64 = 32.0;
/// Memory is flat when it grows by no more than this between the second and the last quarter of a run, in MB.
const GROWTH_MB: f64 = 1.0;

/// Which program, and how it keeps what it receives.
#[derive(Clone, Copy, Debug)]
struct Contestant {
    is_ours: bool,
    compression: Option<&'static str>,
}

impl Contestant {
    const ALL: [Self; 6] = [
        Self::new(false, None),
        Self::new(true, None),
        Self::new(false, Some("gzip")),
        Self::new(true, Some("gzip")),
        Self::new(false, Some("lz4")),
        Self::new(true, Some("lz4")),
    ];

    const fn new(is_ours: bool, compression: Option<&'static str>) -> Self {
        Self {
            is_ours,
            compression,
        }
    }

    fn name(self) -> String {
        let program = if self.is_ours {
            "walreceiver receive"
        } else {
            "pg_receivewal"
        };
        match self.compression {
            Some(method) => format!("{program} -Z {method}"),
            None => program.to_owned(),
        }
    }

    /// Segments that it receives. Compression takes so much longer that an eighth has to do.
    fn segments(self, all: u64) -> u64 {
        match self.compression {
            Some(_) => (all / 8).max(2),
            None => all,
        }
    }
}

/// Compares.
///
/// # Errors
/// When a program fails or cannot be built, or what it received is not what the server has.
pub fn compare(effort: Effort) -> Result<Report> {
    let corpus = Corpus::cached(effort.corpus_size())?;
    let mut server = corpus.server()?;
    server.start()?;
    let workdir = Workdir::new()?;
    let mut all: Vec<(Contestant, Runs)> = Contestant::ALL
        .into_iter()
        .map(|contestant| (contestant, Runs::new(contestant.name())))
        .collect();
    for _ in 0..effort.rounds {
        for (contestant, runs) in &mut all {
            runs.runs
                .push(receive(*contestant, &corpus, &server, &workdir)?);
        }
    }
    let segments = u64::try_from(corpus.segments().len())?;
    let mut table = Table::new(&[
        "",
        "GB",
        "wall s",
        "CPU s",
        "of it system",
        "peak MB",
        "growth MB",
        "wall ratio",
        "CPU ratio",
    ]);
    let mut targets = Vec::new();
    for pair in all.chunks_exact(2) {
        let [(_, peer), (_, ours)] = pair else {
            continue;
        };
        for (contestant, runs) in pair {
            table.row([
                runs.name.clone(),
                format!(
                    "{:.2}",
                    gigabytes((contestant.segments(segments) - 1) * SEGMENT)
                ),
                runs.spread(|run| run.wall_s)?.to_string(),
                runs.spread(Measured::cpu_s)?.to_string(),
                runs.spread(|run| run.system_s)?.to_string(),
                format!("{:.1}", runs.peak_mb()?),
                format!("{:.1}", growth_mb(runs)?),
                runs.ratio(peer, |run| run.wall_s)?.to_string(),
                runs.ratio(peer, Measured::cpu_s)?.to_string(),
            ]);
        }
        let name = &ours.name;
        targets.push(Target::at_most(
            format!("time of {name}"),
            ours.ratio(peer, |run| run.wall_s)?.median,
            WALL,
        ));
        if pair
            .iter()
            .all(|(contestant, _)| contestant.compression.is_none())
        {
            let cpu = ours.ratio(peer, Measured::cpu_s)?;
            targets.push(Target::at_most(
                format!("CPU time of {name}"),
                cpu.median,
                CPU,
            ));
        }
        targets.push(Target::at_most(
            format!("memory of {name} in MB"),
            ours.peak_mb()?,
            PEAK_MB,
        ));
        targets.push(Target::at_most(
            format!("growth of the memory of {name} in MB"),
            growth_mb(ours)?,
            GROWTH_MB,
        ));
    }
    Ok(Report {
        title: "WAL received from one server; ratios to pg_receivewal, less is better".to_owned(),
        table,
        targets,
    })
}

fn growth_mb(runs: &Runs) -> Result<f64> {
    let growth = runs.spread(|run| megabytes(u64::try_from(run.rss_growth).unwrap_or(0)))?;
    Ok(growth.median)
}

fn receive(
    contestant: Contestant,
    corpus: &Corpus,
    server: &Cluster,
    workdir: &Workdir,
) -> Result<Measured> {
    let archive = workdir.make_dir("archive")?;
    let [first, second, ..] = corpus.segments() else {
        anyhow::bail!("the corpus is too small");
    };
    // What is there already says where to go on: with the second segment.
    copy_into(first, &archive)?;
    workdir.own(&archive)?;
    let segments = u64::try_from(corpus.segments().len())?;
    // The corpus begins with segment 1.
    let end = (contestant.segments(segments) + 1) * SEGMENT;
    let mut command = if contestant.is_ours {
        let mut command = command_in(workdir, &workdir.program_path("walreceiver")?);
        command.arg("receive");
        command
    } else {
        command_in(workdir, &server.programs().program("pg_receivewal"))
    };
    command
        .arg("-D")
        .arg(&archive)
        .args(["--no-loop", "-d", &server.conninfo()]);
    command.arg(format!("--endpos={:X}/{:X}", end >> 32, end & 0xFFFF_FFFF));
    if let Some(method) = contestant.compression {
        command.args(["-Z", method]);
    }
    let measured = run(&mut command)?;
    let ending = match contestant.compression {
        None => "",
        Some("gzip") => ".gz",
        Some(method) => method,
    };
    let ending = ending.strip_prefix("lz4").map_or(ending, |_| ".lz4");
    let last = usize::try_from(contestant.segments(segments) - 1)?;
    let last = corpus
        .segments()
        .get(last)
        .context("the corpus is too small")?;
    for segment in [second, last] {
        let mut name = segment.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        let received = archive.join(name);
        ensure!(received.is_file(), "there is no \"{}\"", received.display());
        ensure!(
            !ending.is_empty() || fs::read(&received)? == fs::read(segment)?,
            "\"{}\" is not what the server has",
            received.display()
        );
    }
    fs::remove_dir_all(&archive)?;
    Ok(measured)
}

fn copy_into(file: &Path, directory: &Path) -> Result<PathBuf> {
    let to = directory.join(file.file_name().context("a file without a name")?);
    fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(to)
}
