//! The one physical slot on the primary, which keeps there whatever our own slots, streams and base backups need.
//!
//! A lock of its own says which sender uses it: `pg_replication_slot_advance` does not mark a slot as active in between.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::PgLsn;
use walstream::Lsn;

use super::error::PrimaryError;
use super::sql::SqlSession;

/// How long the session of a sender that was killed may take to end on the primary.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// First part of the advisory lock's key, `wals`.
const LOCK_CLASS: i32 = 0x7761_6C73;

/// What all that is done with slots needs.
const SLOT_RIGHT: &str = "the attribute REPLICATION: ALTER ROLE name REPLICATION";

/// Takes the slot for this session, and makes it where it is missing or has lost its WAL. Gives its restart LSN.
pub(super) async fn prepare(session: &SqlSession, name: &str) -> Result<Option<Lsn>, PrimaryError> {
    let prepared = take(session, name).await;
    prepared.map_err(|error| error.needing(SLOT_RIGHT))
}

async fn take(session: &SqlSession, name: &str) -> Result<Option<Lsn>, PrimaryError> {
    lock(session, name).await?;
    let what = "read the replication slot on the primary";
    // Before 13 there is no wal_status: a slot never loses its WAL.
    let sql = "SELECT slot_type, restart_lsn, to_jsonb(s)->>'wal_status' FROM pg_replication_slots s WHERE slot_name = $1";
    let row = session
        .client
        .query_opt(sql, &[&name])
        .await
        .map_err(PrimaryError::sql(what))?;
    if let Some(row) = row {
        let kind: String = row.try_get(0).map_err(PrimaryError::sql(what))?;
        if kind != "physical" {
            return Err(PrimaryError::LogicalSlot {
                slot: name.to_owned(),
            });
        }
        let restart_lsn: Option<PgLsn> = row.try_get(1).map_err(PrimaryError::sql(what))?;
        let status: Option<String> = row.try_get(2).map_err(PrimaryError::sql(what))?;
        let is_lost = status.as_deref() == Some("lost");
        if let Some(restart_lsn) = restart_lsn.filter(|_| !is_lost) {
            return Ok(Some(Lsn(restart_lsn.into())));
        }
        if is_lost {
            tracing::error!(
                slot = name,
                "the slot on the primary has lost its WAL to max_slot_wal_keep_size and is made anew: standbys that need \
                 older WAL have to get it from an archive or be made anew"
            );
        }
        session
            .client
            .execute("SELECT pg_drop_replication_slot($1)", &[&name])
            .await
            .map_err(PrimaryError::sql(
                "replace the replication slot on the primary",
            ))?;
    }
    let what = "create a replication slot on the primary";
    let sql = "SELECT lsn FROM pg_create_physical_replication_slot($1, true)";
    let row = session
        .client
        .query_one(sql, &[&name])
        .await
        .map_err(PrimaryError::sql(what))?;
    let restart_lsn: Option<PgLsn> = row.try_get(0).map_err(PrimaryError::sql(what))?;
    tracing::info!(slot = name, "replication slot created on the primary");
    Ok(restart_lsn.map(|lsn| Lsn(lsn.into())))
}

/// Moves the slot on, so that the primary may remove WAL before this. Gives where it is then.
pub(super) async fn advance(
    session: &SqlSession,
    name: &str,
    to: Lsn,
) -> Result<Lsn, PrimaryError> {
    let what = "advance the replication slot on the primary";
    let sql = "SELECT end_lsn FROM pg_replication_slot_advance($1, $2)";
    let row = session
        .client
        .query_one(sql, &[&name, &PgLsn::from(to.0)])
        .await;
    let row = row.map_err(PrimaryError::sql(what));
    let row = row.map_err(|error| error.needing(SLOT_RIGHT))?;
    super::sql::lsn(&row, 0, what)
}

async fn lock(session: &SqlSession, name: &str) -> Result<(), PrimaryError> {
    let what = "lock the replication slot on the primary";
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let sql = "SELECT pg_try_advisory_lock($1, hashtext($2))";
        let row = session.client.query_one(sql, &[&LOCK_CLASS, &name]).await;
        if row
            .and_then(|row| row.try_get(0))
            .map_err(PrimaryError::sql(what))?
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(PrimaryError::SlotInUse {
                slot: name.to_owned(),
            });
        }
        tokio::time::sleep(LOCK_RETRY).await;
    }
}
