//! A workload whose WAL has records of nearly every type, on servers of every version.

use anyhow::Result;
use walreceiver::demo::scratch_dir::private_dir;

use crate::{Cluster, ClusterOptions, StopMode, server_version};

/// Statements, each a call of `psql` and so one transaction unless it says otherwise.
const STATEMENTS: &[&str] = &[
    // Heap: every way to change a row.
    "CREATE TABLE t (id int PRIMARY KEY, n int, pad text) WITH (fillfactor = 50)",
    "INSERT INTO t SELECT g, g, repeat('x', 50) FROM generate_series(1, 2000) g",
    "UPDATE t SET n = n + 1 WHERE id % 2 = 0",
    "UPDATE t SET id = id + 10000, pad = repeat('y', 500) WHERE id % 5 = 0",
    "DELETE FROM t WHERE id % 7 = 0",
    "INSERT INTO t VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = 5",
    "INSERT INTO t VALUES (99999, 1) ON CONFLICT (id) DO UPDATE SET n = 5",
    "CREATE TABLE copied AS SELECT * FROM t",
    "VACUUM (FREEZE) t",
    "VACUUM copied",
    "BEGIN; CREATE TABLE gone (a int); INSERT INTO gone VALUES (1); ROLLBACK",
    "TRUNCATE copied",
    "DROP TABLE copied",
    "CREATE TABLE loaded (a int, b text); COPY loaded (a) FROM PROGRAM 'seq 2000'",
    "COPY loaded (a) FROM PROGRAM 'seq 9'",
    "BEGIN; TRUNCATE loaded; COPY loaded (a) FROM PROGRAM 'seq 2000' WITH (FREEZE); COMMIT",
    "VACUUM (FREEZE) loaded",
    "COPY loaded (a) FROM PROGRAM 'seq 9'",
    "SELECT * FROM loaded WHERE ctid = '(0,1)' FOR UPDATE",
    "UPDATE loaded SET b = repeat('z', 2000) WHERE ctid < '(1,1)'",
    "DELETE FROM loaded WHERE a % 3 = 0",
    "VACUUM loaded",
    "TRUNCATE loaded RESTART IDENTITY CASCADE",
    // A chain of versions that is pruned again and again, with line pointers freed at the array's end.
    "CREATE TABLE hot (k int PRIMARY KEY, n int, pad text); INSERT INTO hot VALUES (1, 0, repeat('x', 200))",
    "DO $$ BEGIN FOR i IN 1..200 LOOP UPDATE hot SET n = i; COMMIT; END LOOP; END $$",
    "CREATE TABLE parts (k int, v int) PARTITION BY LIST (k); CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1); \
     CREATE TABLE part_2 PARTITION OF parts FOR VALUES IN (2); INSERT INTO parts VALUES (1, 1); UPDATE parts SET k = 2",
    // Locks of several transactions at once; the prepared ones hold theirs.
    "BEGIN; SELECT * FROM t WHERE id = 1 FOR KEY SHARE; PREPARE TRANSACTION 'sharing'",
    "SELECT * FROM t WHERE id = 1 FOR SHARE",
    "BEGIN; UPDATE t SET n = 0 WHERE id = 2; UPDATE t SET n = 1 WHERE id = 2; PREPARE TRANSACTION 'updating'",
    "SELECT * FROM t WHERE id = 2 FOR KEY SHARE",
    "COMMIT PREPARED 'sharing'",
    "ROLLBACK PREPARED 'updating'",
    // Subtransactions: more than a backend reports one by one.
    "DO $$ BEGIN FOR i IN 1..70 LOOP BEGIN INSERT INTO t VALUES (200000 + i, 0); EXCEPTION WHEN OTHERS THEN NULL; END; \
     END LOOP; END $$",
    // Every access method: built, grown, shrunk.
    "CREATE TABLE i (a int, b text, c int[], p point, d int)",
    "INSERT INTO i SELECT g, md5(g::text), ARRAY[g, g % 7], point(g % 100, g / 100), g % 3 FROM generate_series(1, 4000) g",
    "CREATE INDEX ON i (a); CREATE INDEX ON i (d); CREATE INDEX hashed ON i USING hash (b)",
    "CREATE INDEX inverted ON i USING gin (c); CREATE INDEX ON i USING gist (p); CREATE INDEX ON i USING spgist (p)",
    "CREATE INDEX ON i USING spgist (b); CREATE INDEX ranges ON i USING brin (a) WITH (pages_per_range = 1)",
    "CREATE INDEX ON i USING gin (c) WITH (fastupdate = off)",
    "INSERT INTO i SELECT g, md5(g::text), ARRAY[g, g % 5], point(g % 90, g / 90), g % 3 FROM generate_series(4001, 9000) g",
    "SELECT brin_summarize_new_values('ranges'), brin_desummarize_range('ranges', 0), gin_clean_pending_list('inverted')",
    "DELETE FROM i WHERE a BETWEEN 100 AND 8000",
    "VACUUM i",
    "INSERT INTO i SELECT g, md5(g::text), ARRAY[g], point(g, -g), 1 FROM generate_series(1, 3000) g",
    "DELETE FROM i",
    "VACUUM i",
    // The second time, pages that the first one deleted are free to be used again.
    "SELECT txid_current()",
    "VACUUM i",
    "INSERT INTO i SELECT g, md5(g::text), ARRAY[g], point(g, -g), 1 FROM generate_series(1, 3000) g",
    "VACUUM FULL i",
    // A tree of postings: pages in its middle go, lists get items in their middle.
    "CREATE TABLE posted (c int[], n int) WITH (fillfactor = 10); CREATE INDEX posts ON posted USING gin (c) WITH (fastupdate = off)",
    "INSERT INTO posted SELECT ARRAY[1], g FROM generate_series(1, 3500) g",
    "DROP INDEX posts; INSERT INTO posted SELECT ARRAY[1], g FROM generate_series(3501, 30000) g",
    "CREATE INDEX ON posted USING gin (c) WITH (fastupdate = off)",
    "DELETE FROM posted WHERE n % 5 = 0 OR n BETWEEN 5000 AND 25000",
    "VACUUM posted",
    "INSERT INTO posted SELECT ARRAY[1], g FROM generate_series(1, 9000) g",
    // Dead rows that an index scan found make room; rows of one hash value move together.
    "CREATE TABLE same (a int, p point, n int) WITH (fillfactor = 10); \
     CREATE INDEX ON same USING hash (a); CREATE INDEX ON same USING gist (p)",
    "INSERT INTO same SELECT 1, point(1, 1), g FROM generate_series(1, 1800) g",
    "DELETE FROM same WHERE n % 3 = 0",
    "VACUUM same",
    "DELETE FROM same WHERE n > 600",
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(n) FROM same WHERE a = 1; \
     SELECT count(n) FROM same WHERE p <@ box '((0, 0), (2, 2))'",
    "INSERT INTO same SELECT 1, point(1, 1), g FROM generate_series(1, 800) g",
    // More ranges than a page of their map holds; summaries that outgrow their page.
    "CREATE TABLE sparse (n int, pad text) WITH (fillfactor = 10)",
    "INSERT INTO sparse SELECT g, repeat('x', 900) FROM generate_series(1, 1500) g",
    "CREATE INDEX ON sparse USING brin (n, pad) WITH (pages_per_range = 1)",
    "UPDATE sparse SET pad = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 12) i) WHERE n < 200",
    // B-trees: posting lists that are made, split by rows in their middle, split with their page, and lose rows.
    "CREATE TABLE dups (k int, n int, pad text) WITH (autovacuum_enabled = off); CREATE INDEX ON dups (k); CREATE INDEX ON dups (n)",
    "INSERT INTO dups SELECT CASE WHEN g % 2 = 0 THEN g % 900 ELSE 100000 + g END, g % 3 FROM generate_series(1, 20000) g",
    "DELETE FROM dups WHERE k >= 100000 OR (n = 0 AND k % 7 = 0)",
    "VACUUM dups",
    "INSERT INTO dups SELECT g * 2 % 900, 7 FROM generate_series(1, 10000) g",
    // Versions of rows that only the index has still: it deletes them when it needs room.
    "DO $$ BEGIN FOR i IN 1..40 LOOP UPDATE dups SET n = 100 - i % 2 WHERE ctid IN (SELECT ctid FROM dups WHERE k = 2 \
     LIMIT 20); COMMIT; END LOOP; END $$",
    "DELETE FROM dups WHERE k < 100",
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(pad) FROM dups WHERE k < 100; \
     INSERT INTO dups SELECT g % 100, 2 FROM generate_series(1, 3000) g",
    // Hash: tuples that move together, and dead ones that make room.
    "CREATE TABLE h (a int, pad text) WITH (autovacuum_enabled = off); CREATE INDEX ON h USING hash (a)",
    "INSERT INTO h SELECT 1 FROM generate_series(1, 3000); INSERT INTO h SELECT g FROM generate_series(1, 300) g",
    "DELETE FROM h WHERE a = 1 AND ctid::text ~ '[13579]\\)$'",
    "VACUUM h",
    "INSERT INTO h SELECT 2 FROM generate_series(1, 300)",
    "DELETE FROM h WHERE a = 2",
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(pad) FROM h WHERE a = 2; \
     INSERT INTO h SELECT 2 FROM generate_series(1, 600)",
    // SP-GiST: a root that is a leaf, prefixes that are split, nodes that are added, nulls.
    "CREATE TABLE sp (t text) WITH (autovacuum_enabled = off); CREATE INDEX ON sp USING spgist (t)",
    "INSERT INTO sp VALUES ('a'), ('b'), (NULL), ('c')",
    "DELETE FROM sp WHERE t = 'b'",
    "VACUUM sp",
    "INSERT INTO sp SELECT repeat('prefix', 10) || g FROM generate_series(1, 2000) g",
    "INSERT INTO sp SELECT left(repeat('prefix', 10), g % 60) || chr(65 + g % 50) || g FROM generate_series(1, 3000) g",
    "INSERT INTO sp SELECT NULL FROM generate_series(1, 1000)",
    // Catalogs and what is beside them.
    "CREATE SEQUENCE s; SELECT nextval('s')",
    "VACUUM FULL pg_class",
    "CREATE TYPE mood AS ENUM ('sad'); CREATE VIEW v AS SELECT b FROM i; CREATE SCHEMA app",
    "ALTER TABLE t ADD COLUMN extra int DEFAULT 3, ALTER n TYPE bigint",
    "COMMENT ON TABLE t IS 'commented'",
    "ANALYZE t",
    "CREATE DATABASE other",
    "DROP DATABASE other",
    "SELECT lo_from_bytea(0, 'large object')",
    "SELECT pg_logical_emit_message(true, 'p', repeat('x', 30000)), pg_logical_emit_message(false, 'p', 'short')",
    "SELECT pg_replication_origin_create('o'), pg_replication_origin_session_setup('o'); INSERT INTO t VALUES (300000, 1)",
    // The session before may not have ended yet, and has the origin until then.
    "DO $$ BEGIN LOOP BEGIN PERFORM pg_replication_origin_advance('o', '0/1234567'); EXIT; EXCEPTION WHEN object_in_use \
     THEN PERFORM pg_sleep(0.01); END; END LOOP; END $$",
    "SELECT pg_replication_origin_drop('o')",
    "SELECT pg_create_restore_point('here')",
    "SELECT pg_create_logical_replication_slot('rewriting', 'test_decoding')",
    "CREATE TABLE during_decoding (a int); ALTER TABLE during_decoding ADD COLUMN b int",
    "VACUUM FULL pg_attribute",
    "SELECT pg_drop_replication_slot('rewriting')",
    "SELECT txid_current() FROM generate_series(1, 10)",
    "SELECT pg_switch_wal()",
    "CHECKPOINT",
    "UPDATE t SET n = n + 1 WHERE id < 50",
];

/// A server of a version that has run the workload, with and without image compression, and was stopped.
///
/// # Errors
/// When the server or a statement fails.
pub fn run(major: u32) -> Result<Cluster> {
    run_with(major, &[])
}

/// As [`run`], with further settings.
///
/// # Errors
/// When the server or a statement fails.
pub fn run_with(major: u32, settings: &[(&str, &str)]) -> Result<Cluster> {
    let mut cluster = options(major)?.with(settings).start()?;
    work(&mut cluster, major)?;
    Ok(cluster)
}

/// What a server needs for the workload.
///
/// # Errors
/// When there is no server of this version.
pub fn options(major: u32) -> Result<ClusterOptions> {
    let keep = if major == 12 {
        ("wal_keep_segments", "128")
    } else {
        ("wal_keep_size", "1GB")
    };
    Ok(ClusterOptions::default()
        .programs(&server_version(major)?)
        .set("wal_level", "logical")
        .set("wal_log_hints", "on")
        .set("track_commit_timestamp", "on")
        .set(keep.0, keep.1)
        .set("max_wal_size", "2GB"))
}

/// Runs the workload on a server of these [`options`], and stops it.
///
/// # Errors
/// When a statement fails.
pub fn work(cluster: &mut Cluster, major: u32) -> Result<()> {
    for sql in STATEMENTS {
        cluster.query(sql)?;
    }
    let tablespace = cluster.scratch().join("tablespace");
    private_dir(&tablespace, cluster.user())?;
    cluster.query(&format!(
        "CREATE TABLESPACE there LOCATION '{}'",
        tablespace.display()
    ))?;
    cluster.query("CREATE TABLE elsewhere (a int) TABLESPACE there; DROP TABLE elsewhere")?;
    cluster.query("DROP TABLESPACE there")?;
    if major >= 15 {
        cluster.query("CREATE DATABASE copied STRATEGY file_copy")?;
    }
    let methods: &[&str] = if major >= 15 {
        &["pglz", "lz4", "zstd"]
    } else {
        &["on"]
    };
    for method in methods {
        cluster.alter_system("wal_compression", method)?;
        cluster.query("CHECKPOINT")?;
        cluster.query("UPDATE i SET d = d + 1 WHERE a % 3 = 0")?;
    }
    cluster.alter_system("full_page_writes", "off")?;
    cluster.query("CHECKPOINT")?;
    cluster.stop(StopMode::Fast)?;
    Ok(())
}
