//! What an init tells while it works: steps, bytes, and what a person should know.
//!
//! The library calls an [`InitObserver`]; the command shows a bar on a terminal, plain lines elsewhere, and nothing but
//! warnings with `--json`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use walstream::{Lsn, TimelineId};

/// A step of an init, told when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitStep {
    /// The server and the target directory are examined.
    Validate,
    /// The slot is made.
    CreateSlot {
        /// Its name.
        name: String,
    },
    /// The server makes a checkpoint, from which the backup starts.
    Checkpoint {
        /// Whether it makes haste.
        fast: bool,
    },
    /// WAL begins to be received beside the backup.
    StreamWal {
        /// From here.
        start_lsn: Lsn,
        /// On this timeline.
        timeline: TimelineId,
    },
    /// Files begin to be copied.
    CopyFiles {
        /// What the server estimates, in bytes.
        total_bytes: Option<u64>,
        /// Tablespaces outside the data directory.
        tablespaces: usize,
    },
    /// All files have come; the WAL that makes them consistent is waited for.
    ReceiveWal {
        /// Up to here.
        end_lsn: Lsn,
    },
    /// The files are compared with the backup manifest.
    Verify,
    /// The server has no manifest to compare with.
    NothingToVerify,
    /// Everything is made durable.
    Sync,
    /// It failed; what was made is removed.
    RollBack {
        /// The mirror directory.
        directory: PathBuf,
    },
}

impl std::fmt::Display for InitStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Validate => {
                write!(
                    f,
                    "Validating environment and parameters for standby initialization..."
                )
            }
            Self::CreateSlot { name } => write!(f, "Creating replication slot \"{name}\"..."),
            Self::Checkpoint { fast: true } => {
                write!(f, "Waiting for the coordinator's checkpoint...")
            }
            Self::Checkpoint { fast: false } => {
                write!(
                    f,
                    "Waiting for the coordinator's checkpoint, spread over time as asked..."
                )
            }
            Self::StreamWal {
                start_lsn,
                timeline,
            } => {
                write!(
                    f,
                    "Receiving write-ahead log from {start_lsn} on timeline {timeline}..."
                )
            }
            Self::CopyFiles { tablespaces: 0, .. } => {
                write!(f, "Copying data directory from coordinator...")
            }
            Self::CopyFiles { tablespaces, .. } => {
                write!(
                    f,
                    "Copying data directory and {tablespaces} tablespace(s) from coordinator..."
                )
            }
            Self::ReceiveWal { end_lsn } => {
                write!(f, "Waiting for write-ahead log up to {end_lsn}...")
            }
            Self::Verify => write!(f, "Verifying all files against the backup manifest..."),
            Self::NothingToVerify => {
                write!(
                    f,
                    "This server has no backup manifest: files are not verified by checksum"
                )
            }
            Self::Sync => write!(f, "Syncing all files to disk..."),
            Self::RollBack { directory } => write!(
                f,
                "Trying to rollback changes that have been made: removing \"{}\"...",
                directory.display()
            ),
        }
    }
}

/// Hears what an init does. Calls are short and from any thread.
pub trait InitObserver: Send + Sync {
    /// A step begins.
    fn step(&self, step: &InitStep);
    /// Bytes of files received so far; called often.
    fn progress(&self, bytes_done: u64);
    /// Something to know that is no fault.
    fn notice(&self, text: &str);
    /// Something to see to.
    fn warning(&self, text: &str);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl InitObserver for Silent {
    fn step(&self, _: &InitStep) {}
    fn progress(&self, _: u64) {}
    fn notice(&self, _: &str) {}
    fn warning(&self, _: &str) {}
}

/// Only warnings, on standard error: for `--json`.
#[derive(Clone, Copy, Debug, Default)]
pub struct WarningsOnly;

impl InitObserver for WarningsOnly {
    fn step(&self, _: &InitStep) {}
    fn progress(&self, _: u64) {}
    fn notice(&self, _: &str) {}

    fn warning(&self, text: &str) {
        eprintln!("walreceiver: warning: {text}");
    }
}

/// The observer that suits standard error: a bar on a terminal, else plain lines.
#[must_use]
pub fn for_standard_error() -> Box<dyn InitObserver> {
    if io::stderr().is_terminal() {
        Box::new(Bar::on_standard_error())
    } else {
        Box::new(Lines::new(|line| eprintln!("{line}")))
    }
}

/// A bar with bytes, rate and time left.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar on standard error, which is a terminal. It shows itself once files are copied.
    #[must_use]
    pub fn on_standard_error() -> Self {
        Self(ProgressBar::with_draw_target(
            None,
            ProgressDrawTarget::hidden(),
        ))
    }

    /// A line above the bar.
    fn tell(&self, line: impl std::fmt::Display) {
        self.0.suspend(|| eprintln!("{line}"));
    }
}

impl InitObserver for Bar {
    fn step(&self, step: &InitStep) {
        self.tell(step);
        match step {
            InitStep::CopyFiles { total_bytes, .. } => {
                let template = match total_bytes {
                    Some(total) => {
                        self.0.set_length(*total);
                        "[{wide_bar}] {percent:>3}%  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left"
                    }
                    None => "{spinner} {binary_bytes}  {binary_bytes_per_sec}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    self.0.set_style(style.progress_chars("=> "));
                }
                self.0.set_draw_target(ProgressDrawTarget::stderr());
                self.0.reset_elapsed();
                self.0.enable_steady_tick(Duration::from_millis(200));
            }
            InitStep::ReceiveWal { .. } | InitStep::RollBack { .. } => self.0.finish_and_clear(),
            _ => {}
        }
    }

    fn progress(&self, bytes_done: u64) {
        // The size is an estimate from the start of the backup; files may have grown since.
        if self.0.length().is_some_and(|total| total < bytes_done) {
            self.0.set_length(bytes_done);
        }
        self.0.set_position(bytes_done);
    }

    fn notice(&self, text: &str) {
        self.tell(text);
    }

    fn warning(&self, text: &str) {
        self.tell(format_args!("WARNING: {text}"));
    }
}

/// Plain lines for logs: each step, and while files are copied one line each ten seconds.
pub struct Lines<W> {
    write: W,
    copying: Mutex<Option<Copying>>,
}

struct Copying {
    total_bytes: Option<u64>,
    started_at: Instant,
    told_at: Instant,
}

/// Time between two lines about bytes.
const INTERVAL: Duration = Duration::from_secs(10);

impl<W: Fn(&str) + Send + Sync> Lines<W> {
    /// Lines given to this function.
    pub const fn new(write: W) -> Self {
        Self {
            write,
            copying: Mutex::new(None),
        }
    }

    fn copying(&self) -> std::sync::MutexGuard<'_, Option<Copying>> {
        self.copying
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn progress_at(&self, now: Instant, bytes_done: u64) {
        let mut copying = self.copying();
        let Some(state) = copying.as_mut() else {
            return;
        };
        if now.saturating_duration_since(state.told_at) < INTERVAL {
            return;
        }
        state.told_at = now;
        let line = copy_line(
            bytes_done,
            state.total_bytes,
            now.saturating_duration_since(state.started_at),
        );
        (self.write)(&line);
    }
}

/// Bytes, rate and time left in words.
fn copy_line(bytes_done: u64, total_bytes: Option<u64>, elapsed: Duration) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let milliseconds = elapsed.as_millis().max(1);
    let per_second =
        u64::try_from(u128::from(bytes_done) * 1000 / milliseconds).unwrap_or(u64::MAX);
    match total_bytes.map(|total| total.max(bytes_done)) {
        Some(total) if total > 0 => {
            let percent = u128::from(bytes_done) * 100 / u128::from(total);
            let left = total.saturating_sub(bytes_done).checked_div(per_second);
            let left = left.map_or_else(
                || "unknown time".to_owned(),
                |seconds| format!("{seconds} s"),
            );
            let (done, total, rate) = (mib(bytes_done), mib(total), mib(per_second));
            format!("{done} of {total} MiB ({percent}%), {rate} MiB/s, {left} left")
        }
        _ => format!("{} MiB, {} MiB/s", mib(bytes_done), mib(per_second)),
    }
}

impl<W: Fn(&str) + Send + Sync> InitObserver for Lines<W> {
    fn step(&self, step: &InitStep) {
        (self.write)(&step.to_string());
        *self.copying() = match step {
            InitStep::CopyFiles { total_bytes, .. } => {
                let now = Instant::now();
                Some(Copying {
                    total_bytes: *total_bytes,
                    started_at: now,
                    told_at: now,
                })
            }
            _ => None,
        };
    }

    fn progress(&self, bytes_done: u64) {
        self.progress_at(Instant::now(), bytes_done);
    }

    fn notice(&self, text: &str) {
        (self.write)(text);
    }

    fn warning(&self, text: &str) {
        (self.write)(&format!("WARNING: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_bytes_each_ten_seconds_while_files_are_copied() {
        let told = Mutex::new(Vec::new());
        let lines = Lines::new(|line: &str| told.lock().unwrap().push(line.to_owned()));
        lines.progress_at(Instant::now() + INTERVAL * 2, 1);
        assert!(told.lock().unwrap().is_empty(), "nothing is copied yet");
        let begin = Instant::now();
        lines.step(&InitStep::CopyFiles {
            total_bytes: Some(400 << 20),
            tablespaces: 0,
        });
        lines.progress_at(begin + INTERVAL - Duration::from_millis(1), 1 << 20);
        lines.progress_at(begin + INTERVAL * 2, 100 << 20);
        lines.progress_at(begin + INTERVAL * 2, 101 << 20);
        lines.step(&InitStep::Verify);
        lines.progress_at(begin + INTERVAL * 4, 200 << 20);
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[1].starts_with("100 of 400 MiB (25%), "), "{}", told[1]);
    }

    #[test]
    fn bytes_rate_and_time_left() {
        let line = |done: u64, total: Option<u64>, seconds| {
            copy_line(
                done << 20,
                total.map(|total| total << 20),
                Duration::from_secs(seconds),
            )
        };
        assert_eq!(
            line(50, Some(200), 5),
            "50 of 200 MiB (25%), 10 MiB/s, 15 s left"
        );
        assert_eq!(
            line(300, Some(200), 3),
            "300 of 300 MiB (100%), 100 MiB/s, 0 s left"
        );
        assert_eq!(
            line(0, Some(200), 3),
            "0 of 200 MiB (0%), 0 MiB/s, unknown time left"
        );
        assert_eq!(line(7, None, 0), "7 MiB, 7000 MiB/s");
    }
}
