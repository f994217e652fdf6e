//! Our sender, serving the recorded coordinator: PostgreSQL's own programs and a PostgreSQL standby follow it without
//! knowing the difference.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use tokio::runtime::Runtime;
use walreceiver::demo::local_postgres::{Listen, LocalPostgres};
use walsender::source::recording::{RecordedServer, Recording};
use walsender::{ListenAddress, Sender, SenderConfig};
use walstream::Lsn;
use walstream::protocol::message::{
    FrameHeader, FrontendMessage, ProtocolVersion, StartupMessage, StartupRequest,
    max_backend_length,
};
use walstream_tests::{Cluster, LONG, SHORT, Signal, StopMode, Workdir, server_version, wait_for};

pub(crate) const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../walreceiver/src/demo/coordinator.tar.zst"
);

/// A sender that serves the recorded coordinator, as it was when the recording ended.
struct Served {
    runtime: Runtime,
    sender: Sender,
    server: Arc<RecordedServer>,
}

impl Served {
    fn start(change: impl FnOnce(&mut SenderConfig)) -> Result<Self> {
        let server = Arc::new(RecordedServer::at_end(Recording::open(Path::new(
            RECORDING,
        ))?));
        let mut config = SenderConfig::new(ListenAddress::free_port());
        change(&mut config);
        let runtime = Runtime::new()?;
        let source = Arc::<RecordedServer>::clone(&server);
        let sender = runtime.block_on(Sender::start(config, source))?;
        Ok(Self {
            runtime,
            sender,
            server,
        })
    }

    fn conninfo(&self) -> String {
        format!("{} user=postgres", self.sender.conninfo())
    }

    fn port(&self) -> Result<u16> {
        match self.sender.address() {
            ListenAddress::Tcp(address) => Ok(address.port()),
            ListenAddress::Unix(_) => anyhow::bail!("listens at a unix socket"),
        }
    }

    fn end(&self) -> Lsn {
        self.server.recording().wal_end().lsn
    }
}

/// What psql prints for a replication command, with SQLSTATEs, without the places in PostgreSQL's source.
pub(crate) fn replication_command(work: &Workdir, conninfo: &str, command: &str) -> Result<String> {
    let psql = work.external(&server_version(15)?.client("psql"));
    let conninfo = format!("{conninfo} dbname=postgres replication=true");
    let finished = psql
        .args(["-X", "-A", "-t", "-v", "VERBOSITY=verbose", "-d"])
        .args([&conninfo, "-c", command])
        .run(SHORT)?;
    let lines = finished.stdout.lines().chain(finished.stderr.lines());
    let lines: Vec<_> = lines
        .filter(|line| !line.starts_with("LOCATION:"))
        .collect();
    Ok(lines.join("\n"))
}

#[test]
fn pg_basebackup_takes_a_backup_that_verifies() -> Result<()> {
    let served = Served::start(|_| {})?;
    let (work, programs) = (Workdir::new()?, server_version(15)?);
    for (name, options) in [
        ("plain", &["-X", "stream", "-c", "fast", "-P"][..]),
        ("slow", &["-X", "none", "--no-slot", "--max-rate=20M"]),
        ("tar", &["-X", "none", "--no-manifest", "-Ft"]),
    ] {
        let target = work.join(name);
        work.external(&programs.client("pg_basebackup"))
            .args(["-d", &served.conninfo(), "-D"])
            .arg(&target)
            .args(options)
            .succeed(LONG)?;
        if options.contains(&"-Ft") {
            let archive = fs::read(target.join("base.tar"))?;
            assert!(archive == served.server.recording().backup().archive);
            assert!(!target.join("backup_manifest").exists());
        } else {
            work.external(&programs.client("pg_verifybackup"))
                .arg("--no-parse-wal")
                .arg(&target)
                .succeed(LONG)?;
        }
    }
    let compressed = work
        .external(&programs.client("pg_basebackup"))
        .args(["-d", &served.conninfo(), "-D"])
        .arg(work.join("compressed"))
        .args(["-Ft", "--compress=server-gzip"])
        .run(SHORT)?;
    compressed.expect_failure(1, &["compression of a base backup is not supported"])
}

#[test]
fn pg_receivewal_receives_the_recorded_bytes() -> Result<()> {
    let served = Served::start(|_| {})?;
    let (work, programs) = (Workdir::new()?, server_version(15)?);
    let create = "CREATE_REPLICATION_SLOT kept PHYSICAL RESERVE_WAL";
    replication_command(&work, &served.conninfo(), create)?;
    let target = work.make_dir("wal")?;
    let mut receiving = work
        .external(&programs.client("pg_receivewal"))
        .args([
            "-d",
            &served.conninfo(),
            "-S",
            "kept",
            "--synchronous",
            "-D",
        ])
        .arg(&target)
        .start()?;
    let end = served.end();
    wait_for("pg_receivewal's flush", LONG, || {
        ensure!(receiving.is_running()?, "pg_receivewal has ended");
        let standbys = served.sender.standbys();
        Ok(standbys.iter().any(|standby| {
            standby.application_name == "pg_receivewal"
                && standby.state.name() == "streaming"
                && standby.flush_lsn == end
        }))
    })?;
    let read = replication_command(&work, &served.conninfo(), "READ_REPLICATION_SLOT kept")?;
    assert_eq!(read, format!("physical|{end}|1"));
    let drop = replication_command(&work, &served.conninfo(), "DROP_REPLICATION_SLOT kept")?;
    assert!(
        drop.starts_with("ERROR:  55006: replication slot \"kept\" is active for PID"),
        "{drop}"
    );
    receiving.signal(Signal::INT)?;
    assert_eq!(receiving.wait(SHORT)?.code(), Some(0));

    let recording = served.server.recording();
    let mut lsn = recording
        .backup()
        .start
        .lsn
        .segment_start(recording.identity().segment_size);
    let mut names: Vec<_> = fs::read_dir(&target)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    names.sort();
    for path in names {
        let wal = recording.wal(recording.wal_end().timeline, lsn..end)?;
        assert!(fs::read(&path)?.starts_with(&wal), "{}", path.display());
        lsn = lsn + wal.len() as u64;
    }
    assert_eq!(lsn, end, "every segment was compared");
    Ok(())
}

#[test]
fn a_postgresql_standby_follows_and_is_promoted() -> Result<()> {
    let served = Served::start(|_| {})?;
    let (work, programs) = (Workdir::new()?, server_version(15)?);
    let data = work.join("standby");
    work.external(&programs.client("pg_basebackup"))
        .args(["-d", &served.conninfo(), "-X", "none", "-R", "-D"])
        .arg(&data)
        .succeed(LONG)?;
    let mut standby = LocalPostgres::on_directory(&programs, work.user(), Listen::Socket, &data)?;
    standby.start()?;
    let end = served.end();
    wait_for("the standby's replay", LONG, || {
        Ok(standby
            .query("SELECT pg_last_wal_replay_lsn()")?
            .parse::<Lsn>()?
            == end)
    })?;
    wait_for("the standby's report", SHORT, || {
        Ok(served
            .sender
            .standbys()
            .iter()
            .any(|status| status.apply_lsn == end))
    })?;
    standby.query("SELECT pg_promote()")?;
    assert_eq!(
        standby.query_in(
            "warehouse",
            "SELECT count(*) > 0 FROM pg_class WHERE oid >= 16384"
        )?,
        "t"
    );
    standby.stop(StopMode::Fast)?;
    Ok(())
}

/// PostgreSQL is asked the same, and answers the same, to the letter.
#[test]
fn refusals_are_postgresqls() -> Result<()> {
    let served = Served::start(|_| {})?;
    let (work, cluster) = (Workdir::new()?, Cluster::started()?);
    ensure!(
        cluster.programs().major() == 15,
        "the recorded server is a PostgreSQL 15"
    );
    for command in [
        "SHOW nothing_of_this_name",
        "SHOW wal_block_size",
        "TIMELINE_HISTORY 0",
        "TIMELINE_HISTORY 9",
        "SELECT 1",
        "identify_system",
        "IDENTIFY_SYSTEM nonsense",
        "",
        "BASE_BACKUP (NONSENSE)",
        "BASE_BACKUP (LABEL 'a', LABEL 'b')",
        "CREATE_REPLICATION_SLOT \"With-Dash\" PHYSICAL",
        "CREATE_REPLICATION_SLOT twice PHYSICAL",
        "CREATE_REPLICATION_SLOT twice PHYSICAL",
        "READ_REPLICATION_SLOT twice",
        "READ_REPLICATION_SLOT absent",
        "DROP_REPLICATION_SLOT twice",
        "DROP_REPLICATION_SLOT twice",
        "START_REPLICATION SLOT absent PHYSICAL 0/0",
        "START_REPLICATION PHYSICAL 0/0 TIMELINE 9",
        "START_REPLICATION PHYSICAL nonsense",
    ] {
        let ours = replication_command(&work, &served.conninfo(), command)?;
        let theirs = replication_command(&work, &cluster.conninfo(), command)?;
        assert_eq!(ours, theirs, "{command}");
    }
    let plain = work
        .external(&server_version(15)?.client("psql"))
        .args([
            "-X",
            "-d",
            &format!("{} dbname=postgres", served.conninfo()),
            "-c",
            "SELECT 1",
        ])
        .run(SHORT)?;
    plain.expect_failure(2, &["this server takes replication connections only"])
}

/// A connection without a client library, up to the answer to `START_REPLICATION`.
fn raw_stream(port: u16, start: Lsn) -> Result<(TcpStream, [u8; 8])> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SHORT))?;
    let mut bytes = BytesMut::new();
    StartupRequest::Startup(StartupMessage {
        version: ProtocolVersion::V3_0,
        parameters: vec![("user", "postgres"), ("replication", "true")],
    })
    .encode(&mut bytes);
    let text = format!("START_REPLICATION PHYSICAL {start}");
    FrontendMessage::Query { text: &text }.encode(&mut bytes);
    stream.write_all(&bytes)?;
    let mut key = [0; 8];
    loop {
        let (tag, content) = message(&mut stream)?;
        match tag {
            b'K' => key.copy_from_slice(&content),
            b'W' => return Ok((stream, key)),
            b'E' => anyhow::bail!("refused: {}", content.escape_ascii()),
            _ => {}
        }
    }
}

fn message(stream: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    let mut head = [0; FrameHeader::LEN];
    stream.read_exact(&mut head)?;
    let header = FrameHeader::parse(&head, max_backend_length)?.context("a whole header")?;
    let mut content = vec![0; header.content_len];
    stream.read_exact(&mut content)?;
    Ok((header.tag, content))
}

#[test]
fn a_sender_is_cut_off_at_any_byte_and_says_nothing() -> Result<()> {
    let start = Recording::open(Path::new(RECORDING))?.backup().start.lsn;
    let mut longest = Vec::new();
    for length in [0, 1, 5, 6, 30, 31, 131_102, 131_103, 131_107, 400_000] {
        let mut served = Served::start(|config| config.cut_off_after = Some(length))?;
        let port = served.port()?;
        let (mut stream, _) = raw_stream(port, start)?;
        let mut carried = Vec::new();
        stream.read_to_end(&mut carried)?;
        assert_eq!(carried.len() as u64, length);
        // Only the clocks in the messages' headers differ.
        let shared = carried.len().min(longest.len()).min(14);
        assert_eq!(carried[..shared], longest[..shared]);
        longest = carried;
        served.runtime.block_on(served.sender.ended());
        assert!(
            TcpStream::connect(("127.0.0.1", port)).is_err(),
            "nobody listens any more"
        );
    }
    Ok(())
}

#[test]
fn a_stream_is_cancelled_by_its_key_alone() -> Result<()> {
    let served = Served::start(|_| {})?;
    let (mut stream, key) = raw_stream(served.port()?, served.end())?;
    let cancel = |secret: [u8; 4]| -> Result<()> {
        let mut bytes = BytesMut::new();
        let [a, b, c, d, ..] = key;
        let process_id = u32::from_be_bytes([a, b, c, d]);
        StartupRequest::Cancel {
            process_id,
            secret: &secret,
        }
        .encode(&mut bytes);
        let mut other = TcpStream::connect(("127.0.0.1", served.port()?))?;
        other.write_all(&bytes)?;
        // The sender closes the connection when it has done what was asked.
        assert_eq!(other.read(&mut [0])?, 0);
        Ok(())
    };
    let [.., a, b, c, d] = key;
    cancel([!a, b, c, d])?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    assert!(message(&mut stream).is_err(), "a wrong key cancels nothing");
    stream.set_read_timeout(Some(SHORT))?;
    cancel([a, b, c, d])?;
    let (tag, content) = message(&mut stream)?;
    assert_eq!(tag, b'E');
    assert!(
        content.windows(5).any(|part| part == b"57014"),
        "{}",
        content.escape_ascii()
    );
    assert_eq!(
        message(&mut stream)?.0,
        b'Z',
        "and another command may come"
    );
    Ok(())
}

#[test]
fn the_program_serves_and_shuts_down() -> Result<()> {
    let work = Workdir::new()?;
    let recording = work.join("recording");
    fs::copy(RECORDING, &recording)?;
    work.own(&recording)?;
    let serve = |listen: &str| -> Result<_> {
        let program = work
            .program("walsender")?
            .args(["serve", "--listen", listen, "--recording"]);
        Ok(program.arg(&recording))
    };
    serve("0.0.0.0:0")?
        .run(SHORT)?
        .expect_failure(2, &["other machines could reach it", "--auth-file"])?;
    let socket = work.join(".s.PGSQL.5999");
    let mut serving = serve(&socket.to_string_lossy())?.start()?;
    serving.wait_for_output("listening", SHORT)?;
    let conninfo = format!("host={} port=5999 user=postgres", work.path().display());
    let identity = replication_command(&work, &conninfo, "IDENTIFY_SYSTEM")?;
    let system = Recording::open(Path::new(RECORDING))?
        .identity()
        .system_identifier;
    assert!(identity.starts_with(&system.to_string()), "{identity}");
    assert_eq!(serving.terminate(SHORT)?.code(), Some(0));
    assert!(!socket.exists(), "the socket's file is removed");
    Ok(())
}
