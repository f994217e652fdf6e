//! The recording that the demo serves is whole: a PostgreSQL 15 server starts from its backup and WAL and holds what
//! its facts say.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use walreceiver::demo::local_postgres::{Listen, LocalPostgres};
use walstream::Lsn;
use walstream_tests::{ServerUser, Workdir, server_version};

const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../walreceiver/src/demo/coordinator.tar.zst"
);

fn unpack(archive: impl std::io::Read, target: &Path) -> Result<()> {
    Ok(tar::Archive::new(archive).unpack(target)?)
}

#[test]
fn a_server_recovers_every_recorded_commit() -> Result<()> {
    let recording = File::open(RECORDING)?;
    assert!(
        recording.metadata()?.len() < 8_000_000,
        "the recording is too large"
    );
    let work = Workdir::new()?;
    let parts = work.make_dir("parts")?;
    unpack(zstd::Decoder::new(recording)?, &parts)?;
    let facts: Value = serde_json::from_slice(&fs::read(parts.join("facts.json"))?)?;
    let text = |path: &str| {
        facts
            .pointer(path)
            .and_then(Value::as_str)
            .with_context(|| path.to_owned())
    };

    let data = work.make_dir("data")?;
    unpack(File::open(parts.join("base.tar"))?, &data)?;
    fs::copy(parts.join("backup_manifest"), data.join("backup_manifest"))?;
    work.own(&data)?;
    let programs = server_version(15)?;
    let verify = work.external(&programs.client("pg_verifybackup"));
    verify
        .arg("--no-parse-wal")
        .arg(&data)
        .succeed(walstream_tests::LONG)?;
    for segment in fs::read_dir(parts.join("wal"))? {
        let segment = segment?;
        fs::copy(
            segment.path(),
            data.join("pg_wal").join(segment.file_name()),
        )?;
    }
    work.own(&data)?;

    let user = ServerUser::choose().context("no user to run a server")?;
    let mut server = LocalPostgres::on_directory(&programs, &user, Listen::Socket, &data)?;
    server.start()?;
    let identifier = server.query("SELECT system_identifier FROM pg_control_system()")?;
    assert_eq!(identifier, text("/system_identifier")?);
    let log = server.log();
    assert!(
        log.contains(&format!("redo starts at {}", text("/backup/start_lsn")?)),
        "{log}"
    );
    // The checkpoint that ends recovery comes right behind the recorded WAL.
    let (flush, last): (Lsn, Lsn) = (
        text("/wal/flush_lsn")?.parse()?,
        text("/commits/last_commit_lsn")?.parse()?,
    );
    assert!(last <= flush);
    let redo: Lsn = server
        .query("SELECT redo_lsn FROM pg_control_checkpoint()")?
        .parse()?;
    assert!(
        redo >= flush && redo - flush < 64,
        "recovery ended at {redo}, the recording at {flush}"
    );

    let counts = [
        ("schemas", "pg_namespace WHERE oid >= 16384"),
        ("tables", "pg_class WHERE oid >= 16384 AND relkind = 'r'"),
        ("indexes", "pg_class WHERE oid >= 16384 AND relkind = 'i'"),
        ("views", "pg_class WHERE oid >= 16384 AND relkind = 'v'"),
        ("functions", "pg_proc WHERE oid >= 16384"),
        ("roles", "pg_roles WHERE oid >= 16384"),
    ];
    for (name, from) in counts {
        let found = server.query_in("warehouse", &format!("SELECT count(*) FROM {from}"))?;
        assert_eq!(
            Some(found.parse::<u64>()?),
            facts["warehouse"][name].as_u64(),
            "{name}"
        );
    }
    Ok(())
}
