//! `pg_waldump` against `walreceiver waldump`, every record as text: thrown away, and read from a pipe.

use std::io::{self, Read};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use walstream_tests::{Workdir, server_version};

use super::{Effort, Report, Runs, Target, command, gigabytes, run};
use crate::corpus::Corpus;
use crate::measure::{Measured, Measuring};
use crate::table::Table;

/// Least speed as a multiple of the peer's.
const SPEED: f64 = 3.0;

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
        Runs::new("pg_waldump >/dev/null"),
        Runs::new("walreceiver waldump >/dev/null"),
        Runs::new("pg_waldump to a pipe"),
        Runs::new("walreceiver waldump to a pipe"),
    ];
    corpus.load()?;
    let mut text_bytes = [0; 4];
    for _ in 0..effort.rounds {
        for (number, (contestant, text)) in runs.iter_mut().zip(&mut text_bytes).enumerate() {
            let mut command = if number % 2 == 0 {
                command(&peer)
            } else {
                let mut command = command(&ours);
                command.arg("waldump");
                command
            };
            let (first, last) = corpus.range()?;
            command
                .arg("-p")
                .arg(corpus.wal_directory())
                .args([first, last]);
            contestant.runs.push(if number < 2 {
                run(command.stdout(Stdio::null()))?
            } else {
                let (measured, length) = run_into_pipe(&mut command)?;
                *text = length;
                measured
            });
        }
    }
    let [peer_null, our_null, peer_pipe, our_pipe] = &runs;
    let mut table = Table::new(&[
        "", "wall s", "WAL GB/s", "CPU s", "peak MB", "speed", "text MB",
    ]);
    let peers = [peer_null, peer_null, peer_pipe, peer_pipe];
    for ((contestant, peer), text) in runs.iter().zip(peers).zip(text_bytes) {
        table.row([
            contestant.name.clone(),
            contestant.spread(|run| run.wall_s)?.to_string(),
            format!("{:.2}", bytes / contestant.spread(|run| run.wall_s)?.median),
            contestant.spread(Measured::cpu_s)?.to_string(),
            format!("{:.0}", contestant.peak_mb()?),
            peer.ratio(contestant, |run| run.wall_s)?.to_string(),
            if text > 0 {
                format!("{}", text / 1_000_000)
            } else {
                String::new()
            },
        ]);
    }
    Ok(Report {
        title: format!(
            "Records of {bytes:.2} GB of WAL as text; speed as a multiple of pg_waldump's"
        ),
        table,
        targets: vec![
            Target::at_least(
                "speed of waldump as text",
                peer_null.ratio(our_null, |run| run.wall_s)?.median,
                SPEED,
            ),
            Target::at_least(
                "speed of waldump as text to a pipe",
                peer_pipe.ratio(our_pipe, |run| run.wall_s)?.median,
                SPEED,
            ),
        ],
    })
}

/// Runs a program and reads what it prints as fast as it comes; gives how many bytes there were.
fn run_into_pipe(command: &mut std::process::Command) -> Result<(Measured, u64)> {
    let mut measuring = Measuring::start(command.stdout(Stdio::piped()))?;
    let output = measuring.child()?.stdout.take();
    let mut output = output.context("the program has no standard output")?;
    let mut buffer = vec![0; 1 << 18];
    let mut length = 0;
    loop {
        match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => length += u64::try_from(count)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (status, measured) = measuring.finish()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    ensure!(length > 0, "{command:?} printed nothing");
    Ok((measured, length))
}
