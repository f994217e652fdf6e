//! Options of `walreceiver run` that make the mirror a hub.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use walsender::ListenAddress;
use walstream::sync::{StandbyNames, SyncRule};

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
    /// mirror keeps all WAL, with or without slots.
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

    /// WAL that stays in memory for followers, in MB; what is older is read from the mirror's files.
    #[arg(long, value_name = "MB", default_value_t = 16, requires = "serve",
        value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub serve_memory: u32,

    /// Silence of a follower after which it is taken for dead, in seconds; 0 waits for ever.
    #[arg(long, value_name = "SECONDS", default_value = "60", requires = "serve", value_parser = seconds)]
    pub wal_sender_timeout: Duration,

    /// How long followers may take at the end to confirm the last WAL, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", requires = "serve", value_parser = seconds)]
    pub shutdown_timeout: Duration,

    /// Who may follow.
    #[command(flatten)]
    pub access: AccessArgs,
}

impl HubArgs {
    /// What they ask for; `None` without `--serve`.
    #[must_use]
    pub fn config(&self, mirror: &Path) -> Option<HubConfig> {
        let listen = self.serve.clone()?;
        let names = self.synchronous_standby_names.clone();
        let names = match names {
            None if self.relay_sync => StandbyNames::parse("*").ok().flatten(),
            names => names,
        };
        Some(HubConfig {
            listen,
            slots: self.slots.clone().unwrap_or_else(|| mirror.join(SLOTS)),
            memory: usize::try_from(self.serve_memory)
                .unwrap_or(usize::MAX)
                .saturating_mul(1 << 20),
            relay_sync: self.relay_sync,
            sync_rule: SyncRule::from(names),
            wal_sender_timeout: Some(self.wal_sender_timeout).filter(|timeout| !timeout.is_zero()),
            shutdown_timeout: self.shutdown_timeout,
            access: self.access.files(),
        })
    }
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
        let files = ["--auth-file", "/u", "--tls-cert", "/c", "--tls-key", "/k"];
        let others = config(&[&["--serve", "10.0.0.1:5433"][..], &files].concat()).unwrap();
        assert_eq!(others.access.verifiers.as_deref(), Some(Path::new("/u")));
        assert!(others.access.tls.is_some());
        for bad in [
            &["--relay-sync"][..],
            &["--slots", "/x"],
            &["--hba", "/x"],
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
