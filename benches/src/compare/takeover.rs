//! How long it takes until a successor takes writes after the primary was killed: a mirror that is activated in each way and started,
//! and a standby of PostgreSQL's that is promoted, with a small and with a large data directory.
//!
//! All have caught up before. The mirror that replays has made a restartpoint since, as has the standby: what it costs does not depend
//! on the WAL before. The standby runs already, so it is only promoted; the mirror's server is started, in the time that is shown.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Mirror, Running, StopMode, server_version, wait_for,
};

use super::{Effort, Report, Target};
use crate::table::{Spread, Table};

/// Most time for an activation, in seconds.
const ACTIVATION_S: f64 = 1.0;
/// Scales of `pgbench`, whose tables take some 15 MB each.
const SCALES: [u32; 2] = [1, 100];
const NAME: &str = "gp_walreceiver";

/// Times of one way, in seconds.
#[derive(Debug, Default)]
struct Times {
    activated: Vec<f64>,
    serving: Vec<f64>,
}

impl Times {
    fn push(&mut self, (activated, serving): (Duration, Duration)) {
        self.activated.push(activated.as_secs_f64());
        self.serving.push(serving.as_secs_f64());
    }
}

/// Compares.
///
/// # Errors
/// When a program fails or cannot be built.
pub fn compare(effort: Effort) -> Result<Report> {
    let mut table = Table::new(&[
        "s since the primary was killed",
        "pgbench scale",
        "until it is activated",
        "until it takes a write",
    ]);
    let mut targets = Vec::new();
    let scales = if effort.tiny { &SCALES[..1] } else { &SCALES };
    for &scale in scales {
        let (mut promoted, mut native, mut recovered) =
            (Times::default(), Times::default(), Times::default());
        for _ in 0..effort.rounds {
            let mut scene = Scene::start(scale)?;
            promoted.push(scene.promote()?);
            recovered.push(scene.activate(&scene.unreplayed, &["--recovery", "postgres"])?);
            native.push(scene.activate(&scene.mirror, &[])?);
        }
        for (name, times) in [
            ("PostgreSQL standby, pg_promote", &promoted),
            ("walreceiver activate --recovery postgres", &recovered),
            ("walreceiver activate", &native),
        ] {
            table.row([
                name.to_owned(),
                scale.to_string(),
                Spread::of(times.activated.iter().copied())?.to_string(),
                Spread::of(times.serving.iter().copied())?.to_string(),
            ]);
        }
        targets.push(Target::at_most(
            format!("time in s to activate a mirror, scale {scale}"),
            Spread::of(native.activated)?.median,
            ACTIVATION_S,
        ));
    }
    Ok(Report {
        title: "Takeover from a coordinator that was killed; less is better".to_owned(),
        table,
        targets,
    })
}

/// A primary that was killed, and who may follow it.
struct Scene {
    primary: Cluster,
    standby: Cluster,
    /// Replays what it receives.
    mirror: Mirror,
    /// Its receiver, which `activate` ends: that is a part of the time.
    _receiver: Running,
    /// Only receives.
    unreplayed: Mirror,
}

impl Scene {
    fn start(scale: u32) -> Result<Self> {
        let mut primary = ClusterOptions::default()
            .programs(&server_version(15)?)
            .set("wal_keep_size", "8GB")
            .set("max_wal_size", "8GB")
            .set("fsync", "on")
            .start()?;
        primary.pgbench(&["-i", "-q", "-s", &scale.to_string()])?;
        let mirror = Mirror::init(&primary)?;
        let unreplayed = mirror.copy()?;
        let mut standby = primary.standby(&[("primary_slot_name", "")])?;
        standby.start()?;
        let running = mirror.run(&["--restartpoint-interval", "0"])?;
        primary.pgbench(&["-n", "-c", "4", "-t", "500"])?;
        primary.query("CHECKPOINT")?;
        standby.query("CHECKPOINT")?;
        caught_up(&primary, &standby)?;
        end(running)?;
        // The slot is of one mirror, and free now.
        let running = unreplayed.run(&["--no-replay"])?;
        primary.pgbench(&["-n", "-c", "4", "-t", "100"])?;
        caught_up(&primary, &standby)?;
        end(running)?;
        let running = mirror.run(&[])?;
        caught_up(&primary, &standby)?;
        primary.kill_9()?;
        Ok(Self {
            primary,
            standby,
            mirror,
            _receiver: running,
            unreplayed,
        })
    }

    /// Gives when recovery had ended, and when a write was done.
    fn promote(&mut self) -> Result<(Duration, Duration)> {
        let began = Instant::now();
        self.standby.promote()?;
        let promoted = began.elapsed();
        self.standby.query("CREATE TABLE written ()")?;
        let written = began.elapsed();
        self.standby.stop(StopMode::Fast)?;
        Ok((promoted, written))
    }

    /// As [`promote`](Self::promote).
    fn activate(&self, mirror: &Mirror, arguments: &[&str]) -> Result<(Duration, Duration)> {
        let began = Instant::now();
        mirror
            .command("activate")?
            .args(["-y", "--json"])
            .args(arguments)
            .succeed(LONG)?;
        let activated = began.elapsed();
        let mut server = Cluster::on_directory(&self.primary, mirror.directory())?;
        server.start()?;
        let mut last = None;
        wait_for("a server that takes writes", LONG, || {
            let written = server.query("CREATE TABLE written ()");
            let is_written = written.is_ok();
            last = written.err();
            Ok(is_written)
        })
        .with_context(|| format!("{last:?}"))?;
        let written = began.elapsed();
        server.stop(StopMode::Fast)?;
        Ok((activated, written))
    }
}

/// Waits until both have everything, replayed where they replay.
fn caught_up(primary: &Cluster, standby: &Cluster) -> Result<()> {
    let end = primary.flush_lsn()?;
    primary.wait_for_flush(NAME, end, LONG)?;
    wait_for("a standby that has caught up", LONG, || {
        Ok(standby.lsn("SELECT pg_last_wal_replay_lsn()")? >= end)
    })
}

fn end(running: Running) -> Result<()> {
    let ended = running.terminate(LONG)?;
    ensure!(ended.code() == Some(0), "{ended}");
    Ok(())
}
