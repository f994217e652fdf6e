//! `receive` and a server, or a network, that is not as it should be.

use anyhow::{Result, ensure};
use walstream::{Lsn, SegmentSize};
use walstream_tests::{
    ClusterOptions, FakePrimary, LONG, Receivewal, RecordedWal, Recording, SHORT, Signal, StopMode,
    end_in_order, ensure_same_lines, ensure_same_output, wait_for,
};

use crate::receive_archive::ensure_servers_own;

pub(crate) const SEGMENT: u64 = 1 << 20;
const SIZE: SegmentSize = SegmentSize::MIN;

/// The recording with all that `receive` asks of a server.
pub(crate) fn served(recording: &Recording) -> RecordedWal {
    let mut wal = recording.wal.clone();
    for (name, value) in [("data_directory_mode", "0700"), ("wal_block_size", "8192")] {
        wal.system
            .settings
            .insert(name.to_owned(), value.to_owned());
    }
    wal
}

/// An archive that begins in the segment of this position.
pub(crate) fn archive_from(lsn: Lsn) -> Result<Receivewal> {
    let ours = Receivewal::ours()?;
    let first = ours
        .archive()
        .join(format!("00000001{:016X}.partial", lsn.0 / SEGMENT));
    std::fs::write(&first, "")?;
    ours.workdir().own(&first)?;
    Ok(ours)
}

/// What the archive holds from this position's segment on, complete segments and the partial one.
pub(crate) fn held(ours: &Receivewal, from: Lsn) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for number in from.0 / SEGMENT.. {
        let name = format!("00000001{number:016X}");
        match std::fs::read(ours.archive().join(&name)) {
            Ok(bytes) => all.extend(bytes),
            Err(_) => {
                all.extend(
                    std::fs::read(ours.archive().join(name + ".partial")).unwrap_or_default(),
                );
                return Ok(all);
            }
        }
    }
    Ok(all)
}

#[test]
fn wal_that_is_damaged_on_its_way_is_not_archived_and_asked_for_again() -> Result<()> {
    let recording = Recording::new()?;
    let wal = served(&recording);
    let start = Lsn(recording.held.0 & !(SEGMENT - 1));
    let at = recording.held + 400_003;
    let ours = archive_from(start)?;
    let sent = wal.clone();
    let fake = FakePrimary::start(move |number, peer| {
        let from = sent.begin(peer)?;
        if number > 0 {
            sent.send(peer, from..sent.end())?;
            return end_in_order(peer);
        }
        let mut bytes = sent.slice(from..sent.end())?.to_vec();
        if let Some(byte) = bytes.get_mut(usize::try_from(at.0 - from.0)?) {
            *byte ^= 0x10;
        }
        let mut lsn = from;
        for piece in bytes.chunks(100_000) {
            peer.xlog_data(lsn, sent.end(), piece)?;
            lsn = lsn + u64::try_from(piece.len())?;
        }
        end_in_order(peer)
    })?;
    let mut running = ours
        .command(["-D", "archive", "-v", "-d", &fake.conninfo()])
        .start()?;
    running.wait_for_output("received WAL is damaged: WAL", LONG)?;
    running.wait_for_output("disconnected; waiting 5 seconds to try again", LONG)?;
    // Nothing of the damaged message, nor behind it, was written.
    let end = usize::try_from(at.0 - start.0)?;
    let kept = held(&ours, start)?;
    let written = kept.iter().rposition(|byte| *byte != 0).unwrap_or_default();
    ensure!(
        written < end,
        "{written} bytes are there, the damage is at {end}"
    );
    let expected = wal.slice(start..wal.end())?.to_vec();
    wait_for("all of it", LONG, || {
        ensure!(running.is_running()?, "{}", running.stderr());
        Ok(held(&ours, start)?.get(..expected.len()) == Some(&expected))
    })?;
    let stopped = running.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    Ok(())
}

/// A server that says its WAL ends further on is not believed: acknowledged is what came.
#[test]
fn acknowledges_what_was_received_and_each_position_for_itself() -> Result<()> {
    let recording = Recording::new()?;
    let wal = served(&recording);
    let start = Lsn(recording.held.0 & !(SEGMENT - 1));
    let middle = start + 300_000;
    for (arguments, reports_flush) in [(&[][..], false), (&["--synchronous"], true)] {
        let ours = archive_from(start)?;
        let sent = wal.clone();
        let fake = FakePrimary::start(move |_, peer| {
            let from = sent.begin(peer)?;
            ensure!(from == start, "asked from {from}");
            sent.send(peer, from..middle)?;
            // Far behind what was sent.
            peer.keepalive(sent.end() + (1 << 30), true)?;
            let mut last = [Lsn::INVALID; 3];
            for _ in 0..50 {
                last = peer.read_status_update()?;
                let [write, flush, apply] = last;
                ensure!(write <= middle && flush <= write, "{last:?}");
                ensure!(apply == Lsn::INVALID, "nothing is applied: {last:?}");
                ensure!(reports_flush || flush == Lsn::INVALID, "{last:?}");
                if write == middle && (flush == middle || !reports_flush) {
                    break;
                }
                peer.keepalive(sent.end() + (1 << 30), true)?;
            }
            ensure!(last[0] == middle, "{last:?}");
            Ok(())
        })?;
        let conninfo = fake.conninfo();
        let base = ["-D", "archive", "-n", "-s", "1", "-d", &conninfo];
        let ended = ours.command([&base[..], arguments].concat()).run(LONG)?;
        ensure!(fake.errors().is_empty(), "{:?}; {ended}", fake.errors());
        assert_eq!(ended.code(), Some(1), "{ended}");
    }
    Ok(())
}

#[test]
fn another_system_is_refused() -> Result<()> {
    let first = ClusterOptions::default().start()?;
    let second = ClusterOptions::default().own_system().start()?;
    let ours = Receivewal::ours()?;
    let end = Lsn(first.flush_lsn()?.0 - 1).to_string();
    let conninfo = first.conninfo();
    ours.command(["-D", "archive", "-n", "-d", &conninfo, "-E", &end])
        .succeed(LONG)?;
    let before = ours.files()?;
    // Without --no-loop: this does not pass by itself.
    let refused = ours
        .command(["-D", "archive", "-d", &second.conninfo()])
        .run(SHORT)?;
    refused.expect_failure(
        1,
        &[
            "system identifier is",
            &second.system_identifier()?.to_string(),
        ],
    )?;
    assert_eq!(ours.files()?, before);
    let refused = ours
        .own_name(["-D", "archive", "-d", &second.conninfo()])?
        .run(SHORT)?;
    refused.expect_failure(6, &["system identifier is"])?;
    Ok(())
}

/// WAL that the server has removed, and a start behind the server's end: tried, and told in the server's words, as by
/// PostgreSQL's own.
#[test]
fn starts_that_the_server_refuses() -> Result<()> {
    let cluster = ClusterOptions::default()
        .initdb_option("--wal-segsize=1")
        .set("max_wal_size", "2MB")
        .set("min_wal_size", "2MB")
        .start()?;
    let first = cluster.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    wait_for("removed WAL", LONG, || {
        cluster.query("CREATE TABLE x AS SELECT generate_series(1, 20000); DROP TABLE x")?;
        cluster.query("CHECKPOINT")?;
        Ok(cluster.wal_file(&first).is_err())
    })?;
    let (ours, theirs) = (Receivewal::ours()?, Receivewal::theirs(cluster.programs())?);
    let conninfo = cluster.conninfo();
    for (name, words) in [
        (format!("{first}.partial"), "has already been removed"),
        (
            "00000001000000100000000A.partial".to_owned(),
            "is ahead of the WAL flush position of this server",
        ),
    ] {
        let mut ended = Vec::new();
        for side in [&ours, &theirs] {
            side.clear()?;
            let path = side.archive().join(&name);
            std::fs::write(&path, "")?;
            side.workdir().own(&path)?;
            ended.push(
                side.command(["-D", "archive", "-nv", "-d", &conninfo])
                    .run(SHORT)?,
            );
        }
        ensure_same_output(&name, (&ours, &ended[0]), (&theirs, &ended[1]))?;
        ended[0].expect_failure(1, &["ERROR:  requested ", words])?;
    }
    // The same of a timeline that the server does not have.
    let mut ended = Vec::new();
    for side in [&ours, &theirs] {
        side.clear()?;
        let path = side.archive().join("000000070000000000000005.partial");
        std::fs::write(&path, "")?;
        side.workdir().own(&path)?;
        ended.push(
            side.command(["-D", "archive", "-nv", "-d", &conninfo])
                .run(SHORT)?,
        );
    }
    ensure_same_output("timeline", (&ours, &ended[0]), (&theirs, &ended[1]))?;
    Ok(())
}

/// A slot whose position is above the archive's end does not move the start: that would leave a gap. What the slot does not
/// keep any more may still be there; when it is not, the server's error says so.
#[test]
fn a_slot_above_the_end_of_the_archive() -> Result<()> {
    let mut cluster = ClusterOptions::default()
        .initdb_option("--wal-segsize=1")
        .set("wal_keep_size", "1GB")
        .set("max_wal_size", "2MB")
        .set("min_wal_size", "2MB")
        .start()?;
    cluster.query("SELECT pg_create_physical_replication_slot('archive', true)")?;
    let (ours, theirs) = (Receivewal::ours()?, Receivewal::theirs(cluster.programs())?);
    let conninfo = cluster.conninfo();
    let receive = |side: &Receivewal, more: &[&str]| {
        let base = ["-D", "archive", "-nv", "-S", "archive", "-d", &conninfo];
        side.command([&base[..], more].concat())
    };
    let end = || -> Result<String> { Ok(Lsn(cluster.flush_lsn()?.0 - 1).to_string()) };
    let write =
        || cluster.query("CREATE TABLE x AS SELECT generate_series(1, 20000); DROP TABLE x");
    let pass_the_archives = || -> Result<()> {
        write()?;
        cluster
            .query("SELECT pg_replication_slot_advance('archive', pg_current_wal_flush_lsn())")?;
        write()?;
        Ok(())
    };
    let first_end = end()?;
    for side in [&ours, &theirs] {
        receive(side, &["-E", &first_end]).succeed(LONG)?;
    }
    pass_the_archives()?;
    let local_end = held_end(&ours)?;
    assert_eq!(local_end, held_end(&theirs)?);
    let slot = "SELECT restart_lsn FROM pg_replication_slots";
    ensure!(cluster.lsn(slot)? > local_end, "not above {local_end}");
    let last_end = end()?;
    let mut ended = Vec::new();
    for side in [&ours, &theirs] {
        ended.push(receive(side, &["-E", &last_end]).succeed(LONG)?);
    }
    ensure_same_output("still there", (&ours, &ended[0]), (&theirs, &ended[1]))?;
    let start = format!(
        "starting log streaming at {} ",
        local_end.segment_start(SIZE)
    );
    ensure!(ended[0].stderr.contains(&start), "{start}: {}", ended[0]);
    assert_eq!(ours.files()?, theirs.files()?);
    let complete = ensure_servers_own(&ours, &cluster)?;
    ensure!(complete.len() > 1, "{complete:?}");

    // Now without what lies between.
    pass_the_archives()?;
    let files = ours.files()?;
    let next = files.last().and_then(|name| name.get(..24));
    let next = next.unwrap_or_default().to_owned();
    cluster.alter_system("wal_keep_size", "0")?;
    wait_for("removed WAL", LONG, || {
        cluster.query("CREATE TABLE x AS SELECT generate_series(1, 20000); DROP TABLE x")?;
        cluster
            .query("SELECT pg_replication_slot_advance('archive', pg_current_wal_flush_lsn())")?;
        cluster.query("CHECKPOINT")?;
        Ok(cluster.wal_file(&next).is_err())
    })?;
    let mut ended = Vec::new();
    for side in [&ours, &theirs] {
        ended.push(receive(side, &[]).run(SHORT)?);
    }
    ensure_same_output("removed", (&ours, &ended[0]), (&theirs, &ended[1]))?;
    let words = format!("requested WAL segment {next} has already been removed");
    ended[0].expect_failure(1, &[&words, "disconnected"])?;
    let refused = ours
        .own_name(["-D", "archive", "-n", "-S", "archive", "-d", &conninfo])?
        .run(SHORT)?;
    refused.expect_failure(5, &[&words])?;
    assert_eq!(ours.files()?, files, "nothing was begun behind the gap");
    Ok(())
}

/// Where the last segment of an archive of plain files ends. A history file may stand behind it.
fn held_end(archive: &Receivewal) -> Result<Lsn> {
    let files = archive.files()?;
    let last = files.iter().rfind(|name| !name.contains(".history"));
    let last = last.map_or("", String::as_str);
    let number = u64::from_str_radix(last.get(16..24).unwrap_or_default(), 16)?;
    let bytes = std::fs::read(archive.archive().join(last))?;
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap_or_default();
    Ok(Lsn(number * SEGMENT + end as u64))
}

/// A primary that comes back as the standby of another: it goes on with it, onto the new timeline, as PostgreSQL's own
/// does.
#[test]
fn an_upstream_that_became_a_standby() -> Result<()> {
    let mut old = ClusterOptions::default()
        .initdb_option("--wal-segsize=1")
        .set("wal_keep_size", "1GB")
        .start()?;
    let mut new = old.standby(&[("wal_keep_size", "1GB")])?;
    new.start()?;
    let (ours, theirs) = (Receivewal::ours()?, Receivewal::theirs(old.programs())?);
    let conninfo = old.conninfo();
    let mut running = Vec::new();
    for side in [&ours, &theirs] {
        running.push(
            side.command(["-D", "archive", "-v", "-d", &conninfo])
                .start()?,
        );
    }
    wait_for("two streams and a standby", LONG, || {
        let count =
            old.query("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")?;
        Ok(count == "3")
    })?;
    old.query("CREATE TABLE t AS SELECT generate_series(1, 20000)")?;
    // A stop in order waits until the standby has all of it.
    old.stop(StopMode::Fast)?;
    new.promote()?;
    old.configure(&[
        ("primary_conninfo", &new.conninfo()),
        ("recovery_target_timeline", "latest"),
    ])?;
    old.write_file(&old.data_dir().join("standby.signal"), "")?;
    for one in &mut running {
        one.wait_for_output("replication stream was terminated before stop point", LONG)?;
    }
    old.start()?;
    new.query("CREATE TABLE u AS SELECT generate_series(1, 60000)")?;
    let last = new.flush_lsn()?;
    for (side, one) in [&ours, &theirs].into_iter().zip(&mut running) {
        one.wait_for_output("switched to timeline 2 at", LONG)?;
        wait_for("the last of it", LONG, || Ok(held_end(side)? + 8 >= last))?;
    }
    let mut ended = Vec::new();
    for one in running {
        // Which PostgreSQL's own of 15 takes for what it is only as SIGINT.
        let mut one = one;
        one.signal(Signal::INT)?;
        ended.push(one.wait(SHORT)?);
    }
    for one in &ended {
        assert_eq!(one.code(), Some(0), "{one}");
    }
    assert_eq!(ours.files()?, theirs.files()?);
    for name in ours.files()? {
        let [our, their] = [&ours, &theirs].map(|side| std::fs::read(side.archive().join(&name)));
        ensure!(our? == their?, "{name} differs");
    }
    let complete = ours
        .files()?
        .into_iter()
        .filter(|name| name.starts_with("00000002") && name.len() == 24);
    for name in complete {
        ensure!(
            new.wal_file(&name)? == std::fs::read(ours.archive().join(&name))?,
            "{name} differs"
        );
    }
    // The state of the upstream is said by the server, not guessed.
    ensure_same_lines(&steps(&ended[1].stderr), &steps(&ended[0].stderr))
}

/// The lines that do not depend on when a connection was tried.
fn steps(text: &str) -> String {
    let mut lines: Vec<&str> = text
        .lines()
        .filter(|line| {
            [
                "starting log",
                "switched to",
                "finished segment",
                "terminated before",
                "interrupt",
            ]
            .iter()
            .any(|part| line.contains(part))
        })
        .collect();
    lines.dedup();
    lines.join("\n")
}

/// Something that is no server, or falls silent, ends nothing for good: it says so and tries again.
#[test]
fn peers_that_are_no_servers() -> Result<()> {
    let fake = FakePrimary::start(|_, peer| peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"))?;
    let ours = Receivewal::ours()?;
    let ended = ours
        .command(["-D", "archive", "-n", "-d", &fake.conninfo()])
        .run(SHORT)?;
    ensure!(
        ended.code() == Some(1) && ended.stderr.contains("error: "),
        "{ended}"
    );
    let recording = Recording::new()?;
    let wal = served(&recording);
    let start = Lsn(recording.held.0 & !(SEGMENT - 1));
    let ours = archive_from(start)?;
    // A gap in the stream.
    let sent = wal.clone();
    let fake = FakePrimary::start(move |_, peer| {
        let from = sent.begin(peer)?;
        sent.send(peer, from..from + 8192)?;
        sent.send(peer, from + 16384..from + 24576)?;
        peer.stall();
        Ok(())
    })?;
    let ended = ours
        .command(["-D", "archive", "-n", "-d", &fake.conninfo()])
        .run(LONG)?;
    ended.expect_failure(1, &["has a gap", "disconnected"])?;
    let kept = held(&ours, start)?;
    ensure!(
        kept.iter().rposition(|byte| *byte != 0).unwrap_or_default() < 8192,
        "WAL behind the gap was archived"
    );
    Ok(())
}
