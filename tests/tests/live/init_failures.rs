//! `walreceiver init` that cannot succeed: each cause has its exit code and its words, and nothing stays behind.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use walstream_tests::{Cluster, CutProxy, LONG, Running, SHORT, Signal, Workdir, wait_for};

use super::init::{init, slots, verify_backup};

/// A server with enough data that a copy at 1 MB/s takes a while.
fn primary() -> Result<Cluster> {
    let primary = Cluster::started()?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    Ok(primary)
}

/// An init that is in the middle of its copy.
fn slow_init(work: &Workdir, mirror: &Path, primary: &Cluster) -> Result<Running> {
    let running = init(work, mirror, &primary.conninfo(), &["-r", "1M"])?.start()?;
    wait_for("files that were copied", LONG, || {
        Ok(mirror.join("base").exists())
    })?;
    Ok(running)
}

/// Names of what is in the directory, without our program and the files of its output.
fn left_in(work: &Workdir) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(work.path())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !name.starts_with("walreceiver"));
    Ok(names)
}

#[test]
fn a_signal_takes_everything_back() -> Result<()> {
    let primary = primary()?;
    let work = Workdir::new()?;
    let mirror = work.join("above/mirror");
    for signal in [Signal::INT, Signal::TERM] {
        let mut running = slow_init(&work, &mirror, &primary)?;
        assert_eq!(slots(&primary)?, "gp_walreceiver|t");
        running.signal(signal)?;
        running
            .wait(SHORT)?
            .expect_failure(130, &["rollback", "interrupted"])?;
        assert_eq!(left_in(&work)?, Vec::<String>::new());
        assert_eq!(slots(&primary)?, "", "the slot is gone");
    }
    Ok(())
}

#[test]
fn a_killed_primary_leaves_nothing_here_and_the_slot_is_named() -> Result<()> {
    let mut primary = primary()?;
    let work = Workdir::new()?;
    let running = slow_init(&work, &work.join("mirror"), &primary)?;
    primary.kill_9()?;
    let texts = [
        "closed the connection",
        "pg_drop_replication_slot('gp_walreceiver')",
    ];
    running.wait(LONG)?.expect_failure(3, &texts)?;
    assert_eq!(left_in(&work)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_killed_init_is_named_by_the_next_one_which_takes_its_slot() -> Result<()> {
    let primary = primary()?;
    let work = Workdir::new()?;
    let mirror = work.join("mirror");
    slow_init(&work, &mirror, &primary)?.kill_9()?;
    let next = init(&work, &mirror, &primary.conninfo(), &[])?.run(LONG)?;
    next.expect_failure(10, &["holds an unfinished init", "mirror\""])?;
    ensure!(
        mirror.join("base").exists(),
        "what another init made is left alone"
    );

    fs::remove_dir_all(&mirror)?;
    wait_for("the slot to be free", SHORT, || {
        Ok(slots(&primary)? == "gp_walreceiver|f")
    })?;
    let finished = init(&work, &mirror, &primary.conninfo(), &[])?.succeed(LONG)?;
    ensure!(
        finished.stderr.contains("which exists already"),
        "{finished}"
    );
    ensure!(
        finished
            .stdout
            .contains("Successfully created standby coordinator on "),
        "{finished}"
    );
    verify_backup(&primary, &mirror)
}

#[test]
fn a_slot_of_somebody_else_stays() -> Result<()> {
    let primary = primary()?;
    let work = Workdir::new()?;
    let receiving = work.make_dir("received")?;
    primary.query("SELECT pg_create_physical_replication_slot('taken')")?;
    let mut command = primary.command("pg_receivewal");
    command
        .args(["-S", "taken", "-d", &primary.conninfo(), "-D"])
        .arg(&receiving);
    let mut other = command.spawn()?;
    let result = (|| {
        wait_for("the slot to be in use", SHORT, || {
            Ok(slots(&primary)? == "taken|t")
        })?;
        let failed = init(
            &work,
            &work.join("mirror"),
            &primary.conninfo(),
            &["-S", "taken"],
        )?
        .run(LONG)?;
        failed.expect_failure(5, &["\"taken\" is active"])
    })();
    other.kill()?;
    other.wait()?;
    result?;
    wait_for("the slot to be free", SHORT, || {
        Ok(slots(&primary)? == "taken|f")
    })?;
    assert!(!work.join("mirror").exists());
    Ok(())
}

#[test]
fn occupied_directories_are_refused_by_what_they_are() -> Result<()> {
    let primary = primary()?;
    let work = Workdir::new()?;
    let refused = |target: &Path, texts: &[&str]| -> Result<()> {
        init(&work, target, &primary.conninfo(), &[])?
            .run(LONG)?
            .expect_failure(10, texts)
    };
    refused(
        primary.data_dir(),
        &[
            "is the data directory of this same system",
            "a server may be running",
        ],
    )?;
    let something = work.make_dir("something")?;
    fs::write(something.join("file"), b"mine")?;
    refused(&something, &["is not empty (it has \"file\")"])?;
    assert_eq!(fs::read(something.join("file"))?, b"mine");
    let mirror = work.join("mirror");
    init(&work, &mirror, &primary.conninfo(), &["--no-slot"])?.succeed(LONG)?;
    refused(&mirror, &["is already a mirror of this same system"])?;
    assert_eq!(slots(&primary)?, "");
    let other = walstream_tests::ClusterOptions::default()
        .own_system()
        .start()?;
    let failed = init(&work, &mirror, &other.conninfo(), &[])?.run(LONG)?;
    let system = format!(
        "a mirror of another system ({})",
        primary.system_identifier()?
    );
    failed.expect_failure(10, &[&system])
}

#[test]
fn a_tablespace_needs_a_place_of_its_own() -> Result<()> {
    let primary = primary()?;
    let work = Workdir::new()?;
    let old = work.make_dir("old")?;
    primary.query(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        old.display()
    ))?;
    let mirror = work.join("mirror");
    // Not mapped, it would go into the primary's own directory on this machine.
    let failed = init(&work, &mirror, &primary.conninfo(), &[])?.run(LONG)?;
    failed.expect_failure(10, &["old\" is not empty"])?;
    let inside = format!("{}={}", old.display(), mirror.join("inside").display());
    let failed = init(&work, &mirror, &primary.conninfo(), &["-T", &inside])?.run(LONG)?;
    failed.expect_failure(2, &["overlaps with"])?;
    assert_eq!(left_in(&work)?, ["old"]);
    assert_eq!(slots(&primary)?, "");
    Ok(())
}

#[test]
fn refusals_of_the_server_have_their_codes() -> Result<()> {
    let primary = primary()?;
    let work = Workdir::new()?;
    let mirror = work.join("mirror");
    let wrong = format!(
        "host=127.0.0.1 port={} user=postgres password=wrong",
        primary.port()
    );
    init(&work, &mirror, &wrong, &[])?
        .run(LONG)?
        .expect_failure(4, &["password authentication failed"])?;
    primary.query("CREATE ROLE plain LOGIN")?;
    let plain = primary.conninfo().replace("user=postgres", "user=plain");
    init(&work, &mirror, &plain, &[])?
        .run(LONG)?
        .expect_failure(4, &["must be superuser or replication role"])?;
    let nobody = "host=127.0.0.1 port=1 user=postgres connect_timeout=5";
    init(&work, &mirror, nobody, &[])?
        .run(LONG)?
        .expect_failure(3, &["could not connect"])?;
    assert!(!mirror.exists());
    Ok(())
}

#[test]
fn a_user_with_the_replication_right_alone_is_enough() -> Result<()> {
    let primary = primary()?;
    primary.query("CREATE ROLE replicator LOGIN REPLICATION")?;
    let work = Workdir::new()?;
    let conninfo = primary
        .conninfo()
        .replace("user=postgres", "user=replicator");
    init(&work, &work.join("mirror"), &conninfo, &[])?.succeed(LONG)?;
    Ok(())
}

#[test]
fn without_a_terminal_nothing_is_done_unasked() -> Result<()> {
    let primary = primary()?;
    let work = Workdir::new()?;
    let program =
        work.program("walreceiver")?
            .args(["init", "--primary", &primary.conninfo(), "-D"]);
    let failed = program.arg(work.join("mirror")).stdin("y\n").run(LONG)?;
    let texts = [
        "Standby coordinator initialization parameters",
        "Standby data directory",
        "use -y",
    ];
    failed.expect_failure(10, &texts)?;
    assert_eq!(slots(&primary)?, "");
    Ok(())
}

#[test]
fn bytes_damaged_on_the_way_are_found_wherever_they_are() -> Result<()> {
    let primary = primary()?;
    primary
        .query("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")?;
    let work = Workdir::new()?;
    let proxy = CutProxy::start(primary.port())?;
    let conninfo = format!(
        "host=127.0.0.1 port={} user=postgres password={}",
        proxy.port(),
        primary.password()
    );
    let mut found_by_manifest = 0;
    for megabytes in [4, 9, 17, 30] {
        proxy.flip_after(megabytes << 20, 0x20);
        let failed = init(&work, &work.join("mirror"), &conninfo, &["--json"])?.run(LONG)?;
        assert!(!proxy.flip_pending(), "the byte has passed");
        failed.expect_failure(7, &[])?;
        let report = failed.json()?;
        assert_eq!(
            (&report["status"], &report["exit_code"]),
            (&"failed".into(), &7.into())
        );
        found_by_manifest += u32::from(failed.stderr.contains("differ from the backup manifest"));
        assert_eq!(left_in(&work)?, Vec::<String>::new());
    }
    // The others hit a header of an archive or a message.
    ensure!(found_by_manifest >= 2, "{found_by_manifest} of 4");
    assert_eq!(slots(&primary)?, "");
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_made_is_local_trouble() -> Result<()> {
    let primary = primary()?;
    let work = Workdir::new()?;
    let failed = init(&work, Path::new("/proc/mirror"), &primary.conninfo(), &[])?.run(LONG)?;
    failed.expect_failure(8, &["cannot create the directory \"/proc/mirror\""])?;
    assert_eq!(slots(&primary)?, "");
    Ok(())
}
