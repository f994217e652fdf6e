//! `walreceiver run --serve`: PostgreSQL standbys follow a mirror as they follow a server, and never notice its restarts.

use std::process::Stdio;

use anyhow::{Result, ensure};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, Hub, LONG, SHORT, StopMode, ensure_same_content, wait_for,
};

pub(crate) fn primary() -> Result<Cluster> {
    let primary = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .initdb_option("--wal-segsize=1")
        .start()?;
    primary.query("CREATE TABLE t (i int, padding text)")?;
    Ok(primary)
}

/// Some segments of WAL.
pub(crate) fn load(server: &Cluster) -> Result<()> {
    server.query(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 3000) i",
    )?;
    Ok(())
}

/// Lets a standby, which does not run, follow the server with this connection string and no other, and starts it.
pub(crate) fn start_following(standby: &mut Cluster, conninfo: &str) -> Result<()> {
    // `pg_basebackup -R` writes one that would come after ours.
    let path = standby.data_dir().join("postgresql.auto.conf");
    let text = std::fs::read_to_string(&path)?;
    let kept: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("primary_conninfo"))
        .collect();
    standby.write_file(&path, &(kept.join("\n") + "\n"))?;
    standby.configure(&[
        ("primary_conninfo", conninfo),
        ("wal_retrieve_retry_interval", "100ms"),
    ])?;
    Ok(standby.start()?)
}

/// A running standby of the primary that follows the hub.
pub(crate) fn standby_of(primary: &Cluster, hub: &Hub, name: &str) -> Result<Cluster> {
    let mut standby = primary.standby(&[])?;
    start_following(&mut standby, &hub.conninfo(name))?;
    Ok(standby)
}

pub(crate) fn wait_for_replay(standby: &Cluster, lsn: Lsn) -> Result<()> {
    wait_for(&format!("replay of {lsn}"), LONG, || {
        Ok(standby.current_lsn()? >= lsn)
    })
}

fn ddl(server: &Cluster, round: u32) -> Result<()> {
    server.query(&format!(
        "CREATE TABLE d{round} AS SELECT i, md5(i::text) m FROM generate_series(1, 2000) i;
         CREATE INDEX ON d{round} (m);
         ALTER TABLE d{round} ADD COLUMN c int DEFAULT {round};
         UPDATE d{round} SET c = i WHERE i % 3 = 0;
         CREATE VIEW v{round} AS SELECT * FROM d{round} WHERE c > 5;
         TRUNCATE t"
    ))?;
    server.query(&format!("VACUUM FULL d{round}"))?;
    Ok(())
}

#[test]
fn a_chain_of_standbys_survives_the_restart_of_each_and_is_promoted() -> Result<()> {
    let mut primary = primary()?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    let mut hub = Hub::start(&primary, &[])?;
    let mut standby = standby_of(&primary, &hub, "second")?;
    let mut last = standby.standby(&[("cluster_name", "third")])?;
    start_following(&mut last, &standby.conninfo())?;
    for round in 0..5 {
        let mut bench = primary.pgbench_command();
        bench.args(["-c", "4", "-j", "2", "-T", "3"]);
        let mut bench = bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        ddl(&primary, round)?;
        match round {
            0 => {
                hub.kill_9()?;
                hub.run()?;
            }
            1 => {
                standby.stop(StopMode::Fast)?;
                load(&primary)?;
                standby.start()?;
            }
            2 => {
                last.kill_9()?;
                last.start()?;
            }
            _ => {}
        }
        // It fails where the server was restarted under it; the servers must be the same anyhow.
        if round == 3 {
            primary.kill_9()?;
            primary.start()?;
        }
        bench.wait()?;
        if round == 4 {
            let finished = hub.terminate()?;
            ensure!(finished.code() == Some(0), "{finished}");
            hub.run()?;
            primary.stop(StopMode::Fast)?;
            primary.start()?;
        }
        ddl(&primary, 100 + round)?;
    }
    load(&primary)?;
    let end = primary.flush_lsn()?;
    primary.wait_for_flush("gp_walreceiver", end, LONG)?;
    wait_for_replay(&last, end)?;
    ensure!(hub.follower("second")?.is_some());
    // The last words of the primary pass the chain, too.
    primary.stop(StopMode::Fast)?;
    let control = |server: &Cluster| server.lsn("SELECT pg_last_wal_replay_lsn()");
    wait_for("the same end", LONG, || {
        let served = hub.status()?["served_lsn"]
            .as_str()
            .unwrap_or_default()
            .parse::<Lsn>()?;
        Ok(control(&standby)? == served && control(&last)? == served)
    })?;
    standby.promote()?;
    primary.start()?;
    ensure_same_content(&primary, &standby)?;
    wait_for_replay(&last, standby.flush_lsn()?)?;
    assert_eq!(last.row_counts()?, standby.row_counts()?);
    assert_eq!(last.dump_all()?, standby.dump_all()?);
    let finished = hub.terminate()?;
    ensure!(finished.code() == Some(0), "{finished}");
    Ok(())
}

#[test]
fn a_hub_serves_what_it_has_while_its_primary_is_gone() -> Result<()> {
    let mut primary = primary()?;
    let mut hub = Hub::start(&primary, &[])?;
    let mut standby = primary.standby(&[])?;
    load(&primary)?;
    primary.wait_for_flush("gp_walreceiver", primary.flush_lsn()?, LONG)?;
    let end = primary.flush_lsn()?;
    primary.kill_9()?;
    hub.kill_9()?;
    hub.run_alone()?;
    start_following(&mut standby, &hub.conninfo("late"))?;
    wait_for_replay(&standby, end)?;
    let follower = hub.follower("late")?;
    ensure!(follower.is_some_and(|follower| follower["state"] == "streaming"));
    primary.start()?;
    load(&primary)?;
    wait_for_replay(&standby, primary.flush_lsn()?)?;
    ensure!(hub.running().is_running()?);
    Ok(())
}

#[test]
fn followers_go_with_the_primary_to_a_new_timeline() -> Result<()> {
    let mut first = primary()?;
    let mut second = first.standby(&[("cluster_name", "second")])?;
    second.start()?;
    let mut hub = Hub::on_mirror(
        walstream_tests::Mirror::init_with(&first.conninfo(), &["--no-slot"])?,
        &["--primary", &second.conninfo()],
    )?;
    let standby = standby_of(&first, &hub, "awake")?;
    let mut asleep = first.standby(&[])?;
    load(&first)?;
    wait_for_replay(&standby, first.flush_lsn()?)?;
    first.stop(StopMode::Fast)?;
    second.promote()?;
    load(&second)?;
    wait_for_replay(&standby, second.flush_lsn()?)?;
    // One that slept through it begins on the old timeline.
    start_following(&mut asleep, &hub.conninfo("asleep"))?;
    wait_for_replay(&asleep, second.flush_lsn()?)?;
    hub.kill_9()?;
    load(&second)?;
    hub.run()?;
    let end = second.flush_lsn()?;
    for server in [&standby, &asleep] {
        wait_for_replay(server, end)?;
        let timeline = server.query("SELECT received_tli FROM pg_stat_wal_receiver")?;
        ensure!(timeline == "2", "timeline {timeline}");
    }
    // It goes on to the next from there.
    second.stop(StopMode::Fast)?;
    wait_for_replay(&standby, end)?;
    standby.promote()?;
    second.start()?;
    ensure_same_content(&second, &standby)
}

#[test]
fn what_a_hub_is_asked_it_answers_as_a_cascading_server() -> Result<()> {
    let primary = primary()?;
    let hub = Hub::start(&primary, &[])?;
    let conninfo = hub.conninfo("asks");
    let ask = |sql: &str| {
        let psql = hub
            .mirror()
            .workdir()
            .external(&primary.programs().program("psql"));
        psql.args(["-X", "-A", "-t", "-d"])
            .arg(format!("{conninfo} replication=1"))
            .args(["-c", sql])
            .run(SHORT)
    };
    let end = primary.flush_lsn()?;
    primary.wait_for_flush("gp_walreceiver", end, LONG)?;
    let identity = ask("IDENTIFY_SYSTEM")?;
    let expected = format!("{}|1|{end}|\n", primary.system_identifier()?);
    assert_eq!(identity.stdout, expected, "{identity}");
    for (setting, value) in [
        ("transaction_read_only", "on"),
        ("wal_segment_size", "1MB"),
        (
            "server_version_num",
            &*primary.query("SHOW server_version_num")?,
        ),
        ("wal_level", "replica"),
    ] {
        let shown = ask(&format!("SHOW {setting}"))?;
        assert_eq!(shown.stdout.trim(), value, "{shown}");
    }
    let refused = ask("BASE_BACKUP")?;
    ensure!(
        refused
            .stderr
            .contains("a base backup is not supported by this server")
            && refused
                .stderr
                .contains("Take the base backup from the primary"),
        "{refused}"
    );
    // A slot outlives the hub.
    let made = ask("CREATE_REPLICATION_SLOT kept PHYSICAL RESERVE_WAL")?;
    ensure!(made.code() == Some(0), "{made}");
    let mut hub = hub;
    hub.kill_9()?;
    hub.run()?;
    let status = hub.status()?;
    assert_eq!(status["slots"][0]["slot_name"], "kept", "{status}");
    let text = hub.mirror().command("status")?.succeed(SHORT)?;
    ensure!(
        text.stdout.contains("Followers of this mirror")
            && text.stdout.contains("kept, not active"),
        "{text}"
    );
    Ok(())
}
