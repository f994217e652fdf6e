//! How long WAL takes from its flush to a standby's socket, behind every kind of sender, idle and under load.
//!
//! A server tells nobody when it flushes. What can be compared is the moment at which the one who commits is told that the
//! commit is flushed, which comes a little later: the end of a one-row `INSERT` as its client sees it, over loopback and with
//! `fsync` and `synchronous_commit` on; and with the embedded writer the end of `WalWriter::flush`. From then until a client
//! of the sender, in this process, has read the message with the first byte of the commit's record is the delay. It is
//! negative where the WAL was there before the client knew of its commit: a sender wakes up as soon as the WAL is flushed.
//!
//! Idle, there is a commit every 20 ms. Under load these go on while 8 clients of `pgbench` work, or 8 tasks that append to
//! the writer and flush. Then the first byte may go out with an earlier flush than the commit's own, so that its delay is
//! negative by up to the time of a flush; it is so with all senders.
//!
//! A hub and a PostgreSQL standby have the WAL from the primary's own sender. They flush it before it goes on (a standby of
//! PostgreSQL's does too), so theirs are the delays of two senders and a flush.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use walsender::slot::PhysicalSlots;
use walsender::writer::{LogControl, LogicalMessage, WalWriter, WriterError, WriterOptions};
use walsender::{ListenAddress, Sender, SenderConfig};
use walstream::{Lsn, PgMajor};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Mirror, SHORT, StopMode, Workdir, server_version, wait_for,
};

use super::wire::{Arrival, Connection, Follower, TRUST, port_of, wait_for_wal};
use super::{Effort, Report};
use crate::table::{Table, percentile};

/// Between two commits.
const PERIOD: Duration = Duration::from_millis(20);
const CLIENTS: u32 = 8;
/// Length of what is appended to the writer, about that of a small row's records.
const PAYLOAD: [u8; 200] = [b'd'; 200];

/// Whose WAL arrives.
#[derive(Clone, Copy, Debug)]
enum Behind {
    Postgres,
    Sidecar,
    Writer,
    Standby,
    Hub,
}

impl Behind {
    const ALL: [Self; 5] = [
        Self::Postgres,
        Self::Sidecar,
        Self::Writer,
        Self::Standby,
        Self::Hub,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Sidecar => "walsender serve --data-dir",
            Self::Writer => "walsender::writer",
            Self::Standby => "PostgreSQL standby",
            Self::Hub => "walreceiver run --serve",
        }
    }
}

/// A commit.
#[derive(Clone, Copy, Debug)]
struct Commit {
    /// WAL that has to arrive: its end (exclusive).
    end_lsn: Lsn,
    /// When the one who commits knew that it was flushed.
    known_at: Instant,
}

/// Delays in microseconds.
#[derive(Clone, Debug, Default)]
struct Delays {
    idle: Vec<f64>,
    loaded: Vec<f64>,
}

impl Delays {
    fn extend(&mut self, other: Self) {
        self.idle.extend(other.idle);
        self.loaded.extend(other.loaded);
    }
}

/// Compares.
///
/// # Errors
/// When a program fails or cannot be built.
pub fn compare(effort: Effort) -> Result<Report> {
    let commits = if effort.tiny { 10 } else { 200 };
    let scene = Scene::start(commits)?;
    let mut all = Behind::ALL.map(|behind| (behind, Delays::default()));
    for _ in 0..effort.rounds {
        for (behind, delays) in &mut all {
            let measured = scene
                .measure(*behind)
                .with_context(|| format!("behind {}", behind.name()))?;
            delays.extend(measured);
        }
    }
    let mut table = Table::new(&[
        "microseconds from a commit to the socket behind",
        "commits",
        "idle: median",
        "idle: p99",
        "8 clients: median",
        "8 clients: p99",
    ]);
    for (behind, delays) in &mut all {
        let cell = |delays: &mut Vec<f64>, percent| -> Result<String> {
            Ok(format!("{:.0}", percentile(delays, percent)?))
        };
        table.row([
            behind.name().to_owned(),
            (delays.idle.len() + delays.loaded.len()).to_string(),
            cell(&mut delays.idle, 50)?,
            cell(&mut delays.idle, 99)?,
            cell(&mut delays.loaded, 50)?,
            cell(&mut delays.loaded, 99)?,
        ]);
    }
    Ok(Report {
        title: "Delay of WAL from its flush to a standby's socket; less is better".to_owned(),
        table,
        targets: Vec::new(),
    })
}

/// The primary, and what follows it in turn.
struct Scene {
    primary: Cluster,
    mirror: Mirror,
    sidecar: Workdir,
    /// Commits of each run.
    commits: u32,
}

impl Scene {
    fn start(commits: u32) -> Result<Self> {
        let mut options = ClusterOptions::default()
            .programs(&server_version(15)?)
            .set("wal_keep_size", "2GB")
            // The tests' servers do without.
            .set("fsync", "on");
        for line in TRUST {
            options = options.hba(line);
        }
        let primary = options.start()?;
        primary.query("CREATE TABLE commits (id bigserial PRIMARY KEY, note text)")?;
        primary.pgbench(&["-i", "-q", "-s", &CLIENTS.to_string()])?;
        let mirror = Mirror::init(&primary)?;
        Ok(Self {
            primary,
            mirror,
            sidecar: Workdir::new()?,
            commits,
        })
    }

    fn measure(&self, behind: Behind) -> Result<Delays> {
        match behind {
            Behind::Postgres => self.measure_at(self.primary.port()),
            Behind::Sidecar => {
                let program = self.sidecar.program("walsender")?;
                let mut running = program
                    .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
                    .arg(self.primary.data_dir())
                    .args(["--primary", &self.primary.conninfo(), "--slots"])
                    .arg(self.sidecar.join("slots"))
                    .start()?;
                let delays = self.measure_at(port_of(&mut running)?)?;
                running.terminate(SHORT)?;
                Ok(delays)
            }
            Behind::Hub => {
                let mut running = self.mirror.run(&["--serve", "127.0.0.1:0"])?;
                let delays = self.measure_at(port_of(&mut running)?)?;
                running.terminate(SHORT)?;
                Ok(delays)
            }
            Behind::Standby => {
                // A new one each time: an old one would replay first what the others' rounds have written.
                let mut standby = self.primary.standby(&[])?;
                standby.start()?;
                let delays = self.measure_at(standby.port())?;
                standby.stop(StopMode::Fast)?;
                Ok(delays)
            }
            Behind::Writer => measure_writer(self.commits),
        }
    }

    /// Measures behind the sender of the primary's WAL at this port.
    fn measure_at(&self, port: u16) -> Result<Delays> {
        let mut client = Connection::sql(self.primary.port())?;
        let start = self.primary.flush_lsn()?;
        wait_for_wal(port, start)?;
        let follower = Follower::start(port, "delay", start, true)?;
        let mut commit = || -> Result<Commit> {
            // The LSN behind the row's records, where the commit's begins, or another's that comes in between.
            let row = client.query(
                "INSERT INTO commits (note) VALUES ('a row') RETURNING pg_current_wal_insert_lsn()",
            )?;
            let known_at = Instant::now();
            let begin: Lsn = row.first().context("no LSN")?.parse()?;
            Ok(Commit {
                end_lsn: begin + 1,
                known_at,
            })
        };
        let idle = commit_often(self.commits, &mut commit)?;
        let load = Load::start(&self.primary)?;
        let loaded = commit_often(self.commits, &mut commit)?;
        load.stop(&self.primary)?;
        delays(follower, &idle, &loaded)
    }
}

/// `pgbench`, until this is dropped.
struct Load(Child);

impl Load {
    fn start(primary: &Cluster) -> Result<Self> {
        let clients = CLIENTS.to_string();
        let mut pgbench = primary.pgbench_command();
        pgbench.args(["-n", "-c", &clients, "-j", "2", "-T", "3600"]);
        let load = Self(
            pgbench
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot run pgbench")?,
        );
        wait_for_clients(primary, &clients)?;
        Ok(load)
    }

    /// Ends it, and waits until the server has noticed.
    fn stop(self, primary: &Cluster) -> Result<()> {
        drop(self);
        wait_for_clients(primary, "0")
    }
}

fn wait_for_clients(primary: &Cluster, count: &str) -> Result<()> {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'";
    wait_for(&format!("{count} clients of pgbench"), LONG, || {
        Ok(primary.query(query)? == count)
    })
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what they are for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures behind the sender of a log that is written in this process.
fn measure_writer(commits: u32) -> Result<Delays> {
    let work = Workdir::new()?;
    let runtime = Runtime::new()?;
    let slots = PhysicalSlots::in_memory(1);
    let options = WriterOptions {
        slots: Some(slots.clone()),
        wal_keep_size: 1 << 30,
        ..WriterOptions::default()
    };
    let control = LogControl::new(PgMajor::V15);
    let log = WalWriter::create(&work.join("log"), &control, options)?;
    let config = SenderConfig::new(ListenAddress::free_port());
    let start = Sender::start_with_slots(config, Arc::new(log.clone()), slots);
    let sender = runtime.block_on(start)?;
    let conninfo = sender.conninfo();
    let mut words = conninfo.split_whitespace();
    let port = words.find_map(|word| word.strip_prefix("port="));
    let port = port.context("no port")?.parse()?;
    let follower = Follower::start(port, "delay", log.flushed_lsn(), true)?;
    let mut commit = || -> Result<Commit> {
        let end_lsn = runtime.block_on(append_and_flush(&log))?;
        Ok(Commit {
            end_lsn,
            known_at: Instant::now(),
        })
    };
    let idle = commit_often(commits, &mut commit)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (log, is_over) = (log.clone(), Arc::clone(&is_over));
            runtime.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    append_and_flush(&log).await?;
                }
                Ok::<(), WriterError>(())
            })
        })
        .collect();
    let loaded = commit_often(commits, &mut commit);
    is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        runtime.block_on(task)??;
    }
    let delays = delays(follower, &idle, &loaded?)?;
    runtime.block_on(async {
        sender.shut_down(SHORT).await;
        log.close().await
    })?;
    Ok(delays)
}

async fn append_and_flush(log: &WalWriter) -> Result<Lsn, WriterError> {
    let message = LogicalMessage::new("delay", &PAYLOAD);
    let record = log.append_message(&message).await?;
    log.flush(record.end_lsn).await?;
    Ok(record.end_lsn)
}

/// Commits once in each period; late ones are not made up for.
fn commit_often(count: u32, mut commit: impl FnMut() -> Result<Commit>) -> Result<Vec<Commit>> {
    let mut commits = Vec::new();
    for _ in 0..count {
        let next = Instant::now() + PERIOD;
        commits.push(commit()?);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(commits)
}

/// Waits until all has arrived, and gives the delays.
fn delays(follower: Follower, idle: &[Commit], loaded: &[Commit]) -> Result<Delays> {
    let last = loaded.last().context("no commits")?;
    follower.wait_for(last.end_lsn)?;
    let arrivals = follower.end()?;
    let of = |commits: &[Commit]| -> Result<Vec<f64>> {
        let delays = commits.iter().map(|commit| delay_us(commit, &arrivals));
        delays.collect()
    };
    Ok(Delays {
        idle: of(idle)?,
        loaded: of(loaded)?,
    })
}

/// Time from a commit to the first arrival of its WAL, in microseconds; the arrivals are in their order.
fn delay_us(commit: &Commit, arrivals: &[Arrival]) -> Result<f64> {
    let index = arrivals.partition_point(|arrival| arrival.end_lsn < commit.end_lsn);
    let arrival = arrivals.get(index).context("it never arrived")?;
    let late = arrival.at.saturating_duration_since(commit.known_at);
    let early = commit.known_at.saturating_duration_since(arrival.at);
    Ok((late.as_secs_f64() - early.as_secs_f64()) * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_ends_with_the_first_arrival_and_may_be_negative() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let arrival = |end, ms| Arrival {
            end_lsn: Lsn(end),
            at: at(ms),
        };
        let arrivals = [arrival(10, 1), arrival(20, 4), arrival(30, 9)];
        let delay = |end, ms| {
            let commit = Commit {
                end_lsn: Lsn(end),
                known_at: at(ms),
            };
            delay_us(&commit, &arrivals)
        };
        assert!((delay(11, 1).unwrap() - 3_000.0).abs() < 1e-6);
        assert!((delay(20, 5).unwrap() + 1_000.0).abs() < 1e-6);
        assert!(delay(31, 5).is_err());
    }
}
