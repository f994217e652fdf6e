//! Asks for a password on a terminal that does not show what is typed, and shows it again whatever ends the question.

use std::io::{self, BufRead};
use std::os::fd::AsFd;
use std::thread;

use anyhow::Context;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// The question was ended by a signal.
#[derive(Debug, Error)]
#[error("interrupted")]
pub(super) struct Interrupted {
    /// Its number.
    pub(super) signal: u8,
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> Silence<T> {
    fn of(terminal: T) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let new = Self { terminal, before };
        // What was typed before the question is no answer.
        tcsetattr(&new.terminal, OptionalActions::Flush, &silent)?;
        Ok(new)
    }
}

impl<T: AsFd> Drop for Silence<T> {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
        // The end of the answer was not shown, either.
        eprintln!();
    }
}

/// Asks on the terminal that standard input is.
pub(super) async fn ask(prompt: &str) -> anyhow::Result<Vec<u8>> {
    // Caught before anything is changed: by default each would end the process with the terminal as it is.
    let mut ends = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::quit(),
        SignalKind::hangup(),
    ]
    .into_iter()
    .map(|kind| Ok((kind, signal(kind)?)))
    .collect::<io::Result<Vec<_>>>()
    .context("cannot catch signals")?;
    let silence = Silence::of(io::stdin()).context("cannot ask for a password")?;
    eprint!("{prompt}");
    let (answer, mut answered) = oneshot::channel();
    // Its own thread: one of the runtime's would be waited for when a signal ends the question.
    thread::Builder::new()
        .spawn(move || answer.send(read_line()))
        .context("cannot ask for a password")?;
    let ended = std::future::poll_fn(|cx| {
        for (kind, signal) in &mut ends {
            if signal.poll_recv(cx).is_ready() {
                return std::task::Poll::Ready(*kind);
            }
        }
        std::task::Poll::Pending
    });
    let result = tokio::select! {
        biased;
        kind = ended => Err(Interrupted {
            signal: u8::try_from(kind.as_raw_value()).unwrap_or(0),
        }
        .into()),
        line = &mut answered => line.context("cannot read the password")?,
    };
    drop(silence);
    result
}

/// One line of standard input, which need not be text.
pub(super) fn read_line() -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    io::stdin()
        .lock()
        .read_until(b'\n', &mut line)
        .context("cannot read the password")?;
    while line
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        line.pop();
    }
    Ok(line)
}
