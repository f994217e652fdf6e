//! `walsender verifier` on a terminal: what is typed is not shown, and is again however the question ends.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;

use anyhow::{Result, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use walstream_tests::{Running, SHORT, Signal, Workdir, wait_for};

/// A terminal, and the side of the one who types.
struct Terminal {
    typist: File,
    terminal: File,
}

impl Terminal {
    fn open() -> Result<Self> {
        let typist: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&typist)?;
        unlockpt(&typist)?;
        let name = ptsname(&typist, Vec::new())?;
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str()?)?;
        Ok(Self {
            typist: File::from(typist),
            terminal,
        })
    }

    fn shows_what_is_typed(&self) -> Result<bool> {
        let modes = tcgetattr(&self.terminal)?.local_modes;
        Ok(modes.contains(LocalModes::ECHO))
    }

    fn start(&self, work: &Workdir) -> Result<Running> {
        let program = work.program("walsender")?.args(["verifier", "standby"]);
        let mut running = program.stdin_from(self.terminal.try_clone()?).start()?;
        running.wait_for_output("Password of user \"standby\": ", SHORT)?;
        ensure!(!self.shows_what_is_typed()?, "a password is shown");
        Ok(running)
    }
}

#[test]
fn signals_leave_the_terminal_as_it_was() -> Result<()> {
    let work = Workdir::new()?;
    let terminal = Terminal::open()?;
    ensure!(terminal.shows_what_is_typed()?);
    for (signal, code) in [
        (Signal::INT, 130),
        (Signal::TERM, 143),
        (Signal::QUIT, 131),
        (Signal::HUP, 129),
    ] {
        let mut running = terminal.start(&work)?;
        running.signal(signal)?;
        let finished = running.wait(SHORT)?;
        finished.expect_failure(code, &["interrupted"])?;
        ensure!(finished.stdout.is_empty(), "{finished}");
        ensure!(terminal.shows_what_is_typed()?, "after signal {signal:?}");
    }
    Ok(())
}

#[test]
fn an_answer_and_the_second_question_that_is_interrupted() -> Result<()> {
    let work = Workdir::new()?;
    let mut terminal = Terminal::open()?;
    let mut running = terminal.start(&work)?;
    terminal.typist.write_all(b"secret\n")?;
    running.wait_for_output("Again: ", SHORT)?;
    wait_for("a terminal that shows nothing", SHORT, || {
        Ok(!terminal.shows_what_is_typed()?)
    })?;
    running.signal(Signal::INT)?;
    let finished = running.wait(SHORT)?;
    ensure!(finished.code() == Some(130), "{finished}");
    ensure!(terminal.shows_what_is_typed()?);

    let mut running = terminal.start(&work)?;
    terminal.typist.write_all(b"secret\n")?;
    running.wait_for_output("Again: ", SHORT)?;
    terminal.typist.write_all(b"secret\n")?;
    let finished = running.wait(SHORT)?;
    ensure!(finished.code() == Some(0), "{finished}");
    ensure!(
        finished.stdout.starts_with("standby:SCRAM-SHA-256$"),
        "{finished}"
    );
    ensure!(!finished.stderr.contains("secret"), "{finished}");
    ensure!(terminal.shows_what_is_typed()?);
    Ok(())
}
