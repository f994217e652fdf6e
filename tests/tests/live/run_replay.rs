//! `walreceiver run` replays: a mirror that applies what it receives, and says so; killed at any instant, over a promotion, with damaged
//! pages, and without the WAL that it needs no more. What it has replayed PostgreSQL recovers from.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, Hub, LONG, Mirror, Random, Running, SHORT, StopMode,
    ensure_same_content, take_over, wait_for,
};

use crate::failing_disk::Tmpfs;
use crate::sender_observed::{metrics_address, scrape, value};

const NAME: &str = "gp_walreceiver";
const REPLAY: &[&str] = &["--restartpoint-interval", "0", "--max-wait", "0.2"];

fn rounds() -> u32 {
    if std::env::var_os("WALSTREAM_FULL").is_some() {
        100
    } else {
        8
    }
}

fn options() -> ClusterOptions {
    ClusterOptions::default()
        .set("wal_keep_size", "4GB")
        .initdb_option("--wal-segsize=1")
        .initdb_option("--data-checksums")
}

/// Sessions that write, until they are killed or their server goes.
fn bench(server: &Cluster) -> Result<Child> {
    let mut bench = server.pgbench_command();
    bench.args(["-n", "-c", "3", "-T", "100000"]);
    Ok(bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

/// Catalogs are changed, files made, filled, swapped and removed; checkpoints let replay make restartpoints.
fn ddl(server: &Cluster, round: u32) -> Result<()> {
    server.query(&format!(
        "CREATE TABLE d{round} AS SELECT i, md5(i::text) m FROM generate_series(1, 2000) i;
         CREATE INDEX ON d{round} (m);
         ALTER TABLE d{round} ADD COLUMN c int DEFAULT {round};
         UPDATE d{round} SET c = i WHERE i % 3 = 0;
         CREATE VIEW v{round} AS SELECT * FROM d{round} WHERE c > 5;
         CREATE TABLE IF NOT EXISTS gone (a serial, b text);
         DROP TABLE gone"
    ))?;
    server.query(&format!("VACUUM FULL d{round}"))?;
    server.query("VACUUM pg_class")?;
    server.query("CHECKPOINT")?;
    Ok(())
}

/// The mirror has reported this as applied.
fn wait_for_apply(server: &Cluster, lsn: Lsn) -> Result<()> {
    wait_for(&format!("replay of {lsn}"), LONG, || {
        let replayed = server.standby_column(NAME, "replay_lsn")?;
        let replayed = replayed.map(|text| text.parse::<Lsn>()).transpose()?;
        Ok(replayed.is_some_and(|replayed| replayed >= lsn))
    })
}

/// What `walreceiver status` says of replay.
fn replay_status(mirror: &Mirror) -> Result<Value> {
    let status = mirror.command("status")?.arg("--json").succeed(LONG)?;
    let json = status.json()?;
    json.get("replay").cloned().context(status.to_string())
}

fn ended_in_order(running: Running) -> Result<()> {
    let finished = running.terminate(LONG)?;
    ensure!(finished.code() == Some(0), "{finished}");
    Ok(())
}

#[test]
fn commits_wait_until_a_mirror_that_is_killed_again_and_again_has_applied_them() -> Result<()> {
    let mut random = Random::seeded();
    let mut primary = options()
        .set("synchronous_standby_names", NAME)
        .set("synchronous_commit", "remote_apply")
        .start()?;
    let mirror = Mirror::init(&primary)?;
    let mut running = mirror.run(REPLAY)?;
    primary.pgbench(&["-i", "-s", "2", "-q"])?;
    let mut load = bench(&primary)?;
    for round in 0..rounds() {
        ddl(&primary, round)?;
        sleep(random.duration(Duration::from_millis(400)));
        let killed = running.kill_9()?;
        ensure!(!killed.stderr.contains("ERROR"), "{killed}");
        running = mirror.run(REPLAY)?;
    }
    primary.query("CREATE TABLE last AS SELECT 1")?;
    load.kill()?;
    load.wait()?;
    wait_for_apply(&primary, primary.flush_lsn()?)?;

    primary.query("CHECKPOINT")?;
    wait_for("a restartpoint", LONG, || {
        let status = replay_status(&mirror)?;
        Ok(status["restartpoints"].as_u64() > Some(0))
    })?;
    let end = primary.flush_lsn()?;
    wait_for_apply(&primary, end)?;
    let status = replay_status(&mirror)?;
    assert_eq!(status["state"], "replaying", "{status}");
    assert_eq!(status["consistent"], true, "{status}");
    assert_eq!(status["lag_bytes"], 0, "{status}");
    assert_eq!(status["lag_seconds"], 0.0, "{status}");
    assert_eq!(status["applied_lsn"], end.to_string(), "{status}");
    let text = mirror.command("status")?.succeed(LONG)?.stdout;
    ensure!(text.contains("Replayed here"), "{text}");

    // The next start has nothing to do over again but what came since the last checkpoint.
    primary.query("CHECKPOINT")?;
    ended_in_order(running)?;
    let mut again = mirror.run(REPLAY)?;
    wait_for_apply(&primary, primary.flush_lsn()?)?;
    let records = replay_status(&mirror)?["records"].as_u64();
    ensure!(records < Some(100), "{records:?} records replayed again");
    // A mirror that is not replayed any more goes on as it was.
    again.signal(walstream_tests::Signal::TERM)?;
    again.wait(LONG)?;
    let plain = mirror.run(&["--no-replay"])?;
    primary.query("SET synchronous_commit = on; CREATE TABLE received AS SELECT 1")?;
    assert!(replay_status(&mirror)?.is_null());
    plain.kill_9()?;
    primary.kill_9()?;
    let new = take_over(&mirror, &primary)?;
    primary.start()?;
    ensure_same_content(&primary, &new)
}

#[test]
fn replay_goes_over_a_promotion() -> Result<()> {
    let mut random = Random::seeded();
    for is_awake in [true, false] {
        let mut primary = options().start()?;
        primary.pgbench(&["-i", "-s", "1", "-q"])?;
        let mirror = Mirror::init_with(&primary.conninfo(), &["--no-slot"])?;
        let mut standby = primary.standby(&[("cluster_name", "second")])?;
        standby.start()?;
        let conninfo = standby.conninfo();
        let arguments = [REPLAY, &["--primary", &conninfo]].concat();
        let mut running = mirror.run(&arguments)?;
        let mut load = bench(&primary)?;
        ddl(&primary, 1)?;
        sleep(random.duration(Duration::from_millis(300)));
        primary.stop(StopMode::Fast)?;
        load.wait()?;
        if is_awake {
            standby.promote()?;
            running.wait_for_output("following the server to a new timeline", SHORT)?;
        } else {
            running.kill_9()?;
            standby.promote()?;
            running = mirror.run(&arguments)?;
        }
        standby.query(&format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{NAME}'"
        ))?;
        standby.query("SELECT pg_reload_conf()")?;
        let apply = "SET synchronous_commit = remote_apply; CREATE TABLE after_promotion ()";
        standby.query(apply)?;
        let mut load = bench(&standby)?;
        for round in 2..4 {
            ddl(&standby, round)?;
            sleep(random.duration(Duration::from_millis(200)));
            let killed = running.kill_9()?;
            ensure!(!killed.stderr.contains("ERROR"), "{killed}");
            running = mirror.run(&arguments)?;
        }
        load.kill()?;
        load.wait()?;
        wait_for_apply(&standby, standby.flush_lsn()?)?;
        let status = replay_status(&mirror)?;
        assert_eq!(status["timeline"], 2, "{status}");
        ended_in_order(running)?;
        standby.kill_9()?;
        let new = take_over(&mirror, &standby)?;
        standby.start()?;
        ensure_same_content(&standby, &new)?;
    }
    Ok(())
}

#[test]
fn a_damaged_page_stops_replay_and_nothing_else() -> Result<()> {
    // Without images, a page is read before it is changed.
    let mut primary = options().set("full_page_writes", "off").start()?;
    primary.query("CREATE TABLE t AS SELECT generate_series(1, 1000) i")?;
    let file = primary.query("SELECT pg_relation_filepath('t')")?;
    let mirror = Mirror::init(&primary)?;
    let running = mirror.run(REPLAY)?;
    primary.query("DELETE FROM t WHERE i < 10; CHECKPOINT")?;
    wait_for_apply(&primary, primary.flush_lsn()?)?;
    ended_in_order(running)?;

    let path = mirror.directory().join(&file);
    let relation = OpenOptions::new().read(true).write(true).open(&path)?;
    let mut good = [0; 8192];
    relation.read_exact_at(&mut good, 0)?;
    relation.write_all_at(&[0x5A; 100], 6000)?;
    let arguments = [REPLAY, &["--metrics", "127.0.0.1:0"]].concat();
    let mut running = mirror.run(&arguments)?;
    let address = metrics_address(&mut running)?;
    primary.query("DELETE FROM t WHERE i = 20")?;
    running.wait_for_output("replay has stopped", LONG)?;
    primary.query("CREATE TABLE behind AS SELECT generate_series(1, 50000) i")?;
    let end = primary.flush_lsn()?;
    primary.wait_for_flush(NAME, end, LONG)?;

    let status = mirror.command("status")?.arg("--json").succeed(LONG)?;
    let json = status.json()?;
    assert_eq!(json["synchronization"], "synchronized", "{status}");
    ensure!(
        json["reason"]
            .as_str()
            .unwrap_or_default()
            .contains("REPLAY HAS STOPPED"),
        "{status}"
    );
    let replay = &json["replay"];
    assert_eq!(replay["state"], "failed", "{status}");
    ensure!(replay["lag_bytes"].as_u64() > Some(1 << 20), "{status}");
    ensure!(replay["lag_seconds"].as_f64() > Some(0.0), "{status}");
    let error = replay["error"].as_str().unwrap_or_default();
    for text in ["block 0 of relation", &file, "is damaged", "at record"] {
        ensure!(error.contains(text), "no {text}: {status}");
    }
    let text = scrape(address)?;
    let state = |state: &str| value(&text, "walstream_receiver_replay_state", state);
    assert_eq!(state("failed")?, 1.0);
    assert_eq!(state("replaying")?, 0.0);
    ensure!(value(&text, "walstream_receiver_replay_lag_bytes", "")? > 1e6);
    ensure!(value(&text, "walstream_receiver_replay_lag_seconds", "")? > 0.0);

    let ended = running.terminate(LONG)?;
    ended.expect_failure(7, &["replay had stopped", "block 0 of relation", &file])?;

    // The page is put back, and nothing else need be done.
    relation.write_all_at(&good, 0)?;
    let running = mirror.run(REPLAY)?;
    wait_for_apply(&primary, end)?;
    ended_in_order(running)?;
    primary.kill_9()?;
    let new = take_over(&mirror, &primary)?;
    primary.start()?;
    ensure_same_content(&primary, &new)
}

#[test]
fn a_full_disk_stops_replay_and_nothing_else() -> Result<()> {
    let mut primary = options().start()?;
    let mirror = Mirror::init(&primary)?;
    // Relations are in a file system of their own, so that WAL has room when they have none. Only root may mount it.
    let base = mirror.directory().join("base");
    let Some(tmpfs) = Tmpfs::over(&base, "128m")? else {
        return Ok(());
    };
    let mut running = mirror.run(REPLAY)?;
    ddl(&primary, 0)?;
    wait_for_apply(&primary, primary.flush_lsn()?)?;
    let ballast = tmpfs.fill(300_000)?;
    primary
        .query("CREATE TABLE large AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i")?;
    primary.query("CHECKPOINT")?;
    running.wait_for_output("replay has stopped", LONG)?;

    ddl(&primary, 1)?;
    let end = primary.flush_lsn()?;
    primary.wait_for_flush(NAME, end, LONG)?;
    let replay = replay_status(&mirror)?;
    assert_eq!(replay["state"], "failed", "{replay}");
    let error = replay["error"].as_str().unwrap_or_default();
    for text in [
        "/base/",
        "No space left",
        "at 0/",
        "free space there",
        "run it again",
    ] {
        ensure!(error.contains(text), "no {text}: {replay}");
    }
    let ended = running.terminate(LONG)?;
    ended.expect_failure(8, &["replay had stopped", "No space left"])?;

    std::fs::remove_file(&ballast)?;
    let running = mirror.run(REPLAY)?;
    wait_for_apply(&primary, end)?;
    ended_in_order(running)?;
    primary.kill_9()?;
    let new = take_over(&mirror, &primary)?;
    primary.start()?;
    ensure_same_content(&primary, &new)
}

/// Names of the segments in the mirror's `pg_wal`.
fn segments(mirror: &Mirror) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(mirror.directory().join("pg_wal"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.len() == 24 {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Asks the hub as a follower may.
fn replication_command(hub: &Hub, primary: &Cluster, command: &str) -> Result<()> {
    let workdir = hub.mirror().workdir();
    let psql = workdir.external(&primary.programs().program("psql"));
    let conninfo = format!("{} replication=true", hub.conninfo("psql"));
    psql.args(["-X", "-d", &conninfo, "-c", command])
        .succeed(LONG)?;
    Ok(())
}

#[test]
fn wal_before_the_last_restartpoint_goes_when_asked_unless_a_slot_needs_it() -> Result<()> {
    let mut primary = options().start()?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    let keep_none = [REPLAY, &["--keep-wal", "0"]].concat();
    let mut hub = Hub::start(&primary, &keep_none)?;
    // A base backup ends where a segment does.
    ddl(&primary, 0)?;
    wait_for_apply(&primary, primary.flush_lsn()?)?;
    replication_command(
        &hub,
        &primary,
        "CREATE_REPLICATION_SLOT follower PHYSICAL RESERVE_WAL",
    )?;
    let first = segments(hub.mirror())?.pop().context("no WAL")?;
    let work = |round: u32| -> Result<()> {
        ddl(&primary, round)?;
        primary.query(&format!(
            "CREATE TABLE w{round} AS SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 6000) i"
        ))?;
        ddl(&primary, round + 1)?;
        wait_for_apply(&primary, primary.flush_lsn()?)
    };
    work(1)?;
    wait_for("a restartpoint", LONG, || {
        let status = replay_status(hub.mirror())?;
        Ok(status["restartpoints"].as_u64() > Some(1))
    })?;
    let kept = segments(hub.mirror())?;
    ensure!(kept.first() <= Some(&first), "{first} of {kept:?}");
    ensure!(kept.len() > 3, "{kept:?}");

    // Also while it is not served.
    hub.kill_9()?;
    let running = hub.mirror().run(&keep_none)?;
    work(10)?;
    let kept = segments(hub.mirror())?;
    ensure!(kept.first() <= Some(&first), "{first} of {kept:?}");
    ended_in_order(running)?;

    hub.run()?;
    replication_command(&hub, &primary, "DROP_REPLICATION_SLOT follower")?;
    work(20)?;
    wait_for("removed WAL", LONG, || {
        Ok(segments(hub.mirror())?.first() > Some(&first))
    })?;
    hub.kill_9()?;
    let status = hub
        .mirror()
        .command("status")?
        .arg("--json")
        .succeed(LONG)?;
    assert_eq!(status.json()?["local_wal"]["whole"], true, "{status}");
    let running = hub.mirror().run(&[])?;
    ddl(&primary, 30)?;
    primary.wait_for_flush(NAME, primary.flush_lsn()?, LONG)?;
    ended_in_order(running)?;
    primary.kill_9()?;
    let new = take_over(hub.mirror(), &primary)?;
    primary.start()?;
    ensure_same_content(&primary, &new)
}
