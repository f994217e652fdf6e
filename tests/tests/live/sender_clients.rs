//! Clients of our sender that behave badly, and files that do: each is survived, and the other standbys do not notice.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use walsender::source::WalSource;
use walsender::source::recording::{RecordedServer, Recording};
use walsender::{ListenAddress, Sender, SenderConfig};
use walstream::Lsn;
use walstream::PgTimestamp;
use walstream::protocol::copy::{StandbyMessage, StandbyStatusUpdate};
use walstream::protocol::message::{
    FrameHeader, FrontendMessage, ProtocolVersion, StartupMessage, StartupRequest,
    max_backend_length,
};
use walstream_tests::{LONG, Receivewal, SHORT, Signal, wait_for};

use crate::recorded_sender::RECORDING;
use crate::serve_archive::{SEGMENT, archived, begin_at, ensure_same_wal, first_segment, wal_in};

/// Name of a socket that nobody looks for.
const SOCKET: &str = ".s.PGSQL.5432";

/// A connection without a client library.
pub(crate) struct RawClient<S = TcpStream>(pub(crate) S);

impl RawClient {
    pub(crate) fn connect(port: u16, application_name: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(SHORT))?;
        Self::begin(stream, application_name)
    }
}

impl<S: Read + Write> RawClient<S> {
    pub(crate) fn begin(stream: S, application_name: &str) -> Result<Self> {
        let mut client = Self(stream);
        let mut bytes = BytesMut::new();
        StartupRequest::Startup(StartupMessage {
            version: ProtocolVersion::V3_0,
            parameters: vec![
                ("user", "postgres"),
                ("replication", "true"),
                ("application_name", application_name),
            ],
        })
        .encode(&mut bytes);
        client.0.write_all(&bytes)?;
        client.until(b'Z')?;
        Ok(client)
    }

    pub(crate) fn query(&mut self, text: &str) -> Result<()> {
        let mut bytes = BytesMut::new();
        FrontendMessage::Query { text }.encode(&mut bytes);
        Ok(self.0.write_all(&bytes)?)
    }

    pub(crate) fn start(&mut self, at: Lsn) -> Result<()> {
        self.query(&format!("START_REPLICATION PHYSICAL {at}"))?;
        self.until(b'W')?;
        Ok(())
    }

    pub(crate) fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; FrameHeader::LEN];
        self.0.read_exact(&mut head)?;
        let header = FrameHeader::parse(&head, max_backend_length)?.context("a whole header")?;
        let mut content = vec![0; header.content_len];
        self.0.read_exact(&mut content)?;
        Ok((header.tag, content))
    }

    /// Reads up to a message of this kind, or an error.
    pub(crate) fn until(&mut self, tag: u8) -> Result<Vec<u8>> {
        loop {
            match self.message()? {
                (found, content) if found == tag => return Ok(content),
                (b'E', content) => bail!("{}", String::from_utf8_lossy(&content)),
                _ => {}
            }
        }
    }

    /// The WAL of the next messages, from `at` to `end`.
    pub(crate) fn wal(&mut self, at: Lsn, end: Lsn) -> Result<Vec<u8>> {
        let mut wal = Vec::new();
        while at.0 + (wal.len() as u64) < end.0 {
            let content = self.until(b'd')?;
            if content.first() == Some(&b'w') {
                let start = content.get(1..9).context("a header")?;
                ensure!(u64::from_be_bytes(start.try_into()?) == at.0 + wal.len() as u64);
                wal.extend(content.get(25..).context("a header")?);
            }
        }
        Ok(wal)
    }

    pub(crate) fn report(&mut self, write: Lsn, flush: Lsn) -> Result<()> {
        Ok(self.0.write_all(&Self::status_update(write, flush))?)
    }

    /// Asks for old rows to be kept, or whatever it says.
    pub(crate) fn send(&mut self, message: &StandbyMessage) -> Result<()> {
        Ok(self.0.write_all(&Self::framed(message))?)
    }

    /// It asks for an answer.
    fn status_update(write: Lsn, flush: Lsn) -> BytesMut {
        Self::framed(&StandbyMessage::StatusUpdate(StandbyStatusUpdate {
            write_lsn: write,
            flush_lsn: flush,
            apply_lsn: Lsn::INVALID,
            sent_at: PgTimestamp(1),
            reply_requested: true,
        }))
    }

    fn framed(message: &StandbyMessage) -> BytesMut {
        let (mut payload, mut bytes) = (BytesMut::new(), BytesMut::new());
        message.encode(&mut payload);
        FrontendMessage::CopyData(&payload).encode(&mut bytes);
        bytes
    }
}

/// The error that a command ends with.
pub(crate) fn refused(port: u16, command: &str) -> Result<String> {
    let mut client = RawClient::connect(port, "refused")?;
    client.query(command)?;
    match client.until(b'Z') {
        Ok(_) => bail!("{command} is not refused"),
        Err(error) => Ok(error.to_string()),
    }
}

#[test]
fn twenty_followers_at_once() -> Result<()> {
    let (primary, filled, end) = archived("gzip")?;
    let mut served = filled.serve(&[])?;
    let first = first_segment(&filled.archive)?;
    let last = Lsn(end.0 - 1).to_string();
    let mut followers = Vec::new();
    for number in 0..20 {
        let side = match number % 2 {
            0 => Receivewal::theirs(primary.programs())?,
            _ => Receivewal::ours()?,
        };
        begin_at(&side, &first)?;
        let running = side
            .command(["-D", "archive", "-n", "-E", &last, "-d", served.conninfo()])
            .start()?;
        followers.push((side, running));
    }
    for (side, running) in followers {
        let finished = running.wait(LONG)?;
        ensure!(finished.code() == Some(0), "{finished}");
        ensure_same_wal(&filled.archive.archive(), &side.archive(), end)?;
    }
    ensure!(served.running().is_running()?);
    Ok(())
}

/// A slow client, one that vanishes within a message, one that sends garbage and one that says impossible things; another
/// gets everything meanwhile.
#[test]
fn bad_clients_do_not_disturb_others() -> Result<()> {
    let (primary, filled, end) = archived("none")?;
    let mut served = filled.serve(&["--wal-sender-timeout", "2"])?;
    let (start, wal) = wal_in(&filled.archive.archive(), end)?;
    let port = served.port()?;
    let mut slow = RawClient::connect(port, "slow")?;
    slow.start(start)?;
    let mut vanishes = RawClient::connect(port, "vanishes")?;
    vanishes.start(start)?;
    vanishes.0.read_exact(&mut [0; 1000])?;
    drop(vanishes);
    let mut garbage = RawClient::connect(port, "garbage")?;
    garbage.start(start)?;
    garbage.0.write_all(b"d\0\0\0\x0Fnot a message")?;
    let error = garbage.until(b'Z').unwrap_err().to_string();
    ensure!(error.contains("08P01"), "{error}");
    let mut odd = RawClient::connect(port, "odd")?;
    odd.start(start)?;
    odd.report(start, end)?;
    odd.report(end, start)?;
    ensure!(odd.wal(start, end)? == wal, "the odd one gets everything");
    served
        .running()
        .wait_for_output("the standby reports more flushed", SHORT)?;

    let follower = Receivewal::theirs(primary.programs())?;
    begin_at(&follower, &first_segment(&filled.archive)?)?;
    let last = Lsn(end.0 - 1).to_string();
    follower
        .command(["-D", "archive", "-n", "-E", &last, "-d", served.conninfo()])
        .succeed(LONG)?;
    ensure_same_wal(&filled.archive.archive(), &follower.archive(), end)?;
    // A client that says nothing is cut off, and what it was sent until then is right.
    served
        .running()
        .wait_for_output("due to replication timeout", LONG)?;
    let mut rest = Vec::new();
    let _ = slow.0.read_to_end(&mut rest);
    Ok(())
}

/// A segment that is gone, one that was cut: an error for the one who needs it, with PostgreSQL's words; others go on.
#[test]
fn files_that_vanish_or_are_cut() -> Result<()> {
    let (primary, filled, end) = archived("none")?;
    let mut served = filled.serve(&[])?;
    let archive = filled.archive.archive();
    let (start, wal) = wal_in(&archive, end)?;
    let port = served.port()?;
    // This one is at the end already.
    let near_end = Lsn(end.0 / SEGMENT * SEGMENT);
    let mut other = RawClient::connect(port, "other")?;
    other.start(near_end)?;
    let skipped = usize::try_from(near_end.saturating_sub(start))?;
    ensure!(other.wal(near_end, end)? == wal[skipped..]);

    let names = filled.archive.files()?;
    let [first, second, third, ..] = &names[..] else {
        bail!("too few segments")
    };
    let stream = |lsn: Lsn| refused(port, &format!("START_REPLICATION PHYSICAL {lsn}"));
    fs::remove_file(archive.join(first))?;
    let error = stream(start)?;
    let words = format!("requested WAL segment {first} has already been removed");
    ensure!(error.contains("58P01") && error.contains(&words), "{error}");

    let cut = OpenOptions::new().write(true).open(archive.join(second))?;
    cut.set_len(300_000)?;
    let error = stream(Lsn(start.0 + SEGMENT))?;
    ensure!(
        error.contains("XX001") && error.contains("could not read from log segment"),
        "{error}"
    );

    // Another segment's content: it is not sent.
    fs::copy(archive.join(second), archive.join("spare"))?;
    let mut bytes = fs::read(archive.join(third))?;
    bytes[..8192].fill(0);
    fs::write(archive.join(third), bytes)?;
    let error = stream(Lsn(start.0 + 2 * SEGMENT))?;
    ensure!(
        error.contains("XX001") && error.contains("damaged"),
        "{error}"
    );

    // The one that is at the end has noticed nothing.
    other.report(end, end)?;
    ensure!(other.until(b'd')?.first() == Some(&b'k'));
    ensure!(served.running().is_running()?);
    drop(primary);
    Ok(())
}

/// Standbys get everything and are asked to confirm it; one that never answers holds nothing up for longer than the limit.
#[test]
fn a_shutdown_waits_for_confirmation_but_not_for_ever() -> Result<()> {
    let (primary, filled, end) = archived("none")?;
    let (start, wal) = wal_in(&filled.archive.archive(), end)?;
    // One that takes its time, and confirms in the end.
    let served = filled.serve(&["--shutdown-timeout", "100"])?;
    let mut client = RawClient::connect(served.port()?, "late")?;
    client.start(start)?;
    let mut idle = RawClient::connect(served.port()?, "idle")?;
    let mut running = served.into_running();
    running.signal(Signal::TERM)?;
    let told = idle.until(b'Z').unwrap_err().to_string();
    ensure!(told.contains("57P01"), "{told}");
    ensure!(client.wal(start, end)? == wal, "everything that there is");
    client.report(end, Lsn::INVALID)?;
    let complete = client.until(b'C')?;
    ensure!(complete == b"COPY 0\0", "{}", complete.escape_ascii());
    ensure!(client.0.read(&mut [0])? == 0, "and the end");
    let finished = running.wait(SHORT)?;
    ensure!(finished.code() == Some(0), "{finished}");

    // One that never says anything.
    let served = filled.serve(&["--shutdown-timeout", "1"])?;
    let mut silent = RawClient::connect(served.port()?, "silent")?;
    silent.start(start)?;
    let finished = served.into_running().terminate(SHORT)?;
    ensure!(finished.code() == Some(0), "{finished}");
    ensure!(finished.stderr.contains("has not confirmed"), "{finished}");

    // A second signal does not wait.
    let served = filled.serve(&["--shutdown-timeout", "1000"])?;
    let mut silent = RawClient::connect(served.port()?, "silent")?;
    silent.start(start)?;
    let mut running = served.into_running();
    running.signal(Signal::TERM)?;
    running.wait_for_output("shutting down", SHORT)?;
    running.signal(Signal::TERM)?;
    let finished = running.wait(SHORT)?;
    ensure!(finished.code() == Some(0), "{finished}");

    // pg_receivewal confirms what it has written, and sees an orderly end.
    let served = filled.serve(&[])?;
    let follower = Receivewal::theirs(primary.programs())?;
    begin_at(&follower, &first_segment(&filled.archive)?)?;
    let mut following = follower
        .command(["-D", "archive", "-n", "-v", "-d", served.conninfo()])
        .start()?;
    wait_for("the follower's last segment", LONG, || {
        ensure!(following.is_running()?, "the follower has ended");
        Ok(wal_in(&follower.archive(), end).is_ok())
    })?;
    let finished = served.into_running().terminate(SHORT)?;
    ensure!(finished.code() == Some(0), "{finished}");
    ensure!(!finished.stderr.contains("has not confirmed"), "{finished}");
    ensure_same_wal(&filled.archive.archive(), &follower.archive(), end)?;
    Ok(())
}

/// A sender in this process, at a unix socket.
struct Local {
    directory: TempDir,
    runtime: Runtime,
    sender: Sender,
    end: Lsn,
}

impl Local {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let server = RecordedServer::at_end(Recording::open(Path::new(RECORDING))?);
        let end = server.flushed().borrow().lsn;
        let config = SenderConfig::new(ListenAddress::Unix(directory.path().join(SOCKET)));
        let runtime = Runtime::new()?;
        let sender = runtime.block_on(Sender::start(config, Arc::new(server)))?;
        Ok(Self {
            directory,
            runtime,
            sender,
            end,
        })
    }

    fn connect(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(self.directory.path().join(SOCKET))?;
        stream.set_read_timeout(Some(SHORT))?;
        Ok(stream)
    }
}

/// A client that hears why its connection ends has a second to go; a shutdown does not give it that.
#[test]
fn a_shutdown_does_not_wait_for_clients_that_do_nothing() -> Result<()> {
    // A loaded machine may be slow once in a while.
    for _ in 0..10 {
        let local = Local::start()?;
        let mut refused = local.connect()?;
        refused.write_all(b"\0\0\0\x09\0\x02\0\0\0")?;
        refused.read_exact(&mut [0])?;
        let mut idle = RawClient::begin(local.connect()?, "idle")?;
        let began = Instant::now();
        local.runtime.block_on(local.sender.shut_down(LONG));
        let took = began.elapsed();
        let told = idle.until(b'Z').unwrap_err().to_string();
        ensure!(told.contains("57P01"), "{told}");
        if took < Duration::from_secs(1) {
            return Ok(());
        }
    }
    bail!("each took a second or more")
}

#[test]
fn answers_that_a_standby_asks_for_and_does_not_read_are_not_kept_for_it() -> Result<()> {
    const ASKED: usize = 100_000;
    let local = Local::start()?;
    // The system keeps 200 kB for a unix socket, unlike megabytes for another.
    let mut client = RawClient::begin(local.connect()?, "asks")?;
    let end = local.end;
    client.start(end)?;
    let asks = RawClient::<UnixStream>::status_update(end, end);
    for _ in 0..ASKED {
        client.0.write_all(&asks)?;
    }
    let mut bytes = BytesMut::new();
    FrontendMessage::CopyDone.encode(&mut bytes);
    client.0.write_all(&bytes)?;
    let mut answers = 0;
    while client.message()?.0 == b'd' {
        answers += 1;
    }
    ensure!((1..ASKED).contains(&answers), "{answers} answers");
    // It goes on as if nothing had been.
    client.until(b'Z')?;
    client.query("IDENTIFY_SYSTEM")?;
    client.until(b'D')?;
    Ok(())
}
