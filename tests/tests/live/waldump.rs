//! The decoder finds in a server's WAL what that server's `pg_waldump` finds, record by record.

use anyhow::{Context, Result};
use walstream::wal::EndReason;
use walstream_tests::waldump::{decode_segments, ensure_equal, normal};
use walstream_tests::{ClusterOptions, LONG, StopMode, Workdir};

/// Everything that gives records a special form: images of each compression, long records, switches, two-phase commits,
/// logical messages, origins, subtransactions, every access method.
pub(crate) const WORKLOAD: &[&str] = &[
    "CREATE TABLE big (t text); ALTER TABLE big ALTER t SET STORAGE external",
    "INSERT INTO big SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 5) j, generate_series(1, 3000) i \
     GROUP BY j",
    "SELECT pg_switch_wal()",
    "BEGIN; INSERT INTO big VALUES ('x'); PREPARE TRANSACTION 'g'",
    "COMMIT PREPARED 'g'",
    "SELECT pg_logical_emit_message(true, 'p', repeat('x', 30000)), pg_logical_emit_message(false, 'p', repeat('y', 3000000))",
    "SELECT pg_replication_origin_create('o'), pg_replication_origin_session_setup('o'); INSERT INTO big VALUES ('origin')",
    "BEGIN; SAVEPOINT a; INSERT INTO big VALUES ('a'); SAVEPOINT b; INSERT INTO big VALUES ('b'); COMMIT",
    "CREATE TABLE i (a int, b text, c int[], p point)",
    "INSERT INTO i SELECT g, md5(g::text), ARRAY[g, g + 1], point(g, g) FROM generate_series(1, 3000) g",
    "CREATE INDEX ON i (a); CREATE INDEX ON i USING hash (b); CREATE INDEX ON i USING gin (c)",
    "CREATE INDEX ON i USING gist (p); CREATE INDEX ON i USING spgist (p); CREATE INDEX ON i USING brin (a)",
    "UPDATE i SET a = a + 1; DELETE FROM i WHERE a % 3 = 0",
    "VACUUM FULL i",
    "TRUNCATE i; DROP TABLE i; CREATE SEQUENCE s; SELECT nextval('s')",
    "CREATE DATABASE other",
    "SELECT pg_switch_wal()",
];

#[test]
fn the_decoder_agrees_with_pg_waldump() -> Result<()> {
    let mut cluster = ClusterOptions::default()
        .set("wal_level", "logical")
        .set("max_prepared_transactions", "5")
        .set("wal_keep_size", "1GB")
        .start()?;
    cluster.pgbench(&["-i", "-s", "1", "-q"])?;
    for compression in ["off", "pglz", "lz4", "zstd"] {
        // A checkpoint lets every page be logged whole once more.
        cluster.query(&format!("ALTER SYSTEM SET wal_compression = {compression}"))?;
        cluster.query("SELECT pg_reload_conf()")?;
        cluster.query("CHECKPOINT")?;
        cluster.pgbench(&["-c", "2", "-t", "100"])?;
    }
    for sql in WORKLOAD {
        cluster.query(sql)?;
    }
    cluster.stop(StopMode::Fast)?;

    let directory = cluster.data_dir().join("pg_wal");
    let mut names: Vec<String> = std::fs::read_dir(&directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.retain(|name| name.len() == 24);
    names.sort();
    let mut bytes = Vec::new();
    for name in &names {
        bytes.extend(cluster.wal_file(name)?);
    }
    let decoded = decode_segments(&bytes, usize::MAX)?;
    assert!(
        matches!(decoded.end.reason, EndReason::Zeros),
        "{:?}",
        decoded.end
    );
    let methods: Vec<&str> = decoded.images.keys().copied().collect();
    assert_eq!(methods, ["lz4", "none", "pglz", "zstd"]);

    // pg_waldump ends with code 1 at the end of WAL, as it takes that for an error.
    let workdir = Workdir::new()?;
    let finished = workdir
        .external(&cluster.programs().program("pg_waldump"))
        .arg("--bkp-details")
        .arg(directory.join(names.first().context("no WAL")?))
        .arg(names.last().context("no WAL")?)
        .run(LONG)?;
    ensure_equal(&decoded.lines, &normal(&finished.stdout, &decoded.dialect)?)?;

    for chunk in [8192, 100_003, 1021] {
        let again = decode_segments(&bytes, chunk)?;
        assert_eq!(again.end, decoded.end);
        ensure_equal(&again.lines, &decoded.lines)?;
    }
    Ok(())
}
