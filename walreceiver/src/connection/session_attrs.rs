//! Whether a server is of the kind that `target_session_attrs` asks for.

use super::connect_error::AttemptFailure;
use super::connection::Connection;
use super::hosts::TargetSessionAttrs;
use super::startup::Purpose;

/// Checks the server.
///
/// Servers since 14 tell by themselves whether they are in recovery and whether transactions are read-only. Older ones
/// are asked; in replication mode, where functions cannot be called, `transaction_read_only` stands for recovery.
///
/// # Source
/// `CONNECTION_CHECK_TARGET` in `src/interfaces/libpq/fe-connect.c`.
pub(super) async fn check(
    connection: &mut Connection,
    purpose: Purpose,
    wanted: TargetSessionAttrs,
) -> Result<(), AttemptFailure> {
    use TargetSessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
    let wrong = |found| Err(AttemptFailure::WrongServer { wanted, found });
    match wanted {
        Any | PreferStandby => Ok(()),
        ReadWrite | ReadOnly => {
            let read_only = match (
                reported(connection, "default_transaction_read_only"),
                in_hot_standby(connection),
            ) {
                (Some(default), Some(standby)) => default || standby,
                _ => ask(connection, "SHOW transaction_read_only").await?,
            };
            match (wanted, read_only) {
                (ReadWrite, true) => wrong("session is read-only"),
                (ReadOnly, false) => wrong("session is not read-only"),
                _ => Ok(()),
            }
        }
        Primary | Standby => {
            let standby = match (in_hot_standby(connection), purpose) {
                (Some(standby), _) => standby,
                (None, Purpose::Sql) => {
                    ask(connection, "SELECT pg_catalog.pg_is_in_recovery()").await?
                }
                (None, Purpose::PhysicalReplication) => {
                    ask(connection, "SHOW transaction_read_only").await?
                }
            };
            match (wanted, standby) {
                (Primary, true) => wrong("server is in hot standby mode"),
                (Standby, false) => wrong("server is not in hot standby mode"),
                _ => Ok(()),
            }
        }
    }
}

fn in_hot_standby(connection: &Connection) -> Option<bool> {
    reported(connection, "in_hot_standby")
}

fn reported(connection: &Connection, name: &str) -> Option<bool> {
    connection.parameter(name).map(|value| value == "on")
}

/// Asks for one boolean.
async fn ask(connection: &mut Connection, query: &str) -> Result<bool, AttemptFailure> {
    let result = connection
        .query(query)
        .await
        .map_err(AttemptFailure::Session)?;
    Ok(matches!(result.text(0, 0), Some("on" | "t")))
}
