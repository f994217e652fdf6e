//! `pg_basebackup --max-rate` through the sidecar takes as long as from PostgreSQL's own sender.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use walstream_tests::{Cluster, LONG};

use crate::sidecar::Sidecar;

/// In kilobytes of 1024 bytes for each second.
const RATE_KIB: f64 = 8192.0;

/// How long a backup takes, as a multiple of what its rate allows.
fn relative_duration(
    sidecar: &Sidecar,
    primary: &Cluster,
    conninfo: &str,
    name: &str,
    options: &[&str],
) -> Result<f64> {
    let target = sidecar.work.join(name);
    let program = primary.programs().client("pg_basebackup");
    let program = sidecar.work.external(&program);
    let rate = format!("--max-rate={RATE_KIB}k");
    let fixed = [
        "-Ft",
        "-X",
        "none",
        "-c",
        "fast",
        "--no-sync",
        &rate,
        "-d",
        conninfo,
        "-D",
    ];
    let program = program.args(fixed).arg(&target).args(options);
    let start = Instant::now();
    program.succeed(LONG)?;
    let took = start.elapsed().as_secs_f64();
    let mut bytes = 0;
    for entry in fs::read_dir(&target)? {
        bytes += entry?.metadata()?.len();
    }
    let due = f64::from(u32::try_from(bytes / 1024)?) / RATE_KIB;
    println!("{name}: {bytes} bytes took {took:.2} s, {due:.2} s are due");
    Ok(took / due)
}

#[test]
fn the_rate_is_kept_as_postgresql_keeps_it() -> Result<()> {
    let primary = Cluster::started()?;
    // Data that a compression leaves as large as it is.
    primary.query(
        "CREATE TABLE t AS SELECT gen_random_uuid() a, gen_random_uuid() b, gen_random_uuid() c
           FROM generate_series(1, 200000)",
    )?;
    primary.query("CHECKPOINT")?;
    let sidecar = Sidecar::start(&primary)?;
    for (name, options) in [
        ("plain", &[][..]),
        ("compressed", &["--compress=server-gzip:1"]),
    ] {
        let ours = relative_duration(
            &sidecar,
            &primary,
            &sidecar.conninfo(),
            &format!("ours-{name}"),
            options,
        )?;
        let theirs = relative_duration(
            &sidecar,
            &primary,
            &primary.conninfo(),
            &format!("theirs-{name}"),
            options,
        )?;
        // Neither faster than asked for but by its last piece, and neither much slower than the other.
        for (side, relative) in [("ours", ours), ("PostgreSQL", theirs)] {
            ensure!(
                (0.9..2.0).contains(&relative),
                "{name}, {side}: {relative:.2}"
            );
        }
        let ratio = ours / theirs;
        ensure!((0.75..1.33).contains(&ratio), "{name}: {ratio:.2}");
    }
    Ok(())
}
