//! [`Keeper`]: everything that a mirror's daemon owns on disk while it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use walstream::timeline::TimelineHistory;
use walstream::types::FullTransactionId;
use walstream::wal::segment_name::WalFileName;
use walstream::{Lsn, TimelineId};

use super::checked_wal::CheckedWal;
use super::run_error::RunError;
use crate::mirror::flushed::TimelinePosition;
use crate::mirror::state::MirrorState;
use crate::wal_sink::{DiskStorage, SinkError, SinkOptions, WalDestination, WalSink};

/// The sink, the check before it, the timeline, and the state file.
#[derive(Debug)]
pub struct Keeper {
    mirror: PathBuf,
    state: MirrorState,
    history: TimelineHistory,
    /// `None` only when it could not be opened again, which ends the daemon.
    sink: Option<WalSink>,
    wal: CheckedWal,
    saves: watch::Sender<TimelinePosition>,
    saver: JoinHandle<()>,
    /// Held while the saver replaces the state file.
    saving: Arc<Mutex<()>>,
}

impl Keeper {
    /// Takes up a mirror whose WAL is proven whole up to `end`. Failures to save the state later go to `failures`.
    ///
    /// # Errors
    /// When the sink cannot be opened there.
    pub async fn open(
        mirror: &Path,
        state: MirrorState,
        history: TimelineHistory,
        end: Lsn,
        failures: mpsc::Sender<RunError>,
    ) -> Result<Self, RunError> {
        let facts = &state.facts;
        let timeline = history.timeline();
        let sink = open_sink(mirror, &state, timeline, end).await?;
        let wal = CheckedWal::new(facts.dialect, facts.system_identifier, end);
        let (saves, receiver) = watch::channel(state.flushed);
        let saving = Arc::new(Mutex::new(()));
        let saver = tokio::spawn(save_states(
            mirror.to_owned(),
            state.clone(),
            receiver,
            failures,
            Arc::clone(&saving),
        ));
        Ok(Self {
            mirror: mirror.to_owned(),
            state,
            history,
            sink: Some(sink),
            wal,
            saves,
            saver,
            saving,
        })
    }

    /// The timeline that is received.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.history.timeline()
    }

    /// Its history.
    #[must_use]
    pub const fn history(&self) -> &TimelineHistory {
        &self.history
    }

    /// What was received, checked.
    #[must_use]
    pub const fn wal(&self) -> &CheckedWal {
        &self.wal
    }

    /// The server's next transaction was this one at the least at the end of the mirror's WAL.
    pub fn know_next_transaction(&mut self, next: FullTransactionId) {
        self.wal.know_next_transaction(next);
    }

    /// What a stream writes to and checks with.
    ///
    /// # Errors
    /// [`SinkError::Closed`] after a failed change of the sink.
    pub fn stream_parts(&mut self) -> Result<(&mut WalSink, &mut CheckedWal), SinkError> {
        Ok((self.sink.as_mut().ok_or(SinkError::Closed)?, &mut self.wal))
    }

    /// Where a saved state is asked for, whenever a segment is complete.
    #[must_use]
    pub fn saves(&self) -> watch::Sender<TimelinePosition> {
        self.saves.clone()
    }

    /// Whether the mirror has this timeline's history file.
    #[must_use]
    pub fn has_history_file(&self, timeline: TimelineId) -> bool {
        let segment_size = self.state.facts.dialect.segment_size;
        let name = WalFileName::History(timeline).file_name(segment_size);
        self.mirror.join("pg_wal").join(name).exists()
    }

    /// Keeps a history file, durably.
    ///
    /// # Errors
    /// [`RunError::Sink`].
    pub async fn write_history_file(
        &mut self,
        timeline: TimelineId,
        content: Bytes,
    ) -> Result<(), RunError> {
        Ok(self
            .stream_parts()?
            .0
            .write_history_file(timeline, content)
            .await?)
    }

    /// Drops what came after the last whole record, so that it is received anew.
    ///
    /// # Errors
    /// [`RunError::Sink`] when what came before cannot be made durable, or the sink not be opened again.
    pub async fn back_to_last_record(&mut self) -> Result<(), RunError> {
        self.reopen(self.wal.valid_end()).await
    }

    /// Goes on with another timeline from where it left ours.
    ///
    /// # Errors
    /// [`RunError::Sink`] when it cannot be made durable.
    pub async fn switch_timeline(
        &mut self,
        history: TimelineHistory,
        switch_lsn: Lsn,
    ) -> Result<(), RunError> {
        if self.wal.position() > switch_lsn {
            // Half a record at the old timeline's end is no part of the new one.
            self.reopen(switch_lsn).await?;
        }
        self.stream_parts()?
            .0
            .switch_timeline(history.timeline(), switch_lsn)
            .await?;
        self.history = history;
        self.restart_check(switch_lsn);
        self.saves.send_replace(TimelinePosition {
            timeline: self.timeline(),
            lsn: switch_lsn,
        });
        Ok(())
    }

    /// Flushes everything, saves the state, and gives the final position.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub async fn close(mut self) -> Result<TimelinePosition, RunError> {
        let flush_lsn = self.sink.take().ok_or(SinkError::Closed)?.close().await?;
        let position = TimelinePosition {
            timeline: self.history.timeline(),
            lsn: self.wal.valid_end().min(flush_lsn),
        };
        // The last state must be the last one written, and never at the same time as another.
        self.saver.abort();
        let _saving = self.saving.lock().await;
        self.state.flushed = position;
        self.state.save(&self.mirror)?;
        Ok(position)
    }

    async fn reopen(&mut self, lsn: Lsn) -> Result<(), RunError> {
        self.sink.take().ok_or(SinkError::Closed)?.close().await?;
        self.sink = Some(open_sink(&self.mirror, &self.state, self.timeline(), lsn).await?);
        self.restart_check(lsn);
        Ok(())
    }

    fn restart_check(&mut self, lsn: Lsn) {
        let facts = &self.state.facts;
        self.wal
            .restart(facts.dialect, facts.system_identifier, lsn);
    }
}

/// Opening makes durable what earlier processes left, which takes its time.
async fn open_sink(
    mirror: &Path,
    state: &MirrorState,
    timeline: TimelineId,
    lsn: Lsn,
) -> Result<WalSink, RunError> {
    let options = SinkOptions::new(state.facts.dialect.segment_size, timeline, lsn);
    let pg_wal = mirror.join("pg_wal");
    let opened = tokio::task::spawn_blocking(move || WalSink::open(DiskStorage, &pg_wal, options));
    Ok(opened.await.map_err(|_| RunError::RuntimeEnded)??)
}

/// Saves the state in the background: it syncs, which the receiving must not wait for.
async fn save_states(
    mirror: PathBuf,
    mut state: MirrorState,
    mut positions: watch::Receiver<TimelinePosition>,
    failures: mpsc::Sender<RunError>,
    saving: Arc<Mutex<()>>,
) {
    while positions.changed().await.is_ok() {
        let guard = Arc::clone(&saving).lock_owned().await;
        state.flushed = *positions.borrow_and_update();
        let (mirror, snapshot) = (mirror.clone(), state.clone());
        let saved = tokio::task::spawn_blocking(move || {
            // Goes with the work, which runs to its end even when nobody waits for it any more.
            let _guard = guard;
            snapshot.save(&mirror)
        })
        .await;
        if let Ok(Err(error)) = saved {
            // The daemon may be gone already.
            let _ = failures.send(error.into()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::mirror::state::MirrorFacts;
    use walstream::{Dialect, PgMajor, SystemIdentifier};

    /// A shutdown while a finished segment's state was being saved failed to rename the state file, or left the older one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_last_state_is_that_of_the_end_even_while_another_is_saved() {
        for _ in 0..40 {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("pg_wal")).unwrap();
            let at = |lsn| TimelinePosition {
                timeline: TimelineId(1),
                lsn: Lsn(lsn),
            };
            let (older, end) = (at(0x0200_0000), at(0x0300_0000));
            let facts = MirrorFacts {
                system_identifier: SystemIdentifier(7),
                server_version_num: 150_018,
                dialect: Dialect::with_default_sizes(PgMajor::V15),
                start: older,
                consistent_lsn: older.lsn,
                slot: None,
                primary: String::new(),
                tablespaces: BTreeMap::new(),
            };
            let state = MirrorState::create(dir.path(), facts, older).unwrap();
            let history = TimelineHistory::without_ancestors(TimelineId(1));
            let (failures, mut failed) = mpsc::channel(4);
            let keeper = Keeper::open(dir.path(), state, history, end.lsn, failures)
                .await
                .unwrap();
            keeper.saves().send_replace(at(0x0280_0000));
            tokio::task::yield_now().await;
            assert_eq!(keeper.close().await.unwrap(), end);
            assert!(failed.recv().await.is_none());
            assert_eq!(MirrorState::load(dir.path()).unwrap().flushed, end);
        }
    }
}
