//! The command `walreceiver init`: questions, progress, and the words at the end.

use std::fmt::Write;
use std::io;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::error::InitError;
use super::options::InitArgs;
use super::progress::{InitObserver, WarningsOnly, for_standard_error};
use super::report::InitReport;
use super::{InitOptions, Prepared, prepare};
use crate::cli::prompt::{Answer, confirm};
use crate::cli::report;
use crate::connection::Environment;
use crate::exit::Exit;

/// Makes a mirror as the command line says, and tells how it went.
pub async fn run_command(args: InitArgs) -> Exit {
    let observer: Box<dyn InitObserver> = if args.json {
        Box::new(WarningsOnly)
    } else {
        for_standard_error()
    };
    match run(&args, observer.as_ref()).await {
        Ok(report) if args.json => {
            println!("{}", report.to_json());
            Exit::Success
        }
        Ok(report) => {
            println!(
                "Successfully created standby coordinator on {}",
                host_name()
            );
            println!("{report}");
            Exit::Success
        }
        Err(error) => {
            let exit = error.exit();
            if args.json {
                println!(
                    "{}",
                    json!({"status": "failed", "error": error.to_string(), "exit_code": exit.code()})
                );
            }
            report(&error);
            exit
        }
    }
}

async fn run(args: &InitArgs, observer: &dyn InitObserver) -> Result<InitReport, InitError> {
    let options = InitOptions::from_args(args, &Environment::from_process())?;
    // Until the first signal handler is there, a signal ends the process as it always does: nothing was made yet.
    let mut interrupt = Interrupt::listen();
    let prepared = prepare(options, observer, interrupt.wait()).await?;
    if !args.yes {
        eprintln!("{}", summary(&prepared));
        let question = "Do you want to continue with standby coordinator initialization?";
        let answer = tokio::select! {
            biased;
            () = interrupt.wait() => return Err(InitError::Interrupted),
            answer = tokio::task::spawn_blocking(move || confirm(question)) => answer?,
        };
        match answer {
            Ok(Answer::Yes) => {}
            Ok(Answer::No) => return Err(InitError::NotConfirmed { nobody: false }),
            Ok(Answer::NobodyThere) | Err(_) => {
                return Err(InitError::NotConfirmed { nobody: true });
            }
        }
    }
    prepared.create(observer, interrupt.wait()).await
}

/// SIGINT and SIGTERM.
struct Interrupt(io::Result<[tokio::signal::unix::Signal; 2]>);

impl Interrupt {
    fn listen() -> Self {
        let both = || {
            Ok([
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            ])
        };
        Self(both())
    }

    /// Resolves at the first of them; never when they cannot be listened to, in which case they end the process.
    async fn wait(&mut self) {
        match &mut self.0 {
            Ok([interrupt, terminate]) => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(_) => std::future::pending().await,
        }
    }
}

/// What will be done, in the words of `gpinitstandby`.
fn summary(prepared: &Prepared) -> String {
    let (facts, options) = (prepared.facts(), prepared.options());
    let version = format!(
        "{}.{}",
        facts.version_num / 10_000,
        facts.version_num % 10_000
    );
    let unknown = || "(not allowed to know)".to_owned();
    let role = if facts.is_standby {
        "standby"
    } else {
        "primary"
    };
    let lines = [
        ("Coordinator", facts.peer.clone()),
        (
            "Coordinator role",
            format!("{role}, PostgreSQL {version}, timeline {}", facts.timeline),
        ),
        (
            "Coordinator system identifier",
            facts.system_identifier.to_string(),
        ),
        (
            "Coordinator data directory",
            facts.data_directory.clone().unwrap_or_else(unknown),
        ),
        ("Standby hostname", host_name()),
        (
            "Standby data directory",
            options.target.display().to_string(),
        ),
        (
            "Replication slot",
            options.slot.clone().unwrap_or_else(|| "none".to_owned()),
        ),
    ];
    let title = "Standby coordinator initialization parameters";
    let mut text = format!("{0}\n{title}\n{0}", "-".repeat(60));
    for (name, value) in lines {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{name:<34} = {value}");
    }
    text
}

/// This machine's name.
fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
