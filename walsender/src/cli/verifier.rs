//! `walsender verifier`.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, ensure};
use clap::Args;
use walsender::auth::{Verifier, verifier_line};

use super::silent_prompt::{ask, read_line};

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
pub(super) async fn run(args: &VerifierArgs) -> anyhow::Result<()> {
    ensure!(!args.user.is_empty(), "the user's name is empty");
    ensure!(
        !args.user.contains(['\n', '\r', '\0']),
        "the user's name must be one line"
    );
    let password = if io::stdin().is_terminal() {
        let password = ask(&format!("Password of user \"{}\": ", args.user)).await?;
        ensure!(
            password == ask("Again: ").await?,
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
