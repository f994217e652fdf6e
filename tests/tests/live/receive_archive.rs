//! What `receive` archives: the server's own segments, byte for byte, in every kind of compression; and an archive restores
//! a server.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Receivewal, SHORT, Workdir, ensure_same_content, file_names,
    wait_for,
};

const NAME: &str = "pg_receivewal";
const KINDS: [(&str, &str); 4] = [
    ("none", ""),
    ("gzip:1", ".gz"),
    ("lz4", ".lz4"),
    ("zstd:1", ".zst"),
];

fn primary() -> Result<Cluster> {
    let primary = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .initdb_option("--wal-segsize=1")
        .start()?;
    primary.query("CREATE TABLE t (i int, p text)")?;
    Ok(primary)
}

/// Some segments of WAL.
fn load(primary: &Cluster) -> Result<()> {
    primary.query(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 3000) i",
    )?;
    Ok(())
}

/// What a file holds, by the ending of its name.
pub(crate) fn content(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".partial").unwrap_or(&name).to_owned();
    let mut bytes = Vec::new();
    let file = || fs::File::open(path);
    // Programs of other people, as a restore uses them; zstd has none here.
    let program = match name.rsplit_once('.') {
        Some((_, "gz")) => "gzip",
        Some((_, "lz4")) => "lz4",
        Some((_, "zst")) => {
            zstd::Decoder::new(file()?)?.read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        _ => return Ok(fs::read(path)?),
    };
    let output = std::process::Command::new(program)
        .arg("-dc")
        .stdin(file()?)
        .output()
        .with_context(|| format!("this test needs {program}"))?;
    ensure!(
        output.status.success(),
        "{program} -dc {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// Every segment in the archive is the server's; a partial one as far as the server's WAL goes. Gives the complete ones.
pub(crate) fn ensure_servers_own(archive: &Receivewal, server: &Cluster) -> Result<Vec<String>> {
    ensure_servers_own_in(&archive.archive(), server)
}

/// The same of any directory.
pub(crate) fn ensure_servers_own_in(directory: &Path, server: &Cluster) -> Result<Vec<String>> {
    let mut complete = Vec::new();
    for name in file_names(directory)? {
        let Some(segment) = name.get(..24).filter(|segment| !segment.contains('.')) else {
            continue;
        };
        let ours = content(&directory.join(&name))?;
        let theirs = server.wal_file(segment)?;
        if name.ends_with(".partial") {
            let end = ours
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            ensure!(
                ours.get(..end) == theirs.get(..end),
                "{name} differs from the server's"
            );
        } else {
            ensure!(ours == theirs, "{name} differs from the server's");
            complete.push(name);
        }
    }
    Ok(complete)
}

#[test]
fn segments_are_the_servers_own_in_every_kind() -> Result<()> {
    let primary = primary()?;
    let conninfo = primary.conninfo();
    for (kind, suffix) in KINDS {
        let ours = Receivewal::ours()?;
        let running = ours
            .command(["-D", "archive", "-Z", kind, "-d", &conninfo])
            .start()?;
        streams(&primary)?;
        load(&primary)?;
        let lsn = primary.flush_lsn()?;
        primary.wait_for_sent(NAME, lsn, LONG)?;
        // Without slot and --synchronous no flush position is reported: it is never taken for a synchronous standby.
        let flush = primary.standby_column(NAME, "flush_lsn")?;
        assert_eq!(flush, None, "{kind}");
        let stopped = running.terminate(SHORT)?;
        assert_eq!(stopped.code(), Some(0), "{stopped}");
        let complete = ensure_servers_own(&ours, &primary)?;
        ensure!(complete.len() > 1, "{kind}: {:?}", ours.files()?);
        ensure!(
            complete.iter().all(|name| name.get(24..) == Some(suffix)),
            "{complete:?}"
        );
        let files = ours.files()?;
        let last = files.last().context("no file")?;
        ensure!(last.ends_with(&format!("{suffix}.partial")), "{files:?}");
        for name in &files {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(ours.archive().join(name))?
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        // PostgreSQL's own takes it for what it is and goes on.
        if kind.starts_with("zstd") {
            continue;
        }
        let theirs = Receivewal::theirs(primary.programs())?;
        for name in &files {
            let to = theirs.archive().join(name);
            fs::copy(ours.archive().join(name), &to)?;
            theirs.workdir().own(&to)?;
        }
        let end = primary.flush_lsn()?;
        primary.query("INSERT INTO t VALUES (0)")?;
        let arguments = [
            "-D", "archive", "-Z", kind, "-v", "-n", "-d", &conninfo, "-E",
        ];
        let end = end.to_string();
        let arguments = [&arguments[..], &[&end]].concat();
        let told = |side: &Receivewal| -> Result<String> {
            let told = side.command(&arguments).succeed(LONG)?;
            Ok(told.stderr.lines().next().unwrap_or_default().to_owned())
        };
        assert_eq!(told(&ours)?, told(&theirs)?, "{kind}");
        ensure_servers_own(&ours, &primary)?;
    }
    Ok(())
}

fn streams(primary: &Cluster) -> Result<()> {
    wait_for("the stream", LONG, || {
        Ok(primary.standby_column(NAME, "state")?.as_deref() == Some("streaming"))
    })
}

#[test]
fn a_group_readable_server_has_a_group_readable_archive() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let primary = ClusterOptions::default().initdb_option("-g").start()?;
    let ours = Receivewal::ours()?;
    let end = primary.flush_lsn()?;
    primary.query("CREATE TABLE t (i int)")?;
    let conninfo = primary.conninfo();
    ours.command([
        "-D",
        "archive",
        "-n",
        "-d",
        &conninfo,
        "-E",
        &end.to_string(),
    ])
    .succeed(LONG)?;
    for name in ours.files()? {
        let mode = fs::metadata(ours.archive().join(&name))?
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640, "{name}");
    }
    Ok(())
}

#[test]
fn a_slot_says_where_to_begin_and_keeps_what_is_not_flushed() -> Result<()> {
    let primary = primary()?;
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")?;
    let first = primary.query("SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots")?;
    load(&primary)?;
    let ours = Receivewal::ours()?;
    let conninfo = primary.conninfo();
    let arguments = ["-D", "archive", "-S", "archive", "-d", &conninfo];
    let running = ours.command(arguments).start()?;
    streams(&primary)?;
    primary.wait_for_sent(NAME, primary.flush_lsn()?, LONG)?;
    let stopped = running.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    let complete = ensure_servers_own(&ours, &primary)?;
    assert_eq!(complete.first(), Some(&first));
    // All was flushed and reported at the end, and no more than that.
    let slot = "SELECT restart_lsn FROM pg_replication_slots";
    let reported = primary.lsn(slot)?;
    ensure!(reported <= primary.flush_lsn()?, "{reported}");
    wait_for("the slot's position", SHORT, || {
        Ok(primary.lsn(slot)? >= primary.flush_lsn()?)
    })?;
    Ok(())
}

#[test]
fn commits_wait_for_it_as_a_synchronous_standby() -> Result<()> {
    for kind in ["none", "gzip:1", "lz4", "zstd:1"] {
        let mut primary = primary()?;
        let ours = Receivewal::ours()?;
        let conninfo = primary.conninfo();
        let running = ours
            .command([
                "-D",
                "archive",
                "--synchronous",
                "-Z",
                kind,
                "-d",
                &conninfo,
            ])
            .start()?;
        streams(&primary)?;
        primary.alter_system("synchronous_standby_names", NAME)?;
        wait_for("the synchronous standby", SHORT, || {
            Ok(primary.standby_column(NAME, "sync_state")?.as_deref() == Some("sync"))
        })?;
        for i in 0..50 {
            primary.query(&format!("INSERT INTO t VALUES ({i})"))?;
        }
        let lsn = primary.flush_lsn()?;
        primary.wait_for_flush(NAME, lsn, SHORT)?;
        // What was acknowledged survives a kill.
        running.kill_9()?;
        primary.alter_system("synchronous_standby_names", "")?;
        let name = primary.query(&format!("SELECT pg_walfile_name('{lsn}')"))?;
        let file = ours
            .files()?
            .into_iter()
            .find(|file| file.starts_with(&name))
            .context("no file")?;
        let segment = primary.wal_file(&name)?;
        let end = usize::try_from(lsn.0 % (1 << 20))?;
        let held = walreceiver::receive::archive_sink::readable_bytes(
            &walreceiver::wal_sink::DiskStorage,
            &ours.archive().join(&file),
            walreceiver::receive::Compression::parse(kind)?,
        );
        ensure!(held >= end as u64, "{kind}: {held} of {end} bytes");
        if kind == "none" {
            let found = fs::read(ours.archive().join(&file))?;
            ensure!(found.get(..end) == segment.get(..end), "{file} differs");
        }
        // The next run goes on with it.
        let stopped = ours
            .command([
                "-D", "archive", "-Z", kind, "-d", &conninfo, "-n", "-E", "0/1",
            ])
            .succeed(SHORT)?;
        assert_eq!(stopped.stderr, "");
        load(&primary)?;
        let end = Lsn(primary.flush_lsn()?.0 - 1);
        ours.command([
            "-D",
            "archive",
            "-Z",
            kind,
            "-d",
            &conninfo,
            "-n",
            "-E",
            &end.to_string(),
        ])
        .succeed(LONG)?;
        ensure_servers_own(&ours, &primary)?;
    }
    Ok(())
}

#[test]
fn an_archive_restores_a_server() -> Result<()> {
    for (kind, suffix) in KINDS {
        let primary = primary()?;
        let ours = Receivewal::ours()?;
        let conninfo = primary.conninfo();
        let running = ours
            .command(["-D", "archive", "-Z", kind, "-d", &conninfo])
            .start()?;
        streams(&primary)?;
        let mut restored = primary.standby(&[])?;
        load(&primary)?;
        primary.query("SELECT pg_switch_wal()")?;
        primary.query("CHECKPOINT")?;
        primary.wait_for_sent(NAME, primary.flush_lsn()?, LONG)?;
        let stopped = running.terminate(SHORT)?;
        assert_eq!(stopped.code(), Some(0), "{stopped}");
        // Our own program decompresses what no other here can.
        let tool = match suffix {
            ".gz" => "gzip -dc",
            ".lz4" => "lz4 -dc",
            _ => "cat",
        };
        let archive = ours.archive();
        if suffix == ".zst" {
            for name in ours.files()? {
                let plain = archive.join(name.replace(".zst", ""));
                fs::write(&plain, content(&archive.join(&name))?)?;
                ours.workdir().own(&plain)?;
            }
        }
        let suffix = if suffix == ".zst" { "" } else { suffix };
        let archive = archive.to_string_lossy().into_owned();
        // A partial file that was compressed has no padding, which PostgreSQL wants.
        let command = format!(
            "for f in \"{archive}/%f{suffix}\" \"{archive}/%f{suffix}.partial\"; do if [ -f \"$f\" ]; then \
             {tool} < \"$f\" > \"%p\" && {{ case \"%f\" in *.history) ;; *) truncate -s 1M \"%p\" ;; esac; exit 0; }}; \
             fi; done; exit 1"
        );
        fs::remove_file(restored.data_dir().join("standby.signal"))?;
        restored.configure(&[
            ("restore_command", &command),
            ("primary_conninfo", ""),
            ("recovery_target_timeline", "latest"),
        ])?;
        let signal = restored.data_dir().join("recovery.signal");
        restored.write_file(&signal, "")?;
        for entry in fs::read_dir(restored.data_dir().join("pg_wal"))? {
            let path = entry?.path();
            if path.is_file() {
                fs::remove_file(path)?;
            }
        }
        restored.start()?;
        // Before that it already answers questions.
        wait_for("the end of recovery", LONG, || {
            let recovers = restored.query("SELECT pg_is_in_recovery()");
            Ok(recovers.is_ok_and(|answer| answer == "f"))
        })
        .with_context(|| format!("{kind}: {}", restored.log()))?;
        ensure!(
            restored
                .query("SELECT count(*) FROM t")
                .with_context(|| format!("{kind}: {}", restored.log()))?
                == "3000",
            "{kind}"
        );
        ensure_same_content(&primary, &restored)?;
    }
    Ok(())
}

#[test]
fn memory_stays_flat_whatever_comes() -> Result<()> {
    let primary = ClusterOptions::default()
        .set("wal_keep_size", "4GB")
        .set("max_wal_size", "4GB")
        .start()?;
    let start = primary.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    primary.query("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 30) AS p FROM generate_series(1, 150000) i")?;
    let end = Lsn(primary.flush_lsn()?.0 - 1).to_string();
    let ours = Receivewal::ours()?;
    // An empty partial file says where to begin.
    let first = ours.archive().join(format!("{start}.partial"));
    fs::write(&first, "")?;
    ours.workdir().own(&first)?;
    let conninfo = primary.conninfo();
    let mut running = ours
        .command([
            "-D",
            "archive",
            "--no-sync",
            "-n",
            "-d",
            &conninfo,
            "-E",
            &end,
        ])
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
    ensure!((1..=32 * 1024).contains(&peak), "{peak} kB");
    let complete = ensure_servers_own(&ours, &primary)?;
    ensure!(complete.len() >= 8, "{complete:?}");
    Ok(())
}

/// The directory of a test that needs one and nothing else.
#[test]
fn a_directory_that_is_given_as_a_path_with_blanks() -> Result<()> {
    let primary = primary()?;
    let ours = Receivewal::ours()?;
    let directory: &Workdir = ours.workdir();
    directory.make_dir("a b")?;
    let end = Lsn(primary.flush_lsn()?.0 - 1).to_string();
    let conninfo = primary.conninfo();
    ours.command(["-D", "a b", "-n", "-d", &conninfo, "-E", &end])
        .succeed(LONG)?;
    ensure!(file_names(&directory.join("a b"))?.len() == 1);
    Ok(())
}
