//! The physical slot that keeps WAL for a mirror: made before the backup, taken away again when the init fails.

use std::time::Duration;

use walstream::protocol::command::{Command, CreateReplicationSlot, Grammar, SlotKind};
use walstream::protocol::identify::{CreatedSlot, SlotPosition};

use super::error::InitError;
use super::server::{ask, first_row};
use crate::connection::{ConnInfo, Connection, ConnectionError, Purpose};

/// SQLSTATE `duplicate_object`: there is a slot of this name.
const DUPLICATE_OBJECT: &str = "42710";
/// How long the server may take to drop a slot.
const DROP_WAIT: Duration = Duration::from_secs(10);

/// How an init came by its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotOrigin {
    /// It was made, and holds WAL from now on.
    Created,
    /// It was there.
    Existed,
}

/// Makes the slot, holding WAL at once, or takes one that is there and is physical.
///
/// # Errors
/// [`InitError::Server`] when the server refuses, [`InitError::Protocol`] when the slot that is there is not physical.
pub async fn create(connection: &mut Connection, name: &str) -> Result<SlotOrigin, InitError> {
    let command = Command::CreateReplicationSlot(CreateReplicationSlot {
        slot: name.to_owned(),
        temporary: false,
        kind: SlotKind::Physical { reserve_wal: true },
    });
    match ask(connection, &command).await {
        Ok(result) => {
            CreatedSlot::parse(&first_row(&result))?;
            Ok(SlotOrigin::Created)
        }
        Err(ConnectionError::Server(error)) if error.sqlstate == DUPLICATE_OBJECT => {
            if Grammar::for_version(connection.server_version()).has_read_replication_slot() {
                let command = Command::ReadReplicationSlot {
                    slot: name.to_owned(),
                };
                let failed = InitError::server("could not read the replication slot");
                let result = ask(connection, &command).await.map_err(failed)?;
                SlotPosition::parse(&first_row(&result))?;
            }
            Ok(SlotOrigin::Existed)
        }
        Err(error) => Err(InitError::server("could not create the replication slot")(
            error,
        )),
    }
}

/// Drops the slot over a connection of its own, waiting for the server to notice that we no longer use it.
///
/// # Errors
/// Why it is still there, in words.
pub async fn drop_slot(conninfo: &ConnInfo, name: &str) -> Result<(), String> {
    let dropping = async {
        let conninfo = conninfo.clone().with_connect_timeout_default(DROP_WAIT);
        let connected = Connection::connect(&conninfo, Purpose::PhysicalReplication).await;
        let mut connection = connected.map_err(|error| error.to_string())?;
        let command = Command::DropReplicationSlot {
            slot: name.to_owned(),
            wait: true,
        };
        let dropped = ask(&mut connection, &command)
            .await
            .map_err(|error| error.to_string());
        connection.terminate().await;
        dropped.map(drop)
    };
    match tokio::time::timeout(DROP_WAIT, dropping).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", DROP_WAIT.as_secs())),
    }
}
