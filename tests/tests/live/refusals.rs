//! A server that refuses: password, replication right, `pg_hba.conf`, slot, another system. `run` and `init` say what the
//! server said and end with the documented code, without trying again.

use anyhow::{Result, ensure};
use walstream_tests::{Cluster, ClusterOptions, LONG, Mirror, SHORT, Workdir};

struct Case {
    name: &'static str,
    conninfo: String,
    code: i32,
    words: &'static [&'static str],
}

#[test]
fn what_the_server_refuses_is_not_tried_again() -> Result<()> {
    let cluster = ClusterOptions::default()
        .hba("local replication unlisted reject")
        .hba("host all,replication unlisted 127.0.0.1/32 reject")
        .start()?;
    cluster.query("CREATE ROLE plain LOGIN; CREATE ROLE unlisted LOGIN REPLICATION")?;
    let socket = cluster.conninfo();
    let cases = [
        Case {
            name: "wrong password",
            conninfo: cluster.tcp_conninfo().replace(cluster.password(), "wrong"),
            code: 4,
            words: &["127.0.0.1", "password authentication failed for user"],
        },
        Case {
            name: "no password",
            conninfo: format!("host=127.0.0.1 port={} user=postgres", cluster.port()),
            code: 4,
            words: &["password"],
        },
        Case {
            name: "no replication right",
            conninfo: socket.replace("user=postgres", "user=plain"),
            code: 4,
            words: &["must be superuser or replication role"],
        },
        Case {
            name: "rejected by pg_hba.conf",
            conninfo: socket.replace("user=postgres", "user=unlisted"),
            code: 4,
            words: &["pg_hba.conf rejects replication connection", "unlisted"],
        },
    ];
    let mirror = Mirror::init(&cluster)?;
    let work = Workdir::new()?;
    for case in &cases {
        let name = case.name;
        let run = mirror.command("run")?.args(["--primary", &case.conninfo]);
        let finished = run.run(LONG)?;
        finished
            .expect_failure(case.code, case.words)
            .map_err(|error| error.context(name))?;
        ensure!(
            !finished.stderr.contains("retry_in_ms"),
            "{name} was tried again: {finished}"
        );
        ensure!(
            !finished.stderr.contains("=wrong"),
            "{name}: a password in {finished}"
        );
        let init = work.program("walreceiver")?.args(["init", "-y", "-D"]);
        let target = work.join("new");
        init.arg(&target)
            .args(["--primary", &case.conninfo])
            .run(LONG)?
            .expect_failure(case.code, case.words)
            .map_err(|error| error.context(name))?;
        ensure!(!target.exists(), "{name}: init left {}", target.display());
    }
    let other = ClusterOptions::default().own_system().start()?;
    let finished = mirror
        .command("run")?
        .args(["--primary", &other.conninfo()])
        .run(LONG)?;
    finished.expect_failure(6, &["another system", "walreceiver init", "--primary"])?;
    for cluster in [&other, &cluster] {
        let identifier = cluster.system_identifier()?.to_string();
        ensure!(
            finished.stderr.contains(&identifier),
            "no {identifier} in {finished}"
        );
    }
    let run = mirror
        .command("run")?
        .args(["--slot", "no_such_slot"])
        .run(LONG)?;
    let words = ["replication slot \"no_such_slot\" does not exist", "--slot"];
    run.expect_failure(5, &words)?;
    goes_on(&cluster, &mirror)
}

/// After all of that, the mirror goes on with the right server as if nothing had been.
fn goes_on(cluster: &Cluster, mirror: &Mirror) -> Result<()> {
    let running = mirror.run(&[])?;
    cluster.query("CREATE TABLE t AS SELECT 1")?;
    cluster.wait_for_flush("gp_walreceiver", cluster.flush_lsn()?, SHORT)?;
    ensure!(
        running.terminate(SHORT)?.code() == Some(0),
        "not ended in order"
    );
    Ok(())
}
