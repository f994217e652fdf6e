//! `--synchronous-standby-names-file`: SIGHUP changes who is synchronous, in `walsender serve`, in a hub and through the
//! library; whoever need not wait by the new setting goes on at once; a file that cannot be used changes nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::runtime::Runtime;
use walsender::source::recording::{RecordedServer, Recording};
use walsender::{ListenAddress, Sender, SenderConfig, SyncNamesFile};
use walstream::Lsn;
use walstream::sync::WaitMode;
use walstream_tests::{ClusterOptions, Hub, LONG, Mirror, SHORT, Signal, wait_for};

use crate::hub::standby_of;
use crate::sender_auth::RECORDING;
use crate::sender_clients::RawClient;
use crate::sender_observed::{json, standbys, text};
use crate::serve_archive::archived;

/// Names of the standbys, each with its state, in the order of the connections.
fn states(status: &Value) -> Vec<String> {
    let shown = |standby: &Value| {
        let (name, state) = (
            text(standby, "application_name"),
            text(standby, "sync_state"),
        );
        format!("{name} {state}")
    };
    standbys(status).iter().map(shown).collect()
}

#[test]
fn sighup_changes_who_is_synchronous() -> Result<()> {
    let (_primary, filled, end) = archived("none")?;
    let work = filled.archive.workdir();
    let names = work.join("names");
    let start = Lsn(end.0 - 8000);
    fs::write(&names, "# who is near\nFIRST 1 (a, b)\n")?;
    let slots = ["--slots", "slots"];
    let file = ["--synchronous-standby-names-file", "names"];
    let mut served = filled.serve(&[&slots[..], &file].concat())?;
    let mut clients = Vec::new();
    for name in ["a", "b"] {
        let mut client = RawClient::connect(served.port()?, name)?;
        client.start(start)?;
        client.report(start, start)?;
        clients.push(client);
    }
    let expect = |expected: [&str; 2]| {
        let mut last = Vec::new();
        let waited = wait_for("their states", SHORT, || {
            last = states(&json(work, &slots)?);
            Ok(last == expected)
        });
        waited.map_err(|error| anyhow::anyhow!("{error}: {last:?}, expected {expected:?}"))
    };
    expect(["a sync", "b potential"])?;
    let mut reload = |text: &str| {
        fs::write(&names, text)?;
        served.running().signal(Signal::HUP)
    };
    reload("ANY 1 (a, b)")?;
    expect(["a quorum", "b quorum"])?;
    reload("b")?;
    expect(["a async", "b sync"])?;
    let status = json(work, &slots)?;
    assert_eq!(status["sync"]["synchronous_standby_names"], "FIRST 1 (b)");
    assert_eq!(status["sync"]["synchronous_standby_names_file"], "names");
    // What cannot be parsed, and what is not there, changes nothing and is told.
    reload("FIRST 1 (a")?;
    served
        .running()
        .wait_for_output("syntax error at end of input", SHORT)?;
    fs::remove_file(&names)?;
    served.running().signal(Signal::HUP)?;
    served.running().wait_for_output("No such file", SHORT)?;
    expect(["a async", "b sync"])?;
    fs::write(&names, "")?;
    served.running().signal(Signal::HUP)?;
    expect(["a async", "b async"])?;
    served.running().wait_for_output(
        "parameter \"synchronous_standby_names\" changed to \"\"",
        SHORT,
    )?;
    // At the start there is no old setting to keep.
    fs::write(&names, "FIRST 1 (a")?;
    let refused = work
        .program("walsender")?
        .args(["serve", "--archive", "archive", "--listen", "127.0.0.1:0"])
        .args(file)
        .run(SHORT)?;
    refused.expect_failure(2, &["names", "syntax error at end of input"])
}

#[test]
fn commits_that_need_not_wait_any_longer_go_on_at_once() -> Result<()> {
    let runtime = Runtime::new()?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("names");
    fs::write(&path, "absent")?;
    let server = RecordedServer::at_end(Recording::open(Path::new(RECORDING))?);
    let end = server.recording().wal_end().lsn;
    let mut config = SenderConfig::new(ListenAddress::free_port());
    config.sync_names_file = Some(SyncNamesFile {
        path: path.clone(),
        needs_names: false,
    });
    let sender = runtime.block_on(Sender::start(config, Arc::new(server)))?;
    let waits: Vec<_> = [
        WaitMode::RemoteWrite,
        WaitMode::RemoteFlush,
        WaitMode::RemoteApply,
    ]
    .map(|mode| runtime.spawn(sender.wait_for(end, mode)))
    .into();
    fs::write(&path, "FIRST 0 (x)")?;
    ensure!(!sender.reload(), "it cannot be used");
    let view = sender.view();
    ensure!(view.status().sync.synchronous_standby_names == "FIRST 1 (absent)");
    ensure!(
        waits.iter().all(|wait| !wait.is_finished()),
        "they wait for nobody"
    );
    fs::write(&path, "# nobody\n")?;
    ensure!(view.reload());
    for wait in waits {
        runtime.block_on(async { tokio::time::timeout(SHORT, wait).await })???;
    }
    Ok(())
}

#[test]
fn a_hubs_primary_hears_at_once_of_a_new_setting() -> Result<()> {
    let mut primary = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .start()?;
    let mirror = Mirror::init(&primary)?;
    let names = mirror.workdir().join("names");
    fs::write(&names, "absent\n")?;
    // Nothing is reported from time to time, so what comes comes of the new setting.
    let file = [
        "--relay-sync",
        "--status-interval",
        "0",
        "--synchronous-standby-names-file",
        "names",
    ];
    let mut hub = Hub::on_mirror(mirror, &file)?;
    let _standby = standby_of(&primary, &hub, "near")?;
    primary.alter_system("synchronous_standby_names", "*")?;
    let psql = hub
        .mirror()
        .workdir()
        .external(&primary.programs().program("psql"));
    let mut commit = psql
        .args(["-X", "-q", "-c", "CREATE TABLE t (i int)", "-d"])
        .arg(format!("{} dbname=postgres", primary.conninfo()))
        .start()?;
    wait_for("a commit that waits", SHORT, || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        Ok(primary.query(waiting)? == "1")
    })?;
    wait_for("a follower that has it", SHORT, || {
        let follower = hub.follower("near")?.unwrap_or_default();
        Ok(!follower["flush_lsn"].is_null() && follower["sync_state"] == "async")
    })?;
    // With --relay-sync somebody must be named.
    fs::write(&names, "# nobody\n")?;
    hub.running().signal(Signal::HUP)?;
    hub.running().wait_for_output("names no standby", SHORT)?;
    ensure!(commit.is_running()?, "nobody has confirmed it");
    fs::write(&names, "near")?;
    hub.running().signal(Signal::HUP)?;
    let done = commit.wait(LONG)?;
    ensure!(done.code() == Some(0), "{done}");
    assert_eq!(
        hub.follower("near")?.unwrap_or_default()["sync_state"],
        "sync"
    );
    Ok(())
}
