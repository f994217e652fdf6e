//! Every way in which a run of `receive` ends, and the next that goes on: signals, kills, the server's death, the network's,
//! another kind of compression.

use anyhow::{Result, ensure};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, CutProxy, LONG, Receivewal, Running, SHORT, Signal, StopMode, wait_for,
};

use crate::receive_archive::{content, ensure_servers_own};

const NAME: &str = "pg_receivewal";

fn primary() -> Result<Cluster> {
    let primary = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .initdb_option("--wal-segsize=1")
        .start()?;
    primary.query("CREATE TABLE t (i int, p text)")?;
    Ok(primary)
}

fn load(primary: &Cluster) -> Result<()> {
    primary.query(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 1500) i",
    )?;
    Ok(())
}

fn received(primary: &Cluster) -> Result<()> {
    primary.wait_for_sent(NAME, primary.flush_lsn()?, LONG)
}

#[test]
fn goes_on_after_each_kind_of_end_and_of_compression() -> Result<()> {
    let primary = primary()?;
    let ours = Receivewal::ours()?;
    let conninfo = primary.conninfo();
    let kinds = ["none", "gzip:1", "lz4", "zstd:1", "none"];
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        for kind in kinds {
            let mut running = ours
                .command(["-D", "archive", "-v", "-Z", kind, "-d", &conninfo])
                .start()?;
            running.wait_for_output("starting log streaming", LONG)?;
            wait_for("the stream", LONG, || {
                Ok(primary.standby_column(NAME, "state")?.as_deref() == Some("streaming"))
            })?;
            load(&primary)?;
            received(&primary)?;
            running.signal(signal)?;
            let ended = running.wait(SHORT)?;
            if signal == Signal::KILL {
                assert_eq!(ended.signal(), Some(9));
                continue;
            }
            assert_eq!(ended.code(), Some(0), "{kind}: {ended}");
            ensure!(
                ended.stderr.contains("received interrupt signal, exiting"),
                "{ended}"
            );
            // A file that was compressed is whole as far as it goes.
            for name in ours
                .files()?
                .iter()
                .filter(|name| name.ends_with(".partial"))
            {
                content(&ours.archive().join(name))?;
            }
            let last = Lsn(primary.flush_lsn()?.0);
            ensure!(last.is_valid(), "{last}");
        }
    }
    let end = Lsn(primary.flush_lsn()?.0 - 1).to_string();
    ours.command(["-D", "archive", "-n", "-d", &conninfo, "-E", &end])
        .succeed(LONG)?;
    // What SIGKILL left of compressed files has no end; every complete segment is whole.
    for name in ours
        .files()?
        .iter()
        .filter(|name| name.ends_with(".partial"))
    {
        if name.len() > 32 {
            std::fs::remove_file(ours.archive().join(name))?;
        }
    }
    let complete = ensure_servers_own(&ours, &primary)?;
    let mut segments: Vec<&str> = complete.iter().filter_map(|name| name.get(..24)).collect();
    segments.dedup();
    let numbers: Vec<u64> = segments
        .iter()
        .map(|name| Ok(u64::from_str_radix(name.get(16..).unwrap_or_default(), 16)?))
        .collect::<Result<_>>()?;
    ensure!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "a gap: {segments:?}"
    );
    ensure!(numbers.len() > 10, "{segments:?}");
    Ok(())
}

fn reconnects(running: &mut Running, times: usize) -> Result<()> {
    wait_for("another start", LONG, || {
        Ok(running.stderr().matches("starting log streaming").count() > times)
    })
}

#[test]
fn goes_on_after_the_servers_death_and_the_networks() -> Result<()> {
    let mut primary = primary()?;
    let ours = Receivewal::ours()?;
    let proxy = CutProxy::start(primary.port())?;
    let tcp = format!(
        "host=127.0.0.1 port={} user=postgres password={}",
        proxy.port(),
        primary.password()
    );
    let mut running = ours.command(["-D", "archive", "-v", "-d", &tcp]).start()?;
    running.wait_for_output("starting log streaming", LONG)?;
    load(&primary)?;
    received(&primary)?;
    primary.kill_9()?;
    running.wait_for_output("server closed the connection unexpectedly", LONG)?;
    running.wait_for_output("disconnected; waiting 5 seconds to try again", LONG)?;
    primary.start()?;
    reconnects(&mut running, 1)?;
    load(&primary)?;
    received(&primary)?;
    proxy.cut();
    reconnects(&mut running, 2)?;
    load(&primary)?;
    received(&primary)?;
    // A stop in order waits until all is received, and is told as the end of the stream.
    primary.stop(StopMode::Fast)?;
    running.wait_for_output("replication stream was terminated before stop point", LONG)?;
    let stopped = running.terminate(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");
    let complete = ensure_servers_own(&ours, &primary)?;
    ensure!(complete.len() > 2, "{complete:?}");
    Ok(())
}

/// A reply that is asked for in the middle of a segment makes it flush and report: else a server that shuts down waits for
/// ever, or asks for ever.
#[test]
fn a_server_shuts_down_while_it_has_a_slot() -> Result<()> {
    for kind in ["none", "gzip:1", "lz4", "zstd:1"] {
        let mut primary = primary()?;
        let ours = Receivewal::ours()?;
        let conninfo = primary.conninfo();
        ours.command(["-d", &conninfo, "-S", "archive", "--create-slot"])
            .succeed(SHORT)?;
        let arguments = [
            "-D", "archive", "-S", "archive", "-s", "0", "-Z", kind, "-n", "-d", &conninfo,
        ];
        let running = ours.command(arguments).start()?;
        wait_for("the stream", LONG, || {
            Ok(primary.standby_column(NAME, "state")?.as_deref() == Some("streaming"))
        })?;
        load(&primary)?;
        received(&primary)?;
        // Fails when the server waits for a receiver that does not confirm the last record.
        primary.stop(StopMode::Fast)?;
        let ended = running.wait(LONG)?;
        assert_eq!(ended.code(), Some(1), "{ended}");
        ensure_servers_own(&ours, &primary)?;
        let last = ours.files()?.pop().unwrap_or_default();
        let held = content(&ours.archive().join(&last))?;
        let number = u64::from_str_radix(last.get(16..24).unwrap_or_default(), 16)?;
        let end = held.iter().rposition(|byte| *byte != 0).unwrap_or_default();
        let checkpoint = last_checkpoint(&primary)?;
        ensure!(
            checkpoint.0 < (number << 20) + end as u64,
            "{kind}: {last} ends before the shutdown checkpoint at {checkpoint}"
        );
    }
    Ok(())
}

/// Where the record is that a server writes last before it is down.
fn last_checkpoint(primary: &Cluster) -> Result<Lsn> {
    let data = primary.data_dir().to_string_lossy().into_owned();
    let control = primary.run("pg_controldata", &["-D", &data])?;
    let line = control
        .lines()
        .find_map(|line| line.strip_prefix("Latest checkpoint location:"));
    Ok(line.unwrap_or_default().trim().parse()?)
}

#[test]
fn an_idle_server_is_no_stall() -> Result<()> {
    let primary = primary()?;
    let ours = Receivewal::ours()?;
    let conninfo = primary.conninfo();
    let running = ours
        .command(["-D", "archive", "-s", "1", "-n", "-d", &conninfo])
        .start()?;
    wait_for("the stream", LONG, || {
        Ok(primary.standby_column(NAME, "state")?.as_deref() == Some("streaming"))
    })?;
    let column = |sql: &str| primary.standby_column(NAME, sql);
    let pid = column("pid")?;
    let first = column("extract(epoch FROM reply_time)")?.unwrap_or_default();
    let later = format!("extract(epoch FROM reply_time) > {first} + 3");
    wait_for("replies while nothing happens", LONG, || {
        Ok(column(&later)?.as_deref() == Some("t"))
    })?;
    assert_eq!(column("pid")?, pid, "reconnected");
    let stopped = running.terminate(SHORT)?;
    assert_eq!(
        (stopped.code(), stopped.stderr.lines().count()),
        (Some(0), 1),
        "{stopped}"
    );
    Ok(())
}
