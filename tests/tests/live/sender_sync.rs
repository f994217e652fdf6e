//! Commits that wait for standbys of our sender, through the library.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use walsender::source::recording::{RecordedServer, Recording};
use walsender::{ListenAddress, Sender, SenderConfig};
use walstream::Lsn;
use walstream::sync::{StandbyNames, SyncRule, SyncState, WaitMode};
use walstream_tests::{SHORT, wait_for};

use crate::sender_clients::RawClient;

const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../walreceiver/src/demo/coordinator.tar.zst"
);

fn rule(names: &str) -> Result<SyncRule> {
    Ok(SyncRule::from(StandbyNames::parse(names)?))
}

/// A sender with this rule, its port, and where the recorded WAL begins and ends.
fn sender(runtime: &Runtime, names: &str) -> Result<(Sender, u16, Lsn, Lsn)> {
    let server = RecordedServer::at_end(Recording::open(Path::new(RECORDING))?);
    let (start, end) = (
        server.recording().backup().start.lsn,
        server.recording().wal_end().lsn,
    );
    let mut config = SenderConfig::new(ListenAddress::free_port());
    config.sync_rule = rule(names)?;
    let sender = runtime.block_on(Sender::start(config, Arc::new(server)))?;
    let ListenAddress::Tcp(address) = sender.address() else {
        anyhow::bail!("no port")
    };
    let port = address.port();
    Ok((sender, port, start, end))
}

#[test]
fn a_commit_waits_for_the_standbys_that_the_rule_requires() -> Result<()> {
    let runtime = Runtime::new()?;
    let (sender, port, start, end) = sender(&runtime, "FIRST 1 (a, b)")?;
    let wait = |mode| runtime.spawn(sender.wait_for(end, mode));
    let still_waits = |result: &tokio::task::JoinHandle<_>| -> Result<()> {
        ensure!(!result.is_finished(), "it does not wait");
        Ok(())
    };
    runtime.block_on(sender.wait_for(end, WaitMode::Local))?;
    let (flush, write) = (wait(WaitMode::RemoteFlush), wait(WaitMode::RemoteWrite));
    let given_up = runtime.block_on(async {
        tokio::time::timeout(
            Duration::from_millis(10),
            sender.wait_for(end, WaitMode::RemoteApply),
        )
        .await
    });
    ensure!(given_up.is_err(), "nobody has applied anything");

    let mut b = RawClient::connect(port, "b")?;
    b.start(start)?;
    b.wal(start, end)?;
    let mut a = RawClient::connect(port, "a")?;
    a.start(start)?;
    a.wal(start, end)?;
    // The one of higher priority is there and lacks something, so the other's reply is of no use.
    a.report(end, start)?;
    let written = runtime.block_on(async { tokio::time::timeout(SHORT, write).await })?;
    written??;
    b.report(end, end)?;
    wait_for("the reply of b", SHORT, || {
        Ok(sender.standbys().iter().any(|status| {
            status.application_name == "b"
                && status.flush_lsn == end
                && status.sync_state == SyncState::Potential
        }))
    })?;
    still_waits(&flush)?;
    ensure!(sender.released_lsn(WaitMode::RemoteFlush) == start);
    let status = sender.standbys();
    let first = status.iter().find(|status| status.application_name == "a");
    let first = first.context("a is there")?;
    ensure!(
        (first.sync_state, first.sync_priority, first.sent_lsn) == (SyncState::Sync, 1, end),
        "{first:?}"
    );
    ensure!(
        first.state.name() == "streaming" && first.client_address.is_some(),
        "{first:?}"
    );
    // It dies; b takes its place, and its reply counts at once.
    drop(a);
    runtime.block_on(async { tokio::time::timeout(SHORT, flush).await })???;

    // A changed rule is felt at once.
    sender.set_sync_rule(rule("absent")?);
    let wait = runtime.spawn(sender.wait_for(Lsn(end.0 + 1), WaitMode::RemoteFlush));
    still_waits(&wait)?;
    ensure!(sender.released_lsn(WaitMode::Local) == end);
    // The end of the sender ends the wait, and says so.
    drop(sender);
    let interrupted = runtime.block_on(async { tokio::time::timeout(SHORT, wait).await })??;
    ensure!(interrupted.is_err_and(|error| error.lsn == Lsn(end.0 + 1)));
    Ok(())
}

/// A standby that confirms while the sender shuts down still releases who waits for it.
#[test]
fn a_sender_that_stops_still_releases() -> Result<()> {
    let runtime = Runtime::new()?;
    let (sender, port, start, end) = sender(&runtime, "s")?;
    let wait = runtime.spawn(sender.wait_for(end, WaitMode::RemoteFlush));
    let mut standby = RawClient::connect(port, "s")?;
    standby.start(start)?;
    standby.wal(start, end)?;
    let stopping = runtime.spawn(sender.shut_down(SHORT));
    // It is asked.
    while standby.until(b'd')?.get(17) != Some(&1) {}
    standby.report(end, end)?;
    runtime.block_on(async { tokio::time::timeout(SHORT, wait).await })???;
    ensure!(standby.until(b'C')? == b"COPY 0\0");
    runtime.block_on(async { tokio::time::timeout(SHORT, stopping).await })??;
    Ok(())
}
