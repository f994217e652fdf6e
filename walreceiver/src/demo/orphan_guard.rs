//! [`OrphanGuard`]: nothing of ours outlives us, not even when we are killed with SIGKILL.
//!
//! A guard is a shell that reads from a pipe whose other end we alone hold. The pipe ends when we do, however we end;
//! then the shell kills every process that runs inside the guarded directories and removes the scratch directory. A
//! process is known by its working directory, not by its number, so one that got a recycled number is never hit
//! (PostgreSQL's processes run inside their data directory).

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::process::{Pid, Signal, kill_process};

/// Arguments: the scratch directory, then further directories. The signals of a terminal must not end the guard
/// before its owner.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
if read -r line; then exit 0; fi
for round in 1 2 3 4 5; do
    for process in /proc/[0-9]*; do
        where=$(readlink "$process/cwd" 2>/dev/null) || continue
        for dir in "$@"; do
            case "$where/" in "$dir"/*) kill -9 "${process#/proc/}" 2>/dev/null ;; esac
        done
    done
done
for dir in "$@" "$1/data"; do
    # A killed server leaves a System V segment; the seventh line of its lock file names it.
    segment=$(sed -n '7s/^ *[0-9]* *//p' "$dir/postmaster.pid" 2>/dev/null) && ipcrm -m "$segment" 2>/dev/null
done
rm -rf "$1"
"#;

/// Ends the processes of some directories when its owner is gone. Dropping it ends the guard and touches nothing.
#[derive(Debug)]
pub struct OrphanGuard {
    shell: Child,
}

impl OrphanGuard {
    /// Starts a guard over `scratch`, which it removes in the end, and over `directories`, which it leaves.
    ///
    /// # Errors
    /// When no shell can be started.
    pub fn start(scratch: &Path, directories: &[&Path]) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "walstream-guard"])
            .arg(scratch)
            .args(directories);
        command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        Ok(Self {
            shell: command.spawn()?,
        })
    }
}

impl Drop for OrphanGuard {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.shell.stdin.take() {
            // Should this fail, the guard only does early what our caller is about to do.
            let _ = stdin.write_all(b"done\n");
        }
        let _ = self.shell.wait();
    }
}

/// Sends `signal` to every process that runs inside `directory`, and says how many there are that are not yet dead.
///
/// Processes of other users, and those that end meanwhile, are passed over.
pub fn signal_inside(directory: &Path, signal: Signal) -> usize {
    let inside = processes_inside(directory);
    for pid in &inside {
        let _ = kill_process(*pid, signal);
    }
    inside.len()
}

/// Kills every process that runs inside `directory` and waits until none is left; `false` when some were left after
/// `deadline`.
pub fn kill_inside(directory: &Path, deadline: Duration) -> bool {
    let started = Instant::now();
    while signal_inside(directory, Signal::KILL) > 0 {
        if started.elapsed() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The processes, zombies excepted, whose working directory is `directory` or below it.
#[must_use]
pub fn processes_inside(directory: &Path) -> Vec<Pid> {
    let own = rustix::process::getpid();
    let directory = directory
        .canonicalize()
        .unwrap_or_else(|_| PathBuf::from(directory));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw)
        else {
            continue;
        };
        // A zombie has no working directory any more, so it is not found.
        let inside =
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&directory));
        if inside && pid != own {
            found.push(pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(directory: &Path) -> Child {
        Command::new("sleep")
            .arg("600")
            .current_dir(directory)
            .spawn()
            .unwrap()
    }

    #[test]
    fn kills_what_runs_inside_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("a");
        let outside = dir.path().join("ab");
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        let (mut first, mut second) = (sleeper(&inside), sleeper(&outside));
        assert!(kill_inside(&inside, Duration::from_secs(10)));
        assert!(!first.wait().unwrap().success());
        assert_eq!(second.try_wait().unwrap(), None);
        second.kill().unwrap();
        second.wait().unwrap();
    }

    #[test]
    fn a_guard_whose_owner_is_gone_kills_and_removes() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let mut orphan = sleeper(&scratch);
        let mut guard = OrphanGuard::start(&scratch, &[]).unwrap();
        drop(guard.shell.stdin.take());
        assert!(guard.shell.wait().unwrap().success());
        assert!(!orphan.wait().unwrap().success());
        assert!(!scratch.exists());
    }

    #[test]
    fn a_guard_that_is_dropped_touches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = sleeper(dir.path());
        drop(OrphanGuard::start(dir.path(), &[]).unwrap());
        assert_eq!(process.try_wait().unwrap(), None);
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(dir.path().exists());
    }
}
