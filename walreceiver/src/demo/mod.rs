//! `walreceiver demo`: the main job, shown with nothing installed.
//!
//! It runs the same code that the commands run, in one process, on a temporary directory: [`crate::init`],
//! [`crate::run`], [`crate::activate`]. The coordinator is a recorded PostgreSQL server, or a real one where
//! PostgreSQL's programs are found ([`local_postgres`]).

mod demo_error;
mod free_port;
mod live;
pub mod local_postgres;
pub mod local_postgres_clients;
mod local_postgres_error;
mod mirroring;
mod narrator;
mod options;
pub mod orphan_guard;
pub mod postgres_programs;
mod recorded;
pub mod report;
pub mod scratch_dir;
pub mod server_user;
mod summary;
mod takeover;
mod wal_facts;
mod workload;
mod workplace;

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

pub use demo_error::DemoError;
pub use local_postgres_error::LocalPostgresError;
pub use options::DemoArgs;

use crate::exit::Exit;
use narrator::Narrator;
use postgres_programs::{PostgresChoice, PostgresPrograms};
use report::DemoReport;
use server_user::ServerUser;

/// How often what is shown is brought up to date.
const TICK: Duration = Duration::from_millis(50);

/// Shows the demonstration as the command line says.
pub async fn run_command(args: DemoArgs) -> Exit {
    let narrator = Narrator::new(args.json);
    let result = tokio::select! {
        result = show(&args, &narrator) => result,
        () = interrupted() => Err(DemoError::Interrupted),
    };
    match result {
        Ok(report) => {
            if args.json {
                println!("{}", serde_json::json!(report));
            } else {
                print!("{}", summary::summary(&report));
            }
            if report.passed {
                Exit::Success
            } else {
                Exit::Failure
            }
        }
        Err(error) => {
            crate::cli::report(&error);
            error.exit()
        }
    }
}

/// Runs the demonstration. It may be dropped at any time; what it made is then removed.
///
/// # Errors
/// [`DemoError`] when a step fails. What is missing in the mirror is in the report.
async fn show(args: &DemoArgs, narrator: &Narrator) -> Result<DemoReport, DemoError> {
    let report = match find_postgres(&args.postgres)? {
        Some((programs, user)) => {
            narrator.title(format_args!(
                "walreceiver demo, with a server of PostgreSQL {}",
                programs.version()
            ));
            live::show(args, programs, user, narrator).await?
        }
        None => {
            narrator.title("walreceiver demo, with a recorded PostgreSQL server");
            recorded::show(args, narrator).await?
        }
    };
    Ok(report.concluded(narrator.elapsed()))
}

/// The programs to use, and the user to run them as; `None` when there are none and none are demanded.
fn find_postgres(
    choice: &PostgresChoice,
) -> Result<Option<(PostgresPrograms, ServerUser)>, DemoError> {
    let is_demanded = matches!(choice, PostgresChoice::BinDir(_));
    let Some(user) = ServerUser::choose() else {
        return match is_demanded {
            true => Err(LocalPostgresError::NoUser.into()),
            false => Ok(None),
        };
    };
    match PostgresPrograms::find(choice, &user) {
        Ok(programs) => Ok(programs.map(|programs| (programs, user))),
        Err(error) if is_demanded => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Resolves at SIGINT or SIGTERM; never when they cannot be listened to, in which case they end the process.
async fn interrupted() {
    match (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}
