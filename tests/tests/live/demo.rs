//! `walreceiver demo` in both its forms, and what it leaves behind: nothing, unless it is told to.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use walreceiver::demo::local_postgres::{Listen, LocalPostgres};
use walstream::Lsn;
use walstream_tests::{LONG, Program, SHORT, Signal, StopMode, Workdir, server_version, wait_for};

/// `walreceiver demo`, with all temporary files in a directory of their own.
fn demo(work: &Workdir, arguments: &[&str]) -> Result<Program> {
    let temporary = work.join("tmp");
    if !temporary.exists() {
        work.make_dir("tmp")?;
    }
    let program = work.program("walreceiver")?.env("TMPDIR", &temporary);
    Ok(program.arg("demo").args(arguments))
}

fn leftovers(work: &Workdir) -> Result<usize> {
    Ok(fs::read_dir(work.join("tmp"))?.count())
}

fn lsn(facts: &Value, name: &str) -> Result<Lsn> {
    Ok(facts[name]
        .as_str()
        .with_context(|| name.to_owned())?
        .parse()?)
}

/// What both forms promise.
fn check(facts: &Value) -> Result<()> {
    assert_eq!(facts["passed"], true, "{facts:#}");
    let (acknowledged, end) = (lsn(facts, "acknowledged_lsn")?, lsn(facts, "end_lsn")?);
    // The recording is acknowledged to the byte, also inside a record; its bytes are compared by the demo's own check.
    let is_whole = acknowledged <= end || facts["coordinator"] == "recorded";
    assert!(acknowledged.is_valid() && is_whole, "{facts:#}");
    let number = |name: &str| facts[name].as_u64().with_context(|| name.to_owned());
    let commits = number("acknowledged_commits")?;
    assert!(
        commits > 0 && commits == number("found_commits")?,
        "{facts:#}"
    );
    assert!(number("commits")? >= commits, "{facts:#}");
    assert!(number("records")? > number("commits")?, "{facts:#}");
    assert!(
        number("databases")? > 2 && number("relations")? > 10,
        "{facts:#}"
    );
    let checks = facts["checks"].as_array().context("checks")?;
    assert!(
        checks.len() >= 4 && checks.iter().all(|check| check["passed"] == true),
        "{facts:#}"
    );
    Ok(())
}

#[test]
fn needs_nothing_installed() -> Result<()> {
    let work = Workdir::new()?;
    let finished = demo(&work, &["--postgres", "none", "--json"])?
        .env("PATH", "/nonexistent")
        .succeed(LONG)?;
    let facts = finished.json()?;
    check(&facts)?;
    assert_eq!(facts["coordinator"], "recorded");
    assert_eq!(finished.stderr, "");
    assert_eq!(leftovers(&work)?, 0);
    Ok(())
}

#[test]
fn a_live_coordinator_loses_no_acknowledged_commit() -> Result<()> {
    let work = Workdir::new()?;
    let facts = demo(&work, &["--postgres", "auto", "--json"])?
        .succeed(LONG)?
        .json()?;
    check(&facts)?;
    assert_eq!(facts["coordinator"], "postgres");
    assert_eq!(
        (facts["timeline"].as_u64(), facts["new_timeline"].as_u64()),
        (Some(1), Some(2))
    );
    let names = facts["database_names"]
        .as_array()
        .context("database_names")?;
    assert!(names.contains(&Value::from("sales")), "{facts:#}");
    wait_for("nothing to be left", SHORT, || Ok(leftovers(&work)? == 0))
}

#[test]
fn a_person_sees_each_step_and_keeps_a_mirror_that_starts() -> Result<()> {
    let work = Workdir::new()?;
    let kept = work.join("kept");
    let finished = demo(&work, &["--postgres", "none", "--keep"])?
        .arg(&kept)
        .succeed(LONG)?;
    for text in [
        "1. A coordinator runs",
        "2. walreceiver init",
        "3. walreceiver run",
        "4. The coordinator is cut off",
        "5. walreceiver status",
        "Not Synchronized",
        "6. walreceiver activate",
        "What was kept",
        "Nothing that was acknowledged is lost.",
    ] {
        assert!(finished.stdout.contains(text), "{text}: {finished}");
    }
    assert_eq!(leftovers(&work)?, 0);
    demo(&work, &["--keep"])?
        .arg(&kept)
        .run(SHORT)?
        .expect_failure(10, &["is not empty"])?;

    let (mirror, programs) = (kept.join("mirror"), server_version(15)?);
    let mut server = LocalPostgres::on_directory(&programs, work.user(), Listen::Socket, &mirror)?;
    server.start()?;
    wait_for("the end of recovery", LONG, || {
        Ok(server
            .query("SELECT pg_is_in_recovery()")
            .is_ok_and(|answer| answer == "f"))
    })?;
    let tables = "SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relkind = 'r'";
    assert!(server.query_in("warehouse", tables)?.parse::<u32>()? > 0);
    server.stop(StopMode::Fast)?;
    Ok(())
}

#[test]
fn an_interrupt_removes_everything() -> Result<()> {
    let work = Workdir::new()?;
    for (choice, step) in [
        ("none", "3. walreceiver run"),
        ("auto", "commits acknowledged"),
    ] {
        let mut running = demo(&work, &["--postgres", choice])?.start()?;
        running.wait_for_output(step, LONG)?;
        assert!(leftovers(&work)? > 0, "it works in the temporary directory");
        running.signal(Signal::INT)?;
        let finished = running.wait(SHORT)?;
        assert_eq!(finished.code(), Some(130), "{finished}");
        wait_for("nothing to be left", SHORT, || Ok(leftovers(&work)? == 0))?;
    }
    Ok(())
}

#[test]
fn programs_that_are_asked_for_must_be_there() -> Result<()> {
    let work = Workdir::new()?;
    let missing = work.make_dir("bin")?;
    demo(&work, &["--postgres"])?
        .arg(&missing)
        .run(SHORT)?
        .expect_failure(2, &["there is no program postgres"])
}
