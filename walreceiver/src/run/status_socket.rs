//! The status socket: a running daemon answers each connection with one [`LiveStatus`] as JSON and closes it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::live::LiveStatus;
use crate::hub::HubView;

/// Name within the mirror directory.
pub const SOCKET_NAME: &str = "walstream.sock";

/// A socket's address holds about 100 bytes, a mirror's path may be longer: the address goes through an open handle of
/// the directory instead.
fn short_path(directory: &File) -> PathBuf {
    PathBuf::from(format!(
        "/proc/self/fd/{}/{SOCKET_NAME}",
        directory.as_raw_fd()
    ))
}

/// Binds the socket, replacing one that a killed daemon left. The caller holds the mirror's lock.
///
/// # Errors
/// When the directory cannot be opened or the socket not made there.
pub fn bind(mirror: &Path) -> io::Result<UnixListener> {
    let directory = File::open(mirror)?;
    let path = short_path(&directory);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers connections for as long as the daemon lives. The hub is asked when somebody asks, once there is one.
pub async fn serve(
    listener: UnixListener,
    status: watch::Receiver<LiveStatus>,
    hub: Arc<OnceLock<HubView>>,
) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            // Out of descriptors: the daemon's own work goes on, a later asker may have more luck.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut answer = status.borrow().clone();
        answer.hub = hub.get().map(HubView::status);
        let text = serde_json::to_vec(&answer).unwrap_or_default();
        // An asker that went away or does not read is its own trouble.
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&text)).await;
    }
}

/// Asks the daemon of this mirror; `None` when no daemon answers.
///
/// # Errors
/// When a daemon is there and its answer cannot be read.
pub fn ask(mirror: &Path) -> io::Result<Option<LiveStatus>> {
    let directory = File::open(mirror)?;
    let mut stream = match UnixStream::connect(short_path(&directory)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_daemon_answers_even_in_a_very_deep_directory() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120)).join("y".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(ask(&deep).unwrap(), None, "nobody is there");
        drop(bind(&deep).unwrap());
        assert_eq!(
            ask(&deep).unwrap(),
            None,
            "what a killed daemon left is nobody"
        );

        let listener = bind(&deep).unwrap();
        let (sender, receiver) = watch::channel(LiveStatus {
            pid: 7,
            ..LiveStatus::default()
        });
        let server = tokio::spawn(serve(listener, receiver, Arc::default()));
        let asked = deep.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&asked))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer.unwrap().pid, 7);
        sender.send_modify(|status| status.pid = 8);
        let answer = tokio::task::spawn_blocking(move || ask(&deep))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer.unwrap().pid, 8);
        server.abort();
    }
}
