//! The demonstration with a PostgreSQL server: it is killed while clients commit, and started again on the mirror.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use walstream::Lsn;

use super::local_postgres::{Listen, LocalPostgres};
use super::mirroring::{DEADLINE, Mirroring, follow_command};
use super::narrator::Narrator;
use super::postgres_programs::PostgresPrograms;
use super::report::{Check, Coordinator, DemoReport, LiveFacts};
use super::server_user::ServerUser;
use super::takeover;
use super::workload::{self, Found, Workload};
use super::workplace::{Workplace, io_error};
use super::{DemoArgs, DemoError, LocalPostgresError};
use crate::connection::{ConnInfo, Connection, Environment, Purpose};
use crate::run::APPLICATION_NAME;

/// How long the clients commit before the server is killed.
const WORK: Duration = Duration::from_secs(5);

/// The coordinator waits with each commit for the mirror.
const SYNCHRONOUS: (&str, &str) = ("synchronous_standby_names", APPLICATION_NAME);

/// Makes a server, mirrors it, kills it, activates the mirror, starts PostgreSQL on it and asks it.
pub(super) async fn show(
    args: &DemoArgs,
    programs: PostgresPrograms,
    user: ServerUser,
    narrator: &Narrator,
) -> Result<DemoReport, DemoError> {
    let workplace = Workplace::for_server(args.keep.as_deref(), &user)?;
    let mirror = workplace.mirror();
    let version = programs.version().to_owned();

    narrator.step("A coordinator runs");
    let coordinator = Server::initdb(&programs, &user).await?;
    let conninfo = coordinator.conninfo()?;
    narrator.say(format_args!(
        "PostgreSQL {version} of {}, made for this in a temporary directory",
        programs.bindir().display()
    ));

    narrator.step("walreceiver init: a mirror is made from it while it serves");
    takeover::init(&mirror, &coordinator.text(), narrator).await?;

    narrator
        .step("walreceiver run: its WAL is received, checked, written, synced and acknowledged");
    narrator.say(follow_command(&mirror));
    let as_mirror = conninfo
        .clone()
        .with_application_name_default(APPLICATION_NAME);
    let mut mirroring = Mirroring::start(&mirror, &as_mirror);
    mirroring
        .wait_until("the mirror did not connect", |status| {
            status.sender_pid.is_some()
        })
        .await?;
    coordinator
        .call(|server| {
            server.configure(&[SYNCHRONOUS])?;
            server.reload();
            Ok(())
        })
        .await?;
    wait_until_synchronous(&conninfo).await?;
    narrator.say(format_args!(
        "{} = '{}': commits wait for the mirror",
        SYNCHRONOUS.0, SYNCHRONOUS.1
    ));
    let workload = Workload::start(&conninfo).await?;
    follow(&workload, &mirroring, narrator).await;

    narrator.step("The coordinator is killed with SIGKILL while its clients commit");
    let acknowledged_lsn = acknowledged_lsn(&conninfo).await?;
    coordinator.call(LocalPostgres::kill_9).await?;
    let acknowledged = workload.ended().await;
    mirroring
        .wait_until("the loss was not noticed", |status| {
            status.sender_pid.is_none()
        })
        .await?;
    narrator.say("All its processes are gone; every client has lost it");

    let takeover = takeover::take_over(&mirror, mirroring, narrator).await?;

    narrator.step("PostgreSQL starts on the mirror");
    narrator.say(format_args!("$ pg_ctl start -D {}", mirror.display()));
    let activated = Server::on_mirror(&programs, &user, &mirror).await?;
    let new = activated.conninfo()?;
    wait_until_primary(&new).await?;
    let found = workload::look_for(&new, &acknowledged).await?;
    let (facts, is_primary) = live_facts(&new).await?;
    narrator.say(format_args!(
        "{} of {} acknowledged commits are there; timeline {}, databases {}",
        found.found,
        found.acknowledged,
        facts.new_timeline,
        facts.database_names.join(", ")
    ));
    activated
        .call(|server| server.stop(super::local_postgres::StopMode::Fast))
        .await?;

    let mut report = takeover.report(Coordinator::Postgres, version, acknowledged_lsn);
    let Found {
        acknowledged,
        found,
    } = found;
    (report.acknowledged_commits, report.found_commits) = (acknowledged, found);
    report.checks = checks(&report, &facts, is_primary);
    report.checks.push(takeover.activated_check());
    report.databases = facts.database_names.len();
    report.live = Some(facts);
    report.kept = workplace.kept();
    Ok(report)
}

/// Shows how the mirror follows while the clients work.
async fn follow(workload: &Workload, mirroring: &Mirroring, narrator: &Narrator) {
    let began = Instant::now();
    let gauge = narrator.gauge(None);
    while began.elapsed() < WORK {
        sleep(super::TICK).await;
        let line = takeover::progress_line(&mirroring.status());
        gauge.set(
            0,
            format_args!("{} commits acknowledged; {line}", workload.committed()),
        );
    }
    gauge.finish();
}

fn checks(report: &DemoReport, facts: &LiveFacts, is_primary: bool) -> Vec<Check> {
    let (acknowledged, end) = (report.acknowledged_lsn, report.end_lsn);
    vec![
        Check {
            name: "the mirror has all WAL that it acknowledged to the coordinator",
            passed: acknowledged.is_valid() && acknowledged <= end,
            found: format!("acknowledged {acknowledged}, whole up to {end}"),
        },
        report.commits_check(),
        Check {
            name: "PostgreSQL accepts the mirror as a primary on a new timeline",
            passed: is_primary && facts.new_timeline > report.timeline,
            found: format!("timeline {}", facts.new_timeline),
        },
    ]
}

/// Waits until the server has replayed the mirror's WAL and takes writes.
async fn wait_until_primary(conninfo: &ConnInfo) -> Result<(), DemoError> {
    let began = Instant::now();
    loop {
        let failure = match Connection::connect(conninfo, Purpose::Sql).await {
            Ok(mut connection) => {
                let state = connection.query("SELECT pg_is_in_recovery()").await?;
                connection.terminate().await;
                if state.text(0, 0) == Some("f") {
                    return Ok(());
                }
                DemoError::Deadline {
                    what: "PostgreSQL did not end its recovery",
                    seconds: DEADLINE.as_secs(),
                }
            }
            Err(error) => error.into(),
        };
        if began.elapsed() > DEADLINE {
            return Err(failure);
        }
        sleep(super::TICK).await;
    }
}

/// Waits until the server counts the mirror as its synchronous standby.
async fn wait_until_synchronous(conninfo: &ConnInfo) -> Result<(), DemoError> {
    let mut connection = Connection::connect(conninfo, Purpose::Sql).await?;
    let began = Instant::now();
    let sql = format!(
        "SELECT 1 FROM pg_stat_replication WHERE application_name = '{APPLICATION_NAME}' AND sync_state = 'sync'"
    );
    while connection.query(&sql).await?.rows.is_empty() {
        if began.elapsed() > DEADLINE {
            return Err(DemoError::Deadline {
                what: "the mirror did not become synchronous",
                seconds: DEADLINE.as_secs(),
            });
        }
        sleep(super::TICK).await;
    }
    connection.terminate().await;
    Ok(())
}

/// What the server knows to be durable in the mirror.
async fn acknowledged_lsn(conninfo: &ConnInfo) -> Result<Lsn, DemoError> {
    let mut connection = Connection::connect(conninfo, Purpose::Sql).await?;
    let sql = format!(
        "SELECT flush_lsn FROM pg_stat_replication WHERE application_name = '{APPLICATION_NAME}'"
    );
    let result = connection.query(&sql).await?;
    connection.terminate().await;
    let lsn = result.text(0, 0).and_then(|text| text.parse().ok());
    Ok(lsn.unwrap_or(Lsn::INVALID))
}

/// What a server says of itself, and whether it is a primary.
async fn live_facts(conninfo: &ConnInfo) -> Result<(LiveFacts, bool), DemoError> {
    let mut connection = Connection::connect(conninfo, Purpose::Sql).await?;
    let names = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname";
    let databases = connection.query(names).await?;
    let names = (0..databases.rows.len()).filter_map(|row| databases.text(row, 0));
    let database_names = names.map(ToOwned::to_owned).collect();
    // The name of the file that is written carries the timeline; the control file may lag behind.
    let state = "SELECT pg_is_in_recovery(), substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    let state = connection.query(state).await?;
    connection.terminate().await;
    let timeline = state
        .text(0, 1)
        .and_then(|text| u32::from_str_radix(text, 16).ok());
    let facts = LiveFacts {
        new_timeline: timeline.unwrap_or(0),
        database_names,
    };
    Ok((facts, state.text(0, 0) == Some("f")))
}

/// A server of our own, whose calls block and are therefore made on threads that may.
#[derive(Clone, Debug)]
struct Server(Arc<Mutex<LocalPostgres>>);

impl Server {
    /// A new cluster, running.
    async fn initdb(programs: &PostgresPrograms, user: &ServerUser) -> Result<Self, DemoError> {
        let (programs, user) = (programs.clone(), user.clone());
        let settings = [
            ("wal_level", "replica"),
            ("max_wal_senders", "10"),
            ("max_replication_slots", "10"),
        ];
        Self::started(move || {
            LocalPostgres::initdb(&programs, &user, Listen::Socket, &[], &settings)
        })
        .await
    }

    /// The server of an activated mirror, which belongs to its user from now on.
    async fn on_mirror(
        programs: &PostgresPrograms,
        user: &ServerUser,
        mirror: &Path,
    ) -> Result<Self, DemoError> {
        user.own(mirror).map_err(io_error("give away", mirror))?;
        let (programs, user, mirror) = (programs.clone(), user.clone(), mirror.to_owned());
        Self::started(move || {
            LocalPostgres::on_directory(&programs, &user, Listen::Socket, &mirror)
        })
        .await
    }

    async fn started(
        make: impl FnOnce() -> Result<LocalPostgres, LocalPostgresError> + Send + 'static,
    ) -> Result<Self, DemoError> {
        let made = spawn_blocking(move || {
            let mut server = make()?;
            server.start()?;
            Ok::<_, LocalPostgresError>(server)
        });
        let server = made.await.map_err(|_| DemoError::RuntimeEnded)??;
        Ok(Self(Arc::new(Mutex::new(server))))
    }

    async fn call(
        &self,
        call: impl FnOnce(&mut LocalPostgres) -> Result<(), LocalPostgresError> + Send + 'static,
    ) -> Result<(), DemoError> {
        let this = self.clone();
        let called = spawn_blocking(move || call(&mut this.lock()));
        Ok(called.await.map_err(|_| DemoError::RuntimeEnded)??)
    }

    fn text(&self) -> String {
        self.lock().conninfo()
    }

    fn conninfo(&self) -> Result<ConnInfo, DemoError> {
        let conninfo = ConnInfo::resolve(&self.text(), &Environment::default())?;
        Ok(conninfo.with_database_default("postgres"))
    }

    fn lock(&self) -> MutexGuard<'_, LocalPostgres> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
