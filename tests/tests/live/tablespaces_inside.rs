//! Tablespaces whose directories lie in the data directory, which PostgreSQL warns of when they are made: base backups of them
//! through the sidecar are those of PostgreSQL's own sender, in what they hold and in what is said.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use walstream_tests::{Cluster, ClusterOptions, Finished, LONG, SHORT, file_names};

use crate::sidecar::Sidecar;

/// Two such tablespaces, one below the other's parent, with tables in them.
fn server() -> Result<Cluster> {
    let options = ClusterOptions::default().initdb_option("--data-checksums");
    let primary = options.initdb_option("--wal-segsize=1").start()?;
    for place in ["spaces", "spaces/one", "spaces/deeper", "spaces/deeper/two"] {
        let path = primary.data_dir().join(place);
        fs::create_dir(&path)?;
        primary.user().own(&path)?;
    }
    for (name, place) in [("one", "spaces/one"), ("two", "spaces/deeper/two")] {
        let path = primary.data_dir().join(place);
        primary.query(&format!(
            "CREATE TABLESPACE {name} LOCATION '{}'",
            path.display()
        ))?;
        primary.query(&format!(
            "CREATE TABLE in_{name} TABLESPACE {name} AS SELECT generate_series(1, 5000) AS i"
        ))?;
    }
    primary.query("CHECKPOINT")?;
    Ok(primary)
}

fn take(
    sidecar: &Sidecar,
    primary: &Cluster,
    conninfo: &str,
    name: &str,
    options: &[String],
) -> Result<Finished> {
    let program = primary.programs().client("pg_basebackup");
    let program = sidecar.work.external(&program).env("LC_ALL", "C");
    let fixed = ["-X", "none", "-c", "fast", "--no-sync", "-d", conninfo];
    let program = program.args(fixed).args(options).args(["-D", name]);
    program.run(LONG)
}

/// Every path below a directory, links as links.
fn tree(directory: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            let shown = path.strip_prefix(directory)?.display().to_string();
            let kind = fs::symlink_metadata(&path)?.file_type();
            if kind.is_dir() {
                left.push(path);
            }
            found.insert(format!("{shown} {kind:?}"));
        }
    }
    Ok(found)
}

fn members(archive: &Path) -> Result<Vec<String>> {
    let mut archive = tar::Archive::new(File::open(archive)?);
    let entries = archive.entries()?.map(|entry| {
        let entry = entry?;
        let kind = entry.header().entry_type();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        Ok(format!("{path} {kind:?}"))
    });
    entries.collect()
}

/// What was said, without what the two are called.
fn said(finished: &Finished, name: &str) -> String {
    format!(
        "{:?}\n{}{}",
        finished.code(),
        finished.stdout,
        finished.stderr
    )
    .replace(name, "NAME")
}

#[test]
fn backups_are_those_of_postgresql() -> Result<()> {
    let primary = server()?;
    let sidecar = Sidecar::start(&primary)?;
    let both = |form: &str, options: &dyn Fn(&str) -> Vec<String>| -> Result<[Finished; 2]> {
        let [ours, theirs] = [("ours", sidecar.conninfo()), ("theirs", primary.conninfo())].map(
            |(side, conninfo)| {
                let name = format!("{side}-{form}");
                let finished = take(&sidecar, &primary, &conninfo, &name, &options(&name))?;
                anyhow::Ok((said(&finished, side), finished))
            },
        );
        let ((our_words, ours), (their_words, theirs)) = (ours?, theirs?);
        assert_eq!(our_words, their_words, "{form}");
        Ok([ours, theirs])
    };
    let text = |texts: &[&str]| {
        texts
            .iter()
            .map(|&text| text.to_owned())
            .collect::<Vec<_>>()
    };

    // Archives: the same files with the same members in the same order.
    for (form, options) in [("tar", &["-Ft"][..]), ("sizes", &["-Ft", "-P"])] {
        let finished = both(form, &|_| text(options))?;
        ensure!(finished[0].code() == Some(0), "{}", finished[0]);
        let directory = |side: &str| sidecar.work.join(&format!("{side}-{form}"));
        let names = file_names(&directory("ours"))?;
        assert_eq!(names, file_names(&directory("theirs"))?);
        let mut archives = 0;
        for name in names.iter().filter(|name| name.ends_with(".tar")) {
            archives += 1;
            let ours = members(&directory("ours").join(name))?;
            assert_eq!(ours, members(&directory("theirs").join(name))?, "{name}");
            if name == "base.tar" {
                let is_there = |member: &str| ours.iter().any(|found| found.starts_with(member));
                // Its place is there, and what is in it is in its own archive.
                for place in ["spaces/one/", "spaces/deeper/two/"] {
                    ensure!(
                        is_there(&format!("{place} Directory")),
                        "{place} is missing"
                    );
                    ensure!(!is_there(&format!("{place}PG_")), "{place} is not empty");
                }
            }
        }
        ensure!(archives == 3, "{names:?}");
    }

    // Files: where the tablespaces are it cannot write, so they are mapped elsewhere.
    let refused = both("unmapped", &|_| Vec::new())?;
    refused[0].expect_failure(1, &["exists but is not empty"])?;
    let mapped = |name: &str| {
        let mapping = |place: &str, to: &str| {
            let from = primary.data_dir().join(place);
            let to = sidecar.work.join(&format!("{name}-{to}"));
            format!("--tablespace-mapping={}={}", from.display(), to.display())
        };
        vec![
            mapping("spaces/one", "one"),
            mapping("spaces/deeper/two", "two"),
        ]
    };
    let finished = both("plain", &mapped)?;
    ensure!(finished[0].code() == Some(0), "{}", finished[0]);
    for part in ["plain", "plain-one", "plain-two"] {
        let of = |side: &str| tree(&sidecar.work.join(&format!("{side}-{part}")));
        assert_eq!(of("ours")?, of("theirs")?, "{part}");
    }
    let verifying = sidecar
        .work
        .external(&primary.programs().client("pg_verifybackup"))
        .args(["-n", "ours-plain"]);
    verifying.succeed(SHORT).context("pg_verifybackup")?;

    // With WAL it starts, and has both tables.
    let program = primary.programs().client("pg_basebackup");
    let program = sidecar.work.external(&program);
    let conninfo = sidecar.conninfo();
    let fixed = ["-X", "fetch", "-c", "fast", "--no-sync", "-d", &conninfo];
    let program = program.args(fixed).args(mapped("started"));
    program.args(["-D", "started"]).succeed(LONG)?;
    let mut restored = Cluster::on_directory(&primary, &sidecar.work.join("started"))?;
    restored.start()?;
    let counts = "SELECT (SELECT count(*) FROM in_one), (SELECT count(*) FROM in_two)";
    assert_eq!(restored.query(counts)?, "5000|5000");
    Ok(())
}
