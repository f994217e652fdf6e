//! A mirror becomes a server, and is compared with the one that it replaces.

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::mirror::Mirror;
use crate::wait::{LONG, wait_for};

/// Activates a mirror, starts PostgreSQL on it with the programs of `lost`, and waits until it takes connections.
///
/// # Errors
/// When `activate` fails, or the server does not start (with its log).
pub fn take_over(mirror: &Mirror, lost: &Cluster) -> Result<Cluster> {
    mirror.command("activate")?.arg("-y").succeed(LONG)?;
    let mut server = Cluster::on_directory(lost, mirror.directory())?;
    server.start()?;
    wait_until_it_serves(&server)?;
    Ok(server)
}

/// Waits until a server that recovers without being a hot standby takes connections. It counts as started before that.
///
/// # Errors
/// When it does not, with what it answers.
pub fn wait_until_it_serves(server: &Cluster) -> Result<()> {
    let mut last = String::new();
    let outcome = wait_for("the end of recovery", LONG, || {
        match server.query("SELECT 1") {
            Ok(_) => Ok(true),
            Err(error) => {
                last = error.to_string();
                Ok(false)
            }
        }
    });
    outcome.with_context(|| last)
}

/// Checks that two servers have the same databases, schemas, roles, rows and sequences, and that what the second has is
/// sound. Both must be idle.
///
/// # Errors
/// With the first difference, or with what is damaged.
pub fn ensure_same_content(old: &Cluster, new: &Cluster) -> Result<()> {
    ensure_same_lines(&old.row_counts()?.join("\n"), &new.row_counts()?.join("\n"))?;
    ensure_same_lines(&old.dump_all()?, &new.dump_all()?)?;
    new.amcheck()
}

/// Checks that two texts are the same.
///
/// # Errors
/// With the first line that differs.
pub fn ensure_same_lines(old: &str, new: &str) -> Result<()> {
    for (number, (a, b)) in old.lines().zip(new.lines()).enumerate() {
        ensure!(a == b, "line {number}: expected\n{a}\nand found\n{b}");
    }
    let (expected, found) = (old.lines().count(), new.lines().count());
    ensure!(
        expected == found,
        "expected {expected} lines and found {found}"
    );
    Ok(())
}
