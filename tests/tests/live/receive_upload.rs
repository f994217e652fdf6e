//! `receive --to`: finished files get to a directory or an S3 server and leave the archive's directory, whatever is killed
//! on the way.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, Finished, LONG, Program, Receivewal, S3Server, SHORT, StopMode,
    ensure_same_content, ensure_same_records, file_names, object_names, wait_for,
};

use crate::receive_archive::{ensure_servers_own, ensure_servers_own_in};

pub(crate) const NAME: &str = "walreceiver_receive";
pub(crate) const SEGMENT: u64 = 1 << 20;

pub(crate) fn primary() -> Result<Cluster> {
    let primary = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .initdb_option("--wal-segsize=1")
        .start()?;
    primary.query("CREATE TABLE t (i int, p text)")?;
    Ok(primary)
}

/// Some segments of WAL.
pub(crate) fn load(primary: &Cluster) -> Result<()> {
    primary.query(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 3000) i",
    )?;
    Ok(())
}

pub(crate) fn received(primary: &Cluster) -> Result<()> {
    primary.wait_for_sent(NAME, primary.flush_lsn()?, LONG)
}

pub(crate) fn streams(primary: &Cluster) -> Result<()> {
    wait_for("the stream", LONG, || {
        Ok(primary.standby_column(NAME, "state")?.as_deref() == Some("streaming"))
    })
}

/// A position such that all WAL so far is behind it.
pub(crate) fn end(primary: &Cluster) -> Result<String> {
    Ok(Lsn(primary.flush_lsn()?.0 - 1).to_string())
}

/// A receiver with a place that its files go to.
pub(crate) struct Site {
    pub(crate) ours: Receivewal,
    /// `None` where the place is a directory.
    pub(crate) store: Option<S3Server>,
    /// The place as `--to` names it.
    pub(crate) location: String,
    /// The place as a directory.
    pub(crate) place: PathBuf,
}

impl Site {
    pub(crate) fn directory() -> Result<Self> {
        let ours = Receivewal::ours()?;
        let place = ours.workdir().make_dir("place")?;
        Ok(Self {
            location: format!("file://{}", place.display()),
            store: None,
            ours,
            place,
        })
    }

    pub(crate) fn s3() -> Result<Self> {
        let store = S3Server::start()?;
        Ok(Self {
            ours: Receivewal::ours()?,
            location: "s3://wal/cluster/15".to_owned(),
            place: store.bucket("wal").join("cluster/15"),
            store: Some(store),
        })
    }

    pub(crate) fn store(&mut self) -> Result<&mut S3Server> {
        self.store.as_mut().context("no server")
    }

    pub(crate) fn known(&self, program: Program) -> Program {
        match &self.store {
            Some(store) => store.known_to(program),
            None => program,
        }
    }

    pub(crate) fn receive(&self, server: &Cluster, more: &[&str]) -> Result<Program> {
        let conninfo = server.conninfo();
        let arguments = [
            "-D",
            "archive",
            "-v",
            "-d",
            &conninfo,
            "--to",
            &self.location,
        ];
        Ok(self.known(self.ours.own_name([&arguments[..], more].concat())?))
    }

    /// Receives all that the server has, which ends well only when all that is finished is in the place.
    pub(crate) fn receive_all(&self, server: &Cluster) -> Result<Finished> {
        let end = end(server)?;
        let ended = self.receive(server, &["-n", "-E", &end])?.succeed(LONG)?;
        ensure!(
            self.complete()?.is_empty(),
            "{:?}; {ended}",
            self.complete()?
        );
        Ok(ended)
    }

    /// Names in the place.
    pub(crate) fn stored(&self) -> Result<Vec<String>> {
        if self.place.exists() {
            object_names(&self.place)
        } else {
            Ok(Vec::new())
        }
    }

    /// Names of finished files that are still in the archive's directory.
    pub(crate) fn complete(&self) -> Result<Vec<String>> {
        let mut names = self.ours.files()?;
        names.retain(|name| !name.ends_with(".partial") && !name.ends_with(".tmp"));
        Ok(names)
    }

    /// The place holds whole segments of the server without a gap, and no other segments. Gives their numbers.
    pub(crate) fn ensure_whole(&self, server: &Cluster) -> Result<Vec<u64>> {
        let complete = ensure_servers_own_in(&self.place, server)?;
        let mut stored = self.stored()?;
        stored.retain(|name| !name.ends_with(".history"));
        assert_eq!(stored, complete, "nothing else is there");
        let numbers: Vec<u64> = stored
            .iter()
            .map(|name| number(name))
            .collect::<Result<_>>()?;
        ensure!(
            numbers
                .iter()
                .zip(numbers.iter().skip(1))
                .all(|(number, next)| *next == number + 1),
            "a gap: {stored:?}"
        );
        Ok(numbers)
    }
}

fn number(name: &str) -> Result<u64> {
    Ok(u64::from_str_radix(
        name.get(16..24).unwrap_or_default(),
        16,
    )?)
}

#[test]
fn finished_files_go_to_a_directory_in_every_kind() -> Result<()> {
    let primary = primary()?;
    for (kind, suffix) in [
        ("none", ""),
        ("gzip:1", ".gz"),
        ("lz4", ".lz4"),
        ("zstd:1", ".zst"),
    ] {
        let site = Site::directory()?;
        let running = site.receive(&primary, &["-Z", kind])?.start()?;
        streams(&primary)?;
        load(&primary)?;
        received(&primary)?;
        let stopped = running.terminate(LONG)?;
        assert_eq!(stopped.code(), Some(0), "{stopped}");
        let files = site.ours.files()?;
        ensure!(
            files.len() == 1 && files[0].ends_with(&format!("{suffix}.partial")),
            "{files:?}"
        );
        let numbers = site.ensure_whole(&primary)?;
        ensure!(numbers.len() > 1, "{kind}: {:?}", site.stored()?);
        ensure!(
            site.stored()?
                .iter()
                .all(|name| name.get(24..) == Some(suffix)),
            "{:?}",
            site.stored()?
        );
        // What is not finished is in the directory as before, and the next run goes on with it.
        ensure_servers_own(&site.ours, &primary)?;
        assert_eq!(number(&files[0])?, numbers[numbers.len() - 1] + 1);
        load(&primary)?;
        let ended = site.receive_all(&primary)?;
        let start = format!(
            "starting log streaming at {}",
            Lsn(number(&files[0])? * SEGMENT)
        );
        ensure!(
            ended
                .stderr
                .starts_with(&format!("walreceiver receive: {start} ")),
            "{ended}"
        );
        ensure!(site.ensure_whole(&primary)?.len() > numbers.len());
    }
    Ok(())
}

#[test]
fn a_directory_that_files_went_to_restores_a_server() -> Result<()> {
    let primary = primary()?;
    let site = Site::directory()?;
    let running = site.receive(&primary, &[])?.start()?;
    streams(&primary)?;
    let mut restored = primary.standby(&[])?;
    load(&primary)?;
    primary.query("CHECKPOINT")?;
    let last = primary.switch_wal()?;
    wait_for("the last segment in the place", LONG, || {
        Ok(site.stored()?.contains(&last))
    })?;
    let stopped = running.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    fs::remove_file(restored.data_dir().join("standby.signal"))?;
    let command = format!("cp \"{}/%f\" \"%p\"", site.place.display());
    restored.configure(&[("restore_command", &command), ("primary_conninfo", "")])?;
    restored.write_file(&restored.data_dir().join("recovery.signal"), "")?;
    for entry in fs::read_dir(restored.data_dir().join("pg_wal"))? {
        let path = entry?.path();
        if path.is_file() {
            fs::remove_file(path)?;
        }
    }
    restored.start()?;
    wait_for("the end of recovery", LONG, || {
        let recovers = restored.query("SELECT pg_is_in_recovery()");
        Ok(recovers.is_ok_and(|answer| answer == "f"))
    })
    .with_context(|| restored.log())?;
    assert_eq!(restored.query("SELECT count(*) FROM t")?, "3000");
    ensure_same_content(&primary, &restored)
}

#[test]
fn an_s3_server_has_all_of_it_when_the_end_is_reached() -> Result<()> {
    let primary = primary()?;
    let site = Site::s3()?;
    // Something to begin behind.
    site.receive_all(&primary)?;
    load(&primary)?;
    load(&primary)?;
    let ended = site.receive_all(&primary)?;
    let numbers = site.ensure_whole(&primary)?;
    ensure!(numbers.len() > 3, "{numbers:?}");
    let finished = ended.stderr.matches("finished segment at").count();
    let stored = ended
        .stderr
        .matches(&format!("stored \"{}/", site.location))
        .count();
    assert_eq!(finished, stored, "{ended}");
    // The same is read from the URL as PostgreSQL's own reads from the server's directory.
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    let name = |number: u64| format!("00000001{number:016X}");
    let workdir = site.ours.workdir();
    let url = format!("{}/{}", site.location, name(first));
    let dump = workdir
        .program("walreceiver")?
        .args(["waldump", &url, &name(last)]);
    let dumped = site.known(dump).run(LONG)?;
    let pg_wal = primary.data_dir().join("pg_wal");
    let theirs = workdir
        .external(&primary.programs().program("pg_waldump"))
        .args(["-p", &pg_wal.to_string_lossy(), &name(first), &name(last)])
        .run(LONG)?;
    ensure!(dumped.stdout.lines().count() > 3000, "{dumped}");
    ensure_same_records(&dumped.stdout, &theirs.stdout)?;
    // Nothing to do is no harm, and a place alone says where to begin.
    site.ours.clear()?;
    load(&primary)?;
    let ended = site.receive_all(&primary)?;
    let start = format!("starting log streaming at {} ", Lsn((last + 1) * SEGMENT));
    ensure!(ended.stderr.contains(&start), "{ended}");
    site.ensure_whole(&primary)?;
    Ok(())
}

/// The first position of the next run, by what is in the two places.
fn expected_start(site: &Site) -> Result<Option<Lsn>> {
    let mut segments = Vec::new();
    for name in site.ours.files()?.into_iter().chain(site.stored()?) {
        let is_segment = name.len() == 24 || name.len() == 32 && name.ends_with(".partial");
        if is_segment {
            segments.push((number(&name)?, !name.ends_with(".partial")));
        }
    }
    let last = segments.into_iter().max();
    Ok(last.map(|(number, complete)| Lsn((number + u64::from(complete)) * SEGMENT)))
}

#[test]
fn a_run_goes_on_behind_the_last_segment_wherever_it_was_killed() -> Result<()> {
    let primary = primary()?;
    let mut site = Site::s3()?;
    let mut both = 0;
    for round in 0..10 {
        let expected = expected_start(&site)?;
        let mut running = site.receive(&primary, &[])?.start()?;
        running.wait_for_output("starting log streaming at", LONG)?;
        if let Some(expected) = expected {
            let text = format!("starting log streaming at {expected} (timeline 1)");
            ensure!(
                running.stderr().contains(&text),
                "round {round}: expected {text}: {}",
                running.stderr()
            );
        }
        streams(&primary)?;
        let before = site.stored()?.len();
        load(&primary)?;
        match round % 5 {
            // Right when a segment is finished, when it is being sent, when it has its name there.
            0 => wait_for("a finished file", LONG, || Ok(!site.complete()?.is_empty()))?,
            1 => wait_for("a file on its way", LONG, || {
                let is_sent = |name: &String| name.ends_with(".uploading");
                Ok(site.stored()?.iter().any(is_sent) || site.stored()?.len() > before)
            })?,
            2 => wait_for("an object", LONG, || Ok(site.stored()?.len() > before))?,
            3 => wait_for("a second object", LONG, || {
                Ok(site.stored()?.len() > before + 1)
            })?,
            _ => {}
        }
        running.kill_9()?;
        // Ends requests that are still there, so that what it holds is what the next run finds.
        site.store()?.restart()?;
        if round == 7 {
            // As a kill between the two steps leaves it: in both places.
            let stored = site.stored()?;
            let last = stored.iter().rfind(|name| name.len() == 24);
            let last = last.context("no object")?;
            let copy = site.ours.archive().join(last);
            fs::copy(site.place.join(last), &copy)?;
            site.ours.workdir().own(&copy)?;
        }
        let stored = site.stored()?;
        both += site
            .complete()?
            .iter()
            .filter(|name| stored.contains(name))
            .count();
    }
    ensure!(both > 0, "no file was ever in both places");
    site.receive_all(&primary)?;
    // Files on their way that a kill interrupted are removed by who sends the same file again.
    let numbers = site.ensure_whole(&primary)?;
    ensure!(numbers.len() > 10, "{numbers:?}");
    Ok(())
}

#[test]
fn a_timeline_switch_and_its_history_file() -> Result<()> {
    let mut primary = primary()?;
    let mut standby = primary.standby(&[("wal_keep_size", "1GB")])?;
    standby.start()?;
    let mut site = Site::s3()?;
    let mut running = site.receive(&standby, &[])?.start()?;
    running.wait_for_output("starting log streaming", LONG)?;
    streams(&standby)?;
    load(&primary)?;
    let last = primary.flush_lsn()?;
    wait_for("replay", LONG, || Ok(standby.current_lsn()? >= last))?;
    primary.stop(StopMode::Fast)?;
    // What is of the new timeline is all there at once when the store comes back.
    site.store()?.stop();
    standby.promote()?;
    running.wait_for_output("switched to timeline 2 at", LONG)?;
    load(&standby)?;
    received(&standby)?;
    site.store()?.restart()?;
    wait_for("all files in the store", LONG, || {
        Ok(site.complete()?.is_empty())
    })?;
    let stopped = running.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    let stored = |text: &str| {
        let at = stopped
            .stderr
            .find(&format!("stored \"{}/{text}", site.location));
        at.with_context(|| format!("no {text} was stored: {stopped}"))
    };
    ensure!(stored("00000002.history")? < stored("00000002000")?);
    assert_eq!(
        fs::read(site.place.join("00000002.history"))?,
        standby.wal_file("00000002.history")?
    );
    let numbers = ensure_servers_own_in(&site.place, &standby)?;
    ensure!(
        numbers.iter().any(|name| name.starts_with("00000001"))
            && numbers.iter().any(|name| name.starts_with("00000002")),
        "{numbers:?}"
    );
    // The old timeline's last segment was not finished, and stays.
    let files = site.ours.files()?;
    let is_old = |name: &String| name.starts_with("00000001") && name.ends_with(".partial");
    ensure!(files.iter().any(is_old), "{files:?}");

    // A run that has nothing but the store goes on with the new timeline, and needs the history file no second time.
    site.ours.clear()?;
    let again = site.receive_all(&standby)?;
    ensure!(again.stderr.contains("(timeline 2)"), "{again}");
    ensure!(!again.stderr.contains(".history"), "{again}");
    ensure!(
        file_names(&site.place)?
            .iter()
            .any(|name| name == "00000002.history")
    );
    Ok(())
}

/// What is on its way to the store is held in memory in parts, not as whole files.
#[test]
fn memory_stays_flat() -> Result<()> {
    let primary = ClusterOptions::default()
        .set("wal_keep_size", "4GB")
        .set("max_wal_size", "4GB")
        .start()?;
    let site = Site::s3()?;
    let start = primary.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    primary.query(
        "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 30) AS p FROM generate_series(1, 150000) i",
    )?;
    // An empty partial file says where to begin.
    let first = site.ours.archive().join(format!("{start}.partial"));
    fs::write(&first, "")?;
    site.ours.workdir().own(&first)?;
    let mut running = site
        .receive(&primary, &["-n", "-E", &end(&primary)?])?
        .start()?;
    let status = format!("/proc/{}/status", running.pid().as_raw_nonzero());
    let mut peak = 0;
    wait_for("its end", LONG, || {
        if let Ok(text) = fs::read_to_string(&status)
            && let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))
        {
            peak = line.trim().trim_end_matches(" kB").parse()?;
        }
        Ok(!running.is_running()?)
    })?;
    let ended = running.wait(SHORT)?;
    assert_eq!(ended.code(), Some(0), "{ended}");
    ensure!((1..=48 * 1024).contains(&peak), "{peak} kB");
    let complete = ensure_servers_own_in(&site.place, &primary)?;
    ensure!(complete.len() >= 8, "{complete:?}");
    Ok(())
}
