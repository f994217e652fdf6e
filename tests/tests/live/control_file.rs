//! What we read from the small files of a live cluster is what PostgreSQL's own programs say: `pg_control` in every
//! state of a server, and the history file of a promotion. A running server's directory cannot be locked as a mirror.

use std::fs;

use anyhow::{Context, Result, ensure};
use walreceiver::mirror::lock::{LockError, MirrorLock};
use walstream::storage::control::{ControlFile, DatabaseState};
use walstream::storage::controldata::controldata_lines;
use walstream::timeline::{BranchPoint, TimelineHistory};
use walstream::wal::segment_name::WalFileName;
use walstream::{Dialect, PgMajor, TimelineId};
use walstream_tests::{Cluster, ClusterOptions, SHORT, StopMode, wait_for};

/// Reads the cluster's `pg_control`, and compares every line with `pg_controldata`'s.
fn compared(cluster: &Cluster) -> Result<ControlFile> {
    let path = cluster.data_dir().join("global/pg_control");
    // A checkpoint may change the file between the two; the same content before and after proves it did not.
    for _ in 0..20 {
        let before = fs::read(&path)?;
        let output = cluster
            .command("pg_controldata")
            .arg("-D")
            .arg(cluster.data_dir())
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        if fs::read(&path)? != before {
            continue;
        }
        let control = ControlFile::parse(&before)?;
        let ours: Vec<_> = controldata_lines(&control)
            .into_iter()
            .map(|(label, value)| format!("{label:<38}{value}"))
            .collect();
        let theirs = String::from_utf8(output.stdout)?;
        assert_eq!(ours, theirs.lines().collect::<Vec<_>>());
        assert_eq!(control.encode(), before);
        return Ok(control);
    }
    anyhow::bail!("{} does not come to rest", path.display())
}

#[test]
fn the_control_file_of_a_server_in_each_state_is_read_as_pg_controldata_reads_it() -> Result<()> {
    let mut primary = ClusterOptions::default()
        .set("max_connections", "31")
        .set("track_commit_timestamp", "on")
        .start()?;
    primary.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")?;
    primary.query("CHECKPOINT")?;
    let control = compared(&primary)?;
    assert_eq!(control.state, DatabaseState::InProduction);
    assert_eq!(control.system_identifier.0, primary.system_identifier()?);
    assert_eq!(control.settings.max_connections, 31);
    assert!(control.settings.track_commit_timestamp);
    let major = primary.query("SHOW server_version_num")?.parse::<u32>()? / 10_000;
    let major = PgMajor::from_number(major).context("an unknown version")?;
    assert_eq!(control.dialect()?, Dialect::with_default_sizes(major));

    let mut standby = primary.standby(&[("cluster_name", "second")])?;
    assert_eq!(
        compared(&standby)?.state,
        DatabaseState::InProduction,
        "as it was backed up"
    );
    standby.start()?;
    primary.query("INSERT INTO t SELECT generate_series(1, 1000)")?;
    let lsn = primary.current_lsn()?;
    primary.query("CHECKPOINT")?;
    primary.wait_for_flush("second", lsn, SHORT)?;
    standby.query("CHECKPOINT")?;
    let control = compared(&standby)?;
    assert_eq!(control.state, DatabaseState::InArchiveRecovery);
    assert!(control.min_recovery_point.is_valid());

    primary.stop(StopMode::Fast)?;
    assert_eq!(compared(&primary)?.state, DatabaseState::ShutDown);

    standby.promote()?;
    wait_for("the checkpoint after the promotion", SHORT, || {
        Ok(compared(&standby)?.checkpoint.timeline == TimelineId(2))
    })?;
    standby.kill_9()?;
    assert_eq!(compared(&standby)?.state, DatabaseState::InProduction);
    Ok(())
}

#[test]
fn a_promotion_is_found_in_its_history_file() -> Result<()> {
    let mut primary = Cluster::started()?;
    let mut standby = primary.standby(&[])?;
    standby.start()?;
    primary.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")?;
    // A clean stop sends everything, so the standby leaves the timeline where the primary ended it.
    primary.stop(StopMode::Fast)?;
    let end = compared(&primary)?.checkpoint_lsn;
    standby.promote()?;

    let two = TimelineId(2);
    let name = WalFileName::History(two).file_name(compared(&standby)?.wal_segment_size);
    let history = TimelineHistory::parse(two, &standby.wal_file(&name)?)?;
    let parent = history.parent().context("timeline 2 has a parent")?;
    assert_eq!(
        (parent.timeline, parent.reason.as_str()),
        (TimelineId(1), "no recovery target specified")
    );
    assert!(
        parent.switch_lsn > end,
        "{} is not after {end}",
        parent.switch_lsn
    );
    let switch_lsn = parent.switch_lsn;
    assert_eq!(
        history.branch_point_from(TimelineId(1), switch_lsn),
        BranchPoint::Ancestor { switch_lsn }
    );
    assert_eq!(history.timeline_at(standby.current_lsn()?), two);
    Ok(())
}

#[test]
fn the_directory_of_a_running_server_is_not_locked() -> Result<()> {
    let mut cluster = Cluster::started()?;
    let refused = MirrorLock::acquire(cluster.data_dir());
    let pid = cluster
        .pid()
        .context("the server runs")?
        .as_raw_nonzero()
        .get();
    match refused {
        Err(LockError::ServerRuns { postmaster, .. }) => {
            assert_eq!(i64::from(postmaster), i64::from(pid));
        }
        other => panic!("{other:?}"),
    }
    // What it leaves behind when it is killed is no server.
    cluster.kill_9()?;
    assert!(cluster.data_dir().join("postmaster.pid").exists());
    let _lock = MirrorLock::acquire(cluster.data_dir())?;
    Ok(())
}
