//! The command line: one `Command` per subcommand, dispatched to the module that does it.

pub mod logging;
pub mod prompt;
pub mod time_text;

use clap::{Parser, Subcommand};

use crate::exit::Exit;
use logging::LogArgs;

/// Mirror a PostgreSQL coordinator, keep the mirror current, and let it take over.
#[derive(Debug, Parser)]
#[command(name = "walreceiver", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
A mirror's life:
  walreceiver init     -D MIRROR --primary 'host=coordinator user=replicator'
  walreceiver run      -D MIRROR
  walreceiver status   -D MIRROR
  walreceiver activate -D MIRROR && pg_ctl start -D MIRROR

See it all without a server: walreceiver demo

Exit codes:
  0 done   1 failed   2 wrong usage or setting   3 server unreachable   4 refused: password or right
  5 server lacks what is needed: slot, WAL   6 another system or a diverged timeline   7 damaged data
  8 local storage failed   9 mirror locked by another process   10 not safe, see the message
  130 interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    Init(crate::init::options::InitArgs),
    Run(Box<crate::run::options::RunArgs>),
    Status(crate::status::options::StatusArgs),
    Activate(crate::activate::options::ActivateArgs),
    Demo(crate::demo::DemoArgs),
    Replay(crate::replay::options::ReplayArgs),
    Waldump(crate::waldump::options::WaldumpArgs),
    Receive(crate::receive::ReceiveArgs),
}

/// Parses the process's arguments, does what they say, and returns the exit code.
#[must_use]
pub fn main() -> Exit {
    if crate::receive::called_as_pg_receivewal() {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        return crate::receive::main(&arguments);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Success
            };
            // When even this cannot be printed, the exit code is all that is left to say.
            let _ = error.print();
            return exit;
        }
    };
    let default_level = match cli.command {
        // What its receiver would log is what the demonstration shows.
        Command::Demo(_) => "error",
        Command::Receive(_) => "warn",
        _ => "info",
    };
    logging::install(&cli.log, default_level);
    if let Command::Receive(args) = &cli.command {
        // It says everything itself, and has a runtime of its own.
        return crate::receive::main(&args.arguments);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("walreceiver: error: cannot start the runtime: {error}");
            return Exit::Failure;
        }
    };
    let exit = runtime.block_on(dispatch(cli.command));
    // A blocking read that nobody waits for must not keep the process.
    runtime.shutdown_background();
    exit
}

async fn dispatch(command: Command) -> Exit {
    match command {
        Command::Init(args) => crate::init::run_command(args).await,
        Command::Run(args) => crate::run::run_command(*args).await,
        Command::Status(args) => crate::status::run_command(args).await,
        Command::Activate(args) => crate::activate::run_command(args).await,
        Command::Demo(args) => crate::demo::run_command(args).await,
        Command::Replay(args) => crate::replay::run_command(args).await,
        Command::Waldump(args) => crate::waldump::run_command(args).await,
        Command::Receive(args) => crate::receive::main(&args.arguments),
    }
}

/// Prints an error with its causes, as every command does before it exits.
pub fn report(error: &dyn std::error::Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let line = next.to_string();
        // Transparent variants repeat their source's text.
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = next.source();
    }
    eprintln!("walreceiver: error: {text}");
}
