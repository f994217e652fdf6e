//! [`AcknowledgedLoad`]: sessions that commit row after row, and note each commit that the server has acknowledged.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::program::Running;
use crate::wait::LONG;
use crate::workdir::Workdir;

/// More rows than a session commits before its server is killed.
const ROWS: u32 = 30_000;

/// `psql` sessions that insert into table `acknowledged`, each row in a transaction of its own, until the server is gone.
#[derive(Debug)]
pub struct AcknowledgedLoad {
    sessions: Vec<Running>,
}

impl AcknowledgedLoad {
    /// Makes the table and starts the sessions, each of which first runs `settings`. Their scripts lie in `workdir`.
    ///
    /// # Errors
    /// When a session cannot be started.
    pub fn start(
        server: &Cluster,
        workdir: &Workdir,
        sessions: u32,
        settings: &str,
    ) -> Result<Self> {
        server.query(
            "CREATE TABLE acknowledged (session int, number int, padding text, PRIMARY KEY (session, number))",
        )?;
        let started = (0..sessions).map(|session| {
            let mut script = format!("{settings};\n");
            for number in 0..ROWS {
                // From some bytes to several pages: most commits end somewhere in a page, some cross a segment.
                let length = (number * 7919 + session) % 97 * 40;
                writeln!(
                    script,
                    "INSERT INTO acknowledged VALUES ({session}, {number}, repeat('x', {length}));\n\
                     \\echo {session} {number}"
                )?;
            }
            let path = workdir.join(&format!("session-{session}.sql"));
            std::fs::write(&path, script)?;
            workdir.own(&path)?;
            let psql = workdir
                .external(&server.programs().program("psql"))
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d"])
                .arg(format!("{} dbname=postgres", server.conninfo()));
            psql.arg("-f").arg(path).start()
        });
        Ok(Self {
            sessions: started.collect::<Result<_>>()?,
        })
    }

    /// Waits until every session has ended, as the server was killed, and gives the rows whose commits were acknowledged:
    /// `session number`.
    ///
    /// # Errors
    /// When a session goes on, or ended before the server did.
    pub fn ended(self) -> Result<BTreeSet<String>> {
        let mut rows = BTreeSet::new();
        for session in self.sessions {
            let ended = session.wait(LONG)?;
            // 2: the connection was lost.
            ended.expect_failure(2, &[])?;
            rows.extend(ended.stdout.lines().map(str::to_owned));
        }
        ensure!(!rows.is_empty(), "no commit was acknowledged");
        Ok(rows)
    }

    /// How many rows a server has.
    ///
    /// # Errors
    /// With the server's message.
    pub fn count(server: &Cluster) -> Result<u32> {
        Ok(server.query("SELECT count(*) FROM acknowledged")?.parse()?)
    }

    /// Checks that a server has all these rows.
    ///
    /// # Errors
    /// With those that it lacks.
    pub fn ensure_kept(server: &Cluster, rows: &BTreeSet<String>) -> Result<()> {
        let found = server.query("SELECT session || ' ' || number FROM acknowledged")?;
        let found: BTreeSet<&str> = found.lines().collect();
        let lost: Vec<&String> = rows
            .iter()
            .filter(|row| !found.contains(row.as_str()))
            .collect();
        ensure!(
            lost.is_empty(),
            "{} of {} acknowledged rows are lost: {lost:?}",
            lost.len(),
            rows.len()
        );
        Ok(())
    }
}
