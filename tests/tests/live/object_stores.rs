//! WAL in an S3 server: put there by the library, read from there, while the server fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use walsender::source::archive::{Archive, ArchiveOptions, TimelineChoice};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Program, S3Server, SHORT, Workdir, object_names, wait_for,
};

const LOCATION: &str = "s3://wal/cluster/15";

/// The program `archive-copy` of this package, which knows the server.
fn archive_copy(work: &Workdir, server: &S3Server) -> Result<Program> {
    let built = Path::new(env!("CARGO_BIN_EXE_archive-copy"));
    let local = work.place_program("archive-copy", built)?;
    Ok(server.known_to(work.external(&local)))
}

/// Finished segments of a real server in a directory: a plain, a gzip and a zstd one.
fn archived(work: &Workdir) -> Result<(Cluster, Vec<PathBuf>)> {
    let server = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .start()?;
    server.query("CREATE TABLE t (i int)")?;
    let directory = work.make_dir("local")?;
    let mut files = Vec::new();
    for suffix in ["", ".gz", ".zst"] {
        server.query("INSERT INTO t SELECT generate_series(1, 100000)")?;
        let name = server.switch_wal()?;
        let wal = server.wal_file(&name)?;
        let path = directory.join(format!("{name}{suffix}"));
        if suffix == ".gz" {
            let plain = directory.join(&name);
            fs::write(&plain, wal)?;
            ensure!(Command::new("gzip").arg(plain).status()?.success());
        } else if suffix == ".zst" {
            fs::write(&path, zstd::encode_all(wal.as_slice(), 3)?)?;
        } else {
            fs::write(&path, wal)?;
        }
        work.own(&path)?;
        files.push(path);
    }
    Ok((server, files))
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[test]
fn segments_are_put_into_an_s3_server_and_read_from_it() -> Result<()> {
    let (work, store) = (Workdir::new()?, S3Server::start()?);
    let (_server, files) = archived(&work)?;
    let put = || -> Result<String> {
        let program = archive_copy(&work, &store)?.args(["to", LOCATION]);
        Ok(program.args(&files).succeed(LONG)?.stdout)
    };
    let lines = |how: &str| -> String {
        let line = |file| format!("{LOCATION}/{} {how} 1\n", file_name(file));
        files.iter().map(|file| line(file)).collect()
    };
    ensure!(put()? == lines("stored"), "first");
    ensure!(put()? == lines("was there"), "second");
    let bucket = store.bucket("wal").join("cluster/15");
    let names: Vec<_> = files.iter().map(|file| file_name(file)).collect();
    assert_eq!(object_names(&bucket)?, names, "and no temporary object");
    for file in &files {
        ensure!(
            fs::read(file)? == fs::read(bucket.join(file_name(file)))?,
            "{}",
            file.display()
        );
    }

    // The same is read from the store as from the directory.
    let local = work.join("local").to_string_lossy().into_owned();
    let list = |location: &str| -> Result<String> {
        let program = archive_copy(&work, &store)?.args(["list", location]);
        Ok(program.succeed(LONG)?.stdout)
    };
    let listed = list(LOCATION)?;
    ensure!(listed.lines().count() == 3, "{listed}");
    assert_eq!(listed, list(&local)?);
    assert_eq!(listed, list(&format!("file://{local}"))?);

    // Where the store can copy "only if there is none", that is used.
    let conditional = archive_copy(&work, &store)?
        .env("AWS_COPY_IF_NOT_EXISTS", "multipart")
        .args(["to", "s3://wal/conditional"])
        .args(&files)
        .succeed(LONG)?;
    ensure!(
        conditional.stdout.matches(" stored 1").count() == 3,
        "{conditional}"
    );
    assert_eq!(
        object_names(&store.bucket("wal").join("conditional"))?,
        names
    );

    // Another file under the same name is refused, and stays.
    let file = files.first().context("no files")?;
    let mut other = fs::read(file)?;
    *other.last_mut().context("empty")? ^= 1;
    fs::write(file, &other)?;
    let refused = archive_copy(&work, &store)?
        .args(["to", LOCATION])
        .arg(file)
        .run(SHORT)?;
    refused.expect_failure(
        1,
        &[
            "exists already and is another file",
            "nothing was overwritten",
        ],
    )?;
    ensure!(fs::read(bucket.join(file_name(file)))? != other);
    assert_eq!(object_names(&bucket)?, names);
    Ok(())
}

#[test]
fn a_store_that_is_down_is_waited_for() -> Result<()> {
    let (work, mut store) = (Workdir::new()?, S3Server::start()?);
    let (_server, files) = archived(&work)?;
    store.stop();
    // Nobody but a test's listener is there for the first connection, and it hangs up.
    let listener = store.listener()?;
    let mut putting = archive_copy(&work, &store)?
        .args(["to", LOCATION])
        .args(&files)
        .start()?;
    drop(listener.accept()?);
    drop(listener);
    ensure!(
        putting.is_running()?,
        "gave up at once: {}",
        putting.stderr()
    );
    store.restart()?;
    let put = putting.wait(LONG)?;
    ensure!(put.code() == Some(0), "{put}");
    assert_eq!(
        object_names(&store.bucket("wal").join("cluster/15"))?.len(),
        3
    );
    Ok(())
}

#[test]
fn what_does_not_pass_is_said_at_once() -> Result<()> {
    let (work, store) = (Workdir::new()?, S3Server::start()?);
    let (_server, files) = archived(&work)?;
    let file = files.last().context("no files")?;
    let wrong_secret = archive_copy(&work, &store)?
        .env("AWS_SECRET_ACCESS_KEY", "another")
        .args(["to", LOCATION])
        .arg(file)
        .run(SHORT)?;
    let what = format!("{LOCATION}/{}", file_name(file));
    wrong_secret.expect_failure(1, &[&what, "check name, credentials and rights"])?;
    let no_bucket = archive_copy(&work, &store)?
        .args(["list", "s3://other/x"])
        .run(SHORT)?;
    no_bucket.expect_failure(1, &["s3://other/x"])?;
    let no_settings = work
        .external(&work.join("archive-copy"))
        .args(["list", "az://container/x"])
        .run(SHORT)?;
    no_settings.expect_failure(
        1,
        &[
            "az://container/x",
            "check the AZURE_* environment variables",
        ],
    )?;
    Ok(())
}

#[test]
fn a_directory_and_a_store_hold_one_archive_together() -> Result<()> {
    let (work, store) = (Workdir::new()?, S3Server::start()?);
    let (server, files) = archived(&work)?;
    archive_copy(&work, &store)?
        .args(["to", LOCATION])
        .args(&files)
        .succeed(LONG)?;
    // What the store holds is, as a directory, what the server has.
    let location = store
        .bucket("wal")
        .join("cluster/15")
        .to_string_lossy()
        .parse()?;
    let archive = Archive::open(&location, &ArchiveOptions::default())?;
    let view = archive.timeline(TimelineChoice::Newest)?;
    for number in view.numbers() {
        let mut segment = view.require(number)?;
        let mut bytes = vec![0; usize::try_from(archive.segment_size().bytes())?];
        ensure!(segment.read_full(&mut bytes)? == bytes.len());
        let name = segment.name().get(..24).context("a short name")?;
        ensure!(bytes == server.wal_file(name)?, "{name}");
    }
    Ok(())
}

#[test]
fn a_kill_while_it_is_sent_leaves_no_final_name_to_a_part() -> Result<()> {
    let (work, store) = (Workdir::new()?, S3Server::start()?);
    let (_server, files) = archived(&work)?;
    let file = files.first().context("no files")?;
    let content = fs::read(file)?;
    for round in 0..3 {
        let location = format!("s3://wal/{round}");
        let directory = store.bucket("wal").join(round.to_string());
        let put = || -> Result<Program> {
            Ok(archive_copy(&work, &store)?
                .args(["to", &location])
                .arg(file))
        };
        let putting = put()?.start()?;
        wait_for("something of it in the store", SHORT, || {
            Ok(fs::read_dir(&directory).is_ok_and(|mut entries| entries.next().is_some()))
        })?;
        // It may have ended before it could be killed.
        let _ = putting.kill_9();
        let last = directory.join(file_name(file));
        ensure!(
            !last.exists() || fs::read(&last)? == content,
            "round {round}"
        );
        put()?.succeed(LONG)?;
        ensure!(fs::read(&last)? == content, "round {round}");
        assert_eq!(
            object_names(&directory)?,
            [file_name(file)],
            "round {round}"
        );
    }
    Ok(())
}
