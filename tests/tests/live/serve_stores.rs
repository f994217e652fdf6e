//! `walsender serve --archive s3://…` and `file://…`: `pg_receivewal` gets every byte that is in the store, compressed or not,
//! and what comes later; and an empty archive is refused.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use walstream_tests::{
    LONG, Receivewal, S3Server, SHORT, ServedArchive, Signal, Workdir, file_names, wait_for,
};

use crate::receive_archive::content;
use crate::serve_archive::{Filled, archived, begin_at, ensure_same_wal, first_segment, load};

/// `pg_receivewal` from the first segment to the end of what is served.
fn follow_to(served: &ServedArchive, filled: &Filled, end: walstream::Lsn) -> Result<Receivewal> {
    let side = Receivewal::theirs(&walstream_tests::server_version(15)?)?;
    begin_at(&side, &first_segment(&filled.archive)?)?;
    let last = walstream::Lsn(end.0 - 1).to_string();
    let arguments = ["-D", "archive", "-n", "-E", &last, "-d", served.conninfo()];
    side.command(arguments).succeed(LONG)?;
    Ok(side)
}

fn copy(from: &Path, names: &[String], to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for name in names {
        // A store shows whole objects.
        let temporary = to.with_extension("copied");
        fs::copy(from.join(name), &temporary)?;
        fs::rename(&temporary, to.join(name))?;
    }
    Ok(())
}

#[test]
fn what_is_in_an_s3_server_and_comes_later_is_served() -> Result<()> {
    for compression in ["none", "gzip"] {
        let (primary, mut filled, end) = archived(compression)?;
        let (work, store) = (Workdir::new()?, S3Server::start()?);
        let archive = filled.archive.archive();
        let bucket = store.bucket("wal").join("cluster/15");
        copy(&archive, &file_names(&archive)?, &bucket)?;
        let served = ServedArchive::start_in(&store, &work, "s3://wal/cluster/15", &[])?;
        let side = follow_to(&served, &filled, end)?;
        ensure_same_wal(&archive, &side.archive(), end).context(compression)?;

        // One that stays gets what is added.
        let staying = Receivewal::theirs(primary.programs())?;
        begin_at(&staying, &first_segment(&filled.archive)?)?;
        let following = staying.command(["-D", "archive", "-n", "-d", served.conninfo()]);
        let mut following = following.start()?;
        filled.go_on(&primary, compression)?;
        load(&primary)?;
        let end = filled.end(&primary)?;
        copy(&archive, &file_names(&archive)?, &bucket)?;
        let mut whole = file_names(&archive)?;
        whole.retain(|name| !name.ends_with(".partial"));
        // A record that goes on in the segment behind the last whole one is served when that is there, which is partial.
        let last = whole.last().context("no segment")?;
        let received = staying.archive().join(last.trim_end_matches(".gz"));
        wait_for("the last whole segment", LONG, || {
            anyhow::ensure!(following.is_running()?, "the follower has ended");
            Ok(received.exists())
        })?;
        following.signal(Signal::INT)?;
        following.wait(SHORT)?;
        for name in &whole {
            let got = fs::read(staying.archive().join(name.trim_end_matches(".gz")))?;
            anyhow::ensure!(got == content(&archive.join(name))?, "{name} differs");
        }
        let side = follow_to(&served, &filled, end)?;
        ensure_same_wal(&archive, &side.archive(), end).context(compression)?;
    }
    Ok(())
}

#[test]
fn a_url_of_a_directory_is_served_as_the_directory() -> Result<()> {
    let (_primary, filled, end) = archived("none")?;
    let archive = filled.archive.archive();
    let url = format!("file://{}", archive.display());
    let served = ServedArchive::start(filled.archive.workdir(), Path::new(&url), &[])?;
    let side = follow_to(&served, &filled, end)?;
    ensure_same_wal(&archive, &side.archive(), end)
}

#[test]
fn an_empty_archive_is_refused() -> Result<()> {
    let (work, store) = (Workdir::new()?, S3Server::start()?);
    let empty = work.make_dir("empty")?.display().to_string();
    for place in [&*empty, &format!("file://{empty}"), "s3://wal/nothing"] {
        let program = store.known_to(work.program("walsender")?);
        let refused = program
            .args(["serve", "--listen", "127.0.0.1:0", "--archive", place])
            .run(SHORT)?;
        refused.expect_failure(
            1,
            &[
                "holds no WAL segment that can be read (0 with a segment's name, 0 other files)",
                "begin with it when the first segment is there",
            ],
        )?;
    }
    let missing = work.program("walsender")?;
    let missing = missing.args(["serve", "--listen", "127.0.0.1:0", "--archive", "missing"]);
    missing.run(SHORT)?.expect_failure(1, &["missing"])?;
    let help = work.program("walsender")?.args(["serve", "--help"]);
    let help = help.succeed(SHORT)?.stdout;
    let words: Vec<_> = help.split_whitespace().collect();
    let text = words.join(" ");
    assert!(text.contains("an empty one is refused"), "{help}");
    Ok(())
}
