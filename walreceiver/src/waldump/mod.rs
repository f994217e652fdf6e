//! `walreceiver waldump`: the records of WAL, as `pg_waldump` shows them.
//!
//! | module | what |
//! |---|---|
//! | `options` | the command line |
//! | `input` | which segments are meant |
//! | `dump`, `follow`, `live` | records of segments, of segments that grow, of a server's stream |
//! | `filter`, `visit` | which records, and what becomes of them |
//! | `line`, `json_line`, `number`, `description`, `local_time` | as text |
//! | `statistics`, `statistics_table` | as counts |
//! | `output` | in order, to standard output |

mod description;
pub mod dump;
pub mod filter;
mod follow;
pub mod input;
mod json_line;
mod line;
pub mod live;
pub mod live_error;
mod local_time;
mod number;
pub mod options;
pub mod output;
pub mod statistics;
pub mod statistics_table;
pub mod visit;
mod waldump_error;

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use waldump_error::WaldumpError;

use crate::exit::Exit;
use dump::{DumpJob, Show, dump, end_text};
use filter::{RecordFilter, RmgrChoice, built_in_rmgrs};
use input::InputRequest;
use live::{LiveJob, stream_records};
use options::{StatsBy, WaldumpArgs};
use statistics_table::StatisticsBy;
use visit::Form;

/// Runs the command.
pub async fn run_command(args: WaldumpArgs) -> Exit {
    match command(args).await {
        Ok(()) => Exit::Success,
        Err(error) => {
            crate::cli::report(&error);
            error.exit()
        }
    }
}

async fn command(args: WaldumpArgs) -> Result<(), WaldumpError> {
    // Not through the standard library's buffer, which looks for line ends in what is whole lines already.
    let mut out = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(WaldumpError::Output)?;
    if args.rmgr.contains(&RmgrChoice::List) {
        let names: String = built_in_rmgrs()
            .map(|(_, name)| format!("{name}\n"))
            .collect();
        return match out.write_all(names.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(WaldumpError::Output(error))
            }
            _ => Ok(()),
        };
    }
    let (cancel, stop) = stop_on_signals()?;
    let show = show(&args);
    if let Some(primary) = args.primary {
        let job = LiveJob {
            primary,
            slot: args.slot,
            show,
        };
        return stream_records(&job, out, stop).await;
    }
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let job = DumpJob {
        input: InputRequest {
            path: args.path,
            first: args.first,
            last: args.last,
            timeline: args.timeline,
        },
        show,
        follow: args.follow,
        threads,
    };
    let work = tokio::task::spawn_blocking(move || dump(&job, out, &cancel));
    let end = work
        .await
        .map_err(|error| WaldumpError::Run(error.to_string()))??;
    if let Some(end) = end.filter(|_| !args.quiet) {
        eprintln!("walreceiver: {}", end_text(&end));
    }
    Ok(())
}

fn show(args: &WaldumpArgs) -> Show {
    let rmgrs = args.rmgr.iter().filter_map(|choice| match choice {
        RmgrChoice::Id(id) => Some(*id),
        RmgrChoice::List => None,
    });
    Show {
        start: args.start,
        end: args.end,
        limit: args.limit.filter(|limit| *limit > 0),
        filter: RecordFilter {
            rmgrs: rmgrs.collect(),
            xid: args.xid,
            relation: args.relation,
            block: args.block,
            fork: args.fork,
            full_page: args.fullpage,
        },
        form: match args.stats {
            _ if args.quiet => Form::Nothing,
            Some(_) => Form::Statistics,
            None if args.json => Form::Json,
            None => Form::Text {
                details: args.bkp_details,
            },
        },
        by: match args.stats {
            Some(StatsBy::Record) => StatisticsBy::Record,
            _ => StatisticsBy::Rmgr,
        },
        json: args.json,
    }
}

/// Both become true on SIGINT or SIGTERM.
fn stop_on_signals() -> Result<(Arc<AtomicBool>, watch::Receiver<bool>), WaldumpError> {
    let signals = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) =
        signals.map_err(|error| WaldumpError::Run(error.to_string()))?;
    let cancel = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = watch::channel(false);
    let raised = Arc::clone(&cancel);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        raised.store(true, Ordering::Relaxed);
        sender.send_replace(true);
        // The sender must live as long as anybody may ask.
        sender.closed().await;
    });
    Ok((cancel, receiver))
}
