//! Comparisons of our programs with PostgreSQL's, each in one run: both work on the same input in turn, round by round, so
//! that the machine's moods meet both. A ratio is taken within each round; its median and spread are shown.

pub mod delay;
pub mod followers;
pub mod lag;
mod processes;
pub mod receive;
pub mod replay;
pub mod sender;
pub mod stats;
pub mod sync;
pub mod takeover;
pub mod text;
mod wire;

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use walstream_tests::{ServerUser, Workdir};

use crate::corpus::CorpusSize;
use crate::measure::{Measured, Measuring};
use crate::table::{Spread, Table};

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds; in each, every contestant runs once.
    pub rounds: usize,
    /// Only show that it works: little input, short runs. The numbers mean nothing then.
    pub tiny: bool,
}

impl Effort {
    /// The corpus for it.
    #[must_use]
    pub const fn corpus_size(&self) -> CorpusSize {
        if self.tiny {
            CorpusSize::TINY
        } else {
            CorpusSize::FULL
        }
    }
}

/// What a comparison found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was compared.
    pub title: String,
    /// The numbers.
    pub table: Table,
    /// What we want of them.
    pub targets: Vec<Target>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n\n{}", self.title, self.table)?;
        for target in &self.targets {
            writeln!(f, "{target}")?;
        }
        Ok(())
    }
}

/// A number that should be at least, or at most, another.
#[derive(Clone, Debug)]
pub struct Target {
    what: String,
    found: f64,
    bound: Bound,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    /// `found` should be `bound` or more.
    #[must_use]
    pub fn at_least(what: impl Into<String>, found: f64, bound: f64) -> Self {
        Self {
            what: what.into(),
            found,
            bound: Bound::AtLeast(bound),
        }
    }

    /// `found` should be `bound` or less.
    #[must_use]
    pub fn at_most(what: impl Into<String>, found: f64, bound: f64) -> Self {
        Self {
            what: what.into(),
            found,
            bound: Bound::AtMost(bound),
        }
    }

    /// Whether it is.
    #[must_use]
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.found >= bound,
            Bound::AtMost(bound) => self.found <= bound,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_met() { "met" } else { "MISSED" };
        let (relation, bound) = match self.bound {
            Bound::AtLeast(bound) => ("at least", bound),
            Bound::AtMost(bound) => ("at most", bound),
        };
        write!(
            f,
            "{word}: {} is {:.2}, wanted {relation} {bound:.2}",
            self.what, self.found
        )
    }
}

/// All runs of one program in a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    pub(crate) name: String,
    pub(crate) runs: Vec<Measured>,
}

impl Runs {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            runs: Vec::new(),
        }
    }

    pub(crate) fn spread(&self, of: impl Fn(&Measured) -> f64) -> Result<Spread> {
        Spread::of(self.runs.iter().map(of))
    }

    /// What `of` is here in relation to `peer`, round by round.
    pub(crate) fn ratio(&self, peer: &Self, of: impl Fn(&Measured) -> f64) -> Result<Spread> {
        let pairs = self.runs.iter().zip(&peer.runs);
        Spread::of(pairs.map(|(own, peer)| of(own) / of(peer)))
    }

    /// Greatest resident memory in MB.
    pub(crate) fn peak_mb(&self) -> Result<f64> {
        Ok(self.spread(|run| megabytes(run.peak_rss))?.greatest)
    }
}

/// Runs a program to its end, which has to be exit code 0.
pub(crate) fn run(command: &mut Command) -> Result<Measured> {
    let (status, measured) = Measuring::start(command)?.finish()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(measured)
}

/// A command for a program that needs no server, run as the user we are. `Workdir` programs run as the server's.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8").env("NO_COLOR", "1");
    command
}

/// A command run as the server's user in this directory.
pub(crate) fn command_in(workdir: &Workdir, program: &Path) -> Command {
    let user: &ServerUser = workdir.user();
    let mut command = user.command(program, workdir.path());
    command.env("NO_COLOR", "1");
    command
}

#[expect(clippy::cast_precision_loss, reason = "a printed number")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "a printed number")]
pub(crate) fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_two_sides() {
        assert!(Target::at_least("speed", 2.0, 2.0).is_met());
        assert!(!Target::at_least("speed", 1.9, 2.0).is_met());
        assert!(!Target::at_most("memory", 33.0, 32.0).is_met());
        let text = Target::at_most("memory", 33.0, 32.0).to_string();
        assert_eq!(text, "MISSED: memory is 33.00, wanted at most 32.00");
    }
}
