//! Logs: to standard error, as text for people or JSON for machines.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Options about logs, the same for every command.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Form of the log lines on standard error.
    #[arg(
        long,
        value_enum,
        default_value = "text",
        global = true,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// Least severe level that is logged: error, warn, info, debug or trace, or a filter such as
    /// `info,walreceiver::connection=debug`. Default: info, and error for demo.
    #[arg(long, env = "WALRECEIVER_LOG", global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Sends all further log events of this process to standard error.
///
/// Without a level on the command line it is `default`. An unreadable filter falls back to `info` and says so.
pub fn install(args: &LogArgs, default: &str) {
    let level = args.log_level.as_deref().unwrap_or(default);
    let (filter, complaint) = match EnvFilter::try_new(level) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Installing fails only where an embedding program has installed its own subscriber, which is then used.
    let _ = match args.log_format {
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Some(error) = complaint {
        tracing::warn!(filter = level, %error, "log level not understood, using info");
    }
}
