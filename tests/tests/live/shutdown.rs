//! Ends and pauses in order: of the receiver, of its primary, of the traffic between them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Mirror, Running, SHORT, StopMode, ensure_same_wal, wait_for,
    wait_for_some,
};

const NAME: &str = "gp_walreceiver";

fn primary() -> Result<Cluster> {
    ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .start()
}

fn streaming(primary: &Cluster) -> Result<()> {
    wait_for("the receiver's stream", LONG, || {
        Ok(primary.standby_column(NAME, "state")?.as_deref() == Some("streaming"))
    })
}

fn column(primary: &Cluster, sql: &str) -> Result<String> {
    primary
        .standby_column(NAME, sql)?
        .with_context(|| format!("no receiver, or no {sql}"))
}

#[test]
fn sigterm_ends_it_with_everything_flushed_and_reported() -> Result<()> {
    let primary = primary()?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    let mirror = Mirror::init(&primary)?;
    let receiver = mirror.run(&["--log-format", "json"])?;
    streaming(&primary)?;
    let mut load = primary
        .pgbench_command()
        .args(["-n", "-c", "2", "-T", "1000"])
        .spawn()?;
    let before = primary.current_lsn()?;
    primary.wait_for_flush(NAME, Lsn(before.0 + 300_000), LONG)?;
    let stopped = receiver.terminate(Duration::from_secs(2));
    load.kill()?;
    load.wait()?;
    let stopped = stopped?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");

    let mut last = serde_json::Value::Null;
    for line in stopped.stderr.lines() {
        last = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        for key in ["timestamp", "level", "message"] {
            ensure!(last.get(key).is_some(), "no {key} in {line}");
        }
    }
    assert_eq!(last["message"], "stopped; everything received is flushed");
    let end: Lsn = last["lsn"].as_str().context("no LSN")?.parse()?;
    // A slot keeps WAL from where the receiver has last reported.
    let slot = format!("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '{NAME}'");
    let reported = primary.lsn(&slot)?;
    ensure!(
        reported >= end,
        "flushed up to {end}, and reported only {reported}"
    );
    let same = ensure_same_wal(mirror.directory(), &[primary.data_dir()])?;
    assert_eq!(same.end.lsn, end);
    Ok(())
}

#[test]
fn the_primary_shuts_down_and_comes_back() -> Result<()> {
    let mut primary = primary()?;
    let mirror = Mirror::init(&primary)?;
    let receiver = mirror.run(&["--max-wait", "0.2"])?;
    primary.query("CREATE TABLE t (i int)")?;
    for mode in [StopMode::Fast, StopMode::Immediate, StopMode::Fast] {
        streaming(&primary)?;
        primary.query("INSERT INTO t SELECT generate_series(1, 10000)")?;
        // Fails after a minute, when the primary waits for a receiver that does not confirm the last record.
        primary.stop(mode)?;
        if mode == StopMode::Fast {
            let same = ensure_same_wal(mirror.directory(), &[primary.data_dir()])?;
            ensure!(
                ends_with_shutdown_checkpoint(&primary, same.end.lsn)?,
                "the mirror lacks the shutdown checkpoint: {same:?}"
            );
        }
        primary.start()?;
    }
    streaming(&primary)?;
    primary.query("INSERT INTO t VALUES (1)")?;
    primary.wait_for_flush(NAME, primary.flush_lsn()?, LONG)?;
    let stopped = receiver.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    ensure!(
        stopped.stderr.matches("connection ended").count() >= 3,
        "{stopped}"
    );
    ensure_same_wal(mirror.directory(), &[primary.data_dir()])?;
    Ok(())
}

/// Whether the last checkpoint, which a server that was shut down writes as its last record, lies before `end`.
fn ends_with_shutdown_checkpoint(primary: &Cluster, end: Lsn) -> Result<bool> {
    let data = primary.data_dir().to_string_lossy().into_owned();
    let control = primary.run("pg_controldata", &["-D", &data])?;
    let checkpoint = control
        .lines()
        .find_map(|line| line.strip_prefix("Latest checkpoint location:"))
        .context("no checkpoint in pg_control")?;
    Ok(checkpoint.trim().parse::<Lsn>()? < end)
}

#[test]
fn an_idle_primary_is_no_stall() -> Result<()> {
    let primary = primary()?;
    let mirror = Mirror::init(&primary)?;
    let receiver = mirror.run(&["--receiver-timeout", "1"])?;
    streaming(&primary)?;
    let pid = column(&primary, "pid")?;
    let first = column(&primary, "extract(epoch FROM reply_time)")?;
    // Four timeouts of silence: PostgreSQL itself would say something after 30 s.
    let long_after = format!("extract(epoch FROM reply_time) > {first} + 4");
    wait_for("replies over four timeouts", LONG, || {
        Ok(column(&primary, &long_after)? == "t")
    })?;
    assert_eq!(column(&primary, "pid")?, pid, "reconnected");
    let stopped = receiver.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    ensure!(!stopped.stderr.contains("connection ended"), "{stopped}");
    Ok(())
}

#[test]
fn reports_once_in_each_status_interval() -> Result<()> {
    let primary = primary()?;
    let mirror = Mirror::init(&primary)?;
    let mut receiver = mirror.run(&["--status-interval", "0.5", "--receiver-timeout", "0"])?;
    streaming(&primary)?;
    primary.wait_for_flush(NAME, primary.flush_lsn()?, LONG)?;
    let mut times = Vec::new();
    wait_for("eight reports", LONG, || {
        let time: f64 = column(&primary, "extract(epoch FROM reply_time)")?.parse()?;
        if times.last() != Some(&time) {
            times.push(time);
        }
        Ok(times.len() == 9)
    })?;
    // The first may be the answer to WAL.
    let gaps: Vec<f64> = times
        .windows(2)
        .skip(1)
        .map(|pair| pair[1] - pair[0])
        .collect();
    ensure!(
        gaps.iter().all(|gap| (0.4..5.0).contains(gap)),
        "not one report in half a second: {gaps:?}"
    );
    ensure!(
        gaps.iter().filter(|gap| **gap < 1.0).count() > gaps.len() / 2,
        "reports come late: {gaps:?}"
    );
    ensure!(receiver.is_running()?, "it ended");
    Ok(())
}

#[test]
fn a_mirror_has_one_receiver() -> Result<()> {
    let primary = primary()?;
    let mirror = Mirror::init(&primary)?;
    let mut first = mirror.run(&[])?;
    let second = mirror.command("run")?.run(SHORT)?;
    let pid = first.pid().as_raw_nonzero().to_string();
    second.expect_failure(9, &[&pid])?;
    primary.query("CREATE TABLE t (i int)")?;
    primary.wait_for_flush(NAME, primary.flush_lsn()?, LONG)?;
    ensure!(first.is_running()?, "the second ended the first");
    // The lock goes with its owner, however that ends.
    first.kill_9()?;
    let stopped = mirror.run(&[])?.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    Ok(())
}

#[test]
fn metrics_have_the_real_positions() -> Result<()> {
    let primary = primary()?;
    let mirror = Mirror::init(&primary)?;
    let (mut receiver, address) = with_metrics(&mirror)?;
    streaming(&primary)?;
    primary.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")?;
    let lsn = primary.flush_lsn()?;
    primary.wait_for_flush(NAME, lsn, LONG)?;
    for name in ["received", "write", "flush", "server_wal_end"] {
        let name = match name {
            "server_wal_end" => "walstream_receiver_server_wal_end_lsn".to_owned(),
            other => format!("walstream_receiver_{other}_lsn"),
        };
        // A page of the primary's own may have been added since.
        #[expect(
            clippy::cast_precision_loss,
            reason = "Prometheus has only floating-point numbers"
        )]
        let (low, high) = (lsn.0 as f64, (lsn.0 + 100_000) as f64);
        wait_for(&format!("{name} of {lsn}"), SHORT, || {
            let value = metric(&scrape(&address)?, &name)?;
            Ok((low..high).contains(&value))
        })?;
    }
    let text = scrape(&address)?;
    assert_eq!(metric(&text, "walstream_receiver_streaming")?, 1.0);
    assert_eq!(metric(&text, "walstream_receiver_timeline")?, 1.0);
    ensure!(receiver.is_running()?, "it ended");
    Ok(())
}

/// A receiver that serves metrics on a free port.
fn with_metrics(mirror: &Mirror) -> Result<(Running, String)> {
    // Another process may take the port between the two: then it ends, and another port is tried.
    wait_for_some("a free port", LONG, || {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let running = mirror.run(&["--metrics", &address]);
        Ok(running.ok().map(|running| (running, address)))
    })
}

fn scrape(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SHORT))?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
    Ok(text)
}

fn metric(text: &str, name: &str) -> Result<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .with_context(|| format!("no {name} in {text}"))?;
    Ok(line.trim().parse()?)
}
