//! The server that is to be mirrored: what it is, in facts that the rest of an init needs.

use walstream::protocol::command::{Command, Grammar};
use walstream::protocol::identify::IdentifySystem;
use walstream::{Dialect, PageSize, PgMajor, SegmentSize, SystemIdentifier, TimelineId};

use super::error::InitError;
use crate::connection::{ConnInfo, Connection, ConnectionError, Purpose, ResultSet};

/// A replication connection to the server, and what it said about itself.
#[derive(Debug)]
pub struct Server {
    /// The connection, ready for the next command.
    pub connection: Connection,
    /// What it said.
    pub facts: ServerFacts,
}

/// What a server said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `host:port`, or the socket.
    pub peer: String,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Timeline that its WAL is on.
    pub timeline: TimelineId,
    /// `server_version_num`, as 150018.
    pub version_num: u32,
    /// Format of its WAL and files.
    pub dialect: Dialect,
    /// Permissions of its data directory: 0o700 or 0o750.
    pub directory_mode: u32,
    /// Its data directory, when we have the right to know.
    pub data_directory: Option<String>,
    /// Whether it is in recovery.
    pub is_standby: bool,
}

impl Server {
    /// Connects for replication and asks.
    ///
    /// # Errors
    /// [`InitError`]: no connection, a refusal, an unknown version, or answers that make no sense.
    pub async fn connect(conninfo: &ConnInfo) -> Result<Self, InitError> {
        let mut connection = Connection::connect(conninfo, Purpose::PhysicalReplication).await?;
        let version_num = connection.server_version();
        let major =
            PgMajor::from_number(version_num / 10_000).ok_or(InitError::Version(version_num))?;
        let identity = identify(&mut connection).await?;
        let asked = InitError::server("could not read settings of the coordinator");
        let settings = Settings::read(&mut connection).await.map_err(asked)?;
        let facts = ServerFacts {
            peer: connection.peer().to_owned(),
            system_identifier: identity.system_identifier,
            timeline: identity.timeline,
            version_num,
            dialect: settings.dialect(major)?,
            directory_mode: settings.directory_mode()?,
            is_standby: settings.is_standby(&connection),
            data_directory: settings.data_directory,
        };
        Ok(Self { connection, facts })
    }

    /// Connects once more, for the WAL beside the backup, and makes sure that it is the same server.
    ///
    /// # Errors
    /// [`InitError::TwoServers`], or what kept us from asking.
    pub async fn connect_again(
        conninfo: &ConnInfo,
        facts: &ServerFacts,
    ) -> Result<Connection, InitError> {
        let mut connection = Connection::connect(conninfo, Purpose::PhysicalReplication).await?;
        let identity = identify(&mut connection).await?;
        if (identity.system_identifier, identity.timeline)
            != (facts.system_identifier, facts.timeline)
        {
            return Err(InitError::TwoServers {
                first: facts.system_identifier,
                first_timeline: facts.timeline,
                second: identity.system_identifier,
                second_timeline: identity.timeline,
            });
        }
        Ok(connection)
    }
}

async fn identify(connection: &mut Connection) -> Result<IdentifySystem, InitError> {
    let failed = InitError::server("could not identify the coordinator");
    let result = ask(connection, &Command::IdentifySystem)
        .await
        .map_err(failed)?;
    Ok(IdentifySystem::parse(&first_row(&result))?)
}

/// Runs a replication command that answers with rows.
pub(crate) async fn ask(
    connection: &mut Connection,
    command: &Command,
) -> Result<ResultSet, ConnectionError> {
    let grammar = Grammar::for_version(connection.server_version());
    connection.query(&command.format(grammar)).await
}

/// The first row's columns; none when there is no row.
pub(crate) fn first_row(result: &ResultSet) -> Vec<Option<&[u8]>> {
    result
        .rows
        .first()
        .into_iter()
        .flatten()
        .map(Option::as_deref)
        .collect()
}

/// Settings as `SHOW` gives them.
struct Settings {
    wal_segment_size: String,
    wal_block_size: String,
    block_size: String,
    data_directory_mode: String,
    data_directory: Option<String>,
    transaction_read_only: bool,
}

impl Settings {
    async fn read(connection: &mut Connection) -> Result<Self, ConnectionError> {
        Ok(Self {
            wal_segment_size: show(connection, "wal_segment_size").await?,
            wal_block_size: show(connection, "wal_block_size").await?,
            block_size: show(connection, "block_size").await?,
            data_directory_mode: show(connection, "data_directory_mode").await?,
            transaction_read_only: show(connection, "transaction_read_only").await? == "on",
            data_directory: match show(connection, "data_directory").await {
                Ok(directory) => Some(directory),
                // Only superusers and pg_read_all_settings may know.
                Err(ConnectionError::Server(error)) if !error.ends_session() => None,
                Err(error) => return Err(error),
            },
        })
    }

    fn dialect(&self, major: PgMajor) -> Result<Dialect, InitError> {
        let wrong = |name, value: &str| InitError::Setting {
            name,
            value: value.to_owned(),
        };
        let page_size = |name, value: &str| -> Result<PageSize, InitError> {
            Ok(PageSize::new(
                value.parse().map_err(|_| wrong(name, value))?,
            )?)
        };
        let segment_size = parse_size(&self.wal_segment_size)
            .ok_or_else(|| wrong("wal_segment_size", &self.wal_segment_size))?;
        Ok(Dialect {
            major,
            wal_page_size: page_size("wal_block_size", &self.wal_block_size)?,
            segment_size: SegmentSize::new(segment_size)?,
            block_size: page_size("block_size", &self.block_size)?,
        })
    }

    fn directory_mode(&self) -> Result<u32, InitError> {
        match self.data_directory_mode.as_str() {
            "0700" => Ok(0o700),
            "0750" => Ok(0o750),
            value => Err(InitError::Setting {
                name: "data_directory_mode",
                value: value.to_owned(),
            }),
        }
    }

    /// Servers since 14 say it by themselves. Functions cannot be called over a replication connection, so of older ones
    /// it is inferred: transactions are read-only in recovery. (A primary that makes them so by default is taken for a
    /// standby, which is the safe mistake; the backup's label tells the truth where it matters.)
    fn is_standby(&self, connection: &Connection) -> bool {
        connection
            .parameter("in_hot_standby")
            .map_or(self.transaction_read_only, |value| value == "on")
    }
}

async fn show(connection: &mut Connection, name: &str) -> Result<String, ConnectionError> {
    let result = ask(
        connection,
        &Command::Show {
            name: name.to_owned(),
        },
    )
    .await?;
    Ok(result.text(0, 0).unwrap_or_default().to_owned())
}

/// A size in bytes as `SHOW` prints it, with a unit.
pub(crate) fn parse_size(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let number: u32 = digits.parse().ok()?;
    let factor = match text.get(digits.len()..)? {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            wal_segment_size: "16MB".into(),
            wal_block_size: "8192".into(),
            block_size: "8192".into(),
            data_directory_mode: "0750".into(),
            data_directory: None,
            transaction_read_only: false,
        }
    }

    #[test]
    fn settings_become_a_dialect() {
        let dialect = settings().dialect(PgMajor::V15).unwrap();
        assert_eq!(dialect, Dialect::with_default_sizes(PgMajor::V15));
        assert_eq!(settings().directory_mode().unwrap(), 0o750);
        for (name, value) in [
            ("wal_segment_size", "16"),
            ("wal_block_size", "x"),
            ("data_directory_mode", "0777"),
        ] {
            let mut wrong = settings();
            match name {
                "wal_segment_size" => wrong.wal_segment_size = value.into(),
                "wal_block_size" => wrong.wal_block_size = value.into(),
                _ => wrong.data_directory_mode = value.into(),
            }
            assert!(
                wrong.dialect(PgMajor::V15).is_err() || wrong.directory_mode().is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let sizes = [
            ("16MB", 16 << 20),
            ("1GB", 1 << 30),
            ("8kB", 8192),
            ("64", 64),
            ("7B", 7),
        ];
        for (text, bytes) in sizes {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MB", "16TB", "-1MB", "4GB", "16 MB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
