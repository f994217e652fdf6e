//! `walsender serve --max-slot-wal-keep-size`: the slots of a sidecar go through the states that PostgreSQL's own go through in
//! the same steps, and what a lost slot kept is removed by the primary.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream_tests::{Cluster, ClusterOptions, LONG, Running, SHORT, wait_for};

use crate::sidecar::Sidecar;

/// A server that limits its own slots, and one whose sidecar does.
struct Scene {
    theirs: Cluster,
    primary: Cluster,
    sidecar: Sidecar,
}

/// `wal_status` of each slot, and whether it has a restart LSN.
type States = BTreeMap<String, (String, bool)>;

impl Scene {
    fn start() -> Result<Self> {
        let server = || {
            ClusterOptions::default()
                .initdb_option("--wal-segsize=1")
                .set("min_wal_size", "2MB")
                .set("max_wal_size", "1GB")
                .set("checkpoint_timeout", "1h")
        };
        let primary = server().start()?;
        Ok(Self {
            theirs: server().set("max_slot_wal_keep_size", "5MB").start()?,
            sidecar: Sidecar::start_with(&primary, &["--max-slot-wal-keep-size", "5MB"])?,
            primary,
        })
    }

    fn both(&self, sql: &str) -> Result<()> {
        self.theirs.query(sql)?;
        self.primary.query(sql)?;
        Ok(())
    }

    fn create(&self, slot: &str) -> Result<()> {
        let sql = format!("SELECT pg_create_physical_replication_slot('{slot}', true)");
        self.theirs.query(&sql)?;
        let command = format!("CREATE_REPLICATION_SLOT {slot} PHYSICAL RESERVE_WAL");
        self.sidecar.psql(&command)?;
        Ok(())
    }

    /// About so many megabytes of WAL.
    fn write(&self, megabytes: usize) -> Result<()> {
        for _ in 0..megabytes {
            self.both("SELECT pg_logical_emit_message(true, 'x', repeat('x', 1000000))")?;
        }
        Ok(())
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        for server in [&self.theirs, &self.primary] {
            server.query(&format!("ALTER SYSTEM SET {name} = '{value}'"))?;
            server.query("SELECT pg_reload_conf()")?;
            wait_for(name, SHORT, || {
                Ok(server.query(&format!("SHOW {name}"))? == value)
            })?;
        }
        Ok(())
    }

    fn their_states(&self) -> Result<States> {
        let rows = self.theirs.query(
            "SELECT slot_name, wal_status, restart_lsn IS NOT NULL FROM pg_replication_slots",
        )?;
        let states = rows.lines().map(|row| {
            let mut fields = row.split('|').map(str::to_owned);
            let mut next = || fields.next().context("a column is missing");
            Ok((next()?, (next()?, next()? == "t")))
        });
        states.collect()
    }

    fn our_states(&self) -> Result<States> {
        let list = self.sidecar.work.program("walsender")?;
        let list = list.args(["slot", "list", "--json", "--slots"]);
        let list = list.arg(self.sidecar.work.join("slots")).succeed(SHORT)?;
        let list = list.json()?;
        let slots = list.get("slots").and_then(|slots| slots.as_array());
        let text = |slot: &serde_json::Value, name: &str| {
            let text = slot.get(name).and_then(|text| text.as_str());
            text.map(str::to_owned)
        };
        let states = slots.into_iter().flatten().map(|slot| {
            let name = text(slot, "slot_name").context("no name")?;
            let status = text(slot, "wal_status").unwrap_or_default();
            Ok((name, (status, text(slot, "restart_lsn").is_some())))
        });
        states.collect()
    }

    /// Waits until ours are theirs, and gives the status of a slot.
    fn status(&self, slot: &str) -> Result<String> {
        let theirs = self.their_states()?;
        wait_for("the same states", LONG, || Ok(self.our_states()? == theirs))
            .with_context(|| format!("ours: {:?}; theirs: {theirs:?}", self.our_states()))?;
        let (status, _) = theirs.get(slot).context("no such slot")?;
        Ok(status.clone())
    }

    /// Where the slot is that the sidecar has on its primary.
    fn kept_from(&self) -> Result<Lsn> {
        self.primary.lsn(
            "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'walsender_sidecar'",
        )
    }
}

fn oldest_segment(server: &Cluster) -> Result<String> {
    Ok(server.query("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'")?)
}

#[test]
fn slots_go_through_postgresqls_states() -> Result<()> {
    let scene = Scene::start()?;
    scene.create("old")?;
    let (kept, first) = (scene.kept_from()?, oldest_segment(&scene.primary)?);
    assert_eq!(scene.status("old")?, "reserved");
    scene.write(5)?;
    assert_eq!(scene.status("old")?, "reserved");
    scene.set("max_wal_size", "2MB")?;
    assert_eq!(scene.status("old")?, "extended");
    scene.set("max_wal_size", "1GB")?;
    // A checkpoint within the limit takes nothing away.
    scene.both("CHECKPOINT")?;
    assert_eq!(scene.status("old")?, "reserved");
    scene.write(4)?;
    assert_eq!(scene.status("old")?, "unreserved");
    assert_eq!(scene.kept_from()?, kept);
    scene.both("CHECKPOINT")?;
    assert_eq!(scene.status("old")?, "lost");
    wait_for("the slot on the primary", LONG, || {
        Ok(scene.kept_from()? > kept)
    })?;
    scene.both("CHECKPOINT")?;
    for server in [&scene.primary, &scene.theirs] {
        ensure!(oldest_segment(server)? > first, "nothing was removed");
    }
    scene.create("young")?;
    assert_eq!(scene.status("young")?, "reserved");
    assert_eq!(scene.status("old")?, "lost");
    let log = scene.sidecar.stderr();
    ensure!(log.contains("exceeds max_slot_wal_keep_size"), "{log}");
    let status = scene.primary.query(
        "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'walsender_sidecar'",
    )?;
    assert_eq!(
        status, "reserved",
        "the one slot there keeps what the others need"
    );
    Ok(())
}

#[test]
fn a_slot_in_use_ends_with_its_stream() -> Result<()> {
    let scene = Scene::start()?;
    scene.create("busy")?;
    let program = scene.theirs.programs().client("pg_receivewal");
    let receive = |conninfo: &str, directory: &str| -> Result<Running> {
        let target = scene.sidecar.work.make_dir(directory)?;
        let program = scene.sidecar.work.external(&program).arg("-D").arg(target);
        // It confirms nothing by itself. One that does not read would hold up PostgreSQL's checkpoint for ever.
        let program = program.args(["-n", "-s", "0", "-S", "busy", "-d", conninfo]);
        program.start()
    };
    let receivers = [
        receive(&scene.theirs.conninfo(), "theirs")?,
        receive(&scene.sidecar.conninfo(), "ours")?,
    ];
    wait_for("both streams", SHORT, || {
        let active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'busy'";
        let ours = scene.sidecar.work.program("walsender")?;
        let ours = ours.args(["slot", "list", "--slots"]);
        let ours = ours.arg(scene.sidecar.work.join("slots")).succeed(SHORT)?;
        Ok(scene.theirs.query(active)? == "t" && ours.stdout.contains("| t      |"))
    })?;
    scene.write(8)?;
    scene.both("CHECKPOINT")?;
    assert_eq!(scene.status("busy")?, "lost");
    for receiver in receivers {
        let ended = receiver.wait(LONG)?;
        ended.expect_failure(1, &["terminating connection due to administrator command"])?;
    }
    Ok(())
}

#[test]
fn a_limit_without_a_primary_is_refused() -> Result<()> {
    let work = walstream_tests::Workdir::new()?;
    let program = work
        .program("walsender")?
        .args(["serve", "--listen", "127.0.0.1:0"]);
    let program = program.args(["--archive", ".", "--max-slot-wal-keep-size", "5MB"]);
    program.run(SHORT)?.expect_failure(2, &["--data-dir"])
}
