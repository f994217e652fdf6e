//! The mirror as synchronous standby: commits wait for it, and what was acknowledged survives the primary.

use anyhow::{Result, ensure};
use walstream_tests::{
    AcknowledgedLoad, Cluster, ClusterOptions, LONG, Mirror, Running, SHORT, Signal,
    ensure_same_wal, take_over, wait_for,
};

const NAME: &str = "gp_walreceiver";

/// A server whose commits wait for the mirror, the mirror, and its receiver.
fn synchronous() -> Result<(Cluster, Mirror, Running)> {
    let primary = ClusterOptions::default()
        .set("synchronous_standby_names", NAME)
        .set("wal_keep_size", "1GB")
        .start()?;
    let mirror = Mirror::init(&primary)?;
    let receiver = mirror.run(&[])?;
    wait_for("the synchronous standby", SHORT, || {
        Ok(primary.standby_column(NAME, "sync_state")?.as_deref() == Some("sync"))
    })?;
    Ok((primary, mirror, receiver))
}

fn waiting_for_the_mirror(primary: &Cluster) -> Result<bool> {
    let waiting =
        primary.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")?;
    Ok(waiting != "0")
}

#[test]
fn commits_wait_while_the_mirror_is_stopped() -> Result<()> {
    let (primary, mirror, mut receiver) = synchronous()?;
    primary.query("CREATE TABLE t (i int)")?;
    for level in ["on", "remote_write", "remote_apply"] {
        let sql = format!("SET synchronous_commit = {level}; INSERT INTO t VALUES (1)");
        let insert = || {
            let psql = mirror
                .workdir()
                .external(&primary.programs().program("psql"));
            let database = format!("{} dbname=postgres", primary.conninfo());
            psql.args(["-X", "-q", "-c", &sql, "-d"]).arg(database)
        };
        insert().succeed(SHORT)?;
        receiver.signal(Signal::STOP)?;
        let mut waits = insert().start()?;
        wait_for("a commit that waits", SHORT, || {
            waiting_for_the_mirror(&primary)
        })?;
        ensure!(
            waits.is_running()?,
            "{level}: the commit did not wait for a stopped mirror"
        );
        receiver.signal(Signal::CONT)?;
        let goes_on = waits.wait(SHORT)?;
        assert_eq!(goes_on.code(), Some(0), "{level}: {goes_on}");
        assert_eq!(goes_on.stderr, "", "{level}");
    }
    let row = "write_lsn = pg_current_wal_flush_lsn() AND flush_lsn = pg_current_wal_flush_lsn() AND replay_lsn = flush_lsn
               AND state = 'streaming' AND sync_state = 'sync'";
    wait_for("a standby that has everything", SHORT, || {
        Ok(primary.standby_column(NAME, row)?.as_deref() == Some("t"))
    })?;
    let stopped = receiver.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    Ok(())
}

#[test]
fn every_acknowledged_commit_survives_the_primary() -> Result<()> {
    survives("SET synchronous_commit = on", false)
}

#[test]
fn commits_acknowledged_as_written_survive_too() -> Result<()> {
    survives("SET synchronous_commit = remote_write", true)
}

/// Kills the primary under load, and with `receiver_too` the receiver, and looks for every acknowledged row.
fn survives(settings: &str, receiver_too: bool) -> Result<()> {
    let (mut primary, mirror, receiver) = synchronous()?;
    let load = AcknowledgedLoad::start(&primary, mirror.workdir(), 4, settings)?;
    let enough = if std::env::var_os("WALSTREAM_FULL").is_some() {
        50_000
    } else {
        400
    };
    wait_for("commits", LONG, || {
        Ok(AcknowledgedLoad::count(&primary)? >= enough)
    })?;
    primary.kill_9()?;
    let rows = load.ended()?;
    if receiver_too {
        // What is written survives the process that wrote it.
        receiver.kill_9()?;
    } else {
        let stopped = receiver.terminate(SHORT)?;
        assert_eq!(stopped.code(), Some(0), "{stopped}");
    }
    ensure_same_wal(mirror.directory(), &[primary.data_dir()])?;
    let new = take_over(&mirror, &primary)?;
    AcknowledgedLoad::ensure_kept(&new, &rows)?;
    // The standby that commits waited for is gone: no commit may wait for it for ever.
    assert_eq!(new.query("SHOW synchronous_standby_names")?, "");
    new.query("INSERT INTO acknowledged VALUES (99, 1, '')")?;
    new.amcheck()
}
