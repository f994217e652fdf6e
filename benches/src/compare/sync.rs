//! Throughput of a primary whose commits wait for a synchronous standby, as `pgbench` sees it.
//!
//! One PostgreSQL server with `fsync` on, one workload (one-row inserts), five settings: no standby,
//! `pg_receivewal --synchronous`, `walreceiver receive --synchronous`, `walreceiver run`, and a PostgreSQL standby.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Mirror, Program, SHORT, StopMode, server_version, wait_for,
};

use super::{Effort, Report, Target};
use crate::table::{Spread, Table};

const INSERT: &str = "INSERT INTO commits (note) VALUES ('a row');\n";
const CLIENTS: [&str; 2] = ["1", "8"];
/// Least throughput as a multiple of that with `pg_receivewal`.
const THROUGHPUT: f64 = 1.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standby {
    None,
    PgReceivewal,
    Receive,
    Run,
    Postgres,
}

impl Standby {
    const ALL: [Self; 5] = [
        Self::None,
        Self::PgReceivewal,
        Self::Receive,
        Self::Run,
        Self::Postgres,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "no standby",
            Self::PgReceivewal => "pg_receivewal --synchronous",
            Self::Receive => "walreceiver receive --synchronous",
            Self::Run => "walreceiver run",
            Self::Postgres => "PostgreSQL standby",
        }
    }
}

/// Commits per second and their mean latency in milliseconds, of one round.
#[derive(Clone, Copy, Debug)]
struct Commits {
    per_second: f64,
    latency_ms: f64,
}

/// What one setting gave, for each number of clients, round by round.
type Rounds = Vec<[Commits; CLIENTS.len()]>;

/// Compares.
///
/// # Errors
/// When a program fails or cannot be built.
pub fn compare(effort: Effort) -> Result<Report> {
    let seconds = if effort.tiny { "1" } else { "4" };
    let mut primary = ClusterOptions::default()
        .programs(&server_version(15)?)
        // The tests' servers do without, and a standby takes the setting over.
        .set("fsync", "on")
        .start()?;
    primary.query("CREATE TABLE commits (id bigserial PRIMARY KEY, note text)")?;
    let script = primary.scratch().join("insert.sql");
    fs::write(&script, INSERT)?;
    let script = script.to_string_lossy().into_owned();
    let mirror = Mirror::init(&primary)?;
    let mut standby = primary.standby(&[])?;
    let measure = |primary: &Cluster| -> Result<[Commits; CLIENTS.len()]> {
        let [one, many] = CLIENTS;
        Ok([
            run_pgbench(primary, &script, one, seconds)?,
            run_pgbench(primary, &script, many, seconds)?,
        ])
    };
    let mut results: Vec<(Standby, Rounds)> = Standby::ALL
        .map(|kind| (kind, Rounds::new()))
        .into_iter()
        .collect();
    for round in 0..effort.rounds {
        for (kind, rounds) in &mut results {
            rounds.push(match kind {
                Standby::None => measure(&primary)?,
                Standby::PgReceivewal => {
                    let program = primary.programs().program("pg_receivewal");
                    let program = mirror.workdir().external(&program);
                    with_archive(
                        &mut primary,
                        program,
                        &mirror,
                        &format!("theirs-{round}"),
                        measure,
                    )?
                }
                Standby::Receive => {
                    let program = mirror.workdir().program("walreceiver")?.arg("receive");
                    with_archive(
                        &mut primary,
                        program,
                        &mirror,
                        &format!("ours-{round}"),
                        measure,
                    )?
                }
                Standby::Run => {
                    let running = mirror.run(&[])?;
                    let measured = while_synchronous(&mut primary, "gp_walreceiver", measure)?;
                    running.terminate(SHORT)?;
                    measured
                }
                Standby::Postgres => {
                    standby.start()?;
                    let measured = while_synchronous(&mut primary, "walreceiver", measure)?;
                    standby.stop(StopMode::Fast)?;
                    measured
                }
            });
        }
    }
    report(&results)
}

/// Measures with a program that keeps an archive of the primary's WAL as the standby.
fn with_archive<T>(
    primary: &mut Cluster,
    program: Program,
    mirror: &Mirror,
    name: &str,
    measure: impl FnOnce(&Cluster) -> Result<T>,
) -> Result<T> {
    let archive = mirror.workdir().make_dir(name)?;
    let conninfo = format!("{} application_name={name}", primary.conninfo());
    let running = program
        .arg("-D")
        .arg(Path::new(&archive))
        .args(["--synchronous", "-d", &conninfo])
        .start()?;
    let measured = while_synchronous(primary, name, measure)?;
    running.terminate(SHORT)?;
    fs::remove_dir_all(&archive)?;
    Ok(measured)
}

/// Measures while commits wait for the standby of this name.
fn while_synchronous<T>(
    primary: &mut Cluster,
    name: &str,
    measure: impl FnOnce(&Cluster) -> Result<T>,
) -> Result<T> {
    wait_for("the standby to stream", LONG, || {
        Ok(primary.standby_column(name, "state")?.as_deref() == Some("streaming"))
    })?;
    primary.alter_system("synchronous_standby_names", &format!("\"{name}\""))?;
    wait_for("the standby to be synchronous", LONG, || {
        Ok(primary.standby_column(name, "sync_state")?.as_deref() == Some("sync"))
    })?;
    let measured = measure(primary);
    primary.alter_system("synchronous_standby_names", "")?;
    wait_for("the standby to be asynchronous", LONG, || {
        Ok(primary.standby_column(name, "sync_state")?.as_deref() != Some("sync"))
    })?;
    measured
}

fn run_pgbench(primary: &Cluster, script: &str, clients: &str, seconds: &str) -> Result<Commits> {
    let report = primary.pgbench(&["-n", "-f", script, "-c", clients, "-T", seconds])?;
    let number = |label: &str| -> Result<f64> {
        let line = report.lines().find_map(|line| line.strip_prefix(label));
        let text = line.and_then(|rest| rest.split_whitespace().next());
        text.with_context(|| format!("no \"{label}\" in {report}"))?
            .parse()
            .context("no number")
    };
    Ok(Commits {
        per_second: number("tps = ")?,
        latency_ms: number("latency average = ")?,
    })
}

fn report(results: &[(Standby, Rounds)]) -> Result<Report> {
    let rounds_of = |wanted: Standby| -> Result<&Rounds> {
        let found = results.iter().find(|(kind, _)| *kind == wanted);
        Ok(&found.context("nothing was measured")?.1)
    };
    let peer = rounds_of(Standby::PgReceivewal)?;
    let mut table = Table::new(&["standby", "clients", "commits/s", "latency ms", "ratio"]);
    let mut targets = Vec::new();
    for (index, clients) in CLIENTS.iter().enumerate() {
        let nth = |round: &[Commits; CLIENTS.len()]| round.get(index).copied();
        for (kind, rounds) in results {
            let here = || rounds.iter().filter_map(nth);
            let pairs = here().zip(peer.iter().filter_map(nth));
            let ratio = Spread::of(pairs.map(|(own, peer)| own.per_second / peer.per_second))?;
            table.row([
                kind.name().to_owned(),
                (*clients).to_owned(),
                Spread::of(here().map(|commits| commits.per_second))?.to_string(),
                Spread::of(here().map(|commits| commits.latency_ms))?.to_string(),
                ratio.to_string(),
            ]);
            if matches!(kind, Standby::Receive | Standby::Run) {
                targets.push(Target::at_least(
                    format!("throughput with {} and {clients} client(s)", kind.name()),
                    ratio.median,
                    THROUGHPUT,
                ));
            }
        }
    }
    Ok(Report {
        title:
            "Commits that wait for a synchronous standby; ratio to pg_receivewal, more is better"
                .to_owned(),
        table,
        targets,
    })
}
