//! `walsender status` and `--metrics`: what they say of standbys is what PostgreSQL says of its own, what they count is what
//! happened, and where nobody answers they say so.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, Finished, Hub, Receivewal, Running, SHORT, Signal, StopMode, Workdir,
    server_version, wait_for, wait_for_some,
};

use crate::hub::{standby_of, start_following};
use crate::recorded_sender::replication_command;
use crate::sender_auth::RECORDING;
use crate::sender_clients::RawClient;
use crate::serve_archive::archived;
use crate::sidecar::program;

/// The address at which a program that was started with `--metrics` serves them.
pub(crate) fn metrics_address(running: &mut Running) -> Result<SocketAddr> {
    running.wait_for_output("serving metrics", SHORT)?;
    let stderr = running.stderr();
    let (_, rest) = stderr
        .split_once("serving metrics address=")
        .context("no address")?;
    Ok(rest.split_whitespace().next().unwrap_or_default().parse()?)
}

pub(crate) fn scrape(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SHORT))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(answer)
}

/// The value of the only series with this name whose labels contain `label`.
pub(crate) fn value(metrics: &str, name: &str, label: &str) -> Result<f64> {
    let mut found = metrics.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
    });
    let line = found
        .next()
        .with_context(|| format!("no {name} {label} in\n{metrics}"))?;
    ensure!(found.next().is_none(), "several {name} {label}\n{metrics}");
    let (_, value) = line.rsplit_once(' ').context("no value")?;
    Ok(value.parse()?)
}

fn status(work: &Workdir, place: &[&str]) -> Result<Finished> {
    let program = work.program("walsender")?.arg("status").args(place);
    program.run(SHORT)
}

pub(crate) fn json(work: &Workdir, place: &[&str]) -> Result<Value> {
    let finished = status(work, &[place, &["--json"]].concat())?;
    ensure!(finished.code() == Some(0), "{finished}");
    finished.json()
}

fn lsn(value: &Value) -> Lsn {
    let text = value.as_str().unwrap_or_default();
    text.parse().unwrap_or_default()
}

/// The standbys of a status.
pub(crate) fn standbys(status: &Value) -> Vec<Value> {
    let standbys = status.get("standbys").and_then(Value::as_array);
    standbys.cloned().unwrap_or_default()
}

/// A text of a standby.
pub(crate) fn text<'a>(standby: &'a Value, column: &str) -> &'a str {
    let value = standby.get(column).and_then(Value::as_str);
    value.unwrap_or_default()
}

/// A standby of this name in a status, once it is there and streams.
fn streaming(work: &Workdir, name: &str) -> Result<Value> {
    wait_for_some("a standby that streams", SHORT, || {
        let status = json(work, &["--slots", "slots"])?;
        Ok(standbys(&status).into_iter().find(|standby| {
            text(standby, "application_name") == name && text(standby, "state") == "streaming"
        }))
    })
}

#[test]
fn a_sidecars_standby_is_shown_as_postgresql_shows_it() -> Result<()> {
    let primary = ClusterOptions::default().start()?;
    let options = ["--synchronous-standby-names", "ANY 1 (far, farther)"];
    let work = &Workdir::new()?;
    let program = program(work, primary.data_dir(), &primary.conninfo())?;
    let mut sidecar = program.args(options).start()?;
    sidecar.wait_for_output("listening", SHORT)?;
    let conninfo = format!("host={} port=5998 user=postgres", work.path().display());
    replication_command(
        work,
        &conninfo,
        "CREATE_REPLICATION_SLOT kept PHYSICAL RESERVE_WAL",
    )?;
    let mut standby = primary.standby(&[])?;
    standby.configure(&[
        ("primary_slot_name", "kept"),
        ("wal_receiver_status_interval", "1s"),
    ])?;
    start_following(&mut standby, &format!("{conninfo} application_name=far"))?;
    primary.query("CREATE TABLE t AS SELECT generate_series(1, 1000) i")?;
    let end = primary.flush_lsn()?;
    wait_for("replay that is reported", SHORT, || {
        Ok(lsn(&streaming(work, "far")?["replay_lsn"]) >= end)
    })?;
    let row = streaming(work, "far")?;
    for position in ["sent_lsn", "write_lsn", "flush_lsn"] {
        ensure!(lsn(&row[position]) >= end, "{position}: {row}");
    }
    assert_eq!(row["sync_state"], "quorum", "{row}");
    assert_eq!(row["sync_priority"], 1, "{row}");
    assert_eq!(row["usename"], "postgres", "{row}");
    // The standby's own view of the same connection.
    let receiver =
        "SELECT slot_name || ' ' || status || ' ' || received_tli FROM pg_stat_wal_receiver";
    assert_eq!(standby.query(receiver)?, "kept streaming 1");
    let all = json(work, &["--slots", "slots"])?;
    let source = &all["source"];
    assert_eq!(source["kind"], "primary");
    assert_eq!(
        source["system_identifier"].as_str(),
        Some(primary.system_identifier()?.to_string().as_str())
    );
    assert_eq!(source["timeline"], 1);
    ensure!(lsn(&source["flush_lsn"]) >= end, "{source}");
    let oldest = "SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'";
    let oldest = format!(
        "SELECT pg_walfile_name('{}') = ({oldest})",
        lsn(&source["oldest_lsn"]) + 1
    );
    assert_eq!(primary.query(&oldest)?, "t", "{source}");
    let sync = &all["sync"];
    assert_eq!(sync["synchronous_standby_names"], "ANY 1 (far, farther)");
    ensure!(lsn(&sync["released_replay_lsn"]) >= end, "{sync}");
    let slot = &all["slots"][0];
    assert_eq!(slot["slot_name"], "kept");
    assert_eq!(slot["active_pid"], row["pid"]);
    assert_eq!(slot["wal_status"], "reserved");
    assert_eq!(slot["restart_lsn"], row["flush_lsn"]);
    // The table has the columns that PostgreSQL's view has, in its order; role numbers are the server's own.
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'pg_stat_replication'::regclass AND attnum > 0 AND attname <> 'usesysid'";
    let columns = primary.query(columns)?;
    let text = status(work, &["--slots", "slots"])?;
    ensure!(text.code() == Some(0), "{text}");
    let heading = text
        .stdout
        .lines()
        .find(|line| line.trim_start().starts_with("pid "))
        .with_context(|| text.to_string())?;
    let shown: Vec<_> = heading.split('|').map(str::trim).collect();
    assert_eq!(shown.join(" "), columns);
    ensure!(text.stdout.contains(" far "), "{text}");
    let blocks = status(work, &["--slots", "slots", "-x"])?;
    ensure!(blocks.stdout.contains("application_name | far"), "{blocks}");
    // One that is gone is gone; its slot stays, with what it keeps.
    standby.stop(StopMode::Fast)?;
    wait_for("a standby that is gone", SHORT, || {
        let all = json(work, &["--slots", "slots"])?;
        Ok(all["standbys"] == Value::Array(Vec::new()) && all["slots"][0]["active"] == false)
    })?;
    primary.query("INSERT INTO t SELECT generate_series(1, 1000)")?;
    let end = primary.flush_lsn()?;
    wait_for("WAL that is kept", SHORT, || {
        let all = json(work, &["--slots", "slots"])?;
        let slot = &all["slots"][0];
        let kept = end.saturating_sub(lsn(&slot["restart_lsn"]));
        Ok(kept > 0 && slot["retained_bytes"].as_u64() >= Some(kept))
    })
}

#[test]
fn metrics_of_an_archive_count_what_happened() -> Result<()> {
    let (primary, filled, end) = archived("none")?;
    let limits = ["--max-connections", "2", "--authentication-timeout", "1"];
    let mut served = filled.serve(&[&limits[..], &["--metrics", "127.0.0.1:0"]].concat())?;
    let address = metrics_address(served.running())?;
    let port = served.port()?;
    let metrics = scrape(address)?;
    assert_eq!(
        value(&metrics, "walstream_sender_flush_lsn", "")?,
        end.0 as f64
    );
    assert_eq!(
        value(&metrics, "walstream_sender_wal_bytes_sent_total", "")?,
        0.0
    );
    assert_eq!(
        value(&metrics, "walstream_sender_standbys", "streaming")?,
        0.0
    );

    let start = Lsn(end.0 / crate::serve_archive::SEGMENT * crate::serve_archive::SEGMENT);
    let mut client = RawClient::connect(port, "it\"s \\me")?;
    client.query("CREATE_REPLICATION_SLOT kept PHYSICAL RESERVE_WAL")?;
    client.until(b'Z')?;
    client.query(&format!("START_REPLICATION SLOT kept PHYSICAL {start}"))?;
    client.until(b'W')?;
    client.wal(start, end)?;
    client.report(end, start + 8)?;
    let idle = RawClient::connect(port, "idle")?;
    let refused = RawClient::connect(port, "third").map(|_| ()).unwrap_err();
    ensure!(
        refused.to_string().contains("too many clients"),
        "{refused}"
    );
    // One that says nothing.
    let mut silent = TcpStream::connect(("127.0.0.1", port))?;
    silent.set_read_timeout(Some(SHORT))?;
    silent.read_to_end(&mut Vec::new())?;

    let mine = "application_name=\"it\\\"s \\\\me\"";
    wait_for("metrics of all that", SHORT, || {
        let metrics = scrape(address)?;
        let flushed =
            value(&metrics, "walstream_sender_standby_flush_lsn", mine).unwrap_or_default();
        Ok(flushed == (start + 8).0 as f64)
    })?;
    let metrics = scrape(address)?;
    let behind = end.saturating_sub(start + 8);
    for (name, label, expected) in [
        ("standby_sent_lsn", mine, end.0),
        ("standby_write_lsn", mine, end.0),
        ("standby_flush_lag_bytes", mine, behind),
        ("standby_sent_lag_bytes", mine, 0),
        ("standbys", "state=\"streaming\"", 1),
        ("standbys", "state=\"startup\"", 1),
        ("slot_retained_bytes", "slot=\"kept\"", behind),
        ("slot_wal_status", "wal_status=\"reserved\"", 1),
        ("slot_wal_status", "wal_status=\"lost\"", 0),
        ("slot_active", "slot=\"kept\"", 1),
        ("wal_bytes_sent_total", "", end.saturating_sub(start)),
        ("sessions", "", 2),
        ("max_connections", "", 2),
        ("connections_total", "", 4),
        (
            "connections_refused_total",
            "reason=\"too_many_connections\"",
            1,
        ),
        ("connections_refused_total", "reason=\"timeout\"", 1),
        ("base_backups_running", "", 0),
    ] {
        let found = value(&metrics, &format!("walstream_sender_{name}"), label)?;
        assert_eq!(found, expected as f64, "{name} {label}\n{metrics}");
    }
    drop((client, idle));
    wait_for("clients that are gone", SHORT, || {
        let metrics = scrape(address)?;
        Ok(!metrics.contains("application_name=")
            && value(&metrics, "walstream_sender_sessions", "")? == 0.0)
    })?;
    // PostgreSQL's own receiver, after the places are free again.
    let side = Receivewal::theirs(primary.programs())?;
    let last = Lsn(end.0 - 1).to_string();
    let arguments = ["-D", "archive", "-n", "-S", "kept", "-E", &last];
    side.command(arguments)
        .args(["-d", served.conninfo()])
        .succeed(SHORT)?;
    let sent = value(
        &scrape(address)?,
        "walstream_sender_wal_bytes_sent_total",
        "",
    )?;
    ensure!(sent > end.saturating_sub(start) as f64, "{sent}");
    Ok(())
}

#[test]
fn base_backups_and_clients_that_may_not_in_are_counted() -> Result<()> {
    let work = Workdir::new()?;
    fs::copy(RECORDING, work.join("recording"))?;
    fs::write(work.join("hba"), "host replication postgres all trust\n")?;
    for name in ["recording", "hba"] {
        work.own(&work.join(name))?;
    }
    let program = work
        .program("walsender")?
        .args(["serve", "--recording", "recording", "--hba", "hba"])
        .args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let mut running = program.start()?;
    let address = metrics_address(&mut running)?;
    running.wait_for_output("connect with: ", SHORT)?;
    let stdout = running.stdout();
    let (_, port) = stdout.split_once("port=").context("no port")?;
    let port = port.split_whitespace().next().unwrap_or_default().parse()?;

    let psql = work.external(&server_version(15)?.client("psql"));
    let stranger = format!("host=127.0.0.1 port={port} user=stranger replication=1");
    let refused = psql
        .args(["-X", "-c", "IDENTIFY_SYSTEM", "-d", &stranger])
        .run(SHORT)?;
    ensure!(refused.stderr.contains("no pg_hba.conf entry"), "{refused}");
    // Slow enough to be seen, whatever this machine does meanwhile.
    let mut client = RawClient::connect(port, "slow")?;
    client.query("BASE_BACKUP (MAX_RATE 32)")?;
    client.until(b'd')?;
    let counted = |name: &str, label: &str| {
        value(
            &scrape(address)?,
            &format!("walstream_sender_{name}"),
            label,
        )
    };
    wait_for("bytes of a base backup", SHORT, || {
        Ok(counted("backup_bytes_sent_total", "")? > 0.0)
    })?;
    assert_eq!(counted("base_backups_running", "")?, 1.0);
    assert_eq!(counted("standbys", "state=\"backup\"")?, 1.0);
    let by_authentication = "reason=\"authentication\"";
    assert_eq!(
        counted("connections_refused_total", by_authentication)?,
        1.0
    );
    drop(client);
    wait_for("a base backup that ended", SHORT, || {
        Ok(counted("base_backups_running", "")? == 0.0)
    })?;
    assert_eq!(counted("base_backups_total", "")?, 1.0);
    Ok(())
}

#[test]
fn whoever_asks_where_nobody_answers_hears_why() -> Result<()> {
    let (_primary, filled, _) = archived("none")?;
    let work = filled.archive.workdir();
    let slots = ["--slots", "slots"];
    let missing = status(work, &["--slots", "nowhere"])?;
    missing.expect_failure(8, &["nowhere/walsender.sock", "No such file"])?;
    status(work, &[])?.expect_failure(2, &["--slots", "--status-socket"])?;
    let served = filled.serve(&slots)?;
    assert_eq!(json(work, &slots)?["source"]["kind"], "archive");
    let mut running = served.into_running();
    // Stopped: it is there, and says nothing.
    running.signal(Signal::STOP)?;
    let silent = status(work, &slots)?;
    silent.expect_failure(3, &["does not answer", "stopped"])?;
    running.signal(Signal::CONT)?;
    assert_eq!(
        json(work, &slots)?["pid"],
        running.pid().as_raw_nonzero().get()
    );
    // Killed: what it left is nobody.
    running.kill_9()?;
    ensure!(work.join("slots/walsender.sock").exists());
    status(work, &slots)?.expect_failure(3, &["no walsender answers", "nobody uses the slots"])?;
    // One with another socket has the slots.
    let served = filled.serve(&["--slots", "slots", "--status-socket", "asked.sock"])?;
    let pid = served.conninfo().len();
    ensure!(pid > 0);
    status(work, &slots)?
        .expect_failure(3, &["no walsender answers", "another --status-socket"])?;
    let asked = ["--status-socket", "asked.sock"];
    assert_eq!(json(work, &asked)?["source"]["kind"], "archive");
    // It is not taken from it.
    let second = filled.serve(&asked).map(|_| ()).unwrap_err();
    let text = format!("{second:#}");
    ensure!(
        text.contains("asked.sock") && text.contains("in use"),
        "{text}"
    );
    let finished = served.into_running().terminate(SHORT)?;
    ensure!(finished.code() == Some(0), "{finished}");
    ensure!(!work.join("asked.sock").exists(), "removed in the end");
    status(work, &asked)?.expect_failure(3, &["none runs with this --status-socket"])?;
    Ok(())
}

#[test]
fn a_hubs_metrics_have_its_followers_and_its_own_stream() -> Result<()> {
    let primary: Cluster = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .start()?;
    let mut hub = Hub::start(&primary, &["--metrics", "127.0.0.1:0"])?;
    let address = metrics_address(hub.running())?;
    let standby = standby_of(&primary, &hub, "near")?;
    primary.query("CREATE TABLE t (i int)")?;
    let end = primary.flush_lsn()?;
    let near = "application_name=\"near\"";
    wait_for("replay in the hub's metrics", SHORT, || {
        let metrics = scrape(address)?;
        let name = "walstream_sender_standby_replay_lsn";
        Ok(value(&metrics, name, near).unwrap_or_default() >= end.0 as f64)
    })?;
    let metrics = scrape(address)?;
    ensure!(value(&metrics, "walstream_receiver_flush_lsn", "")? >= end.0 as f64);
    assert_eq!(value(&metrics, "walstream_receiver_streaming", "")?, 1.0);
    assert_eq!(
        value(&metrics, "walstream_sender_standbys", "streaming")?,
        1.0
    );
    let status = hub.status()?;
    assert_eq!(status["followers"][0]["application_name"], "near");
    assert_eq!(status["connections"]["sessions"], 1);
    drop(standby);
    wait_for("a follower that is gone", SHORT, || {
        Ok(!scrape(address)?.contains(near))
    })
}
