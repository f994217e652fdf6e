//! The servers of other versions, which `tests/servers/fetch` brings.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use walreceiver::demo::postgres_programs::PostgresPrograms;

use crate::cluster_options::{local_programs, server_user};

/// The major versions of the version-matrix tests.
pub const MAJORS: [u32; 7] = [12, 13, 14, 15, 16, 17, 18];

/// The programs of one major version: this machine's own where it has that one, else those that `tests/servers/fetch`
/// has brought.
///
/// # Errors
/// When there is no server of that version, with the command that fetches it. It is an error, not a skipped test.
pub fn server_version(major: u32) -> Result<PostgresPrograms> {
    let user = server_user()?;
    if let Ok(programs) = local_programs(&user)
        && programs.major() == major
    {
        return Ok(programs);
    }
    let bindir = servers_dir()?.join(major.to_string()).join("bin");
    PostgresPrograms::in_directory(&bindir, &user).with_context(|| {
        format!("no PostgreSQL {major} for this test: run tests/servers/fetch {major}")
    })
}

/// The programs of PostgreSQL 15 with blocks, of data and of WAL, of 32 kB, as the Greenplum family has them.
///
/// # Errors
/// When there are none, with the command that builds them.
pub fn server_with_large_blocks() -> Result<PostgresPrograms> {
    let bindir = servers_dir()?.join("15-32kB/bin");
    PostgresPrograms::in_directory(&bindir, &server_user()?)
        .context("no PostgreSQL with large blocks for this test: run tests/servers/large_blocks")
}

/// Where the script keeps the servers: the same places in the same order.
pub(crate) fn servers_dir() -> Result<PathBuf> {
    let variable = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(dir) = variable("WALSTREAM_SERVERS") {
        return Ok(dir);
    }
    if let Some(dir) = variable("XDG_CACHE_HOME") {
        return Ok(dir.join("walstream/servers"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/cache/walstream/servers"));
    }
    Ok(variable("HOME")
        .context("there is no HOME")?
        .join(".cache/walstream/servers"))
}
