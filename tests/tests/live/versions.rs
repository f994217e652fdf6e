//! The tests' own ground: a server of every supported version starts, works, is killed and recovers, and standbys work.

use std::fs;

use anyhow::{Context, Result, ensure};
use walstream_tests::{ClusterOptions, MAJORS, SHORT, server_version, wait_for_some};

#[test]
fn a_server_of_every_version_starts_and_recovers() -> Result<()> {
    for major in MAJORS {
        let programs = server_version(major)?;
        let mut cluster = ClusterOptions::default().programs(&programs).start()?;
        let version = cluster.query("SHOW server_version_num")?;
        assert_eq!(version.parse::<u32>()? / 10_000, major);
        cluster.query("CREATE TABLE t AS SELECT generate_series(1, 10) AS i")?;
        cluster.kill_9()?;
        cluster.start()?;
        assert_eq!(cluster.query("SELECT count(*) FROM t")?, "10");
    }
    Ok(())
}

/// Standbys of fetched servers loaded the system's `libpq`, whatever its version, and those of 18 failed with one of 15.
#[test]
fn a_standby_uses_the_libpq_of_its_own_version() -> Result<()> {
    for major in [14, 18] {
        let programs = server_version(major)?;
        let own = programs
            .libraries()
            .context("a fetched server has its own libpq")?;
        let primary = ClusterOptions::default().programs(&programs).start()?;
        let mut standby = primary.standby(&[])?;
        standby.start()?;
        let receiver = wait_for_some("a receiver", SHORT, || {
            let pid = standby.query("SELECT pid FROM pg_stat_wal_receiver")?;
            Ok((!pid.is_empty()).then_some(pid))
        })?;
        let maps = fs::read_to_string(format!("/proc/{receiver}/maps"))?;
        let libpq: Vec<&str> = maps
            .lines()
            .filter(|line| line.contains("/libpq.so"))
            .collect();
        let loaded = |line: &&str| line.contains(&*own.to_string_lossy());
        ensure!(!libpq.is_empty(), "{major}: no libpq in {maps}");
        ensure!(libpq.iter().all(loaded), "{major}: {libpq:#?}");
    }
    Ok(())
}
