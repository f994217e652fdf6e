//! Many followers of one hub: PostgreSQL's own programs and ours, fast and slow; what they cost.

use std::fs;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream_tests::{Cluster, CutProxy, Hub, LONG, Receivewal, Running, SHORT, Signal, wait_for};

use crate::hub::{load, primary};
use crate::serve_archive::{begin_at, ensure_same_wal};

const MIB: u64 = 1 << 20;

/// Name of the first segment of the mirror.
fn first_segment(hub: &Hub) -> Result<String> {
    let mut names = walstream_tests::file_names(&hub.mirror().directory().join("pg_wal"))?;
    names.retain(|name| name.len() == 24 && name.starts_with("0000"));
    names.sort();
    Ok(names.first().context("no segments")?.clone())
}

/// An LSN of a status; 0/0 where there is none.
fn lsn_of(status: &serde_json::Value, name: &str) -> Lsn {
    let text = status.get(name).and_then(|lsn| lsn.as_str());
    text.and_then(|text| text.parse().ok())
        .unwrap_or(Lsn::INVALID)
}

fn caught_up(hub: &Hub, primary: &Cluster) -> Result<Lsn> {
    let end = primary.flush_lsn()?;
    wait_for("the hub", LONG, || {
        Ok(lsn_of(&hub.status()?, "served_lsn") >= end)
    })?;
    Ok(end)
}

#[test]
fn pg_receivewal_takes_every_byte_from_memory_and_from_files() -> Result<()> {
    let primary = primary()?;
    // Two segments fit into memory, the rest comes from files.
    let hub = Hub::start(&primary, &["--serve-memory", "2"])?;
    for _ in 0..3 {
        load(&primary)?;
    }
    let first = first_segment(&hub)?;
    for (name, options) in [
        ("plain", &["-n"][..]),
        ("slot", &["-n", "-S", "kept"]),
        ("synchronous", &["-n", "-S", "kept", "--synchronous"]),
    ] {
        for side in [Receivewal::theirs(primary.programs())?, Receivewal::ours()?] {
            let conninfo = hub.conninfo(name);
            begin_at(&side, &first)?;
            if options.contains(&"-S") {
                side.command([
                    "--create-slot",
                    "--if-not-exists",
                    "-S",
                    "kept",
                    "-d",
                    &conninfo,
                ])
                .succeed(SHORT)?;
            }
            let command = side.command(["-D", "archive", "-d", &conninfo]);
            let mut following = command.args(options).start()?;
            load(&primary)?;
            primary.query("SELECT pg_logical_emit_message(true, 'x', repeat('long', 700000))")?;
            let end = caught_up(&hub, &primary)?;
            wait_for("the follower", LONG, || {
                ensure!(following.is_running()?, "{name}: the follower has ended");
                let follower = hub.follower(name)?;
                let sent = follower.map(|follower| follower["sent_lsn"].clone());
                let sent = sent.as_ref().and_then(|sent| sent.as_str());
                Ok(sent.is_some_and(|sent| sent.parse::<Lsn>().is_ok_and(|sent| sent >= end)))
            })?;
            if options.contains(&"--synchronous") {
                wait_for("its flush", LONG, || {
                    let follower = hub.follower(name)?.unwrap_or_default();
                    let flushed = follower["flush_lsn"].as_str().unwrap_or_default();
                    Ok(flushed.parse::<Lsn>().is_ok_and(|flushed| flushed >= end))
                })?;
            }
            following.signal(Signal::INT)?;
            following.wait(LONG)?;
            ensure_same_wal(&primary.data_dir().join("pg_wal"), &side.archive(), end)
                .with_context(|| name.to_owned())?;
        }
    }
    Ok(())
}

/// A number of a process: `Name: number` in a file of /proc.
fn figure(running: &Running, file: &str, name: &str) -> Result<u64> {
    let pid = running.pid().as_raw_nonzero();
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    Ok(number.with_context(|| format!("no {name}"))?.parse()?)
}

/// Segments that the process has open, by their number of descriptors.
fn open_segments(running: &Running) -> Result<usize> {
    let pid = running.pid().as_raw_nonzero();
    let mut open = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        let name = target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let in_wal = target
            .parent()
            .is_some_and(|parent| parent.ends_with("pg_wal"));
        open += usize::from(in_wal && name.len() == 24);
    }
    Ok(open)
}

fn follow(
    hub: &Hub,
    sides: &mut Vec<(Receivewal, Running)>,
    count: usize,
    primary: &Cluster,
) -> Result<()> {
    let first = first_segment(hub)?;
    for number in sides.len()..count {
        let side = Receivewal::theirs(primary.programs())?;
        begin_at(&side, &first)?;
        let conninfo = hub.conninfo(&format!("f{number}"));
        let following = side.command(["-D", "archive", "-n", "--no-sync", "-d", &conninfo]);
        sides.push((side, following.start()?));
    }
    all_sent(hub, count, caught_up(hub, primary)?)
}

fn all_sent(hub: &Hub, count: usize, end: Lsn) -> Result<()> {
    wait_for(&format!("{count} followers at {end}"), LONG, || {
        let status = hub.status()?;
        let followers = status.get("followers").and_then(|all| all.as_array());
        let mut followers = followers.into_iter().flatten();
        let at_end = followers
            .by_ref()
            .filter(|follower| lsn_of(follower, "sent_lsn") >= end);
        Ok(at_end.count() == count)
    })
}

#[test]
fn fifty_followers_cost_little() -> Result<()> {
    let primary = primary()?;
    let mut hub = Hub::start(&primary, &["--no-replay"])?;
    for _ in 0..4 {
        load(&primary)?;
    }
    let mut sides = Vec::new();
    follow(&hub, &mut sides, 10, &primary)?;
    let before = figure(hub.running(), "status", "RssAnon")?;
    follow(&hub, &mut sides, 50, &primary)?;
    let after = figure(hub.running(), "status", "RssAnon")?;
    let each = after.saturating_sub(before) / 40;
    let open = open_segments(hub.running())?;
    // What 50 followers get from memory is read from no file: sendfile counts as reading, too. Replay would read it once.
    let read_before = figure(hub.running(), "io", "rchar")?;
    let start = primary.flush_lsn()?;
    for _ in 0..2 {
        load(&primary)?;
    }
    let end = caught_up(&hub, &primary)?;
    all_sent(&hub, 50, end)?;
    let read = figure(hub.running(), "io", "rchar")? - read_before;
    let wal = end.saturating_sub(start);
    println!(
        "{each} kB for each follower; {open} segments open; {read} bytes read from files for {wal} bytes of WAL to 50"
    );
    ensure!(each <= 256, "{each} kB for each follower");
    ensure!(open <= 24, "{open} segments are open for 50 followers");
    // What comes over a socket does not count.
    ensure!(
        read < MIB,
        "{read} bytes read from files for {wal} bytes of WAL"
    );
    for (_, following) in &mut sides {
        following.signal(Signal::INT)?;
    }
    for (side, following) in sides {
        following.wait(LONG)?;
        ensure_same_wal(&primary.data_dir().join("pg_wal"), &side.archive(), end)?;
    }
    Ok(())
}

#[test]
fn a_follower_that_stands_still_holds_up_nobody_and_goes_on_from_files() -> Result<()> {
    let primary = primary()?;
    let mut hub = Hub::start(&primary, &["--serve-memory", "1"])?;
    let mut sides = Vec::new();
    follow(&hub, &mut sides, 2, &primary)?;
    sides[0].1.signal(Signal::STOP)?;
    for _ in 0..8 {
        load(&primary)?;
    }
    let end = caught_up(&hub, &primary)?;
    primary.wait_for_flush("gp_walreceiver", end, LONG)?;
    wait_for("the other follower", LONG, || {
        let follower = hub.follower("f1")?.unwrap_or_default();
        let sent = follower["sent_lsn"].as_str().unwrap_or_default();
        Ok(sent.parse::<Lsn>()? >= end)
    })?;
    let memory = hub.status()?["memory_from_lsn"]
        .as_str()
        .unwrap_or_default()
        .parse::<Lsn>()?;
    ensure!(end.saturating_sub(memory) <= MIB, "memory from {memory}");
    let behind = hub.follower("f0")?.unwrap_or_default();
    let behind = behind["sent_lsn"]
        .as_str()
        .unwrap_or_default()
        .parse::<Lsn>()?;
    ensure!(
        behind < memory,
        "it was sent WAL up to {behind}, which is in memory"
    );
    sides[0].1.signal(Signal::CONT)?;
    all_sent(&hub, 2, end)?;
    // A hub that ends does not wait for one that stands still again, beyond its limit.
    sides[0].1.signal(Signal::STOP)?;
    load(&primary)?;
    let finished = hub.terminate()?;
    ensure!(finished.code() == Some(0), "{finished}");
    sides[0].1.signal(Signal::CONT)?;
    Ok(())
}

#[test]
fn half_a_record_that_turns_out_to_be_damaged_reaches_nobody() -> Result<()> {
    let primary = primary()?;
    let proxy = CutProxy::start(primary.port())?;
    let through_proxy = format!(
        "host=127.0.0.1 port={} user=postgres password={}",
        proxy.port(),
        primary.password()
    );
    let mut hub = Hub::start(&primary, &["--primary", &through_proxy])?;
    let side = Receivewal::theirs(primary.programs())?;
    begin_at(&side, &first_segment(&hub)?)?;
    let conninfo = hub.conninfo("f");
    let command = side.command(["-D", "archive", "-n", "--synchronous", "-d", &conninfo]);
    let mut following = command.start()?;
    all_sent(&hub, 1, caught_up(&hub, &primary)?)?;
    for round in 1..=4u64 {
        // Somewhere in one long record, whose first messages are checked page by page, written and flushed before its CRC.
        proxy.flip_after(round * 150_000, 0x10);
        primary.query("SELECT pg_logical_emit_message(true, 'x', repeat('long', 200000))")?;
        wait_for("damage", LONG, || Ok(!proxy.flip_pending()))?;
        all_sent(&hub, 1, caught_up(&hub, &primary)?)?;
        let damaged = hub
            .running()
            .stderr()
            .matches("received WAL is damaged")
            .count();
        ensure!(
            damaged as u64 >= round,
            "no damage was noticed in round {round}"
        );
    }
    let end = caught_up(&hub, &primary)?;
    ensure!(following.is_running()?, "the follower has ended");
    following.signal(Signal::INT)?;
    let ended = following.wait(LONG)?;
    ensure!(ended.code() == Some(0), "{ended}");
    ensure_same_wal(&primary.data_dir().join("pg_wal"), &side.archive(), end)
}
