//! The server no longer has the WAL that the mirror needs next: with a slot that it has given up, and without a slot. The
//! receiver ends with exit code 5 and says what is missing; the mirror is still whole, and can be activated.

use anyhow::{Result, ensure};
use walreceiver::mirror::flushed::FlushedFile;
use walstream_tests::{ClusterOptions, LONG, Mirror, SHORT, StopMode, wait_for};

#[test]
fn removed_wal_ends_the_receiver_and_keeps_the_mirror() -> Result<()> {
    let mut cluster = ClusterOptions::default()
        .initdb_option("--wal-segsize=1")
        .start()?;
    let with_slot = Mirror::init(&cluster)?;
    let reserved = "SELECT restart_lsn IS NOT NULL FROM pg_replication_slots";
    ensure!(
        cluster.query(reserved)? == "t",
        "the slot keeps nothing yet"
    );
    let without = Mirror::init_with(&cluster.conninfo(), &["--no-slot"])?;
    let mut held = Vec::new();
    for mirror in [&with_slot, &without] {
        let running = mirror.run(&[])?;
        cluster.query("CREATE TABLE IF NOT EXISTS t (i int); INSERT INTO t SELECT 1")?;
        cluster.wait_for_flush("gp_walreceiver", cluster.flush_lsn()?, SHORT)?;
        running.terminate(SHORT)?;
        held.push(FlushedFile::read(mirror.directory())?);
    }
    for (name, value) in [
        ("max_wal_size", "2MB"),
        ("min_wal_size", "2MB"),
        ("max_slot_wal_keep_size", "1MB"),
    ] {
        cluster.alter_system(name, value)?;
    }
    wait_for("a lost slot", LONG, || {
        cluster.query("CREATE TABLE x AS SELECT generate_series(1, 20000); DROP TABLE x")?;
        cluster.query("CHECKPOINT")?;
        Ok(cluster.query("SELECT wal_status FROM pg_replication_slots")? == "lost")
    })?;
    let words = [
        "requested WAL segment",
        "has already been removed",
        "walreceiver init",
        "archive",
        "max_slot_wal_keep_size",
    ];
    let lost = with_slot.command("run")?.run(LONG)?;
    lost.expect_failure(5, &words)?;
    let removed = without.command("run")?.run(LONG)?;
    removed.expect_failure(5, &words)?;
    for finished in [&lost, &removed] {
        ensure!(
            !finished.stderr.contains("retry_in_ms"),
            "tried again: {finished}"
        );
    }
    cluster.stop(StopMode::Immediate)?;
    for (mirror, before) in [&with_slot, &without].into_iter().zip(held) {
        ensure!(
            FlushedFile::read(mirror.directory())? == before,
            "a failed run moved the end"
        );
        let activated = mirror
            .command("activate")?
            .args(["-y", "--json"])
            .succeed(LONG)?;
        let end = before
            .map(|position| position.lsn.to_string())
            .unwrap_or_default();
        ensure!(activated.stdout.contains(&end), "no {end} in {activated}");
    }
    Ok(())
}
