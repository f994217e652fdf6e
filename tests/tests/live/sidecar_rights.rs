//! A sidecar whose SQL user is no superuser: the rights that `walsender serve --help` names are enough, and each that is missing
//! is named.

use anyhow::{Context, Result, ensure};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Program, SHORT, ensure_same_content, server_version,
};

use crate::sidecar::{Sidecar, caught_up, program};

/// What begins and ends a base backup, by the server's version.
fn backup_functions(major: u32) -> [&'static str; 2] {
    match major {
        15.. => ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"],
        _ => [
            "pg_start_backup(text, boolean, boolean)",
            "pg_stop_backup(boolean, boolean)",
        ],
    }
}

fn server(major: u32) -> Result<Cluster> {
    let options = ClusterOptions::default().initdb_option("--wal-segsize=1");
    options.programs(&server_version(major)?).start()
}

/// A role with these attributes, and how it connects.
fn role(primary: &Cluster, name: &str, attributes: &str) -> Result<String> {
    primary.query(&format!("CREATE ROLE {name} {attributes} PASSWORD 'pw'"))?;
    Ok(format!(
        "host=127.0.0.1 port={} user={name} password=pw",
        primary.port()
    ))
}

fn grant(primary: &Cluster, function: &str, name: &str) -> Result<()> {
    primary.query(&format!("GRANT EXECUTE ON FUNCTION {function} TO {name}"))?;
    Ok(())
}

fn pg_basebackup(sidecar: &Sidecar, primary: &Cluster, name: &str) -> Program {
    let program = primary.programs().client("pg_basebackup");
    let program = sidecar.work.external(&program).env("LC_ALL", "C");
    let conninfo = sidecar.conninfo();
    let fixed = ["-c", "fast", "--no-sync", "-X", "fetch", "-d", &conninfo];
    program.args(fixed).args(["-D", name])
}

fn the_named_rights_are_enough(major: u32) -> Result<()> {
    let primary = server(major)?;
    let conninfo = role(&primary, "walsender", "LOGIN REPLICATION")?;
    for function in backup_functions(major) {
        grant(&primary, function, "walsender")?;
    }
    let mut sidecar = Sidecar::start_as(&primary, Some(&conninfo), &[])?;
    let mut standby = sidecar.standby(&primary, &["-X", "stream", "-C", "-S", "follower"])?;
    standby.start()?;
    primary.pgbench(&["-i", "-q", "-s", "1"])?;
    caught_up(&standby, &primary)?;
    // The slot there moves on, so the right to that is there, too; and all of it again after a crash.
    let slot = || primary.lsn("SELECT restart_lsn FROM pg_replication_slots");
    let before = slot()?;
    primary.query("CHECKPOINT")?;
    primary.switch_wal()?;
    primary.query("CHECKPOINT")?;
    walstream_tests::wait_for("the slot on the primary", LONG, || Ok(slot()? > before))?;
    sidecar.running()?.kill_9()?;
    sidecar.restart(&primary)?;
    primary.pgbench(&["-n", "-t", "100"])?;
    caught_up(&standby, &primary)?;
    standby.promote()?;
    ensure_same_content(&primary, &standby)
}

#[test]
fn with_15_the_named_rights_are_enough() -> Result<()> {
    the_named_rights_are_enough(15)
}

#[test]
fn with_14_the_named_rights_are_enough() -> Result<()> {
    the_named_rights_are_enough(14)
}

#[test]
fn with_18_the_named_rights_are_enough() -> Result<()> {
    the_named_rights_are_enough(18)
}

#[test]
fn each_right_that_is_missing_is_named() -> Result<()> {
    let primary = server(15)?;
    let [start, stop] = backup_functions(15);
    // Without REPLICATION, even with all else, there is no slot to be had.
    let conninfo = role(&primary, "no_replication", "LOGIN")?;
    for function in [start, stop] {
        grant(&primary, function, "no_replication")?;
    }
    let work = walstream_tests::Workdir::new()?;
    let refused = program(&work, primary.data_dir(), &conninfo)?.run(SHORT)?;
    refused.expect_failure(
        1,
        &[
            "cannot create a replication slot on the primary: must be superuser or replication role to use replication slots",
            "the user of --primary needs the attribute REPLICATION: ALTER ROLE name REPLICATION",
        ],
    )?;
    let conninfo = role(&primary, "no_login", "REPLICATION")?;
    let refused = program(&work, primary.data_dir(), &conninfo)?.run(SHORT)?;
    refused.expect_failure(1, &["role \"no_login\" is not permitted to log in"])?;
    primary.query("REVOKE CONNECT ON DATABASE postgres FROM public")?;
    let conninfo = role(&primary, "walsender", "LOGIN REPLICATION")?;
    let refused = program(&work, primary.data_dir(), &conninfo)?.run(SHORT)?;
    refused.expect_failure(1, &["permission denied for database \"postgres\""])?;
    primary.query("GRANT CONNECT ON DATABASE postgres TO public")?;

    // WAL is served without the rights to base backups, and each of these is told to who asks for one.
    let mut sidecar = Sidecar::start_as(&primary, Some(&conninfo), &[])?;
    for (function, name) in [(start, "pg_backup_start"), (stop, "pg_backup_stop")] {
        let refused = pg_basebackup(&sidecar, &primary, "refused").run(LONG)?;
        let told = [
            &format!("permission denied for function {name}"),
            &format!("GRANT EXECUTE ON FUNCTION {function} TO name"),
        ];
        if function == start {
            refused.expect_failure(1, &told.map(String::as_str))?;
        } else {
            // Within an archive, pg_basebackup does not show what a server says, not PostgreSQL's either.
            refused.expect_failure(1, &["COPY stream ended before last file was finished"])?;
        }
        for part in told {
            ensure!(sidecar.stderr().contains(part), "{}", sidecar.stderr());
        }
        grant(&primary, function, "walsender")?;
    }
    // A backup that was begun and could not be ended has left nothing behind.
    pg_basebackup(&sidecar, &primary, "taken").succeed(LONG)?;

    // Of settings that not everybody may see, it knows none until it may.
    let refused = sidecar.psql("SHOW data_directory")?;
    ensure!(refused.starts_with("ERROR"), "{refused}");
    let told = "no member of pg_read_all_settings";
    ensure!(sidecar.stderr().contains(told), "{}", sidecar.stderr());
    primary.query("GRANT pg_read_all_settings TO walsender")?;
    sidecar.running()?.terminate(SHORT)?;
    sidecar.restart(&primary)?;
    let directory = primary.data_dir().display().to_string();
    assert_eq!(sidecar.psql("SHOW data_directory")?.trim(), directory);
    ensure!(!sidecar.stderr().contains(told), "{}", sidecar.stderr());

    // One that is taken away while it runs is named, and given back it goes on.
    primary.query("ALTER ROLE walsender NOREPLICATION")?;
    primary.query("CHECKPOINT")?;
    primary.switch_wal()?;
    primary.query("CHECKPOINT")?;
    walstream_tests::wait_for("the complaint", LONG, || {
        Ok(sidecar
            .stderr()
            .contains("the user of --primary needs the attribute REPLICATION"))
    })?;
    primary.query("ALTER ROLE walsender REPLICATION")?;
    let end = primary.flush_lsn()?;
    walstream_tests::wait_for("WAL that is served again", LONG, || {
        let row = sidecar.psql("IDENTIFY_SYSTEM")?;
        let lsn = row.split('|').nth(2).context("a position")?;
        Ok(lsn.parse::<walstream::Lsn>()? >= end)
    })
}

#[test]
fn the_help_names_the_rights() -> Result<()> {
    let work = walstream_tests::Workdir::new()?;
    let help = work.program("walsender")?.args(["serve", "--help"]);
    let help = help.succeed(SHORT)?.stdout;
    let words: Vec<_> = help.split_whitespace().collect();
    let text = words.join(" ");
    for part in [
        "LOGIN and REPLICATION are enough to serve WAL",
        "EXECUTE on pg_backup_start(text, boolean) and pg_backup_stop(boolean)",
        "pg_read_all_settings",
        "CREATE ROLE walsender LOGIN REPLICATION;",
    ] {
        ensure!(text.contains(part), "{part} in {help}");
    }
    Ok(())
}
