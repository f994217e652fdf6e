//! Questions to the person at the terminal.

use std::io::{self, BufRead, IsTerminal, Write};

/// Answer to a yes-or-no question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Yes,
    /// Stop; the default.
    No,
    /// There is nobody to ask: standard input is no terminal.
    NobodyThere,
}

/// Asks on standard error and reads one line from standard input; the default is no.
///
/// # Errors
/// When the terminal cannot be written or read.
pub fn confirm(question: &str) -> io::Result<Answer> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(Answer::NobodyThere);
    }
    ask(question, &mut stdin.lock(), &mut io::stderr())
}

fn ask(question: &str, input: &mut impl BufRead, output: &mut impl Write) -> io::Result<Answer> {
    loop {
        write!(output, "{question} Yy|Nn (default=N): ")?;
        output.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(Answer::No);
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => return Ok(Answer::Yes),
            "" | "n" | "no" => return Ok(Answer::No),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_yes() {
        for (typed, expected) in [
            ("y\n", Answer::Yes),
            ("YES\n", Answer::Yes),
            ("n\n", Answer::No),
            ("\n", Answer::No),
            ("", Answer::No),
        ] {
            assert_eq!(
                ask("Go on?", &mut typed.as_bytes(), &mut Vec::new()).unwrap(),
                expected,
                "{typed:?}"
            );
        }
        let mut shown = Vec::new();
        assert_eq!(
            ask("Go on?", &mut &b"what\ny\n"[..], &mut shown).unwrap(),
            Answer::Yes
        );
        assert_eq!(
            String::from_utf8(shown).unwrap().matches("Go on?").count(),
            2,
            "asked again"
        );
    }
}
