//! The disk fails while `receive` archives: it ends with exit code 8, says which file and what to do, has told the server
//! nothing that is not in the archive, and goes on where it was once the cause is gone.

use std::path::Path;
use std::sync::PoisonError;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream_tests::{LONG, Program, Receivewal, Recording, SHORT, wait_for};

use crate::failing_disk::{build_shim, server};
use crate::receive_faults::{SEGMENT, archive_from, held, served};

/// The archive is the server's WAL from its first segment on, at least up to `least`; zeros may follow.
fn ensure_own(recording: &Recording, ours: &Receivewal, start: Lsn, least: Lsn) -> Result<()> {
    let found = held(ours, start)?;
    let expected = recording.wal.slice(start..recording.wal.end())?;
    let same = found
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    let end = start + u64::try_from(same)?;
    ensure!(
        end >= least,
        "the archive is the server's up to {end}, {least} was acknowledged"
    );
    // A message that was being written may have arrived in part; nothing else may differ.
    let rest = found.get(same..).unwrap_or_default();
    ensure!(
        rest.iter().all(|byte| *byte == 0),
        "other bytes behind {end}"
    );
    Ok(())
}

/// `run` gives the failing `walreceiver receive` with these arguments.
fn fails_then_goes_on(
    run: impl FnOnce(&Receivewal, &[&str]) -> Result<Program>,
    words: &[&str],
) -> Result<()> {
    let recording = Recording::new()?;
    let start = Lsn(recording.held.0 & !(SEGMENT - 1));
    let ours = archive_from(start)?;
    let (fake, told) = server(served(&recording))?;
    let conninfo = fake.conninfo();
    let arguments = ["-D", "archive", "--synchronous", "-d", &conninfo];
    let finished = run(&ours, &arguments)?.run(LONG)?;
    finished.expect_failure(8, words)?;
    ensure!(!finished.stderr.contains("panicked"), "{finished}");
    ensure!(fake.accepted() <= 1, "it tried again: {finished}");
    let acknowledged = *told.lock().unwrap_or_else(PoisonError::into_inner);
    ensure_own(&recording, &ours, start, acknowledged).with_context(|| finished.to_string())?;
    let mut running = ours.own_name(arguments)?.start()?;
    wait_for("everything flushed", SHORT, || {
        ensure!(running.is_running()?, "{}", running.stderr());
        Ok(*told.lock().unwrap_or_else(PoisonError::into_inner) >= recording.wal.end())
    })?;
    let finished = running.terminate(SHORT)?;
    ensure!(finished.code() == Some(0), "{finished}");
    ensure_own(&recording, &ours, start, recording.wal.end())
}

#[test]
fn a_failed_sync_ends_it_and_nothing_after_it_is_acknowledged() -> Result<()> {
    for good_syncs in ["0", "4"] {
        fails_then_goes_on(
            |ours, arguments| {
                let shim = build_shim(ours.workdir())?;
                let program = ours.own_name(arguments)?;
                Ok(program
                    .env("LD_PRELOAD", shim)
                    .env("GOOD_SYNCS", good_syncs))
            },
            &["could not fsync file", "0000000", "Input/output error"],
        )
        .with_context(|| format!("{good_syncs} good syncs"))?;
    }
    Ok(())
}

#[test]
fn a_file_that_may_not_grow_ends_it() -> Result<()> {
    fails_then_goes_on(
        |ours, arguments| {
            // 1 MB segments cannot be made when files may have 512 blocks of 512 bytes.
            // Without `-n` it would try again, as `pg_receivewal` does: room may be made.
            let script = "trap '' XFSZ; ulimit -f 512; exec ./walreceiver receive -n \"$@\"";
            let shell = ours.workdir().external(Path::new("/bin/sh"));
            Ok(shell.args(["-c", script, "sh"]).args(arguments))
        },
        &["could not", "0000000", "File too large"],
    )
}
