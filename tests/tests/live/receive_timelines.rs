//! `receive` through promotions, beside PostgreSQL's own: the same messages, the same files with the same content.

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, Finished, LONG, Receivewal, Running, SHORT, Signal, StopMode,
    ensure_same_output, wait_for,
};

use crate::receive_archive::{content, ensure_servers_own};

fn primary() -> Result<Cluster> {
    let primary = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .initdb_option("--wal-segsize=1")
        .start()?;
    primary.query("CREATE TABLE t (i int, p text)")?;
    Ok(primary)
}

fn load(server: &Cluster) -> Result<()> {
    server.query(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 1500) i",
    )?;
    Ok(())
}

fn started_standby(of: &Cluster) -> Result<Cluster> {
    let mut standby = of.standby(&[("wal_keep_size", "1GB")])?;
    standby.start()?;
    Ok(standby)
}

fn wait_for_replay(standby: &Cluster, lsn: Lsn) -> Result<()> {
    wait_for(&format!("replay of {lsn}"), LONG, || {
        Ok(standby.current_lsn()? >= lsn)
    })
}

/// Both archives have the same files, and these hold the same.
fn ensure_same_archives(ours: &Receivewal, theirs: &Receivewal) -> Result<()> {
    assert_eq!(ours.files()?, theirs.files()?);
    for name in ours.files()? {
        let [our, their] = [ours, theirs].map(|side| content(&side.archive().join(&name)));
        ensure!(our? == their?, "{name} differs");
    }
    Ok(())
}

/// An interrupt at a quiet moment ends both alike.
fn end(side: &Receivewal, mut running: Running, at: Lsn) -> Result<Finished> {
    wait_for("the last of it", LONG, || Ok(held(side)? >= at))?;
    running.signal(Signal::INT)?;
    running.wait(SHORT)
}

/// Up to where the plain files of the newest timeline hold something.
fn held(side: &Receivewal) -> Result<Lsn> {
    let files = side.files()?;
    let Some(name) = files
        .iter()
        .rfind(|name| name.len() >= 24 && !name.ends_with(".history"))
    else {
        return Ok(Lsn::INVALID);
    };
    let number = u64::from_str_radix(name.get(16..24).unwrap_or_default(), 16)?;
    let bytes = std::fs::read(side.archive().join(name))?;
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last as u64 + 1);
    Ok(Lsn((number << 20) + end))
}

#[test]
fn a_promotion_while_it_streams() -> Result<()> {
    let mut primary = primary()?;
    let standby = started_standby(&primary)?;
    let (ours, theirs) = (Receivewal::ours()?, Receivewal::theirs(primary.programs())?);
    let conninfo = standby.conninfo();
    // From the same place.
    wait_for_replay(&standby, primary.flush_lsn()?)?;
    let mut running = Vec::new();
    for side in [&ours, &theirs] {
        running.push(
            side.command(["-D", "archive", "-v", "-d", &conninfo])
                .start()?,
        );
    }
    for one in &mut running {
        one.wait_for_output("starting log streaming", LONG)?;
    }
    wait_for("two streams", LONG, || {
        let count =
            standby.query("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")?;
        Ok(count == "2")
    })?;
    load(&primary)?;
    wait_for_replay(&standby, primary.flush_lsn()?)?;
    primary.stop(StopMode::Fast)?;
    standby.promote()?;
    for one in &mut running {
        one.wait_for_output("switched to timeline 2 at", LONG)?;
    }
    load(&standby)?;
    let last = Lsn(standby.flush_lsn()?.0 - 8);
    let mut ended = Vec::new();
    for (side, one) in [&ours, &theirs].into_iter().zip(running) {
        ended.push(end(side, one, last)?);
    }
    ensure_same_output("promotion", (&ours, &ended[0]), (&theirs, &ended[1]))?;
    ensure_same_archives(&ours, &theirs)?;
    ensure!(
        ours.files()?.contains(&"00000002.history".to_owned()),
        "{:?}",
        ours.files()?
    );
    // What is on timeline 2 is the new server's.
    let complete: Vec<String> = ours
        .files()?
        .into_iter()
        .filter(|name| name.starts_with("00000002") && name.len() == 24)
        .collect();
    ensure!(!complete.is_empty(), "{:?}", ours.files()?);
    for name in complete {
        ensure!(
            standby.wal_file(&name)? == content(&ours.archive().join(&name))?,
            "{name} differs"
        );
    }
    Ok(())
}

#[test]
fn a_promotion_that_it_slept_through() -> Result<()> {
    for kind in ["none", "gzip:1", "lz4"] {
        let mut primary = primary()?;
        let standby = started_standby(&primary)?;
        let (ours, theirs) = (Receivewal::ours()?, Receivewal::theirs(primary.programs())?);
        // Inside a segment, so that they hold something of it.
        primary.query("SELECT pg_switch_wal()")?;
        primary.query("INSERT INTO t VALUES (0)")?;
        let first = Lsn(primary.flush_lsn()?.0 - 1).to_string();
        let conninfo = primary.conninfo();
        for side in [&ours, &theirs] {
            side.command([
                "-D", "archive", "-Z", kind, "-n", "-d", &conninfo, "-E", &first,
            ])
            .succeed(LONG)?;
        }
        // They lack this of the old timeline, and must have it before the new one.
        load(&primary)?;
        wait_for_replay(&standby, primary.flush_lsn()?)?;
        primary.stop(StopMode::Fast)?;
        standby.promote()?;
        load(&standby)?;
        let last = Lsn(standby.flush_lsn()?.0 - 1).to_string();
        let conninfo = standby.conninfo();
        let run = |side: &Receivewal| {
            side.command([
                "-D", "archive", "-Z", kind, "-nv", "-d", &conninfo, "-E", &last,
            ])
            .succeed(LONG)
        };
        let (our, their) = (run(&ours)?, run(&theirs)?);
        ensure_same_output(kind, (&ours, &our), (&theirs, &their))?;
        ensure!(our.stderr.contains("switched to timeline 2 at"), "{our}");
        ensure_same_archives(&ours, &theirs)?;
        let old = |name: &&String| name.starts_with("00000001") && !name.ends_with(".partial");
        ensure!(
            ours.files()?.iter().filter(old).count() > 0,
            "{:?}",
            ours.files()?
        );
    }
    Ok(())
}

#[test]
fn the_history_of_every_ancestor_is_kept() -> Result<()> {
    let mut primary = primary()?;
    let mut second = started_standby(&primary)?;
    wait_for_replay(&second, primary.flush_lsn()?)?;
    let third = started_standby(&second)?;
    primary.stop(StopMode::Fast)?;
    second.promote()?;
    load(&second)?;
    wait_for_replay(&third, second.flush_lsn()?)?;
    second.stop(StopMode::Fast)?;
    third.promote()?;
    let ours = Receivewal::ours()?;
    let end = Lsn(third.flush_lsn()?.0 - 1).to_string();
    let conninfo = third.conninfo();
    ours.command(["-D", "archive", "-n", "-d", &conninfo, "-E", &end])
        .succeed(LONG)?;
    for timeline in [2, 3] {
        let name = format!("{timeline:08X}.history");
        let kept = std::fs::read(ours.archive().join(&name)).with_context(|| name.clone())?;
        assert_eq!(kept, third.wal_file(&name)?, "{name}");
    }
    ensure_servers_own(&ours, &third)?;
    // A start on an older timeline goes through all of them.
    let from_first = Receivewal::ours()?;
    let start = from_first
        .archive()
        .join("000000010000000000000002.partial");
    std::fs::write(&start, "")?;
    from_first.workdir().own(&start)?;
    let told = from_first
        .command(["-D", "archive", "-nv", "-d", &conninfo, "-E", &end])
        .run(LONG)?;
    if told.code() == Some(0) {
        for timeline in [2, 3] {
            ensure!(
                told.stderr
                    .contains(&format!("switched to timeline {timeline} at")),
                "{told}"
            );
        }
    } else {
        // The server may have begun behind that segment.
        ensure!(told.stderr.contains("has already been removed"), "{told}");
    }
    Ok(())
}
