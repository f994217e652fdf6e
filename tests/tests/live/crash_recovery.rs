//! The tests' own ground: a server that was killed with SIGKILL comes back with what it had committed, and nothing of
//! it survives its owner.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;
use walreceiver::demo::orphan_guard::processes_inside;
use walstream_tests::{Cluster, ClusterOptions, SHORT, StopMode, wait_for};

#[test]
fn a_killed_server_recovers_what_it_committed() -> Result<()> {
    let mut cluster = ClusterOptions::default()
        .set("synchronous_commit", "on")
        .start()?;
    cluster.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")?;
    let before = cluster.current_lsn()?;
    let idle = cluster.row_counts()?;
    cluster.kill_9()?;
    assert_eq!(processes_inside(cluster.data_dir()), vec![]);
    assert!(
        cluster.query("SELECT 1").is_err(),
        "a killed server must not answer"
    );

    cluster.start()?;
    assert!(
        cluster
            .log()
            .contains("database system was not properly shut down"),
        "{}",
        cluster.log()
    );
    assert_eq!(
        cluster.query("SELECT count(*), sum(i) FROM t")?,
        "1000|500500"
    );
    assert_eq!(cluster.row_counts()?, idle);
    assert!(cluster.current_lsn()? >= before);
    Ok(())
}

#[test]
fn a_standby_equals_its_primary_and_is_promoted() -> Result<()> {
    let mut primary = Cluster::started()?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    let mut standby = primary.standby(&[("cluster_name", "second")])?;
    standby.start()?;
    primary.pgbench(&["-c", "2", "-t", "100"])?;
    primary.query("CREATE ROLE someone LOGIN PASSWORD 'x'")?;
    primary.query("CREATE DATABASE other")?;
    let lsn = primary.current_lsn()?;
    primary.query("CHECKPOINT")?;
    primary.wait_for_flush("second", lsn, SHORT)?;
    let (dump, counts) = (primary.dump_all()?, primary.row_counts()?);
    assert!(
        counts.contains(&"postgres.public.pgbench_accounts|100000".to_owned()),
        "{counts:?}"
    );
    primary.stop(StopMode::Fast)?;
    standby.promote()?;
    assert_eq!(standby.dump_all()?, dump);
    assert_eq!(standby.row_counts()?, counts);
    standby.amcheck()
}

#[test]
fn clusters_have_a_system_identifier_of_their_own_when_asked() -> Result<()> {
    let first = Cluster::started()?;
    let second = ClusterOptions::default()
        .own_system()
        .initdb_option("--wal-segsize=1")
        .start()?;
    assert_ne!(first.system_identifier()?, second.system_identifier()?);
    assert_eq!(second.query("SHOW wal_segment_size")?, "1MB");
    Ok(())
}

#[test]
fn tcp_asks_for_the_password() -> Result<()> {
    let cluster = Cluster::started()?;
    let right = cluster.tcp_conninfo();
    assert_eq!(
        cluster.run("psql", &["-X", "-A", "-t", "-c", "SELECT 7", "-d", &right])?,
        "7"
    );
    let wrong = right.replace(cluster.password(), "wrong");
    let error = cluster
        .run("psql", &["-X", "-c", "SELECT 7", "-d", &wrong])
        .expect_err("a wrong password");
    assert!(
        error.to_string().contains("password authentication failed"),
        "{error}"
    );
    Ok(())
}

/// Not a test of its own: the process that `nothing_outlives_a_killed_test` starts and kills.
#[test]
#[ignore = "run by another test in a process of its own"]
fn child_that_keeps_a_server() -> Result<()> {
    if std::env::var_os("WALSTREAM_TEST_CHILD").is_none() {
        return Ok(());
    }
    let cluster = Cluster::started()?;
    println!("\nscratch {}", cluster.scratch().display());
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

#[test]
fn nothing_outlives_a_killed_test() -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "crash_recovery::child_that_keeps_a_server",
            "--ignored",
            "--nocapture",
        ])
        .env("WALSTREAM_TEST_CHILD", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let scratch = lines.find_map(|line| line.ok()?.strip_prefix("scratch ").map(PathBuf::from));
    let scratch = scratch.expect("the child starts a server");
    let lock_file = std::fs::read_to_string(scratch.join("data/postmaster.pid"))?;
    let segment = lock_file
        .lines()
        .nth(6)
        .and_then(|line| line.split_whitespace().nth(1))
        .expect("a segment")
        .to_owned();
    assert!(!processes_inside(&scratch).is_empty());
    child.kill()?;
    child.wait()?;
    wait_for("the end of the server", SHORT, || {
        Ok(processes_inside(&scratch).is_empty() && !scratch.exists())
    })?;
    let segments = String::from_utf8(Command::new("ipcs").arg("-m").output()?.stdout)?;
    let left = segments
        .lines()
        .any(|line| line.split_whitespace().nth(1) == Some(&segment));
    assert!(!left, "System V segment {segment} is left: {segments}");
    Ok(())
}
