//! The status socket: a running daemon answers each connection with one [`LiveStatus`] as JSON and closes it.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use walsender::status::socket::{self, StatusSocket};

use super::live::LiveStatus;
use crate::hub::HubView;

/// Name within the mirror directory.
pub const SOCKET_NAME: &str = "walstream.sock";

/// Binds the socket, replacing one that a killed daemon left. The caller holds the mirror's lock.
///
/// # Errors
/// When the directory cannot be opened or the socket not made there.
pub fn bind(mirror: &Path) -> io::Result<StatusSocket> {
    StatusSocket::bind(&mirror.join(SOCKET_NAME))
}

/// Answers connections for as long as the daemon lives. The hub is asked when somebody asks, once there is one.
pub async fn serve(
    socket: StatusSocket,
    status: watch::Receiver<LiveStatus>,
    hub: Arc<OnceLock<HubView>>,
) {
    let answer = move || {
        let mut answer = status.borrow().clone();
        answer.hub = hub.get().map(HubView::status);
        serde_json::to_vec(&answer).unwrap_or_default()
    };
    socket.serve(answer).await;
}

/// Asks the daemon of this mirror; `None` when no daemon answers.
///
/// # Errors
/// When a daemon is there and its answer cannot be read.
pub fn ask(mirror: &Path) -> io::Result<Option<LiveStatus>> {
    let text = socket::ask(&mirror.join(SOCKET_NAME))?;
    Ok(text.as_deref().map(serde_json::from_slice).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_daemon_answers_as_it_is_when_it_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = dir.path().to_owned();
        assert_eq!(ask(&mirror).unwrap(), None, "nobody is there");
        let (sender, receiver) = watch::channel(LiveStatus::default());
        let server = tokio::spawn(serve(bind(&mirror).unwrap(), receiver, Arc::default()));
        for pid in [7, 8] {
            sender.send_modify(|status| status.pid = pid);
            let asked = mirror.clone();
            let answer = tokio::task::spawn_blocking(move || ask(&asked)).await;
            assert_eq!(answer.unwrap().unwrap().unwrap().pid, pid);
        }
        server.abort();
    }
}
