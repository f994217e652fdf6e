//! Asks for a password, on the terminal where there is one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Asks, without showing what is typed. Without a terminal it asks on standard error and reads standard input; what
/// cannot be read is an empty password.
///
/// # Source
/// `simple_prompt` in `src/common/sprompt.c`.
#[must_use]
pub fn ask(prompt: &str) -> String {
    let terminal = File::open("/dev/tty").and_then(|input| {
        let output = File::options().write(true).open("/dev/tty")?;
        Ok((input, output))
    });
    match terminal {
        Ok((input, mut output)) => read_hidden(&input, &input, &mut output, prompt),
        Err(_) => {
            let input = io::stdin();
            read_hidden(&input, input.lock(), &mut io::stderr(), prompt)
        }
    }
}

fn read_hidden(
    terminal: &impl AsFd,
    input: impl Read,
    output: &mut impl Write,
    prompt: &str,
) -> String {
    let before = hide(terminal);
    // A prompt that cannot be shown can still be answered.
    let _ = output
        .write_all(prompt.as_bytes())
        .and_then(|()| output.flush());
    let mut line = Vec::new();
    // One line and no more: the rest of standard input is not ours.
    let _ = BufReader::with_capacity(1, input).read_until(b'\n', &mut line);
    if let Some(before) = before {
        let _ = tcsetattr(terminal, OptionalActions::Flush, &before);
    }
    let _ = output.write_all(b"\n").and_then(|()| output.flush());
    let text = String::from_utf8_lossy(&line);
    text.trim_end_matches(['\r', '\n']).to_owned()
}

/// Stops a terminal from showing what is typed. Gives its state before; `None` when it is no terminal.
fn hide(terminal: &impl AsFd) -> Option<Termios> {
    let before = tcgetattr(terminal).ok()?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(terminal, OptionalActions::Flush, &hidden).ok()?;
    Some(before)
}
