//! Follows the server beside us: its flush LSN, its restarts, and the slot there.
//!
//! A server tells nobody when it has flushed: nothing in SQL waits for it, and LISTEN tells of transactions that notify, not
//! of all WAL. But the kernel tells when it writes. So one session asks for `pg_current_wal_flush_lsn()`, which reads shared memory, as
//! soon as WAL is written, and again in quick succession. Where the kernel does not tell, it is
//! asked again after a millisecond while WAL grows, and after up to ten when it does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::PgLsn;
use walstream::Lsn;
use walstream::timeline::TimelineHistory;

use super::error::PrimaryError;
use super::sql::SqlSession;
use super::wal_activity::WalActivity;
use super::{Inner, identity, primary_slot};
use crate::source::WalPosition;

const POLL_BUSY: Duration = Duration::from_millis(1);
const POLL_IDLE: Duration = Duration::from_millis(10);

/// How often the slot on the primary is moved on.
const ADVANCE_EVERY: Duration = Duration::from_secs(1);

const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MOST: Duration = Duration::from_secs(2);

/// Follows the server until it must not be served any more.
pub(super) async fn run(inner: Arc<Inner>, first: SqlSession) -> PrimaryError {
    let mut session = first;
    loop {
        let lost = match poll(&inner, &session).await {
            Ok(never) => match never {},
            Err(error) if error.may_pass() => error,
            Err(error) => return error,
        };
        tracing::warn!("{lost}; standbys stay connected and get no WAL until the primary is back");
        drop(session);
        session = match reconnect(&inner).await {
            Ok(session) => session,
            Err(error) => return error,
        };
        tracing::info!(lsn = %inner.flushed.borrow().lsn, "the primary is back");
    }
}

async fn reconnect(inner: &Inner) -> Result<SqlSession, PrimaryError> {
    let mut wait = RECONNECT_FIRST;
    let mut last = String::new();
    loop {
        tokio::time::sleep(wait).await;
        match connect(inner).await {
            Ok(session) => return Ok(session),
            Err(error) if error.may_pass() => {
                let text = error.to_string();
                if text != last {
                    tracing::warn!("{text}; trying again");
                    last = text;
                }
            }
            Err(error) => return Err(error),
        }
        wait = (wait * 2).min(RECONNECT_MOST);
    }
}

/// A session with the server that was served before, and its slot.
async fn connect(inner: &Inner) -> Result<SqlSession, PrimaryError> {
    let session = SqlSession::connect(&inner.config.conninfo)
        .await?
        .without_notices();
    let (expected, found) = (
        inner.identity.system_identifier,
        identity::system_identifier(&session).await?,
    );
    if found != expected {
        return Err(PrimaryError::Replaced { expected, found });
    }
    let control = inner.directory.read_control().await?;
    identity::check_directory(&session, &control, &inner.directory).await?;
    let position = identity::position(&session).await?;
    check_goes_on(inner, position)?;
    primary_slot::prepare(&session, &inner.config.slot).await?;
    inner.publish(position);
    Ok(session)
}

/// Checks that a server's WAL goes on from what was served.
fn check_goes_on(inner: &Inner, found: WalPosition) -> Result<(), PrimaryError> {
    let served = *inner.flushed.borrow();
    let left_at = if found.timeline == served.timeline {
        Some(found.lsn)
    } else if found.timeline < served.timeline {
        None
    } else {
        let content = inner.wal.history(found.timeline).ok().flatten();
        let history =
            content.and_then(|content| TimelineHistory::parse(found.timeline, &content).ok());
        history.and_then(|history| history.switch_point(served.timeline))
    };
    match left_at {
        Some(lsn) if served.lsn <= lsn => Ok(()),
        found_lsn => Err(PrimaryError::WentBack {
            served_timeline: served.timeline,
            served_lsn: served.lsn,
            found_timeline: found.timeline,
            found_lsn: found_lsn.unwrap_or(found.lsn),
        }),
    }
}

/// Asks again and again, until the session is lost.
async fn poll(
    inner: &Inner,
    session: &SqlSession,
) -> Result<std::convert::Infallible, PrimaryError> {
    let what = "read the primary's flush LSN";
    let statement = session
        .client
        .prepare("SELECT pg_current_wal_flush_lsn(), txid_snapshot_xmax(txid_current_snapshot())")
        .await;
    let statement = statement.map_err(PrimaryError::sql(what))?;
    let activity = WalActivity::watch(&inner.directory.path().join("pg_wal"));
    let (mut wait, mut advance_at) = (POLL_BUSY, Instant::now());
    let mut slot_lsn = Lsn::INVALID;
    loop {
        let row = session.client.query_one(&statement, &[]).await;
        let (lsn, next_xid): (PgLsn, i64) = row
            .and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .map_err(PrimaryError::sql(what))?;
        inner
            .next_transaction
            .store(next_xid.cast_unsigned(), Ordering::Relaxed);
        wait = if inner.publish_flush(Lsn(lsn.into())) {
            POLL_BUSY
        } else {
            (wait * 2).min(POLL_IDLE)
        };
        if advance_at <= Instant::now() {
            slot_lsn = keep_wal(inner, session, slot_lsn).await?;
            inner.retention.set_kept_from(slot_lsn.valid());
            advance_at = Instant::now() + ADVANCE_EVERY;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = activity.time_to_ask() => wait = POLL_BUSY,
        }
    }
}

/// Moves the slot on the primary to what is still needed. Gives where it is known to be.
async fn keep_wal(inner: &Inner, session: &SqlSession, slot_lsn: Lsn) -> Result<Lsn, PrimaryError> {
    let checkpoint = identity::checkpoint(session).await?;
    // A slot that was made since the last round may begin at the checkpoint of then.
    let last_redo = inner.retention.set_checkpoint(checkpoint);
    let Some(needed) = inner.retention.needed_from() else {
        return Ok(slot_lsn);
    };
    let to = needed.min(last_redo);
    if to <= slot_lsn {
        return Ok(slot_lsn);
    }
    match primary_slot::advance(session, &inner.config.slot, to).await {
        Ok(lsn) => Ok(lsn),
        // Behind where the slot is already, by at most what was not known after a start; or it has lost its WAL.
        Err(
            error @ PrimaryError::Sql {
                sqlstate: Some(_), ..
            },
        ) => {
            let restart_lsn = primary_slot::prepare(session, &inner.config.slot).await?;
            match restart_lsn {
                Some(lsn) if to <= lsn => Ok(lsn),
                _ => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

impl Inner {
    /// Publishes a position that was checked.
    fn publish(&self, position: WalPosition) {
        self.flushed.send_if_modified(|published| {
            let goes_on = published.timeline < position.timeline || published.lsn < position.lsn;
            if goes_on {
                *published = position;
            }
            goes_on
        });
    }

    /// Publishes a flush LSN of the timeline that is served; says whether it is news.
    fn publish_flush(&self, lsn: Lsn) -> bool {
        self.flushed.send_if_modified(|published| {
            let grows = published.lsn < lsn;
            published.lsn = published.lsn.max(lsn);
            grows
        })
    }
}
