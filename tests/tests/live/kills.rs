//! The receiver is killed with SIGKILL at any instant, and always goes on where it was.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use walstream_tests::{
    AcknowledgedLoad, ClusterOptions, LONG, Mirror, Program, Random, SHORT, StopMode,
    ensure_same_content, ensure_same_wal, take_over, wait_for,
};

const NAME: &str = "gp_walreceiver";

fn rounds() -> u32 {
    if std::env::var_os("WALSTREAM_FULL").is_some() {
        300
    } else {
        20
    }
}

/// Segments of 1 MB, so that many begin and end. All are kept, to be compared: in the full form some GB.
fn options() -> ClusterOptions {
    ClusterOptions::default()
        .set("wal_keep_size", "8GB")
        .initdb_option("--wal-segsize=1")
}

/// Starts the receiver, kills it at some instant, and fails when it had ended by itself.
fn start_and_kill(receiver: Program, random: &mut Random, wait_for_stream: bool) -> Result<()> {
    let mut running = receiver.start()?;
    if wait_for_stream {
        running.wait_for_output("started streaming WAL", SHORT)?;
    }
    sleep(random.duration(Duration::from_millis(300)));
    let killed = running.kill_9()?;
    ensure!(
        !killed.stderr.contains("ERROR") && !killed.stderr.contains("error:"),
        "{killed}"
    );
    Ok(())
}

#[test]
fn survives_kills_at_any_instant_under_synchronous_load() -> Result<()> {
    let mut random = Random::seeded();
    let mut primary = options().set("synchronous_standby_names", NAME).start()?;
    let mirror = Mirror::init(&primary)?;
    let receiver = || Ok::<_, anyhow::Error>(mirror.command("run")?.args(["--max-wait", "0.2"]));
    let first = mirror.run(&[])?;
    let load =
        AcknowledgedLoad::start(&primary, mirror.workdir(), 3, "SET synchronous_commit = on")?;
    first.kill_9()?;
    for round in 0..rounds() {
        start_and_kill(receiver()?, &mut random, round % 4 != 0)?;
    }
    let last = mirror.run(&[])?;
    let count = AcknowledgedLoad::count(&primary)?;
    wait_for("commits that go on", LONG, || {
        Ok(AcknowledgedLoad::count(&primary)? > count + 10)
    })?;
    primary.kill_9()?;
    let rows = load.ended()?;
    last.kill_9()?;
    ensure_same_wal(mirror.directory(), &[primary.data_dir()])?;
    let new = take_over(&mirror, &primary)?;
    AcknowledgedLoad::ensure_kept(&new, &rows)?;
    new.amcheck()
}

#[test]
fn survives_kills_around_segment_switches() -> Result<()> {
    let mut random = Random::seeded();
    let mut primary = options().start()?;
    let mirror = Mirror::init(&primary)?;
    primary.query("CREATE TABLE t (i int)")?;
    let script = mirror.workdir().join("switch.sql");
    std::fs::write(
        &script,
        "INSERT INTO t VALUES (1);\nSELECT pg_switch_wal();\n\\sleep 5 ms\n",
    )?;
    mirror.workdir().own(&script)?;
    let switching = mirror
        .workdir()
        .external(&primary.programs().program("pgbench"));
    let mut switching = switching
        .args(["-n", "-T", "100000", "-f"])
        .arg(&script)
        .env("PGHOST", primary.scratch())
        .env("PGPORT", primary.port().to_string())
        .env("PGUSER", "postgres")
        .arg("postgres")
        .start()?;
    for _ in 0..rounds() / 2 {
        start_and_kill(mirror.command("run")?, &mut random, true)?;
    }
    ensure!(switching.is_running()?, "nothing was switched any more");
    switching.kill_9()?;
    let last = mirror.run(&[])?;
    primary.wait_for_flush(NAME, primary.flush_lsn()?, LONG)?;
    let stopped = last.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    let same = ensure_same_wal(mirror.directory(), &[primary.data_dir()])?;
    ensure!(same.segments.len() > 5, "few switches: {same:?}");
    primary.kill_9()?;
    let new = take_over(&mirror, &primary)?;
    primary.start()?;
    ensure_same_content(&primary, &new)
}

#[test]
fn survives_kills_during_a_timeline_switch() -> Result<()> {
    let mut random = Random::seeded();
    let mut primary = options().start()?;
    let mirror = Mirror::init_with(&primary.conninfo(), &["--no-slot"])?;
    let mut standby = primary.standby(&[("cluster_name", "second")])?;
    standby.start()?;
    primary.query("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i")?;
    let lsn = primary.flush_lsn()?;
    wait_for("the standby's replay", LONG, || {
        Ok(standby.current_lsn()? >= lsn)
    })?;
    primary.stop(StopMode::Fast)?;
    standby.promote()?;
    standby.query("INSERT INTO t SELECT * FROM t")?;
    let before = mirror.workdir().join("before");
    copy(&mirror, mirror.directory(), &before)?;
    let receiver = || {
        let run = mirror.command("run")?;
        Ok::<_, anyhow::Error>(run.args(["--primary", &standby.conninfo()]))
    };
    for round in 0..rounds() / 3 {
        std::fs::remove_dir_all(mirror.directory())?;
        copy(&mirror, &before, mirror.directory())?;
        let mut running = receiver()?.start()?;
        if round % 2 == 0 {
            running.wait_for_output("following the server to a new timeline", SHORT)?;
        } else {
            running.wait_for_output("started streaming WAL", SHORT)?;
        }
        sleep(random.duration(Duration::from_millis(20)));
        running.kill_9()?;
        start_and_kill(receiver()?, &mut random, false)?;
        let last = mirror.run(&["--primary", &standby.conninfo()])?;
        standby.wait_for_flush(NAME, standby.flush_lsn()?, LONG)?;
        let stopped = last.terminate(SHORT)?;
        assert_eq!(stopped.code(), Some(0), "{stopped}");
        let same = ensure_same_wal(
            mirror.directory(),
            &[standby.data_dir(), primary.data_dir()],
        )?;
        assert_eq!(same.end.timeline.0, 2);
    }
    standby.kill_9()?;
    let new = take_over(&mirror, &standby)?;
    standby.start()?;
    ensure_same_content(&standby, &new)
}

fn copy(mirror: &Mirror, from: &Path, to: &Path) -> Result<()> {
    let cp = mirror.workdir().external(Path::new("cp"));
    cp.arg("-a").arg(from).arg(to).succeed(LONG)?;
    Ok(())
}
