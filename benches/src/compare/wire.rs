//! Small clients of a server at this machine's loopback address, in this process: commands, and followers that take WAL,
//! look at the clock and keep nothing. They block; a follower has a thread of its own.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use walstream::protocol::copy::{PrimaryMessage, StandbyMessage, StandbyStatusUpdate};
use walstream::protocol::message::{
    BackendMessage, FrameHeader, FrontendMessage, ProtocolVersion, StartupMessage, StartupRequest,
    max_backend_length,
};
use walstream::{Lsn, PgTimestamp};

use walstream_tests::{LONG, Running, wait_for};

/// Lets clients in without a password.
pub(crate) const TRUST: [&str; 2] = [
    "host all all 127.0.0.1/32 trust",
    "host replication all 127.0.0.1/32 trust",
];

/// The port that a program of ours names when it listens.
///
/// # Errors
/// When it names none within a while.
pub(crate) fn port_of(program: &mut Running) -> Result<u16> {
    program.wait_for_output("connect with: ", LONG)?;
    let output = program.stdout() + &program.stderr();
    let (_, conninfo) = output.split_once("connect with: ").context("no address")?;
    let mut words = conninfo.split_whitespace();
    let port = words.find_map(|word| word.strip_prefix("port="));
    Ok(port.context("no port")?.parse()?)
}

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    content: Vec<u8>,
}

impl Connection {
    /// A connection for SQL.
    ///
    /// # Errors
    /// When the server refuses it.
    pub(crate) fn sql(port: u16) -> Result<Self> {
        Self::open(port, &[("user", "postgres"), ("database", "postgres")])
    }

    /// A connection for physical replication, under this name.
    ///
    /// # Errors
    /// When the server refuses it.
    pub(crate) fn replication(port: u16, name: &str) -> Result<Self> {
        let parameters = [
            ("user", "postgres"),
            ("replication", "true"),
            ("application_name", name),
        ];
        Self::open(port, &parameters)
    }

    fn open(port: u16, parameters: &[(&str, &str)]) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream: BufReader::with_capacity(256 << 10, stream),
            content: Vec::new(),
        };
        let mut out = BytesMut::new();
        let startup = StartupMessage {
            version: ProtocolVersion(3 << 16),
            parameters: parameters.to_vec(),
        };
        StartupRequest::Startup(startup).encode(&mut out);
        connection.stream.get_mut().write_all(&out)?;
        while !matches!(connection.next()?, BackendMessage::ReadyForQuery(_)) {}
        Ok(connection)
    }

    fn send(&mut self, message: &FrontendMessage<'_>) -> Result<()> {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        Ok(self.stream.get_mut().write_all(&out)?)
    }

    /// The next message; an error of the server's is one here.
    fn next(&mut self) -> Result<BackendMessage<'_>> {
        let mut header = [0; FrameHeader::LEN];
        self.stream.read_exact(&mut header)?;
        let header = FrameHeader::parse(&header, max_backend_length)?.context("half a header")?;
        self.content.resize(header.content_len, 0);
        self.stream.read_exact(&mut self.content)?;
        match BackendMessage::parse(header.tag, &self.content)? {
            BackendMessage::ErrorResponse(fields) => bail!("the server says: {}", fields.message()),
            message => Ok(message),
        }
    }

    /// Runs a command and gives the columns of its last row, each null as an empty text.
    ///
    /// # Errors
    /// With the server's message.
    pub(crate) fn query(&mut self, text: &str) -> Result<Vec<String>> {
        self.send(&FrontendMessage::Query { text })?;
        let mut row = Vec::new();
        loop {
            match self.next()? {
                BackendMessage::ReadyForQuery(_) => return Ok(row),
                BackendMessage::DataRow(data) => {
                    let columns = data.columns.iter().map(|column| column.unwrap_or_default());
                    let text = columns.map(|column| String::from_utf8_lossy(column).into_owned());
                    row = text.collect();
                }
                _ => {}
            }
        }
    }
}

/// Waits until a sender has WAL up to this LSN.
///
/// # Errors
/// When it has not after a while.
pub(crate) fn wait_for_wal(port: u16, lsn: Lsn) -> Result<()> {
    let mut connection = Connection::replication(port, "watch")?;
    wait_for(&format!("a sender to have {lsn}"), LONG, || {
        let row = connection.query("IDENTIFY_SYSTEM")?;
        let end: Lsn = row.get(2).context("no LSN")?.parse()?;
        Ok(end >= lsn)
    })
}

/// That WAL has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Its end (exclusive).
    pub(crate) end_lsn: Lsn,
    /// When the message with it was read to its end.
    pub(crate) at: Instant,
}

/// A standby that takes WAL and keeps none, and replies only when it is asked to.
#[derive(Debug)]
pub(crate) struct Follower {
    reached: Arc<AtomicU64>,
    socket: TcpStream,
    thread: JoinHandle<Result<Vec<Arrival>>>,
}

impl Follower {
    /// Begins at this LSN, and returns when the sender has begun to stream. With `keeps_arrivals` each message is noted.
    ///
    /// # Errors
    /// When the sender refuses.
    pub(crate) fn start(port: u16, name: &str, from: Lsn, keeps_arrivals: bool) -> Result<Self> {
        let mut connection = Connection::replication(port, name)?;
        let text = format!("START_REPLICATION PHYSICAL {from}");
        connection.send(&FrontendMessage::Query { text: &text })?;
        while !matches!(connection.next()?, BackendMessage::CopyBothResponse(_)) {}
        let reached = Arc::new(AtomicU64::new(from.0));
        let socket = connection.stream.get_ref().try_clone()?;
        let position = Arc::clone(&reached);
        let thread = thread::spawn(move || follow(connection, &position, keeps_arrivals));
        Ok(Self {
            reached,
            socket,
            thread,
        })
    }

    /// End of the WAL that it has (exclusive).
    pub(crate) fn reached(&self) -> Lsn {
        Lsn(self.reached.load(Ordering::Acquire))
    }

    /// Waits until it has the WAL before this LSN.
    ///
    /// # Errors
    /// When it has not after a while, or its connection has ended.
    pub(crate) fn wait_for(&self, lsn: Lsn) -> Result<()> {
        wait_for(&format!("a follower at {lsn}"), LONG, || {
            let is_there = self.reached() >= lsn;
            ensure!(
                is_there || !self.thread.is_finished(),
                "a follower has ended"
            );
            Ok(is_there)
        })
    }

    /// Ends it, and gives the arrivals that it noted.
    ///
    /// # Errors
    /// When its connection failed before.
    pub(crate) fn end(self) -> Result<Vec<Arrival>> {
        // Fails when the sender closed the connection first, and then the thread says so.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.thread.join().ok().context("a follower failed")?
    }
}

/// Takes WAL until the connection is shut down.
fn follow(
    mut connection: Connection,
    reached: &AtomicU64,
    keeps_arrivals: bool,
) -> Result<Vec<Arrival>> {
    let mut arrivals = Vec::new();
    let mut end_lsn = Lsn(reached.load(Ordering::Acquire));
    loop {
        let message = match connection.next() {
            Ok(BackendMessage::CopyData(payload)) => PrimaryMessage::parse(payload)?,
            Ok(other) => bail!("{other:?} amid a stream"),
            Err(error) => {
                let kind = error.downcast_ref::<std::io::Error>().map(|e| e.kind());
                return match kind {
                    Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Ok(arrivals),
                    _ => Err(error),
                };
            }
        };
        match message {
            PrimaryMessage::XLogData(wal) => {
                let at = Instant::now();
                ensure!(
                    wal.start_lsn == end_lsn,
                    "WAL of {} after {end_lsn}",
                    wal.start_lsn
                );
                end_lsn = wal.end_lsn();
                reached.store(end_lsn.0, Ordering::Release);
                if keeps_arrivals {
                    arrivals.push(Arrival { end_lsn, at });
                }
            }
            PrimaryMessage::Keepalive(keepalive) if keepalive.reply_requested => {
                let update = StandbyStatusUpdate {
                    write_lsn: end_lsn,
                    flush_lsn: end_lsn,
                    apply_lsn: end_lsn,
                    sent_at: PgTimestamp(0),
                    reply_requested: false,
                };
                let mut payload = BytesMut::new();
                StandbyMessage::StatusUpdate(update).encode(&mut payload);
                connection.send(&FrontendMessage::CopyData(&payload))?;
            }
            PrimaryMessage::Keepalive(_) => {}
        }
    }
}
