//! The command from its arguments to its exit code, and the loop around connections.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use rustix::fs::Mode;
use tokio::sync::watch;

use super::help::{help, version};
use super::messages::{Messages, print_raw, system_error};
use super::options::{OptionError, Options, SlotAction};
use super::receive_error::ReceiveError;
use super::server::{self, ServerAddress, application_name, program_name};
use super::session::Receiving;
use super::signals::Signals;
use super::upload::{Destination, Patience, Uploads, UploadsError};
use crate::exit::Exit;
use crate::run::stream::Stop;

/// Name of the program that this command is when it is called by that name.
const PG_RECEIVEWAL: &str = "pg_receivewal";
const OWN_NAME: &str = "walreceiver receive";

/// How long to wait before another connection.
const RECONNECT_WAIT: Duration = Duration::from_secs(5);

const EXIT_CODES: &str = "
Exit codes are those of walreceiver, see walreceiver --help; called as pg_receivewal every failure is 1.
";

/// Archive the WAL of a server, segment by segment: a drop-in for pg_receivewal.
///
/// Takes the options of pg_receivewal; `walreceiver receive --help` shows them. Called through a link named
/// pg_receivewal, walreceiver is that program.
#[derive(Debug, Args)]
#[command(name = "receive", disable_help_flag = true)]
pub struct ReceiveArgs {
    /// Options and arguments, which the command takes apart as pg_receivewal does.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    pub arguments: Vec<OsString>,
}

/// Whether this process was called as `pg_receivewal`.
#[must_use]
pub fn called_as_pg_receivewal() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|path| program_name(&path) == PG_RECEIVEWAL)
}

/// How the command was called.
#[derive(Clone, Debug)]
struct Call {
    /// The program's name in messages.
    program: String,
    /// What stands before complaints about options: the program as it was called.
    path: String,
    /// It is PostgreSQL's program that was called for.
    is_pg_receivewal: bool,
}

impl Call {
    fn of_this_process() -> Self {
        if called_as_pg_receivewal() {
            let path = std::env::args_os().next().unwrap_or_default();
            Self {
                program: PG_RECEIVEWAL.to_owned(),
                path: path.to_string_lossy().into_owned(),
                is_pg_receivewal: true,
            }
        } else {
            Self {
                program: OWN_NAME.to_owned(),
                path: OWN_NAME.to_owned(),
                is_pg_receivewal: false,
            }
        }
    }

    const fn exit(&self, exit: Exit) -> Exit {
        match exit {
            Exit::Success => Exit::Success,
            _ if self.is_pg_receivewal => Exit::Failure,
            exit => exit,
        }
    }
}

/// Runs the command with these arguments, which follow the program's name.
#[must_use]
pub fn main(arguments: &[OsString]) -> Exit {
    let call = Call::of_this_process();
    match arguments.first().and_then(|first| first.to_str()) {
        Some("--help" | "-?") => {
            let codes = if call.is_pg_receivewal {
                ""
            } else {
                EXIT_CODES
            };
            return print(&help(&call.program, codes));
        }
        Some("--version" | "-V") => return print(&version(&call.program)),
        _ => {}
    }
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(error) => return call.exit(complain(&call, &error)),
    };
    let messages = Messages::new(call.program.clone(), options.verbose);
    // One thread: what has arrived is written and synced by who received it, without handing it over.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            messages.error(&format!(
                "cannot start the runtime: {}",
                system_error(&error)
            ));
            return call.exit(Exit::Failure);
        }
    };
    let ended = runtime.block_on(run(&call, &options, &messages));
    // A look-up that nobody waits for any more must not keep the process.
    runtime.shutdown_background();
    call.exit(ended)
}

fn print(text: &str) -> Exit {
    // Nothing can be said where standard output is closed.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Exit::Success
}

fn complain(call: &Call, error: &OptionError) -> Exit {
    let messages = Messages::new(call.program.clone(), false);
    match error {
        OptionError::Getopt(text) if text.is_empty() => {}
        OptionError::Getopt(text) => print_raw(&format!("{}: {text}\n", call.path)),
        error => messages.error(&error.to_string()),
    }
    if matches!(error, OptionError::Getopt(_) | OptionError::Usage(_)) {
        messages.hint(&format!(
            "Try \"{} --help\" for more information.",
            call.program
        ));
    }
    Exit::Usage
}

async fn run(call: &Call, options: &Options, messages: &Messages) -> Exit {
    match act(call, options, messages).await {
        Ok(exit) => exit,
        Err(error) => {
            messages.error(&error.to_string());
            error.exit()
        }
    }
}

/// # Source
/// `main` in `src/bin/pg_basebackup/pg_receivewal.c`.
async fn act(call: &Call, options: &Options, messages: &Messages) -> Result<Exit, ReceiveError> {
    let directory = options.directory.clone().unwrap_or_default();
    if options.slot_action.is_none()
        && let Err(source) = std::fs::read_dir(&directory)
    {
        return Err(ReceiveError::Directory {
            operation: "open directory",
            file: directory,
            source,
        });
    }
    let destination = match &options.to {
        Some(location) if options.slot_action.is_none() => {
            Some(Destination::open(location, &directory).map_err(ReceiveError::Uploads)?)
        }
        _ => None,
    };
    let mut address = ServerAddress::new(&options.server, &application_name(&call.program))?;
    let mut connection = address.connect().await?;
    let directory_mode = server::directory_mode(&mut connection).await?;
    let signals = Signals::new(options.end).map_err(ReceiveError::Signals)?;
    server::identify(&mut connection).await?;
    // Files get the permissions that the server's own have.
    let group = directory_mode & 0o070 == 0o050;
    rustix::process::umask(Mode::from_raw_mode(if group { 0o027 } else { 0o077 }));
    let slot = options.slot.as_deref().unwrap_or_default();
    match options.slot_action {
        Some(SlotAction::Drop) => {
            messages.verbose(&format!("dropping replication slot \"{slot}\""));
            server::drop_slot(&mut connection, slot).await?;
            return Ok(Exit::Success);
        }
        Some(SlotAction::Create) => {
            messages.verbose(&format!("creating replication slot \"{slot}\""));
            let reserve = !call.is_pg_receivewal;
            server::create_slot(&mut connection, slot, reserve, options.if_not_exists).await?;
            return Ok(Exit::Success);
        }
        None => {}
    }
    let major = server::check_version(&connection)?;
    let mut receiving = Receiving {
        dialect: server::dialect(&mut connection, major).await?,
        options,
        directory,
        system: None,
        system_is_of: String::new(),
        messages: messages.clone(),
        stop: signals.stop(),
        last: None,
        uploads: None,
        stored_histories: BTreeMap::new(),
        same_histories: BTreeSet::new(),
        left_is_queued: false,
    };
    let Some(destination) = destination else {
        return receive(receiving, address, connection).await;
    };
    let uploads = tokio::select! {
        started = start_uploads(&destination, &mut receiving) => started?,
        () = signals.wait_for(1) => return Ok(Exit::Success),
    };
    let failing = uploads.clone();
    signals.stop_when(async move { failing.failed().await });
    let ended = receive(receiving, address, connection).await;
    end_uploads(&uploads, ended, &signals, messages).await
}

/// Learns what the place of `--to` holds, and gets ready to put files there.
async fn start_uploads(
    destination: &Destination,
    receiving: &mut Receiving<'_>,
) -> Result<Uploads, ReceiveError> {
    let (segment_size, messages) = (receiving.dialect.segment_size, &receiving.messages);
    let stored = destination.content(segment_size, messages).await?;
    receiving.system = stored.system;
    receiving.system_is_of = format!("WAL in {}", destination.prefix());
    receiving.stored_histories = stored.histories;
    let directory = receiving.directory.clone();
    let uploads = Uploads::start(
        destination,
        stored.newest,
        segment_size,
        directory,
        messages,
    )?;
    receiving.uploads = Some(uploads.clone());
    Ok(uploads)
}

/// Waits for files that are on their way, and tells of those that are left.
async fn end_uploads(
    uploads: &Uploads,
    ended: Result<Exit, ReceiveError>,
    signals: &Signals,
    messages: &Messages,
) -> Result<Exit, ReceiveError> {
    let interrupted = signals.came();
    let is_done = !interrupted && matches!(ended, Ok(Exit::Success));
    // The end position was reached: what was asked for is done when all of it is there.
    let patience = if is_done {
        Patience::WhileStored
    } else {
        Patience::Limited
    };
    let further_signal = signals.wait_for(if interrupted { 2 } else { 1 });
    match uploads.finish(patience, further_signal).await {
        Ok(()) => ended,
        Err(error @ UploadsError::NotStored { .. }) if !is_done => {
            messages.warning(&error.to_string());
            ended
        }
        Err(error) => {
            if let Err(first) = ended {
                messages.error(&first.to_string());
            }
            Err(error.into())
        }
    }
}

/// Receives over one connection after the other.
async fn receive(
    mut receiving: Receiving<'_>,
    mut address: ServerAddress,
    connection: crate::connection::Connection,
) -> Result<Exit, ReceiveError> {
    let mut connection = Some(connection);
    let mut stop = receiving.stop.clone();
    let (options, messages) = (receiving.options, receiving.messages.clone());
    let interrupted = |stop: &watch::Receiver<Stop>| *stop.borrow() == Stop::Now;
    loop {
        let mut waiting = stop.clone();
        let attempt = async {
            let connection = match connection.take() {
                Some(connection) => connection,
                None => tokio::select! {
                    connected = address.connect() => connected?,
                    Ok(_) = waiting.wait_for(|stop| *stop == Stop::Now) => return Ok(()),
                },
            };
            receiving.run(connection).await
        };
        let error = match attempt.await {
            Ok(()) => return Ok(Exit::Success),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => error,
        };
        messages.error(&error.to_string());
        if interrupted(&stop) {
            return Ok(Exit::Success);
        }
        if options.no_loop {
            messages.error("disconnected");
            return Ok(error.exit());
        }
        messages.info(&format!(
            "disconnected; waiting {} seconds to try again",
            RECONNECT_WAIT.as_secs()
        ));
        tokio::select! {
            () = tokio::time::sleep(RECONNECT_WAIT) => {}
            Ok(_) = stop.wait_for(|stop| *stop == Stop::Now) => {
                if receiving.uploads.as_ref().and_then(Uploads::failure).is_none() {
                    messages.verbose("received interrupt signal, exiting");
                }
                return Ok(Exit::Success);
            }
        }
    }
}
