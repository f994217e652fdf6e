//! `walsender status`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use rustix::termios::tcgetwinsize;
use thiserror::Error;
use walsender::durable::FileError;
use walsender::slot::read_slots;
use walsender::status::slot::slot_table;
use walsender::status::socket::ask;
use walsender::status::standby::standby_table;
use walsender::status::table::Table;
use walsender::status::text::{lsn_or_empty, rfc3339_us};
use walsender::status::{SenderStatus, SourceStatus, SyncStatus};

use super::observe::socket_in;

const EXAMPLE: &str = "\
Of a sender that was started with --slots /var/lib/walsender:
  walsender status --slots /var/lib/walsender
  walsender status --slots /var/lib/walsender --json | jq '.standbys[].flush_lsn'

A hub, walreceiver run --serve, is asked with: walreceiver status -D DIR";

/// Asks a running "walsender serve" for its standbys, slots, source and sync settings
///
/// Every standby is a line with the columns of pg_stat_replication, every slot one with those of pg_replication_slots. On a
/// terminal that the lines do not fit, each is a block instead. What is not known is empty, and null with --json, where
/// times are microseconds since 1970 and lags microseconds. Ends with exit code 3 when no sender answers.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLE)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print a block for each standby and slot, with a line for each column
    #[arg(short = 'x', long, conflicts_with = "json")]
    expanded: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PlaceArgs {
    /// The sender's directory of slots, in which its status socket is unless it was given another
    #[arg(long, value_name = "DIR")]
    slots: Option<PathBuf>,
    /// The sender's --status-socket
    #[arg(long, value_name = "PATH")]
    status_socket: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    /// Nobody is there.
    #[error("no walsender answers at \"{}\": {hint}", path.display())]
    NobodyThere { path: PathBuf, hint: String },
    /// It says nothing.
    #[error(
        "the walsender at \"{}\" does not answer: it is stopped, or its disk does not",
        path.display()
    )]
    Silent { path: PathBuf },
    /// What came is no status.
    #[error(
        "what answers at \"{}\" is no walsender of this version: {source}",
        path.display()
    )]
    Answer {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// The socket cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let slots = args.place.slots.as_deref();
    let path = match (&args.place.status_socket, slots) {
        (Some(path), _) => path.clone(),
        (None, slots) => socket_in(slots.context("--slots or --status-socket is needed")?),
    };
    let status = answer(&path, slots)?;
    let text = if args.json {
        serde_json::to_string_pretty(&status)? + "\n"
    } else {
        report(&status, args.expanded)
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

fn answer(path: &Path, slots: Option<&Path>) -> Result<SenderStatus, AskError> {
    let text = match ask(path) {
        Ok(Some(text)) => text,
        Ok(None) => {
            return Err(AskError::NobodyThere {
                path: path.to_owned(),
                hint: hint(slots),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(AskError::Silent {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(FileError::of("ask at", path)(error).into()),
    };
    serde_json::from_slice(&text).map_err(|source| AskError::Answer {
        path: path.to_owned(),
        source,
    })
}

/// What to do next.
fn hint(slots: Option<&Path>) -> String {
    let holder = slots.and_then(|slots| read_slots(slots).ok()?.holder);
    match (slots, holder) {
        (_, Some(pid)) => format!(
            "process {pid} uses the slots, so it was started with another --status-socket, or is just starting or ending"
        ),
        (Some(_), None) => {
            "nobody uses the slots: none runs on them; \"walsender slot list\" shows what is saved"
                .to_owned()
        }
        (None, _) => "none runs with this --status-socket".to_owned(),
    }
}

fn report(status: &SenderStatus, expanded: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        text.push_str(&format!("{name:<26} {value}\n"));
    };
    let started = rfc3339_us(status.started_at_us);
    line("Sender", format!("process {}, since {started}", status.pid));
    line("Listening at", status.address.clone());
    source(&mut line, &status.source);
    sync(&mut line, &status.sync);
    let counts = &status.connections;
    let refused = &counts.refused;
    line(
        "Connections",
        format!(
            "{} of {}, and {} of {} not let in yet; {} since the start",
            counts.sessions,
            counts.max_connections,
            counts.waiting,
            counts.max_waiting_clients,
            counts.accepted
        ),
    );
    line(
        "Refused since the start",
        format!(
            "{} by authentication, {} too many, {} too many at once, {} too slow, {} others",
            refused.authentication,
            refused.too_many_connections,
            refused.too_many_waiting,
            refused.timeout,
            refused.other
        ),
    );
    line(
        "Base backups",
        format!(
            "{} running, {} begun",
            status.backups_running, status.backups
        ),
    );
    line(
        "Sent since the start",
        format!(
            "{} bytes of WAL, {} of base backups",
            status.wal_bytes_sent, status.backup_bytes_sent
        ),
    );
    section(
        &mut text,
        "Standbys",
        &standby_table(&status.standbys),
        expanded,
    );
    section(
        &mut text,
        "Replication slots",
        &slot_table(&status.slots),
        expanded,
    );
    text
}

fn source(line: &mut impl FnMut(&str, String), source: &SourceStatus) {
    line("Source", format!("{} {}", source.kind, source.place));
    line("System identifier", source.system_identifier.clone());
    line(
        "Answers as",
        format!(
            "PostgreSQL {}.{}",
            source.server_version_num / 10_000,
            source.server_version_num % 10_000
        ),
    );
    line(
        "WAL",
        format!(
            "flushed to {} on timeline {}, from {} on",
            lsn_or_empty(source.flush_lsn),
            source.timeline,
            source
                .oldest_lsn
                .map_or_else(|| "an unknown position".to_owned(), |lsn| lsn.to_string())
        ),
    );
}

fn sync(line: &mut impl FnMut(&str, String), sync: &SyncStatus) {
    let names = match (sync.rule.as_str(), sync.synchronous_standby_names.as_str()) {
        ("greenplum", _) => "those that are near enough",
        (_, "") => "none",
        (_, names) => names,
    };
    let from = match &sync.synchronous_standby_names_file {
        Some(file) => format!("{names}   (from \"{file}\")"),
        None => names.to_owned(),
    };
    line("Synchronous standbys", from);
    if sync.rule != "off" {
        let shown = |lsn| match lsn {
            Some(lsn) => format!("{lsn}"),
            None => "nothing yet".to_owned(),
        };
        line(
            "Released by them",
            format!(
                "written {}, flushed {}, replayed {}",
                shown(sync.released_write_lsn),
                shown(sync.released_flush_lsn),
                shown(sync.released_replay_lsn)
            ),
        );
    }
    let waiting = sync.waiting_commits;
    if sync.rule != "off" || waiting.total() > 0 {
        line(
            "Commits that wait",
            format!(
                "{} to be written, {} to be flushed, {} to be replayed, {} to be flushed here",
                waiting.write, waiting.flush, waiting.replay, waiting.local
            ),
        );
    }
}

fn section<const N: usize>(text: &mut String, name: &str, table: &Table<N>, expanded: bool) {
    let blocks = expanded || !fits(table.width());
    text.push_str(&format!("\n{name}: {}\n", table.count()));
    if table.count() > 0 {
        text.push_str(&if blocks {
            table.blocks()
        } else {
            table.lines()
        });
    }
}

/// Whether lines of this width fit, where somebody looks at them.
fn fits(width: usize) -> bool {
    let output = io::stdout();
    if !output.is_terminal() {
        return true;
    }
    match tcgetwinsize(&output) {
        // A terminal that does not know its size says 0.
        Ok(size) => size.ws_col == 0 || width <= usize::from(size.ws_col),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use walsender::status::{SlotLine, StandbyLine, WaitingCommits};
    use walstream::Lsn;

    use super::*;

    #[test]
    fn a_report_says_everything_and_a_silent_sender_nothing_made_up() {
        let status = SenderStatus {
            pid: 17,
            address: "127.0.0.1:5433".to_owned(),
            source: SourceStatus {
                kind: "archive".to_owned(),
                place: "/a".to_owned(),
                server_version_num: 150_018,
                timeline: 2,
                flush_lsn: Some(Lsn(0x300)),
                ..SourceStatus::default()
            },
            sync: SyncStatus {
                rule: "names".to_owned(),
                synchronous_standby_names: "FIRST 1 (a)".to_owned(),
                released_flush_lsn: Some(Lsn(0x200)),
                waiting_commits: WaitingCommits {
                    flush: 2,
                    ..WaitingCommits::default()
                },
                ..SyncStatus::default()
            },
            standbys: vec![StandbyLine {
                application_name: "a".to_owned(),
                sync_state: "sync".to_owned(),
                ..StandbyLine::default()
            }],
            slots: vec![SlotLine {
                slot_name: "kept".to_owned(),
                wal_status: Some("reserved".to_owned()),
                ..SlotLine::default()
            }],
            ..SenderStatus::default()
        };
        let text = report(&status, false);
        for part in [
            "process 17",
            "archive /a",
            "PostgreSQL 15.18",
            "flushed to 0/300 on timeline 2, from an unknown position on",
            "FIRST 1 (a)",
            "written nothing yet, flushed 0/200",
            "0 to be written, 2 to be flushed, 0 to be replayed",
            "Standbys: 1",
            " pid | usename",
            "kept",
            "reserved",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let blocks = report(&status, true);
        assert!(blocks.contains("sync_state       | sync\n"), "{blocks}");
        let nobody = report(&SenderStatus::default(), false);
        assert!(
            nobody.ends_with("\nStandbys: 0\n\nReplication slots: 0\n"),
            "{nobody}"
        );
    }
}
