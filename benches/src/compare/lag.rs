//! How long WAL that a standby has flushed waits to be replayed: PostgreSQL's standby and `walreceiver run`, while sessions
//! change the catalogs of the primary at a steady rate.
//!
//! A standby of PostgreSQL's is asked over SQL, again and again, how far it has flushed and how far it has replayed; the mirror runs in
//! this process, which is told of each change. For every LSN that was seen flushed, the time until it was seen replayed counts. An LSN
//! in the middle of a record is replayed when the rest of the record has come, which is so with both.

use std::collections::VecDeque;
use std::os::unix::fs::chown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use walreceiver::connection::{ConnInfo, Environment};
use walreceiver::replay::ReplayLimits;
use walreceiver::run::daemon::{RunConfig, run};
use walreceiver::run::live::LiveStatus;
use walreceiver::run::replaying::ReplayConfig;
use walreceiver::run::stream::Stop;
use walstream::Lsn;
use walstream::protocol::receiver::ReceiverConfig;
use walstream_tests::{Cluster, ClusterOptions, LONG, Mirror, StopMode, server_version, wait_for};

use super::wire::{Connection, TRUST};
use super::{Effort, Report, Target, megabytes};
use crate::table::{Table, percentile};

/// WAL that the primary writes in a second.
const BYTES_PER_SECOND: u64 = 5_000_000;
/// Most time that WAL may wait, in milliseconds.
const LAG_MS: f64 = 10.0;
const MEBIBYTE: usize = 1 << 20;

/// One piece of work: catalog rows of every kind, and their removal.
const WORK: &str = "CREATE TABLE lag (a int PRIMARY KEY, b text, c int DEFAULT 1);
    CREATE INDEX lag_b ON lag (b);
    CREATE VIEW lag_view AS SELECT * FROM lag;
    ALTER TABLE lag ADD COLUMN d int;
    DROP VIEW lag_view;
    DROP TABLE lag";

/// How long WAL waited, in milliseconds, and how much of it there was.
#[derive(Debug, Default)]
struct Lags {
    milliseconds: Vec<f64>,
    bytes: u64,
    seconds: f64,
}

/// Compares.
///
/// # Errors
/// When a program fails or cannot be built.
pub fn compare(effort: Effort) -> Result<Report> {
    let time = Duration::from_secs(if effort.tiny { 1 } else { 10 });
    let mut options = ClusterOptions::default()
        .programs(&server_version(15)?)
        .set("wal_keep_size", "4GB")
        .set("fsync", "on");
    for line in TRUST {
        options = options.hba(line);
    }
    let primary = options.start()?;
    let mirror = Mirror::init(&primary)?;
    let (mut theirs, mut ours) = (Lags::default(), Lags::default());
    for _ in 0..effort.rounds {
        behind_standby(&primary, time, &mut theirs)?;
        behind_mirror(&primary, &mirror, time, &mut ours)?;
    }
    let mut table = Table::new(&[
        "milliseconds from flush to replay",
        "MB/s of WAL",
        "samples",
        "median",
        "p99",
        "most",
    ]);
    for (name, lags) in [
        ("PostgreSQL standby", &mut theirs),
        ("walreceiver run", &mut ours),
    ] {
        table.row([
            name.to_owned(),
            format!("{:.1}", megabytes(lags.bytes) / lags.seconds),
            lags.milliseconds.len().to_string(),
            format!("{:.2}", percentile(&mut lags.milliseconds, 50)?),
            format!("{:.2}", percentile(&mut lags.milliseconds, 99)?),
            format!("{:.2}", percentile(&mut lags.milliseconds, 100)?),
        ]);
    }
    Ok(Report {
        title: "WAL of catalog changes that is flushed and not yet replayed; less is better"
            .to_owned(),
        table,
        targets: vec![Target::at_most(
            "the 99th percentile of flushed WAL's wait for replay, in ms",
            percentile(&mut ours.milliseconds, 99)?,
            LAG_MS,
        )],
    })
}

fn behind_standby(primary: &Cluster, time: Duration, lags: &mut Lags) -> Result<()> {
    let mut standby = primary.standby(&[])?;
    standby.start()?;
    let mut client = Connection::sql(standby.port())?;
    let mut waiting = Waiting::default();
    let load = Load::start(primary, time);
    while !load.is_over() {
        // Read in this order, so that none seems replayed before it was flushed.
        let row = client.query("SELECT pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()")?;
        let at = Instant::now();
        let lsn = |index: usize| -> Result<Lsn> { Ok(row.get(index).context("no LSN")?.parse()?) };
        waiting.flushed(lsn(1)?, at);
        waiting.replayed(lsn(0)?, at);
    }
    load.end(lags)?;
    lags.milliseconds.append(&mut waiting.over);
    Ok(standby.stop(StopMode::Fast)?)
}

fn behind_mirror(
    primary: &Cluster,
    mirror: &Mirror,
    time: Duration,
    lags: &mut Lags,
) -> Result<()> {
    // A mirror is run by its owner, as which this process may not have made it.
    chown(mirror.directory(), Some(geteuid().as_raw()), None)?;
    let conninfo = ConnInfo::resolve(&primary.conninfo(), &Environment::default())?
        .with_application_name_default("lag");
    let config = RunConfig {
        mirror: mirror.directory().to_owned(),
        conninfo,
        slot: None,
        receiver: ReceiverConfig::default(),
        no_loop: true,
        max_wait: Duration::from_secs(1),
        hub: None,
        replay: Some(ReplayConfig {
            limits: ReplayLimits {
                cache_bytes: 128 * MEBIBYTE,
                restartpoint_interval: Duration::from_secs(300),
                max_dirty_bytes: 64 << 20,
            },
            keep_wal: None,
            slots: mirror.directory().join("walstream/slots"),
        }),
    };
    let runtime = Runtime::new()?;
    let (live, mut status) = watch::channel(LiveStatus::default());
    let (stop, stopped) = watch::channel(Stop::Never);
    let running = runtime.spawn(async move { run(&config, &live, Arc::default(), stopped).await });
    let caught_up = primary.flush_lsn()?;
    wait_for("a mirror that has replayed all", LONG, || {
        ensure!(!running.is_finished(), "the mirror has ended");
        Ok(status.borrow().apply_lsn >= Some(caught_up))
    })?;
    let mut waiting = Waiting::default();
    let load = Load::start(primary, time);
    runtime.block_on(async {
        while !load.is_over() {
            // It is told of nothing once the load has ended.
            if tokio::time::timeout(Duration::from_millis(100), status.changed())
                .await
                .is_err()
            {
                continue;
            }
            let (flushed, applied) = {
                let status = status.borrow_and_update();
                (status.flush_lsn, status.apply_lsn)
            };
            let at = Instant::now();
            waiting.flushed(flushed.unwrap_or_default(), at);
            waiting.replayed(applied.unwrap_or_default(), at);
        }
    });
    load.end(lags)?;
    lags.milliseconds.append(&mut waiting.over);
    stop.send(Stop::Now)?;
    runtime.block_on(running)??;
    Ok(())
}

/// LSNs that were seen flushed and wait until they are seen replayed.
#[derive(Debug, Default)]
struct Waiting {
    waiting: VecDeque<(Lsn, Instant)>,
    last: Lsn,
    /// Waits that ended, in milliseconds.
    over: Vec<f64>,
}

impl Waiting {
    fn flushed(&mut self, lsn: Lsn, at: Instant) {
        if lsn > self.last {
            self.last = lsn;
            self.waiting.push_back((lsn, at));
        }
    }

    fn replayed(&mut self, up_to: Lsn, at: Instant) {
        while let Some((_, since)) = self.waiting.pop_front_if(|(lsn, _)| *lsn <= up_to) {
            self.over
                .push(at.saturating_duration_since(since).as_secs_f64() * 1e3);
        }
    }
}

/// Sessions of a primary that change its catalogs, at a steady rate and for a time.
struct Load {
    is_over: Arc<AtomicBool>,
    work: thread::JoinHandle<Result<(u64, f64)>>,
}

impl Load {
    fn start(primary: &Cluster, time: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (port, over) = (primary.port(), Arc::clone(&is_over));
        let work = thread::spawn(move || {
            let done = work(port, time);
            over.store(true, Ordering::Release);
            done
        });
        Self { is_over, work }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn end(self, lags: &mut Lags) -> Result<()> {
        let work = self.work.join();
        let (bytes, seconds) = work.ok().context("the load panicked")??;
        lags.bytes += bytes;
        lags.seconds += seconds;
        Ok(())
    }
}

/// Gives the bytes of WAL written, and the seconds it took.
fn work(port: u16, time: Duration) -> Result<(u64, f64)> {
    let mut client = Connection::sql(port)?;
    let now = |client: &mut Connection| -> Result<Lsn> {
        let row = client.query("SELECT pg_current_wal_flush_lsn()")?;
        Ok(row.first().context("no LSN")?.parse()?)
    };
    let (start, began) = (now(&mut client)?, Instant::now());
    loop {
        client.query(WORK)?;
        let bytes = now(&mut client)?.saturating_sub(start);
        let took = began.elapsed();
        if took >= time {
            return Ok((bytes, took.as_secs_f64()));
        }
        let due = Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND);
        thread::sleep(due.saturating_sub(took));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_waits_from_when_it_was_first_flushed_until_it_is_replayed() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut waiting = Waiting::default();
        waiting.flushed(Lsn(10), at(0));
        waiting.flushed(Lsn(10), at(1));
        waiting.flushed(Lsn(20), at(2));
        waiting.replayed(Lsn(15), at(4));
        waiting.replayed(Lsn(20), at(9));
        assert_eq!(waiting.over, [4.0, 7.0]);
    }
}
