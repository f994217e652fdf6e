//! `walreceiver status`: how a mirror stands, as `gpstate -f` shows a standby coordinator.
//!
//! Three are asked: the receiver through its socket, the primary in SQL, and without a receiver the mirror's own files. What
//! one of them cannot say is shown as unknown, with the reason, and never as 0.

pub mod facts;
pub mod gather;
pub mod json;
pub mod options;
pub mod primary;
pub mod primary_facts;
pub mod report;
mod sql;
mod status_error;
pub mod verdict;

use std::io::Write;

pub use facts::StatusFacts;
pub use gather::{StatusConfig, gather};
pub use status_error::StatusError;
pub use verdict::{Synchronization, Verdict};

use crate::connection::{ConnInfo, Environment};
use crate::exit::Exit;
use crate::mirror::state::MirrorState;
use options::StatusArgs;

/// Runs the command.
pub async fn run_command(args: StatusArgs) -> Exit {
    match command(&args).await {
        Ok(exit) => exit,
        Err(error) => {
            crate::cli::report(&error);
            error.exit()
        }
    }
}

async fn command(args: &StatusArgs) -> Result<Exit, StatusError> {
    let state = MirrorState::load(&args.pgdata)?;
    let environment = Environment::from_process();
    let primary = match &args.primary {
        Some(primary) => Ok(ConnInfo::resolve(primary, &environment)?),
        // What `init` was given may have become wrong, such as a service that is gone; that is no reason to show nothing.
        None => ConnInfo::resolve(&state.facts.primary, &environment).map_err(|e| e.to_string()),
    };
    let config = StatusConfig {
        mirror: args.pgdata.clone(),
        primary,
        primary_timeout: args.primary_timeout,
        max_lag: args.max_lag,
    };
    let facts = gather(&config).await?;
    let verdict = Verdict::of(&facts, args.max_lag);
    let text = if args.json {
        format!("{:#}\n", json::to_json(&facts, &verdict))
    } else {
        report::report(&facts, &verdict)
    };
    // A reader that has seen enough, such as `head`, is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if args.check && verdict.synchronization != Synchronization::Synchronized {
        return Ok(Exit::Failure);
    }
    Ok(Exit::Success)
}
