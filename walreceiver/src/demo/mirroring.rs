//! [`Mirroring`]: `walreceiver run` as a task of this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use walstream::protocol::receiver::{ReceiverConfig, ReportAtOnce};

use super::DemoError;
use crate::connection::ConnInfo;
use crate::run::daemon::{self, RunConfig, RunReport};
use crate::run::live::LiveStatus;
use crate::run::run_error::RunError;
use crate::run::stream::Stop;

/// How long anything may take that must happen.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// A running receiver. Dropping it ends it as a kill would.
#[derive(Debug)]
pub(super) struct Mirroring {
    live: watch::Receiver<LiveStatus>,
    stop: watch::Sender<Stop>,
    task: JoinHandle<Result<RunReport, RunError>>,
}

impl Mirroring {
    /// Starts to follow the primary.
    pub(super) fn start(mirror: &Path, conninfo: &ConnInfo) -> Self {
        let config = RunConfig {
            mirror: mirror.to_owned(),
            conninfo: conninfo.clone(),
            slot: None,
            receiver: ReceiverConfig {
                report_at_once: ReportAtOnce::WriteAndFlush,
                ..ReceiverConfig::default()
            },
            no_loop: false,
            max_wait: Duration::from_secs(1),
            hub: None,
            replay: None,
        };
        let first = LiveStatus {
            pid: std::process::id(),
            started_at_us: walstream::PgTimestamp::from(std::time::SystemTime::now()).unix_us(),
            primary: conninfo.without_secrets(),
            application_name: conninfo.application_name().unwrap_or_default().to_owned(),
            ..LiveStatus::default()
        };
        let (teller, live) = watch::channel(first);
        let (stop, stopping) = watch::channel(Stop::Never);
        Self {
            live,
            stop,
            task: tokio::spawn(async move {
                daemon::run(&config, &teller, Arc::default(), stopping).await
            }),
        }
    }

    /// What it says of itself now.
    pub(super) fn status(&self) -> LiveStatus {
        self.live.borrow().clone()
    }

    /// Waits until it says so of itself.
    ///
    /// # Errors
    /// [`DemoError::Deadline`], or why it ended.
    pub(super) async fn wait_until(
        &mut self,
        what: &'static str,
        condition: impl FnMut(&LiveStatus) -> bool,
    ) -> Result<(), DemoError> {
        match timeout(DEADLINE, self.live.wait_for(condition)).await {
            Ok(Ok(_)) => Ok(()),
            // It has ended, and says why.
            Ok(Err(_)) => match (&mut self.task).await {
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(_)) | Err(_) => Err(DemoError::RuntimeEnded),
            },
            Err(_) => Err(DemoError::Deadline {
                what,
                seconds: DEADLINE.as_secs(),
            }),
        }
    }

    /// Ends it as SIGTERM does: everything that was received is made durable.
    ///
    /// # Errors
    /// Why it had ended by itself, or could not end well.
    pub(super) async fn stop(mut self) -> Result<RunReport, DemoError> {
        self.stop.send_replace(Stop::Now);
        let ended = timeout(DEADLINE, &mut self.task).await;
        let ended = ended.map_err(|_| DemoError::Deadline {
            what: "the receiver did not end",
            seconds: DEADLINE.as_secs(),
        })?;
        Ok(ended.map_err(|_| DemoError::RuntimeEnded)??)
    }
}

impl Drop for Mirroring {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a person types to do the same.
pub(super) fn follow_command(mirror: &Path) -> String {
    format!("$ walreceiver run -D {}", mirror.display())
}
