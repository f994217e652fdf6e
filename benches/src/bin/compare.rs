//! Compares our programs with PostgreSQL's on real WAL, both in turn within one run, and prints the ratios.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use walstream_benches::compare::{self, Effort, Report};

/// Compares our programs with PostgreSQL's own: speed, CPU time and memory, both in turn within one run.
///
/// Build with --release. The first run makes a corpus of 2 GB of WAL below Cargo's target directory, with a PostgreSQL 15
/// server; later runs find it there. Numbers are medians of all rounds [least, most]; a ratio is taken within each round.
/// Exit code: 0 when everything ran, 1 when a program failed, 3 when --check was given and a target was missed.
#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Arguments {
    /// What to compare [default: everything]
    #[arg(value_enum)]
    comparisons: Vec<Comparison>,
    /// Rounds; in each, every program runs once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Fail with exit code 3 when a target is missed
    #[arg(long)]
    check: bool,
    /// Only show that it works, in seconds: three segments, one round
    #[arg(long)]
    tiny: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Comparison {
    /// pg_waldump --stats against walreceiver waldump --stats, on one core and on two
    Stats,
    /// pg_waldump against walreceiver waldump, as text
    Text,
    /// pg_receivewal against walreceiver receive, 2 GB from one server
    Receive,
    /// PostgreSQL's sender against walsender serve --archive, 2 GB to pg_receivewal and to walreceiver receive
    Sender,
    /// Throughput of commits that wait for a synchronous standby
    Sync,
    /// PostgreSQL's recovery against walreceiver replay, 2 GB in memory
    Replay,
    /// 1 and 50 followers of a hub (walreceiver run --serve) and of a PostgreSQL standby: CPU time, reads, memory
    Followers,
    /// Time from a commit's flush to its WAL at a standby's socket, by sender, idle and under load
    Delay,
    /// Time from WAL's flush on a standby until it is replayed there, while the catalogs change
    Lag,
    /// Time from a primary's death until a successor takes writes: a mirror that is activated, and a promoted standby
    Takeover,
}

impl Comparison {
    fn run(self, effort: Effort) -> Result<Report> {
        match self {
            Self::Stats => compare::stats::compare(effort),
            Self::Text => compare::text::compare(effort),
            Self::Receive => compare::receive::compare(effort),
            Self::Sender => compare::sender::compare(effort),
            Self::Sync => compare::sync::compare(effort),
            Self::Replay => compare::replay::compare(effort),
            Self::Followers => compare::followers::compare(effort),
            Self::Delay => compare::delay::compare(effort),
            Self::Lag => compare::lag::compare(effort),
            Self::Takeover => compare::takeover::compare(effort),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let effort = Effort {
        rounds: if arguments.tiny {
            1
        } else {
            arguments.rounds.max(1)
        },
        tiny: arguments.tiny,
    };
    let comparisons = if arguments.comparisons.is_empty() {
        Comparison::value_variants()
    } else {
        &arguments.comparisons
    };
    let (mut failed, mut missed) = (false, false);
    for comparison in comparisons {
        // One that fails does not keep the others from running.
        match comparison.run(effort) {
            Ok(report) => {
                println!("{report}");
                missed |= report.targets.iter().any(|target| !target.is_met());
            }
            Err(error) => {
                eprintln!("compare: {comparison:?}: {error:#}");
                failed = true;
            }
        }
    }
    match (failed, missed && arguments.check) {
        (true, _) => ExitCode::from(1),
        (false, true) => ExitCode::from(3),
        (false, false) => ExitCode::SUCCESS,
    }
}
