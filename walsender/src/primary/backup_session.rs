//! Backup mode of the server beside us, in a session of its own: it ends with the session, however that ends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio_postgres::types::PgLsn;
use walstream::Lsn;
use walstream::storage::backup_label::{BackupLabel, BackupMethod, BackupSource};
use walstream::timeline::TimelineHistory;

use super::error::{INSUFFICIENT_PRIVILEGE, PrimaryError};
use super::retention::WalHold;
use super::sql::{SqlSession, lsn};
use super::{Inner, blocking};
use crate::backup::{
    BackupError, BackupFacts, BackupSession, BackupStart, BackupStop, Boxed, LiveServer,
    ServerNotice, find_tablespaces,
};
use crate::source::WalPosition;

/// Functions for backup mode have other names since.
const RENAMED_SINCE: u32 = 150_000;

/// What beginning and ending a backup needs, in the database that `--primary` names.
const START_RIGHT: &str = "EXECUTE on that function: GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean) TO name (before \
     PostgreSQL 15: pg_start_backup(text, boolean, boolean))";
const STOP_RIGHT: &str = "EXECUTE on that function: GRANT EXECUTE ON FUNCTION pg_backup_stop(boolean) TO name (before PostgreSQL \
     15: pg_stop_backup(boolean, boolean))";

/// How often a backup is begun anew when another checkpoint hides where its own is.
const START_ATTEMPTS: u32 = 5;

/// Base backups of the server beside us.
#[derive(Debug)]
pub(super) struct PrimaryBackups(pub(super) Arc<Inner>);

#[derive(Debug)]
struct Session {
    sql: SqlSession,
    inner: Arc<Inner>,
    label: BackupLabel,
    /// WAL within the backup is kept until it was sent.
    hold: WalHold,
}

impl LiveServer for PrimaryBackups {
    fn data_directory(&self) -> &Path {
        self.0.directory.path()
    }

    fn facts(&self) -> BackupFacts {
        BackupFacts {
            has_data_checksums: self.0.has_data_checksums.load(Ordering::Relaxed),
            ..self.0.backup_facts.clone()
        }
    }

    fn control_file(&self) -> Result<Vec<u8>, BackupError> {
        self.0
            .directory
            .control()
            .map(|(_, bytes)| bytes)
            .map_err(into_backup_error)
    }

    fn start(&self, label: String, fast_checkpoint: bool) -> Boxed<'_, BackupStart> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            start(inner, &label, fast_checkpoint)
                .await
                .map_err(into_backup_error)
        })
    }
}

async fn start(inner: Arc<Inner>, label: &str, fast: bool) -> Result<BackupStart, PrimaryError> {
    let what = "start a base backup on the primary";
    let position = *inner.flushed.borrow();
    // Whatever the backup's start will be, it is not before the last checkpoint.
    let hold = inner
        .retention
        .hold(inner.retention.redo_lsn().unwrap_or(position.lsn));
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut sql = SqlSession::connect(&inner.config.conninfo).await?;
        let zone = "SELECT set_config('timezone', current_setting('log_timezone'), false)";
        sql.client
            .execute(zone, &[])
            .await
            .map_err(PrimaryError::sql(what))?;
        let function = if inner.identity.server_version_num >= RENAMED_SINCE {
            "pg_backup_start($1, $2)"
        } else {
            "pg_start_backup($1, $2, false)"
        };
        let row = sql
            .client
            .query_one(&format!("SELECT {function}"), &[&label, &fast])
            .await;
        let row = row.map_err(PrimaryError::sql(what));
        let row = row.map_err(|error| error.needing(START_RIGHT))?;
        let start_lsn = lsn(&row, 0, what)?;
        let facts = "SELECT checkpoint_lsn, redo_lsn, timeline_id,
                            to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS TZ') FROM pg_control_checkpoint()";
        let row = sql
            .client
            .query_one(facts, &[])
            .await
            .map_err(PrimaryError::sql(what))?;
        let checkpoint_lsn: PgLsn = row.try_get(0).map_err(PrimaryError::sql(what))?;
        let redo_lsn = lsn(&row, 1, what)?;
        let timeline: i32 = row.try_get(2).map_err(PrimaryError::sql(what))?;
        let start_time: String = row.try_get(3).map_err(PrimaryError::sql(what))?;
        let timeline = walstream::TimelineId(timeline.cast_unsigned());
        if redo_lsn != start_lsn {
            // The label of the server, which has the position, is told at the end only, and ours goes first.
            tracing::info!(%start_lsn, %redo_lsn, "a checkpoint came in between, the base backup is begun anew");
            if attempt < START_ATTEMPTS {
                continue;
            }
            return Err(PrimaryError::Answer {
                what: "the checkpoint of the base backup, again and again hidden by the next one",
                found: redo_lsn.to_string(),
            });
        }
        let label = BackupLabel {
            start_lsn,
            timeline,
            checkpoint_lsn: Lsn(checkpoint_lsn.into()),
            method: Some(BackupMethod::Streamed),
            from: Some(BackupSource::Primary),
            start_time: Some(start_time),
            label: Some(label.to_owned()),
            has_timeline_line: true,
            incremental_from: None,
        };
        let control = inner.directory.read_control().await?;
        inner
            .has_data_checksums
            .store(control.has_data_checksums(), Ordering::Relaxed);
        let directory = inner.directory.clone();
        let tablespaces = blocking(move || {
            find_tablespaces(directory.path()).map_err(|error| PrimaryError::Answer {
                what: "the tablespaces",
                found: error.to_string(),
            })
        })
        .await?;
        let notices = forward_notices(&mut sql);
        return Ok(BackupStart {
            notices,
            start: WalPosition {
                timeline,
                lsn: start_lsn,
            },
            label: label.clone(),
            tablespaces,
            session: Box::new(Session {
                sql,
                inner,
                label,
                hold,
            }),
        });
    }
}

/// What the server tells from now on, in a form that knows nothing of SQL sessions.
fn forward_notices(sql: &mut SqlSession) -> mpsc::UnboundedReceiver<ServerNotice> {
    let (told, notices) = mpsc::unbounded_channel();
    let mut from = std::mem::replace(&mut sql.notices, mpsc::unbounded_channel().1);
    // Ends with the session.
    tokio::spawn(async move {
        while let Some(notice) = from.recv().await {
            let notice = ServerNotice {
                severity: notice.severity().to_owned(),
                sqlstate: notice.code().code().to_owned(),
                message: notice.message().to_owned(),
                hint: notice.hint().map(str::to_owned),
            };
            if told.send(notice).is_err() {
                return;
            }
        }
    });
    notices
}

impl BackupSession for Session {
    fn stop(self: Box<Self>, wait: bool) -> Boxed<'static, BackupStop> {
        Box::pin(async move { stop(*self, wait).await })
    }
}

async fn stop(session: Session, wait: bool) -> Result<BackupStop, BackupError> {
    let Session {
        sql,
        inner,
        label,
        hold,
    } = session;
    let what = "end the base backup on the primary";
    let function = if inner.identity.server_version_num >= RENAMED_SINCE {
        "pg_backup_stop($1)"
    } else {
        "pg_stop_backup(false, $1)"
    };
    let sql_text = format!("SELECT lsn, labelfile FROM {function}");
    let row = sql.client.query_one(&sql_text, &[&wait]).await;
    let row = row
        .map_err(PrimaryError::sql(what))
        .map_err(|error| into_backup_error(error.needing(STOP_RIGHT)))?;
    let end_lsn = lsn(&row, 0, what).map_err(into_backup_error)?;
    let servers: String = row
        .try_get(1)
        .map_err(PrimaryError::sql(what))
        .map_err(into_backup_error)?;
    compare_labels(&servers, &label.format(inner.identity.segment_size))?;
    // A server that writes WAL does not change its timeline without ending its sessions.
    let timeline = label.timeline;
    Ok(BackupStop {
        end: WalPosition {
            timeline,
            lsn: end_lsn,
        },
        history: history(&inner, timeline),
        hold: Some(Box::new(hold)),
    })
}

/// The timeline and its ancestors, newest first, with where each began.
fn history(inner: &Inner, timeline: walstream::TimelineId) -> Vec<(walstream::TimelineId, Lsn)> {
    let content = inner.wal.history(timeline).ok().flatten();
    let parsed = content.and_then(|content| TimelineHistory::parse(timeline, &content).ok());
    let history = parsed.unwrap_or_else(|| TimelineHistory::without_ancestors(timeline));
    let ancestors = history.ancestors();
    let begins =
        std::iter::once(Lsn::INVALID).chain(ancestors.iter().map(|ancestor| ancestor.switch_lsn));
    let timelines = ancestors
        .iter()
        .map(|ancestor| ancestor.timeline)
        .chain([timeline]);
    let mut all: Vec<_> = timelines.zip(begins).collect();
    all.reverse();
    all
}

/// Compares what was sent with the label that the server wrote, but for the time, which only it knows exactly.
fn compare_labels(server: &str, sent: &str) -> Result<(), BackupError> {
    let lines = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("START TIME: "));
        // Versions before 13 say so.
        lines
            .map(|line| line.replace("BACKUP FROM: master", "BACKUP FROM: primary"))
            .collect()
    };
    let (server, sent) = (lines(server), lines(sent));
    if server == sent {
        return Ok(());
    }
    let differs = server.iter().zip(&sent).find(|(a, b)| a != b);
    let (server, sent) = differs.map_or(
        (server.len().to_string(), sent.len().to_string()),
        |(a, b)| (a.clone(), b.clone()),
    );
    Err(BackupError::OtherLabel { server, sent })
}

fn into_backup_error(error: PrimaryError) -> BackupError {
    match error {
        PrimaryError::Sql {
            reason, sqlstate, ..
        } => BackupError::Server { reason, sqlstate },
        error @ PrimaryError::MissingRight { .. } => BackupError::Server {
            reason: error.to_string(),
            sqlstate: Some(INSUFFICIENT_PRIVILEGE.to_owned()),
        },
        other => BackupError::Server {
            reason: other.to_string(),
            sqlstate: None,
        },
    }
}
