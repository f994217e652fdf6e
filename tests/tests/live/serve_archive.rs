//! `walsender serve --archive`: PostgreSQL's own programs and ours follow a directory of segments as they follow the
//! server that wrote them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Receivewal, Running, SHORT, ServedArchive, Signal, StopMode,
    file_names, wait_for,
};

use crate::receive_archive::content;

pub(crate) const SEGMENT: u64 = 1 << 20;

pub(crate) fn primary() -> Result<Cluster> {
    let primary = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .initdb_option("--wal-segsize=1")
        .start()?;
    primary.query("CREATE TABLE t (i int, p text)")?;
    Ok(primary)
}

/// A bit more than 2 MB of WAL.
pub(crate) fn load(server: &Cluster) -> Result<()> {
    server.query(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 3000) i",
    )?;
    Ok(())
}

/// An archive that `pg_receivewal` fills, which is running.
pub(crate) struct Filled {
    pub(crate) archive: Receivewal,
    filling: Option<Running>,
}

impl Filled {
    pub(crate) fn start(primary: &Cluster, compression: &str) -> Result<Self> {
        let archive = Receivewal::theirs(primary.programs())?;
        let mut filled = Self {
            archive,
            filling: None,
        };
        filled.go_on(primary, compression)?;
        Ok(filled)
    }

    /// Fills it from this server.
    pub(crate) fn go_on(&mut self, from: &Cluster, compression: &str) -> Result<()> {
        let conninfo = from.conninfo();
        let mut filling = self
            .archive
            .command(["-D", "archive", "-v", "--synchronous", "-Z", compression])
            .args(["-d", &conninfo])
            .start()?;
        filling.wait_for_output("starting log streaming", LONG)?;
        self.filling = Some(filling);
        Ok(())
    }

    /// Waits until everything is there that the server has flushed, ends it, and gives where it ends.
    pub(crate) fn end(&mut self, primary: &Cluster) -> Result<Lsn> {
        let end = primary.flush_lsn()?;
        primary.wait_for_flush("pg_receivewal", end, LONG)?;
        let mut filling = self.filling.take().context("nothing fills it")?;
        filling.signal(Signal::INT)?;
        filling.wait(SHORT)?;
        Ok(end)
    }

    pub(crate) fn serve(&self, options: &[&str]) -> Result<ServedArchive> {
        ServedArchive::start(self.archive.workdir(), &self.archive.archive(), options)
    }
}

/// Some MB of WAL in an archive, and its end.
pub(crate) fn archived(compression: &str) -> Result<(Cluster, Filled, Lsn)> {
    let primary = primary()?;
    let mut filled = Filled::start(&primary, compression)?;
    load(&primary)?;
    load(&primary)?;
    let end = filled.end(&primary)?;
    Ok((primary, filled, end))
}

/// What is in a directory of segments, from its first byte to `end`, and where it begins.
pub(crate) fn wal_in(directory: &Path, end: Lsn) -> Result<(Lsn, Vec<u8>)> {
    let mut wal = Vec::new();
    let mut start = None;
    for name in file_names(directory)? {
        let Some(number) = name.get(16..24).filter(|_| !name.contains("history")) else {
            continue;
        };
        let number = u64::from_str_radix(number, 16)?;
        let start = *start.get_or_insert(number * SEGMENT);
        ensure!(
            start + wal.len() as u64 == number * SEGMENT,
            "{name} does not go on where the last file ended"
        );
        let mut bytes = content(&directory.join(&name))?;
        let left = end.0.saturating_sub(number * SEGMENT).min(SEGMENT);
        bytes.truncate(usize::try_from(left)?);
        ensure!(bytes.len() as u64 == left, "{name} is too short");
        wal.extend(bytes);
    }
    Ok((Lsn(start.context("no segments")?), wal))
}

/// Both directories hold the same WAL up to `end`, from the start of the second on.
pub(crate) fn ensure_same_wal(served: &Path, received: &Path, end: Lsn) -> Result<()> {
    let ((start, all), (from, got)) = (wal_in(served, end)?, wal_in(received, end)?);
    let skipped = usize::try_from(from.saturating_sub(start))?;
    ensure!(
        all.get(skipped..) == Some(&got[..]),
        "{} differs from {}",
        received.display(),
        served.display()
    );
    ensure!(got.len() as u64 == end.saturating_sub(from), "too short");
    Ok(())
}

/// A follower begins with the segment of this.
pub(crate) fn begin_at(side: &Receivewal, segment: &str) -> Result<()> {
    let path = side.archive().join(format!("{segment}.partial"));
    std::fs::write(&path, "")?;
    side.workdir().own(&path)
}

/// Name of the first segment of an archive.
pub(crate) fn first_segment(archive: &Receivewal) -> Result<String> {
    let files = archive.files()?;
    let first = files.first().context("an empty archive")?;
    Ok(first.get(..24).context("no segment")?.to_owned())
}

#[test]
fn pg_receivewal_and_receive_take_every_byte() -> Result<()> {
    for compression in ["none", "gzip", "lz4"] {
        let (primary, filled, end) = archived(compression)?;
        let served = filled.serve(&[])?;
        let conninfo = served.conninfo();
        let last = Lsn(end.0 - 1).to_string();
        let first = first_segment(&filled.archive)?;
        for options in [
            &["-n"][..],
            &["-n", "-S", "kept", "--synchronous"],
            &["-n", "-Z", "gzip"],
            &["-n", "-Z", "lz4", "--no-sync"],
        ] {
            for side in [Receivewal::theirs(primary.programs())?, Receivewal::ours()?] {
                begin_at(&side, &first)?;
                if options.contains(&"-S") {
                    side.command(["--create-slot", "--if-not-exists", "-S", "kept", "-d"])
                        .arg(conninfo)
                        .succeed(SHORT)?;
                }
                side.command(["-D", "archive", "-E", &last, "-d", conninfo])
                    .args(options)
                    .succeed(LONG)
                    .with_context(|| format!("{compression}, {options:?}"))?;
                // The file that it began with stays when it compresses.
                if options.contains(&"-Z") {
                    std::fs::remove_file(side.archive().join(format!("{first}.partial")))?;
                }
                ensure_same_wal(&filled.archive.archive(), &side.archive(), end)
                    .with_context(|| format!("{compression}, {options:?}"))?;
            }
        }
        let finished = served.into_running().terminate(SHORT)?;
        ensure!(finished.code() == Some(0), "{finished}");
    }
    Ok(())
}

#[test]
fn a_growing_archive_is_followed() -> Result<()> {
    for compression in ["none", "gzip"] {
        let primary = primary()?;
        let mut filled = Filled::start(&primary, compression)?;
        load(&primary)?;
        primary.wait_for_flush("pg_receivewal", primary.flush_lsn()?, LONG)?;
        let served = ServedArchive::start_on_socket(
            filled.archive.workdir(),
            &filled.archive.archive(),
            &[],
        )?;
        let follower = Receivewal::theirs(primary.programs())?;
        begin_at(&follower, &first_segment(&filled.archive)?)?;
        let mut following = follower
            .command(["-D", "archive", "--synchronous", "-d", served.conninfo()])
            .start()?;
        for _ in 0..3 {
            load(&primary)?;
            // Compressed files hold back what is not worth a block yet; with the segment they are complete.
            primary.switch_wal()?;
            let end = Lsn(primary.flush_lsn()?.0 / SEGMENT * SEGMENT);
            wait_for("the follower", LONG, || {
                ensure!(following.is_running()?, "the follower has ended");
                let files = follower.files()?;
                let number = end.0 / SEGMENT - 1;
                let last = format!("{:08X}{:08X}{number:08X}", 1, 0);
                Ok(files.contains(&last))
            })?;
            ensure_same_wal_before(&filled.archive.archive(), &follower.archive(), end)?;
        }
        filled.end(&primary)?;
        following.signal(Signal::INT)?;
        following.wait(SHORT)?;
    }
    Ok(())
}

/// As [`ensure_same_wal`], where both still grow.
fn ensure_same_wal_before(served: &Path, received: &Path, end: Lsn) -> Result<()> {
    ensure!(end.0.is_multiple_of(SEGMENT), "a segment's end");
    for name in file_names(received)? {
        let Some(number) = name.get(16..24) else {
            continue;
        };
        if u64::from_str_radix(number, 16)? < end.0 / SEGMENT {
            let segment = name.get(..24).unwrap_or_default();
            let mut names = file_names(served)?.into_iter();
            let found = names.find(|other| other.starts_with(segment));
            let found = found.with_context(|| format!("{segment} is not served"))?;
            ensure!(
                content(&served.join(&found))? == content(&received.join(&name))?,
                "{name} differs"
            );
        }
    }
    Ok(())
}

#[test]
fn a_postgresql_standby_follows_to_the_end_and_is_promoted() -> Result<()> {
    let mut primary = primary()?;
    let mut filled = Filled::start(&primary, "none")?;
    let mut standby = primary.standby(&[])?;
    load(&primary)?;
    primary.wait_for_flush("pg_receivewal", primary.flush_lsn()?, LONG)?;
    let mut served = filled.serve(&["--synchronous-standby-names", "ANY 1 (walreceiver)"])?;
    standby.configure(&[("primary_conninfo", &format!("'{}'", served.conninfo()))])?;
    remove_auto_conninfo(&standby)?;
    standby.start()?;
    load(&primary)?;
    primary.query("CREATE INDEX ON t (i)")?;
    let end = primary.flush_lsn()?;
    primary.wait_for_flush("pg_receivewal", end, LONG)?;
    wait_for("the standby's replay", LONG, || {
        Ok(standby.current_lsn()? >= end)
    })?;
    let dump = primary.dump_all()?;
    let counts = primary.row_counts()?;
    // The primary's last words reach the standby, too.
    primary.stop(StopMode::Fast)?;
    let mut filling = filled.filling.take().context("it was started")?;
    filling.signal(Signal::INT)?;
    filling.wait(SHORT)?;
    standby.promote()?;
    assert_eq!(standby.dump_all()?, dump);
    assert_eq!(standby.row_counts()?, counts);
    ensure!(served.running().is_running()?);
    Ok(())
}

/// `pg_basebackup -R` writes a connection string that would come after ours.
fn remove_auto_conninfo(standby: &Cluster) -> Result<()> {
    let path = standby.data_dir().join("postgresql.auto.conf");
    let text = std::fs::read_to_string(&path)?;
    let kept: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("primary_conninfo"))
        .collect();
    Ok(standby.write_file(&path, &(kept.join("\n") + "\n"))?)
}
