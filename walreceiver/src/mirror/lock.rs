//! [`MirrorLock`]: one process at a time changes a mirror.
//!
//! `walstream.lock` is a [`LockFile`]. A PostgreSQL server on the same directory is refused too, by its
//! `postmaster.pid`.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use thiserror::Error;
use walsender::lock_file::{LockFile, LockFileError, first_number};

use super::durable::FileError;
use crate::exit::{Exit, Recovery};

/// The right to change a mirror; given up when dropped.
#[derive(Debug)]
#[must_use = "the lock is given up when this is dropped"]
pub struct MirrorLock {
    _file: LockFile,
}

/// Why a mirror cannot be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process of ours has it.
    #[error(
        "\"{}\" is in use by another walreceiver{}: stop that one, or wait for it", directory.display(),
        holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Held {
        /// The mirror.
        directory: PathBuf,
        /// Process id of the holder, unless it had not written it yet.
        holder: Option<u32>,
    },
    /// A PostgreSQL server runs on the directory.
    #[error(
        "a PostgreSQL server (process {postmaster}) runs on \"{}\": stop it with pg_ctl first, or give another directory",
        directory.display()
    )]
    ServerRuns {
        /// The mirror.
        directory: PathBuf,
        /// Process id of the server.
        postmaster: u32,
    },
    /// The lock file or `postmaster.pid` cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl LockError {
    /// The exit code that a command ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Held { .. } | Self::ServerRuns { .. } => Exit::Locked,
            Self::File(_) => Exit::LocalStorage,
        }
    }

    /// None of these is waited for: two daemons on one mirror are a mistake that a person must see.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        Recovery::Permanent
    }
}

impl MirrorLock {
    /// Name within the mirror directory.
    pub const NAME: &'static str = "walstream.lock";

    /// Locks the mirror in `directory`, which must exist, or fails at once.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process has the lock, [`LockError::ServerRuns`] when a PostgreSQL server runs on
    /// the directory, [`LockError::File`] when the lock file cannot be created or locked.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let locked = LockFile::acquire(&directory.join(Self::NAME));
        let file = locked.map_err(|error| match error {
            LockFileError::Held { holder } => LockError::Held {
                directory: directory.to_owned(),
                holder,
            },
            LockFileError::File(error) => LockError::File(error),
        })?;
        // Asked while the lock is ours, which it is until it is dropped.
        if let Some(postmaster) = running_postmaster(directory)? {
            return Err(LockError::ServerRuns {
                directory: directory.to_owned(),
                postmaster,
            });
        }
        Ok(Self { _file: file })
    }

    /// Process id of whoever has the mirror locked now; `None` when nobody has, or it cannot be told.
    #[must_use]
    pub fn holder(directory: &Path) -> Option<u32> {
        LockFile::holder(&directory.join(Self::NAME))
    }
}

/// Process id of the PostgreSQL server that runs on this data directory, if one does.
///
/// A `postmaster.pid` is left behind by a server that was killed, and its number may by now be another process's. So the
/// process must exist and have the data directory as its working directory, as every server has; where that cannot be
/// looked at, existing is enough.
///
/// # Errors
/// [`FileError`] when `postmaster.pid` is there and cannot be read.
///
/// # Source
/// `CreateLockFile` in `src/backend/utils/init/miscinit.c`.
pub fn running_postmaster(data_directory: &Path) -> Result<Option<u32>, FileError> {
    let path = data_directory.join("postmaster.pid");
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::of("open", &path)(error)),
    };
    let postmaster = first_number(&mut file).map_err(FileError::of("read", &path))?;
    Ok(postmaster.filter(|&pid| is_process_of(pid, data_directory)))
}

/// Whether the process runs, and may run in this directory.
fn is_process_of(pid: u32, directory: &Path) -> bool {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    if test_kill_process(process) == Err(Errno::SRCH) {
        return false;
    }
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match (
        std::fs::metadata(format!("/proc/{pid}/cwd")),
        std::fs::metadata(directory),
    ) {
        (Ok(working), Ok(ours)) => identity(working) == identity(ours),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    const CHILD_DIRECTORY: &str = "WALSTREAM_LOCK_TEST_DIRECTORY";

    fn holder(error: &LockError) -> Option<u32> {
        match error {
            LockError::Held { holder, .. } => *holder,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_second_is_told_who_holds_it_and_may_have_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let first = MirrorLock::acquire(dir.path()).unwrap();
        let error = MirrorLock::acquire(dir.path()).unwrap_err();
        assert_eq!(holder(&error), Some(std::process::id()));
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        assert_eq!(error.exit(), Exit::Locked);
        drop(first);
        let _second = MirrorLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_leftover_lock_file_means_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join(MirrorLock::NAME),
            "1\nand more than a process id\n",
        )
        .unwrap();
        let _lock = MirrorLock::acquire(dir.path()).unwrap();
        let content = fs::read_to_string(dir.path().join(MirrorLock::NAME)).unwrap();
        assert_eq!(content, format!("{}\n", std::process::id()));
    }

    /// Not a test of its own: the process that `a_killed_holder_lets_go` starts and kills.
    #[test]
    #[ignore = "run by another test in a process of its own"]
    fn child_that_holds_the_lock() {
        // Nothing to do where all ignored tests are run: a_killed_holder_lets_go runs this one.
        let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else {
            return;
        };
        let _lock = MirrorLock::acquire(Path::new(&directory)).unwrap();
        println!("\nlocked");
        let _ = io::stdin().read_line(&mut String::new());
    }

    #[test]
    fn asking_for_the_holder_keeps_nobody_from_locking() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(MirrorLock::holder(dir.path()), None);
        let lock = MirrorLock::acquire(dir.path()).unwrap();
        assert_eq!(MirrorLock::holder(dir.path()), Some(std::process::id()));
        drop(lock);
        assert_eq!(MirrorLock::holder(dir.path()), None);
        let asked = dir.path().to_owned();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let asker = std::thread::spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = MirrorLock::holder(&asked);
            }
        });
        for _ in 0..50 {
            drop(MirrorLock::acquire(dir.path()).unwrap());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        asker.join().unwrap();
    }

    #[test]
    fn a_killed_holder_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "mirror::lock::tests::child_that_holds_the_lock",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD_DIRECTORY, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap() == "locked"),
            "the child did not get the lock"
        );
        let error = MirrorLock::acquire(dir.path()).unwrap_err();
        assert_eq!(holder(&error), Some(child.id()));
        kill(&mut child);
        let _lock = MirrorLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_live_server_is_refused_and_what_a_dead_one_left_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("postmaster.pid");
        let mut server = Command::new("sleep")
            .arg("600")
            .current_dir(dir.path())
            .spawn()
            .unwrap();
        fs::write(
            &pid_file,
            format!("{}\n{}\n1\n5432\n", server.id(), dir.path().display()),
        )
        .unwrap();
        match MirrorLock::acquire(dir.path()).unwrap_err() {
            LockError::ServerRuns { postmaster, .. } => assert_eq!(postmaster, server.id()),
            other => panic!("{other}"),
        }
        // A server in single-user mode writes its number negated.
        fs::write(&pid_file, format!("-{}\n", server.id())).unwrap();
        assert_eq!(running_postmaster(dir.path()).unwrap(), Some(server.id()));
        kill(&mut server);
        assert_eq!(running_postmaster(dir.path()).unwrap(), None);
        // This number is in use, by a process that runs elsewhere.
        fs::write(&pid_file, format!("{}\n", std::process::id())).unwrap();
        let _lock = MirrorLock::acquire(dir.path()).unwrap();
        for junk in ["", "\n", "postmaster\n", "99999999999999999999\n"] {
            fs::write(&pid_file, junk).unwrap();
            assert_eq!(running_postmaster(dir.path()).unwrap(), None, "{junk:?}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = MirrorLock::acquire(&dir.path().join("missing")).unwrap_err();
        assert_eq!(error.exit(), Exit::LocalStorage);
        assert!(error.to_string().contains("missing"), "{error}");
    }

    fn kill(child: &mut Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
