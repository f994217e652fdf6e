//! Hot standby feedback: what a standby's queries need is kept as PostgreSQL keeps it, and a hub tells it upstream.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use walstream::protocol::copy::{HotStandbyFeedback, StandbyMessage};
use walstream::{Lsn, PgTimestamp};
use walstream_tests::{Cluster, Hub, LONG, SHORT, StopMode, wait_for};

use crate::hub::{primary, standby_of};
use crate::sender_clients::RawClient;
use crate::sidecar::{Sidecar, caught_up};

/// A transaction of a standby that sees the database as it was when it began, until this is dropped.
struct Snapshot {
    psql: Child,
    /// The oldest transaction that was running then.
    xmin: String,
}

impl Snapshot {
    fn of(standby: &Cluster) -> Result<Self> {
        let mut psql = standby.command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-d", &standby.conninfo()]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_snapshot_xmin(txid_current_snapshot());\n";
        let stdin = psql.stdin.as_mut().context("no input")?;
        stdin.write_all(begin.as_bytes())?;
        let mut line = String::new();
        let stdout = psql.stdout.as_mut().context("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let xmin = line.trim().to_owned();
        ensure!(!xmin.is_empty(), "psql says nothing");
        Ok(Self { psql, xmin })
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        drop(self.psql.stdin.take());
        let _ = self.psql.wait();
    }
}

fn set_feedback(standby: &mut Cluster, value: &str) -> Result<()> {
    standby.configure(&[
        ("hot_standby_feedback", value),
        ("wal_receiver_status_interval", "1s"),
    ])?;
    standby.reload();
    Ok(())
}

/// Uses up some transactions.
fn transactions(primary: &Cluster) -> Result<()> {
    for _ in 0..5 {
        primary.query("INSERT INTO t VALUES (1)")?;
    }
    Ok(())
}

/// The xmin of a slot of the sidecar, as it is saved; empty for none.
fn saved_xmin(sidecar: &Sidecar, slot: &str) -> Result<String> {
    let list = sidecar.work.program("walsender")?;
    let list = list.args(["slot", "list", "--json", "--slots"]);
    let slots = list.arg(sidecar.work.join("slots")).succeed(SHORT)?;
    let slots = slots.json()?;
    let slots = slots.get("slots").and_then(|slots| slots.as_array());
    let mut slots = slots.into_iter().flatten();
    let row = slots.find(|row| row["slot_name"] == slot);
    let row = row.with_context(|| format!("no slot {slot}"))?;
    ensure!(row["catalog_xmin"].is_null(), "{row}");
    Ok(row["xmin"]
        .as_u64()
        .map(|xmin| xmin.to_string())
        .unwrap_or_default())
}

/// Waits until the slots of both standbys have this xmin, empty for none.
fn both_have(sidecar: &Sidecar, primary: &Cluster, expected: &str) -> Result<()> {
    let ours = || saved_xmin(sidecar, "ours");
    let theirs =
        || primary.query("SELECT xmin FROM pg_replication_slots WHERE slot_name = 'theirs'");
    wait_for(&format!("xmin \"{expected}\""), LONG, || {
        Ok(ours()? == expected && theirs()? == expected)
    })
    .with_context(|| format!("{:?}, {:?}", ours(), theirs()))
}

#[test]
fn a_slot_of_the_sidecar_has_the_xmin_that_postgresql_gives_it() -> Result<()> {
    let primary = Cluster::started()?;
    primary.query("CREATE TABLE t (i int)")?;
    let mut sidecar = Sidecar::start(&primary)?;
    let mut ours = sidecar.standby(&primary, &["-X", "stream", "-C", "-S", "ours"])?;
    let mut theirs = primary.standby(&[("primary_slot_name", "theirs")])?;
    primary.query("SELECT pg_create_physical_replication_slot('theirs')")?;
    for standby in [&mut ours, &mut theirs] {
        standby.start()?;
        set_feedback(standby, "on")?;
    }
    // Nothing runs on either: all that had begun when they looked is needed no longer.
    let next = || primary.query("SELECT txid_snapshot_xmax(txid_current_snapshot())");
    both_have(&sidecar, &primary, &next()?)?;
    transactions(&primary)?;
    both_have(&sidecar, &primary, &next()?)?;
    for standby in [&ours, &theirs] {
        caught_up(standby, &primary)?;
    }
    let snapshots = [Snapshot::of(&ours)?, Snapshot::of(&theirs)?];
    let held = snapshots[0].xmin.clone();
    assert_eq!(snapshots[1].xmin, held);
    transactions(&primary)?;
    // The one that reported last before the snapshot may have said the same: what comes after must not move it.
    for standby in [&ours, &theirs] {
        caught_up(standby, &primary)?;
    }
    both_have(&sidecar, &primary, &held)?;
    let after = next()?;
    ensure!(after > held, "no transaction began since {held}");

    // The slot keeps it through a crash of the sidecar, and while nobody is there.
    sidecar.running()?.kill_9()?;
    assert_eq!(saved_xmin(&sidecar, "ours")?, held);
    sidecar.restart(&primary)?;
    assert_eq!(saved_xmin(&sidecar, "ours")?, held);
    drop(snapshots);
    both_have(&sidecar, &primary, &next()?)?;
    for standby in [&mut ours, &mut theirs] {
        set_feedback(standby, "off")?;
    }
    both_have(&sidecar, &primary, "")
}

#[test]
fn a_hub_tells_its_primary_what_its_followers_need() -> Result<()> {
    let primary = primary()?;
    let hub = Hub::start(&primary, &["--status-interval", "1"])?;
    let mut follower = standby_of(&primary, &hub, "follower")?;
    let told = || {
        primary.query("SELECT xmin FROM pg_replication_slots WHERE slot_name = 'gp_walreceiver'")
    };
    let is = |expected: &str| {
        wait_for(&format!("xmin \"{expected}\""), LONG, || {
            Ok(told()? == expected)
        })
        .with_context(|| format!("it is {:?}; {:?}", told(), hub.status()))
    };
    // Without feedback of a follower the hub asks for nothing.
    transactions(&primary)?;
    caught_up(&follower, &primary)?;
    assert_eq!(told()?, "");

    set_feedback(&mut follower, "on")?;
    let next = || primary.query("SELECT txid_snapshot_xmax(txid_current_snapshot())");
    is(&next()?)?;
    let snapshot = Snapshot::of(&follower)?;
    transactions(&primary)?;
    caught_up(&follower, &primary)?;
    is(&snapshot.xmin)?;
    let shown = hub.follower("follower")?.context("no follower")?;
    assert_eq!(shown["backend_xmin"].to_string(), snapshot.xmin);
    // What the snapshot sees stays: vacuum of the primary takes nothing from under it.
    primary.query("DELETE FROM t")?;
    let vacuumed = primary.query("VACUUM (VERBOSE) t");
    ensure!(vacuumed.is_ok(), "{vacuumed:?}");
    caught_up(&follower, &primary)?;
    let conflicts = "SELECT sum(confl_snapshot) FROM pg_stat_database_conflicts";
    assert_eq!(follower.query(conflicts)?, "0");
    drop(snapshot);
    is(&next()?)?;

    // One with a slot: the slot keeps it, also while its follower is away.
    hub_slot(&primary, &hub)?;
    follower.configure(&[("primary_slot_name", "kept")])?;
    follower.stop(StopMode::Fast)?;
    follower.start()?;
    let snapshot = Snapshot::of(&follower)?;
    transactions(&primary)?;
    is(&snapshot.xmin)?;
    let slots = hub.status()?["slots"].clone();
    assert_eq!(slots[0]["xmin"].to_string(), snapshot.xmin);
    let shown = hub.follower("follower")?.context("no follower")?;
    ensure!(shown["backend_xmin"].is_null(), "{shown}");
    let held = snapshot.xmin.clone();
    drop(snapshot);
    follower.kill_9()?;
    wait_for("the follower's end", LONG, || {
        Ok(hub.follower("follower")?.is_none())
    })?;
    let xmin = hub.status()?["slots"][0]["xmin"].to_string();
    ensure!(xmin >= held, "{xmin}");
    is(&xmin)?;
    follower.start()?;
    set_feedback(&mut follower, "off")?;
    is("")
}

/// A follower that names a transaction of long ago, of which its primary knows nothing any more: the primary would ignore all
/// that it is told with it.
#[test]
fn what_cannot_be_does_not_undo_what_other_followers_need() -> Result<()> {
    let mut primary = primary()?;
    primary.stop(StopMode::Fast)?;
    let directory = primary.data_dir().display().to_string();
    primary.run("pg_resetwal", &["-e", "1", "-D", &directory])?;
    primary.start()?;
    let mut hub = Hub::start(&primary, &["--status-interval", "1"])?;
    let mut follower = standby_of(&primary, &hub, "follower")?;
    set_feedback(&mut follower, "on")?;
    let told = || {
        primary.query("SELECT xmin FROM pg_replication_slots WHERE slot_name = 'gp_walreceiver'")
    };
    let next = || {
        let next = primary.query("SELECT txid_snapshot_xmax(txid_current_snapshot())")?;
        let next: u64 = next.parse()?;
        ensure!(next >> 32 == 1, "{next} is of another epoch");
        anyhow::Ok((next & 0xFFFF_FFFF).to_string())
    };
    for round in 0..2 {
        let mut liar = RawClient::begin(
            UnixStream::connect(hub.mirror().workdir().join(".s.PGSQL.5999"))?,
            "liar",
        )?;
        let end: Lsn = hub.status()?["served_lsn"]
            .as_str()
            .unwrap_or_default()
            .parse()?;
        liar.start(end)?;
        liar.send(&StandbyMessage::HotStandbyFeedback(HotStandbyFeedback {
            sent_at: PgTimestamp(1),
            xmin: 100,
            xmin_epoch: 0,
            catalog_xmin: 0,
            catalog_xmin_epoch: 0,
        }))?;
        liar.report(end, end)?;
        wait_for("its report", SHORT, || {
            let liar = hub.follower("liar")?.unwrap_or_default();
            Ok(liar["flush_lsn"] == end.to_string())
        })?;
        // What the honest one needs goes on and on, and its primary takes it.
        for _ in 0..2 {
            transactions(&primary)?;
            let expected = next()?;
            wait_for(&format!("xmin \"{expected}\""), LONG, || {
                Ok(told()? == expected)
            })
            .with_context(|| format!("it is {:?}; {:?}", told(), hub.status()))?;
        }
        let shown = hub.follower("liar")?.context("no liar")?;
        ensure!(shown["backend_xmin"].is_null(), "{shown}");
        if round == 0 {
            // A hub that was started again knows it from its own WAL.
            hub.kill_9()?;
            hub.run()?;
        }
    }
    Ok(())
}

fn hub_slot(primary: &Cluster, hub: &Hub) -> Result<()> {
    let mut psql = primary.command("psql");
    let conninfo = format!("{} replication=1", hub.conninfo("slot"));
    psql.args([
        "-X",
        "-c",
        "CREATE_REPLICATION_SLOT kept PHYSICAL RESERVE_WAL",
        "-d",
        &conninfo,
    ]);
    let status = psql.stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
