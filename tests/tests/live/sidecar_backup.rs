//! Base backups that `pg_basebackup` takes through the sidecar: every form of them verifies, the archives are those of
//! PostgreSQL's own sender, the result starts, and damage and bad options are answered as PostgreSQL answers them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walreceiver::demo::postgres_programs::PostgresPrograms;
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Program, SHORT, StopMode, server_version, wait_for,
};

use crate::recorded_sender::replication_command;
use crate::sidecar::Sidecar;

fn pg_basebackup(
    sidecar: &Sidecar,
    programs: &PostgresPrograms,
    conninfo: &str,
    options: &[&str],
) -> Program {
    let program = sidecar.work.external(&programs.client("pg_basebackup"));
    program
        .args(["-d", conninfo, "-c", "fast", "--no-sync"])
        .args(options)
}

/// A server with a tablespace, whose directory is the second value.
fn server_with_tablespace(
    sidecar_of: impl Fn(&Cluster) -> Result<Sidecar>,
    major: u32,
) -> Result<(Cluster, Sidecar, PathBuf)> {
    let options = ClusterOptions::default()
        .initdb_option("--data-checksums")
        .initdb_option("--wal-segsize=1");
    let primary = options.programs(&server_version(major)?).start()?;
    let sidecar = sidecar_of(&primary)?;
    let space = sidecar.work.make_dir("space with blank")?;
    primary.query(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        space.display()
    ))?;
    primary.query("CREATE TABLE in_space (a int) TABLESPACE space")?;
    primary.query("INSERT INTO in_space SELECT generate_series(1, 10000)")?;
    primary.query("CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 10000)")?;
    primary.pgbench(&["-i", "-q"])?;
    primary.query("CHECKPOINT")?;
    Ok((primary, sidecar, space))
}

#[test]
fn every_form_of_a_backup_verifies_and_starts() -> Result<()> {
    let (primary, sidecar, space) = server_with_tablespace(Sidecar::start, 15)?;
    let (work, programs) = (&sidecar.work, server_version(15)?);
    let forms: &[(&str, &[&str], &[&str])] = &[
        ("stream", &["-X", "stream", "-P"], &[]),
        (
            "fetch",
            &["-X", "fetch", "--manifest-checksums=SHA224"],
            &[],
        ),
        (
            "none",
            &["-X", "none", "--manifest-checksums=SHA256"],
            &["-n"],
        ),
        (
            "gzip",
            &[
                "-X",
                "fetch",
                "--compress=server-gzip",
                "--manifest-checksums=SHA384",
            ],
            &[],
        ),
        (
            "lz4",
            &[
                "-X",
                "fetch",
                "--compress=server-lz4:9",
                "--manifest-checksums=SHA512",
            ],
            &[],
        ),
        (
            "zstd",
            &[
                "-X",
                "stream",
                "--compress=server-zstd:level=2,workers=2",
                "--manifest-force-encode",
            ],
            &[],
        ),
        (
            "no_sums",
            &["-X", "stream", "--manifest-checksums=NONE"],
            &[],
        ),
        ("slow", &["-X", "none", "--max-rate=64M", "-P"], &["-n"]),
    ];
    for (name, options, verify) in forms {
        let target = work.join(name);
        let mapping = format!(
            "{}={}",
            space.display(),
            work.join(&format!("{name}-space")).display()
        );
        let program = pg_basebackup(&sidecar, &programs, &sidecar.conninfo(), options);
        let program = program.args(["-T", &mapping, "-D"]).arg(&target);
        program.succeed(LONG).with_context(|| sidecar.stderr())?;
        let verifying = work
            .external(&programs.client("pg_verifybackup"))
            .args(*verify)
            .arg(&target);
        verifying
            .succeed(LONG)
            .with_context(|| (*name).to_owned())?;
    }
    for name in ["fetch", "zstd"] {
        let mut restored = Cluster::on_directory(&primary, &work.join(name))?;
        restored.start()?;
        let rows = restored
            .query("SELECT (SELECT count(*) FROM in_space), (SELECT count(*) FROM unlogged)")?;
        assert_eq!(rows, "10000|0", "an unlogged table is empty");
        restored.amcheck()?;
    }
    Ok(())
}

#[test]
fn archives_are_compressed_as_asked() -> Result<()> {
    let (_primary, sidecar, _) = server_with_tablespace(Sidecar::start, 15)?;
    let (work, programs) = (&sidecar.work, server_version(15)?);
    let mut sizes = BTreeMap::new();
    for (compression, ending) in [
        ("none", ""),
        ("client-gzip:1", ".gz"),
        ("server-gzip:1", ".gz"),
        ("server-gzip", ".gz"),
        ("server-lz4", ".lz4"),
        ("server-zstd:9", ".zst"),
    ] {
        let target = work.join(&compression.replace(':', "_"));
        let program = pg_basebackup(
            &sidecar,
            &programs,
            &sidecar.conninfo(),
            &["-Ft", "-X", "fetch"],
        );
        program
            .args(["--compress", compression, "-D"])
            .arg(&target)
            .succeed(LONG)?;
        let archive = target.join(format!("base.tar{ending}"));
        let mut members = 0;
        for entry in tar::Archive::new(open(&archive)?).entries()? {
            let mut entry = entry?;
            std::io::copy(&mut entry, &mut std::io::sink())?;
            members += 1;
        }
        ensure!(members > 900, "{members} members in {}", archive.display());
        sizes.insert(compression, fs::metadata(&archive)?.len());
    }
    ensure!(
        sizes.values().all(|size| *size <= sizes["none"])
            && sizes["server-zstd:9"] < sizes["server-gzip:1"],
        "{sizes:?}"
    );
    // Nothing arrives, and the manifest is not asked for where there is nothing to verify.
    let nowhere = [
        "-t",
        "blackhole",
        "-X",
        "fetch",
        "-P",
        "--compress=server-lz4",
    ];
    pg_basebackup(&sidecar, &programs, &sidecar.conninfo(), &nowhere).succeed(LONG)?;
    Ok(())
}

/// An archive, decompressed by its name.
fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path)?;
    let ending = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let program = match ending.as_str() {
        "gz" => "gzip",
        "lz4" => "lz4",
        "zst" => return Ok(Box::new(zstd::Decoder::new(file)?)),
        _ => return Ok(Box::new(file)),
    };
    let child = std::process::Command::new(program)
        .args(["-dc"])
        .stdin(file)
        .output()?;
    ensure!(
        child.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&child.stderr)
    );
    Ok(Box::new(std::io::Cursor::new(child.stdout)))
}

/// Header and content.
type Member = (Vec<u8>, Vec<u8>);

/// Every header of an archive with the content of its member, by name, and the names in order.
fn members(path: &Path) -> Result<(Vec<String>, BTreeMap<String, Member>)> {
    let (mut names, mut all) = (Vec::new(), BTreeMap::new());
    for entry in tar::Archive::new(File::open(path)?).entries()? {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let header = entry.header().as_bytes().to_vec();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        names.push(name.clone());
        ensure!(
            all.insert(name.clone(), (header, content)).is_none(),
            "{name} twice"
        );
    }
    Ok((names, all))
}

#[test]
fn archives_are_those_of_postgresql() -> Result<()> {
    let (primary, sidecar, _) = server_with_tablespace(Sidecar::start, 15)?;
    let (work, programs) = (&sidecar.work, server_version(15)?);
    // What must be left out.
    for name in [
        "pgsql_tmp1",
        "backup_label.old",
        "base/t3_12345",
        "base/1/t3_12345",
        "base/1/pg_internal.init",
    ] {
        let path = primary.data_dir().join(name);
        fs::write(&path, "x")?;
        work.own(&path)?;
    }
    primary.query("CHECKPOINT")?;
    let mut taken = Vec::new();
    for (name, conninfo) in [("ours", sidecar.conninfo()), ("theirs", primary.conninfo())] {
        let target = work.join(name);
        let options = ["-Ft", "-X", "none", "-l", "the same"];
        pg_basebackup(&sidecar, &programs, &conninfo, &options)
            .arg("-D")
            .arg(&target)
            .succeed(LONG)?;
        let mut archives: Vec<_> = fs::read_dir(&target)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        archives.retain(|path| path.extension().is_some_and(|ending| ending == "tar"));
        archives.sort();
        ensure!(archives.len() == 2, "{archives:?}");
        taken.push(archives);
    }
    let pairs = taken[0].iter().zip(&taken[1]);
    for (ours, theirs) in pairs {
        assert_eq!(ours.file_name(), theirs.file_name());
        let ((our_names, our), (their_names, their)) = (members(ours)?, members(theirs)?);
        assert_eq!(our_names, their_names, "the same members in the same order");
        for (name, (header, content)) in &our {
            let (their_header, their_content) = &their[name];
            // Between the two backups there are two checkpoints, WAL and a running server: these change.
            let changes = ["backup_label", "global/pg_control", "tablespace_map"]
                .contains(&name.as_str())
                || name.starts_with("pg_xact/")
                || name.starts_with("pg_logical/")
                || name.contains("pg_wal");
            let without_time = |header: &[u8]| [&header[..136], &header[156..]].concat();
            assert_eq!(
                without_time(header),
                without_time(their_header),
                "header of {name}"
            );
            if !changes {
                assert_eq!(header, their_header, "header of {name}");
                assert!(content == their_content, "content of {name}");
            }
        }
    }
    let label = |archives: &[PathBuf]| -> Result<String> {
        let base = archives
            .iter()
            .find(|path| path.ends_with("base.tar"))
            .context("base.tar")?;
        let (_, all) = members(base)?;
        let text = String::from_utf8_lossy(&all["backup_label"].1).into_owned();
        let words = text.lines().map(|line| {
            line.split_once(": ")
                .map_or(line, |(word, _)| word)
                .to_owned()
        });
        Ok(words.collect::<Vec<_>>().join("\n"))
    };
    assert_eq!(label(&taken[0])?, label(&taken[1])?);
    Ok(())
}

/// A page of a table is damaged on disk, long after the server has written it. Then checksums are given up while the server is
/// down, and nothing is verified any more.
#[test]
fn a_damaged_page_fails_the_backup_as_in_postgresql() -> Result<()> {
    let (mut primary, sidecar, _) = server_with_tablespace(Sidecar::start, 15)?;
    let (work, programs) = (&sidecar.work, server_version(15)?);
    let file = primary.query("SELECT pg_relation_filepath('pgbench_accounts')")?;
    let mut table = File::options()
        .read(true)
        .write(true)
        .open(primary.data_dir().join(&file))?;
    for page in [3, 9] {
        table.seek(SeekFrom::Start(page * 8192 + 5000))?;
        table.write_all(b"damage")?;
    }
    let take = |name: &str, conninfo: &str, options: &[&str]| {
        let program =
            pg_basebackup(&sidecar, &programs, conninfo, &["-Ft", "-X", "none"]).args(options);
        program
            .env("LC_ALL", "C")
            .arg("-D")
            .arg(work.join(name))
            .run(LONG)
    };
    let (ours, theirs) = (
        take("ours", &sidecar.conninfo(), &[])?,
        take("theirs", &primary.conninfo(), &[])?,
    );
    ours.expect_failure(
        1,
        &[
            "checksum verification failed in file",
            "2 total checksum verification failures",
            "checksum error occurred",
        ],
    )?;
    let lines = |text: &str| {
        text.lines()
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(lines(&ours.stderr), lines(&theirs.stderr));
    let unverified = take(
        "unverified",
        &sidecar.conninfo(),
        &["--no-verify-checksums"],
    )?;
    ensure!(unverified.code() == Some(0), "{unverified}");
    primary.stop(StopMode::Fast)?;
    let data_dir = primary.data_dir().display().to_string();
    primary.run("pg_checksums", &["--disable", "-D", &data_dir])?;
    primary.start()?;
    for (name, conninfo) in [
        ("ours_without", sidecar.conninfo()),
        ("theirs_without", primary.conninfo()),
    ] {
        let without = take(name, &conninfo, &[])?;
        ensure!(without.code() == Some(0), "{without}");
    }
    Ok(())
}

#[test]
fn bad_options_are_answered_as_postgresql_answers_them() -> Result<()> {
    let primary = Cluster::started()?;
    let sidecar = Sidecar::start(&primary)?;
    for options in [
        "TARGET 'nowhere'",
        "TARGET 'blackhole', TARGET_DETAIL 'x'",
        "COMPRESSION 'gzip', COMPRESSION_DETAIL '10'",
        "COMPRESSION 'lz4', COMPRESSION_DETAIL 'workers=2'",
        "COMPRESSION 'zstd', COMPRESSION_DETAIL 'level=x'",
        "COMPRESSION 'none', COMPRESSION_DETAIL '1'",
        "COMPRESSION 'zip'",
        "COMPRESSION_DETAIL '1'",
        "MAX_RATE 1",
        "MANIFEST_CHECKSUMS 'SHA256'",
        "MANIFEST 'maybe'",
        "LABEL 'a', LABEL 'b'",
    ] {
        let command = format!("BASE_BACKUP ({options})");
        let ours = replication_command(&sidecar.work, &sidecar.conninfo(), &command)?;
        let theirs = replication_command(&sidecar.work, &primary.conninfo(), &command)?;
        assert_eq!(ours, theirs, "{command}");
        ensure!(ours.starts_with("ERROR:"), "{ours}");
    }
    let label = "x".repeat(2000);
    let command = format!("BASE_BACKUP (LABEL '{label}', CHECKPOINT 'fast')");
    let ours = replication_command(&sidecar.work, &sidecar.conninfo(), &command)?;
    assert_eq!(
        ours,
        replication_command(&sidecar.work, &primary.conninfo(), &command)?
    );
    let server = replication_command(
        &sidecar.work,
        &sidecar.conninfo(),
        "BASE_BACKUP (TARGET 'server', TARGET_DETAIL '/tmp')",
    )?;
    ensure!(
        server.starts_with("ERROR:  0A000: a base backup that stays on the server"),
        "{server}"
    );
    Ok(())
}

#[test]
fn a_client_that_goes_away_ends_backup_mode() -> Result<()> {
    let primary = Cluster::started()?;
    primary.pgbench(&["-i", "-q"])?;
    let sidecar = Sidecar::start(&primary)?;
    let sessions = || {
        primary.query(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walsender' AND query LIKE '%pg_control_checkpoint%'",
        )
    };
    let target = sidecar.work.join("slow");
    let options = ["-X", "none", "--max-rate=256k"];
    let running = pg_basebackup(
        &sidecar,
        &server_version(15)?,
        &sidecar.conninfo(),
        &options,
    );
    let running = running.arg("-D").arg(&target).start()?;
    wait_for("files of the backup", LONG, || {
        Ok(target.join("backup_label").exists())
    })?;
    // Once more than the session that follows the flush LSN.
    let during = sessions()?;
    running.kill_9()?;
    wait_for("the end of backup mode", LONG, || Ok(sessions()? != during))?;
    let after = sidecar.work.join("after");
    let program =
        pg_basebackup(&sidecar, &server_version(15)?, &sidecar.conninfo(), &["-D"]).arg(&after);
    program.succeed(LONG)?;
    Ok(())
}

/// Servers of before 15 send a COPY for each archive, and their clients, of which 14's is here, want each member's header in a
/// message of its own; those since 17 name the system in the manifest.
#[test]
fn servers_of_other_versions_are_backed_up_as_they_do_it() -> Result<()> {
    for major in [12, 13, 14, 16, 17, 18] {
        let (primary, sidecar, space) = server_with_tablespace(Sidecar::start, major)?;
        let (work, programs) = (&sidecar.work, server_version(major)?);
        for (name, wal) in [("fetch", "fetch"), ("stream", "stream")] {
            let target = work.join(name);
            let mapping = format!(
                "{}={}",
                space.display(),
                work.join(&format!("{name}-space")).display()
            );
            let program = pg_basebackup(
                &sidecar,
                &programs,
                &sidecar.conninfo(),
                &["-X", wal, "-P", "-T", &mapping],
            );
            let taken = program.arg("-D").arg(&target).succeed(LONG);
            taken.with_context(|| format!("version {major}: {}", sidecar.stderr()))?;
            if major >= 13 {
                // Programs of another version do not read this one's WAL.
                let has_programs = programs.program("pg_verifybackup").is_file();
                let options: &[&str] = if has_programs { &[] } else { &["-n"] };
                let verifying = work
                    .external(&programs.client("pg_verifybackup"))
                    .args(options)
                    .arg(&target);
                verifying
                    .succeed(SHORT)
                    .with_context(|| format!("version {major}, {name}"))?;
            }
        }
        let mut restored = Cluster::on_directory(&primary, &work.join("fetch"))?;
        restored.start()?;
        assert_eq!(
            restored.query("SELECT count(*) FROM in_space")?,
            "10000",
            "version {major}"
        );
    }
    Ok(())
}
