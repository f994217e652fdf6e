//! The server: how it is reached, and what is asked of it before WAL flows.

use std::ffi::OsStr;

use walstream::protocol::command::Command;
use walstream::protocol::identify::{IdentifySystem, SlotPosition, TimelineHistoryFile};
use walstream::{Dialect, PageSize, PgMajor, SegmentSize, TimelineId};

use super::libpq_text::needs_password;
use super::options::{Prompt, ServerOptions};
use super::password_prompt;
use super::receive_error::ReceiveError;
use crate::connection::{ConnInfo, Connection, ConnectionError, Environment, Purpose, ResultSet};
use crate::init::server::{ask, first_row, parse_size};

const IDENTIFY: &str = "IDENTIFY_SYSTEM";

/// How the server is reached, with the password once it was asked for.
#[derive(Debug)]
pub struct ServerAddress {
    conninfo: ConnInfo,
    prompt: Prompt,
}

impl ServerAddress {
    /// From the options, completed from the environment as libpq does.
    ///
    /// # Errors
    /// [`ReceiveError::ConnInfo`].
    ///
    /// # Source
    /// `GetConnection` in `src/bin/pg_basebackup/streamutil.c`.
    pub fn new(options: &ServerOptions, application_name: &str) -> Result<Self, ReceiveError> {
        let text = options.conninfo.as_deref().unwrap_or_default();
        let mut conninfo = ConnInfo::resolve(text, &Environment::from_process())?;
        for (keyword, value) in [
            ("host", &options.host),
            ("user", &options.user),
            ("port", &options.port),
        ] {
            if let Some(value) = value {
                conninfo = conninfo.with_parameter(keyword, value)?;
            }
        }
        Ok(Self {
            conninfo: conninfo.with_application_name_default(application_name),
            prompt: options.prompt,
        })
    }

    /// Connects, asking for a password where one is needed and asking is allowed.
    ///
    /// # Errors
    /// [`ReceiveError::Connect`].
    pub async fn connect(&mut self) -> Result<Connection, ReceiveError> {
        if self.prompt == Prompt::First {
            self.ask_for_password()?;
        }
        loop {
            match Connection::connect(&self.conninfo, Purpose::PhysicalReplication).await {
                Ok(connection) => return Ok(connection),
                Err(error) if needs_password(&error) && self.prompt != Prompt::Never => {
                    self.ask_for_password()?;
                }
                Err(error) => return Err(ReceiveError::Connect(error)),
            }
        }
    }

    /// Asks once; the answer serves all further connections.
    fn ask_for_password(&mut self) -> Result<(), ReceiveError> {
        let password = password_prompt::ask("Password: ");
        // An empty answer is none: the server's question is asked no second time.
        self.prompt = if password.is_empty() {
            Prompt::Never
        } else {
            Prompt::WhenNeeded
        };
        self.conninfo = self.conninfo.with_parameter("password", &password)?;
        Ok(())
    }
}

/// The name that the server knows the connection by: the program's, blanks as underscores.
#[must_use]
pub fn application_name(program: &str) -> String {
    program.replace(' ', "_")
}

/// The last part of a program's path.
#[must_use]
pub fn program_name(path: &OsStr) -> String {
    std::path::Path::new(path)
        .file_name()
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned()
}

/// The format that the server's version says, with default sizes.
///
/// # Errors
/// [`ReceiveError::Version`].
///
/// # Source
/// `CheckServerVersionForStreaming` in `src/bin/pg_basebackup/receivelog.c`.
pub fn check_version(connection: &Connection) -> Result<PgMajor, ReceiveError> {
    let number = connection.server_version() / 10_000;
    PgMajor::from_number(number).ok_or_else(|| ReceiveError::Version {
        version: connection
            .parameter("server_version")
            .unwrap_or("'unknown'")
            .to_owned(),
        too_new: PgMajor::ALL
            .last()
            .is_some_and(|last| number > last.number()),
    })
}

/// Asks the server who it is.
///
/// # Errors
/// [`ReceiveError::Essential`], [`ReceiveError::Answer`].
pub async fn identify(connection: &mut Connection) -> Result<IdentifySystem, ReceiveError> {
    let result = ask(connection, &Command::IdentifySystem)
        .await
        .map_err(|source| ReceiveError::Essential {
            command: IDENTIFY,
            source,
        })?;
    IdentifySystem::parse(&first_row(&result)).map_err(|source| ReceiveError::Answer {
        command: IDENTIFY,
        source,
    })
}

/// The permissions of the server's data directory.
///
/// # Errors
/// [`ReceiveError::Essential`], [`ReceiveError::Setting`].
pub async fn directory_mode(connection: &mut Connection) -> Result<u32, ReceiveError> {
    let text = show(
        connection,
        "data_directory_mode",
        "SHOW data_directory_mode",
    )
    .await?;
    u32::from_str_radix(&text, 8).map_err(|_| ReceiveError::Setting {
        name: "data_directory_mode",
        value: text,
    })
}

/// The format of the server's WAL.
///
/// # Errors
/// [`ReceiveError::Essential`], [`ReceiveError::Setting`].
pub async fn dialect(connection: &mut Connection, major: PgMajor) -> Result<Dialect, ReceiveError> {
    let text = show(connection, "wal_segment_size", "SHOW wal_segment_size").await?;
    let segment_size = parse_size(&text)
        .and_then(|bytes| SegmentSize::new(bytes).ok())
        .ok_or(ReceiveError::Setting {
            name: "wal_segment_size",
            value: text,
        })?;
    let text = show(connection, "wal_block_size", "SHOW wal_block_size").await?;
    let wal_page_size = text
        .parse()
        .ok()
        .and_then(|bytes| PageSize::new(bytes).ok())
        .ok_or(ReceiveError::Setting {
            name: "wal_block_size",
            value: text,
        })?;
    Ok(Dialect {
        wal_page_size,
        segment_size,
        ..Dialect::with_default_sizes(major)
    })
}

async fn show(
    connection: &mut Connection,
    name: &str,
    command: &'static str,
) -> Result<String, ReceiveError> {
    let show = Command::Show {
        name: name.to_owned(),
    };
    let result = ask(connection, &show)
        .await
        .map_err(|source| ReceiveError::Essential { command, source })?;
    Ok(result.text(0, 0).unwrap_or_default().to_owned())
}

/// Makes a physical slot. With `reserve` it holds WAL from now on, else from the first connection that uses it.
///
/// # Errors
/// [`ReceiveError::Command`], but not when there is such a slot already and that is allowed.
///
/// # Source
/// `CreateReplicationSlot` in `src/bin/pg_basebackup/streamutil.c`.
pub async fn create_slot(
    connection: &mut Connection,
    slot: &str,
    reserve: bool,
    if_not_exists: bool,
) -> Result<(), ReceiveError> {
    let options = match reserve {
        true if connection.server_version() >= 150_000 => " (RESERVE_WAL)",
        true => " RESERVE_WAL",
        false => "",
    };
    let command = format!("CREATE_REPLICATION_SLOT \"{slot}\" PHYSICAL{options}");
    match run(connection, command).await {
        Err(ReceiveError::Command {
            source: ConnectionError::Server(error),
            ..
            // duplicate_object
        }) if if_not_exists && error.sqlstate == "42710" => Ok(()),
        other => other.map(drop),
    }
}

/// Drops a slot.
///
/// # Errors
/// [`ReceiveError::Command`].
///
/// # Source
/// `DropReplicationSlot` in `src/bin/pg_basebackup/streamutil.c`.
pub async fn drop_slot(connection: &mut Connection, slot: &str) -> Result<(), ReceiveError> {
    let command = format!("DROP_REPLICATION_SLOT \"{slot}\"");
    run(connection, command).await.map(drop)
}

async fn run(connection: &mut Connection, command: String) -> Result<ResultSet, ReceiveError> {
    connection
        .query(&command)
        .await
        .map_err(|source| ReceiveError::Command { command, source })
}

/// From where on a slot holds WAL; `None` where it holds none yet, or the server cannot say (before 15).
///
/// # Errors
/// [`ReceiveError::NoSlot`], [`ReceiveError::Command`], [`ReceiveError::Answer`].
///
/// # Source
/// `GetSlotInformation` in `src/bin/pg_basebackup/streamutil.c`.
pub async fn slot_position(
    connection: &mut Connection,
    slot: &str,
) -> Result<Option<SlotPosition>, ReceiveError> {
    const COMMAND: &str = "READ_REPLICATION_SLOT";
    if connection.server_version() < 150_000 {
        return Ok(None);
    }
    let result = connection
        .query(&format!("{COMMAND} {slot}"))
        .await
        .map_err(|source| ReceiveError::Command {
            command: COMMAND.to_owned(),
            source,
        })?;
    let position =
        SlotPosition::parse(&first_row(&result)).map_err(|source| ReceiveError::Answer {
            command: COMMAND,
            source,
        })?;
    position.map(Some).ok_or_else(|| ReceiveError::NoSlot {
        slot: slot.to_owned(),
    })
}

/// A timeline's history file; `None` when the server has none any more.
///
/// # Errors
/// [`ReceiveError::Command`], [`ReceiveError::Answer`], [`ReceiveError::HistoryName`].
pub async fn history_file(
    connection: &mut Connection,
    timeline: TimelineId,
) -> Result<Option<Vec<u8>>, ReceiveError> {
    const COMMAND: &str = "TIMELINE_HISTORY";
    let result = match ask(connection, &Command::TimelineHistory { timeline }).await {
        Ok(result) => result,
        // undefined_file
        Err(ConnectionError::Server(error)) if error.sqlstate == "58P01" => return Ok(None),
        Err(source) => {
            return Err(ReceiveError::Command {
                command: COMMAND.to_owned(),
                source,
            });
        }
    };
    let file =
        TimelineHistoryFile::parse(&first_row(&result)).map_err(|source| ReceiveError::Answer {
            command: COMMAND,
            source,
        })?;
    if file.name != format!("{:08X}.history", timeline.0) {
        return Err(ReceiveError::HistoryName {
            timeline,
            name: file.name,
        });
    }
    Ok(Some(file.content))
}
