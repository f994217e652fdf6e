//! [`ClusterOptions`]: what a test's server is made of.

use std::path::Path;

use anyhow::{Context, Result};
use walreceiver::demo::local_postgres::{Listen, LocalPostgres};
use walreceiver::demo::postgres_programs::{PostgresChoice, PostgresPrograms};
use walreceiver::demo::server_user::ServerUser;

use crate::cluster::Cluster;
use crate::cluster_template::fill_from_template;

/// Settings of every cluster of the tests. `fsync` may be off because the tests kill processes, not machines. `autovacuum`
/// is off because what it does in one of two servers that are compared would be a difference.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("shared_buffers", "16MB"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("max_prepared_transactions", "10"),
    ("log_line_prefix", "%m [%p] %q%a "),
    ("log_replication_commands", "on"),
    ("autovacuum", "off"),
];

/// How a [`Cluster`] is made: chain what differs from the default, then [`start`](Self::start).
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    programs: Option<PostgresPrograms>,
    initdb: Vec<String>,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    own_system: bool,
}

impl ClusterOptions {
    /// A setting in `postgresql.conf`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Several settings in `postgresql.conf`.
    #[must_use]
    pub fn with(self, settings: &[(&str, &str)]) -> Self {
        let set = |options: Self, (name, value): &(&str, &str)| options.set(name, value);
        settings.iter().fold(self, set)
    }

    /// An option of `initdb`, such as `--wal-segsize=1`.
    #[must_use]
    pub fn initdb_option(mut self, option: &str) -> Self {
        self.initdb.push(option.to_owned());
        self
    }

    /// A line of `pg_hba.conf`, before those that are there.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// The programs to use: another version than the one of this machine.
    #[must_use]
    pub fn programs(mut self, programs: &PostgresPrograms) -> Self {
        self.programs = Some(programs.clone());
        self
    }

    /// Runs `initdb` anew. Clusters are copies of one template and have one system identifier; this one gets its own.
    #[must_use]
    pub const fn own_system(mut self) -> Self {
        self.own_system = true;
        self
    }

    /// Makes the cluster and starts it.
    ///
    /// # Errors
    /// When there is no PostgreSQL, or the server does not start (with its log).
    pub fn start(&self) -> Result<Cluster> {
        let mut cluster = self.create()?;
        cluster.start()?;
        Ok(cluster)
    }

    /// Makes the cluster and does not start it.
    ///
    /// # Errors
    /// When there is no PostgreSQL, or `initdb` fails.
    pub fn create(&self) -> Result<Cluster> {
        let user = server_user()?;
        let programs = match &self.programs {
            Some(programs) => programs.clone(),
            None => local_programs(&user)?,
        };
        let initdb: Vec<&str> = self.initdb.iter().map(String::as_str).collect();
        let server = if self.own_system {
            LocalPostgres::initdb(&programs, &user, Listen::SocketAndTcp, &initdb, &[])?
        } else {
            let mut server = LocalPostgres::empty(&programs, &user, Listen::SocketAndTcp)?;
            fill_from_template(&mut server, &initdb)?;
            server
        };
        server.configure(SETTINGS)?;
        let own: Vec<(&str, &str)> = self
            .settings
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        server.configure(&own)?;
        if !self.hba.is_empty() {
            let path = server.data_dir().join("pg_hba.conf");
            let rest = std::fs::read_to_string(&path)?;
            server.write_file(&path, &format!("{}\n{rest}", self.hba.join("\n")))?;
        }
        Ok(Cluster::from(server))
    }
}

/// The user that servers and our programs run as in the tests.
///
/// # Errors
/// When we are root and there is no other user.
pub(crate) fn server_user() -> Result<ServerUser> {
    ServerUser::choose()
        .context("we are root, and there is neither a user postgres nor a user nobody")
}

/// The programs that the tests use where they do not ask for another version: those of the directory in the variable
/// `WALSTREAM_POSTGRES`, else what this machine has.
pub(crate) fn local_programs(user: &ServerUser) -> Result<PostgresPrograms> {
    let choice = match std::env::var_os("WALSTREAM_POSTGRES") {
        Some(bindir) => PostgresChoice::BinDir(Path::new(&bindir).to_owned()),
        None => PostgresChoice::Auto,
    };
    PostgresPrograms::find(&choice, user)?.context("the tests need a PostgreSQL server")
}
