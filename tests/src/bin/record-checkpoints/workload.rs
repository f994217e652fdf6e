//! What the server does: everything that makes files, grows, cuts and removes them, and changes pages of SLRUs.

use anyhow::Result;
use walstream_tests::Cluster;

/// Tables of the session that writes all the time.
pub(crate) const BEFORE_LOAD: &str =
    "CREATE TABLE load (k int PRIMARY KEY, n int, pad text) WITH (fillfactor = 70);
     INSERT INTO load SELECT g, 0, repeat('p', 60) FROM generate_series(1, 300) g;
     CREATE TABLE log (at timestamptz, what text)";

/// What it does, with `pgbench`.
pub(crate) const LOAD: &str = "\\set k random(1, 300)
UPDATE load SET n = n + 1 WHERE k = :k;
INSERT INTO log VALUES (now(), 'something');
";

/// Rounds, each with four checkpoints.
const ROUNDS: u32 = 4;

/// Runs it.
pub(crate) fn run(server: &Cluster) -> Result<()> {
    once_before(server)?;
    for round in 0..ROUNDS {
        one_round(server, round)?;
    }
    Ok(())
}

/// What need not be done again and again.
fn once_before(server: &Cluster) -> Result<()> {
    for sql in [
        "CREATE TABLE multi (k int PRIMARY KEY, n int) WITH (fillfactor = 20)",
        "INSERT INTO multi SELECT g, 0 FROM generate_series(1, 20) g",
        // Multixacts of a transaction's own parts: more than a page of offsets, and several of members.
        "DO $$ BEGIN FOR i IN 1..2200 LOOP
           PERFORM 1 FROM multi WHERE k = 1 + i % 20 FOR KEY SHARE;
           BEGIN UPDATE multi SET n = i WHERE k = 1 + i % 20; EXCEPTION WHEN division_by_zero THEN NULL; END;
           COMMIT; END LOOP; END $$",
        "CHECKPOINT",
        // A database that is a copy of files, made and dropped.
        "CREATE DATABASE copied STRATEGY file_copy",
    ] {
        server.query(sql)?;
    }
    server.query_in(
        "copied",
        "CREATE TABLE in_copy AS SELECT generate_series(1, 2000) g",
    )?;
    server.query("DROP DATABASE copied")?;
    // One that stays, and whose template changes afterwards: the copy must not.
    server.query("CREATE DATABASE early STRATEGY file_copy")?;
    server.query_in(
        "template1",
        "CREATE TABLE in_template AS SELECT generate_series(1, 500) g",
    )?;
    Ok(())
}

fn one_round(server: &Cluster, round: u32) -> Result<()> {
    for sql in [
        // Prepared before one checkpoint, ended after the next, or the one after.
        format!("BEGIN; CREATE TABLE prepared_{round} (a int); INSERT INTO load VALUES (1000 + {round}, 0); \
                 PREPARE TRANSACTION 'one_{round}'"),
        format!("BEGIN; INSERT INTO multi VALUES (1000 + {round}, 0); SELECT * FROM multi WHERE k = 1 FOR KEY SHARE; \
                 PREPARE TRANSACTION 'two_{round}'"),
        // Began before a checkpoint and was prepared after it.
        format!("BEGIN; INSERT INTO multi VALUES (2000 + {round}, 0); CHECKPOINT; PREPARE TRANSACTION 'three_{round}'"),
        "SELECT * FROM multi WHERE k = 1 FOR SHARE".to_owned(),
        format!("CREATE TABLE t{round} (k int PRIMARY KEY, a int, b text)"),
        format!("INSERT INTO t{round} SELECT g, g % 9, md5(g::text) FROM generate_series(1, 1500) g"),
        format!("INSERT INTO t{round} SELECT 9000 + g, 1, (SELECT string_agg(md5((i * g)::text), '') FROM generate_series(1, 400) i) \
                 FROM generate_series(1, 4) g"),
        format!("CREATE INDEX ON t{round} (a, left(b, 40))"),
        "CHECKPOINT".to_owned(),
        format!("UPDATE t{round} SET a = a + 1 WHERE k % 3 = 0"),
        format!("DELETE FROM t{round} WHERE k > 700"),
        format!("COMMIT PREPARED 'one_{round}'"),
        "BEGIN; TRUNCATE log; INSERT INTO log SELECT now(), 'a line' FROM generate_series(1, 500); COMMIT".to_owned(),
        format!("CREATE TABLE short_{round} AS SELECT g FROM generate_series(1, 900) g"),
        "CHECKPOINT".to_owned(),
        // Prunes, clears, and cuts the table's end off.
        format!("VACUUM t{round}"),
        format!("DROP TABLE short_{round}, prepared_{round}"),
        format!("{} PREPARED 'two_{round}'", if round.is_multiple_of(2) { "COMMIT" } else { "ROLLBACK" }),
        format!("COMMIT PREPARED 'three_{round}'"),
        match round % 4 {
            0 => "VACUUM FULL pg_class".to_owned(),
            1 => "VACUUM FULL pg_authid".to_owned(),
            2 => "REINDEX INDEX pg_class_oid_index".to_owned(),
            _ => "CLUSTER load USING load_pkey".to_owned(),
        },
        format!("INSERT INTO t{round} SELECT g, 0, md5(g::text) FROM generate_series(2000, 2800) g"),
        "CHECKPOINT".to_owned(),
        format!("DELETE FROM t{round} WHERE k % 7 = 0"),
        format!("VACUUM (FREEZE) t{round}"),
        format!("DELETE FROM t{round} WHERE k % 7 = 1"),
        "SELECT pg_replication_origin_create('o'); SELECT pg_replication_origin_advance('o', '0/1234567')".to_owned(),
        if round.is_multiple_of(2) { "SELECT pg_replication_origin_drop('o')" } else { "SELECT 1" }.to_owned(),
    ] {
        server.query(&sql)?;
    }
    if round % 2 == 1 {
        server.query("SELECT pg_replication_origin_drop('o')")?;
    }
    Ok(())
}
