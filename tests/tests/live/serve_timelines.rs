//! `walsender serve --archive` over promotions: followers switch as they do behind PostgreSQL.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream_tests::{
    Cluster, LONG, Receivewal, SHORT, ServedArchive, Signal, StopMode, server_version, wait_for,
};

use crate::receive_archive::content;
use crate::serve_archive::{Filled, SEGMENT, begin_at, first_segment, load, primary};

/// An archive of two timelines, the server of the second one, where it ends and where it began.
fn promoted(compression: &str) -> Result<(Cluster, Filled, Lsn, Lsn)> {
    let mut primary = primary()?;
    let mut filled = Filled::start(&primary, compression)?;
    let mut standby = primary.standby(&[("wal_keep_size", "1GB")])?;
    standby.start()?;
    load(&primary)?;
    filled.end(&primary)?;
    wait_for("the standby's replay", LONG, || {
        Ok(standby.current_lsn()? >= primary.flush_lsn()?)
    })?;
    primary.stop(StopMode::Immediate)?;
    standby.promote()?;
    filled.go_on(&standby, compression)?;
    load(&standby)?;
    let end = filled.end(&standby)?;
    let switch = switch_point(&filled.archive)?;
    Ok((standby, filled, end, switch))
}

/// Where timeline 2 began. Its history is compressed as segments are.
fn switch_point(archive: &Receivewal) -> Result<Lsn> {
    let text = String::from_utf8(history(&archive.archive())?)?;
    let switch = text.split_whitespace().nth(1).context("a history")?;
    Ok(switch.parse()?)
}

fn history(directory: &Path) -> Result<Vec<u8>> {
    let names = walstream_tests::file_names(directory)?;
    let name = names
        .iter()
        .find(|name| name.starts_with("00000002.history"));
    content(&directory.join(name.context("no history")?))
}

/// Every file of the follower is, as far as WAL goes, the served one or a newer timeline's.
fn ensure_same_files(served: &Path, follower: &Receivewal, end: Lsn, switch: Lsn) -> Result<()> {
    let mut timelines = [0, 0];
    for name in follower.files()? {
        let path = follower.archive().join(&name);
        if name.contains(".history") {
            ensure!(history(served)? == history(&follower.archive())?);
            continue;
        }
        let timeline: usize = name.get(..8).context("a name")?.parse()?;
        let number = u64::from_str_radix(name.get(16..24).context("a name")?, 16)?;
        let until = if timeline == 1 { switch } else { end };
        let length = until.0.saturating_sub(number * SEGMENT).min(SEGMENT);
        let mut got = content(&path)?;
        got.truncate(usize::try_from(length)?);
        // The server of timeline 2 has the same bytes up to the switch point.
        let names = walstream_tests::file_names(served)?;
        let segment = name.get(8..24).context("a name")?;
        let found = names.iter().any(|other| {
            other.get(8..24) == Some(segment)
                && content(&served.join(other)).is_ok_and(|wal| wal.starts_with(&got))
        });
        ensure!(found && got.len() as u64 == length, "{name} differs");
        if let Some(count) = timelines.get_mut(timeline - 1) {
            *count += 1;
        }
    }
    ensure!(timelines.iter().all(|count| *count > 0), "{timelines:?}");
    Ok(())
}

#[test]
fn followers_switch_to_the_new_timeline() -> Result<()> {
    for compression in ["none", "gzip"] {
        let (server, filled, end, switch) = promoted(compression)?;
        let served = filled.serve(&[])?;
        let last = Lsn(end.0 - 1).to_string();
        for side in [Receivewal::theirs(server.programs())?, Receivewal::ours()?] {
            begin_at(&side, &first_segment(&filled.archive)?)?;
            let told = side
                .command(["-D", "archive", "-nv", "-E", &last, "-d", served.conninfo()])
                .succeed(LONG)?;
            ensure!(
                told.stderr
                    .contains(&format!("switched to timeline 2 at {switch}")),
                "{told}"
            );
            ensure_same_files(&filled.archive.archive(), &side, end, switch)
                .with_context(|| format!("{compression}: {told}"))?;
        }
        // Without the old timeline's last file, the new one's holds what it held, as behind PostgreSQL.
        let archive = filled.archive.archive();
        let number = switch.0 / SEGMENT;
        let old = format!("{:08X}{:08X}{number:08X}", 1, 0);
        for name in filled.archive.files()? {
            if name.starts_with(&old) {
                std::fs::remove_file(archive.join(name))?;
            }
        }
        let side = Receivewal::theirs(server.programs())?;
        begin_at(&side, &first_segment(&filled.archive)?)?;
        side.command(["-D", "archive", "-nv", "-E", &last, "-d", served.conninfo()])
            .succeed(LONG)?;
        ensure_same_files(&archive, &side, end, switch)?;
    }
    Ok(())
}

/// What psql prints for a replication command.
pub(crate) fn ask(served: &ServedArchive, filled: &Filled, command: &str) -> Result<String> {
    let psql = server_version(15)?.client("psql");
    let conninfo = format!("{} dbname=postgres replication=true", served.conninfo());
    let finished = filled
        .archive
        .workdir()
        .external(&psql)
        .args(["-X", "-A", "-t", "-v", "VERBOSITY=verbose", "-d"])
        .args([&conninfo, "-c", command])
        .run(SHORT)?;
    let lines = finished.stdout.lines().chain(finished.stderr.lines());
    let lines: Vec<_> = lines
        .filter(|line| !line.starts_with("LOCATION:"))
        .collect();
    Ok(lines.join("\n"))
}

#[test]
fn commands_answer_as_the_server_does() -> Result<()> {
    let (server, filled, end, switch) = promoted("none")?;
    let served = filled.serve(&[])?;
    let system = server.system_identifier()?;
    let identity = ask(&served, &filled, "IDENTIFY_SYSTEM")?;
    ensure!(identity == format!("{system}|2|{end}|"), "{identity}");
    let theirs = |command: &str| -> Result<String> {
        let psql = server_version(15)?.client("psql");
        let conninfo = format!("{} dbname=postgres replication=true", server.conninfo());
        let finished = filled
            .archive
            .workdir()
            .external(&psql)
            .args(["-X", "-A", "-t", "-v", "VERBOSITY=verbose", "-d"])
            .args([&conninfo, "-c", command])
            .run(SHORT)?;
        let lines = finished.stdout.lines().chain(finished.stderr.lines());
        let lines: Vec<_> = lines
            .filter(|line| !line.starts_with("LOCATION:"))
            .collect();
        Ok(lines.join("\n"))
    };
    let beyond = Lsn(switch.0 + 8);
    let gone = Lsn(0);
    let ahead = Lsn(end.0 + (1 << 30));
    for command in [
        "SHOW wal_segment_size".to_owned(),
        "SHOW data_directory_mode".to_owned(),
        "TIMELINE_HISTORY 2".to_owned(),
        "TIMELINE_HISTORY 3".to_owned(),
        // The switch point itself: the next timeline, and no COPY.
        format!("START_REPLICATION PHYSICAL {switch} TIMELINE 1"),
        format!("START_REPLICATION PHYSICAL {beyond} TIMELINE 1"),
        format!("START_REPLICATION PHYSICAL {beyond} TIMELINE 3"),
        format!("START_REPLICATION SLOT absent PHYSICAL {switch} TIMELINE 2"),
    ] {
        let (ours, theirs) = (ask(&served, &filled, &command)?, theirs(&command)?);
        ensure!(ours == theirs, "{command}:\n{ours}\n{theirs}");
    }
    // psql does not show what follows a COPY that it cannot take part in; the messages are in raw answers.
    for (command, sqlstate, text) in [
        (
            format!("START_REPLICATION PHYSICAL {ahead}"),
            "XX000",
            format!(
                "requested starting point {ahead} is ahead of the WAL flush position of this server {end}"
            ),
        ),
        (
            format!("START_REPLICATION PHYSICAL {gone} TIMELINE 2"),
            "58P01",
            "requested WAL segment 000000020000000000000000 has already been removed".to_owned(),
        ),
        (
            format!("START_REPLICATION PHYSICAL {gone} TIMELINE 1"),
            "58P01",
            "requested WAL segment 000000010000000000000000 has already been removed".to_owned(),
        ),
    ] {
        let error = crate::sender_clients::refused(served.port()?, &command)?;
        ensure!(error.contains(sqlstate) && error.contains(&text), "{error}");
    }
    let backup = ask(&served, &filled, "BASE_BACKUP")?;
    ensure!(
        backup.contains("0A000") && backup.contains("This server has WAL only"),
        "{backup}"
    );
    Ok(())
}

#[test]
fn a_promotion_while_the_archive_is_served() -> Result<()> {
    let mut primary = primary()?;
    let mut filled = Filled::start(&primary, "none")?;
    let mut standby = primary.standby(&[("wal_keep_size", "1GB")])?;
    standby.start()?;
    load(&primary)?;
    let served = filled.serve(&[])?;
    let follower = Receivewal::theirs(primary.programs())?;
    begin_at(&follower, &first_segment(&filled.archive)?)?;
    let mut following = follower
        .command([
            "-D",
            "archive",
            "-v",
            "--synchronous",
            "-d",
            served.conninfo(),
        ])
        .start()?;
    following.wait_for_output("starting log streaming", LONG)?;
    load(&primary)?;
    filled.end(&primary)?;
    wait_for("the standby's replay", LONG, || {
        Ok(standby.current_lsn()? >= primary.flush_lsn()?)
    })?;
    primary.stop(StopMode::Immediate)?;
    standby.promote()?;
    filled.go_on(&standby, "none")?;
    following.wait_for_output("switched to timeline 2 at", LONG)?;
    load(&standby)?;
    let end = filled.end(&standby)?;
    let switch = switch_point(&filled.archive)?;
    wait_for("the follower's last bytes", LONG, || {
        let same = ensure_same_files(&filled.archive.archive(), &follower, end, switch);
        Ok(same.is_ok())
    })?;
    following.signal(Signal::INT)?;
    following.wait(SHORT)?;
    Ok(())
}
