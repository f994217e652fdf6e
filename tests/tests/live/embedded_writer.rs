//! A service with a log of its own, which is WAL: `pg_waldump` reads it, `pg_receivewal` and `walreceiver receive` follow it,
//! and what was acknowledged is on the required standbys, whatever was killed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;
use walsender::slot::PhysicalSlots;
use walsender::writer::{LogControl, LogicalMessage, WaitError, WalWriter, WriterOptions};
use walsender::{ListenAddress, Sender, SenderConfig};
use walstream::sync::{StandbyNames, SyncRule, WaitMode};
use walstream::types::{ForkNumber, RelFileLocator, RmgrId};
use walstream::wal::encode::{BodyParts, ImagePacker, NewRecord};
use walstream::wal::{BlockRef, WalDecoder};
use walstream::{Dialect, Lsn, PgMajor, SegmentSize};
use walstream_tests::waldump::{decode_segments, ensure_equal, normal, pg_waldump};
use walstream_tests::{
    LONG, PostgresPrograms, Program, Random, Receivewal, Running, SHORT, Workdir, file_names,
    server_version, wait_for,
};

/// Size of the ledger's segments in bytes, the default.
const SEGMENT: u64 = 16 << 20;

/// The bytes of a directory's segments, in their order; of those that are being received, too.
fn segments(directory: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for name in file_names(directory)? {
        if name.starts_with("00000001") {
            bytes.extend(fs::read(directory.join(name))?);
        }
    }
    Ok(bytes)
}

/// The messages in a directory of segments from the log's beginning, and where they end.
fn messages(directory: &Path, dialect: Dialect) -> Result<(BTreeSet<String>, Lsn)> {
    let bytes = segments(directory)?;
    let mut decoder = WalDecoder::new(dialect, Lsn(dialect.segment_size.bytes()));
    let mut found = BTreeSet::new();
    let mut feed = decoder.feed(&bytes);
    while let Ok(Some(record)) = feed.next_record() {
        if record.header.rmgr == LogicalMessage::RMGR {
            let message = LogicalMessage::parse(record.main_data()?, 0).context("a message")?;
            found.insert(String::from_utf8(message.payload.to_vec())?);
        }
    }
    Ok((found, decoder.valid_end()))
}

fn give_to_the_user(work: &Workdir, directory: &Path) -> Result<()> {
    work.own(directory)?;
    for name in file_names(directory)? {
        work.own(&directory.join(name))?;
    }
    Ok(())
}

/// Appends records of many sizes and managers, over several segments.
async fn append_all_kinds(log: &WalWriter, random: &mut Random) -> Result<()> {
    // An empty page: where its line pointers end, where its rows begin and end, its size and version.
    let mut page = vec![0; 8192];
    let header = [24u16, 8192, 8192, 8192 | 4].map(u16::to_le_bytes);
    if let Some(place) = page.get_mut(12..20) {
        place.copy_from_slice(header.as_flattened());
    }
    let mut packer = ImagePacker::default();
    for number in 0..300u32 {
        let payload = vec![b'p'; usize::try_from(random.next() % 30_000)?];
        let record = match number % 5 {
            0 | 1 => {
                let message = LogicalMessage {
                    is_transactional: number % 2 == 0,
                    xid: 700 + number,
                    ..LogicalMessage::new("writer", &payload)
                };
                log.append_message(&message).await?
            }
            2 if log.control().dialect.major >= PgMajor::V15 => {
                let record = NewRecord {
                    rmgr: RmgrId(128),
                    info: 0x10,
                    xid: 3,
                    body: BodyParts {
                        main_data: &payload,
                        ..BodyParts::default()
                    }
                    .into(),
                };
                log.append(&record).await?
            }
            3 => {
                let image = packer.pack(&page, 0..0, None, &log.control().dialect)?;
                let blocks = [BlockRef {
                    id: 0,
                    locator: RelFileLocator {
                        tablespace: 1663,
                        database: 5,
                        relation: 16_384,
                    },
                    fork: ForkNumber::Main,
                    block: number,
                    will_init: false,
                    image: Some(image),
                    data: &[],
                }];
                let record = NewRecord {
                    rmgr: RmgrId::XLOG,
                    info: 0xB0,
                    xid: 0,
                    body: BodyParts {
                        blocks: &blocks,
                        ..BodyParts::default()
                    }
                    .into(),
                };
                log.append(&record).await?
            }
            _ if number % 50 == 4 => log.switch_segment().await?,
            _ => {
                log.append_message(&LogicalMessage::new("", b"small"))
                    .await?
            }
        };
        if random.next().is_multiple_of(4) {
            log.flush(record.end_lsn).await?;
        }
    }
    Ok(())
}

#[test]
fn pg_waldump_reads_what_was_appended() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    for major in [14, 15, 16, 17, 18] {
        let programs = server_version(major)?;
        let work = Workdir::new()?;
        let directory = work.make_dir("log")?;
        let control = LogControl::new(PgMajor::from_number(major).context("known")?)
            .with_segment_size(SegmentSize::MIN);
        let log = WalWriter::create(&directory, &control, WriterOptions::default())?;
        runtime.block_on(append_all_kinds(&log, &mut Random::seeded()))?;
        let end = log.appended_lsn();
        runtime.block_on(log.close())?;
        drop(log);
        let wal = directory.join("pg_wal");
        give_to_the_user(&work, &wal)?;
        let range = (control.start_lsn + 40, end);
        let options = ["--bkp-details"];
        let theirs = pg_waldump(&work, &programs, &wal, control.timeline, range, &options)?
            .context("every version from 14 on has the program")?;
        let ours = decode_segments(&segments(&wal)?, usize::MAX)?;
        ensure!(ours.end.lsn == end, "{:?} is not {end}", ours.end);
        ensure!(ours.lines.len() > 300, "{} lines", ours.lines.len());
        ensure_equal(&ours.lines, &normal(&theirs, &control.dialect)?)?;
        for text in ["MESSAGE", "prefix \"writer\"", "NOOP", "SWITCH"] {
            ensure!(theirs.contains(text), "{text} in version {major}");
        }
        ensure!(major < 15 || theirs.contains("custom128"), "{theirs}");
    }
    Ok(())
}

/// A log in this process and its sender, on a socket in a directory.
struct Service {
    work: Workdir,
    runtime: tokio::runtime::Runtime,
    log: WalWriter,
    slots: PhysicalSlots,
    sender: Sender,
}

impl Service {
    fn start(rule: SyncRule) -> Result<Self> {
        let work = Workdir::new()?;
        let runtime = tokio::runtime::Runtime::new()?;
        let slots = PhysicalSlots::in_memory(10);
        let options = WriterOptions {
            slots: Some(slots.clone()),
            recent_size: 1 << 20,
            ..WriterOptions::default()
        };
        let control = LogControl::new(PgMajor::V15).with_segment_size(SegmentSize::MIN);
        let log = WalWriter::create(&work.join("log"), &control, options)?;
        let config = SenderConfig {
            sync_rule: rule,
            ..SenderConfig::new(ListenAddress::free_port())
        };
        let start = Sender::start_with_slots(config, Arc::new(log.clone()), slots.clone());
        let sender = runtime.block_on(start)?;
        Ok(Self {
            work,
            runtime,
            log,
            slots,
            sender,
        })
    }

    fn append(&self, payload: &str) -> Result<Lsn> {
        let message = LogicalMessage::new("s", payload.as_bytes());
        let record = self.runtime.block_on(self.log.append_message(&message))?;
        Ok(record.end_lsn)
    }

    fn wait(&self, lsn: Lsn, mode: WaitMode, limit: Duration) -> Result<(), WaitError> {
        self.runtime.block_on(async {
            let deadline = Instant::now() + limit;
            self.log.wait(&self.sender, lsn, mode, Some(deadline)).await
        })
    }
}

fn names(text: &str) -> Result<SyncRule> {
    Ok(SyncRule::from(StandbyNames::parse(text)?))
}

#[test]
fn receivers_follow_a_service_and_waits_end_when_they_have_it() -> Result<()> {
    let service = Service::start(names("FIRST 2 (theirs, ours)")?)?;
    let wal = service.work.join("log/pg_wal");
    let lsn = service.append("alone")?;
    service.wait(lsn, WaitMode::Local, LONG)?;
    let error = service.wait(lsn, WaitMode::RemoteFlush, Duration::from_millis(50));
    ensure!(
        matches!(error, Err(WaitError::Deadline { lsn: at, mode: WaitMode::RemoteFlush }) if at == lsn),
        "{error:?}"
    );
    // They begin behind, and get what was there from files.
    for number in 0..300 {
        service.append(&format!("{number} {}", "x".repeat(20_000)))?;
    }
    let programs = server_version(15)?;
    let (theirs, ours) = (Receivewal::theirs(&programs)?, Receivewal::ours()?);
    service
        .slots
        .create("kept", 1, Some(service.log.oldest_lsn()))?;
    let conninfo = |name: &str| format!("{} application_name={name}", service.sender.conninfo());
    let follow = |program: Program, name: &str| {
        let program = program.args(["--synchronous", "-D", "archive", "-d"]);
        program.arg(conninfo(name)).start()
    };
    let their_run = follow(theirs.command(["-S", "kept"]), "theirs")?;
    let our_run = follow(ours.own_name::<&str>([])?, "ours")?;
    for number in 0..100 {
        let lsn = service.append(&format!("live {number}"))?;
        service.wait(lsn, WaitMode::RemoteFlush, LONG)?;
        for standby in service.sender.standbys() {
            ensure!(standby.flush_lsn >= lsn, "{standby:?}");
        }
    }
    let lsn = service.append("end")?;
    service.wait(lsn, WaitMode::RemoteWrite, LONG)?;
    service.wait(lsn, WaitMode::RemoteFlush, LONG)?;
    // Receivers apply nothing. A wait that is given up, and a rule that asks for no standby, end it.
    let error = service.wait(lsn, WaitMode::RemoteApply, Duration::from_millis(50));
    ensure!(
        matches!(error, Err(WaitError::Deadline { .. })),
        "{error:?}"
    );
    let waiting = service.sender.wait_for(lsn, WaitMode::RemoteApply);
    let waiting = service.runtime.spawn(waiting);
    let count = || service.sender.view().status().sync.waiting_commits;
    wait_for("a commit that waits", SHORT, || Ok(count().replay == 1))?;
    ensure!(count().total() == 1, "{:?}", count());
    service.sender.set_sync_rule(SyncRule::Off);
    service.runtime.block_on(waiting)??;
    ensure!(count().total() == 0, "{:?}", count());
    service.wait(lsn, WaitMode::RemoteApply, LONG)?;
    their_run.terminate(SHORT)?;
    our_run.terminate(SHORT)?;
    let (appended, end) = messages(&wal, service.log.control().dialect)?;
    ensure!(
        end == lsn && appended.len() == 402,
        "{end}, {}",
        appended.len()
    );
    // The slot kept what pg_receivewal had begun with; our receiver began where the log was.
    let (received, received_to) = messages(&theirs.archive(), service.log.control().dialect)?;
    ensure!(received == appended && received_to == end, "{received_to}");
    let our_files = file_names(&ours.archive())?;
    let last = our_files.last().context("it has received")?;
    let theirs_last = fs::read(theirs.archive().join(last))?;
    ensure!(
        fs::read(ours.archive().join(last))? == theirs_last,
        "{last}"
    );
    // The service needs nothing any more, and the slot only what was not confirmed.
    service.log.release(lsn);
    service.log.remove_old_segments()?;
    ensure!(
        service.log.oldest_lsn() > Lsn(5 << 20),
        "{}",
        service.log.oldest_lsn()
    );
    service.runtime.block_on(async {
        service.sender.shut_down(SHORT).await;
        service.log.close().await
    })?;
    Ok(())
}

/// A ledger, which is the example of the library, and the standbys that it requires.
struct Scene {
    work: Workdir,
    theirs: Receivewal,
    ours: Receivewal,
}

impl Scene {
    fn new(programs: &PostgresPrograms) -> Result<Self> {
        let work = Workdir::new()?;
        work.place_program("ledger", Path::new(env!("CARGO_BIN_EXE_ledger")))?;
        work.make_dir("log")?;
        Ok(Self {
            work,
            theirs: Receivewal::theirs(programs)?,
            ours: Receivewal::ours()?,
        })
    }

    fn start(&self, lines: &str) -> Result<Running> {
        let program = self.work.external(&self.work.join("ledger"));
        let mut running = program
            .args(["--directory", "log", "--patience", "100"])
            .args(["--standbys", "FIRST 2 (theirs, ours)", "--listen"])
            .arg(self.work.join(".s.PGSQL.5999"))
            .stdin(lines)
            .start()?;
        running.wait_for_output("serving at", SHORT)?;
        Ok(running)
    }

    fn follow(&self) -> Result<(Running, Running)> {
        self.remove_unfinished_file()?;
        let conninfo = |name: &str| {
            let directory = self.work.path().display();
            format!("host={directory} port=5999 application_name={name}")
        };
        let arguments = ["--synchronous", "-D", "archive", "-d"];
        let theirs = self.theirs.command(arguments).arg(conninfo("theirs"));
        let ours = self.ours.own_name(arguments)?.arg(conninfo("ours"));
        Ok((theirs.start()?, ours.start()?))
    }

    /// `pg_receivewal` fills a new file with zeros, and when it was killed meanwhile it does not go on: it says for ever that
    /// the file "should be 0 or 16777216" bytes. Nothing was received into such a file.
    fn remove_unfinished_file(&self) -> Result<()> {
        let archive = self.theirs.archive();
        if !archive.exists() {
            return Ok(());
        }
        for name in file_names(&archive)? {
            let path = archive.join(&name);
            if name.ends_with(".partial") && fs::metadata(&path)?.len() < SEGMENT {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.work.join("log/pg_wal")
    }
}

/// Entries that were answered with `ok`: whole lines only, as the last may be cut.
fn acknowledged(stdout: &str) -> impl Iterator<Item = &str> {
    let whole = stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .filter_map(|line| line.strip_prefix("ok ")?.split_once(' '))
        .map(|(_, entry)| entry)
}

#[test]
fn what_was_acknowledged_is_on_the_required_standbys_when_the_service_is_killed() -> Result<()> {
    const ROUNDS: usize = 6;
    const LINES: usize = 30_000;
    let scene = Scene::new(&server_version(15)?)?;
    let dialect = Dialect::with_default_sizes(PgMajor::V15);
    let mut random = Random::seeded();
    let mut all = BTreeSet::new();
    let padding = "x".repeat(1500);
    for round in 0..ROUNDS {
        let mut lines = String::new();
        for number in 0..LINES {
            writeln!(lines, "{round}-{number}-{padding}")?;
        }
        let mut ledger = scene.start(&lines)?;
        let before = all.len();
        let (mut theirs, mut ours) = scene.follow()?;
        let enough = usize::try_from(1 + random.next() % 4000)?;
        let waited = wait_for("acknowledged entries", LONG, || {
            for program in [&mut ledger, &mut theirs, &mut ours] {
                ensure!(program.is_running()?, "{}", program.stderr());
            }
            Ok(acknowledged(&ledger.stdout()).count() >= enough)
        });
        waited.with_context(|| format!("{}{}", theirs.stderr(), ours.stderr()))?;
        // The standbys may die with it.
        let killed = if round % 2 == 0 {
            let killed = ledger.kill_9()?;
            theirs.kill_9()?;
            ours.kill_9()?;
            killed
        } else {
            theirs.kill_9()?;
            ours.kill_9()?;
            ledger.kill_9()?
        };
        all.extend(acknowledged(&killed.stdout).map(str::to_owned));
        ensure!(all.len() >= before + enough, "round {round}");
        ensure!(!killed.stdout.contains("failed"), "{killed}");
        let places = [scene.log(), scene.theirs.archive(), scene.ours.archive()];
        let mut ends = Vec::new();
        for place in &places {
            let (found, end) = messages(place, dialect)?;
            if let Some(missing) = all.iter().find(|entry| !found.contains(*entry)) {
                bail!(
                    "round {round}: {} is missing in {}, which ends at {end}",
                    &missing.chars().take(20).collect::<String>(),
                    place.display()
                );
            }
            ends.push(end);
        }
        ensure!(
            ends.iter().all(|end| *end <= ends[0]),
            "a standby is ahead: {ends:?}"
        );
    }
    ensure!(all.len() < ROUNDS * LINES, "every round was cut short");
    // It goes on, with everything, and ends in order.
    let ledger = scene.start("the end\n")?;
    let (theirs, ours) = scene.follow()?;
    let finished = ledger.wait(LONG)?;
    ensure!(finished.code() == Some(0), "{finished}");
    ensure!(acknowledged(&finished.stdout).eq(["the end"]), "{finished}");
    theirs.kill_9()?;
    ours.kill_9()?;
    Ok(())
}
