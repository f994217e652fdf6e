//! The tests' own ground: `psql` and a real server show that the fake primary speaks the protocol and that the proxy
//! passes, corrupts, stalls and cuts.

use anyhow::Result;
use walstream::Lsn;
use walstream_tests::{Cluster, CutProxy, FakePrimary, FakeSystem, LONG, SHORT, Workdir, wait_for};

#[test]
fn psql_takes_the_fake_primary_for_a_server() -> Result<()> {
    let cluster = Cluster::started()?;
    let system = FakeSystem::new(7_123_456_789, Lsn(0x1_0300_0148));
    let fake = FakePrimary::start(move |_, peer| {
        let query = peer.answer(&system)?;
        peer.error("ERROR", "42601", &format!("no answer to {query}"))?;
        peer.ready()?;
        peer.stall();
        Ok(())
    })?;
    let conninfo = format!("{} replication=1", fake.conninfo());
    let psql = |sql: &str| cluster.run("psql", &["-X", "-A", "-t", "-c", sql, "-d", &conninfo]);
    assert_eq!(psql("IDENTIFY_SYSTEM")?, "7123456789|1|1/3000148|");
    assert_eq!(psql("SHOW wal_segment_size")?, "16MB");
    let error = psql("BASE_BACKUP").expect_err("an unknown command");
    assert!(
        error.to_string().contains("no answer to BASE_BACKUP"),
        "{error}"
    );
    assert_eq!(fake.accepted(), 3);
    Ok(())
}

#[test]
fn the_proxy_passes_stalls_flips_and_cuts() -> Result<()> {
    let cluster = Cluster::started()?;
    let proxy = CutProxy::start(cluster.port())?;
    let conninfo = cluster.tcp_conninfo().replace(
        &format!("port={}", cluster.port()),
        &format!("port={}", proxy.port()),
    );
    let work = Workdir::new()?;
    let psql = |sql: &str| {
        let program = work.external(&cluster.programs().program("psql"));
        program.args([
            "-X",
            "-A",
            "-t",
            "-c",
            sql,
            "-d",
            &format!("{conninfo} sslmode=disable"),
        ])
    };
    let long = "SELECT repeat('a', 100000)";
    let plain = psql(long).succeed(LONG)?;
    assert_eq!(plain.stdout.trim().len(), 100_000);
    assert!(proxy.bytes_down() > 100_000);

    proxy.flip_after(50_000, 0x04);
    let flipped = psql(long).succeed(LONG)?;
    assert!(!proxy.flip_pending());
    assert_eq!(
        flipped.stdout.matches('e').count(),
        1,
        "exactly one 'a' became an 'e'"
    );

    proxy.cut_after(50_000);
    let cut = psql(long).run(LONG)?;
    cut.expect_failure(2, &["server closed the connection unexpectedly"])?;

    proxy.refuse();
    psql("SELECT 1").run(LONG)?.expect_failure(2, &[])?;
    proxy.restore();

    proxy.freeze();
    let before = proxy.accepted();
    let mut stalled = psql("SELECT 1").start()?;
    wait_for("a stalled connection", SHORT, || {
        Ok(proxy.accepted() > before)
    })?;
    assert!(stalled.is_running()?);
    proxy.restore();
    assert_eq!(stalled.wait(LONG)?.stdout, "1\n");
    Ok(())
}
