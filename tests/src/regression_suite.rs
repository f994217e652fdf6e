//! PostgreSQL 15's own suites of tests, which `tests/servers/regression_suite` brings.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use walreceiver::demo::local_postgres::SUPERUSER;

use crate::servers::servers_dir;
use crate::{Cluster, Workdir};

/// One of the suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The regression suite: everything that SQL can do, in up to twenty sessions.
    Regression,
    /// The isolation suite: what sessions do to each other.
    Isolation,
}

/// Runs a suite against a server, as `make installcheck-parallel` does, and gives how many of its tests passed. It may be fewer than
/// there are.
///
/// # Errors
/// When the suite is not there, cannot be run, or nothing of it passes.
pub fn run(suite: Suite, server: &Cluster, deadline: Duration) -> Result<usize> {
    let libraries = servers_dir()?.join("regression-suite-15");
    let (directory, program, schedule) = match suite {
        Suite::Regression => (libraries.clone(), "pg_regress", "parallel_schedule"),
        Suite::Isolation => (
            libraries.join("isolation"),
            "pg_isolation_regress",
            "isolation_schedule",
        ),
    };
    let program = directory.join(program);
    ensure!(
        program.is_file(),
        "no \"{}\": run tests/servers/regression_suite",
        program.display()
    );
    let places = Workdir::new()?;
    let option = |name: &str, value: &Path| {
        let mut option = OsString::from(format!("--{name}="));
        option.push(value);
        option
    };
    let finished = places
        .external(&program)
        .args([
            option("inputdir", &directory),
            option("dlpath", &libraries),
            option("schedule", &directory.join(schedule)),
            option("outputdir", places.path()),
            option("bindir", server.programs().bindir()),
            option("host", server.scratch()),
        ])
        .arg(format!("--port={}", server.port()))
        .arg(format!("--user={SUPERUSER}"))
        .arg("--max-concurrent-tests=20")
        .run(deadline)?;
    let passed = passed(&finished.stdout);
    ensure!(passed > 0, "{finished}");
    Ok(passed)
}

/// How many lines say of a test that it is as expected, such as `test tablespace                   ... ok          922 ms`.
fn passed(output: &str) -> usize {
    let says_so = |line: &&str| {
        line.split_once(" ... ")
            .is_some_and(|(_, outcome)| outcome.starts_with("ok "))
    };
    output.lines().filter(says_so).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_counted() {
        let output = "test tablespace                   ... ok          922 ms
parallel group (2 tests):  oid varchar
     oid                          ... FAILED      328 ms
     varchar                      ... ok           35 ms

 1 of 3 tests failed.
";
        assert_eq!(passed(output), 2);
        assert_eq!(passed("pg_regress: could not connect ... ok"), 0);
    }
}
