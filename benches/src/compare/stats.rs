//! `pg_waldump --stats` against `walreceiver waldump --stats`, on one core and on two, beside a bare CRC-32C pass.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use walstream::ReadBuffer;
use walstream_tests::{Workdir, server_version};

use super::{Effort, Report, Runs, Target, command, gigabytes, run};
use crate::cores::on_cores;
use crate::corpus::Corpus;
use crate::measure::Measured;
use crate::table::Table;

/// Least speed on one core, as a multiple of the peer's.
const ON_ONE_CORE: f64 = 2.0;
/// Least speed on two cores. The peer uses one of them.
const ON_TWO_CORES: f64 = 3.5;

/// Compares.
///
/// # Errors
/// When a program fails or cannot be built.
pub fn compare(effort: Effort) -> Result<Report> {
    let corpus = Corpus::cached(effort.corpus_size())?;
    let workdir = Workdir::new()?;
    let ours = workdir.program_path("walreceiver")?;
    let peer = server_version(15)?.program("pg_waldump");
    let bytes = gigabytes(corpus.bytes()?);
    let mut runs = [
        (1, Runs::new("pg_waldump --stats, 1 core")),
        (1, Runs::new("walreceiver waldump --stats, 1 core")),
        (1, Runs::new("bare CRC-32C pass, 1 core")),
        (2, Runs::new("pg_waldump --stats, 2 cores")),
        (2, Runs::new("walreceiver waldump --stats, 2 cores")),
    ];
    corpus.load()?;
    for _ in 0..effort.rounds {
        for (number, (cores, contestant)) in runs.iter_mut().enumerate() {
            let measured = on_cores(*cores, || {
                let mut command = match number {
                    2 => return crc_pass(&corpus),
                    0 | 3 => command(&peer),
                    _ => {
                        let mut command = command(&ours);
                        command.arg("waldump");
                        command
                    }
                };
                let (first, last) = corpus.range()?;
                command.arg("--stats").arg("-p").arg(corpus.wal_directory());
                run(command.args([first, last]).stdout(Stdio::null()))
            })?;
            contestant.runs.push(measured);
        }
    }
    let [
        (_, peer_one),
        (_, our_one),
        (_, crc),
        (_, peer_two),
        (_, our_two),
    ] = &runs;
    let mut table = Table::new(&[
        "",
        "wall s",
        "GB/s",
        "CPU s",
        "peak MB",
        "speed",
        "by CPU time",
    ]);
    for (contestant, peer) in [
        (peer_one, peer_one),
        (our_one, peer_one),
        (crc, peer_one),
        (peer_two, peer_two),
        (our_two, peer_two),
    ] {
        table.row([
            contestant.name.clone(),
            contestant.spread(|run| run.wall_s)?.to_string(),
            format!("{:.2}", bytes / contestant.spread(|run| run.wall_s)?.median),
            contestant.spread(Measured::cpu_s)?.to_string(),
            format!("{:.0}", contestant.peak_mb()?),
            peer.ratio(contestant, |run| run.wall_s)?.to_string(),
            peer.ratio(contestant, Measured::cpu_s)?.to_string(),
        ]);
    }
    let share = crc.ratio(our_one, Measured::cpu_s)?.median * 100.0;
    Ok(Report {
        title: format!(
            "Statistics of {bytes:.2} GB of WAL; speed as a multiple of pg_waldump's. Reading and a bare CRC-32C pass \
             take {share:.0} % of our CPU time"
        ),
        table,
        targets: vec![
            Target::at_least(
                "speed of waldump --stats on one core",
                peer_one.ratio(our_one, |run| run.wall_s)?.median,
                ON_ONE_CORE,
            ),
            // What a machine that has other things to do can tell.
            Target::at_least(
                "speed of waldump --stats by CPU time",
                peer_one.ratio(our_one, Measured::cpu_s)?.median,
                ON_ONE_CORE,
            ),
            Target::at_least(
                "speed of waldump --stats on two cores",
                peer_two.ratio(our_two, |run| run.wall_s)?.median,
                ON_TWO_CORES,
            ),
        ],
    })
}

/// Reads the corpus and takes the checksum of what was read, without looking at it.
fn crc_pass(corpus: &Corpus) -> Result<Measured> {
    let cpu = || clock_gettime(ClockId::ThreadCPUTime);
    let (started, cpu_started) = (Instant::now(), cpu());
    let mut buffer = ReadBuffer::default();
    for path in corpus.segments() {
        let file = File::open(path)?;
        let mut at = 0;
        loop {
            let count = file.read_at(buffer.as_mut_slice(), at)?;
            if count == 0 {
                break;
            }
            black_box(crc_fast::crc32_iscsi(buffer.filled(count)));
            at += u64::try_from(count)?;
        }
        ensure!(at > 0, "\"{}\" is empty", path.display());
    }
    let used = cpu() - cpu_started;
    #[expect(clippy::cast_precision_loss, reason = "a measured time")]
    let cpu_s = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    Ok(Measured {
        wall_s: started.elapsed().as_secs_f64(),
        user_s: cpu_s,
        system_s: 0.0,
        peak_rss: 0,
        rss_growth: 0,
    })
}
