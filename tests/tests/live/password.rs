//! The password of a connection string is used and never kept: later commands get it where libpq looks for it.

use std::fs;

use anyhow::{Result, ensure};
use walstream_tests::{ClusterOptions, Mirror, SHORT};

#[test]
fn a_mirror_does_not_keep_the_password_it_was_made_with() -> Result<()> {
    let primary = ClusterOptions::default()
        .hba("host replication mirror 127.0.0.1/32 scram-sha-256")
        .start()?;
    primary.query("CREATE ROLE mirror LOGIN REPLICATION PASSWORD 'hunter2'")?;
    let conninfo = format!("host=127.0.0.1 port={} user=mirror", primary.port());
    let mirror = Mirror::init_with(&format!("{conninfo} password=hunter2"), &[])?;
    let state = fs::read_to_string(mirror.directory().join("walstream.mirror"))?;
    ensure!(
        !state.contains("hunter2") && !state.contains("password"),
        "{state}"
    );

    // What init was given is known but for the password, whose absence is said.
    let without = mirror.command("run")?.run(SHORT)?;
    without.expect_failure(4, &["no password supplied", "PGPASSWORD"])?;
    let mut with = mirror
        .command("run")?
        .env("PGPASSWORD", "hunter2")
        .start()?;
    with.wait_for_output("started streaming WAL", SHORT)?;
    let ended = with.terminate(SHORT)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    Ok(())
}
