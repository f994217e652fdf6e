//! The receiver follows its server through promotions, and refuses a server that it has outrun.

use anyhow::{Result, ensure};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Mirror, SHORT, StopMode, ensure_same_content, ensure_same_wal,
    take_over, wait_for,
};

const NAME: &str = "gp_walreceiver";

fn primary() -> Result<Cluster> {
    let primary = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .initdb_option("--wal-segsize=1")
        .start()?;
    primary.query("CREATE TABLE t (i int, padding text)")?;
    Ok(primary)
}

/// A mirror without a slot: it goes from server to server.
fn mirror_of(primary: &Cluster) -> Result<Mirror> {
    Mirror::init_with(&primary.conninfo(), &["--no-slot"])
}

fn started_standby(of: &Cluster, name: &str) -> Result<Cluster> {
    let mut standby = of.standby(&[("cluster_name", name)])?;
    standby.start()?;
    Ok(standby)
}

/// Some segments of WAL.
fn load(server: &Cluster) -> Result<()> {
    server.query(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 3000) i",
    )?;
    Ok(())
}

fn wait_for_replay(standby: &Cluster, lsn: Lsn) -> Result<()> {
    wait_for(&format!("replay of {lsn}"), LONG, || {
        Ok(standby.current_lsn()? >= lsn)
    })
}

/// The mirror has everything that `server` has, and of the first timeline what `first` has; it takes its place, on `timeline`, and has its content.
fn replaces(mirror: &Mirror, first: &Cluster, mut server: Cluster, timeline: u32) -> Result<()> {
    server.kill_9()?;
    let same = ensure_same_wal(mirror.directory(), &[server.data_dir(), first.data_dir()])?;
    assert_eq!(same.end.timeline.0, timeline - 1);
    for ancestor in 1..timeline {
        let prefix = format!("{ancestor:08X}");
        ensure!(
            same.segments.iter().any(|name| name.starts_with(&prefix)),
            "no WAL of timeline {ancestor}: {same:?}"
        );
        let history = mirror.directory().join(format!("pg_wal/{prefix}.history"));
        ensure!(
            ancestor == 1 || history.exists(),
            "{} is missing",
            history.display()
        );
    }
    let new = take_over(mirror, &server)?;
    let wal_file = new.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    ensure!(
        wal_file.starts_with(&format!("{timeline:08X}")),
        "{wal_file} is not on timeline {timeline}"
    );
    server.start()?;
    ensure_same_content(&server, &new)
}

#[test]
fn follows_a_standby_that_is_promoted_while_it_streams() -> Result<()> {
    let mut primary = primary()?;
    let mirror = mirror_of(&primary)?;
    let standby = started_standby(&primary, "second")?;
    let mut receiver = mirror.run(&["--primary", &standby.conninfo()])?;
    load(&primary)?;
    let lsn = primary.flush_lsn()?;
    wait_for_replay(&standby, lsn)?;
    standby.wait_for_flush(NAME, lsn, LONG)?;
    primary.stop(StopMode::Fast)?;
    standby.promote()?;
    receiver.wait_for_output("following the server to a new timeline", SHORT)?;
    load(&standby)?;
    standby.wait_for_flush(NAME, standby.flush_lsn()?, LONG)?;
    ensure!(
        !receiver.stderr().contains("connection ended"),
        "one connection was enough: {}",
        receiver.stderr()
    );
    let stopped = receiver.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    replaces(&mirror, &primary, standby, 3)
}

#[test]
fn follows_a_promotion_that_it_slept_through() -> Result<()> {
    let mut primary = primary()?;
    let mirror = mirror_of(&primary)?;
    let standby = started_standby(&primary, "second")?;
    let receiver = mirror.run(&[])?;
    load(&primary)?;
    receiver.terminate(SHORT)?;
    // The mirror lacks this of the old timeline, and must have it before the new one.
    load(&primary)?;
    wait_for_replay(&standby, primary.flush_lsn()?)?;
    primary.stop(StopMode::Fast)?;
    standby.promote()?;
    load(&standby)?;
    let receiver = mirror.run(&["--primary", &standby.conninfo()])?;
    standby.wait_for_flush(NAME, standby.flush_lsn()?, LONG)?;
    let stopped = receiver.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    replaces(&mirror, &primary, standby, 3)
}

#[test]
fn follows_two_promotions_in_a_row() -> Result<()> {
    for awake in [true, false] {
        let mut primary = primary()?;
        let mirror = mirror_of(&primary)?;
        let mut second = started_standby(&primary, "second")?;
        let third = started_standby(&second, "third")?;
        let receiver = mirror.run(&["--primary", &third.conninfo()])?;
        let receiver = if awake {
            Some(receiver)
        } else {
            receiver.terminate(SHORT)?;
            None
        };
        load(&primary)?;
        wait_for_replay(&third, primary.flush_lsn()?)?;
        primary.stop(StopMode::Fast)?;
        second.promote()?;
        load(&second)?;
        wait_for_replay(&third, second.flush_lsn()?)?;
        second.stop(StopMode::Fast)?;
        third.promote()?;
        load(&third)?;
        let receiver = match receiver {
            Some(receiver) => receiver,
            None => mirror.run(&["--primary", &third.conninfo()])?,
        };
        third.wait_for_flush(NAME, third.flush_lsn()?, LONG)?;
        let stopped = receiver.terminate(SHORT)?;
        assert_eq!(stopped.code(), Some(0), "{stopped}");
        replaces(&mirror, &primary, third, 4)?;
    }
    Ok(())
}

#[test]
fn refuses_a_promoted_server_that_lacks_what_it_has() -> Result<()> {
    let mut primary = primary()?;
    let mirror = mirror_of(&primary)?;
    let mut standby = started_standby(&primary, "second")?;
    wait_for_replay(&standby, primary.flush_lsn()?)?;
    // Both servers, the first that answers: what a person writes who wants the mirror to follow a failover.
    let both = format!(
        "host={},{} port={},{} user=postgres",
        primary.scratch().display(),
        standby.scratch().display(),
        primary.port(),
        standby.port()
    );
    let receiver = mirror.run(&["--primary", &both, "--max-wait", "0.2"])?;
    standby.stop(StopMode::Fast)?;
    load(&primary)?;
    let ours = primary.flush_lsn()?;
    primary.wait_for_flush(NAME, ours, LONG)?;
    primary.kill_9()?;
    // Behind, but it could still catch up: no reason to give up.
    standby.start()?;
    wait_for("an attempt at the standby", LONG, || {
        Ok(receiver.stderr().contains("the mirror up to"))
    })?;
    standby.promote()?;
    let ended = receiver.wait(LONG)?;
    ended.expect_failure(6, &["the mirror has diverged from the server at"])?;
    let history = String::from_utf8(standby.wal_file("00000002.history")?)?;
    let switch = history
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    ended.expect_failure(
        6,
        &[
            &format!("timeline 1 was left at {switch} there"),
            "activate this one if it is the one to keep",
        ],
    )?;
    ensure!(switch.parse::<Lsn>()? < ours, "nothing had diverged");
    // Told at the start, too, and no byte of the mirror is lost: it still is what the old primary was.
    let again = mirror
        .command("run")?
        .args(["--primary", &both])
        .run(LONG)?;
    again.expect_failure(6, &["the mirror has diverged from the server at", &switch])?;
    standby.kill_9()?;
    let same = ensure_same_wal(
        mirror.directory(),
        &[primary.data_dir(), standby.data_dir()],
    )?;
    ensure!(same.end.lsn >= ours, "{same:?} ends before {ours}");
    let new = take_over(&mirror, &primary)?;
    // It has seen that another server calls itself timeline 2.
    let wal_file = new.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    ensure!(
        wal_file.starts_with("00000003"),
        "{wal_file} is not on timeline 3"
    );
    assert_eq!(new.query("SELECT count(*) FROM t")?, "3000");
    Ok(())
}
