//! `walreceiver waldump --follow` and a live stream show what is written after they began.

use std::time::Duration;

use anyhow::{Result, ensure};
use walstream_tests::{Cluster, LONG, Running, SHORT, Signal, StopMode, Workdir, wait_for};

fn waldump(workdir: &Workdir, arguments: &[&str]) -> Result<Running> {
    let program = workdir.program("walreceiver")?;
    program.arg("waldump").args(arguments).start()
}

/// Writes a logical message of this length, and waits until its record is shown.
fn shows_a_message(running: &mut Running, cluster: &Cluster, length: u32) -> Result<()> {
    // Its length makes the record one of a kind.
    let sql = format!("SELECT pg_logical_emit_message(false, '', repeat('x', {length}))");
    let at = cluster.lsn(&sql)?;
    // The message is flushed with the next commit.
    cluster.query("CREATE TABLE flushed (); DROP TABLE flushed")?;
    let total = 24 + 5 + 16 + 8 + 1 + length;
    wait_for(&format!("message before {at}"), SHORT, || {
        let stdout = running.stdout();
        ensure!(running.is_running()?, "{stdout}{}", running.stderr());
        let shown = stdout
            .lines()
            .filter(|line| line.starts_with("rmgr: LogicalMessage"))
            .any(|line| {
                let length = line
                    .split('/')
                    .nth(2)
                    .and_then(|rest| rest.split(',').next());
                length
                    .and_then(|length| length.trim().parse::<u32>().ok())
                    .is_some_and(|found| found.abs_diff(total) < 16)
            });
        Ok(shown)
    })
}

#[test]
fn following_goes_over_segments_and_promotions() -> Result<()> {
    let primary = Cluster::started()?;
    let mut standby = primary.standby(&[("hot_standby", "on")])?;
    standby.start()?;
    let workdir = Workdir::new()?;
    let data = standby.data_dir().display().to_string();
    let start = primary.current_lsn()?.to_string();
    let mut running = waldump(&workdir, &["--follow", "-p", &data, "--start", &start])?;
    shows_a_message(&mut running, &primary, 1000)?;
    for length in [2000, 3000] {
        primary.switch_wal()?;
        shows_a_message(&mut running, &primary, length)?;
    }
    standby.promote()?;
    shows_a_message(&mut running, &standby, 4000)?;
    standby.switch_wal()?;
    shows_a_message(&mut running, &standby, 5000)?;
    running.signal(Signal::INT)?;
    let finished = running.wait(LONG)?;
    ensure!(finished.code() == Some(0), "{finished}");
    // In order and without a gap: each record links to the one before.
    let mut last = None;
    for line in finished
        .stdout
        .lines()
        .filter(|line| line.starts_with("rmgr"))
    {
        let word = |mark: &str| {
            let (_, rest) = line.split_once(mark)?;
            rest.split(',').next().map(str::to_owned)
        };
        let prev = word(", prev ");
        ensure!(
            last.is_none() || prev == last,
            "{line} does not follow {last:?}"
        );
        last = word(", lsn: ");
    }
    Ok(())
}

#[test]
fn an_interrupt_prints_the_statistics_of_what_was_seen() -> Result<()> {
    let cluster = Cluster::started()?;
    let workdir = Workdir::new()?;
    let data = cluster.data_dir().display().to_string();
    for arguments in [&["-f", "-z"][..], &["--follow", "--stats", "--json"]] {
        let mut running = waldump(&workdir, &[arguments, &[&data]].concat())?;
        // It has nothing to print until it ends; it is given the time to read what is there.
        std::thread::sleep(Duration::from_secs(1));
        ensure!(running.is_running()?, "{}", running.stderr());
        running.signal(Signal::INT)?;
        let finished = running.wait(LONG)?;
        ensure!(finished.code() == Some(0), "{finished}");
        ensure!(finished.stdout.contains("Heap"), "{finished}");
    }
    Ok(())
}

#[test]
fn a_live_stream_shows_records_and_keeps_nothing() -> Result<()> {
    let mut primary = Cluster::started()?;
    primary.alter_system("synchronous_standby_names", "walreceiver_waldump")?;
    primary.query("SET synchronous_commit = local; SELECT pg_create_physical_replication_slot('viewer', true)")?;
    let restart = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'viewer'";
    let reserved = primary.lsn(restart)?;
    primary.query("ALTER SYSTEM SET synchronous_commit = local")?;
    primary.query("SELECT pg_reload_conf()")?;
    let workdir = Workdir::new()?;
    let conninfo = primary.conninfo();
    let start = reserved.to_string();
    let mut running = waldump(
        &workdir,
        &[
            "--primary",
            &conninfo,
            "--slot",
            "viewer",
            "--start",
            &start,
        ],
    )?;
    running.wait_for_output("rmgr: ", LONG)?;
    shows_a_message(&mut running, &primary, 1000)?;
    primary.switch_wal()?;
    shows_a_message(&mut running, &primary, 300_000)?;
    // Nobody waits for it, and its slot stays where it was.
    let state = primary.standby_column("walreceiver_waldump", "flush_lsn")?;
    ensure!(state.is_none(), "it reported {state:?} as flushed");
    assert_eq!(primary.lsn(restart)?, reserved);
    running.signal(Signal::INT)?;
    let finished = running.wait(LONG)?;
    ensure!(finished.code() == Some(0), "{finished}");
    for entry in std::fs::read_dir(workdir.path())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.starts_with("0000"), "it left {name} behind");
    }

    // What the server's own files say.
    let data = primary.data_dir().display().to_string();
    let count = finished.stdout.lines().count().to_string();
    let files = workdir
        .program("walreceiver")?
        .args(["waldump", "-p", &data, "--start", &start, "-n", &count])
        .succeed(LONG)?;
    ensure!(
        files.stdout == finished.stdout,
        "the files hold other records"
    );

    // A limit ends it, as does an end; statistics come at the end.
    let until = primary.flush_lsn()?.to_string();
    for arguments in [
        &["--limit", "3", "--json"][..],
        &["--end", &until, "--stats=record"],
    ] {
        let common = ["waldump", "--primary", &conninfo, "--start", &start];
        let program = workdir.program("walreceiver")?;
        let finished = program.args(common).args(arguments).succeed(LONG)?;
        ensure!(finished.stdout.lines().count() >= 3, "{finished}");
    }
    let finished = workdir
        .program("walreceiver")?
        .args(["waldump", "--primary", &conninfo, "--slot", "nobody"])
        .run(LONG)?;
    finished.expect_failure(5, &["nobody"])?;
    let mut running = waldump(&workdir, &["--primary", &conninfo, "--start", &start])?;
    running.wait_for_output("rmgr: ", LONG)?;
    primary.stop(StopMode::Fast)?;
    let finished = running.wait(LONG)?;
    ensure!(finished.code() == Some(3), "{finished}");
    Ok(())
}

#[test]
fn a_live_stream_goes_over_a_promotion() -> Result<()> {
    let primary = Cluster::started()?;
    let mut standby = primary.standby(&[("hot_standby", "on")])?;
    standby.start()?;
    let workdir = Workdir::new()?;
    let mut running = waldump(&workdir, &["--primary", &standby.conninfo()])?;
    shows_a_message(&mut running, &primary, 1000)?;
    standby.promote()?;
    shows_a_message(&mut running, &standby, 2000)?;
    running.signal(Signal::INT)?;
    let finished = running.wait(LONG)?;
    ensure!(finished.code() == Some(0), "{finished}");
    Ok(())
}
