//! Options of how a running sender is observed, and what answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::task::JoinHandle;
use walsender::SenderView;
use walsender::durable::FileError;
use walsender::status::http::MetricsListener;
use walsender::status::metrics::render;
use walsender::status::socket::StatusSocket;

/// Name of the status socket beside the slots.
const SOCKET: &str = "walsender.sock";

// No doc comment: it would become that of the command.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it is observed")]
pub(super) struct ObserveArgs {
    /// Unix socket at which "walsender status" asks, for the same user only. Default: walsender.sock in the directory
    /// of --slots; without either there is none
    #[arg(long, value_name = "PATH")]
    status_socket: Option<PathBuf>,
    /// Serve Prometheus metrics over HTTP on this address, such as 127.0.0.1:9188, to everybody who reaches it: names and
    /// addresses of standbys are among them
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
}

/// Sockets that are bound, and do not answer yet.
pub(super) struct Observers {
    status: Option<StatusSocket>,
    metrics: Option<MetricsListener>,
}

/// Sockets that answer, until this is dropped.
pub(super) struct Observing(Vec<JoinHandle<()>>);

/// Where the sender with these slots is asked.
pub(super) fn socket_in(slots: &Path) -> PathBuf {
    slots.join(SOCKET)
}

impl ObserveArgs {
    /// Binds the sockets. The directory of the slots must be there.
    pub(super) async fn bind(self, slots: Option<&Path>) -> anyhow::Result<Observers> {
        let path = self.status_socket.or_else(|| slots.map(socket_in));
        let status = match path {
            Some(path) => Some(
                StatusSocket::bind(&path)
                    .map_err(FileError::of("listen for \"walsender status\" at", &path))?,
            ),
            None => None,
        };
        let metrics = match self.metrics {
            Some(address) => {
                let listener = MetricsListener::bind(address).await?;
                tracing::info!(address = %listener.address()?, "serving metrics");
                Some(listener)
            }
            None => None,
        };
        Ok(Observers { status, metrics })
    }
}

impl Observers {
    /// Answers for this sender.
    pub(super) fn answer_for(self, sender: &SenderView) -> Observing {
        let mut tasks = Vec::new();
        if let Some(socket) = self.status {
            let sender = sender.clone();
            let answer = move || serde_json::to_vec(&sender.status()).unwrap_or_default();
            tasks.push(tokio::spawn(socket.serve(answer)));
        }
        if let Some(listener) = self.metrics {
            let sender = sender.clone();
            tasks.push(tokio::spawn(
                listener.serve(move || render(&sender.status())),
            ));
        }
        Observing(tasks)
    }
}

impl Observing {
    /// Ends, and removes the socket's file.
    pub(super) async fn end(mut self) {
        for task in std::mem::take(&mut self.0) {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Observing {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
