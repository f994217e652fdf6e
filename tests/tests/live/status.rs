//! `walreceiver status` in each state that a mirror can be in, compared with what the primary itself says.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use walreceiver::run::last_status::LastStatus;
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, CutProxy, LONG, Mirror, SHORT, Signal, StopMode, wait_for,
    wait_for_some,
};

const NAME: &str = "gp_walreceiver";

/// `walreceiver status --json`, which succeeds in every state.
fn status(mirror: &Mirror, arguments: &[&str]) -> Result<Value> {
    let command = mirror.command("status")?.arg("--json").args(arguments);
    command.succeed(LONG)?.json()
}

/// `walreceiver status`, as a person sees it.
fn text(mirror: &Mirror, arguments: &[&str]) -> Result<String> {
    let command = mirror.command("status")?.args(arguments);
    Ok(command.succeed(LONG)?.stdout)
}

/// Exit code of `walreceiver status --check`.
fn check(mirror: &Mirror, arguments: &[&str]) -> Result<Option<i32>> {
    let command = mirror.command("status")?.arg("--check").args(arguments);
    Ok(command.run(LONG)?.code())
}

/// Waits until the mirror has everything, something that was written after the receiver's start included, and says so.
fn wait_until_synchronized(primary: &Cluster, mirror: &Mirror) -> Result<Value> {
    // Until something is sent, the receiver has not heard of the primary.
    primary.query("CREATE TABLE heard (); DROP TABLE heard")?;
    wait_for_some("a synchronized mirror", SHORT, || {
        let status = status(mirror, &[])?;
        let is = |key, value: Value| status.get(key) == Some(&value);
        let current = is("synchronization", "synchronized".into())
            && is("lag_bytes", 0.into())
            && !is("last_message_at", Value::Null);
        Ok(current.then_some(status))
    })
}

/// Waits until the file that a receiver leaves behind says when it heard of the primary.
fn wait_for_last_status(mirror: &Mirror) -> Result<()> {
    wait_for("the receiver's status file", SHORT, || {
        let last = LastStatus::read(mirror.directory())?;
        Ok(last.is_some_and(|last| last.last_message_at_us.is_some()))
    })
}

fn lsn(value: &Value) -> Result<Lsn> {
    let text = value
        .as_str()
        .with_context(|| format!("{value} is no LSN"))?;
    Ok(text.parse()?)
}

#[test]
fn a_synchronous_standby_is_shown_as_the_primary_shows_it() -> Result<()> {
    let mut primary = Cluster::started()?;
    let mirror = Mirror::init(&primary)?;

    let never = status(&mirror, &[])?;
    assert_eq!(never["standby_status"], "Standby process not running");
    assert_eq!(never["synchronization"], "not_synchronized");
    assert_eq!(never["receiver"]["pid"], Value::Null);
    assert_eq!(never["lag_seconds"], Value::Null);
    assert_eq!(never["local_wal"]["whole"], true);
    assert_eq!(never["primary"]["slot"]["active"], false);
    assert_eq!(check(&mirror, &[])?, Some(1));

    primary.alter_system("synchronous_standby_names", NAME)?;
    let receiver = mirror.run(&[])?;
    wait_for("a synchronous standby", SHORT, || {
        Ok(primary.standby_column(NAME, "sync_state")?.as_deref() == Some("sync"))
    })?;
    primary.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")?;
    wait_for("a status that equals the primary's", SHORT, || {
        let seen = status(&mirror, &[])?;
        let mut equal = seen["lag_bytes"] == 0;
        for column in [
            "state",
            "sync_state",
            "sent_lsn",
            "write_lsn",
            "flush_lsn",
            "replay_lsn",
        ] {
            let theirs = primary.standby_column(NAME, column)?;
            equal &= seen[column].as_str() == theirs.as_deref();
        }
        Ok(equal)
    })?;
    let seen = wait_until_synchronized(&primary, &mirror)?;
    assert_eq!(seen["role"], "standby");
    assert_eq!(seen["standby_status"], "Standby host passive");
    assert_eq!(seen["state"], "streaming");
    assert_eq!(seen["sync_state"], "sync");
    assert_eq!(seen["timeline"], 1);
    assert_eq!(seen["lag_seconds"], 0.0);
    assert_eq!(seen["primary"]["slot"]["wal_status"], "reserved");
    assert_eq!(
        seen["receiver"]["pid"],
        i64::from(receiver.pid().as_raw_nonzero().get())
    );
    assert_eq!(
        seen["system_identifier"],
        primary.system_identifier()?.to_string()
    );
    assert_eq!(check(&mirror, &[])?, Some(0));
    let shown = text(&mirror, &[])?;
    assert!(
        shown.starts_with("Synchronized: streaming as sync standby; "),
        "{shown}"
    );
    wait_for("everything replayed", SHORT, || {
        let shown = text(&mirror, &[])?;
        let of = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name));
        let flushed = of("Flush location            = ");
        Ok(flushed.is_some() && of("Replay location           = ") == flushed)
    })?;

    wait_for_last_status(&mirror)?;
    receiver.kill_9()?;
    let dead = status(&mirror, &[])?;
    assert_eq!(dead["standby_status"], "Standby process not running");
    assert_eq!(dead["synchronization"], "not_synchronized");
    assert_eq!(dead["state"], Value::Null);
    assert_eq!(dead["receiver"]["pid"], seen["receiver"]["pid"]);
    assert!(dead["last_message_at"].is_string(), "{dead:#}");
    // The primary goes on without it, and the status says by how much.
    primary
        .query("SET synchronous_commit = local; INSERT INTO t SELECT generate_series(1, 1000)")?;
    let behind = wait_for_some("a known lag", SHORT, || {
        let dead = status(&mirror, &[])?;
        let end = lsn(&dead["primary"]["wal_end_lsn"])?;
        let lag = dead["lag_bytes"].as_u64().context("a lag in bytes")?;
        ensure!(
            lag == end.saturating_sub(lsn(&dead["local_wal"]["end_lsn"])?),
            "{dead:#}"
        );
        Ok((lag > 50_000).then_some(dead))
    })?;
    assert_eq!(behind["lag_seconds"], Value::Null);
    assert_eq!(check(&mirror, &["--max-lag", "1GB"])?, Some(1));
    let shown = text(&mirror, &[])?;
    assert!(
        shown.starts_with("Not Synchronized: no receiver runs; "),
        "{shown}"
    );
    assert!(
        shown.contains("Lag in time               = unknown since "),
        "{shown}"
    );
    Ok(())
}

#[test]
fn a_stream_that_died_unnoticed_is_never_0_behind() -> Result<()> {
    let mut primary = Cluster::started()?;
    let mirror = Mirror::init(&primary)?;
    let proxy = CutProxy::start(primary.port())?;
    let through_proxy = primary.tcp_conninfo().replace(
        &format!("port={}", primary.port()),
        &format!("port={} sslmode=disable", proxy.port()),
    );
    let mut receiver = mirror.run(&["--primary", &through_proxy])?;
    wait_until_synchronized(&primary, &mirror)?;

    wait_for_last_status(&mirror)?;
    proxy.freeze();
    primary.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")?;
    let stalled = status(&mirror, &["--max-lag", "1kB"])?;
    assert_eq!(stalled["standby_status"], "Standby host passive");
    assert_eq!(stalled["synchronization"], "not_synchronized");
    assert!(stalled["lag_bytes"].as_u64() > Some(50_000), "{stalled:#}");
    assert!(stalled["lag_seconds"].as_f64() > Some(0.0), "{stalled:#}");
    assert_eq!(check(&mirror, &["--max-lag", "1kB"])?, Some(1));
    assert_eq!(check(&mirror, &["--max-lag", "1GB"])?, Some(0));

    // The receiver believes in its stream still; nobody tells it otherwise.
    primary.kill_9()?;
    let alone = status(&mirror, &[])?;
    assert_eq!(alone["state"], "streaming", "{alone:#}");
    assert_eq!(alone["primary"]["answers"], false);
    assert_eq!(alone["synchronization"], "unknown");
    assert_eq!(alone["lag_bytes"], Value::Null);
    assert!(
        alone["lag_seconds"].as_f64() > stalled["lag_seconds"].as_f64(),
        "{alone:#}"
    );
    assert_eq!(check(&mirror, &["--max-lag", "1GB"])?, Some(1));

    // A receiver that does not even answer.
    receiver.signal(Signal::STOP)?;
    let stopped = status(&mirror, &[])?;
    assert_eq!(stopped["standby_status"], "Status could not be determined");
    assert_eq!(stopped["synchronization"], "unknown");
    assert_eq!(stopped["receiver"]["running"], Value::Null);
    Ok(())
}

#[test]
fn a_primary_that_tells_little_is_shown_with_the_reason() -> Result<()> {
    let primary = ClusterOptions::default()
        .hba("local all replication_only reject")
        .start()?;
    for role in ["replication_only", "without_rights"] {
        primary.query(&format!("CREATE ROLE {role} LOGIN REPLICATION"))?;
    }
    let mirror = Mirror::init(&primary)?;
    let _receiver = mirror.run(&[])?;
    let full = wait_until_synchronized(&primary, &mirror)?;
    assert_eq!(full["sync_state"], "async");
    let as_role = |role: &str| {
        let host = primary.scratch().display();
        format!("host={host} port={} user={role}", primary.port())
    };

    let conninfo = as_role("without_rights");
    let seen = status(&mirror, &["--primary", &conninfo])?;
    assert_eq!(seen["primary"]["sender_pid"], full["primary"]["sender_pid"]);
    assert_eq!(
        seen["primary"]["sender_error"],
        "role \"without_rights\" lacks pg_read_all_stats"
    );
    assert_eq!(seen["sync_state"], Value::Null);
    assert_eq!(seen["state"], "streaming", "as the receiver says");
    assert!(lsn(&seen["flush_lsn"])? >= lsn(&full["flush_lsn"])?);
    assert_eq!(seen["primary"]["slot"]["active"], true);
    let shown = text(&mirror, &["--primary", &conninfo])?;
    assert!(
        shown.contains("GRANT pg_read_all_stats TO \"without_rights\""),
        "{shown}"
    );
    primary.query("GRANT pg_read_all_stats TO without_rights")?;
    let seen = status(&mirror, &["--primary", &conninfo])?;
    assert_eq!(seen["sync_state"], "async");

    let conninfo = as_role("replication_only");
    let seen = status(&mirror, &["--primary", &conninfo])?;
    let error = seen["primary"]["sender_error"].as_str().unwrap_or_default();
    assert!(error.contains("pg_hba.conf"), "{error}");
    assert!(lsn(&seen["primary"]["wal_end_lsn"])? >= lsn(&full["flush_lsn"])?);
    assert_eq!(seen["synchronization"], "synchronized");

    let other = ClusterOptions::default().own_system().start()?;
    let seen = status(&mirror, &["--primary", &other.conninfo()])?;
    assert_eq!(seen["primary"]["answers"], false);
    let error = seen["primary"]["error"].as_str().unwrap_or_default();
    assert!(error.contains("is another system"), "{error}");
    assert_eq!(
        seen["synchronization"], "synchronized",
        "as the receiver knows"
    );

    let usage = mirror.command("status")?.args(["--primary", "nonsense=1"]);
    assert_eq!(usage.run(SHORT)?.code(), Some(2));
    Ok(())
}

#[test]
fn a_mirror_without_primary_and_an_activated_one_are_told_apart() -> Result<()> {
    let mut primary = Cluster::started()?;
    let mirror = Mirror::init(&primary)?;
    let receiver = mirror.run(&[])?;
    wait_until_synchronized(&primary, &mirror)?;
    primary.stop(StopMode::Immediate)?;
    let lost = wait_for_some("the loss of the connection", SHORT, || {
        let status = status(&mirror, &[])?;
        Ok((status["state"] == "connecting").then_some(status))
    })?;
    assert_eq!(
        lost["standby_status"],
        "Standby process running, not streaming"
    );
    assert_eq!(lost["synchronization"], "not_synchronized");
    assert_eq!(lost["lag_bytes"], Value::Null);
    assert!(lost["receiver"]["last_error"].is_string(), "{lost:#}");
    assert!(lost["primary"]["error"].is_string(), "{lost:#}");
    let shown = text(&mirror, &[])?;
    assert!(
        shown.contains("Primary                   = Status could not be determined: "),
        "{shown}"
    );
    assert!(
        shown.contains("Lag in bytes              = unknown since "),
        "{shown}"
    );
    drop(receiver);

    mirror.command("activate")?.arg("-y").succeed(LONG)?;
    let activated = status(&mirror, &[])?;
    assert_eq!(activated["standby_status"], "Activated");
    assert_eq!(activated["synchronization"], "activated");
    assert_eq!(activated["activation"]["end_lsn"], lost["acknowledged_lsn"]);
    assert_eq!(activated["server_pid"], Value::Null);
    assert_eq!(check(&mirror, &[])?, Some(1));

    let mut server = Cluster::on_directory(&primary, mirror.directory())?;
    server.start()?;
    let pid = server.pid().context("a running server")?.as_raw_nonzero();
    assert_eq!(status(&mirror, &[])?["server_pid"], i64::from(pid.get()));

    let elsewhere = mirror.workdir().make_dir("empty")?;
    let nothing = mirror.workdir().program("walreceiver")?;
    nothing
        .args(["status", "-D"])
        .arg(elsewhere)
        .run(SHORT)?
        .expect_failure(2, &["is not a mirror"])
}
