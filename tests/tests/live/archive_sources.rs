//! Archives that `pg_receivewal` and compression programs made are read back as what the server has.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use walsender::source::archive::{
    Archive, ArchiveOptions, ArchiveTimeline, SegmentSource, TimelineChoice,
};
use walstream::wal::segment_name::{Compression, SegmentName};
use walstream::{Lsn, TimelineId};
use walstream_tests::{Cluster, ClusterOptions, LONG, Running, SHORT, Workdir, wait_for};

fn server() -> Result<Cluster> {
    let server = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .initdb_option("--wal-segsize=1")
        .start()?;
    server.query("CREATE TABLE t (i int, padding text)")?;
    Ok(server)
}

/// Some segments of WAL, and the end of it.
fn load(server: &Cluster) -> Result<Lsn> {
    server.query(
        "INSERT INTO t SELECT i, md5(i::text) || repeat('x', 100) FROM generate_series(1, 12000) i",
    )?;
    server.query("SELECT pg_switch_wal()")?;
    server.query("INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 3000) i")?;
    server.flush_lsn()
}

/// A `pg_receivewal` that writes to `directory`, once it streams.
fn receive(work: &Workdir, server: &Cluster, directory: &Path, compress: &str) -> Result<Running> {
    let name = format!("to {compress}");
    let receiving = work
        .external(&server.programs().client("pg_receivewal"))
        .args(["--no-loop", "--no-sync", "-s", "1", "-Z", compress, "-d"])
        .arg(format!("{} application_name='{name}'", server.conninfo()))
        .arg("-D")
        .arg(directory)
        .start()?;
    wait_for(&name, SHORT, || {
        Ok(server.standby_column(&name, "state")?.as_deref() == Some("streaming"))
    })?;
    Ok(receiving)
}

fn wait_for_write(server: &Cluster, compress: &str, lsn: Lsn) -> Result<()> {
    let name = format!("to {compress}");
    wait_for(&format!("{name} writing {lsn}"), LONG, || {
        let written = server.standby_column(&name, "write_lsn")?;
        Ok(written.is_some_and(|text| text.parse::<Lsn>().is_ok_and(|written| written >= lsn)))
    })
}

fn open(directory: &Path) -> Result<Archive> {
    let location = directory.to_string_lossy().parse()?;
    Ok(Archive::open(&location, &ArchiveOptions::default())?)
}

fn newest(directory: &Path) -> Result<ArchiveTimeline> {
    Ok(open(directory)?.timeline(TimelineChoice::Newest)?)
}

/// What was compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Same {
    complete: usize,
    partial: usize,
    /// Bytes of WAL of the partial ones.
    partial_bytes: usize,
    /// The compressions, `plain` for none.
    kinds: Vec<String>,
}

/// Every segment is the server's; of a partial one what is there is.
fn ensure_same(view: &ArchiveTimeline, server: &Cluster) -> Result<Same> {
    let mut same = Same::default();
    let numbers = view.numbers();
    let first = numbers.first().context("no segments")?.0;
    for (expected, number) in (first..).zip(numbers) {
        ensure!(number.0 == expected, "segment {expected} is missing");
        let mut segment = view.require(number)?;
        let file = SegmentName {
            timeline: segment.timeline(),
            number,
        }
        .file_name(view.segment_size());
        let theirs = server.wal_file(&file)?;
        let mut ours = vec![0; theirs.len() + 1];
        let length = segment.read_full(&mut ours)?;
        ours.truncate(length);
        if segment.is_partial() {
            let wal_end = ours
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |last| last + 1);
            ours.truncate(wal_end);
            ensure!(theirs.starts_with(&ours), "{} differs", segment.path());
            same.partial += 1;
            same.partial_bytes += wal_end;
        } else {
            ensure!(ours == theirs, "{} differs", segment.path());
            same.complete += 1;
        }
        let kind = segment
            .compression()
            .map_or("plain".to_owned(), |c| c.to_string());
        if !same.kinds.contains(&kind) {
            same.kinds.push(kind);
        }
    }
    Ok(same)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

#[test]
fn what_pg_receivewal_wrote_is_read_as_the_server_has_it() -> Result<()> {
    let (server, work) = (server()?, Workdir::new()?);
    for (compress, suffix) in [("none", ""), ("gzip", ".gz"), ("lz4", ".lz4")] {
        let terminated = work.make_dir(&format!("{compress}-terminated"))?;
        let receiving = receive(&work, &server, &terminated, compress)?;
        wait_for_write(&server, compress, load(&server)?)?;
        receiving.terminate(SHORT)?;
        let same = ensure_same(&newest(&terminated)?, &server)?;
        ensure!(
            same.complete >= 2 && same.partial == 1,
            "{compress}: {same:?}"
        );
        ensure!(same.partial_bytes > 100_000, "{compress}: {same:?}");
        let partial = format!("{suffix}.partial");
        let names = names(&terminated)?;
        ensure!(
            names.iter().any(|name| name.ends_with(&partial)),
            "{names:?}"
        );

        // Killed, a compressed file lacks what was in the program's buffers.
        let killed = work.make_dir(&format!("{compress}-killed"))?;
        let receiving = receive(&work, &server, &killed, compress)?;
        wait_for_write(&server, compress, load(&server)?)?;
        receiving.kill_9()?;
        let same = ensure_same(&newest(&killed)?, &server)?;
        ensure!(
            same.complete >= 2 && same.partial == 1,
            "{compress}: {same:?}"
        );
    }
    Ok(())
}

#[test]
fn a_directory_that_changed_its_compression_between_kills_is_read_whole() -> Result<()> {
    let (server, work) = (server()?, Workdir::new()?);
    let directory = work.make_dir("mixed")?;
    for compress in ["gzip", "none", "lz4", "gzip", "none"] {
        let receiving = receive(&work, &server, &directory, compress)?;
        wait_for_write(&server, compress, load(&server)?)?;
        receiving.kill_9()?;
        let same = ensure_same(&newest(&directory)?, &server)?;
        ensure!(same.complete >= 2, "{compress}: {same:?}");
    }
    let same = ensure_same(&newest(&directory)?, &server)?;
    let mut kinds = same.kinds.clone();
    kinds.sort();
    ensure!(kinds == ["gzip", "lz4", "plain"], "{same:?}");
    // Partial files of several kinds stayed beside what replaced them.
    let names = names(&directory)?;
    let partial = names
        .iter()
        .filter(|name| name.ends_with(".partial"))
        .count();
    ensure!(partial > 1, "{names:?}");
    Ok(())
}

/// Programs that compress a file beside itself.
const PROGRAMS: &[(&str, &[&str], Compression)] = &[
    ("gzip", &["-9"], Compression::Gzip),
    ("zstd", &["-q", "-3"], Compression::Zstd),
    (
        "zstd",
        &["-q", "-19", "--long=27", "--no-check"],
        Compression::Zstd,
    ),
    ("lz4", &["-q", "-m"], Compression::Lz4),
    ("lz4", &["-q", "-m", "-9", "-B4", "-BD"], Compression::Lz4),
    (
        "lz4",
        &["-q", "-m", "-BX", "--content-size", "--no-frame-crc"],
        Compression::Lz4,
    ),
];

#[test]
fn what_compression_programs_wrote_is_read_as_the_server_has_it() -> Result<()> {
    let (server, work) = (server()?, Workdir::new()?);
    let plain = work.make_dir("plain")?;
    let receiving = receive(&work, &server, &plain, "none")?;
    wait_for_write(&server, "none", load(&server)?)?;
    receiving.terminate(SHORT)?;
    let expected = ensure_same(&newest(&plain)?, &server)?;
    for (program, options, compression) in PROGRAMS {
        let directory = tempfile::tempdir()?;
        for name in names(&plain)? {
            fs::copy(plain.join(&name), directory.path().join(&name))?;
        }
        let files: Vec<PathBuf> = names(directory.path())?
            .iter()
            .map(|name| directory.path().join(name))
            .collect();
        let output = Command::new(program).args(*options).args(&files).output();
        let output = output.with_context(|| format!("cannot run {program}"))?;
        ensure!(output.status.success(), "{program} {options:?}: {output:?}");
        for file in &files {
            let _ = fs::remove_file(file);
        }
        let same = ensure_same(&newest(directory.path())?, &server)
            .with_context(|| format!("{program} {options:?}"))?;
        ensure!(same.kinds == [compression.to_string()], "{same:?}");
        ensure!(same.complete == expected.complete, "{same:?}");
        ensure!(same.partial_bytes == expected.partial_bytes, "{same:?}");
    }
    Ok(())
}

#[test]
fn an_archive_across_a_promotion_is_read_along_the_new_timeline() -> Result<()> {
    let (primary, work) = (server()?, Workdir::new()?);
    let mut standby = primary.standby(&[])?;
    standby.start()?;
    for compress in ["none", "gzip"] {
        work.make_dir(compress)?;
    }
    let receivers =
        ["none", "gzip"].map(|compress| receive(&work, &standby, &work.join(compress), compress));
    let end = load(&primary)?;
    wait_for("replay", LONG, || Ok(standby.current_lsn()? >= end))?;
    standby.promote()?;
    let end = load(&standby)?;
    for (compress, receiver) in ["none", "gzip"].into_iter().zip(receivers) {
        wait_for_write(&standby, compress, end)?;
        receiver?.terminate(SHORT)?;
        let view = newest(&work.join(compress))?;
        ensure!(
            view.history().timeline() == TimelineId(2),
            "{:?}",
            view.history()
        );
        let switch = view
            .history()
            .switch_point(TimelineId(1))
            .context("no switch point")?;
        // The old timeline's files before the switch, the new one's from it on.
        let before = ensure_same(&view, &standby)?;
        ensure!(before.complete >= 4 && before.partial == 1, "{before:?}");
        for number in view.numbers() {
            let segment = view.require(number)?;
            let new = number >= switch.segment_number(view.segment_size());
            let expected = TimelineId(if new { 2 } else { 1 });
            ensure!(segment.timeline() == expected, "{}", segment.path());
        }
        // The old timeline ends with a partial file.
        let old = open(&work.join(compress))?.timeline(TimelineChoice::Id(TimelineId(1)))?;
        let last = *old.numbers().last().context("no segments")?;
        ensure!(old.require(last)?.is_partial());
    }
    Ok(())
}

#[test]
fn the_pg_wal_of_a_running_server_is_read_with_its_recycled_segments() -> Result<()> {
    let server = server()?;
    for _ in 0..3 {
        load(&server)?;
        server.query("ALTER SYSTEM SET wal_keep_size = 0")?;
        server.query("SELECT pg_reload_conf()")?;
        server.query("CHECKPOINT")?;
    }
    let end = load(&server)?;
    let view = newest(&server.data_dir().join("pg_wal"))?;
    let (mut whole, mut recycled) = (0, 0);
    for number in view.numbers() {
        let mut segment = view.require(number)?;
        let mut bytes = Vec::new();
        segment.read_to_end(&mut bytes)?;
        ensure!(
            bytes.len() as u64 == view.segment_size().bytes(),
            "{}",
            segment.path()
        );
        let start = number.start_lsn(view.segment_size()).context("no LSN")?;
        let found = segment.header().map(|header| header.page.address);
        match found {
            Some(found) if found == start => whole += 1,
            // A file that is kept for later has an older segment's content.
            found => {
                ensure!(
                    start > end && found < Some(start),
                    "{}: {found:?}",
                    segment.path()
                );
                recycled += 1;
            }
        }
    }
    ensure!(
        whole >= 3 && recycled > 0,
        "{whole} with WAL, {recycled} recycled"
    );
    Ok(())
}
