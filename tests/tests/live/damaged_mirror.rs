//! A mirror whose files were damaged while nobody looked: each kind ends `run` and `activate` with a clear error, or is
//! an end of WAL behind all that was acknowledged and is received again.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use walreceiver::mirror::flushed::{FlushedFile, TimelinePosition};
use walreceiver::mirror::state::MirrorState;
use walstream::{Lsn, TimelineId};
use walstream_tests::{
    FakePrimary, Finished, LONG, Mirror, Recording, SHORT, segment_path, wait_for,
};

/// Nobody listens there, so a mirror may be activated.
const NOBODY: &str = "host=/nonexistent user=postgres connect_timeout=1";

struct Case {
    name: &'static str,
    damage: fn(&Mirror, &Recording) -> Result<()>,
    /// Exit codes of `run` and `activate`.
    codes: [i32; 2],
    words: &'static [&'static str],
}

const DAMAGE: &[Case] = &[
    Case {
        name: "the last segment is cut off",
        damage: |mirror, recording| {
            let file = OpenOptions::new()
                .write(true)
                .open(segment_path(mirror, recording.held)?)?;
            Ok(file.set_len(4096)?)
        },
        codes: [7, 7],
        words: &[
            "is 4096 bytes long instead of 1048576",
            "pg_wal/0000000",
            "make a new mirror",
        ],
    },
    Case {
        name: "the last segment's end is zeros",
        damage: |mirror, recording| overwrite(mirror, Lsn(recording.held.0 - 8192), &[0; 8192]),
        codes: [7, 7],
        words: &["pg_wal/0000000", "0/", "make a new mirror"],
    },
    Case {
        name: "half of the last record is zeros",
        damage: |mirror, recording| overwrite(mirror, Lsn(recording.held.0 - 16), &[0; 16]),
        codes: [7, 7],
        words: &["pg_wal/0000000", "0/", "make a new mirror"],
    },
    Case {
        name: "a segment in the middle is missing",
        damage: |mirror, recording| Ok(fs::remove_file(middle(mirror, recording)?)?),
        codes: [7, 7],
        words: &[
            "pg_wal/0000000",
            "is missing",
            "0/",
            "archive",
            "make a new mirror",
        ],
    },
    Case {
        name: "a page in the middle is zeros",
        damage: |mirror, recording| {
            let lsn = recording.wal.base() + (2 << 20);
            overwrite(mirror, lsn + 81_920, &[0; 8192])
        },
        codes: [7, 7],
        words: &[
            "WAL is damaged in",
            "pg_wal/0000000",
            "offset",
            "make a new mirror",
        ],
    },
    Case {
        name: "the history of its timeline is missing",
        damage: |mirror, recording| {
            let position = TimelinePosition {
                timeline: TimelineId(2),
                lsn: recording.held,
            };
            Ok(FlushedFile::open(mirror.directory())?.record(position)?)
        },
        codes: [7, 7],
        words: &["00000002.history", "is missing", "copy it from"],
    },
    Case {
        name: "the history of its timeline is damaged",
        damage: |mirror, recording| {
            let position = TimelinePosition {
                timeline: TimelineId(2),
                lsn: recording.held,
            };
            FlushedFile::open(mirror.directory())?.record(position)?;
            let path = mirror.directory().join("pg_wal/00000002.history");
            Ok(fs::write(path, "1\tnowhere\tno reason\n")?)
        },
        codes: [7, 7],
        words: &["00000002.history", "is damaged", "copy it anew"],
    },
    Case {
        name: "the state file is damaged",
        damage: |mirror, _| {
            let path = mirror.directory().join(MirrorState::NAME);
            let text = fs::read_to_string(&path)?.replacen("15", "16", 1);
            Ok(fs::write(path, text)?)
        },
        codes: [7, 7],
        words: &["walstream.mirror", "is damaged", "walreceiver init"],
    },
    Case {
        name: "the state file is missing",
        damage: |mirror, _| Ok(fs::remove_file(mirror.directory().join(MirrorState::NAME))?),
        codes: [2, 2],
        words: &["is not a mirror", "walstream.mirror", "walreceiver init"],
    },
];

#[test]
fn damage_before_the_acknowledged_end_is_never_taken_for_an_end() -> Result<()> {
    let recording = Recording::new()?;
    let wal = recording.wal.clone();
    let fake = FakePrimary::start(move |_, peer| wal.serve(peer))?;
    for case in DAMAGE {
        let mirror = recording.mirror()?;
        (case.damage)(&mirror, &recording).context(case.name)?;
        let run = mirror
            .command("run")?
            .args(["--primary", &fake.conninfo()])
            .run(LONG)?;
        check(&run, case, case.codes[0])?;
        let activate = mirror
            .command("activate")?
            .args(["-y", "--primary", NOBODY]);
        check(&activate.run(LONG)?, case, case.codes[1])?;
        let begun = mirror.directory().join("recovery.signal");
        ensure!(!begun.exists(), "{}: activation was begun", case.name);
    }
    Ok(())
}

fn check(finished: &Finished, case: &Case, code: i32) -> Result<()> {
    finished
        .expect_failure(code, case.words)
        .context(case.name)?;
    ensure!(
        !finished.stderr.contains("panicked"),
        "{}: {finished}",
        case.name
    );
    Ok(())
}

/// What lies behind the acknowledged end may be anything that a crash leaves: it is received again.
#[test]
fn what_was_not_acknowledged_may_be_torn() -> Result<()> {
    let recording = Recording::new()?;
    let half = 40;
    let next = recording
        .wal
        .slice(recording.held..recording.held + 20_000)?
        .to_vec();
    for (name, tail) in [
        ("half a record", next[..half].to_vec()),
        ("records and half of one", next[..10_001].to_vec()),
        (
            "a hole, then records",
            [&[0; 9000][..], &next[9000..]].concat(),
        ),
        ("junk", vec![0xA5; 8192]),
    ] {
        let mirror = recording.mirror()?;
        overwrite(&mirror, recording.held, &tail)?;
        let wal = recording.wal.clone();
        let fake = FakePrimary::start(move |_, peer| wal.serve(peer))?;
        let mut running = mirror
            .command("run")?
            .args(["--primary", &fake.conninfo()])
            .start()?;
        wait_for(&format!("{name}: everything flushed"), SHORT, || {
            ensure!(running.is_running()?, "{name}: {}", running.stderr());
            let found = FlushedFile::read(mirror.directory())?;
            Ok(found.is_some_and(|found| found.lsn >= recording.wal.end()))
        })?;
        let finished = running.terminate(SHORT)?;
        ensure!(finished.code() == Some(0), "{name}: {finished}");
        recording
            .ensure_whole(&mirror, recording.wal.end())
            .context(name)?;
    }
    Ok(())
}

/// Writes these bytes at this LSN, within its segment.
fn overwrite(mirror: &Mirror, lsn: Lsn, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .open(segment_path(mirror, lsn)?)?;
    Ok(file.write_all_at(bytes, lsn.0 & 0xF_FFFF)?)
}

fn middle(mirror: &Mirror, recording: &Recording) -> Result<PathBuf> {
    segment_path(mirror, recording.wal.base() + (1 << 20))
}
