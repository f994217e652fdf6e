//! What the primary says: where its WAL ends, and how it sees this mirror.
//!
//! Asked in SQL. Where that is refused, because `pg_hba.conf` lets us in for replication only, the replication protocol
//! still tells where the WAL ends.

use std::time::Duration;

use walstream::protocol::command::{Command, Grammar};
use walstream::{SystemIdentifier, TimelineId};

use super::primary_facts::{PrimaryAnswer, PrimaryFacts, Sender, SenderRow, Slot, SlotRow};
use super::sql::{literal, lsn, number};
use crate::connection::{ConnInfo, ConnectError, Connection, ConnectionError, Purpose, ResultSet};
use crate::exit::Exit;

/// Application name of the questions.
const APPLICATION_NAME: &str = "walreceiver_status";

/// What to look for on the primary.
#[derive(Clone, Debug)]
pub struct Question {
    /// The mirrored cluster.
    pub system: SystemIdentifier,
    /// Name under which the receiver connects.
    pub application_name: String,
    /// The primary's process that serves the receiver, or last served it.
    pub sender_pid: Option<i32>,
    /// Whether a receiver runs: only then a standby of this name can be this mirror when no process is known.
    pub receiver_runs: bool,
    /// The mirror's slot.
    pub slot: Option<String>,
}

/// Asks the primary, and waits no longer than `timeout` for all of it.
pub async fn ask_primary(
    conninfo: &ConnInfo,
    question: &Question,
    timeout: Duration,
) -> PrimaryAnswer {
    let asked = async {
        let conninfo = conninfo
            .with_parameter("application_name", APPLICATION_NAME)
            .map_err(|error| Failure::Refused(error.to_string()))?
            .with_database_default("postgres");
        match ask_in_sql(&conninfo, question).await {
            Err(Failure::Refused(reason)) => ask_in_replication(&conninfo, question, &reason)
                .await
                // Why SQL was refused says more than why this was.
                .map_err(|failure| match failure {
                    Failure::OtherSystem(_) => failure,
                    Failure::Unreachable(_) | Failure::Refused(_) => Failure::Refused(reason),
                }),
            other => other,
        }
    };
    let answer = tokio::time::timeout(timeout, asked)
        .await
        .unwrap_or_else(|_| {
            Err(Failure::Unreachable(format!(
                "no answer within {} s",
                timeout.as_secs_f64()
            )))
        });
    match answer {
        Ok(facts) => PrimaryAnswer::Answer(Box::new(facts)),
        Err(Failure::Unreachable(reason)) => PrimaryAnswer::None {
            reason: one_line(&reason),
            silent: true,
        },
        Err(Failure::Refused(reason) | Failure::OtherSystem(reason)) => PrimaryAnswer::None {
            reason: one_line(&reason),
            silent: false,
        },
    }
}

/// Why one way of asking failed.
enum Failure {
    /// Nothing answers; the other way would wait for nothing.
    Unreachable(String),
    /// It answered and refused.
    Refused(String),
    /// It is not the primary of this mirror.
    OtherSystem(String),
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        if error.exit() == Exit::Unreachable {
            Self::Unreachable(error.to_string())
        } else {
            Self::Refused(error.to_string())
        }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Self::Refused(error.to_string())
    }
}

async fn ask_in_sql(conninfo: &ConnInfo, question: &Question) -> Result<PrimaryFacts, Failure> {
    let mut connection = Connection::connect(conninfo, Purpose::Sql).await?;
    // A role may be kept from the control file, which is no reason to show nothing.
    if let Ok(result) = connection
        .query("SELECT system_identifier FROM pg_control_system()")
        .await
    {
        check_system(&connection, question.system, result.text(0, 0))?;
    }
    // The end of WAL is asked for first, so that what the mirror then has is never behind an end that came later.
    let server = connection
        .query(
            "SELECT pg_is_in_recovery(), \
             CASE WHEN pg_is_in_recovery() THEN GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) \
             ELSE pg_current_wal_lsn() END, \
             CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, \
             current_setting('synchronous_standby_names'), current_user, \
             pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')",
        )
        .await?;
    let sees_all = server.text(0, 5) == Some("t");
    let role = server.text(0, 4).unwrap_or_default();
    let sender = match question.senders() {
        None => Sender::Absent,
        Some(sql) => match connection.query(&sql).await {
            Ok(rows) => sender(&rows, sees_all, role),
            Err(error) => Sender::Unknown {
                reason: one_line(&error.to_string()),
            },
        },
    };
    let slot = match &question.slot {
        None => Slot::Unused,
        Some(name) => match connection
            .query(&slot_query(name, connection.server_version()))
            .await
        {
            Ok(rows) => slot(&rows),
            Err(error) => Slot::Unknown {
                reason: one_line(&error.to_string()),
            },
        },
    };
    let facts = PrimaryFacts {
        peer: connection.peer().to_owned(),
        version: version(&connection),
        is_standby: server.text(0, 0) == Some("t"),
        wal_end: lsn(&server, 0, 1),
        timeline: server
            .text(0, 2)
            .and_then(|text| u32::from_str_radix(text, 16).ok())
            .map(TimelineId),
        synchronous_standby_names: server.text(0, 3).map(str::to_owned),
        sender,
        slot,
    };
    connection.terminate().await;
    Ok(facts)
}

async fn ask_in_replication(
    conninfo: &ConnInfo,
    question: &Question,
    refusal: &str,
) -> Result<PrimaryFacts, Failure> {
    let mut connection = Connection::connect(conninfo, Purpose::PhysicalReplication).await?;
    let grammar = Grammar::for_version(connection.server_version());
    let identity = connection
        .query(&Command::IdentifySystem.format(grammar))
        .await?;
    check_system(&connection, question.system, identity.text(0, 0))?;
    let read_only = Command::Show {
        name: "transaction_read_only".into(),
    };
    let read_only = connection.query(&read_only.format(grammar)).await?;
    let reason = one_line(refusal);
    let facts = PrimaryFacts {
        peer: connection.peer().to_owned(),
        version: version(&connection),
        is_standby: read_only.text(0, 0) == Some("on"),
        wal_end: lsn(&identity, 0, 2),
        timeline: number(&identity, 0, 1).map(TimelineId),
        synchronous_standby_names: None,
        sender: Sender::Unknown {
            reason: reason.clone(),
        },
        slot: match question.slot {
            None => Slot::Unused,
            Some(_) => Slot::Unknown { reason },
        },
    };
    connection.terminate().await;
    Ok(facts)
}

fn check_system(
    connection: &Connection,
    expected: SystemIdentifier,
    found: Option<&str>,
) -> Result<(), Failure> {
    match found.and_then(|text| text.parse::<SystemIdentifier>().ok()) {
        Some(found) if found != expected => Err(Failure::OtherSystem(format!(
            "the server at {} is another system, {found}; the mirror's is {expected}",
            connection.peer()
        ))),
        _ => Ok(()),
    }
}

fn version(connection: &Connection) -> String {
    connection
        .parameter("server_version")
        // What distributions add to it is of no use here.
        .and_then(|version| version.split_whitespace().next())
        .unwrap_or("unknown")
        .to_owned()
}

impl Question {
    /// The query for our row; `None` when no row can be ours.
    fn senders(&self) -> Option<String> {
        let name = literal(&self.application_name);
        let ours = match self.sender_pid {
            // A role without rights sees the name of its own sessions only.
            Some(pid) => {
                format!("pid = {pid} AND (application_name = {name} OR application_name IS NULL)")
            }
            None if self.receiver_runs => format!("application_name = {name}"),
            None => return None,
        };
        Some(format!(
            "SELECT pid, state, sync_state, sent_lsn, write_lsn, flush_lsn, replay_lsn FROM pg_stat_replication \
             WHERE {ours}"
        ))
    }
}

fn sender(rows: &ResultSet, sees_all: bool, role: &str) -> Sender {
    let pid = number::<i32>(rows, 0, 0).unwrap_or_default();
    match (rows.rows.len(), rows.text(0, 1)) {
        (0, _) => Sender::Absent,
        (1, None) if !sees_all => Sender::Hidden {
            pid,
            role: role.to_owned(),
        },
        (1, state) => Sender::Row(SenderRow {
            pid,
            state: state.unwrap_or("unknown").to_owned(),
            sync_state: rows.text(0, 2).unwrap_or("unknown").to_owned(),
            sent_lsn: lsn(rows, 0, 3),
            write_lsn: lsn(rows, 0, 4),
            flush_lsn: lsn(rows, 0, 5),
            replay_lsn: lsn(rows, 0, 6),
        }),
        (count, _) => Sender::Several(count),
    }
}

fn slot_query(name: &str, server_version: u32) -> String {
    let since_13 = if server_version >= 130_000 {
        "wal_status, safe_wal_size"
    } else {
        "NULL, NULL"
    };
    format!(
        "SELECT active, restart_lsn, {since_13} FROM pg_replication_slots WHERE slot_name = {}",
        literal(name)
    )
}

fn slot(rows: &ResultSet) -> Slot {
    if rows.rows.is_empty() {
        return Slot::Missing;
    }
    Slot::Row(SlotRow {
        active: rows.text(0, 0) == Some("t"),
        restart_lsn: lsn(rows, 0, 1),
        wal_status: rows.text(0, 2).map(str::to_owned),
        safe_wal_size: number(rows, 0, 3),
    })
}

/// A server's message without its line ends, for a place in a table.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
