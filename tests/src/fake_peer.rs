//! [`FakePeer`]: one connection of a [`FakePrimary`](crate::FakePrimary), with the words of the protocol.
//!
//! It is written apart from the protocol code of the library, so that a mistake there is not made here, too.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use walstream::Lsn;

const POLL: Duration = Duration::from_millis(20);
const SSL_REQUEST: i32 = 80_877_103;
const GSSENC_REQUEST: i32 = 80_877_104;
const TEXT: i32 = 25;
const INT4: i32 = 23;

/// What a fake primary answers where a script has nothing else in mind.
#[derive(Clone, Debug)]
pub struct FakeSystem {
    /// Number of the cluster.
    pub system_identifier: u64,
    /// Its timeline.
    pub timeline: u32,
    /// Its flush position.
    pub lsn: Lsn,
    /// Answers to `SHOW`.
    pub settings: BTreeMap<String, String>,
    /// Answers to `TIMELINE_HISTORY`: content by timeline.
    pub histories: BTreeMap<u32, String>,
}

impl FakeSystem {
    /// A system on timeline 1 with 16 MB segments.
    #[must_use]
    pub fn new(system_identifier: u64, lsn: Lsn) -> Self {
        let settings = [
            ("wal_segment_size", "16MB"),
            ("data_directory_mode", "0700"),
            ("wal_block_size", "8192"),
        ];
        let settings = settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Self {
            system_identifier,
            timeline: 1,
            lsn,
            settings,
            histories: BTreeMap::new(),
        }
    }
}

/// The primary's side of one connection.
#[derive(Debug)]
pub struct FakePeer {
    stream: TcpStream,
    stopped: Arc<AtomicBool>,
}

impl FakePeer {
    pub(crate) fn new(stream: TcpStream, stopped: Arc<AtomicBool>) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(POLL))?;
        Ok(Self { stream, stopped })
    }

    /// Reads the startup packet, after refusing encryption, and returns its parameters.
    ///
    /// # Errors
    /// When the connection ends, or what comes is no startup packet.
    pub fn read_startup(&mut self) -> Result<BTreeMap<String, String>> {
        loop {
            let length = self.read_i32()?;
            let body = self.read_body(length)?;
            let (code, rest) = body
                .split_at_checked(4)
                .context("startup packet without a version")?;
            match i32::from_be_bytes(code.try_into()?) {
                SSL_REQUEST | GSSENC_REQUEST => self.send_raw(b"N")?,
                _ => {
                    let texts: Vec<String> = rest
                        .split(|byte| *byte == 0)
                        .map(|text| String::from_utf8_lossy(text).into_owned())
                        .collect();
                    let pairs = texts
                        .chunks_exact(2)
                        .filter(|pair| pair.iter().any(|text| !text.is_empty()));
                    return Ok(pairs
                        .filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.clone())))
                        .collect());
                }
            }
        }
    }

    /// Lets the client in as PostgreSQL 15 would: authentication, parameters, key and readiness.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn welcome(&mut self) -> Result<()> {
        self.send(b'R', &0_i32.to_be_bytes())?;
        let parameters = [
            ("server_version", "15.18"),
            ("server_encoding", "UTF8"),
            ("integer_datetimes", "on"),
        ];
        for (name, value) in parameters {
            self.send(b'S', format!("{name}\0{value}\0").as_bytes())?;
        }
        self.send(b'K', &[0, 0, 0, 1, 0, 0, 0, 2])?;
        self.ready()
    }

    /// Reads the startup packet, lets the client in, and answers its questions as `system` until it asks for something
    /// else, which is returned: `START_REPLICATION …`, `BASE_BACKUP …`.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn answer(&mut self, system: &FakeSystem) -> Result<String> {
        self.read_startup()?;
        self.welcome()?;
        self.answer_queries(system)
    }

    /// The part of [`answer`](Self::answer) that follows the welcome.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn answer_queries(&mut self, system: &FakeSystem) -> Result<String> {
        loop {
            let query = self.read_query()?;
            let words: Vec<&str> = query
                .split([' ', ';'])
                .filter(|word| !word.is_empty())
                .collect();
            match words.as_slice() {
                ["IDENTIFY_SYSTEM"] => {
                    let (id, timeline) = (
                        system.system_identifier.to_string(),
                        system.timeline.to_string(),
                    );
                    let values = [
                        Some(id.as_str()),
                        Some(&timeline),
                        Some(&system.lsn.to_string()),
                        None,
                    ];
                    let columns = [
                        ("systemid", TEXT),
                        ("timeline", INT4),
                        ("xlogpos", TEXT),
                        ("dbname", TEXT),
                    ];
                    self.row(&columns, &values)?;
                    self.done("IDENTIFY_SYSTEM")?;
                }
                ["SHOW", name] => match system.settings.get(*name) {
                    Some(value) => {
                        self.row(&[(name, TEXT)], &[Some(value)])?;
                        self.done("SHOW")?;
                    }
                    None => {
                        self.error(
                            "ERROR",
                            "42704",
                            &format!("unrecognized configuration parameter \"{name}\""),
                        )?;
                        self.ready()?;
                    }
                },
                ["TIMELINE_HISTORY", timeline] => match system.histories.get(&timeline.parse()?) {
                    Some(content) => {
                        let name = format!("{:08X}.history", timeline.parse::<u32>()?);
                        self.row(
                            &[("filename", TEXT), ("content", TEXT)],
                            &[Some(&name), Some(content)],
                        )?;
                        self.done("TIMELINE_HISTORY")?;
                    }
                    None => {
                        self.error(
                            "ERROR",
                            "58P01",
                            "could not open file: No such file or directory",
                        )?;
                        self.ready()?;
                    }
                },
                _ => return Ok(query),
            }
        }
    }

    /// Reads the next simple query.
    ///
    /// # Errors
    /// When the connection ends or another message comes.
    pub fn read_query(&mut self) -> Result<String> {
        let (tag, body) = self.read_message()?;
        ensure!(
            tag == b'Q',
            "expected a query, got message {:?}",
            char::from(tag)
        );
        Ok(String::from_utf8_lossy(body.strip_suffix(&[0]).unwrap_or(&body)).into_owned())
    }

    /// Reads the next message: its tag and body.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn read_message(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut tag = [0];
        self.read_exact(&mut tag)?;
        let length = self.read_i32()?;
        Ok((u8::from_be_bytes(tag), self.read_body(length)?))
    }

    /// Reads messages until a standby status update comes, and returns its write, flush and apply positions.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn read_status_update(&mut self) -> Result<[Lsn; 3]> {
        loop {
            let (tag, body) = self.read_message()?;
            if tag == b'd' && body.first() == Some(&b'r') {
                let mut lsns = body
                    .split_at(1)
                    .1
                    .chunks_exact(8)
                    .filter_map(|lsn| Some(Lsn(u64::from_be_bytes(lsn.try_into().ok()?))));
                let mut next = || lsns.next().context("short status update");
                return Ok([next()?, next()?, next()?]);
            }
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn send(&mut self, tag: u8, body: &[u8]) -> Result<()> {
        let mut message = vec![tag];
        message.extend(i32::try_from(body.len() + 4)?.to_be_bytes());
        message.extend(body);
        self.send_raw(&message)
    }

    /// Sends a row description and one row. Columns are names and type OIDs.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn row(&mut self, columns: &[(&str, i32)], values: &[Option<&str>]) -> Result<()> {
        let mut description = i16::try_from(columns.len())?.to_be_bytes().to_vec();
        for (name, type_oid) in columns {
            description.extend(name.as_bytes());
            description.extend([0; 7]);
            description.extend(type_oid.to_be_bytes());
            let size: i16 = if *type_oid == INT4 { 4 } else { -1 };
            description.extend(size.to_be_bytes());
            description.extend((-1_i32).to_be_bytes());
            description.extend([0, 0]);
        }
        self.send(b'T', &description)?;
        let mut row = i16::try_from(values.len())?.to_be_bytes().to_vec();
        for value in values {
            match value {
                Some(value) => {
                    row.extend(i32::try_from(value.len())?.to_be_bytes());
                    row.extend(value.as_bytes());
                }
                None => row.extend((-1_i32).to_be_bytes()),
            }
        }
        self.send(b'D', &row)
    }

    /// Ends a command and is ready for the next.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn done(&mut self, command: &str) -> Result<()> {
        self.send(b'C', format!("{command}\0").as_bytes())?;
        self.ready()
    }

    /// Is ready for a query.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn ready(&mut self) -> Result<()> {
        self.send(b'Z', b"I")
    }

    /// Sends an error. Severity is `ERROR` or `FATAL`.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn error(&mut self, severity: &str, sqlstate: &str, message: &str) -> Result<()> {
        self.send(
            b'E',
            format!("S{severity}\0V{severity}\0C{sqlstate}\0M{message}\0\0").as_bytes(),
        )
    }

    /// Begins streaming, as the answer to `START_REPLICATION`.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn copy_both(&mut self) -> Result<()> {
        self.send(b'W', &[0, 0, 0])
    }

    /// Sends WAL that begins at `start`, from a server that has flushed to `end`.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn xlog_data(&mut self, start: Lsn, end: Lsn, wal: &[u8]) -> Result<()> {
        let mut body = vec![b'w'];
        body.extend(start.0.to_be_bytes());
        body.extend(end.0.to_be_bytes());
        body.extend(0_i64.to_be_bytes());
        body.extend(wal);
        self.send(b'd', &body)
    }

    /// Sends a keepalive.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn keepalive(&mut self, end: Lsn, reply_requested: bool) -> Result<()> {
        let mut body = vec![b'k'];
        body.extend(end.0.to_be_bytes());
        body.extend(0_i64.to_be_bytes());
        body.push(u8::from(reply_requested));
        self.send(b'd', &body)
    }

    /// Ends its side of streaming.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn copy_done(&mut self) -> Result<()> {
        self.send(b'c', b"")
    }

    /// Says nothing more and reads what comes, until the client closes or the test ends.
    pub fn stall(&mut self) {
        let mut sink = [0; 1024];
        while self.read_exact(&mut sink).is_ok() {}
    }

    fn read_i32(&mut self) -> Result<i32> {
        let mut bytes = [0; 4];
        self.read_exact(&mut bytes)?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn read_body(&mut self, length: i32) -> Result<Vec<u8>> {
        let length = usize::try_from(length)?
            .checked_sub(4)
            .context("a length below its own size")?;
        ensure!(length < 1 << 24, "a message of {length} bytes");
        let mut body = vec![0; length];
        self.read_exact(&mut body)?;
        Ok(body)
    }

    /// Reads all of `buffer`, and gives up when the test has ended.
    fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            match self.stream.read(buffer) {
                Ok(0) => bail!("the client has closed the connection"),
                Ok(count) => buffer = buffer.split_at_mut(count).1,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    ensure!(!self.stopped.load(Ordering::SeqCst), "the test has ended");
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
