//! WAL that is damaged on its way is asked for once more; WAL that is damaged at the same place again ends the receiver.
//! None of it reaches the mirror.

use anyhow::{Result, ensure};
use walreceiver::mirror::flushed::FlushedFile;
use walstream::Lsn;
use walstream_tests::{
    FakePeer, FakePrimary, LONG, RecordedWal, Recording, SHORT, end_in_order, wait_for,
};

/// Where a server's WAL is wrong, and how.
#[derive(Clone, Copy, Debug)]
struct Flip {
    at: Lsn,
    mask: u8,
    /// How many connections get it wrong.
    times: usize,
}

fn server(wal: &RecordedWal, flip: Flip) -> Result<FakePrimary> {
    let wal = wal.clone();
    FakePrimary::start(move |number, peer| {
        let from = wal.begin(peer)?;
        if number >= flip.times {
            wal.send(peer, from..wal.end())?;
            return end_in_order(peer);
        }
        send_flipped(peer, &wal, from, flip)
    })
}

fn send_flipped(peer: &mut FakePeer, wal: &RecordedWal, from: Lsn, flip: Flip) -> Result<()> {
    let mut bytes = wal.slice(from..wal.end())?.to_vec();
    if let Some(byte) = bytes.get_mut(usize::try_from(flip.at.saturating_sub(from))?) {
        *byte ^= flip.mask;
    }
    let mut lsn = from;
    for piece in bytes.chunks(100_000) {
        peer.xlog_data(lsn, wal.end(), piece)?;
        lsn = lsn + u64::try_from(piece.len())?;
    }
    end_in_order(peer)
}

#[test]
fn damage_on_the_way_is_received_again() -> Result<()> {
    let recording = Recording::new()?;
    let mirror = recording.mirror()?;
    let flip = Flip {
        at: recording.held + 400_003,
        mask: 0x10,
        times: 1,
    };
    let fake = server(&recording.wal, flip)?;
    let mut running = mirror
        .command("run")?
        .args(["--primary", &fake.conninfo()])
        .start()?;
    wait_for("everything flushed", SHORT, || {
        ensure!(running.is_running()?, "{}", running.stderr());
        let found = FlushedFile::read(mirror.directory())?;
        Ok(found.is_some_and(|found| found.lsn >= recording.wal.end()))
    })?;
    let finished = running.terminate(SHORT)?;
    ensure!(finished.code() == Some(0), "{finished}");
    ensure!(
        finished.stderr.contains("received WAL is damaged"),
        "{finished}"
    );
    ensure!(fake.accepted() == 2, "{} connections", fake.accepted());
    recording.ensure_whole(&mirror, recording.wal.end())?;
    Ok(())
}

#[test]
fn damage_at_the_source_ends_the_receiver() -> Result<()> {
    let recording = Recording::new()?;
    let next_segment = Lsn((recording.held.0 | 0xF_FFFF) + 1);
    // A record's body or header; the address in a page header; the system identifier in a segment's first page.
    for (at, mask, words) in [
        (recording.held + 400_003, 0x10, "damaged"),
        (next_segment + 8, 0x01, "damaged"),
        (next_segment + 24, 0x01, "system"),
    ] {
        let mirror = recording.mirror()?;
        let flip = Flip {
            at,
            mask,
            times: usize::MAX,
        };
        let fake = server(&recording.wal, flip)?;
        let run =
            || Ok::<_, anyhow::Error>(mirror.command("run")?.args(["--primary", &fake.conninfo()]));
        let finished = run()?.run(LONG)?;
        finished.expect_failure(
            7,
            &[
                "received WAL is damaged",
                words,
                "received twice",
                "pg_waldump",
            ],
        )?;
        ensure!(!finished.stderr.contains("panicked"), "{finished}");
        ensure!(
            fake.accepted() == 2,
            "{} connections: {finished}",
            fake.accepted()
        );
        let end = recording.ensure_whole(&mirror, recording.held)?;
        ensure!(
            end <= at,
            "WAL up to {end} was kept, and it is damaged at {at}"
        );
        ensure!(
            finished.stderr.contains(&end.to_string()),
            "no {end} in {finished}"
        );
        // Nothing was written that a later start would have to be rid of.
        run()?
            .arg("--no-loop")
            .run(LONG)?
            .expect_failure(7, &["received WAL is damaged"])?;
        // A server with the right bytes is enough to go on.
        let good = server(&recording.wal, Flip { times: 0, ..flip })?;
        let mut running = mirror
            .command("run")?
            .args(["--primary", &good.conninfo()])
            .start()?;
        wait_for("everything flushed", SHORT, || {
            ensure!(running.is_running()?, "{}", running.stderr());
            let found = FlushedFile::read(mirror.directory())?;
            Ok(found.is_some_and(|found| found.lsn >= recording.wal.end()))
        })?;
        running.terminate(SHORT)?;
        recording.ensure_whole(&mirror, recording.wal.end())?;
    }
    Ok(())
}
