//! [`Hub`]: a mirror that `walreceiver run --serve` serves, at an address that it keeps when it is restarted.

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::mirror::Mirror;
use crate::program::{Finished, Running};
use crate::wait::{LONG, SHORT};

const PORT: u16 = 5999;

/// A mirror and the program on it, which serves at a unix socket in the mirror's working directory.
#[derive(Debug)]
pub struct Hub {
    mirror: Mirror,
    arguments: Vec<String>,
    running: Option<Running>,
}

impl Hub {
    /// Makes a mirror of this server, with a slot, and serves it, with these further arguments of `run`.
    ///
    /// # Errors
    /// When `init` or `run` fails, with its messages.
    pub fn start(primary: &Cluster, arguments: &[&str]) -> Result<Self> {
        Self::on_mirror(Mirror::init(primary)?, arguments)
    }

    /// Serves this mirror.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn on_mirror(mirror: Mirror, arguments: &[&str]) -> Result<Self> {
        let mut hub = Self {
            mirror,
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            running: None,
        };
        hub.run()?;
        Ok(hub)
    }

    /// Starts the program, which does not run, and waits until it streams.
    ///
    /// # Errors
    /// When it does not, with its messages.
    pub fn run(&mut self) -> Result<()> {
        self.run_alone()?;
        self.running()
            .wait_for_output("started streaming WAL", SHORT)
    }

    /// Starts the program, and waits until it serves, whether it finds its primary or not.
    ///
    /// # Errors
    /// When it does not, with its messages.
    pub fn run_alone(&mut self) -> Result<()> {
        let socket = self.mirror.workdir().join(&format!(".s.PGSQL.{PORT}"));
        let command = self.mirror.command("run")?.arg("--serve").arg(socket);
        let mut running = command.args(&self.arguments).start()?;
        running.wait_for_output("serving the mirror", LONG)?;
        self.running = Some(running);
        Ok(())
    }

    /// How followers connect, under this name.
    #[must_use]
    pub fn conninfo(&self, application_name: &str) -> String {
        format!(
            "host={} port={PORT} user=postgres application_name={application_name}",
            self.mirror.workdir().path().display()
        )
    }

    /// The mirror.
    #[must_use]
    pub const fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The program.
    ///
    /// # Panics
    /// When it does not run.
    #[expect(clippy::expect_used, reason = "a test that was written wrong")]
    pub fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("the hub was started")
    }

    /// Kills the program as a crash would.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn kill_9(&mut self) -> Result<Finished> {
        self.running.take().context("no hub runs")?.kill_9()
    }

    /// Asks the program to end, and waits for it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn terminate(&mut self) -> Result<Finished> {
        self.running.take().context("no hub runs")?.terminate(LONG)
    }

    /// What `walreceiver status --json` says of the hub: its followers and their positions.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn status(&self) -> Result<serde_json::Value> {
        let status = self.mirror.command("status")?.args(["--json"]);
        let status = status.succeed(SHORT)?.json()?;
        Ok(status.get("hub").cloned().unwrap_or_default())
    }

    /// The status of the follower with this name; `None` when it is not connected.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn follower(&self, application_name: &str) -> Result<Option<serde_json::Value>> {
        let status = self.status()?;
        let followers = status.get("followers").and_then(|value| value.as_array());
        let is_named = |follower: &&serde_json::Value| {
            follower
                .get("application_name")
                .and_then(|name| name.as_str())
                == Some(application_name)
        };
        Ok(followers.into_iter().flatten().find(is_named).cloned())
    }
}
