//! `walreceiver run --serve` with TLS and passwords: PostgreSQL's standby and `pg_receivewal` follow over TLS with SCRAM, bound to
//! the channel, and nobody else does.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use walstream_tests::{
    LONG, Mirror, Receivewal, Running, SHORT, Signal, ensure_same_content, wait_for,
};

use crate::certificates::Certificates;
use crate::hub::{load, primary, start_following, wait_for_replay};
use crate::serve_archive::{begin_at, ensure_same_wal};

/// Writes a file of the mirror's user, closed to others.
fn write(mirror: &Mirror, name: &str, content: &[u8]) -> Result<()> {
    let path = mirror.workdir().join(name);
    fs::write(&path, content)?;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
    mirror.workdir().own(&path)
}

/// The port of a hub that listens at one, as its log says.
fn port(running: &mut Running) -> Result<u16> {
    running.wait_for_output("serving the mirror; connect with: ", LONG)?;
    let log = running.stdout() + &running.stderr();
    let (_, conninfo) = log
        .split_once("serving the mirror; connect with: ")
        .context("it says so")?;
    let (_, port) = conninfo.split_once("port=").context("a port")?;
    let digits = port.find(|c: char| !c.is_ascii_digit());
    Ok(port[..digits.unwrap_or(port.len())].parse()?)
}

#[test]
fn followers_come_over_tls_with_a_password() -> Result<()> {
    let primary = primary()?;
    let certificates = Certificates::new()?;
    certificates.signed("hub", Some("DNS:localhost,IP:127.0.0.1"))?;
    let mirror = Mirror::init(&primary)?;
    for name in ["hub.crt", "hub.key"] {
        write(&mirror, name, &fs::read(certificates.path(name))?)?;
    }
    let verifier = mirror
        .workdir()
        .program("walsender")?
        .args(["verifier", "standby"]);
    let users = verifier.stdin("pw in SCRAM\n").succeed(SHORT)?.stdout;
    write(&mirror, "users", users.as_bytes())?;
    write(
        &mirror,
        "hba",
        b"hostssl replication standby all scram-sha-256\n",
    )?;
    let mut running = mirror.run(&[
        "--serve",
        "127.0.0.1:0",
        "--auth-file",
        "users",
        "--hba",
        "hba",
        "--tls-cert",
        "hub.crt",
        "--tls-key",
        "hub.key",
    ])?;
    let port = port(&mut running)?;
    let authority = certificates.path("ca.crt").display().to_string();
    let conninfo = |more: &str| {
        format!(
            "host=127.0.0.1 port={port} user=standby sslrootcert='{authority}' channel_binding=require {more}"
        )
    };
    let good = "password='pw in SCRAM' sslmode=verify-full";

    let mut standby = primary.standby(&[])?;
    start_following(
        &mut standby,
        &format!("{} application_name=second", conninfo(good)),
    )?;
    let side = Receivewal::theirs(primary.programs())?;
    let mut first: Vec<_> = walstream_tests::file_names(&mirror.directory().join("pg_wal"))?;
    first.retain(|name| name.len() == 24);
    first.sort();
    begin_at(&side, first.first().context("no segment")?)?;
    let receivewal = side.command(["-D", "archive", "-n", "-w", "--synchronous", "-d"]);
    let mut following = receivewal
        .arg(format!("{} application_name=archive", conninfo(good)))
        .start()?;
    for _ in 0..2 {
        load(&primary)?;
    }
    let end = primary.flush_lsn()?;
    wait_for_replay(&standby, end)?;
    let status = || -> Result<serde_json::Value> {
        let status = mirror.command("status")?.args(["--json"]).succeed(SHORT)?;
        Ok(status.json()?["hub"]["followers"].clone())
    };
    wait_for("both followers at the end", LONG, || {
        ensure!(following.is_running()?, "pg_receivewal has ended");
        let followers = status()?;
        let followers = followers.as_array().map(Vec::as_slice).unwrap_or_default();
        let at_end = followers.iter().filter(|follower| {
            let flushed = follower["flush_lsn"].as_str().unwrap_or_default();
            follower["usename"] == "standby"
                && flushed
                    .parse::<walstream::Lsn>()
                    .is_ok_and(|lsn| lsn >= end)
        });
        Ok(at_end.count() == 2)
    })?;
    following.signal(Signal::INT)?;
    following.wait(LONG)?;
    ensure_same_wal(&primary.data_dir().join("pg_wal"), &side.archive(), end)?;

    // Who has another password, no TLS, no password, or another authority.
    let other = certificates.path("other-ca.crt").display().to_string();
    for (more, expected) in [
        (
            "password=wrong sslmode=require",
            "password authentication failed for user \"standby\"",
        ),
        (
            "password='pw in SCRAM' sslmode=disable channel_binding=prefer",
            "no pg_hba.conf entry for replication connection",
        ),
        ("sslmode=require", "no password supplied"),
        (
            &format!("password='pw in SCRAM' sslmode=verify-full sslrootcert='{other}'"),
            "certificate verify failed",
        ),
    ] {
        let refused = side
            .command(["-D", "archive", "-n", "-w", "-d", &conninfo(more)])
            .run(SHORT)?;
        refused.expect_failure(1, &[expected])?;
    }

    primary.query("CREATE TABLE at_the_end AS SELECT generate_series(1, 1000) AS i")?;
    wait_for_replay(&standby, primary.flush_lsn()?)?;
    standby.promote()?;
    ensure_same_content(&primary, &standby)
}
