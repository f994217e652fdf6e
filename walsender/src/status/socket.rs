//! [`StatusSocket`]: answers each connection with one text and closes it; [`ask`] is the other end.
//!
//! Only the user who runs the process, and root, can connect.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

/// How long a process may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an asker may take to read the answer.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Most of an answer that is read, in bytes.
const MAX_ANSWER: u64 = 256 << 20;

/// A bound socket. Its file is removed when it is dropped, unless another process has put its own there.
#[derive(Debug)]
pub struct StatusSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the socket's file.
    file: (u64, u64),
}

/// A path of any length. A socket's address holds about 100 bytes, so it goes through an open handle of the directory.
struct ShortPath {
    directory: File,
    name: PathBuf,
}

impl ShortPath {
    fn of(path: &Path) -> io::Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(Self {
            directory: File::open(directory)?,
            name: name.into(),
        })
    }

    fn path(&self) -> PathBuf {
        let directory = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        Path::new(&directory).join(&self.name)
    }
}

impl StatusSocket {
    /// Binds the socket, replacing one that a killed process left. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the directory cannot be opened or the socket not made there; [`io::ErrorKind::AddrInUse`] when a process
    /// answers there, or the file is no socket.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let short = ShortPath::of(path)?;
        let short_path = short.path();
        match UnixStream::connect(&short_path) {
            // The system says so of a file that is no socket, too.
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && std::fs::symlink_metadata(&short_path)?
                        .file_type()
                        .is_socket() =>
            {
                std::fs::remove_file(&short_path)?;
            }
            _ => {}
        }
        let listener = UnixListener::bind(&short_path)?;
        std::fs::set_permissions(&short_path, std::fs::Permissions::from_mode(0o600))?;
        let metadata = std::fs::symlink_metadata(&short_path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: (metadata.dev(), metadata.ino()),
        })
    }

    /// Answers connections, for as long as it is polled. The answer is made when somebody asks, where that may block.
    pub async fn serve(self, answer: impl Fn() -> Vec<u8> + Send + Sync + 'static) {
        let answer = Arc::new(answer);
        loop {
            let Ok((mut stream, _)) = self.listener.accept().await else {
                // Out of descriptors: the process's own work goes on, a later asker may have more luck.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let answer = Arc::clone(&answer);
            let Ok(text) = tokio::task::spawn_blocking(move || answer()).await else {
                continue;
            };
            // An asker that went away or does not read is its own trouble.
            let _ = tokio::time::timeout(READ_TIMEOUT, stream.write_all(&text)).await;
        }
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if is_ours {
            // Should it stay, whoever binds next finds that nobody answers there.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Asks the process at this socket; `None` when none answers there. Blocks.
///
/// # Errors
/// When a process is there and its answer cannot be read; [`io::ErrorKind::TimedOut`] when it says nothing.
pub fn ask(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let short = ShortPath::of(path)?;
    let stream = match UnixStream::connect(short.path()) {
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
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut text = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut text) {
        Ok(_) => Ok(Some(text)),
        // What the system says of a read that took too long.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::ErrorKind::TimedOut.into())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask_from_elsewhere(path: &Path) -> io::Result<Option<Vec<u8>>> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || ask(&path))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_process_answers_even_in_a_very_deep_directory() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120)).join("y".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("s.sock");
        assert_eq!(ask(&path).unwrap(), None, "nobody is there");
        // As a killed process leaves it.
        let left = ShortPath::of(&path).unwrap();
        drop(std::os::unix::net::UnixListener::bind(left.path()).unwrap());
        assert!(path.exists());
        assert_eq!(ask(&path).unwrap(), None, "what was left is nobody");

        let socket = StatusSocket::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let server = tokio::spawn(socket.serve(|| b"seven".to_vec()));
        let answer = ask_from_elsewhere(&path).await.unwrap();
        assert_eq!(answer.unwrap(), b"seven");
        let in_use = StatusSocket::bind(&path).unwrap_err();
        assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
        server.abort();
        let _ = server.await;
        assert!(!path.exists(), "removed in the end");
    }

    #[tokio::test]
    async fn another_file_is_neither_replaced_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        std::fs::write(&path, "somebody's").unwrap();
        let error = StatusSocket::bind(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        std::fs::remove_file(&path).unwrap();
        let socket = StatusSocket::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "somebody's").unwrap();
        drop(socket);
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's");
    }
}
