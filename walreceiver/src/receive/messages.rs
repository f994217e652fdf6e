//! [`Messages`]: what the command says on standard error, a line each, under the name that it was called by.

use std::io::Write;

/// Prints messages in the form of PostgreSQL's programs.
///
/// # Source
/// `pg_log_generic_v` in `src/common/logging.c`.
#[derive(Clone, Debug)]
pub struct Messages {
    program: String,
    verbose: bool,
}

impl Messages {
    /// Messages of a program of this name.
    #[must_use]
    pub const fn new(program: String, verbose: bool) -> Self {
        Self { program, verbose }
    }

    /// Something that ended what was tried.
    pub fn error(&self, text: &str) {
        self.print("error: ", text);
    }

    /// Something that is not as it should be, and does not keep the command from going on.
    pub fn warning(&self, text: &str) {
        self.print("warning: ", text);
    }

    /// What to do about an error.
    pub fn hint(&self, text: &str) {
        self.print("hint: ", text);
    }

    /// Something worth knowing.
    pub fn info(&self, text: &str) {
        self.print("", text);
    }

    /// Something worth knowing for who asked for it with `--verbose`.
    pub fn verbose(&self, text: &str) {
        if self.verbose {
            self.info(text);
        }
    }

    fn print(&self, kind: &str, text: &str) {
        let line = format!(
            "{}: {kind}{}\n",
            self.program,
            text.strip_suffix('\n').unwrap_or(text)
        );
        print_raw(&line);
    }
}

/// Prints in one piece, so that lines of several processes do not mix.
pub fn print_raw(text: &str) {
    // Where standard error is closed, nobody is there to be told.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// An error of the system as C programs show it, without Rust's number.
#[must_use]
pub fn system_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => text
            .strip_suffix(&format!(" (os error {number})"))
            .unwrap_or(&text)
            .to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_shown_as_in_c() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(system_error(&error), "No such file or directory");
        assert_eq!(system_error(&std::io::Error::other("x")), "x");
    }
}
