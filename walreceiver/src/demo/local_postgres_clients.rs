//! What clients do with a [`LocalPostgres`]: queries, PostgreSQL's own programs, connection strings.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use super::LocalPostgresError;
use super::local_postgres::{LocalPostgres, SUPERUSER};

impl LocalPostgres {
    /// Runs SQL in database `postgres` as superuser. Rows are lines, columns are separated by `|`. Several
    /// statements are one transaction.
    ///
    /// # Errors
    /// [`LocalPostgresError::Program`] with the server's message.
    pub fn query(&self, sql: &str) -> Result<String, LocalPostgresError> {
        self.query_in("postgres", sql)
    }

    /// As [`query`](Self::query), in another database.
    ///
    /// # Errors
    /// [`LocalPostgresError::Program`] with the server's message.
    pub fn query_in(&self, database: &str, sql: &str) -> Result<String, LocalPostgresError> {
        let mut command = self.command("psql");
        command.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
            "-d",
        ]);
        command.arg(format!(
            "{} dbname='{}'",
            self.conninfo(),
            database.replace('\\', r"\\").replace('\'', r"\'")
        ));
        checked(&mut command)
    }

    /// A command for one of PostgreSQL's programs, as the server's user, in the scratch directory.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let path = self.programs().client(program);
        let mut command = self.user().command(&path, self.scratch());
        if let Some(libraries) = self.programs().libraries()
            && path.starts_with(self.programs().bindir())
        {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// Runs one of PostgreSQL's programs to its end and returns what it printed, without the last line end.
    ///
    /// # Errors
    /// [`LocalPostgresError::Program`] when it fails, with its messages.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: &[S],
    ) -> Result<String, LocalPostgresError> {
        checked(self.command(program).args(arguments))
    }

    /// How the superuser connects over the unix socket, as keywords and values, without a database.
    #[must_use]
    pub fn conninfo(&self) -> String {
        format!(
            "host={} port={} user={SUPERUSER}",
            self.scratch().display(),
            self.port()
        )
    }

    /// How the superuser connects over TCP, with the password. Only where the server listens there.
    #[must_use]
    pub fn tcp_conninfo(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user={SUPERUSER} password={}",
            self.port(),
            self.password()
        )
    }
}

/// Runs a command to its end and returns its standard output, without the last line end.
///
/// # Errors
/// [`LocalPostgresError::Program`] when it cannot be run or fails, with its messages.
pub fn checked(command: &mut Command) -> Result<String, LocalPostgresError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|source| LocalPostgresError::io("run", Path::new(&program), source))?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned();
        return Err(LocalPostgresError::Program {
            program,
            status: output.status,
            messages,
        });
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}
