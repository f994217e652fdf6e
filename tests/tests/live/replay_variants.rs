//! Clusters set up otherwise than most: how images are compressed, without images, with and without checksums, with tablespaces. Each is
//! replayed, compared with a standby, activated here, started, and asked whether it is sound and what the primary is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use walreceiver::demo::scratch_dir::private_dir;
use walstream::storage::control::DatabaseState;
use walstream_tests::data_directory::{control_file, ensure_same_data};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, ReplayScene, StopMode, ensure_same_lines, server_version,
    server_with_large_blocks, wait_until_it_serves,
};

use crate::replay::{dump, standby_at_end};

/// Changes pages of every kind that images and redo are for, twice over, with checkpoints between, so that images are made again.
const ROUND: &[&str] = &[
    "CREATE TABLE {t} (a int PRIMARY KEY, b text, c int[], p point) WITH (fillfactor = 70)",
    "INSERT INTO {t} SELECT g, md5(g::text), ARRAY[g, g % 7], point(g % 50, g / 50) FROM generate_series(1, 3000) g",
    "CREATE INDEX ON {t} USING gin (c); CREATE INDEX ON {t} USING gist (p); CREATE INDEX ON {t} USING spgist (b)",
    "CREATE INDEX ON {t} USING hash (a); CREATE INDEX ON {t} USING brin (a)",
    "CHECKPOINT",
    "UPDATE {t} SET b = repeat(b, 20) WHERE a % 3 = 0",
    "DELETE FROM {t} WHERE a % 4 = 0",
    "VACUUM {t}",
    "CHECKPOINT",
    "INSERT INTO {t} SELECT g, md5(g::text), ARRAY[g], point(g, 1) FROM generate_series(5001, 7000) g",
    "SELECT lo_from_bytea(0, 'large object'); ALTER TABLE {t} ADD COLUMN d numeric DEFAULT 1.5",
    "VACUUM FULL pg_class; REINDEX TABLE {t}",
    "CREATE DATABASE other_{t}",
    "CHECKPOINT; UPDATE {t} SET p = point(1, 1) WHERE a % 5 = 0",
    "CREATE TABLE {t}_dropped AS SELECT * FROM {t}; DROP TABLE {t}_dropped",
];

/// A cluster of version 15 that logs no hint bits unless its options say so.
fn options() -> Result<ClusterOptions> {
    Ok(ClusterOptions::default()
        .programs(&server_version(15)?)
        .set("wal_level", "logical")
        .set("wal_keep_size", "2GB"))
}

fn checksummed() -> Result<ClusterOptions> {
    Ok(options()?.initdb_option("--data-checksums"))
}

fn round(primary: &Cluster, table: &str) -> Result<()> {
    for statement in ROUND {
        for sql in statement.replace("{t}", table).split("; ") {
            primary.query(sql).with_context(|| sql.to_owned())?;
        }
    }
    Ok(())
}

/// A base backup after one round, then another one, and `pgbench`.
fn worked(options: &ClusterOptions) -> Result<ReplayScene> {
    let primary = options.start()?;
    round(&primary, "earlier")?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    let mut scene = ReplayScene::new(primary)?;
    work_on(&mut scene.primary)?;
    Ok(scene)
}

/// What comes after the base backup. The primary is stopped then.
fn work_on(primary: &mut Cluster) -> Result<()> {
    round(primary, "later")?;
    primary.query("UPDATE earlier SET b = md5(b) WHERE a % 2 = 0")?;
    primary.query("VACUUM (FREEZE) earlier")?;
    primary.pgbench(&["-n", "-c", "2", "-t", "100"])?;
    primary.stop(StopMode::Fast)?;
    Ok(())
}

/// Replays, compares with a standby, activates and starts; what is there then is what the primary has.
fn check(options: &ClusterOptions) -> Result<()> {
    let mut scene = worked(options)?;
    let standby = standby_at_end(&scene)?;
    let ours = scene.copy(&scene.backup, "ours")?;
    scene.replay(&ours)?.succeed(LONG)?;
    let pages = ensure_same_data(&standby, &ours)?;
    ensure!(pages > 3_000, "only {pages} pages");
    let server = activated(&scene, &ours)?;
    scene.primary.start()?;
    ensure_same_lines(&dump(&scene.primary)?, &dump(&server)?)?;
    server.amcheck()
}

/// Ends recovery of a replayed directory and starts PostgreSQL on it, which has nothing to recover.
pub(crate) fn activated(scene: &ReplayScene, ours: &Path) -> Result<Cluster> {
    let promoted = scene.replay(ours)?.args(["--target-action", "promote"]);
    promoted.succeed(LONG)?;
    let control = control_file(ours)?;
    assert_eq!(control.state, DatabaseState::ShutDown);
    if control.has_data_checksums() {
        let checksums = scene.primary.programs().program("pg_checksums");
        let check = scene.places.external(&checksums).args(["--check", "-D"]);
        check.arg(ours).succeed(LONG)?;
    }
    let mut server = Cluster::on_directory(&scene.primary, ours)?;
    server.start()?;
    wait_until_it_serves(&server)?;
    let log = server.log();
    ensure!(!log.contains("redo starts"), "{log}");
    Ok(server)
}

#[test]
fn images_compressed_with_pglz_and_checksums() -> Result<()> {
    check(&checksummed()?.set("wal_compression", "pglz"))
}

#[test]
fn images_compressed_with_lz4_without_checksums() -> Result<()> {
    check(&options()?.set("wal_compression", "lz4"))
}

#[test]
fn images_compressed_with_zstd_with_logged_hints() -> Result<()> {
    let options = options()?.set("wal_log_hints", "on");
    check(&options.set("wal_compression", "zstd"))
}

#[test]
fn no_images_of_full_pages() -> Result<()> {
    check(&options()?.set("full_page_writes", "off"))
}

#[test]
fn no_images_of_full_pages_and_checksums() -> Result<()> {
    check(&checksummed()?.set("full_page_writes", "off"))
}

/// The pages of the Greenplum family: of data, of WAL, and of commit state and the like.
#[test]
#[ignore = "needs the server that tests/servers/large_blocks builds"]
fn blocks_of_32_kb() -> Result<()> {
    let options = checksummed()?.programs(&server_with_large_blocks()?);
    let control = control_file(options.create()?.data_dir())?;
    assert_eq!(control.block_size.bytes(), 32768);
    assert_eq!(control.wal_block_size.bytes(), 32768);
    check(&options.set("wal_compression", "pglz"))
}

/// Each page is compared with the image that the primary logs beside each change, too.
#[test]
#[ignore = "needs the server that tests/servers/large_blocks builds"]
fn blocks_of_32_kb_compared_with_images() -> Result<()> {
    let options = options()?.programs(&server_with_large_blocks()?);
    let scene = worked(&options.set("wal_consistency_checking", "all"))?;
    let standby = standby_at_end(&scene)?;
    let ours = scene.copy(&scene.backup, "ours")?;
    let checked = scene.replay(&ours)?.arg("--check-consistency");
    let checked = checked.succeed(LONG)?;
    let compared = checked.json()?["pages_compared"].as_u64();
    ensure!(compared > Some(20_000), "{checked}");
    ensure_same_data(&standby, &ours)?;
    Ok(())
}

/// One tablespace is older than the base backup and lies elsewhere, with a database and a table in it; others come later, in the data
/// directory, as a location would be the primary's own on this machine.
#[test]
fn tablespaces() -> Result<()> {
    let primary = checksummed()?
        .set("allow_in_place_tablespaces", "on")
        .set("default_tablespace", "outside")
        .start()?;
    let outside = primary.scratch().join("outside");
    private_dir(&outside, primary.user())?;
    let location = outside.display().to_string();
    primary.query(&format!("CREATE TABLESPACE outside LOCATION '{location}'"))?;
    primary.query("CREATE DATABASE within TABLESPACE outside")?;
    round(&primary, "earlier")?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    let mut scene = ReplayScene::with_tablespace(primary, Some(&outside))?;
    for sql in [
        "CREATE TABLESPACE inside LOCATION ''",
        "CREATE TABLESPACE gone LOCATION ''",
        "CREATE TABLE moved (a int PRIMARY KEY) TABLESPACE gone",
        "INSERT INTO moved SELECT generate_series(1, 5000)",
        "ALTER TABLE moved SET TABLESPACE inside",
        "ALTER INDEX moved_pkey SET TABLESPACE pg_default",
        "DROP TABLESPACE gone",
        "CREATE DATABASE logged TABLESPACE inside STRATEGY wal_log",
        "CREATE DATABASE copied TEMPLATE within TABLESPACE inside STRATEGY file_copy",
        "ALTER DATABASE within SET TABLESPACE inside",
        "ALTER DATABASE logged SET TABLESPACE outside",
        "CREATE MATERIALIZED VIEW seen TABLESPACE inside AS SELECT * FROM moved",
    ] {
        scene.primary.query(sql).context(sql)?;
    }
    work_on(&mut scene.primary)?;

    let standby = standby_at_end(&scene)?;
    let ours = scene.copy(&scene.backup, "ours")?;
    scene.replay(&ours)?.succeed(LONG)?;
    let pages = ensure_same_data(&standby, &ours)?;
    ensure!(pages > 5_000, "only {pages} pages");
    let mut links = Vec::new();
    for entry in fs::read_dir(ours.join("pg_tblspc"))? {
        links.extend(fs::read_link(entry?.path()).ok());
    }
    let [own] = &links[..] else {
        anyhow::bail!("one tablespace is elsewhere: {links:?}");
    };
    ensure!(*own != outside);

    let server = activated(&scene, &ours)?;
    scene.primary.start()?;
    let found = dump(&server)?.replace(&own.display().to_string(), &location);
    ensure_same_lines(&dump(&scene.primary)?, &found)?;
    server.amcheck()
}
