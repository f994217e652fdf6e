//! Time from a commit on the primary to its acknowledged flush at a synchronous standby, as `pgbench` sees it.
//!
//! One PostgreSQL server, one workload (one-row inserts), four settings one after another, in rounds so that the machine's
//! moods meet all of them: no standby, `pg_receivewal --synchronous`, a PostgreSQL standby, and `walreceiver run`. Prints
//! commits per second, mean latency, and the ratio to `pg_receivewal`.
//!
//! `cargo bench -p walstream-benches --bench commit_to_flush`. Under `cargo test` a short form only shows that it works.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use walstream_tests::{Cluster, ClusterOptions, Mirror, wait_for};

const INSERT: &str = "INSERT INTO commits (note) VALUES ('a row');\n";
const CLIENTS: [&str; 2] = ["1", "8"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standby {
    None,
    PgReceivewal,
    Postgres,
    Walreceiver,
}

impl Standby {
    const ALL: [Self; 4] = [
        Self::None,
        Self::PgReceivewal,
        Self::Postgres,
        Self::Walreceiver,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "no standby",
            Self::PgReceivewal => "pg_receivewal --synchronous",
            Self::Postgres => "PostgreSQL standby",
            Self::Walreceiver => "walreceiver run",
        }
    }
}

fn main() -> Result<()> {
    // Cargo says so when it is to measure.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (rounds, seconds) = if is_bench { (5, "4") } else { (1, "1") };
    let mut primary = ClusterOptions::default()
        // The tests' servers do without, and a standby takes the setting over.
        .set("fsync", "on")
        .start()?;
    primary.query("CREATE TABLE commits (id bigserial PRIMARY KEY, note text)")?;
    let script = primary.scratch().join("insert.sql");
    fs::write(&script, INSERT)?;
    let mirror = Mirror::init(&primary)?;
    let archive = mirror.workdir().make_dir("archive")?;
    let mut standby = primary.standby(&[])?;

    let mut results: BTreeMap<(&str, Standby), Vec<Measured>> = BTreeMap::new();
    for _ in 0..rounds {
        for kind in Standby::ALL {
            let measure = |primary: &Cluster| -> Result<Vec<(&'static str, Measured)>> {
                CLIENTS
                    .iter()
                    .map(|clients| {
                        Ok((
                            *clients,
                            run_pgbench(primary, &script.to_string_lossy(), clients, seconds)?,
                        ))
                    })
                    .collect()
            };
            let measured = match kind {
                Standby::None => measure(&primary)?,
                Standby::PgReceivewal => {
                    let program = primary.programs().program("pg_receivewal");
                    let running = mirror
                        .workdir()
                        .external(&program)
                        .args(["-D", &archive.to_string_lossy(), "--synchronous", "-d"])
                        .arg(primary.conninfo())
                        .start()?;
                    let measured = with_synchronous(&mut primary, "pg_receivewal", measure)?;
                    running.terminate(Duration::from_secs(10))?;
                    measured
                }
                Standby::Postgres => {
                    standby.start()?;
                    let measured = with_synchronous(&mut primary, "walreceiver", measure)?;
                    standby.stop(walreceiver::demo::local_postgres::StopMode::Fast)?;
                    measured
                }
                Standby::Walreceiver => {
                    let running = mirror.run(&[])?;
                    let measured = with_synchronous(&mut primary, "gp_walreceiver", measure)?;
                    running.terminate(Duration::from_secs(10))?;
                    measured
                }
            };
            for (clients, measured) in measured {
                results.entry((clients, kind)).or_default().push(measured);
            }
        }
    }
    report(&results)
}

/// Measures while commits wait for the standby of this name.
fn with_synchronous<T>(
    primary: &mut Cluster,
    name: &str,
    measure: impl FnOnce(&Cluster) -> Result<T>,
) -> Result<T> {
    wait_for("the standby to stream", Duration::from_secs(30), || {
        Ok(primary.standby_column(name, "state")?.as_deref() == Some("streaming"))
    })?;
    primary.alter_system("synchronous_standby_names", name)?;
    wait_for(
        "the standby to be synchronous",
        Duration::from_secs(30),
        || Ok(primary.standby_column(name, "sync_state")?.as_deref() == Some("sync")),
    )?;
    let measured = measure(primary);
    primary.alter_system("synchronous_standby_names", "")?;
    wait_for(
        "the standby to be asynchronous",
        Duration::from_secs(30),
        || Ok(primary.standby_column(name, "sync_state")?.as_deref() != Some("sync")),
    )?;
    measured
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    commits_per_second: f64,
    latency_ms: f64,
}

fn run_pgbench(primary: &Cluster, script: &str, clients: &str, seconds: &str) -> Result<Measured> {
    let report = primary.pgbench(&["-n", "-f", script, "-c", clients, "-T", seconds])?;
    let number = |label: &str| -> Result<f64> {
        let line = report.lines().find_map(|line| line.strip_prefix(label));
        let text = line.and_then(|rest| rest.split_whitespace().next());
        text.with_context(|| format!("no \"{label}\" in {report}"))?
            .parse()
            .context("no number")
    };
    Ok(Measured {
        commits_per_second: number("tps = ")?,
        latency_ms: number("latency average = ")?,
    })
}

fn report(results: &BTreeMap<(&str, Standby), Vec<Measured>>) -> Result<()> {
    for clients in CLIENTS {
        println!("\n{clients} client(s): median of rounds [least, most]");
        let peer = median(results, clients, Standby::PgReceivewal, |m| {
            m.commits_per_second
        })?;
        for kind in Standby::ALL {
            let (tps, least, most) = median(results, clients, kind, |m| m.commits_per_second)?;
            let (latency, _, _) = median(results, clients, kind, |m| m.latency_ms)?;
            println!(
                "  {:<28} {tps:>8.0} commits/s [{least:.0}, {most:.0}]  {latency:>7.3} ms  {:>5.2} times pg_receivewal",
                kind.name(),
                tps / peer.0,
            );
        }
    }
    Ok(())
}

fn median(
    results: &BTreeMap<(&str, Standby), Vec<Measured>>,
    clients: &str,
    kind: Standby,
    of: impl Fn(&Measured) -> f64,
) -> Result<(f64, f64, f64)> {
    let measured = results
        .iter()
        .find(|((c, k), _)| *c == clients && *k == kind);
    let mut values: Vec<f64> = measured
        .context("nothing was measured")?
        .1
        .iter()
        .map(of)
        .collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().context("nothing was measured");
    Ok((at(values.len() / 2)?, at(0)?, at(values.len() - 1)?))
}
