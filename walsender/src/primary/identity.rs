//! Who the server beside us is: what `pg_control` says, what SQL says, and whether both speak of the same server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use walstream::storage::control::ControlFile;
use walstream::{SystemIdentifier, TimelineId};

use super::data_directory::DataDirectory;
use super::error::PrimaryError;
use super::retention::Checkpoint;
use super::sql::{SqlSession, lsn};
use crate::source::{SourceIdentity, WalPosition};

/// What a server reports when a connection begins, in its order (`GUC_REPORT`). Those that a version lacks are left out.
const REPORTED: [&str; 15] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "scram_iterations",
    "search_path",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// Settings that are reported only by later versions: the first that does.
const REPORTED_SINCE: [(&str, u32); 4] = [
    ("default_transaction_read_only", 140_000),
    ("in_hot_standby", 140_000),
    ("scram_iterations", 160_000),
    ("search_path", 180_000),
];

/// Encoding of a connection that has no database, as those for replication.
const NO_DATABASE_ENCODING: &str = "SQL_ASCII";

/// The server's identity, once it is known to be the directory's.
pub(super) async fn read(
    session: &SqlSession,
    control: &ControlFile,
    directory: &DataDirectory,
) -> Result<SourceIdentity, PrimaryError> {
    check_directory(session, control, directory).await?;
    let what = "read the primary's settings";
    let rows = session
        .client
        .query(
            "SELECT lower(name), current_setting(name, true) FROM pg_settings",
            &[],
        )
        .await
        .map_err(PrimaryError::sql(what))?;
    let mut settings = BTreeMap::new();
    for row in rows {
        let name: String = row.try_get(0).map_err(PrimaryError::sql(what))?;
        let value: Option<String> = row.try_get(1).map_err(PrimaryError::sql(what))?;
        settings.extend(value.map(|value| (name, value)));
    }
    // SHOW knows them, the view does not.
    for name in ["is_superuser", "session_authorization"] {
        let row = session
            .client
            .query_one("SELECT current_setting($1, true)", &[&name])
            .await;
        let value: Option<String> = row
            .and_then(|row| row.try_get(0))
            .map_err(PrimaryError::sql(what))?;
        settings.extend(value.map(|value| (name.to_owned(), value)));
    }
    for name in ["client_encoding", "server_encoding"] {
        settings.insert(name.to_owned(), NO_DATABASE_ENCODING.to_owned());
    }
    let version = settings
        .get("server_version_num")
        .cloned()
        .unwrap_or_default();
    let server_version_num = version.parse().map_err(|_| PrimaryError::Answer {
        what: "server_version_num",
        found: version,
    })?;
    let is_reported = |name: &str| {
        let since = REPORTED_SINCE.iter().find(|(known, _)| *known == name);
        since.is_none_or(|(_, since)| *since <= server_version_num)
    };
    let reported = REPORTED.into_iter().filter(|name| is_reported(name));
    let parameter_status = reported.filter_map(|name| {
        let value = settings.get(&name.to_ascii_lowercase())?;
        Some((name.to_owned(), value.clone()))
    });
    Ok(SourceIdentity {
        system_identifier: control.system_identifier,
        server_version_num,
        segment_size: control.wal_segment_size,
        parameter_status: parameter_status.collect(),
        settings,
    })
}

/// Checks that the server has the directory's system identifier, and names the same directory where it names one to us.
pub(super) async fn check_directory(
    session: &SqlSession,
    control: &ControlFile,
    directory: &DataDirectory,
) -> Result<(), PrimaryError> {
    let server = system_identifier(session).await?;
    if server != control.system_identifier {
        return Err(PrimaryError::OtherSystem {
            server,
            found: control.system_identifier,
            directory: PathBuf::from(directory.path()),
        });
    }
    let what = "read the primary's data directory";
    // Who may not read the setting does not find it in the view.
    let sql = "SELECT setting FROM pg_settings WHERE name = 'data_directory'";
    let row = session.client.query_opt(sql, &[]).await;
    let Some(row) = row.map_err(PrimaryError::sql(what))? else {
        tracing::info!(
            "the user of --primary is no member of pg_read_all_settings: that the directory is the server's own is known by \
             its system identifier alone, and clients cannot ask for settings that only superusers see"
        );
        return Ok(());
    };
    let path: String = row.try_get(0).map_err(PrimaryError::sql(what))?;
    directory.check_same(Path::new(&path))
}

pub(super) async fn system_identifier(
    session: &SqlSession,
) -> Result<SystemIdentifier, PrimaryError> {
    let what = "read the primary's system identifier";
    let row = session
        .client
        .query_one("SELECT system_identifier FROM pg_control_system()", &[])
        .await;
    let number: i64 = row
        .and_then(|row| row.try_get(0))
        .map_err(PrimaryError::sql(what))?;
    Ok(SystemIdentifier(number.cast_unsigned()))
}

/// The timeline that the server writes, and its flush LSN.
///
/// # Errors
/// [`PrimaryError::InRecovery`] when it is a standby.
pub(super) async fn position(session: &SqlSession) -> Result<WalPosition, PrimaryError> {
    let what = "read the primary's WAL position";
    let row = session
        .client
        .query_one("SELECT pg_is_in_recovery()", &[])
        .await;
    if row
        .and_then(|row| row.try_get(0))
        .map_err(PrimaryError::sql(what))?
    {
        return Err(PrimaryError::InRecovery);
    }
    let sql = "SELECT lsn, pg_walfile_name(lsn) FROM pg_current_wal_flush_lsn() lsn";
    let row = session
        .client
        .query_one(sql, &[])
        .await
        .map_err(PrimaryError::sql(what))?;
    let file: String = row.try_get(1).map_err(PrimaryError::sql(what))?;
    let timeline = file
        .get(..8)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    Ok(WalPosition {
        timeline: TimelineId(timeline.ok_or(PrimaryError::Answer {
            what: "the WAL file's name",
            found: file,
        })?),
        lsn: lsn(&row, 0, what)?,
    })
}

/// The last checkpoint, and the settings that say what it leaves.
pub(super) async fn checkpoint(session: &SqlSession) -> Result<Checkpoint, PrimaryError> {
    let what = "read the primary's last checkpoint";
    // wal_keep_size was a number of segments before 13.
    let sql = "SELECT redo_lsn, checkpoint_lsn, pg_size_bytes(current_setting('max_wal_size')),
                      coalesce(pg_size_bytes(current_setting('wal_keep_size', true)),
                               current_setting('wal_keep_segments', true)::bigint
                               * pg_size_bytes(current_setting('wal_segment_size')))
                 FROM pg_control_checkpoint()";
    let row = session.client.query_one(sql, &[]).await;
    let row = row.map_err(PrimaryError::sql(what))?;
    let size = |index: usize| -> Result<u64, PrimaryError> {
        let bytes: i64 = row.try_get(index).map_err(PrimaryError::sql(what))?;
        Ok(u64::try_from(bytes).unwrap_or_default())
    };
    Ok(Checkpoint {
        redo_lsn: lsn(&row, 0, what)?,
        lsn: lsn(&row, 1, what)?,
        max_wal_size: size(2)?,
        wal_keep_size: size(3)?,
    })
}
