//! `walreceiver waldump` shows what `pg_waldump` shows, record by record and option by option. (The servers of 12 and 13 that
//! tests have come without `pg_waldump`.)

#![allow(clippy::indexing_slicing, reason = "a wrong index fails the test")]

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use walstream_tests::{
    Cluster, ClusterOptions, Finished, LONG, StopMode, Workdir, ensure_same_lines,
    ensure_same_records, server_version,
};

use crate::waldump::WORKLOAD;

/// A stopped server's WAL, and the programs that show it.
struct Wal {
    cluster: Cluster,
    workdir: Workdir,
    names: Vec<String>,
}

impl Wal {
    /// The WAL of a workload that makes records of every kind.
    fn of(major: u32) -> Result<Self> {
        let workdir = Workdir::new()?;
        let mut cluster = ClusterOptions::default()
            .programs(&server_version(major)?)
            .set("wal_level", "logical")
            .set("max_prepared_transactions", "5")
            .set("wal_keep_size", "1GB")
            .start()?;
        cluster.pgbench(&["-i", "-s", "1", "-q"])?;
        let methods: &[&str] = if major < 15 {
            &["off", "on"]
        } else {
            &["off", "pglz", "lz4"]
        };
        for method in methods {
            // A checkpoint lets every page be logged whole once more.
            cluster.query(&format!("ALTER SYSTEM SET wal_compression = {method}"))?;
            cluster.query("SELECT pg_reload_conf()")?;
            cluster.query("CHECKPOINT")?;
            cluster.pgbench(&["-c", "2", "-t", "100"])?;
        }
        for sql in WORKLOAD {
            cluster.query(sql)?;
        }
        if major == 15 {
            // One statement at a time, as some must not be part of a transaction.
            workdir
                .external(&cluster.programs().program("psql"))
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d"])
                .arg(format!("{} dbname=postgres", cluster.conninfo()))
                .stdin(include_str!("catalog_objects.sql"))
                .succeed(LONG)?;
            // Images that redo is checked against.
            cluster.query("SET wal_consistency_checking = 'all'; CREATE TABLE checked AS SELECT 1 AS i; UPDATE checked SET i = 2; \
                 CREATE UNLOGGED TABLE unlogged_with_index (i int PRIMARY KEY)")?;
        }
        cluster.stop(StopMode::Fast)?;
        let mut names: Vec<String> = std::fs::read_dir(cluster.data_dir().join("pg_wal"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.retain(|name| name.len() == 24);
        names.sort();
        Ok(Self {
            cluster,
            workdir,
            names,
        })
    }

    fn first(&self) -> Result<PathBuf> {
        let name = self.names.first().context("no WAL")?;
        Ok(self.cluster.data_dir().join("pg_wal").join(name))
    }

    fn last(&self) -> Result<&String> {
        self.names.last().context("no WAL")
    }

    /// Runs our program with these arguments.
    fn ours(&self, arguments: &[&str]) -> Result<Finished> {
        let program = self.workdir.program("walreceiver")?;
        program.arg("waldump").args(arguments).run(LONG)
    }

    /// Runs PostgreSQL's.
    fn theirs(&self, arguments: &[&str]) -> Result<Finished> {
        let program = self.cluster.programs().program("pg_waldump");
        self.workdir.external(&program).args(arguments).run(LONG)
    }

    /// The arguments that mean all of the WAL, for either program.
    fn all(&self) -> Result<[String; 2]> {
        Ok([self.first()?.display().to_string(), self.last()?.clone()])
    }

    /// Runs both with these options on all of the WAL.
    fn both(&self, options: &[&str]) -> Result<(Finished, Finished)> {
        let all = self.all()?;
        let arguments: Vec<&str> = options
            .iter()
            .copied()
            .chain(all.iter().map(String::as_str))
            .collect();
        let ours = self.ours(&arguments)?;
        ensure!(ours.code() == Some(0), "{ours}");
        Ok((ours, self.theirs(&arguments)?))
    }
}

/// Every record, and the statistics where PostgreSQL prints them as 15 does.
fn agrees(major: u32) -> Result<()> {
    let wal = Wal::of(major)?;
    let (ours, theirs) = wal.both(&[])?;
    ensure!(ours.stdout.lines().count() > 5000, "{ours}");
    ensure_same_records(&ours.stdout, &theirs.stdout)?;
    // Both say where the end is; to us it is no error.
    ensure!(ours.stderr.contains("WAL ends at"), "{}", ours.stderr);
    if major >= 15 {
        for option in ["--stats", "--stats=record"] {
            let (ours, theirs) = wal.both(&[option])?;
            ensure_same_lines(&theirs.stdout, &ours.stdout)?;
        }
        let (ours, theirs) = wal.both(&["--bkp-details"])?;
        ensure_same_records(&ours.stdout, &theirs.stdout)?;
    }
    Ok(())
}

#[test]
fn postgresql_14() -> Result<()> {
    agrees(14)
}

#[test]
fn postgresql_16() -> Result<()> {
    agrees(16)
}

#[test]
fn postgresql_17() -> Result<()> {
    agrees(17)
}

#[test]
fn postgresql_18() -> Result<()> {
    agrees(18)
}

#[test]
fn postgresql_15_with_every_option() -> Result<()> {
    let wal = Wal::of(15)?;
    let (text, theirs) = wal.both(&[])?;
    ensure_same_records(&text.stdout, &theirs.stdout)?;
    for threads in ["1", "3"] {
        let (ours, _) = wal.both(&["--threads", threads])?;
        ensure!(
            ours.stdout == text.stdout,
            "{threads} threads give other text"
        );
    }
    let has_block_3 = |line: &&str| word_after(line, " blk ").is_ok_and(|block| block == "3");
    let with_block_3 = text
        .stdout
        .lines()
        .find(has_block_3)
        .context("no block 3")?;
    let relation = word_after(with_block_3, ", blkref #0: rel ")?;
    let xid = word_after(
        text.stdout
            .lines()
            .find(|line| line.contains("COMMIT_PREPARED"))
            .context("no prepared transaction")?,
        "tx: ",
    )?;
    let lines: Vec<&str> = text.stdout.lines().collect();
    let middle = lines[lines.len() / 2];
    let start = word_after(middle, "lsn: ")?;
    let inside = inside_of(start)?;
    let first_segment = wal.first()?.display().to_string();
    let data = wal.cluster.data_dir().display().to_string();
    let with_all: &[&[&str]] = &[
        &["--stats"],
        &["-z"],
        &["--stats=record"],
        &["--stats=rmgr", "--rmgr=Heap", "--rmgr=Btree"],
        &["--stats=record", "--fullpage"],
        &["-z", "-r", "LogicalMessage", "-x", "4000000000"],
        &["--bkp-details"],
        &["-b", "--rmgr", "btree"],
        &["--rmgr=Transaction"],
        &["-r", "Heap2", "-r", "gin"],
        &["--relation", relation],
        &["-R", relation, "-B", "0"],
        &["-R", relation, "--block=3", "--fork=main"],
        &["--fork", "vm"],
        &["-F", "init"],
        &["-w"],
        &["-w", "-r", "XLOG", "-b"],
        &["--xid", xid],
        &["-x", "0"],
        &["-n", "17"],
        &["--limit=5", "--rmgr=Sequence"],
        &["--limit", "100", "--stats"],
        &["--limit", "0", "--rmgr=Hash"],
        &["--quiet"],
        &["-q", "--stats"],
    ];
    for options in with_all {
        compare(&wal.both(options)?, options)?;
    }
    let alone: &[&[&str]] = &[
        // One segment alone, whose last record goes on in the next.
        &[&first_segment],
        &[&first_segment, "--stats=record"],
        &["-p", &data, "-s", start, "-n", "100"],
        &["-p", &data, "-s", &inside, "-n", "100"],
        &["-p", &data, "-s", &inside, "-n", "100", "-z"],
        &["-p", &data, "-s", &inside, "-n", "3", "-q"],
        &[
            "-p",
            &data,
            "-t",
            "1",
            "-s",
            &inside,
            "--limit=1",
            "--rmgr=Sequence",
        ],
    ];
    for arguments in alone {
        compare(&(wal.ours(arguments)?, wal.theirs(arguments)?), arguments)?;
    }
    // Ends at every place around the end of a record.
    let end = word_after(lines[lines.len() / 2 + 3], "lsn: ")?;
    let (high, low) = end.split_once('/').context("no LSN")?;
    let low = u32::from_str_radix(low, 16)?;
    for low in [
        low - 9,
        low - 8,
        low - 7,
        low - 1,
        low,
        low + 1,
        low + 23,
        low + 24,
    ] {
        let end = format!("{high}/{low:X}");
        let arguments = ["-p", &data, "-s", start, "-e", &end];
        compare(
            &(wal.ours(&arguments)?, wal.theirs(&arguments)?),
            &arguments,
        )?;
    }
    json_carries_the_same(&wal, &text.stdout)?;
    directories_are_found(&wal, &text.stdout)?;
    wrong_usage(&wal)?;
    a_closed_pipe_is_no_failure(&wal)
}

fn compare((ours, theirs): &(Finished, Finished), arguments: &[&str]) -> Result<()> {
    ensure!(
        ours.code() == Some(0),
        "{arguments:?} failed with {ours}\ntheirs {theirs}"
    );
    let quiet = arguments.contains(&"-q") || arguments.contains(&"--quiet");
    let never = arguments.contains(&"4000000000");
    ensure!(
        quiet || never || !theirs.stdout.is_empty(),
        "{arguments:?} show nothing"
    );
    let stats = arguments
        .iter()
        .any(|argument| argument.starts_with("--stats") || *argument == "-z");
    if stats {
        ensure!(
            ours.stdout == theirs.stdout,
            "{arguments:?}:\nours\n{}\ntheirs\n{}",
            ours.stdout,
            theirs.stdout
        );
        return Ok(());
    }
    ensure_same_records(&ours.stdout, &theirs.stdout).with_context(|| format!("{arguments:?}"))
}

/// The word that follows `mark` for the first time.
fn word_after<'t>(text: &'t str, mark: &str) -> Result<&'t str> {
    let (_, rest) = text
        .split_once(mark)
        .with_context(|| format!("no {mark:?}"))?;
    let word = rest.split([' ', ',', '\n']).find(|word| !word.is_empty());
    word.context("nothing there")
}

/// A place 9 bytes on, which is inside the record.
fn inside_of(lsn: &str) -> Result<String> {
    let (high, low) = lsn.split_once('/').context("no LSN")?;
    Ok(format!("{high}/{:X}", u32::from_str_radix(low, 16)? + 9))
}

fn json_carries_the_same(wal: &Wal, text: &str) -> Result<()> {
    let (json, _) = wal.both(&["--json"])?;
    let mut rebuilt = String::new();
    for line in json.stdout.lines() {
        let record: Value = serde_json::from_str(line)?;
        rebuilt += &line_of(&record).with_context(|| line.to_owned())?;
    }
    ensure!(rebuilt == text, "JSON gives other lines");
    let (json, _) = wal.both(&["--json", "--stats=record"])?;
    let stats: Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(stats["total"]["records"], text.lines().count());
    let (table, _) = wal.both(&["--stats=record"])?;
    for row in stats["rows"].as_array().context("no rows")? {
        let name = row["name"].as_str().context("no name")?;
        let line = table
            .stdout
            .lines()
            .find(|line| line.split("  ").next() == Some(name))
            .with_context(|| format!("no row {name}"))?;
        let count = line[27..].split_whitespace().next();
        assert_eq!(count, Some(row["records"].to_string().as_str()), "{name}");
    }
    Ok(())
}

/// The line of text that a JSON object stands for.
fn line_of(record: &Value) -> Result<String> {
    let text = |name: &str| record[name].as_str().context("no text");
    let lsn = |name: &str| -> Result<String> {
        let (high, low) = text(name)?.split_once('/').context("no LSN")?;
        Ok(format!("{high}/{low:0>8}"))
    };
    let mut line = format!(
        "rmgr: {:<11} len (rec/tot): {:>6}/{:>6}, tx: {:>10}, lsn: {}, prev {}, desc: {} {}",
        text("rmgr")?,
        record["rec_len"].to_string(),
        record["total_len"].to_string(),
        record["xid"].to_string(),
        lsn("lsn")?,
        lsn("prev")?,
        text("type")?,
        record["desc"].as_str().unwrap_or_default()
    );
    for block in record["blocks"].as_array().context("no blocks")? {
        let fork = match block["fork"].as_str().context("no fork")? {
            "main" => String::new(),
            fork => format!(" fork {fork}"),
        };
        line += &format!(
            ", blkref #{}: rel {}{fork} blk {}",
            block["id"],
            block["rel"].as_str().context("no relation")?,
            block["block"]
        );
        line += match &block["image"] {
            Value::Null => "",
            image if image["apply"] == true => " FPW",
            _ => " FPW for WAL verification",
        };
    }
    Ok(line + "\n")
}

/// A data directory, its pg_wal and a URL mean all of the WAL that is there.
fn directories_are_found(wal: &Wal, text: &str) -> Result<()> {
    let data = wal.cluster.data_dir().display().to_string();
    let pg_wal = format!("{data}/pg_wal");
    let url = format!("file://{pg_wal}");
    for arguments in [vec![&*data], vec![&*pg_wal], vec![&*url], vec!["-p", &data]] {
        let ours = wal.ours(&arguments)?;
        ensure!(ours.code() == Some(0), "{arguments:?}: {ours}");
        ensure!(ours.stdout == text, "{arguments:?} show something else");
    }
    let program = wal.workdir.program("walreceiver")?;
    let ours = program.env("PGDATA", &data).arg("waldump").run(LONG)?;
    ensure!(ours.stdout == text, "PGDATA: {}", ours.stderr);
    Ok(())
}

fn wrong_usage(wal: &Wal) -> Result<()> {
    let first = wal.first()?.display().to_string();
    let data = wal.cluster.data_dir().display().to_string();
    let last = wal.cluster.data_dir().join("pg_wal").join(wal.last()?);
    let last = last.display().to_string();
    let first_name = wal.names.first().context("no WAL")?;
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["--rmgr=heap3"],
            2,
            "resource manager \"heap3\" does not exist",
        ),
        (
            &["--rmgr=custom127"],
            2,
            "custom resource manager \"custom127\" does not exist",
        ),
        (&["-B", "1"], 2, "--relation"),
        (
            &["-R", "1663/5"],
            2,
            "tablespace OID/database OID/relation filenode",
        ),
        (&["-F", "Main"], 2, "main, fsm, vm or init"),
        (&["-s", "17"], 2, "is no LSN"),
        (&["--stats=block"], 2, "block"),
        (
            &["-p", "/nonexistent"],
            1,
            "could not open directory \"/nonexistent\"",
        ),
        (
            &["0000000100000000000000FF", "-p", &data],
            1,
            "could not locate WAL file",
        ),
        (&[&last, first_name], 2, "is before STARTSEG"),
        (&[&first, "-s", "FFFF/0"], 2, "is not inside"),
        (&[&first, "-e", "FFFF/0"], 2, "is not inside"),
        (&["-p", &data, "-t", "7"], 1, "timeline 7"),
        (
            &["-p", &data, "-s", "FFFF/0"],
            1,
            "could not find a valid record after FFFF/0",
        ),
        (
            &["-p", &data, "-q", "-e", "FFFF/0"],
            1,
            "before the end FFFF/0",
        ),
        (&[], 1, "could not find any WAL file"),
    ];
    for (arguments, code, text) in cases {
        let ours = wal.ours(arguments)?;
        ours.expect_failure(*code, &[text])
            .with_context(|| format!("{arguments:?}"))?;
    }
    let (ours, theirs) = (wal.ours(&["--rmgr=list"])?, wal.theirs(&["--rmgr=list"])?);
    assert_eq!(ours.stdout, theirs.stdout);
    Ok(())
}

fn a_closed_pipe_is_no_failure(wal: &Wal) -> Result<()> {
    let program = wal.workdir.program("walreceiver")?;
    let (program, arguments) = (program.path().display().to_string(), wal.all()?.join(" "));
    let shell = wal
        .workdir
        .external("/bin/bash".as_ref())
        .arg("-c")
        .arg(format!(
            "set -o pipefail; {program} waldump {arguments} | head -n 1"
        ))
        .run(LONG)?;
    ensure!(
        shell.code() == Some(0) && shell.stdout.lines().count() == 1,
        "{shell}"
    );
    Ok(())
}
