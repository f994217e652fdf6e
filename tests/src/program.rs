//! [`Program`]: one of our programs, run as a user would run it, with its output, signals and exit code.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::Builder;

use crate::wait::wait_for_some;

/// A program that has not been started yet.
#[derive(Debug)]
pub struct Program {
    command: Command,
    directory: PathBuf,
    stdin: Option<String>,
}

impl Program {
    pub(crate) fn new(mut command: Command, directory: &Path) -> Self {
        // A signal of the terminal goes to the test, which then ends the program.
        command.process_group(0).env("NO_COLOR", "1");
        Self {
            command,
            directory: directory.to_owned(),
            stdin: None,
        }
    }

    /// The program's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(self.command.get_program())
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable. Those whose names begin with `PG` are not inherited.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What the program reads from standard input, which is empty otherwise.
    #[must_use]
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.to_owned());
        self
    }

    /// What it has as standard input, such as a terminal.
    #[must_use]
    pub fn stdin_from(mut self, input: impl Into<Stdio>) -> Self {
        self.command.stdin(input);
        self
    }

    /// Starts it and goes on.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut self) -> Result<Running> {
        let name = Path::new(self.command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let output = |ending: &str| -> Result<(File, PathBuf)> {
            let file = Builder::new()
                .prefix(&format!("{name}-"))
                .suffix(ending)
                .tempfile_in(&self.directory)?;
            Ok(file.keep()?)
        };
        let (stdout, stdout_path) = output(".stdout")?;
        let (stderr, stderr_path) = output(".stderr")?;
        if let Some(text) = &self.stdin {
            let (mut file, path) = output(".stdin")?;
            file.write_all(text.as_bytes())?;
            self.command.stdin(File::open(path)?);
        }
        let child = self.command.stdout(stdout).stderr(stderr).spawn();
        let child = child.with_context(|| {
            format!(
                "cannot run {}",
                self.command.get_program().to_string_lossy()
            )
        })?;
        Ok(Running {
            child,
            name,
            stdout_path,
            stderr_path,
        })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, or has not ended at `deadline` (it is killed then; the error shows its messages).
    pub fn run(self, deadline: Duration) -> Result<Finished> {
        self.start()?.wait(deadline)
    }

    /// Runs it to its end, which has to be exit code 0.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when the exit code is another, with the program's messages.
    pub fn succeed(self, deadline: Duration) -> Result<Finished> {
        let finished = self.run(deadline)?;
        ensure!(finished.code() == Some(0), "{finished}");
        Ok(finished)
    }
}

/// A program that was started. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    stdout_path: PathBuf,
    stderr_path: PathBuf,
}

impl Running {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended already, with its messages.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "cannot signal a program that has ended: {}",
                self.finished(status)
            );
        }
        Ok(kill_process(self.pid(), signal)?)
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When it has ended already, with its messages.
    pub fn kill_9(mut self) -> Result<Finished> {
        self.signal(Signal::KILL)?;
        let status = self.child.wait()?;
        Ok(self.finished(status))
    }

    /// Sends SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it has ended already, or does not end before `deadline`.
    pub fn terminate(mut self, deadline: Duration) -> Result<Finished> {
        self.signal(Signal::TERM)?;
        self.wait(deadline)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended at `deadline`, with its messages; it is killed then.
    pub fn wait(mut self, deadline: Duration) -> Result<Finished> {
        let status = wait_for_some("the end of the program", deadline, || {
            Ok(self.child.try_wait()?)
        });
        match status {
            Ok(status) => Ok(self.finished(status)),
            Err(error) => bail!("{error}; {}", self.outputs()),
        }
    }

    /// Waits until standard output or standard error contains `text`.
    ///
    /// # Errors
    /// When neither does at `deadline`, or the program ends without having printed it, with its messages.
    pub fn wait_for_output(&mut self, text: &str, deadline: Duration) -> Result<()> {
        let found = wait_for_some(&format!("output \"{text}\""), deadline, || {
            let ended = self.child.try_wait()?.is_some();
            let found = self.stderr().contains(text) || self.stdout().contains(text);
            if ended && !found {
                bail!("ended without output \"{text}\"");
            }
            Ok(found.then_some(()))
        });
        found.with_context(|| self.outputs())
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text_of(&self.stdout_path)
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text_of(&self.stderr_path)
    }

    fn outputs(&self) -> String {
        format!(
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.name,
            self.stdout(),
            self.stderr()
        )
    }

    fn finished(&self, status: ExitStatus) -> Finished {
        Finished {
            name: self.name.clone(),
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a program ended, and what it printed. Its `Display` shows all of it.
#[derive(Clone, Debug)]
pub struct Finished {
    name: String,
    status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit code; `None` when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Number of the signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Checks the exit code and that each of `texts` is in the messages.
    ///
    /// # Errors
    /// When something is missing, with all that was printed.
    pub fn expect_failure(&self, code: i32, texts: &[&str]) -> Result<()> {
        ensure!(
            self.code() == Some(code),
            "expected exit code {code}: {self}"
        );
        for text in texts {
            ensure!(
                self.stderr.contains(text),
                "expected \"{text}\" in standard error: {self}"
            );
        }
        Ok(())
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// When it is none, with all that was printed.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| self.to_string())
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            status,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "{name} ended with {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
