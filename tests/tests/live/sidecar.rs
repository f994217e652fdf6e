//! `walsender serve --data-dir --primary`, beside a running PostgreSQL: its standby and its receiver follow the sidecar through
//! restarts of either side, nothing is sent that is not flushed, and a wrong directory or server is refused.

use std::fs;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use walreceiver::demo::local_postgres::{Listen, LocalPostgres};
use walsender::primary::{Primary, PrimaryConfig, parse_conninfo};
use walsender::source::WalSource;
use walstream::wal::segment_name::SegmentName;
use walstream::{Lsn, SegmentSize};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Program, Running, SHORT, StopMode, Workdir, ensure_same_content,
    server_version, wait_for,
};

use crate::recorded_sender::replication_command;

/// A sidecar of a server, and the place where it runs.
pub(crate) struct Sidecar {
    pub(crate) work: Workdir,
    /// How it connects to the server; `None` as the superuser.
    primary: Option<String>,
    /// Further arguments.
    arguments: Vec<String>,
    running: Option<Running>,
}

impl Sidecar {
    pub(crate) fn start(primary: &Cluster) -> Result<Self> {
        Self::start_with(primary, &[])
    }

    pub(crate) fn start_with(primary: &Cluster, arguments: &[&str]) -> Result<Self> {
        Self::start_as(primary, None, arguments)
    }

    /// Starts it with this connection to the server.
    pub(crate) fn start_as(
        primary: &Cluster,
        conninfo: Option<&str>,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut sidecar = Self {
            work: Workdir::new()?,
            primary: conninfo.map(str::to_owned),
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            running: None,
        };
        sidecar.restart(primary)?;
        Ok(sidecar)
    }

    /// Starts it, again where it was killed.
    pub(crate) fn restart(&mut self, primary: &Cluster) -> Result<()> {
        let conninfo = self.primary.clone().unwrap_or_else(|| primary.conninfo());
        let program = program(&self.work, primary.data_dir(), &conninfo)?;
        let mut running = program.args(&self.arguments).start()?;
        running.wait_for_output("listening", SHORT)?;
        self.running = Some(running);
        Ok(())
    }

    pub(crate) fn running(&mut self) -> Result<Running> {
        self.running.take().context("the sidecar does not run")
    }

    pub(crate) fn conninfo(&self) -> String {
        format!(
            "host={} port=5998 user=postgres",
            self.work.path().display()
        )
    }

    pub(crate) fn stderr(&self) -> String {
        self.running
            .as_ref()
            .map(Running::stderr)
            .unwrap_or_default()
    }

    pub(crate) fn psql(&self, command: &str) -> Result<String> {
        replication_command(&self.work, &self.conninfo(), command)
    }

    /// A standby that `pg_basebackup` makes through the sidecar. Not started.
    pub(crate) fn standby(&self, primary: &Cluster, options: &[&str]) -> Result<Cluster> {
        let server =
            LocalPostgres::empty(primary.programs(), primary.user(), Listen::SocketAndTcp)?;
        let conninfo = self.conninfo();
        let target = server.data_dir().display().to_string();
        let fixed = [
            "-D",
            &target,
            "-R",
            "--no-sync",
            "-c",
            "fast",
            "-d",
            &conninfo,
        ];
        server.run("pg_basebackup", &[&fixed[..], options].concat())?;
        Ok(Cluster::from(server))
    }
}

/// A sidecar that listens at a socket in the directory.
pub(crate) fn program(work: &Workdir, data_dir: &Path, conninfo: &str) -> Result<Program> {
    let program = work
        .program("walsender")?
        .args(["serve", "--listen"])
        .arg(work.join(".s.PGSQL.5998"));
    let program = program
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--primary", conninfo]);
    Ok(program.arg("--slots").arg(work.join("slots")))
}

pub(crate) fn caught_up(standby: &Cluster, primary: &Cluster) -> Result<()> {
    let end = primary.current_lsn()?;
    wait_for(&format!("replay of {end}"), LONG, || {
        // It may just be starting.
        Ok(standby.current_lsn().is_ok_and(|lsn| lsn >= end))
    })
    .with_context(|| standby.log())
}

#[test]
fn a_standby_follows_through_restarts_and_is_promoted() -> Result<()> {
    let mut primary = Cluster::started()?;
    primary.pgbench(&["-i", "-q", "-s", "2"])?;
    let mut sidecar = Sidecar::start(&primary)?;
    let mut standby = sidecar.standby(&primary, &["-X", "stream", "-C", "-S", "follower"])?;
    standby.start()?;
    primary.pgbench(&["-n", "-c", "4", "-T", "3"])?;
    primary.query("CREATE TABLE made_meanwhile AS SELECT g FROM generate_series(1, 1000) g")?;
    caught_up(&standby, &primary)?;
    ensure!(
        primary.query("SELECT count(*) FROM pg_stat_replication")? == "0",
        "the primary's senders are idle"
    );
    let slots = primary.query("SELECT slot_name, slot_type FROM pg_replication_slots")?;
    assert_eq!(slots, "walsender_sidecar|physical");

    // A clean restart, then a crash.
    for mode in [StopMode::Fast, StopMode::Immediate] {
        primary.stop(mode)?;
        primary.start()?;
        primary.pgbench(&["-n", "-c", "2", "-t", "200"])?;
        caught_up(&standby, &primary)?;
    }
    let log = standby.log();
    ensure!(
        log.matches("started streaming WAL").count() == 1,
        "the standby stayed connected: {log}"
    );

    sidecar.running()?.kill_9()?;
    primary.pgbench(&["-n", "-t", "200"])?;
    sidecar.restart(&primary)?;
    caught_up(&standby, &primary)?;
    sidecar.running()?.terminate(SHORT)?;
    primary.switch_wal()?;
    sidecar.restart(&primary)?;
    primary.pgbench(&["-n", "-t", "200"])?;
    caught_up(&standby, &primary)?;

    standby.promote()?;
    ensure_same_content(&primary, &standby)
}

#[test]
fn pg_receivewal_receives_the_servers_segments() -> Result<()> {
    let primary = ClusterOptions::default()
        .initdb_option("--wal-segsize=1")
        .start()?;
    let sidecar = Sidecar::start(&primary)?;
    let target = sidecar.work.make_dir("wal")?;
    sidecar.psql("CREATE_REPLICATION_SLOT receiver PHYSICAL RESERVE_WAL")?;
    let receiving = sidecar
        .work
        .external(&server_version(15)?.client("pg_receivewal"));
    let receiving = receiving.args([
        "-d",
        &sidecar.conninfo(),
        "-S",
        "receiver",
        "--synchronous",
        "-D",
    ]);
    let receiving = receiving.arg(&target).start()?;
    primary.pgbench(&["-i", "-q", "-s", "1"])?;
    let last = primary.switch_wal()?;
    wait_for("the last segment", LONG, || Ok(target.join(&last).exists()))?;
    receiving.terminate(SHORT)?;
    let mut count = 0;
    for entry in fs::read_dir(&target)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if !name.contains('.') {
            ensure!(
                fs::read(entry.path())? == primary.wal_file(&name)?,
                "{name} differs"
            );
            count += 1;
        }
    }
    ensure!(count > 10, "{count} segments");
    Ok(())
}

/// The slot on the primary follows what our slots confirm, and goes on when they are dropped.
#[test]
fn the_primary_keeps_what_our_slots_need_and_no_more() -> Result<()> {
    let settings = ClusterOptions::default().initdb_option("--wal-segsize=1");
    let primary = settings
        .set("max_wal_size", "2MB")
        .set("min_wal_size", "2MB")
        .start()?;
    let sidecar = Sidecar::start(&primary)?;
    sidecar.psql("CREATE_REPLICATION_SLOT keeps PHYSICAL RESERVE_WAL")?;
    let position = sidecar.psql("READ_REPLICATION_SLOT keeps")?;
    let kept: Lsn = position.split('|').nth(1).context("a position")?.parse()?;
    let slot = || {
        primary.lsn(
            "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'walsender_sidecar'",
        )
    };
    primary.pgbench(&["-i", "-q"])?;
    for _ in 0..3 {
        primary.query("CHECKPOINT")?;
    }
    let target = sidecar.work.make_dir("wal")?;
    let end = primary.flush_lsn()?.to_string();
    ensure!(
        slot()? <= kept,
        "{} is kept for us, {kept} is needed",
        slot()?
    );
    let receive = |arguments: &[&str]| -> Result<Program> {
        let program = sidecar
            .work
            .external(&server_version(15)?.client("pg_receivewal"));
        Ok(program
            .args(["-d", &sidecar.conninfo(), "-n"])
            .args(arguments))
    };
    let target = target.display().to_string();
    receive(&["-S", "keeps", "-D", &target, "--endpos", &end])?.succeed(LONG)?;
    sidecar.psql("DROP_REPLICATION_SLOT keeps")?;
    primary.query("CHECKPOINT")?;
    let redo = primary.lsn("SELECT redo_lsn FROM pg_control_checkpoint()")?;
    wait_for("the slot on the primary to go on", LONG, || {
        Ok(slot()? == redo)
    })?;
    Ok(())
}

/// End of the WAL that was received into a directory: behind it are the zeros that `pg_receivewal` fills a segment with.
fn received_end(directory: &Path) -> Result<Lsn> {
    let size = SegmentSize::DEFAULT;
    let mut end = Lsn::INVALID;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(segment) = SegmentName::parse(name.trim_end_matches(".partial"), size) else {
            continue;
        };
        let bytes = fs::read(entry.path())?;
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            let start = segment.number.start_lsn(size).context("beyond all WAL")?;
            end = end.max(start + last as u64 + 1);
        }
    }
    Ok(end)
}

#[test]
fn no_wal_beyond_the_flush_lsn_is_sent() -> Result<()> {
    // Commits are not flushed at once, the WAL writer comes rarely, and small buffers are written before they are flushed.
    let settings = ClusterOptions::default()
        .set("synchronous_commit", "off")
        .set("wal_writer_delay", "10s")
        .set("wal_buffers", "32kB");
    let primary = settings.set("wal_writer_flush_after", "1GB").start()?;
    let sidecar = Sidecar::start(&primary)?;
    let target = sidecar.work.make_dir("wal")?;
    let receiving = sidecar
        .work
        .external(&server_version(15)?.client("pg_receivewal"));
    let receiving = receiving
        .args(["-d", &sidecar.conninfo(), "-v", "-D"])
        .arg(&target)
        .start()?;
    let sent = || -> Result<Lsn> {
        let row = sidecar.psql("IDENTIFY_SYSTEM")?;
        Ok(row.split('|').nth(2).context("a position")?.parse()?)
    };
    primary.query("CREATE TABLE t (a int)")?;
    primary.query("CHECKPOINT")?;
    let flushed = primary.flush_lsn()?;
    // What is received ends with the last byte that is not zero: a record may end with some that are.
    const ZEROS: u64 = 64;
    wait_for("the stream", SHORT, || {
        Ok(received_end(&target)? + ZEROS >= flushed)
    })
    .with_context(|| {
        format!(
            "{:?} of {flushed}, {}",
            received_end(&target),
            receiving.stderr()
        )
    })?;
    let (mut written_ahead, mut last) = (0, Lsn::INVALID);
    for _ in 0..50 {
        primary.query("INSERT INTO t SELECT generate_series(1, 1000)")?;
        // In this order: the server flushes more while we look.
        let (received, told) = (received_end(&target)?, sent()?);
        let (flushed, written) = (primary.flush_lsn()?, primary.current_lsn()?);
        ensure!(told <= flushed, "{told} was told, {flushed} is flushed");
        ensure!(
            received <= flushed,
            "WAL up to {received} came, {flushed} is flushed, {written} is written"
        );
        written_ahead += usize::from(written > flushed);
        last = written;
    }
    ensure!(
        written_ahead > 0,
        "nothing was written before it was flushed: the test proves nothing"
    );
    primary.query("CHECKPOINT")?;
    wait_for("the flushed WAL", SHORT, || {
        Ok(sent()? >= last && received_end(&target)? + ZEROS >= last)
    })?;
    receiving.terminate(SHORT)?;
    Ok(())
}

/// A port behind which another server can be put.
struct Address {
    port: u16,
    target: Arc<AtomicU16>,
}

impl Address {
    fn of(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = Self {
            port: listener.local_addr()?.port(),
            target: Arc::new(AtomicU16::new(port)),
        };
        let target = Arc::clone(&address.target);
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target.load(Ordering::SeqCst)))
                else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    if let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) {
                        thread::spawn(move || {
                            let _ = io::copy(&mut from, &mut to);
                            let _ = to.shutdown(Shutdown::Both);
                        });
                    }
                }
            }
        });
        Ok(address)
    }
}

#[test]
fn another_system_at_the_primarys_address_ends_the_sidecar() -> Result<()> {
    let mut primary = Cluster::started()?;
    let other = ClusterOptions::default().own_system().start()?;
    let address = Address::of(primary.port())?;
    let conninfo = format!(
        "host=127.0.0.1 port={} user=postgres password={}",
        address.port,
        primary.password()
    );
    let work = Workdir::new()?;
    let mut running = program(&work, primary.data_dir(), &conninfo)?.start()?;
    running.wait_for_output("listening", SHORT)?;
    other.query(&format!(
        "ALTER ROLE postgres PASSWORD '{}'",
        primary.password()
    ))?;
    address.target.store(other.port(), Ordering::SeqCst);
    primary.stop(StopMode::Fast)?;
    let expected = format!("it has system identifier {}", other.system_identifier()?);
    running
        .wait(LONG)?
        .expect_failure(6, &["the primary was replaced", &expected])
}

#[test]
fn a_wrong_directory_or_server_is_refused() -> Result<()> {
    let (work, primary) = (Workdir::new()?, Cluster::started()?);
    let nothing = work.make_dir("nothing")?;
    let conninfo = primary.conninfo();
    let refused = program(&work, &nothing, &conninfo)?.run(SHORT)?;
    refused.expect_failure(
        2,
        &[
            "is not a data directory of PostgreSQL",
            &nothing.display().to_string(),
        ],
    )?;
    let missing = program(&work, &work.join("missing"), &conninfo)?.run(SHORT)?;
    missing.expect_failure(2, &["is not a data directory of PostgreSQL"])?;

    let other = ClusterOptions::default().own_system().create()?;
    let refused = program(&work, other.data_dir(), &conninfo)?.run(SHORT)?;
    let identifier = primary.system_identifier()?.to_string();
    refused.expect_failure(
        6,
        &[
            "the server has system identifier",
            &identifier,
            "name the server's own",
        ],
    )?;

    // A copy has the same system identifier.
    let copy = ClusterOptions::default().create()?;
    let refused = program(&work, copy.data_dir(), &conninfo)?.run(SHORT)?;
    refused.expect_failure(
        6,
        &[
            "the server's data directory is",
            &copy.data_dir().display().to_string(),
        ],
    )?;

    let unreachable = program(&work, primary.data_dir(), "host=/nowhere port=1")?.run(SHORT)?;
    unreachable.expect_failure(3, &["cannot connect to the primary"])?;
    let bad = program(&work, primary.data_dir(), "host")?.run(SHORT)?;
    bad.expect_failure(2, &["--primary"])?;

    let _first = Sidecar::start(&primary)?;
    let second = program(&work, primary.data_dir(), &conninfo)?.run(LONG)?;
    second.expect_failure(
        9,
        &[
            "another walsender uses the replication slot \"walsender_sidecar\"",
            "--primary-slot",
        ],
    )
}

/// The primary is stopped, starts as a standby, and is promoted: its new timeline begins within a segment, and what follows it
/// goes over to it, from before the switch too.
#[test]
fn standbys_follow_the_primary_to_its_new_timeline() -> Result<()> {
    let mut primary = Cluster::started()?;
    primary.pgbench(&["-i", "-q"])?;
    let sidecar = Sidecar::start(&primary)?;
    let mut standby = sidecar.standby(&primary, &["-X", "stream"])?;
    let mut late = sidecar.standby(&primary, &["-X", "stream", "-C", "-S", "late"])?;
    standby.start()?;
    primary.pgbench(&["-n", "-t", "100"])?;
    caught_up(&standby, &primary)?;
    primary.stop(StopMode::Fast)?;
    primary.write_file(&primary.data_dir().join("standby.signal"), "")?;
    primary.start()?;
    primary.pgbench(&["-n", "-S", "-t", "10"])?;
    primary.promote()?;
    primary.pgbench(&["-n", "-t", "100"])?;
    caught_up(&standby, &primary)?;
    late.start()?;
    caught_up(&late, &primary)?;
    let history = sidecar.psql("TIMELINE_HISTORY 2")?;
    ensure!(history.starts_with("00000002.history|"), "{history}");
    let anew = sidecar.standby(&primary, &["-X", "fetch"])?;
    let verifying = sidecar
        .work
        .external(&server_version(15)?.client("pg_verifybackup"));
    // -R adds to the settings.
    let verifying = verifying.args(["-i", "postgresql.auto.conf", "-i", "standby.signal"]);
    verifying.arg(anew.data_dir()).succeed(LONG)?;
    for server in [&standby, &late] {
        server.promote()?;
    }
    ensure_same_content(&primary, &standby)?;
    ensure_same_content(&primary, &late)
}

/// From the moment at which the server answers a commit to the one at which the source knows of its flush. Prints the figures;
/// the limit is many times what they are on an idle machine.
#[test]
fn a_flush_is_known_soon() -> Result<()> {
    let primary = Cluster::started()?;
    primary.query("CREATE TABLE t (a int)")?;
    let config = PrimaryConfig {
        max_slot_wal_keep_size: None,
        data_directory: primary.data_dir().to_owned(),
        conninfo: parse_conninfo(&primary.conninfo(), |_| None)?,
        slot: "walsender_delay".to_owned(),
    };
    let runtime = Runtime::new()?;
    let source = runtime.block_on(Primary::start(config))?;
    let (told, knows) = mpsc::channel();
    let mut flushed = source.flushed();
    runtime.spawn(async move {
        while flushed.changed().await.is_ok() {
            let lsn = flushed.borrow_and_update().lsn;
            let _ = told.send((lsn, SystemTime::now()));
        }
    });
    for (name, pause) in [
        ("after pauses of 30 ms", "SELECT pg_sleep(0.03);"),
        ("one after the other", ""),
    ] {
        let statement = "INSERT INTO t VALUES (1);
            SELECT pg_current_wal_flush_lsn() || ' ' || (extract(epoch from clock_timestamp()) * 1000000)::bigint;";
        let script = format!("{pause} {statement}\n").repeat(200);
        let file = primary.scratch().join("commits.sql");
        fs::write(&file, script)?;
        let file = file.display().to_string();
        let conninfo = format!("{} dbname=postgres", primary.conninfo());
        let printed = primary.run(
            "psql",
            &["-X", "-A", "-t", "-q", "-d", &conninfo, "-f", &file],
        )?;
        let mut delays = Vec::new();
        let mut known = (Lsn::INVALID, SystemTime::UNIX_EPOCH);
        for line in printed.lines() {
            let Some((lsn, micros)) = line.split_once(' ') else {
                continue;
            };
            let (lsn, committed) = (lsn.parse::<Lsn>()?, Duration::from_micros(micros.parse()?));
            while known.0 < lsn {
                known = knows.recv_timeout(SHORT)?;
            }
            let known_at = known.1.duration_since(SystemTime::UNIX_EPOCH)?;
            delays.push(known_at.saturating_sub(committed));
        }
        delays.sort();
        ensure!(delays.len() == 200, "{} commits in {printed}", delays.len());
        let (median, p99) = (delays[100], delays[198]);
        println!("a flush is known, {name}: median {median:?}, p99 {p99:?}");
        ensure!(median < Duration::from_millis(100), "{name}: {median:?}");
    }
    Ok(())
}

/// The primary is replaced by one restored from an earlier backup, without the WAL that came after it.
#[test]
fn a_primary_that_went_back_ends_the_sidecar() -> Result<()> {
    let mut primary = Cluster::started()?;
    primary.pgbench(&["-i", "-q"])?;
    let mut sidecar = Sidecar::start(&primary)?;
    let backup = sidecar.work.join("earlier");
    let base_backup = sidecar
        .work
        .external(&server_version(15)?.client("pg_basebackup"));
    base_backup
        .args(["-d", &sidecar.conninfo(), "-c", "fast", "-D"])
        .arg(&backup)
        .succeed(LONG)?;
    primary.pgbench(&["-n", "-t", "500"])?;
    let served = primary.flush_lsn()?;
    wait_for("the sidecar's flush LSN", SHORT, || {
        let row = sidecar.psql("IDENTIFY_SYSTEM")?;
        Ok(row
            .split('|')
            .nth(2)
            .and_then(|lsn| lsn.parse::<Lsn>().ok())
            .is_some_and(|lsn| lsn >= served))
    })?;
    primary.stop(StopMode::Immediate)?;
    // Restored from the backup, without the WAL that came after it.
    let away = primary.data_dir().with_extension("away");
    fs::rename(primary.data_dir(), &away)?;
    fs::rename(&backup, primary.data_dir())?;
    primary.start()?;
    let ended = sidecar.running()?.wait(LONG)?;
    ended.expect_failure(
        6,
        &["the primary went back", "have to be rewound or made anew"],
    )
}
