//! One connection's life: who the server is, whether it continues what the mirror has, and its streams of WAL through
//! however many timelines.

use bytes::Bytes;
use tokio::sync::watch;
use walstream::protocol::command::{Command, Grammar};
use walstream::protocol::identify::{IdentifySystem, NextTimeline, TimelineHistoryFile};
use walstream::timeline::{BranchPoint, TimelineHistory};
use walstream::{Lsn, SystemIdentifier, TimelineId};

use super::keeper::Keeper;
use super::run_error::RunError;
use super::stream::{Stop, StreamEnd, StreamObserver, StreamRequest, stream_wal};
use crate::connection::{ConnInfo, Connection, ConnectionError, Purpose, ResultSet};

/// A connection to the server that is mirrored.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    identity: IdentifySystem,
    is_standby: bool,
}

impl Session {
    /// Connects and asks the server who it is.
    ///
    /// # Errors
    /// [`RunError::OtherSystem`] when it is not the expected system; otherwise what kept us from asking.
    pub async fn open(conninfo: &ConnInfo, expected: SystemIdentifier) -> Result<Self, RunError> {
        let mut connection = Connection::connect(conninfo, Purpose::PhysicalReplication).await?;
        let result = ask(&mut connection, &Command::IdentifySystem).await?;
        let identity = IdentifySystem::parse(&columns(&result))?;
        if identity.system_identifier != expected {
            return Err(RunError::OtherSystem {
                peer: connection.peer().to_owned(),
                expected,
                found: identity.system_identifier,
            });
        }
        let read_only = Command::Show {
            name: "transaction_read_only".into(),
        };
        let result = ask(&mut connection, &read_only).await?;
        let is_standby = result.text(0, 0) == Some("on");
        Ok(Self {
            connection,
            identity,
            is_standby,
        })
    }

    /// The server, as in messages.
    #[must_use]
    pub fn peer(&self) -> &str {
        self.connection.peer()
    }

    /// The server's process that serves this connection.
    #[must_use]
    pub const fn backend_pid(&self) -> i32 {
        self.connection.backend_pid()
    }

    /// Whether the server is itself a standby.
    #[must_use]
    pub const fn is_standby(&self) -> bool {
        self.is_standby
    }

    /// Makes sure that the server's history continues the mirror's, and fetches what of it the mirror lacks.
    ///
    /// # Errors
    /// [`RunError::Diverged`], [`RunError::NotInHistory`], [`RunError::ServerBehind`], or what kept us from finding out.
    pub async fn follow(&mut self, keeper: &mut Keeper) -> Result<(), RunError> {
        let ours = keeper.timeline();
        let lsn = keeper.wal().valid_end();
        let theirs = self.identity.timeline;
        let peer = self.peer().to_owned();
        if theirs.0 > 1 {
            let history = self.fetch_history(keeper, theirs).await?;
            for ancestor in history
                .ancestors()
                .iter()
                .filter(|ancestor| ancestor.timeline.0 > 1)
            {
                self.fetch_ancestor(keeper, ancestor.timeline).await?;
            }
            match history.branch_point_from(ours, lsn) {
                BranchPoint::Same if keeper.history() != &history => {
                    return Err(RunError::NotInHistory {
                        peer,
                        theirs,
                        ours,
                        lsn,
                    });
                }
                BranchPoint::Same | BranchPoint::Ancestor { .. } => {}
                BranchPoint::Diverged {
                    switch_lsn,
                    ours: lsn,
                } => {
                    return Err(RunError::Diverged {
                        peer,
                        timeline: ours,
                        switch_lsn,
                        ours: lsn,
                    });
                }
                BranchPoint::NotInHistory => {
                    return Err(RunError::NotInHistory {
                        peer,
                        theirs,
                        ours,
                        lsn,
                    });
                }
            }
        } else if theirs != ours {
            return Err(RunError::NotInHistory {
                peer,
                theirs,
                ours,
                lsn,
            });
        }
        let ours_lsn = keeper.wal().position();
        if theirs == ours && self.identity.flush_lsn < ours_lsn {
            return Err(RunError::ServerBehind {
                peer,
                timeline: ours,
                theirs: self.identity.flush_lsn,
                ours: ours_lsn,
                is_standby: self.is_standby,
            });
        }
        Ok(())
    }

    /// Streams until `stop`, through as many timelines as the server goes.
    ///
    /// # Errors
    /// Whatever ends it but `stop`.
    pub async fn stream(
        &mut self,
        keeper: &mut Keeper,
        request: &StreamRequest,
        observer: &mut (impl StreamObserver + Send),
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<Lsn, RunError> {
        loop {
            let request = StreamRequest {
                timeline: keeper.timeline(),
                ..request.clone()
            };
            let (sink, wal) = keeper.stream_parts()?;
            match stream_wal(&mut self.connection, sink, wal, &request, observer, stop).await? {
                StreamEnd::Stopped(lsn) => return Ok(lsn),
                StreamEnd::NextTimeline(next) => self.switch_timeline(keeper, next).await?,
            }
        }
    }

    async fn switch_timeline(
        &mut self,
        keeper: &mut Keeper,
        next: NextTimeline,
    ) -> Result<(), RunError> {
        let valid_end = keeper.wal().valid_end();
        if next.start_lsn < valid_end {
            return Err(RunError::Diverged {
                peer: self.peer().to_owned(),
                timeline: keeper.timeline(),
                switch_lsn: next.start_lsn,
                ours: valid_end,
            });
        }
        let history = self.fetch_history(keeper, next.timeline).await?;
        tracing::info!(
            from = keeper.timeline().0,
            to = next.timeline.0,
            switch_lsn = %next.start_lsn,
            "following the server to a new timeline"
        );
        keeper.switch_timeline(history, next.start_lsn).await
    }

    async fn fetch_ancestor(
        &mut self,
        keeper: &mut Keeper,
        timeline: TimelineId,
    ) -> Result<(), RunError> {
        if keeper.has_history_file(timeline) {
            return Ok(());
        }
        match self.fetch_history(keeper, timeline).await {
            // undefined_file: servers may remove old history files, and only the newest is needed to recover.
            Err(RunError::Connection { source }) if sqlstate(&source) == Some("58P01") => {
                tracing::warn!(
                    timeline = timeline.0,
                    "the server has no history file of this ancestor any more"
                );
                Ok(())
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// Fetches the history of a timeline and keeps it, unless the mirror has it already.
    async fn fetch_history(
        &mut self,
        keeper: &mut Keeper,
        timeline: TimelineId,
    ) -> Result<TimelineHistory, RunError> {
        let result = ask(&mut self.connection, &Command::TimelineHistory { timeline }).await?;
        let file = TimelineHistoryFile::parse(&columns(&result))?;
        let history = TimelineHistory::parse(timeline, &file.content)
            .map_err(|source| RunError::History { timeline, source })?;
        if !keeper.has_history_file(timeline) {
            keeper
                .write_history_file(timeline, Bytes::from(file.content))
                .await?;
        }
        Ok(history)
    }

    /// Ends the connection in order.
    pub async fn close(self) {
        self.connection.terminate().await;
    }
}

async fn ask(connection: &mut Connection, command: &Command) -> Result<ResultSet, ConnectionError> {
    let grammar = Grammar::for_version(connection.server_version());
    connection.query(&command.format(grammar)).await
}

/// The first row's columns; none when there is no row, which the parsers then report.
fn columns(result: &ResultSet) -> Vec<Option<&[u8]>> {
    result
        .rows
        .first()
        .map(|row| row.iter().map(Option::as_deref).collect())
        .unwrap_or_default()
}

fn sqlstate(error: &ConnectionError) -> Option<&str> {
    error.server_error().map(|error| error.sqlstate.as_str())
}
