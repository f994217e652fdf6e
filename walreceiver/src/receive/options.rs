//! Options of `receive`: those of `pg_receivewal`, with its meanings, checks and complaints.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use walsender::source::archive::ArchiveLocation;
use walstream::Lsn;

use super::c_number::{decimal, hexadecimal, is_space};
use super::compression::{Compression, CompressionError};
use super::getopt::{Getopt, LongOption, ShortOption};

/// What the command is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--directory`; not needed to make or drop a slot.
    pub directory: Option<PathBuf>,
    /// `--endpos`: ends after WAL behind this came.
    pub end: Option<Lsn>,
    /// `--no-loop`.
    pub no_loop: bool,
    /// `--no-sync`.
    pub no_sync: bool,
    /// `--synchronous`.
    pub synchronous: bool,
    /// `--status-interval`; zero: none by the clock.
    pub status_interval: Duration,
    /// `--slot`.
    pub slot: Option<String>,
    /// `--create-slot` or `--drop-slot`.
    pub slot_action: Option<SlotAction>,
    /// `--if-not-exists`.
    pub if_not_exists: bool,
    /// `--compress`.
    pub compression: Compression,
    /// `--to`, which `pg_receivewal` does not have: where finished files are put.
    pub to: Option<ArchiveLocation>,
    /// `--verbose`.
    pub verbose: bool,
    /// Where the server is.
    pub server: ServerOptions,
}

/// A slot to be made or dropped instead of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotAction {
    /// `--create-slot`.
    Create,
    /// `--drop-slot`.
    Drop,
}

/// Options about the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerOptions {
    /// `--dbname`: a connection string.
    pub conninfo: Option<String>,
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<String>,
    /// `--username`.
    pub user: Option<String>,
    /// `--password` and `--no-password`.
    pub prompt: Prompt,
}

/// When to ask for a password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prompt {
    /// When the server wants one and none is known.
    #[default]
    WhenNeeded,
    /// Never.
    Never,
    /// Before the first connection.
    First,
}

/// What is wrong with a command line. Its text is what follows the program's name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionError {
    /// What `getopt_long` itself complains about, without `error:`.
    #[error("{0}")]
    Getopt(String),
    /// A wrong combination; the hint about `--help` belongs to it.
    #[error("{0}")]
    Usage(String),
    /// A wrong value.
    #[error("{0}")]
    Value(String),
    /// A wrong `--compress`.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

#[derive(Clone, Copy, Debug)]
enum Key {
    /// Known and not taken here: `--help` and `--version` count only as the first argument.
    Misplaced,
    Directory,
    Conninfo,
    End,
    Host,
    Port,
    User,
    NoLoop,
    NoPassword,
    Password,
    StatusInterval,
    Slot,
    Verbose,
    Compress,
    CreateSlot,
    DropSlot,
    IfNotExists,
    Synchronous,
    NoSync,
    To,
}

const fn long(name: &'static str, has_value: bool, key: Key) -> LongOption<Key> {
    LongOption {
        name,
        has_value,
        key,
    }
}

/// In the order in which candidates for a shortened name are listed.
const LONG: [LongOption<Key>; 21] = [
    long("help", false, Key::Misplaced),
    long("version", false, Key::Misplaced),
    long("directory", true, Key::Directory),
    long("dbname", true, Key::Conninfo),
    long("endpos", true, Key::End),
    long("host", true, Key::Host),
    long("port", true, Key::Port),
    long("username", true, Key::User),
    long("no-loop", false, Key::NoLoop),
    long("no-password", false, Key::NoPassword),
    long("password", false, Key::Password),
    long("status-interval", true, Key::StatusInterval),
    long("slot", true, Key::Slot),
    long("verbose", false, Key::Verbose),
    long("compress", true, Key::Compress),
    long("create-slot", false, Key::CreateSlot),
    long("drop-slot", false, Key::DropSlot),
    long("if-not-exists", false, Key::IfNotExists),
    long("synchronous", false, Key::Synchronous),
    long("no-sync", false, Key::NoSync),
    long("to", true, Key::To),
];

const fn short(letter: u8, has_value: bool, key: Key) -> ShortOption<Key> {
    ShortOption {
        letter,
        has_value,
        key,
    }
}

const SHORT: [ShortOption<Key>; 12] = [
    short(b'D', true, Key::Directory),
    short(b'd', true, Key::Conninfo),
    short(b'E', true, Key::End),
    short(b'h', true, Key::Host),
    short(b'p', true, Key::Port),
    short(b'U', true, Key::User),
    short(b's', true, Key::StatusInterval),
    short(b'S', true, Key::Slot),
    short(b'n', false, Key::NoLoop),
    short(b'w', false, Key::NoPassword),
    short(b'W', false, Key::Password),
    short(b'v', false, Key::Verbose),
];
const COMPRESS: ShortOption<Key> = short(b'Z', true, Key::Compress);

/// The longest status interval in seconds: in milliseconds it is an `int` of C.
const MAX_STATUS_INTERVAL: i64 = (i32::MAX / 1000) as i64;
const DEFAULT_STATUS_INTERVAL: Duration = Duration::from_secs(10);

impl Options {
    /// Reads the arguments behind the program's name, which are not `--help` or `--version` alone.
    ///
    /// # Errors
    /// The first [`OptionError`], as `pg_receivewal` finds it.
    ///
    /// # Source
    /// `main` in `src/bin/pg_basebackup/pg_receivewal.c`.
    pub fn parse(arguments: &[OsString]) -> Result<Self, OptionError> {
        let mut options = Self {
            status_interval: DEFAULT_STATUS_INTERVAL,
            ..Self::default()
        };
        let mut compress = None;
        let (mut create, mut drop) = (false, false);
        let mut letters = SHORT.to_vec();
        letters.push(COMPRESS);
        let mut getopt = Getopt::new(&letters, &LONG, arguments);
        while let Some(found) = getopt.next_option() {
            let (key, value) = found.map_err(OptionError::Getopt)?;
            let value = value.unwrap_or_default();
            let text = || value.to_string_lossy().into_owned();
            match key {
                Key::Misplaced => return Err(OptionError::Getopt(String::new())),
                Key::Directory => options.directory = Some(PathBuf::from(value)),
                Key::Conninfo => options.server.conninfo = Some(text()),
                Key::End => options.end = end_position(&text())?,
                Key::Host => options.server.host = Some(text()),
                Key::Port => options.server.port = Some(text()),
                Key::User => options.server.user = Some(text()),
                Key::NoLoop => options.no_loop = true,
                Key::NoPassword => options.server.prompt = Prompt::Never,
                Key::Password => options.server.prompt = Prompt::First,
                Key::StatusInterval => options.status_interval = status_interval(&text())?,
                Key::Slot => options.slot = Some(text()),
                Key::Verbose => options.verbose = true,
                Key::Compress => compress = Some(text()),
                Key::CreateSlot => create = true,
                Key::DropSlot => drop = true,
                Key::IfNotExists => options.if_not_exists = true,
                Key::Synchronous => options.synchronous = true,
                Key::NoSync => options.no_sync = true,
                Key::To => options.to = Some(destination(&text())?),
            }
        }
        if let Some(other) = getopt.others().first() {
            return Err(OptionError::Usage(format!(
                "too many command-line arguments (first is \"{}\")",
                other.to_string_lossy()
            )));
        }
        options.slot_action = match (create, drop) {
            (true, true) => {
                return Err(usage("cannot use --create-slot together with --drop-slot"));
            }
            (true, false) => Some(SlotAction::Create),
            (false, true) => Some(SlotAction::Drop),
            (false, false) => None,
        };
        options.check()?;
        if let Some(text) = compress {
            options.compression = Compression::parse(&text)?;
        }
        Ok(options)
    }

    fn check(&self) -> Result<(), OptionError> {
        if self.slot.is_none()
            && let Some(action) = self.slot_action
        {
            let option = match action {
                SlotAction::Create => "--create-slot",
                SlotAction::Drop => "--drop-slot",
            };
            return Err(usage(&format!(
                "{option} needs a slot to be specified using --slot"
            )));
        }
        if self.synchronous && self.no_sync {
            return Err(usage("cannot use --synchronous together with --no-sync"));
        }
        // What a loss of power leaves of files that were not synced could not be told from finished ones.
        if self.to.is_some() && self.no_sync {
            return Err(usage("cannot use --to together with --no-sync"));
        }
        if self.directory.is_none() && self.slot_action.is_none() {
            return Err(usage("no target directory specified"));
        }
        Ok(())
    }
}

fn usage(text: &str) -> OptionError {
    OptionError::Usage(text.to_owned())
}

fn destination(text: &str) -> Result<ArchiveLocation, OptionError> {
    text.parse()
        .map_err(|error| OptionError::Value(format!("invalid value for option --to: {error}")))
}

/// The end position; 0/0 is none.
fn end_position(text: &str) -> Result<Option<Lsn>, OptionError> {
    let halves = hexadecimal(text).and_then(|(high, rest)| {
        let (low, _) = hexadecimal(rest.strip_prefix('/')?)?;
        Some((high, low))
    });
    let Some((high, low)) = halves else {
        return Err(OptionError::Value(format!(
            "could not parse end position \"{text}\""
        )));
    };
    let lsn = Lsn(u64::from(high) << 32 | u64::from(low));
    Ok(Some(lsn).filter(|lsn| lsn.is_valid()))
}

/// # Source
/// `option_parse_int` in `src/fe_utils/option_utils.c`.
fn status_interval(text: &str) -> Result<Duration, OptionError> {
    const NAME: &str = "-s/--status-interval";
    let (seconds, rest) = decimal(text);
    if !rest.trim_start_matches(is_space).is_empty() {
        return Err(OptionError::Value(format!(
            "invalid value \"{text}\" for option {NAME}"
        )));
    }
    u64::try_from(seconds)
        .ok()
        .filter(|_| seconds <= MAX_STATUS_INTERVAL)
        .map(Duration::from_secs)
        .ok_or_else(|| {
            OptionError::Value(format!("{NAME} must be in range 0..{MAX_STATUS_INTERVAL}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, OptionError> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        Options::parse(&arguments)
    }

    #[test]
    fn all_options_are_understood() {
        let options = parse(&[
            "-nvwDwal",
            "-E",
            "1/2A",
            "--synchronous",
            "-s5",
            "--slot=s",
            "--if-not-exists",
            "-Zlz4",
            "--to=s3://bucket/wal",
            "-d",
            "x=y",
            "-hhost",
            "-p1",
            "-Ume",
        ])
        .unwrap();
        let expected = Options {
            directory: Some("wal".into()),
            end: Some(Lsn(0x1_0000_002A)),
            no_loop: true,
            no_sync: false,
            synchronous: true,
            status_interval: Duration::from_secs(5),
            slot: Some("s".into()),
            slot_action: None,
            if_not_exists: true,
            compression: Compression::Lz4(0),
            to: Some("s3://bucket/wal".parse().unwrap()),
            verbose: true,
            server: ServerOptions {
                conninfo: Some("x=y".into()),
                host: Some("host".into()),
                port: Some("1".into()),
                user: Some("me".into()),
                prompt: Prompt::Never,
            },
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn the_first_fault_is_told() {
        for (arguments, expected) in [
            (
                &["-D", "x", "-E", "1"][..],
                "could not parse end position \"1\"",
            ),
            (
                &["-s", "x"],
                "invalid value \"x\" for option -s/--status-interval",
            ),
            (
                &["-s", "2147484"],
                "-s/--status-interval must be in range 0..2147483",
            ),
            (
                &["--create-slot"],
                "--create-slot needs a slot to be specified using --slot",
            ),
            (&[], "no target directory specified"),
            (&["--to", "s3://b"], "no target directory specified"),
            (
                &["-D", "x", "--to", "s3://b", "--no-sync"],
                "cannot use --to together with --no-sync",
            ),
            (
                &["-D", "x", "--to", "s3://"],
                "invalid value for option --to: \"s3://\": expected a bucket or container after s3://, as in \
                 s3://bucket/prefix",
            ),
            (
                &["x", "y"],
                "too many command-line arguments (first is \"x\")",
            ),
        ] {
            assert_eq!(parse(arguments).unwrap_err().to_string(), expected);
        }
        let options = parse(&["-D", "x", "-E", "0/0", "--no-sync"]).unwrap();
        assert_eq!((options.end, options.no_sync), (None, true));
    }
}
