//! `receive` under the name of `pg_receivewal`, beside PostgreSQL's: the same arguments to both, and the same exit code,
//! standard output and standard error.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use walstream::Lsn;
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Receivewal, SHORT, Signal, StopMode, ensure_same_output,
    wait_for,
};

/// Both programs.
struct Both {
    ours: Receivewal,
    theirs: Receivewal,
}

impl Both {
    fn of(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            ours: Receivewal::ours()?,
            theirs: Receivewal::theirs(cluster.programs())?,
        })
    }

    fn sides(&self) -> [&Receivewal; 2] {
        [&self.ours, &self.theirs]
    }

    /// Runs both with these arguments and compares.
    fn same(&self, arguments: &[&str]) -> Result<String> {
        self.same_with(arguments, &[], "")
    }

    fn same_with(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        stdin: &str,
    ) -> Result<String> {
        let run = |side: &Receivewal| {
            let mut command = side.command(arguments).stdin(stdin);
            for (name, value) in environment {
                command = command.env(name, value);
            }
            command.run(LONG)
        };
        let (our, their) = (run(&self.ours)?, run(&self.theirs)?);
        let what = format!("{arguments:?} {environment:?}");
        ensure_same_output(&what, (&self.ours, &our), (&self.theirs, &their))?;
        ensure!(
            self.ours.files()? == self.theirs.files()?,
            "{what}: ours left {:?}, PostgreSQL's {:?}",
            self.ours.files()?,
            self.theirs.files()?
        );
        Ok(our.stderr)
    }
}

#[test]
fn command_lines_that_are_wrong() -> Result<()> {
    let cluster = ClusterOptions::default().create()?;
    let both = Both::of(&cluster)?;
    for side in both.sides() {
        fs::write(side.workdir().join("file"), "")?;
        fs::create_dir(side.workdir().join("closed"))?;
        fs::set_permissions(side.workdir().join("closed"), Permissions::from_mode(0o000))?;
    }
    let cases: &[&[&str]] = &[
        &[],
        &["-x"],
        &["-nx"],
        &["-n", "-?"],
        &["-n", "--help"],
        &["-n", "-V"],
        &["-n", "--version"],
        &["-nV"],
        &["--foo"],
        &["--foo=bar"],
        &["--no"],
        &["--d=1"],
        &["--s", "1"],
        &["--c"],
        &["-D"],
        &["-Darchive", "-S"],
        &["--directory"],
        &["--verbose=1"],
        &["--no-sync=yes"],
        &["archive"],
        &["-D", "archive", "a", "b"],
        &["-D", "archive", "--", "-n"],
        &["-D", "archive", "-s", "abc"],
        &["-D", "archive", "-s", "5x"],
        &["-D", "archive", "-s", "-1"],
        &["-D", "archive", "-s", "2147484"],
        &["-D", "archive", "-s", "99999999999999999999"],
        &["-D", "archive", "-E", "abc"],
        &["-D", "archive", "-E", "1"],
        &["-D", "archive", "-E", "0/"],
        &["-D", "archive", "-E", "/1"],
        &["--create-slot"],
        &["--drop-slot"],
        &["--create-slot", "--drop-slot", "-S", "s"],
        &["-D", "archive", "--synchronous", "--no-sync"],
        &["-D", "archive", "-Z", "10"],
        &["-D", "archive", "-Z", "-2"],
        &["-D", "archive", "-Z", "gzip:0"],
        &["-D", "archive", "-Z", "gzip:10"],
        &["-D", "archive", "-Z", "lz4:13"],
        &["-D", "archive", "-Z", "none:1"],
        &["-D", "archive", "-Z", "foo"],
        &["-D", "archive", "-Z", "foo:1"],
        &["-D", "archive", "-Z", ":1"],
        &["-D", "archive", "-Z", "gzip:"],
        &["-D", "archive", "-Z", "gzip:level"],
        &["-D", "archive", "-Z", "gzip:level=x"],
        &["-D", "archive", "-Z", "gzip:level="],
        &["-D", "archive", "-Z", "gzip:level=3,"],
        &["-D", "archive", "-Z", "gzip:workers=2"],
        &["-D", "archive", "-Z", "gzip:frobnicate=1"],
        &["-D", "archive", "-Z", "zstd:99"],
        &["-D", "archive", "-Z", "lz4:level=13,level=1,x"],
        &["-D", "missing"],
        &["-D", "file"],
        &["-D", "closed"],
        &["--dir", "missing", "--comp=foo"],
        &["-D", "archive", "-d", "nonsense"],
        &["-D", "archive", "-d", "nonsense=1"],
        &["-D", "archive", "-d", "host='x"],
        &["-D", "archive", "-d", "postgresql://[::1"],
    ];
    for arguments in cases {
        both.same(arguments)?;
    }
    Ok(())
}

#[test]
fn servers_that_cannot_be_reached() -> Result<()> {
    let cluster = ClusterOptions::default().create()?;
    let both = Both::of(&cluster)?;
    let port = cluster.port().to_string();
    let nowhere = cluster.scratch().join("nowhere");
    let nowhere = nowhere.to_string_lossy();
    for arguments in [
        &["-D", "archive", "-h", "127.0.0.1", "-p", &port][..],
        &["-D", "archive", "-h", "localhost", "-p", &port, "-n"],
        &["-D", "archive", "-h", &nowhere, "-p", &port],
        &["-D", "archive", "-d", "host=127.0.0.1,127.0.0.1 port=1,2"],
        &["-D", "archive", "-h", "127.0.0.1", "-p", "0"],
        &["-D", "archive", "-h", "127.0.0.1", "-p", "65536"],
        &["-S", "s", "--create-slot", "-h", &nowhere, "-p", "1"],
    ] {
        both.same(arguments)?;
    }
    both.same_with(
        &["-D", "archive"],
        &[("PGHOST", &nowhere), ("PGPORT", "77")],
        "",
    )?;
    Ok(())
}

/// A server with a role for each way to be refused.
fn strict_cluster() -> Result<Cluster> {
    let cluster = ClusterOptions::default()
        .hba("local replication unlisted reject")
        .hba("host replication all 127.0.0.1/32 scram-sha-256")
        .set("wal_keep_size", "1GB")
        .start()?;
    cluster.query(
        "CREATE ROLE plain LOGIN PASSWORD 'right'; CREATE ROLE unlisted LOGIN REPLICATION;
         CREATE ROLE good LOGIN REPLICATION PASSWORD 'right'",
    )?;
    Ok(cluster)
}

#[test]
fn servers_that_refuse() -> Result<()> {
    let cluster = strict_cluster()?;
    let both = Both::of(&cluster)?;
    let port = cluster.port().to_string();
    let tcp = ["-D", "archive", "-h", "127.0.0.1", "-p", &port, "-n"];
    let with = |more: &[&'static str]| [&tcp[..], more].concat();
    let wrong = [("PGPASSWORD", "wrong")];
    both.same_with(&with(&["-U", "good"]), &wrong, "")?;
    both.same_with(&with(&["-U", "nobody_of_this_name"]), &wrong, "")?;
    both.same_with(&with(&["-U", "good", "-w"]), &[], "")?;
    both.same_with(&with(&["-U", "plain"]), &[("PGPASSWORD", "right")], "")?;
    // It asks for the password, here on standard error, since there is no terminal.
    both.same_with(&with(&["-U", "good", "-E", "0/1"]), &[], "wrong\n")?;
    both.same_with(&with(&["-U", "good", "-W"]), &[], "wrong\n")?;
    both.same_with(&with(&["-U", "good", "-v", "-E", "0/1"]), &[], "right\n")?;
    let socket = cluster.conninfo().replace("user=postgres", "user=unlisted");
    both.same(&["-D", "archive", "-d", &socket])?;
    Ok(())
}

#[test]
fn slots_are_made_and_dropped() -> Result<()> {
    let cluster = strict_cluster()?;
    let both = Both::of(&cluster)?;
    let conninfo = cluster.conninfo();
    let d = ["-d", conninfo.as_str()];
    let with = |more: &[&'static str]| [&d[..], more].concat();
    let slots = "SELECT slot_type, restart_lsn IS NULL, temporary FROM pg_replication_slots";
    for arguments in [
        with(&["-S", "archive", "--create-slot"]),
        with(&["-S", "archive", "--create-slot", "-v"]),
    ] {
        let theirs = both.theirs.command(&arguments).succeed(SHORT)?;
        let made = cluster.query(slots)?;
        both.theirs
            .command(with(&["-S", "archive", "--drop-slot"]))
            .succeed(SHORT)?;
        let ours = both.ours.command(&arguments).succeed(SHORT)?;
        ensure_same_output("create", (&both.ours, &ours), (&both.theirs, &theirs))?;
        assert_eq!(cluster.query(slots)?, made);
        // There is one already.
        both.same(&arguments)?;
        both.same(&[&arguments[..], &["--if-not-exists"]].concat())?;
        let ours = both
            .ours
            .command(with(&["-S", "archive", "--drop-slot", "-v"]))
            .succeed(SHORT)?;
        assert_eq!(
            ours.stderr,
            "pg_receivewal: dropping replication slot \"archive\"\n"
        );
        assert_eq!(cluster.query(slots)?, "");
    }
    for arguments in [
        with(&["-S", "none", "--drop-slot"]),
        with(&["-S", "none", "--drop-slot", "-v"]),
        with(&["-S", "No Name", "--create-slot"]),
        with(&["-S", "none", "-D", "archive", "-n"]),
        with(&["-S", "none", "-D", "archive", "-nv"]),
    ] {
        both.same(&arguments)?;
    }
    Ok(())
}

/// Under its own name a slot that is made holds WAL at once, so that none is lost before the first connection; and exit
/// codes are walreceiver's.
#[test]
fn the_own_name_reserves_wal_and_has_own_exit_codes() -> Result<()> {
    let cluster = strict_cluster()?;
    let ours = Receivewal::ours()?;
    let conninfo = cluster.conninfo();
    ours.own_name(["-d", &conninfo, "-S", "kept", "--create-slot"])?
        .succeed(SHORT)?;
    let reserved = "SELECT restart_lsn IS NOT NULL FROM pg_replication_slots";
    assert_eq!(cluster.query(reserved)?, "t");
    // What is written before the first connection is there.
    cluster.query("CREATE TABLE t AS SELECT generate_series(1, 100000) AS i")?;
    let first = cluster.query("SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots")?;
    cluster.query("SELECT pg_switch_wal()")?;
    cluster.query("INSERT INTO t VALUES (1)")?;
    let end = cluster.flush_lsn()?.to_string();
    cluster.query("INSERT INTO t VALUES (1)")?;
    ours.own_name([
        "-d", &conninfo, "-S", "kept", "-D", "archive", "-E", &end, "-n",
    ])?
    .succeed(LONG)?;
    ensure!(
        ours.files()?.contains(&first),
        "{:?} lack {first}",
        ours.files()?
    );
    for (arguments, code, text) in [
        (
            &["--foo"][..],
            2,
            "walreceiver receive: hint: Try \"walreceiver receive --help\"",
        ),
        (&["-D", "missing"], 8, "could not open directory"),
        (
            &["-D", "archive", "-h", "127.0.0.1", "-p", "1"],
            3,
            "Connection refused",
        ),
        (
            &["-D", "archive", "-d", &conninfo, "-S", "none", "-n"],
            5,
            "disconnected",
        ),
    ] {
        ours.clear()?;
        ours.own_name(arguments)?
            .run(SHORT)?
            .expect_failure(code, &[text])?;
    }
    let help = ours.own_name(["--help"])?.succeed(SHORT)?;
    for option in [
        "--directory",
        "--endpos",
        "--if-not-exists",
        "--no-loop",
        "--no-sync",
        "--status-interval",
        "--slot",
        "--synchronous",
        "--to",
        "--verbose",
        "--version",
        "--compress",
        "--help",
        "--dbname",
        "--host",
        "--port",
        "--username",
        "--no-password",
        "--password",
        "--create-slot",
        "--drop-slot",
    ] {
        ensure!(help.stdout.contains(option), "no {option} in {help}");
    }
    let theirs = Receivewal::theirs(cluster.programs())?
        .command(["--version"])
        .succeed(SHORT)?;
    for version in [ours.command(["--version"]), ours.command(["-V"])] {
        let version = version.succeed(SHORT)?;
        let start = |text: &str| text.split(' ').take(2).collect::<Vec<_>>().join(" ");
        assert_eq!(start(&version.stdout), start(&theirs.stdout));
        ensure!(version.stdout.contains("(walstream "), "{version}");
    }
    Ok(())
}

/// Writes some WAL and gives its start and its end.
fn some_wal(cluster: &Cluster) -> Result<[Lsn; 2]> {
    let start = cluster.current_lsn()?;
    cluster.query("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i")?;
    Ok([start, cluster.flush_lsn()?])
}

#[test]
fn starts_stops_and_segments_are_told_alike() -> Result<()> {
    let mut cluster = strict_cluster()?;
    let both = Both::of(&cluster)?;
    let conninfo = cluster.conninfo();
    let run = |more: &[&str]| both.same(&[&["-D", "archive", "-d", &conninfo][..], more].concat());
    cluster.query("CREATE TABLE t (i int, p text)")?;
    // Inside a record, and with nothing behind it in the segment.
    let [start, end] = some_wal(&cluster)?;
    let inside = Lsn(start.0 + (end.0 - start.0) / 2 + 5).to_string();
    let told = run(&["-v", "-E", &inside])?;
    ensure!(told.contains("stopped log streaming at"), "{told}");
    run(&["-E", &inside])?;
    run(&["-v", "-E", "0/1", "-n"])?;
    for compression in ["none", "gzip:1", "lz4", "gzip", "0"] {
        cluster.query("SELECT pg_switch_wal()")?;
        let [start, _] = some_wal(&cluster)?;
        cluster.query("SELECT pg_switch_wal()")?;
        some_wal(&cluster)?;
        let told = run(&["-v", "-E", &start.to_string(), "-Z", compression, "-n"])?;
        ensure!(
            told.contains("finished segment at"),
            "{compression}: {told}"
        );
    }
    // The end of a segment is the end position, and the last byte before it.
    cluster.query("SELECT pg_switch_wal()")?;
    let boundary = Lsn(cluster.current_lsn()?.0 & !0xFF_FFFF);
    some_wal(&cluster)?;
    run(&["-v", "-E", &Lsn(boundary.0 - 1).to_string()])?;
    run(&["-v", "-E", &boundary.to_string(), "--synchronous"])?;
    // The signal, and the server's own ends.
    {
        let mut ended = Vec::new();
        for side in both.sides() {
            let mut running = side
                .command(["-D", "archive", "-v", "-d", &conninfo])
                .start()?;
            streams(&cluster)?;
            wait_for("its file", SHORT, || {
                Ok(side.files()?.iter().any(|name| name.ends_with(".partial")))
            })?;
            running.signal(Signal::INT)?;
            ended.push(running.wait(SHORT)?);
        }
        ensure_same_output("signal", (&both.ours, &ended[0]), (&both.theirs, &ended[1]))?;
    }
    for (mode, no_loop) in [
        (StopMode::Fast, true),
        (StopMode::Fast, false),
        (StopMode::Immediate, true),
    ] {
        let mut ended = Vec::new();
        for side in both.sides() {
            let mut command = side.command(["-D", "archive", "-v", "-d", &conninfo]);
            if no_loop {
                command = command.arg("-n");
            }
            let mut running = command.start()?;
            streams(&cluster)?;
            cluster.query("CREATE TABLE gone (i int); DROP TABLE gone")?;
            cluster.wait_for_sent("pg_receivewal", cluster.flush_lsn()?, SHORT)?;
            cluster.stop(mode)?;
            if !no_loop {
                running.wait_for_output("disconnected; waiting 5 seconds to try again", LONG)?;
                running.signal(Signal::INT)?;
            }
            ended.push(running.wait(LONG)?);
            cluster.start()?;
        }
        // Where the server is differs from run to run. PostgreSQL's program tries once more after the signal.
        let told = |side: &Receivewal, text: &str| {
            let text = side.without_path(text);
            let text = text
                .split_inclusive("seconds to try again")
                .next()
                .unwrap_or_default();
            text.lines()
                .filter(|line| {
                    !line.contains("log streaming at")
                        && !line.contains("finished segment")
                        && !line.contains("received interrupt")
                })
                .map(|line| {
                    line.replace(
                        |c: char| {
                            c.is_ascii_digit() || (c.is_ascii_hexdigit() && c.is_ascii_uppercase())
                        },
                        "#",
                    )
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(&both.ours, &ended[0].stderr),
            told(&both.theirs, &ended[1].stderr),
            "{mode:?} {no_loop}"
        );
        assert_eq!(ended[0].code(), ended[1].code());
    }
    Ok(())
}

fn streams(cluster: &Cluster) -> Result<()> {
    wait_for("the stream", LONG, || {
        Ok(cluster.standby_column("pg_receivewal", "state")?.as_deref() == Some("streaming"))
    })
}

#[test]
fn archives_that_cannot_be_written_or_read() -> Result<()> {
    let cluster = strict_cluster()?;
    let both = Both::of(&cluster)?;
    let conninfo = cluster.conninfo();
    cluster.query("CREATE TABLE t (i int, p text)")?;
    some_wal(&cluster)?;
    for side in both.sides() {
        fs::set_permissions(side.archive(), Permissions::from_mode(0o500))?;
    }
    let told = both.same(&["-D", "archive", "-d", &conninfo, "-n"])?;
    ensure!(
        told.contains("could not open write-ahead log file"),
        "{told}"
    );
    let told = both.same(&["-D", "archive", "-d", &conninfo, "-n", "-v", "-Z", "gzip"])?;
    ensure!(told.contains("Permission denied"), "{told}");
    for side in both.sides() {
        fs::set_permissions(side.archive(), Permissions::from_mode(0o700))?;
        for (name, bytes) in [
            ("000000010000000000000001", &[0; 1000][..]),
            ("000000010000000000000002.gz", &[1; 100]),
            ("000000010000000000000009.lz4", &[]),
            ("00000001000000000000000x", &[]),
            ("00000001000000000000000A.bz2", &[]),
        ] {
            let path = side.archive().join(name);
            fs::write(&path, bytes)?;
            side.workdir().own(&path)?;
        }
    }
    // The order in which a directory lists its files is its own: one file of a wrong size at a time.
    for keep in [
        "000000010000000000000001",
        "000000010000000000000002.gz",
        "000000010000000000000009.lz4",
    ] {
        let mut told = Vec::new();
        for side in both.sides() {
            let only = side.workdir().make_dir(&format!("only-{keep}"))?;
            fs::copy(side.archive().join(keep), only.join(keep))?;
            side.workdir().own(&only)?;
            let argument = format!("only-{keep}");
            let finished = side
                .command(["-D", &argument, "-d", &conninfo, "-E", "0/1", "-v"])
                .run(SHORT)?;
            told.push(finished);
        }
        ensure_same_output(keep, (&both.ours, &told[0]), (&both.theirs, &told[1]))?;
        ensure!(told[0].stderr.contains("skipping"), "{}", told[0]);
    }
    Ok(())
}
