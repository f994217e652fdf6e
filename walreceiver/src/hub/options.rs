//! Options of `walreceiver run` that make the mirror a hub.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use walsender::{ListenAddress, SyncNamesFile, SyncRuleChoice};
use walstream::sync::{GreenplumRule, StandbyNames};

use super::HubConfig;
use super::access_args::AccessArgs;
use crate::run::options::seconds;

/// Slots of a mirror's followers, within its directory.
const SLOTS: &str = "walstream.slots";

/// Options of a hub.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Serving further standbys (cascading)")]
pub struct HubArgs {
    /// Serve the mirror's WAL to further standbys: an address such as 127.0.0.1:5433, or the absolute path of a unix socket,
    /// whose name must be .s.PGSQL.PORT for PostgreSQL's clients. Addresses that other machines reach need --auth-file or
    /// --hba.
    #[arg(long, value_name = "ADDR")]
    pub serve: Option<ListenAddress>,

    /// Directory of the followers' replication slots, made where it is missing. Default: walstream.slots in the mirror. The
    /// mirror keeps all WAL, with or without slots, unless --keep-wal says less; then it keeps what they need.
    #[arg(long, value_name = "DIR", requires = "serve")]
    pub slots: Option<PathBuf>,

    /// Report to the primary what the hub's own synchronous standbys have, not what the mirror has: commits there then wait
    /// for them, and the slot there keeps what they lack. So does its shutdown, while enough of them are connected.
    #[arg(long, requires = "serve")]
    pub relay_sync: bool,

    /// Which followers are synchronous, as the setting of this name in PostgreSQL: FIRST 1 (a, b), ANY 2 (a, b, c), *.
    /// Default: * with --relay-sync, none without.
    #[arg(long, value_name = "NAMES", requires = "serve", value_parser = names)]
    pub synchronous_standby_names: Option<StandbyNames>,

    /// File that holds the value of that setting instead, in which SIGHUP finds it changed: what need not be waited for by
    /// the new one is reported at once. Lines that begin with # are comments; one that cannot be parsed changes nothing.
    #[arg(
        long,
        value_name = "FILE",
        requires = "serve",
        conflicts_with = "synchronous_standby_names"
    )]
    pub synchronous_standby_names_file: Option<PathBuf>,

    /// By which rule followers are synchronous: "names", those of --synchronous-standby-names; "greenplum", as a coordinator
    /// of Greenplum 7 or Cloudberry chooses, which ignores names: a follower with the application_name gp_walreceiver that
    /// streams, or that catches up and has come near; "greenplum6", the same with any application_name. While there is no
    /// such follower, --relay-sync reports what the mirror has, so that a dead one is never waited for.
    #[arg(long, value_name = "RULE", requires = "serve", default_value_t)]
    pub sync_rule: SyncRuleChoice,

    /// How near a follower that catches up has to be for the Greenplum rule, in WAL segments, as the setting of this name
    /// there.
    #[arg(long, value_name = "SEGMENTS", requires = "serve",
        default_value_t = GreenplumRule::DEFAULT_CATCHUP_WITHIN_RANGE)]
    pub repl_catchup_within_range: u32,

    /// WAL that stays in memory for followers, in MB; what is older is read from the mirror's files.
    #[arg(long, value_name = "MB", default_value_t = 16, requires = "serve",
        value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub serve_memory: u32,

    /// Silence of a follower after which it is taken for dead, in seconds; 0 waits for ever.
    #[arg(long, value_name = "SECONDS", default_value = "60", requires = "serve", value_parser = seconds)]
    pub wal_sender_timeout: Duration,

    /// How long a client may take until it is let in, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "60", requires = "serve",
        value_parser = clap::value_parser!(u64).range(1..=600))]
    pub authentication_timeout: u64,

    /// Most followers at a time, other clients included; further ones are told that there are too many.
    #[arg(long, value_name = "N", default_value = "100", requires = "serve",
        value_parser = clap::value_parser!(u32).range(1..=262_143))]
    pub max_connections: u32,

    /// Most clients at a time that are not let in yet; further ones are cut off. They take no place from the others.
    #[arg(long, value_name = "N", default_value = "100", requires = "serve",
        value_parser = clap::value_parser!(u32).range(1..=262_143))]
    pub max_waiting_clients: u32,

    /// How long followers may take at the end to confirm the last WAL, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", requires = "serve", value_parser = seconds)]
    pub shutdown_timeout: Duration,

    /// Who may follow.
    #[command(flatten)]
    pub access: AccessArgs,
}

impl HubArgs {
    /// Where the followers' slots are, whether they are served or not.
    #[must_use]
    pub fn slots_directory(&self, mirror: &Path) -> PathBuf {
        self.slots.clone().unwrap_or_else(|| mirror.join(SLOTS))
    }

    /// What they ask for; `None` without `--serve`.
    #[must_use]
    pub fn config(&self, mirror: &Path) -> Option<HubConfig> {
        let listen = self.serve.clone()?;
        let names = self.synchronous_standby_names.clone();
        let file = self.synchronous_standby_names_file.clone();
        let has_names = names.is_some() || file.is_some();
        let names = match names {
            None if self.relay_sync && !has_names && self.sync_rule == SyncRuleChoice::Names => {
                StandbyNames::parse("*").ok().flatten()
            }
            names => names,
        };
        let file = file.map(|path| SyncNamesFile {
            path,
            needs_names: self.relay_sync,
        });
        let within_range = self.repl_catchup_within_range;
        let (sync_rule, sync_names_file) = self.sync_rule.rule(names, file, within_range);
        Some(HubConfig {
            listen,
            slots: self.slots_directory(mirror),
            memory: count(self.serve_memory).saturating_mul(1 << 20),
            relay_sync: self.relay_sync,
            sync_rule,
            sync_names_file,
            wal_sender_timeout: Some(self.wal_sender_timeout).filter(|timeout| !timeout.is_zero()),
            authentication_timeout: Duration::from_secs(self.authentication_timeout),
            max_connections: count(self.max_connections),
            max_waiting: count(self.max_waiting_clients),
            shutdown_timeout: self.shutdown_timeout,
            access: self.access.files(),
        })
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Names of standbys; at least one.
fn names(setting: &str) -> Result<StandbyNames, String> {
    match StandbyNames::parse(setting) {
        Ok(Some(names)) => Ok(names),
        Ok(None) => {
            Err("no name: leave the option out where no follower is synchronous".to_owned())
        }
        Err(error) => Err(error.message(setting)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use walstream::sync::SyncRule;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        hub: HubArgs,
    }

    fn config(arguments: &[&str]) -> Option<HubConfig> {
        let cli = Cli::try_parse_from(["x"].iter().chain(arguments)).ok()?;
        cli.hub.config(Path::new("/m"))
    }

    #[test]
    fn relaying_needs_standbys_to_relay_for() {
        assert!(config(&[]).is_none());
        let serve = ["--serve", "127.0.0.1:0"];
        let plain = config(&serve).unwrap();
        assert_eq!(plain.slots, Path::new("/m/walstream.slots"));
        assert_eq!((plain.sync_rule, plain.relay_sync), (SyncRule::Off, false));
        let relay = config(&[&serve[..], &["--relay-sync"]].concat()).unwrap();
        let any = SyncRule::from(StandbyNames::parse("*").unwrap());
        assert_eq!(relay.sync_rule, any);
        let file = ["--synchronous-standby-names-file", "/n"];
        let from_file = config(&[&serve[..], &file, &["--relay-sync"]].concat()).unwrap();
        assert_eq!(from_file.sync_rule, SyncRule::Off, "the file says");
        assert!(from_file.sync_names_file.unwrap().needs_names);
        let greenplum = [
            "--sync-rule",
            "greenplum",
            "--repl-catchup-within-range",
            "4",
        ];
        let greenplum = config(&[&serve[..], &greenplum, &["--relay-sync"]].concat()).unwrap();
        assert!(
            matches!(greenplum.sync_rule, SyncRule::Greenplum(rule) if rule.catchup_within_range == 4)
        );
        let limits = ["--max-connections", "7", "--authentication-timeout", "9"];
        let limited = config(&[&serve[..], &limits].concat()).unwrap();
        assert_eq!(limited.max_connections, 7);
        assert_eq!(limited.authentication_timeout, Duration::from_secs(9));
        let files = ["--auth-file", "/u", "--tls-cert", "/c", "--tls-key", "/k"];
        let others = config(&[&["--serve", "10.0.0.1:5433"][..], &files].concat()).unwrap();
        assert_eq!(others.access.verifiers.as_deref(), Some(Path::new("/u")));
        assert!(others.access.tls.is_some());
        for bad in [
            &["--relay-sync"][..],
            &["--slots", "/x"],
            &["--hba", "/x"],
            &["--sync-rule", "greenplum"],
            &["--serve", "127.0.0.1:0", "--sync-rule", "hawq"],
            &["--synchronous-standby-names-file", "/x"],
            &["--serve", "127.0.0.1:0", "--max-connections", "0"],
            &["--serve", "127.0.0.1:0", "--authentication-timeout", "601"],
            &["--serve", "127.0.0.1:0", "--tls-cert", "/x"],
            &["--serve", "127.0.0.1:0", "--synchronous-standby-names", ""],
            &[
                "--serve",
                "127.0.0.1:0",
                "--synchronous-standby-names",
                "FIRST x",
            ],
        ] {
            assert!(
                Cli::try_parse_from(["x"].iter().chain(bad)).is_err(),
                "{bad:?}"
            );
        }
    }
}
