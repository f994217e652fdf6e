//! The sender's replication slots: they survive `kill -9`, a damaged one is refused by name, one process has them at a time,
//! and a lost one answers as PostgreSQL's does.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use walsender::slot::{Invalidation, PhysicalSlots};
use walsender::source::recording::{RecordedServer, Recording};
use walsender::source::{
    SourceError, SourceIdentity, StoredBackup, WalPiece, WalPosition, WalSource,
};
use walsender::{ListenAddress, Sender, SenderConfig};
use walstream::{Lsn, TimelineId};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Program, Running, SHORT, Workdir, server_version, wait_for,
};

use crate::recorded_sender::{RECORDING, replication_command};

/// A directory with slots, and `walsender` programs that use it.
struct Place {
    work: Workdir,
    slots: PathBuf,
    end: Lsn,
}

impl Place {
    fn new() -> Result<Self> {
        let work = Workdir::new()?;
        let recording = work.join("recording");
        fs::copy(RECORDING, &recording)?;
        work.own(&recording)?;
        let end = Recording::open(&recording)?.wal_end().lsn;
        let slots = work.join("slots");
        Ok(Self { work, slots, end })
    }

    fn serve_program(&self) -> Result<Program> {
        let program = self.work.program("walsender")?.args(["serve", "--listen"]);
        let program = program
            .arg(self.work.join(".s.PGSQL.5999"))
            .arg("--recording")
            .arg(self.work.join("recording"));
        Ok(program.arg("--slots").arg(&self.slots))
    }

    fn serve(&self) -> Result<Running> {
        let mut serving = self.serve_program()?.start()?;
        serving.wait_for_output("listening", SHORT)?;
        Ok(serving)
    }

    fn conninfo(&self) -> String {
        format!(
            "host={} port=5999 user=postgres",
            self.work.path().display()
        )
    }

    fn psql(&self, command: &str) -> Result<String> {
        replication_command(&self.work, &self.conninfo(), command)
    }

    fn slot(&self, arguments: &[&str]) -> Result<Program> {
        let program = self.work.program("walsender")?.arg("slot").args(arguments);
        Ok(program.arg("--slots").arg(&self.slots))
    }

    /// Name and restart LSN of each slot, as the command line shows them.
    fn list(&self) -> Result<BTreeMap<String, Option<String>>> {
        let listed = self.slot(&["list", "--json"])?.succeed(SHORT)?.json()?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let slots = listed
            .get("slots")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        Ok(slots
            .map(|slot| {
                (
                    text(slot.get("slot_name")).unwrap_or_default(),
                    text(slot.get("restart_lsn")),
                )
            })
            .collect())
    }
}

fn pg_receivewal(work: &Workdir, conninfo: &str, arguments: &[&str]) -> Result<Program> {
    let program = work.external(&server_version(15)?.client("pg_receivewal"));
    Ok(program.args(["-d", conninfo]).args(arguments))
}

#[test]
fn slots_survive_kill_9_of_the_sender() -> Result<()> {
    let place = Place::new()?;
    let serving = place.serve()?;
    place.psql("CREATE_REPLICATION_SLOT reserved PHYSICAL RESERVE_WAL")?;
    place.psql("CREATE_REPLICATION_SLOT dropped PHYSICAL")?;
    pg_receivewal(
        &place.work,
        &place.conninfo(),
        &["--create-slot", "-S", "received"],
    )?
    .succeed(SHORT)?;
    let read = place.psql("READ_REPLICATION_SLOT reserved")?;
    serving.kill_9()?;

    let serving = place.serve()?;
    assert_eq!(
        place.psql("READ_REPLICATION_SLOT reserved")?,
        read,
        "answered, so durable"
    );
    assert_eq!(place.psql("READ_REPLICATION_SLOT dropped")?, "physical||");
    let again = place.psql("CREATE_REPLICATION_SLOT received PHYSICAL")?;
    assert_eq!(
        again,
        "ERROR:  42710: replication slot \"received\" already exists"
    );
    place.psql("DROP_REPLICATION_SLOT dropped")?;
    let target = place.work.make_dir("wal")?.display().to_string();
    let receiving = pg_receivewal(
        &place.work,
        &place.conninfo(),
        &["-S", "received", "--synchronous", "-D", &target],
    )?;
    let receiving = receiving.start()?;
    let end = place.end.to_string();
    wait_for("the position in the slot's file", LONG, || {
        Ok(place.list()?.get("received") == Some(&Some(end.clone())))
    })?;
    serving.kill_9()?;
    receiving.kill_9()?;
    assert!(
        !place.list()?.contains_key("dropped"),
        "answered, so durably gone"
    );

    let mut serving = place.serve()?;
    assert!(serving.is_running()?);
    assert_eq!(
        place.psql("READ_REPLICATION_SLOT received")?,
        format!("physical|{end}|1")
    );
    assert_eq!(place.psql("READ_REPLICATION_SLOT reserved")?, read);
    assert_eq!(serving.terminate(SHORT)?.code(), Some(0));
    Ok(())
}

#[test]
fn a_sender_that_shuts_down_saves_what_it_heard_last() -> Result<()> {
    let place = Place::new()?;
    let serving = place.serve()?;
    let target = place.work.make_dir("wal")?.display().to_string();
    // pg_receivewal ends when it has more than it was told to.
    let end = Lsn(place.end.0 - 1).to_string();
    place.psql("CREATE_REPLICATION_SLOT a PHYSICAL RESERVE_WAL")?;
    let before = place.list()?;
    // Ends at once when it has all, with its last report.
    pg_receivewal(
        &place.work,
        &place.conninfo(),
        &["-S", "a", "-D", &target, "--endpos", &end],
    )?
    .succeed(LONG)?;
    let read = place.psql("READ_REPLICATION_SLOT a")?;
    assert_eq!(serving.terminate(SHORT)?.code(), Some(0));
    let after = place.list()?;
    assert_ne!(before, after, "the slot has moved");
    let saved = after.get("a").cloned().flatten().unwrap_or_default();
    assert_eq!(read, format!("physical|{saved}|1"));
    Ok(())
}

#[test]
fn slots_are_made_and_dropped_without_a_sender_and_only_listed_beside_one() -> Result<()> {
    let place = Place::new()?;
    let directory = place.slots.display().to_string();
    place
        .slot(&["list"])?
        .run(SHORT)?
        .expect_failure(8, &[&directory])?;
    place
        .slot(&["drop", "a"])?
        .run(SHORT)?
        .expect_failure(8, &[&directory])?;
    ensure!(!place.slots.exists(), "only create makes it");
    place
        .slot(&["create", "a_1", "--restart-lsn", "0/2000028"])?
        .succeed(SHORT)?;
    place.slot(&["create", "b"])?.succeed(SHORT)?;
    place
        .slot(&["create", "b"])?
        .run(SHORT)?
        .expect_failure(1, &["replication slot \"b\" already exists"])?;
    let bad = place.slot(&["create", "B-2"])?.run(SHORT)?;
    bad.expect_failure(
        2,
        &["replication slot name \"B-2\" contains invalid character"],
    )?;
    let table = place.slot(&["list"])?.succeed(SHORT)?.stdout;
    let expected = "
 slot_name | slot_type | temporary | active | active_pid | xmin | catalog_xmin | restart_lsn | wal_status | safe_wal_size
-----------+-----------+-----------+--------+------------+------+--------------+-------------+------------+---------------
 a_1       | physical  | f         | f      |            |      |              | 0/2000028   |            |
 b         | physical  | f         | f      |            |      |              |             |            |
";
    assert_eq!(format!("\n{table}"), expected);

    let serving = place.serve()?;
    assert_eq!(
        place.psql("READ_REPLICATION_SLOT a_1")?,
        "physical|0/2000028|1"
    );
    let advice = [
        "in use by another process",
        "CREATE_REPLICATION_SLOT",
        "replication=1",
        &serving.pid().to_string(),
    ];
    place
        .slot(&["create", "c"])?
        .run(SHORT)?
        .expect_failure(9, &advice)?;
    place
        .slot(&["drop", "b"])?
        .run(SHORT)?
        .expect_failure(9, &advice)?;
    place
        .serve_program()?
        .run(SHORT)?
        .expect_failure(9, &advice)?;
    let listed = place.slot(&["list", "--json"])?.succeed(SHORT)?.json()?;
    assert_eq!(
        listed["used_by"].as_u64(),
        u64::try_from(serving.pid().as_raw_nonzero().get()).ok()
    );
    assert!(
        listed["slots"][0]["active"].is_null(),
        "who uses it, only the sender knows"
    );
    assert_eq!(listed["slots"].as_array().map(Vec::len), Some(2));
    serving.kill_9()?;

    place.slot(&["drop", "b", "a_1"])?.succeed(SHORT)?;
    place
        .slot(&["drop", "b"])?
        .run(SHORT)?
        .expect_failure(5, &["replication slot \"b\" does not exist"])?;
    assert!(place.list()?.is_empty());
    Ok(())
}

#[test]
fn a_damaged_slot_is_refused_by_name() -> Result<()> {
    let place = Place::new()?;
    place.slot(&["create", "good"])?.succeed(SHORT)?;
    place
        .slot(&["create", "bad", "--restart-lsn", "0/2000028"])?
        .succeed(SHORT)?;
    let path = place.slots.join("bad.slot");
    let whole = fs::read(&path)?;
    let mut flipped = whole.clone();
    *flipped
        .get_mut(17)
        .ok_or_else(|| anyhow::anyhow!("a short file"))? ^= 0x40;
    let words = [
        "replication slot \"bad\" is refused",
        &path.display().to_string(),
        "remove it",
    ];
    for content in [whole.split_at(40).0, &[], &flipped] {
        fs::write(&path, content)?;
        place
            .serve_program()?
            .run(SHORT)?
            .expect_failure(7, &words)?;
        place
            .slot(&["drop", "good"])?
            .run(SHORT)?
            .expect_failure(7, &words)?;
        let listed = place.slot(&["list"])?.run(SHORT)?;
        listed.expect_failure(7, &words)?;
        ensure!(listed.stdout.contains(" good "), "{listed}");
        ensure!(fs::read(&path)? == content, "left for a person to decide");
    }
    fs::write(&path, &whole)?;
    place.serve()?.terminate(SHORT)?;
    Ok(())
}

/// The recorded server, as another version.
#[derive(Debug)]
struct AsVersion {
    server: RecordedServer,
    identity: SourceIdentity,
}

impl WalSource for AsVersion {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    fn flushed(&self) -> watch::Receiver<WalPosition> {
        self.server.flushed()
    }

    fn read(&self, timeline: TimelineId, range: Range<Lsn>) -> Result<WalPiece, SourceError> {
        self.server.read(timeline, range)
    }

    fn timeline_history(&self, timeline: TimelineId) -> Result<Option<Bytes>, SourceError> {
        self.server.timeline_history(timeline)
    }

    fn restart_lsn(&self) -> Lsn {
        self.server.restart_lsn()
    }

    fn base_backup(&self) -> Result<Option<StoredBackup>, SourceError> {
        self.server.base_backup()
    }
}

/// A sender in this process, with slots that the test has, too.
struct Served {
    runtime: Runtime,
    sender: Sender,
    slots: PhysicalSlots,
}

impl Served {
    fn start(server_version_num: u32) -> Result<Self> {
        let server = RecordedServer::at_end(Recording::open(Path::new(RECORDING))?);
        let identity = SourceIdentity {
            server_version_num,
            ..server.identity().clone()
        };
        let slots = PhysicalSlots::in_memory(10);
        let (source, config) = (
            Arc::new(AsVersion { server, identity }),
            SenderConfig::new(ListenAddress::free_port()),
        );
        let runtime = Runtime::new()?;
        let sender = runtime.block_on(Sender::start_with_slots(config, source, slots.clone()))?;
        Ok(Self {
            runtime,
            sender,
            slots,
        })
    }

    fn conninfo(&self) -> String {
        format!("{} user=postgres", self.sender.conninfo())
    }

    fn lose(&self, name: &str) -> Result<()> {
        self.slots.create(name, 1, Some(Lsn(0x10_0000)))?;
        self.slots.invalidate_obsolete(Lsn(0x20_0000))?;
        Ok(())
    }
}

/// A server with a slot `lost`, of which the WAL is gone.
fn cluster_with_lost_slot(major: u32) -> Result<Cluster> {
    let mut cluster = ClusterOptions::default()
        .programs(&server_version(major)?)
        .initdb_option("--wal-segsize=1")
        .set("max_slot_wal_keep_size", "1MB")
        .start()?;
    cluster.query("SELECT pg_create_physical_replication_slot('lost', true)")?;
    wait_for("a lost slot", LONG, || {
        cluster.switch_wal()?;
        cluster.query("CHECKPOINT")?;
        Ok(cluster.query("SELECT wal_status FROM pg_replication_slots")? == "lost")
    })?;
    cluster.alter_system("max_slot_wal_keep_size", "-1")?;
    Ok(cluster)
}

/// PostgreSQL 15 lets a lost slot be used: where the WAL is gone, the client is told that, and ends; where it is there, the
/// slot keeps WAL again.
#[test]
fn a_lost_slot_is_postgresql_15s() -> Result<()> {
    let (work, cluster, served) = (
        Workdir::new()?,
        cluster_with_lost_slot(15)?,
        Served::start(150_018)?,
    );
    served.lose("lost")?;
    let mut answers = Vec::new();
    for (name, conninfo) in [("ours", served.conninfo()), ("theirs", cluster.conninfo())] {
        let run = |command: &str| replication_command(&work, &conninfo, command);
        let mut answer = vec![run("READ_REPLICATION_SLOT lost")?];
        answer.push(run("CREATE_REPLICATION_SLOT lost PHYSICAL")?);
        // A whole segment, so that the receiver goes on with the next.
        let target = work.make_dir(name)?;
        let segment = target.join("000000010000000000000001");
        fs::write(&segment, vec![0; 1 << 20])?;
        work.own(&segment)?;
        let options = ["-n", "-S", "lost", "-D", &target.display().to_string()];
        let removed = pg_receivewal(&work, &conninfo, &options)?.run(LONG)?;
        answer.push(removed.stderr.replace(name, "target"));
        removed.expect_failure(
            1,
            &["requested WAL segment 000000010000000000000002 has already been removed"],
        )?;
        // PostgreSQL's slot may hold the receiver's first status by now: it reads what has come before it looks for WAL.
        if name == "ours" {
            assert_eq!(run("READ_REPLICATION_SLOT lost")?, "physical||");
        }
        // From the present on it works.
        fs::remove_file(&segment)?;
        let options = [
            "-S",
            "lost",
            "-D",
            &target.display().to_string(),
            "--synchronous",
        ];
        let receiving = pg_receivewal(&work, &conninfo, &options)?.start()?;
        wait_for("a slot that keeps WAL again", LONG, || {
            Ok(run("READ_REPLICATION_SLOT lost")? != "physical||")
        })?;
        receiving.terminate(SHORT)?;
        wait_for("a slot that nobody uses", SHORT, || {
            Ok(!run("DROP_REPLICATION_SLOT lost")?.contains("55006"))
        })?;
        answers.push(answer);
    }
    let theirs = answers.pop();
    assert_eq!(answers.pop(), theirs);
    Ok(())
}

#[test]
fn a_lost_slot_is_refused_as_postgresql_18_does() -> Result<()> {
    let (work, cluster, served) = (
        Workdir::new()?,
        cluster_with_lost_slot(18)?,
        Served::start(180_000)?,
    );
    served.lose("lost")?;
    for command in [
        "READ_REPLICATION_SLOT lost",
        "START_REPLICATION SLOT lost PHYSICAL 0/1000000",
        "START_REPLICATION SLOT lost PHYSICAL 0/1000000",
        "DROP_REPLICATION_SLOT lost",
        "READ_REPLICATION_SLOT lost",
    ] {
        let ours = replication_command(&work, &served.conninfo(), command)?;
        let theirs = replication_command(&work, &cluster.conninfo(), command)?;
        assert_eq!(ours, theirs, "{command}");
        ensure!(
            !command.starts_with("START") || ours.contains("55000"),
            "{ours}"
        );
    }
    Ok(())
}

#[test]
fn an_error_ends_a_temporary_slot_as_in_postgresql() -> Result<()> {
    let (work, cluster, served) = (
        Workdir::new()?,
        Cluster::started()?,
        Served::start(150_018)?,
    );
    let mut answers = Vec::new();
    for conninfo in [served.conninfo(), cluster.conninfo()] {
        let psql = work.external(&server_version(15)?.client("psql"));
        let psql = psql.args([
            "-X",
            "-A",
            "-t",
            "-d",
            &format!("{conninfo} dbname=postgres replication=true"),
        ]);
        let finished = psql
            .args([
                "-c",
                "CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL",
                "-c",
                "READ_REPLICATION_SLOT t",
            ])
            .args(["-c", "TIMELINE_HISTORY 9", "-c", "READ_REPLICATION_SLOT t"])
            .run(SHORT)?;
        answers.push(finished.stdout);
    }
    assert_eq!(answers.first(), answers.last());
    assert_eq!(
        answers.first().map(String::as_str),
        Some("t|0/0||\nphysical||\n||\n")
    );
    Ok(())
}

#[test]
fn a_slot_in_use_is_given_up_by_its_stream_when_its_wal_is_to_go() -> Result<()> {
    let (work, served) = (Workdir::new()?, Served::start(150_018)?);
    let create = "CREATE_REPLICATION_SLOT slow PHYSICAL RESERVE_WAL";
    replication_command(&work, &served.conninfo(), create)?;
    let target = work.make_dir("wal")?.display().to_string();
    let receiving = pg_receivewal(
        &work,
        &served.conninfo(),
        &["-n", "-S", "slow", "-D", &target, "--synchronous"],
    )?
    .start()?;
    wait_for("the stream", SHORT, || {
        Ok(served
            .slots
            .list()
            .iter()
            .any(|slot| slot.active_pid.is_some()))
    })?;
    let first = served.slots.invalidate_obsolete(Lsn::MAX)?;
    ensure!(
        first.in_use.len() == 1 && first.invalidated.is_empty(),
        "{first:?}"
    );
    let ended = receiving.wait(SHORT)?;
    ended.expect_failure(1, &["terminating connection due to administrator command"])?;
    let mut last = Invalidation::default();
    wait_for("the slot's end", SHORT, || {
        last = served.slots.invalidate_obsolete(Lsn::MAX)?;
        Ok(last.in_use.is_empty())
    })?;
    assert_eq!(last.invalidated.len(), 1);
    assert_eq!(
        replication_command(&work, &served.conninfo(), "READ_REPLICATION_SLOT slow")?,
        "physical||"
    );
    served.runtime.block_on(served.sender.shut_down(SHORT));
    Ok(())
}
