//! `walsender verifier`.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, ensure};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use walsender::auth::{Verifier, verifier_line};

/// Prints a user's line for the file of --auth-file
///
/// The password is asked for on a terminal, else it is the first line of standard input. The line does not hold it, and
/// is still a secret: keep the file closed to others.
#[derive(Debug, Args)]
pub(super) struct VerifierArgs {
    /// Name of the user
    user: String,
}

/// Prints the line.
pub(super) fn run(args: &VerifierArgs) -> anyhow::Result<()> {
    ensure!(!args.user.is_empty(), "the user's name is empty");
    ensure!(
        !args.user.contains(['\n', '\r', '\0']),
        "the user's name must be one line"
    );
    let password = if io::stdin().is_terminal() {
        let password = ask(&format!("Password of user \"{}\": ", args.user))?;
        ensure!(
            password == ask("Again: ")?,
            "the passwords are not the same"
        );
        password
    } else {
        read_line()?
    };
    ensure!(!password.is_empty(), "the password is empty");
    let line = verifier_line(&args.user, &Verifier::of_password(&password)?);
    writeln!(io::stdout(), "{line}").context("cannot write to standard output")
}

/// Asks on the terminal, which does not show what is typed.
fn ask(prompt: &str) -> anyhow::Result<Vec<u8>> {
    eprint!("{prompt}");
    let terminal = io::stdin();
    let before = tcgetattr(&terminal).context("cannot ask for a password")?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let line = read_line();
    tcsetattr(&terminal, OptionalActions::Now, &before)?;
    eprintln!();
    line
}

/// One line of standard input, which need not be text.
fn read_line() -> anyhow::Result<Vec<u8>> {
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
