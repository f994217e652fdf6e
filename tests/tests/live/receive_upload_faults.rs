//! `receive --to` and a place that fails: a store that is down, hangs, refuses or holds something else.

use std::fs;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream_tests::{Cluster, ClusterOptions, LONG, Program, Running, SHORT, Signal, wait_for};

use crate::receive_archive::{content, ensure_servers_own};
use crate::receive_upload::{NAME, SEGMENT, Site, end, load, primary, received, streams};

#[test]
fn receiving_goes_on_while_the_store_is_down() -> Result<()> {
    let primary = primary()?;
    let mut site = Site::s3()?;
    let mut running = site.receive(&primary, &[])?.start()?;
    streams(&primary)?;
    site.store()?.stop();
    for _ in 0..3 {
        load(&primary)?;
    }
    received(&primary)?;
    running.wait_for_output("next try in", LONG)?;
    load(&primary)?;
    received(&primary)?;
    ensure!(running.is_running()?, "{}", running.stderr());
    let waiting = site.complete()?;
    ensure!(waiting.len() > 3, "{waiting:?}");
    running.wait_for_output("finished files wait in \"archive\", next try in", LONG)?;
    ensure!(
        running.stderr().contains(&format!(
            "could not look for {}/{}",
            site.location, waiting[0]
        )),
        "{}",
        running.stderr()
    );
    site.store()?.restart()?;
    running.wait_for_output(&format!("{} takes files again", site.location), LONG)?;
    wait_for("all files in the store", LONG, || {
        Ok(site.complete()?.is_empty())
    })?;
    let stopped = running.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    site.ensure_whole(&primary)?;
    ensure_servers_own(&site.ours, &primary)?;
    Ok(())
}

/// Starts a run, stops the store, and gives it something to wait with.
fn with_files_that_wait(primary: &Cluster, site: &mut Site, more: &[&str]) -> Result<Running> {
    let running = site.receive(primary, more)?.start()?;
    streams(primary)?;
    site.store()?.stop();
    load(primary)?;
    Ok(running)
}

#[test]
fn an_end_says_what_is_left_and_the_next_run_brings_it() -> Result<()> {
    let primary = primary()?;
    let mut site = Site::s3()?;
    let mut running = with_files_that_wait(&primary, &mut site, &[])?;
    received(&primary)?;
    running.signal(Signal::TERM)?;
    running.wait_for_output("interrupt to leave what is left for the next run", LONG)?;
    ensure!(running.is_running()?, "{}", running.stderr());
    running.signal(Signal::TERM)?;
    let stopped = running.wait(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    let left = site.complete()?;
    let text = format!(
        "{} finished files are not in {}, from \"{}\" on: they stay in \"archive\"",
        left.len(),
        site.location,
        left[0]
    );
    ensure!(stopped.stderr.contains(&text), "{text}: {stopped}");

    // While the store is not there, nobody knows where to begin.
    let end = end(&primary)?;
    let refused = site.receive(&primary, &["-E", &end])?.run(LONG)?;
    refused.expect_failure(
        1,
        &["could not find out which segments are in", &site.location],
    )?;
    assert_eq!(site.complete()?, left);

    site.store()?.restart()?;
    let ended = site.receive_all(&primary)?;
    let first = format!("stored \"{}/{}\"", site.location, left[0]);
    ensure!(ended.stderr.contains(&first), "{ended}");
    site.ensure_whole(&primary)?;

    // The end position is reached when all is there; else it is a failure.
    primary.query("INSERT INTO t VALUES (0)")?;
    let segments_on = Lsn(primary.flush_lsn()?.0 + SEGMENT).to_string();
    let mut running = with_files_that_wait(&primary, &mut site, &["-n", "-E", &segments_on])?;
    running.wait_for_output("interrupt to leave what is left for the next run", LONG)?;
    running.signal(Signal::INT)?;
    let stopped = running.wait(SHORT)?;
    stopped.expect_failure(1, &["not in", &site.location, "they stay in \"archive\""])?;
    site.store()?.restart()?;
    site.receive_all(&primary)?;
    site.ensure_whole(&primary)?;
    Ok(())
}

/// A store that takes connections and never answers keeps nobody: not at the start, and not at the end.
#[test]
fn a_store_that_hangs_keeps_nobody() -> Result<()> {
    let primary = primary()?;
    let mut site = Site::s3()?;
    let mut running = site.receive(&primary, &[])?.start()?;
    streams(&primary)?;
    site.store()?.stop();
    let hanging = site.store()?.listener()?;
    load(&primary)?;
    let connection = hanging.accept()?;
    received(&primary)?;
    ensure!(!site.complete()?.is_empty());
    running.signal(Signal::TERM)?;
    running.wait_for_output("interrupt to leave what is left for the next run", LONG)?;
    running.signal(Signal::TERM)?;
    let stopped = running.wait(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    ensure!(stopped.stderr.contains("not in s3://"), "{stopped}");
    drop(connection);

    let running = site.receive(&primary, &[])?.start()?;
    let connection = hanging.accept()?;
    let stopped = running.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    drop((connection, hanging));
    site.store()?.restart()?;
    site.receive_all(&primary)?;
    site.ensure_whole(&primary)?;
    Ok(())
}

#[test]
fn another_file_of_the_same_name_ends_it() -> Result<()> {
    let primary = primary()?;
    for site in [Site::directory()?, Site::s3()?] {
        site.receive_all(&primary)?;
        let mut running = site.receive(&primary, &[])?.start()?;
        running.wait_for_output("starting log streaming at", LONG)?;
        streams(&primary)?;
        let next = primary.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
        fs::create_dir_all(&site.place)?;
        let foreign = site.place.join(&next);
        fs::write(&foreign, vec![7; usize::try_from(SEGMENT)?])?;
        load(&primary)?;
        // By itself: nobody stops it.
        let ended = running.wait(LONG)?;
        ended.expect_failure(
            6,
            &[
                &format!("{next} exists already and is another file"),
                "nothing was overwritten",
            ],
        )?;
        ensure!(!ended.stderr.contains("interrupt signal"), "{ended}");
        ensure!(fs::read(&foreign)?.iter().all(|byte| *byte == 7));
        let kept = content(&site.ours.archive().join(&next))?;
        ensure!(kept == primary.wal_file(&next)?, "{next} differs");
        // Once it is out of the way, the next run goes on, and nothing is missing.
        fs::remove_file(&foreign)?;
        site.receive_all(&primary)?;
        site.ensure_whole(&primary)?;
    }
    Ok(())
}

/// Two standbys that were promoted from different places have a timeline 2 each; an archive holds one of them.
#[test]
fn another_timeline_of_the_same_number_is_refused() -> Result<()> {
    let primary = primary()?;
    let mut first = primary.standby(&[("wal_keep_size", "1GB")])?;
    let mut second = primary.standby(&[("wal_keep_size", "1GB")])?;
    first.start()?;
    second.start()?;
    first.promote()?;
    primary.query("INSERT INTO t VALUES (0)")?;
    let last = primary.flush_lsn()?;
    wait_for("replay", LONG, || Ok(second.current_lsn()? >= last))?;
    second.promote()?;
    let history = "00000002.history";
    ensure!(first.wal_file(history)? != second.wal_file(history)?);
    let site = Site::s3()?;
    site.receive_all(&first)?;
    load(&first)?;
    site.receive_all(&first)?;
    let stored = site.stored()?;
    ensure!(stored.contains(&history.to_owned()), "{stored:?}");
    load(&second)?;
    load(&second)?;
    // Without --no-loop: this does not pass by itself.
    let refused = site.receive(&second, &[])?.run(LONG)?;
    refused.expect_failure(6, &["history file of timeline 2", "another one"])?;
    assert_eq!(site.stored()?, stored);
    Ok(())
}

#[test]
fn places_that_cannot_be_used_are_refused_at_the_start() -> Result<()> {
    let primary = primary()?;
    let conninfo = primary.conninfo();
    let mut site = Site::s3()?;
    let run = |program: Program| program.run(LONG);
    let to = |location: &str| -> Result<Program> {
        let arguments = ["-D", "archive", "-d", &conninfo, "--to", location];
        Ok(site.known(site.ours.own_name(arguments)?))
    };
    let archive = site.ours.archive().display().to_string();
    let missing = site.ours.workdir().join("missing").display().to_string();
    for (location, code, texts) in [
        ("s3://other/x", 1, &["s3://other/x"][..]),
        ("ftp://h/x", 2, &["ftp:// is not known"]),
        ("az://container/x", 2, &["AZURE_*"]),
        (&archive, 2, &["--to names the directory of -D"]),
        ("archive", 2, &["--to names the directory of -D"]),
        (&missing, 8, &["create it first"]),
    ] {
        let refused = run(to(location)?)?;
        refused.expect_failure(code, texts)?;
        assert_eq!(site.ours.files()?, Vec::<String>::new(), "{location}");
    }
    let wrong_secret = to(&site.location)?.env("AWS_SECRET_ACCESS_KEY", "another");
    run(wrong_secret)?.expect_failure(1, &["could not find out", &site.location])?;
    let no_sync = site.receive(&primary, &["--no-sync"])?;
    run(no_sync)?.expect_failure(2, &["cannot use --to together with --no-sync"])?;
    // Called by the other name every failure is 1, and the option is there too.
    let other_name = ["-D", "archive", "-d", &conninfo, "--to", "archive"];
    let refused = site.ours.command(other_name).run(SHORT)?;
    refused.expect_failure(1, &["pg_receivewal: error: --to names the directory of -D"])?;

    // WAL of another system is there.
    load(&primary)?;
    site.receive_all(&primary)?;
    load(&primary)?;
    site.receive_all(&primary)?;
    let stored = site.stored()?;
    ensure!(!stored.is_empty());
    site.ours.clear()?;
    let other = ClusterOptions::default()
        .own_system()
        .initdb_option("--wal-segsize=1")
        .start()?;
    let refused = site.receive(&other, &[])?.run(LONG)?;
    refused.expect_failure(6, &["system identifier is", &site.location])?;
    assert_eq!(site.stored()?, stored);
    // The same of files that wait in the directory, though the store has none yet.
    let last = stored.last().context("none")?;
    let copy = site.ours.archive().join(last);
    fs::copy(site.place.join(last), &copy)?;
    site.ours.workdir().own(&copy)?;
    site.location = "s3://wal/empty".to_owned();
    site.place = site.store()?.bucket("wal").join("empty");
    let refused = site.receive(&other, &[])?.run(LONG)?;
    refused.expect_failure(6, &["system identifier is", last])?;
    ensure!(site.stored()?.is_empty(), "{:?}", site.stored()?);
    Ok(())
}

/// What a standby or slot is told is flushed is what this disk has, whether the store takes it or not.
#[test]
fn commits_do_not_wait_for_the_store() -> Result<()> {
    let mut primary = primary()?;
    let mut site = Site::s3()?;
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")?;
    let running = site
        .receive(&primary, &["--synchronous", "-S", "archive"])?
        .start()?;
    streams(&primary)?;
    site.store()?.stop();
    primary.alter_system("synchronous_standby_names", NAME)?;
    wait_for("the synchronous standby", SHORT, || {
        Ok(primary.standby_column(NAME, "sync_state")?.as_deref() == Some("sync"))
    })?;
    load(&primary)?;
    primary.wait_for_flush(NAME, primary.flush_lsn()?, SHORT)?;
    ensure!(!site.complete()?.is_empty());
    primary.alter_system("synchronous_standby_names", "")?;
    running.kill_9()?;
    site.store()?.restart()?;
    site.receive_all(&primary)?;
    site.ensure_whole(&primary)?;
    Ok(())
}
