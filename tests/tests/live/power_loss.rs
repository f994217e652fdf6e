//! Primary and mirror lose power together. Pages of WAL that were never synced may have reached the mirror's disk in any
//! order, so behind what was acknowledged there is a hole, and then WAL again: that must not keep anybody from taking over
//! with everything that was acknowledged, and must not be passed over without a person's word.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use walreceiver::mirror::flushed::{FlushedFile, TimelinePosition};
use walreceiver::mirror::state::MirrorState;
use walstream::{Lsn, PageSize};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Mirror, SHORT, segment_path, wait_until_it_serves,
};

const PAGE: PageSize = PageSize::DEFAULT;

#[test]
fn a_hole_behind_the_acknowledged_end_is_given_up_only_when_asked() -> Result<()> {
    let mut primary = ClusterOptions::default().start()?;
    let mirror = Mirror::init(&primary)?;
    let receiver = mirror.run(&[])?;
    let flushed = |primary: &Cluster| -> Result<Lsn> {
        let lsn = primary.flush_lsn()?;
        primary.wait_for_flush("gp_walreceiver", lsn, SHORT)?;
        Ok(lsn)
    };
    primary.query("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS i")?;
    let acknowledged = flushed(&primary)?;
    primary.query("CREATE TABLE lost AS SELECT generate_series(1, 10000) AS i")?;
    let end = flushed(&primary)?;
    primary.kill_9()?;
    receiver.kill_9()?;

    // What a receiver leaves that had written all of it and synced less.
    let state = MirrorState::load(mirror.directory())?;
    ensure!(state.flushed.lsn <= acknowledged, "{state:?}");
    FlushedFile::open(mirror.directory())?.record(TimelinePosition {
        lsn: acknowledged,
        ..state.flushed
    })?;
    let hole = acknowledged.page_start(PAGE) + 2 * PAGE.bytes();
    ensure!(hole + 2 * PAGE.bytes() < end, "{hole} {end}");
    let offset = hole.segment_offset(state.facts.dialect.segment_size);
    OpenOptions::new()
        .write(true)
        .open(segment_path(&mirror, hole)?)?
        .write_all_at(&[0; 8192], offset)?;

    let status = mirror.command("status")?.arg("--json").succeed(LONG)?;
    let local = &status.json()?["local_wal"];
    assert_eq!(local["whole"], true, "{status}");
    let damage = local["unacknowledged_damage"].as_str().unwrap_or_default();
    ensure!(damage.contains("WAL is damaged in"), "{status}");

    let activate =
        |arguments: &[&str]| Ok::<_, anyhow::Error>(mirror.command("activate")?.args(arguments));
    // To have the primary's word overruled is not to give up WAL.
    let refused = activate(&["-y", "--force"])?.run(LONG)?;
    refused.expect_failure(
        10,
        &[
            "WAL is damaged in",
            "nothing that is known to have been acknowledged is concerned",
            "--discard-damaged-wal activates with the WAL up to",
        ],
    )?;
    ensure!(
        !mirror.directory().join("recovery.signal").exists(),
        "{refused}"
    );
    let taken_over = activate(&["-y", "--discard-damaged-wal", "--json"])?.succeed(LONG)?;
    let report = taken_over.json()?;
    assert_eq!(report["unacknowledged_damage"], true, "{taken_over}");
    let kept: Lsn = report["end_lsn"].as_str().unwrap_or_default().parse()?;
    ensure!(acknowledged <= kept && kept <= hole, "{taken_over}");

    let mut new = Cluster::on_directory(&primary, mirror.directory())?;
    new.start()?;
    wait_until_it_serves(&new)?;
    assert_eq!(new.query("SELECT count(*) FROM kept")?, "1000");
    assert_eq!(new.query("SELECT to_regclass('lost') IS NULL")?, "t");
    // PostgreSQL's recovery found the same end: there its new timeline begins.
    let history = std::fs::read_to_string(mirror.directory().join("pg_wal/00000002.history"))?;
    ensure!(
        history.contains(&format!("\t{kept}\t")),
        "{kept}: {history}"
    );
    new.amcheck()
}
