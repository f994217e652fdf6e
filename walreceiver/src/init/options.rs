//! The command line of `walreceiver init`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::tablespaces::TablespaceMapping;
use walstream::protocol::command::ManifestChecksums;

/// Options of `walreceiver init`.
#[derive(Args, Clone, Debug)]
#[command(
    about = "Make a mirror directory from a running coordinator",
    long_about = "Make a mirror directory from a running coordinator.\n\n\
        Takes a base backup over a replication connection while the coordinator serves, and receives the write-ahead \
        log of that time alongside, through a physical replication slot that keeps what the mirror still needs. All \
        files are verified against the coordinator's backup manifest (servers since 13) and synced to disk before the \
        directory becomes a mirror. When anything fails, and on SIGINT or SIGTERM, everything that was made is removed \
        again, the slot too.\n\n\
        The coordinator needs wal_level = replica, a free wal sender for each of two connections, a free slot, and a \
        line in pg_hba.conf that lets the user connect for replication.\n\n\
        Afterwards start \"walreceiver run\", which keeps the mirror up to date."
)]
pub struct InitArgs {
    /// Directory that becomes the mirror; it must be empty or not exist yet
    #[arg(short = 'D', long, value_name = "DIRECTORY")]
    pub pgdata: PathBuf,

    /// Connection string of the coordinator: "host=... port=... user=..." or postgresql://...
    ///
    /// What is not given comes from the PG* environment variables, the service file and the password file, as with
    /// every PostgreSQL client.
    #[arg(
        long,
        value_name = "CONNINFO",
        default_value = "",
        hide_default_value = true
    )]
    pub primary: String,

    /// Name of the replication slot [default: made from the application name, gp_walreceiver]
    ///
    /// The slot is created, and removed again when init fails. One that exists already is used as it is when nobody
    /// else uses it, and stays.
    #[arg(short = 'S', long, value_name = "NAME", conflicts_with = "no_slot")]
    pub slot: Option<String>,

    /// Use no replication slot
    ///
    /// Then nothing but wal_keep_size keeps the coordinator from removing write-ahead log that the mirror still needs
    /// while it does not run.
    #[arg(long)]
    pub no_slot: bool,

    /// Put the tablespace that is in directory OLD on the coordinator into NEW here; may be repeated
    ///
    /// Both must be absolute. A "=" within a name is written "\=". Tablespaces that are not mapped go to the same
    /// directory as on the coordinator.
    #[arg(short = 'T', long, value_name = "OLD=NEW")]
    pub tablespace_mapping: Vec<TablespaceMapping>,

    /// How the coordinator makes the checkpoint that the backup starts with
    #[arg(short = 'c', long, value_enum, value_name = "MODE", default_value_t = Checkpoint::Fast)]
    pub checkpoint: Checkpoint,

    /// Greatest rate at which files are transferred, in kB/s, or with suffix "k" or "M"
    ///
    /// From 32 kB/s to 1024 MB/s. Write-ahead log is received without a limit.
    #[arg(short = 'r', long, value_name = "RATE")]
    pub max_rate: Option<MaxRate>,

    /// Label of the backup, as backup_label and the coordinator's log show it
    #[arg(
        short = 'l',
        long,
        value_name = "LABEL",
        default_value = "walreceiver init"
    )]
    pub label: String,

    /// Checksum algorithm of the backup manifest: CRC32C, SHA224, SHA256, SHA384, SHA512 or NONE
    #[arg(long, value_name = "ALGORITHM", default_value = "CRC32C")]
    pub manifest_checksums: ManifestChecksums,

    /// Allow a server that is itself a standby as the source
    #[arg(long)]
    pub from_standby: bool,

    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    pub yes: bool,

    /// Print the result as JSON, and no progress
    #[arg(long)]
    pub json: bool,
}

/// How the server makes the checkpoint that a backup starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Checkpoint {
    /// At once.
    #[default]
    Fast,
    /// Spread over time, as its regular checkpoints are; the backup waits for it.
    Spread,
}

/// A limit of the transfer rate in units of 1024 bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxRate(pub u32);

impl MaxRate {
    /// The least that servers accept.
    pub const LOWEST: u64 = 32;
    /// The greatest that servers accept.
    pub const HIGHEST: u64 = 1 << 20;
}

impl FromStr for MaxRate {
    type Err = String;

    /// # Source
    /// `parse_max_rate` in `src/bin/pg_basebackup/pg_basebackup.c`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (number, factor) = match text.as_bytes().last() {
            Some(b'k') => (text.trim_end_matches('k'), 1),
            Some(b'M') => (text.trim_end_matches('M'), 1024),
            _ => (text, 1),
        };
        let rate = number
            .parse::<u64>()
            .ok()
            .and_then(|rate| rate.checked_mul(factor));
        let rate = rate.filter(|rate| (Self::LOWEST..=Self::HIGHEST).contains(rate));
        let rate = rate.and_then(|rate| u32::try_from(rate).ok());
        rate.map(Self)
            .ok_or_else(|| "not a rate from 32k to 1024M".to_owned())
    }
}

/// The slot's name that an application name stands for: lower case letters, digits and underscores, at most 63.
#[must_use]
pub fn slot_name(application_name: &str) -> String {
    application_name
        .chars()
        .map(|character| character.to_ascii_lowercase())
        .map(|character| {
            if matches!(character, 'a'..='z' | '0'..='9') {
                character
            } else {
                '_'
            }
        })
        .take(63)
        .collect()
}

/// Whether a server accepts this as a slot's name.
///
/// # Source
/// `ReplicationSlotValidateName` in `src/backend/replication/slot.c`.
#[must_use]
pub fn is_slot_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: InitArgs,
    }

    fn parse(arguments: &[&str]) -> Result<InitArgs, clap::Error> {
        let arguments = ["init"].iter().chain(arguments);
        Command::try_parse_from(arguments).map(|command| command.args)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn defaults_and_all_options() {
        let args = parse(&["-D", "/m"]).unwrap();
        assert_eq!(
            (args.primary.as_str(), args.checkpoint, args.no_slot),
            ("", Checkpoint::Fast, false)
        );
        assert_eq!(args.manifest_checksums, ManifestChecksums::Crc32c);
        let args = "-D /m --primary host=h -S s -T /a=/b -T /c=/d -c spread -r 2M -l x \
            --manifest-checksums sha256 --from-standby -y --json";
        let args = parse(&args.split_whitespace().collect::<Vec<_>>()).unwrap();
        assert_eq!(args.tablespace_mapping.len(), 2);
        assert_eq!(
            (args.checkpoint, args.max_rate),
            (Checkpoint::Spread, Some(MaxRate(2048)))
        );
        assert!(args.from_standby && args.yes && args.json);
    }

    #[test]
    fn wrong_options_are_refused() {
        for arguments in [
            "",
            "-D /m -S s --no-slot",
            "-D /m -T /a",
            "-D /m -c never",
            "-D /m --manifest-checksums md5",
        ] {
            assert!(
                parse(&arguments.split_whitespace().collect::<Vec<_>>()).is_err(),
                "{arguments}"
            );
        }
    }

    #[test]
    fn rates_on_both_sides_of_the_bounds() {
        for (text, rate) in [
            ("32", 32),
            ("32k", 32),
            ("1M", 1024),
            ("1024M", 1 << 20),
            ("1048576k", 1 << 20),
        ] {
            assert_eq!(text.parse(), Ok(MaxRate(rate)), "{text}");
        }
        for text in [
            "",
            "k",
            "31",
            "1048577",
            "1025M",
            "-1M",
            "1G",
            "1.5M",
            "18446744073709551615M",
        ] {
            assert!(text.parse::<MaxRate>().is_err(), "{text}");
        }
    }

    #[test]
    fn slot_names_are_made_of_what_servers_accept() {
        assert_eq!(slot_name("gp_walreceiver"), "gp_walreceiver");
        assert_eq!(slot_name("Mirror-2 é"), "mirror_2__");
        assert!(is_slot_name(&slot_name(&"x".repeat(100))));
        for name in ["", "A", "a-b", &"x".repeat(64)] {
            assert!(!is_slot_name(name), "{name}");
        }
    }
}
