//! [`LocalPostgres`]: one PostgreSQL server of our own, for the demo and the tests.
//!
//! The server is our child, runs as an unprivileged user, listens on a socket that only this user (and root) reaches,
//! and is gone when the value is dropped or this process ends. Everything here blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::LocalPostgresError;
use super::free_port::{free_port, is_free};
use super::local_postgres_clients::checked;
use super::orphan_guard::{OrphanGuard, kill_inside};
use super::postgres_programs::PostgresPrograms;
use super::scratch_dir::scratch_dir;
use super::server_user::ServerUser;

/// The bootstrap superuser of clusters made here.
pub const SUPERUSER: &str = "postgres";

const POLL: Duration = Duration::from_millis(10);
const DEADLINE: Duration = Duration::from_secs(60);
/// How often another port is tried when somebody took the one we chose.
const PORT_ATTEMPTS: u32 = 10;

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On a unix socket alone.
    Socket,
    /// On a unix socket and on a free TCP port of 127.0.0.1, which asks for the password.
    SocketAndTcp,
}

/// How a server is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Sessions end, a checkpoint is written and all WAL is sent to connected standbys (`SIGINT`).
    Fast,
    /// As in a crash, recovery follows at the next start (`SIGQUIT`).
    Immediate,
}

/// A PostgreSQL server that belongs to this process.
#[derive(Debug)]
pub struct LocalPostgres {
    server: Option<Child>,
    programs: PostgresPrograms,
    user: ServerUser,
    data_dir: PathBuf,
    listen: Listen,
    port: u16,
    password: String,
    arguments: Vec<String>,
    // Dropped in this order, after the server has been stopped: the guard is there until nothing is left to guard.
    scratch: TempDir,
    _guard: OrphanGuard,
}

impl LocalPostgres {
    /// A server whose data directory lies in a temporary directory of its own and does not exist yet: run `initdb`,
    /// or fill [`data_dir`](Self::data_dir), then [`start`](Self::start).
    ///
    /// # Errors
    /// When the temporary directory cannot be made.
    pub fn empty(
        programs: &PostgresPrograms,
        user: &ServerUser,
        listen: Listen,
    ) -> Result<Self, LocalPostgresError> {
        Self::build(programs, user, listen, None)
    }

    /// A server on a data directory that exists and stays, such as a mirror. It should belong to `user`.
    ///
    /// # Errors
    /// When the temporary directory for socket and log cannot be made.
    pub fn on_directory(
        programs: &PostgresPrograms,
        user: &ServerUser,
        listen: Listen,
        data_dir: &Path,
    ) -> Result<Self, LocalPostgresError> {
        Self::build(programs, user, listen, Some(data_dir))
    }

    /// A new cluster, not yet started. `initdb_options` go to `initdb`, for example `--wal-segsize=1`; `settings` go to
    /// `postgresql.conf`, with values quoted where that file needs it.
    ///
    /// # Errors
    /// When `initdb` fails, with what it printed.
    pub fn initdb(
        programs: &PostgresPrograms,
        user: &ServerUser,
        listen: Listen,
        initdb_options: &[&str],
        settings: &[(&str, &str)],
    ) -> Result<Self, LocalPostgresError> {
        let this = Self::empty(programs, user, listen)?;
        let pwfile = this.scratch.path().join("initdb-password");
        this.write_file(&pwfile, &this.password)?;
        let mut command = this.command("initdb");
        command
            .arg("-D")
            .arg(&this.data_dir)
            .arg("--pwfile")
            .arg(&pwfile);
        command.args(["-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--no-sync"]);
        command
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
            .args(initdb_options);
        checked(&mut command)?;
        fs::remove_file(&pwfile)
            .map_err(|source| LocalPostgresError::io("remove", &pwfile, source))?;
        this.configure(settings)?;
        Ok(this)
    }

    fn build(
        programs: &PostgresPrograms,
        user: &ServerUser,
        listen: Listen,
        data_dir: Option<&Path>,
    ) -> Result<Self, LocalPostgresError> {
        let scratch = scratch_dir(user)?;
        let data_dir = data_dir.map_or_else(|| scratch.path().join("data"), Path::to_owned);
        let guard = OrphanGuard::start(scratch.path(), &[&data_dir])
            .map_err(|source| LocalPostgresError::io("guard", scratch.path(), source))?;
        Ok(Self {
            server: None,
            programs: programs.clone(),
            user: user.clone(),
            data_dir,
            listen,
            port: free_port().map_err(LocalPostgresError::NoPort)?,
            password: random_password()?,
            arguments: Vec::new(),
            _guard: guard,
            scratch,
        })
    }

    /// Adds settings to the end of `postgresql.conf`, where the last of a name counts.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, settings: &[(&str, &str)]) -> Result<(), LocalPostgresError> {
        let lines: String = settings
            .iter()
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        self.append("postgresql.conf", &lines)
    }

    /// Adds text to the end of a file in the data directory, which is made where it is missing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&self, file: &str, text: &str) -> Result<(), LocalPostgresError> {
        let path = self.data_dir.join(file);
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path);
        written
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|e| LocalPostgresError::io("write", &path, e))?;
        self.user
            .own(&path)
            .map_err(|source| LocalPostgresError::io("own", &path, source))
    }

    /// Replaces a file with `text`, readable by the server's user alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_file(&self, path: &Path, text: &str) -> Result<(), LocalPostgresError> {
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path);
        opened
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|e| LocalPostgresError::io("write", path, e))?;
        self.user
            .own(path)
            .map_err(|source| LocalPostgresError::io("own", path, source))
    }

    /// A further argument for `postgres` at every start, for example `-c` and then `hot_standby=off`.
    pub fn add_argument(&mut self, argument: impl Into<String>) {
        self.arguments.push(argument.into());
    }

    /// Sets the superuser's password that [`tcp_conninfo`](Self::tcp_conninfo) names, for a copy of another cluster.
    pub fn set_password(&mut self, password: impl Into<String>) {
        self.password = password.into();
    }

    /// Starts the server and waits until it takes connections (a standby: until it can be read, or, without hot
    /// standby, until it replays).
    ///
    /// # Errors
    /// [`LocalPostgresError::Server`], with the end of its log, when it ends or is not ready within a minute.
    pub fn start(&mut self) -> Result<(), LocalPostgresError> {
        let port = self.port;
        for _ in 0..PORT_ATTEMPTS {
            match self.start_once() {
                Err(LocalPostgresError::Server { .. })
                    if self.listen == Listen::SocketAndTcp && !is_free(self.port) =>
                {
                    self.port = free_port().map_err(LocalPostgresError::NoPort)?;
                }
                other => return other,
            }
        }
        Err(self.failure(format!("found no free port, {port} was the first tried")))
    }

    fn start_once(&mut self) -> Result<(), LocalPostgresError> {
        let log_path = self.log_path();
        let log = File::options().append(true).create(true).open(&log_path);
        let log = log.map_err(|source| LocalPostgresError::io("open", &log_path, source))?;
        let errors = log
            .try_clone()
            .map_err(|source| LocalPostgresError::io("open", &log_path, source))?;
        let addresses = if self.listen == Listen::Socket {
            ""
        } else {
            "127.0.0.1"
        };
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(&self.data_dir)
            .arg("-k")
            .arg(self.scratch.path())
            .arg("-p")
            .arg(self.port.to_string());
        command
            .arg("-c")
            .arg(format!("listen_addresses={addresses}"));
        // What a killed server leaves then lies in its data directory, and its messages are where we look for them.
        command.args([
            "-c",
            "dynamic_shared_memory_type=mmap",
            "-c",
            "logging_collector=off",
            "-c",
            "lc_messages=C",
        ]);
        command
            .args(&self.arguments)
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        let server = command.spawn().map_err(|source| {
            LocalPostgresError::io("run", &self.programs.program("postgres"), source)
        })?;
        let pid = server.id().to_string();
        self.server = Some(server);
        let started = Instant::now();
        loop {
            if !self.is_running() {
                return Err(self.failure("ended while it started"));
            }
            // The lock file's eighth line is the state that `pg_ctl` waits for, too (`pidfile.h`).
            let lock_file =
                fs::read_to_string(self.data_dir.join("postmaster.pid")).unwrap_or_default();
            let mut lines = lock_file.lines();
            let ours = lines.next() == Some(pid.as_str());
            if ours && matches!(lines.nth(6).map(str::trim), Some("ready" | "standby")) {
                return Ok(());
            }
            if started.elapsed() > DEADLINE {
                let error = self.failure(format!("is not ready after {} s", DEADLINE.as_secs()));
                self.kill_9()?;
                return Err(error);
            }
            thread::sleep(POLL);
        }
    }

    /// Stops the server and waits for its end. Does nothing when it is not running.
    ///
    /// # Errors
    /// [`LocalPostgresError::Server`] when it still runs after a minute: a fast stop waits for connected standbys.
    pub fn stop(&mut self, mode: StopMode) -> Result<(), LocalPostgresError> {
        self.signal(match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        });
        self.wait_for_end(DEADLINE)
    }

    /// Waits until the server has ended by itself, or through a signal.
    ///
    /// # Errors
    /// [`LocalPostgresError::Server`] when it still runs after `deadline`.
    pub fn wait_for_end(&mut self, deadline: Duration) -> Result<(), LocalPostgresError> {
        let started = Instant::now();
        while self.is_running() {
            if started.elapsed() > deadline {
                return Err(self.failure(format!("still runs after {} s", deadline.as_secs())));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Kills the whole server with SIGKILL: no process of it gets to do anything more. Returns when all are gone.
    ///
    /// # Errors
    /// [`LocalPostgresError::Server`] when a process could not be killed.
    pub fn kill_9(&mut self) -> Result<(), LocalPostgresError> {
        // A stopped postmaster starts no process while its children are looked for.
        self.signal(Signal::STOP);
        let all_gone = kill_inside(&self.data_dir, DEADLINE);
        if let Some(mut server) = self.server.take() {
            // Already killed when it ran inside the data directory, which is where the postmaster goes first.
            let _ = server.kill();
            let _ = server.wait();
        }
        self.remove_shared_memory();
        if all_gone {
            Ok(())
        } else {
            Err(self.failure("has processes that cannot be killed"))
        }
    }

    /// Removes the System V segment that a killed server leaves behind: the lock file's seventh line names it.
    fn remove_shared_memory(&self) {
        let lock_file =
            fs::read_to_string(self.data_dir.join("postmaster.pid")).unwrap_or_default();
        if let Some(id) = lock_file
            .lines()
            .nth(6)
            .and_then(|line| line.split_whitespace().nth(1))
        {
            let _ = self
                .user
                .command("ipcrm", self.scratch.path())
                .args(["-m", id])
                .output();
        }
    }

    /// Makes the server read its configuration files again.
    pub fn reload(&mut self) {
        self.signal(Signal::HUP);
    }

    /// Sends a signal to the postmaster, where it runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = self.pid()
        {
            // We have not reaped it, so the number is still its own.
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether the postmaster runs.
    pub fn is_running(&mut self) -> bool {
        match self.server.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => true,
            _ => {
                self.server = None;
                false
            }
        }
    }

    /// The postmaster's process.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.server.as_ref().map(Pid::from_child)
    }

    /// Directory of the unix socket and the log; it belongs to the server's user and is removed in the end.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The port: of TCP, and in the socket's name. It stays over restarts unless somebody took it meanwhile.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// PostgreSQL's programs.
    #[must_use]
    pub const fn programs(&self) -> &PostgresPrograms {
        &self.programs
    }

    /// The user that the server runs as.
    #[must_use]
    pub const fn user(&self) -> &ServerUser {
        &self.user
    }

    /// The server's log, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("server.log")
    }

    fn failure(&self, what: impl Into<String>) -> LocalPostgresError {
        LocalPostgresError::server(what, &self.data_dir, &self.log())
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        self.signal(Signal::QUIT);
        if self.wait_for_end(Duration::from_secs(10)).is_err() {
            let _ = self.kill_9();
        }
        // Clients that a caller left running go with their scratch directory.
        kill_inside(self.scratch.path(), Duration::from_secs(10));
    }
}

fn random_password() -> Result<String, LocalPostgresError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 16];
    let read = File::open(source).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| LocalPostgresError::io("read", source, error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
