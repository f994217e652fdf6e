//! What changes in the recorded coordinator: the schema of a warehouse, one commit at a time.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use walstream::Lsn;
use walstream_tests::Cluster;

/// Prints where WAL stands after a commit, and with it that the commit was acknowledged.
const POSITION: &str = "SELECT pg_current_wal_flush_lsn();";

/// SQL of `count` changes from number `first` on, each a transaction of its own, each followed by its position.
pub(crate) fn script(first: usize, count: usize) -> String {
    paced(first, count, "")
}

/// As [`script`], with a pause between changes, so that they go on beside something else.
pub(crate) fn paced_script(first: usize, count: usize) -> String {
    paced(first, count, "SELECT FROM pg_sleep(0.05);\n")
}

fn paced(first: usize, count: usize, pause: &str) -> String {
    (first..first + count).fold(String::new(), |mut script, number| {
        // Writing to a string cannot fail.
        let _ = write!(script, "{}\n{POSITION}\n{pause}", change(number));
        script
    })
}

/// One change. Tables come and go, as they do in a warehouse.
fn change(number: usize) -> String {
    let group = number / 12;
    let schema = format!("s{group:03}");
    match number % 12 {
        0 => format!("CREATE SCHEMA {schema};"),
        1 => format!("CREATE ROLE analyst_{group:03} LOGIN;"),
        2 => format!(
            "CREATE TABLE {schema}.orders (id bigint PRIMARY KEY, day date NOT NULL, note text);"
        ),
        3 => format!("CREATE INDEX orders_day ON {schema}.orders (day);"),
        4 => format!(
            "CREATE FUNCTION {schema}.net(gross numeric) RETURNS numeric LANGUAGE sql IMMUTABLE \
             AS 'SELECT round(gross / 1.19, 2)';"
        ),
        5 => format!(
            "CREATE VIEW {schema}.recent AS SELECT id, day FROM {schema}.orders WHERE day > '2024-01-01';"
        ),
        6 => format!("GRANT USAGE ON SCHEMA {schema} TO analyst_{group:03};"),
        7 => format!("ALTER TABLE {schema}.orders ADD COLUMN amount numeric(12, 2) DEFAULT 0;"),
        8 => format!(
            "CREATE TABLE {schema}.staging (line text); COMMENT ON TABLE {schema}.staging IS 'kept a day';"
        ),
        9 => format!("CREATE TYPE {schema}.state AS ENUM ('new', 'paid', 'sent');"),
        10 => format!(
            "BEGIN; CREATE TABLE {schema}.other (a int); DROP TABLE {schema}.staging; COMMIT;"
        ),
        _ => format!("ANALYZE pg_class; ALTER TABLE {schema}.other RENAME TO regions;"),
    }
}

/// Arguments of a `psql` that runs a script in the warehouse.
pub(crate) fn arguments(cluster: &Cluster, script: &str) -> Vec<String> {
    let database = format!("{} dbname=warehouse", cluster.conninfo());
    let mut arguments: Vec<String> = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        .map(str::to_owned)
        .into();
    // Each line is a command of its own, so that each statement is a transaction.
    for line in script.lines() {
        for statement in statements(line) {
            arguments.push("-c".to_owned());
            arguments.push(statement);
        }
    }
    arguments.extend(["-d".to_owned(), database]);
    arguments
}

/// The statements of a line; those of an explicit transaction stay together.
fn statements(line: &str) -> Vec<String> {
    if line.starts_with("BEGIN;") {
        return vec![line.to_owned()];
    }
    line.split_inclusive("; ").map(str::to_owned).collect()
}

/// The positions that `psql` has printed.
pub(crate) fn commit_lsns(output: &str) -> Result<Vec<Lsn>> {
    let lines = output.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            line.parse()
                .with_context(|| format!("\"{line}\" is no LSN"))
        })
        .collect()
}

/// How many objects of each kind the warehouse holds in the end.
pub(crate) fn catalog_counts(cluster: &Cluster) -> Result<BTreeMap<&'static str, u64>> {
    let queries = [
        (
            "schemas",
            "SELECT count(*) FROM pg_namespace WHERE oid >= 16384",
        ),
        (
            "tables",
            "SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relkind = 'r'",
        ),
        (
            "indexes",
            "SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relkind = 'i'",
        ),
        (
            "views",
            "SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relkind = 'v'",
        ),
        (
            "functions",
            "SELECT count(*) FROM pg_proc WHERE oid >= 16384",
        ),
        ("roles", "SELECT count(*) FROM pg_roles WHERE oid >= 16384"),
    ];
    queries
        .into_iter()
        .map(|(name, sql)| Ok((name, cluster.query_in("warehouse", sql)?.parse()?)))
        .collect()
}
