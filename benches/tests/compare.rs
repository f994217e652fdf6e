//! Every comparison once, in its tiny form: it runs, and it notices what goes wrong.

use std::process::{Command, Output};

use anyhow::{Result, ensure};

fn compare(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    Ok(command.args(arguments).output()?)
}

/// Runs one comparison and looks for these texts in what it prints.
fn tiny(comparison: &str, expected: &[&str]) -> Result<()> {
    let output = compare(&["--tiny", comparison])?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{stdout}{stderr}");
    for text in expected {
        ensure!(stdout.contains(text), "no \"{text}\" in {stdout}");
    }
    Ok(())
}

#[test]
fn stats() -> Result<()> {
    tiny(
        "stats",
        &[
            "pg_waldump --stats, 1 core",
            "bare CRC-32C pass",
            "on two cores is",
        ],
    )
}

#[test]
fn text() -> Result<()> {
    tiny(
        "text",
        &["pg_waldump >/dev/null", "walreceiver waldump to a pipe"],
    )
}

#[test]
fn receive() -> Result<()> {
    tiny(
        "receive",
        &[
            "pg_receivewal -Z lz4",
            "walreceiver receive -Z gzip",
            "growth of the memory",
        ],
    )
}

#[test]
fn sender() -> Result<()> {
    tiny(
        "sender",
        &[
            "PostgreSQL, pg_receivewal --no-sync",
            "walsender serve, walreceiver receive --no-sync",
            "throughput of walsender serve",
        ],
    )
}

#[test]
fn sync() -> Result<()> {
    tiny(
        "sync",
        &[
            "PostgreSQL standby",
            "walreceiver receive --synchronous",
            "and 8 client(s) is",
        ],
    )
}

#[test]
fn replay() -> Result<()> {
    tiny(
        "replay",
        &[
            "PostgreSQL's recovery",
            "walreceiver replay",
            "speed of replay by CPU time",
            "memory of replay",
        ],
    )
}

#[test]
fn followers() -> Result<()> {
    tiny(
        "followers",
        &[
            "walreceiver run --serve, 50 followers",
            "PostgreSQL standby, 50 followers",
            "memory per follower in kB is",
        ],
    )
}

#[test]
fn delay() -> Result<()> {
    tiny(
        "delay",
        &[
            "PostgreSQL standby",
            "walsender serve --data-dir",
            "walreceiver run --serve",
            "walsender::writer",
        ],
    )
}

#[test]
fn lag() -> Result<()> {
    tiny(
        "lag",
        &[
            "PostgreSQL standby",
            "walreceiver run",
            "wait for replay, in ms is",
        ],
    )
}

#[test]
fn takeover() -> Result<()> {
    tiny(
        "takeover",
        &[
            "PostgreSQL standby, pg_promote",
            "walreceiver activate --recovery postgres",
            "time in s to activate a mirror, scale 1 is",
        ],
    )
}

#[test]
fn help_names_every_comparison() -> Result<()> {
    let output = compare(&["--help"])?;
    let help = String::from_utf8_lossy(&output.stdout);
    for name in [
        "stats",
        "text",
        "receive",
        "sender",
        "sync",
        "replay",
        "followers",
        "delay",
        "lag",
        "takeover",
        "--check",
        "--rounds",
        "--tiny",
    ] {
        ensure!(help.contains(name), "no \"{name}\" in {help}");
    }
    Ok(())
}
