//! What a cluster's WAL says of transaction status, multixacts, commit timestamps, relation maps and prepared transactions is what
//! its own files say, byte for byte, after its whole life; and its pages have the checksums that we compute.

use std::fs;

use anyhow::{Context, Result, ensure};
use walstream::storage::page::Page;
use walstream::storage::relation_path::RelationFileName;
use walstream_tests::slru_replay::SlruReplay;
use walstream_tests::wal_files::WalFiles;
use walstream_tests::{Cluster, ClusterOptions, StopMode, Workdir, server_version};

const WORKLOAD: &[&str] = &[
    "CREATE TABLE parent (i int PRIMARY KEY); INSERT INTO parent VALUES (1); CREATE TABLE child (i int REFERENCES parent)",
    "BEGIN; INSERT INTO parent VALUES (2); SAVEPOINT a; INSERT INTO parent VALUES (3); ROLLBACK TO a; \
     INSERT INTO parent VALUES (4); PREPARE TRANSACTION 'kept'",
    "BEGIN; CREATE TABLE made (i int); SAVEPOINT a; INSERT INTO made VALUES (1); PREPARE TRANSACTION 'done'",
    "COMMIT PREPARED 'done'",
    "CREATE DATABASE other",
    "VACUUM FULL pg_class",
];

/// Many sessions that refer to one row: multixacts, and subtransactions that end both ways.
const SESSION: &str = "BEGIN;\nINSERT INTO child VALUES (1);\nSAVEPOINT a;\nINSERT INTO child VALUES (1);\n\
                       ROLLBACK TO a;\nSAVEPOINT b;\nINSERT INTO child VALUES (1);\nCOMMIT;\n";

fn check(major: u32) -> Result<()> {
    let workdir = Workdir::new()?;
    let script = workdir.path().join("session.sql");
    fs::write(&script, SESSION)?;
    let mut cluster = ClusterOptions::default()
        .programs(&server_version(major)?)
        .own_system()
        .initdb_option("--data-checksums")
        .set("max_prepared_transactions", "5")
        .set("track_commit_timestamp", "on")
        .set("wal_keep_size", "2GB")
        .start()?;
    for sql in WORKLOAD {
        cluster.query(sql)?;
    }
    let script = script.display().to_string();
    cluster.pgbench(&["-n", "-c", "8", "-j", "2", "-t", "400", "-f", &script])?;
    cluster.stop(StopMode::Fast)?;
    let wal = WalFiles::of(&cluster)?;
    let mut replay = SlruReplay::new(wal.dialect);
    replay.replay(wal.start, &wal.bytes)?;
    let (pages, maps, prepared) = replay.compare(cluster.data_dir())?;
    ensure!(
        pages > 6 && maps > 0 && prepared == 1,
        "too little was compared: {pages} pages, {maps} relation maps, {prepared} prepared transactions"
    );
    let checked = checksums(&cluster)?;
    ensure!(checked > 1000, "only {checked} pages were checked");
    Ok(())
}

/// Verifies every page of the shared catalogs and of two databases; gives how many.
fn checksums(cluster: &Cluster) -> Result<u64> {
    let mut checked = 0;
    for directory in ["global", "base/1", "base/5"] {
        for entry in fs::read_dir(cluster.data_dir().join(directory))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if RelationFileName::parse(&name).is_none() {
                continue;
            }
            let file = fs::read(entry.path())?;
            for (block, bytes) in (0..).zip(file.chunks(8192)) {
                let page = Page::new(bytes).with_context(|| name.clone())?;
                ensure!(page.is_verified(block), "{name} block {block}");
                checked += 1;
            }
        }
    }
    Ok(checked)
}

#[test]
fn postgresql_15() -> Result<()> {
    check(15)
}

#[test]
fn postgresql_17() -> Result<()> {
    check(17)
}
