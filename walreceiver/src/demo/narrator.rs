//! [`Narrator`]: shows the demonstration to a person: numbered steps with times, and bars on a terminal.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::init::progress::{InitObserver, InitStep};

/// Without a terminal, how often a line tells how far something is.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Tells a person what happens; or nobody, when only facts are wanted.
#[derive(Debug)]
pub(super) struct Narrator {
    is_silent: bool,
    began: Instant,
    steps: Cell<u32>,
}

impl Narrator {
    pub(super) fn new(is_silent: bool) -> Self {
        Self {
            is_silent,
            began: Instant::now(),
            steps: Cell::new(0),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What everything is about.
    pub(super) fn title(&self, text: impl Display) {
        if !self.is_silent {
            println!("{text}");
        }
    }

    /// The next step begins.
    pub(super) fn step(&self, text: impl Display) {
        self.steps.set(self.steps.get() + 1);
        if !self.is_silent {
            let (number, seconds) = (self.steps.get(), self.began.elapsed().as_secs_f32());
            println!("\n{number}. {text}  [{seconds:.1} s]");
        }
    }

    /// Something about the step.
    pub(super) fn say(&self, text: impl Display) {
        if !self.is_silent {
            for line in text.to_string().lines() {
                println!("   {line}");
            }
        }
    }

    /// Shows how far something of this length is, in bytes.
    pub(super) fn gauge(&self, length: Option<u64>) -> Gauge {
        Gauge::new(self.is_silent, length)
    }

    /// Shows what an init does.
    pub(super) fn init_observer(&self) -> InitNarrator {
        InitNarrator {
            is_silent: self.is_silent,
            gauge: Gauge::new(self.is_silent, None),
        }
    }
}

/// A bar on a terminal, a line now and then elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Gauge {
    bar: ProgressBar,
    has_lines: bool,
    told_at: Arc<Mutex<Instant>>,
}

impl Gauge {
    fn new(is_silent: bool, length: Option<u64>) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let bar = if is_silent || !is_terminal {
            ProgressBar::hidden()
        } else {
            ProgressBar::no_length()
        };
        let gauge = Self {
            bar,
            has_lines: !is_silent && !is_terminal,
            told_at: Arc::new(Mutex::new(Instant::now())),
        };
        match length {
            Some(length) => gauge.set_length(length, "   [{bar:12}] {wide_msg}"),
            None => gauge.set_style("   {spinner} {wide_msg}"),
        }
        gauge
    }

    fn set_length(&self, length: u64, template: &str) {
        self.bar.set_length(length);
        self.set_style(template);
        self.bar.reset_elapsed();
    }

    fn set_style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
    }

    pub(super) fn set(&self, done: u64, text: impl Display) {
        if self.bar.length().is_some_and(|length| length < done) {
            self.bar.set_length(done);
        }
        self.bar.set_position(done);
        let text = text.to_string();
        if self.has_lines && !text.is_empty() && self.line_is_due() {
            println!("   {text}");
        }
        self.bar.set_message(text);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line_is_due(&self) -> bool {
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told_at.elapsed() >= LINE_INTERVAL;
        if is_due {
            *told_at = Instant::now();
        }
        is_due
    }
}

/// Shows an init's steps as lines of the step it belongs to.
#[derive(Debug)]
pub(super) struct InitNarrator {
    is_silent: bool,
    gauge: Gauge,
}

impl InitObserver for InitNarrator {
    fn step(&self, step: &InitStep) {
        if self.is_silent {
            return;
        }
        if matches!(
            step,
            InitStep::ReceiveWal { .. } | InitStep::RollBack { .. }
        ) {
            self.gauge.finish();
        }
        println!("   {step}");
        if let InitStep::CopyFiles {
            total_bytes: Some(total),
            ..
        } = step
        {
            self.gauge.set_length(
                *total,
                "   [{bar:30}] {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}",
            );
        }
    }

    fn progress(&self, bytes_done: u64) {
        self.gauge.set(bytes_done, "");
    }

    fn notice(&self, text: &str) {
        if !self.is_silent {
            println!("   {text}");
        }
    }

    /// What an operator must see to does not matter for a mirror that is about to be thrown away.
    fn warning(&self, _: &str) {}
}
