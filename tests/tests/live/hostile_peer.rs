//! A peer that does not keep to the protocol while it streams, or closes: what no further connection can make good ends
//! the receiver at once with its exit code, the rest is tried again, and what was acknowledged stays whole.

use anyhow::{Result, ensure};
use walstream::Lsn;
use walstream_tests::{FakePeer, FakePrimary, LONG, RecordedWal, Recording, SHORT, end_in_order};

/// How much good WAL comes before the defect: not a record's end, a page's or a message's.
const GOOD: u64 = 300_001;

type Defect = fn(&mut FakePeer, &RecordedWal, Lsn) -> Result<()>;

struct Case {
    name: &'static str,
    code: i32,
    words: &'static [&'static str],
    defect: Defect,
}

const PERMANENT: &[Case] = &[
    Case {
        name: "another protocol",
        code: 7,
        words: &["does not keep to the protocol", "'H'"],
        defect: |peer, _, _| peer.send_raw(b"HTTP/1.1 500 Internal Server Error\r\n\r\n"),
    },
    Case {
        name: "an unknown message",
        code: 7,
        words: &[
            "does not keep to the protocol",
            "unknown tag",
            "out of step",
        ],
        defect: |peer, _, _| peer.send(b'~', b"what is this"),
    },
    Case {
        name: "a message of 2 GB",
        code: 7,
        words: &["'d' claims a length of 2147483647 bytes"],
        defect: |peer, _, _| {
            peer.send_raw(b"d\x7f\xff\xff\xff")?;
            peer.stall();
            Ok(())
        },
    },
    Case {
        name: "a negative length",
        code: 7,
        words: &["'d' claims a length of 4294967295 bytes"],
        defect: |peer, _, _| {
            peer.send_raw(b"d\xff\xff\xff\xff")?;
            peer.stall();
            Ok(())
        },
    },
    Case {
        name: "a message out of order",
        code: 7,
        words: &["DataRow while waiting for CopyData"],
        defect: |peer, _, _| peer.send(b'D', &[0, 0]),
    },
    Case {
        name: "an unknown replication message",
        code: 7,
        words: &["'q'"],
        defect: |peer, _, _| peer.send(b'd', b"q0123456789"),
    },
    Case {
        name: "a keepalive that is too short",
        code: 7,
        words: &["keepalive"],
        defect: |peer, _, _| peer.send(b'd', b"k0123"),
    },
    Case {
        name: "WAL with a gap",
        code: 7,
        words: &["gap", "expected data at"],
        defect: |peer, wal, at| wal.send(peer, at + 8..at + 4096),
    },
    Case {
        name: "WAL that goes back",
        code: 7,
        words: &["goes back", "expected data at"],
        defect: |peer, wal, at| wal.send(peer, Lsn(at.0 - 8192)..at),
    },
    Case {
        name: "the WAL was removed while it streamed",
        code: 5,
        words: &["has already been removed", "walreceiver init"],
        defect: |peer, _, _| {
            let text = "requested WAL segment 000000010000000000000009 has already been removed";
            peer.error("ERROR", "58P01", text)
        },
    },
    Case {
        name: "the next timeline begins before the end of this one",
        code: 6,
        words: &["diverged", "timeline 1 was left at 0/28 there"],
        defect: |peer, _, _| {
            peer.copy_done()?;
            while peer.read_message()?.0 != b'c' {}
            let columns = [("next_tli", 20), ("next_tli_startpos", 25)];
            peer.row(&columns, &[Some("2"), Some("0/28")])?;
            peer.done("START_REPLICATION")
        },
    },
    Case {
        name: "WAL behind the end of the stream",
        code: 7,
        words: &["XLogData", "the server had ended the stream"],
        defect: |peer, wal, at| {
            peer.copy_done()?;
            while peer.read_message()?.0 != b'c' {}
            wal.send(peer, at..at + 4096)
        },
    },
    Case {
        name: "the end of the stream without a next timeline",
        code: 7,
        words: &["ReadyForQuery while waiting for the next timeline"],
        defect: |peer, _, _| {
            peer.copy_done()?;
            while peer.read_message()?.0 != b'c' {}
            peer.ready()
        },
    },
];

const PASSING: &[Case] = &[
    Case {
        name: "closes in the middle of a message",
        code: 3,
        words: &["closed the connection"],
        defect: |peer, _, _| peer.send_raw(b"d\0\0\x20\0w0123"),
    },
    Case {
        name: "is shut down",
        code: 3,
        words: &["terminating connection due to administrator command"],
        defect: |peer, _, _| {
            let text = "terminating connection due to administrator command";
            peer.error("FATAL", "57P01", text)
        },
    },
    Case {
        name: "ends the command",
        code: 3,
        words: &["shutting down"],
        defect: |peer, _, _| peer.done("COPY 0"),
    },
    Case {
        name: "ends the stream and the command",
        code: 3,
        words: &["shutting down"],
        defect: |peer, _, _| {
            peer.copy_done()?;
            while peer.read_message()?.0 != b'c' {}
            peer.done("START_REPLICATION")
        },
    },
    // PostgreSQL answers a status update that asks for it even when it has ended the stream already. A receiver that took this
    // for nonsense ended for good when the primary was promoted at the moment at which it connected.
    Case {
        name: "answers behind the end of its stream",
        code: 3,
        words: &["shutting down"],
        defect: |peer, wal, _| {
            peer.copy_done()?;
            peer.keepalive(wal.end(), false)?;
            while peer.read_message()?.0 != b'c' {}
            peer.keepalive(wal.end(), false)?;
            peer.done("START_REPLICATION")
        },
    },
];

/// Streams `GOOD` bytes, waits until they are acknowledged, and then does what the case says. From the second connection
/// on it is a good server, and checks that it is asked for what comes next.
fn server(recording: &Recording, defect: Defect) -> Result<FakePrimary> {
    let wal = recording.wal.clone();
    let (first, broken) = (recording.held, recording.held + GOOD);
    FakePrimary::start(move |number, peer| {
        let from = wal.begin(peer)?;
        if number == 0 {
            ensure!(from == first, "asked for {from}");
            wal.send(peer, from..broken)?;
            peer.keepalive(wal.end(), true)?;
            while peer.read_status_update()?[1] < broken {}
            return defect(peer, &wal, broken);
        }
        ensure!(from == broken, "asked for {from} where {broken} comes next");
        wal.send(peer, from..wal.end())?;
        end_in_order(peer)
    })
}

#[test]
fn what_cannot_pass_ends_the_receiver() -> Result<()> {
    let recording = Recording::new()?;
    for case in PERMANENT {
        let mirror = recording.mirror()?;
        let fake = server(&recording, case.defect)?;
        let run = mirror.command("run")?.args(["--primary", &fake.conninfo()]);
        let finished = run.run(LONG)?;
        let checked = finished.expect_failure(case.code, case.words);
        checked.map_err(|error| error.context(case.name))?;
        ensure!(
            !finished.stderr.contains("panicked"),
            "{}: {finished}",
            case.name
        );
        ensure!(
            fake.accepted() == 1,
            "{}: {} connections",
            case.name,
            fake.accepted()
        );
        ensure!(
            fake.errors().is_empty(),
            "{}: {:?}",
            case.name,
            fake.errors()
        );
        // What was acknowledged was the last whole record before the defect, or more.
        let end = recording.ensure_whole(&mirror, recording.held + (GOOD - 65_536))?;
        ensure!(end <= recording.held + GOOD, "{}: {end}", case.name);
    }
    Ok(())
}

#[test]
fn what_can_pass_is_tried_again() -> Result<()> {
    let recording = Recording::new()?;
    for case in PASSING {
        let mirror = recording.mirror()?;
        let fake = server(&recording, case.defect)?;
        let other = mirror.copy()?;
        let once = other
            .command("run")?
            .args(["--no-loop", "--primary", &fake.conninfo()]);
        once.run(LONG)?
            .expect_failure(case.code, case.words)
            .map_err(|error| error.context(case.name))?;
        let fake = server(&recording, case.defect)?;
        let mut running =
            mirror.run(&["--primary", &fake.conninfo(), "--status-interval", "0.1"])?;
        let flushed = format!("{}: everything flushed", case.name);
        walstream_tests::wait_for(&flushed, SHORT, || {
            ensure!(running.is_running()?, "{}", running.stderr());
            let found = walreceiver::mirror::flushed::FlushedFile::read(mirror.directory())?;
            Ok(found.is_some_and(|found| found.lsn >= recording.wal.end()))
        })?;
        let finished = running.terminate(SHORT)?;
        ensure!(finished.code() == Some(0), "{}: {finished}", case.name);
        ensure!(
            fake.accepted() == 2,
            "{}: {} connections",
            case.name,
            fake.accepted()
        );
        ensure!(
            fake.errors().is_empty(),
            "{}: {:?}",
            case.name,
            fake.errors()
        );
        recording.ensure_whole(&mirror, recording.wal.end())?;
    }
    Ok(())
}
