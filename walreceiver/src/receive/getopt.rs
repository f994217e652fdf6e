//! The command line as `getopt_long` of the GNU C library takes it apart, with its complaints.
//!
//! `pg_receivewal` leaves its arguments to that function, so scripts rely on all of it: short options in one word
//! (`-nv`), values with and without a blank (`-Dwal`, `-D wal`), long options cut short (`--dir=wal`), options after
//! other arguments, and `--` as the end of options.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A long option.
#[derive(Clone, Copy, Debug)]
pub struct LongOption<K> {
    /// Its name, without the dashes.
    pub name: &'static str,
    /// Whether a value belongs to it.
    pub has_value: bool,
    /// What it is.
    pub key: K,
}

/// A short option.
#[derive(Clone, Copy, Debug)]
pub struct ShortOption<K> {
    /// Its letter.
    pub letter: u8,
    /// Whether a value belongs to it.
    pub has_value: bool,
    /// What it is.
    pub key: K,
}

/// One option found, or what is wrong with it: the text of the complaint without the program's name.
pub type Found<K> = Result<(K, Option<OsString>), String>;

/// Takes the arguments apart, one option at a time; what is no option is collected.
#[derive(Debug)]
pub struct Getopt<'a, K> {
    short: &'a [ShortOption<K>],
    long: &'a [LongOption<K>],
    arguments: std::slice::Iter<'a, OsString>,
    /// Rest of a word of short options.
    word: &'a [u8],
    others: Vec<&'a OsStr>,
    /// Options end at the first other argument, as POSIX wants it.
    posix: bool,
}

impl<'a, K: Copy> Getopt<'a, K> {
    /// Of these arguments, without the program's name.
    #[must_use]
    pub fn new(
        short: &'a [ShortOption<K>],
        long: &'a [LongOption<K>],
        arguments: &'a [OsString],
    ) -> Self {
        Self {
            short,
            long,
            arguments: arguments.iter(),
            word: &[],
            others: Vec::new(),
            posix: std::env::var_os("POSIXLY_CORRECT").is_some(),
        }
    }

    /// The arguments that are no options, in their order; whole once [`Self::next_option`] has given `None`.
    #[must_use]
    pub fn others(&self) -> &[&'a OsStr] {
        &self.others
    }

    /// The next option.
    pub fn next_option(&mut self) -> Option<Found<K>> {
        if let Some((letter, rest)) = self.word.split_first() {
            return Some(self.short_option(*letter, rest));
        }
        loop {
            let argument = self.arguments.next()?.as_bytes();
            match argument {
                b"--" => {
                    self.rest_are_others();
                    return None;
                }
                [b'-', b'-', long @ ..] => return Some(self.long_option(long)),
                [b'-', letter, rest @ ..] => return Some(self.short_option(*letter, rest)),
                other => {
                    self.others.push(OsStr::from_bytes(other));
                    if self.posix {
                        self.rest_are_others();
                        return None;
                    }
                }
            }
        }
    }

    fn rest_are_others(&mut self) {
        self.others
            .extend(self.arguments.by_ref().map(OsString::as_os_str));
    }

    fn short_option(&mut self, letter: u8, rest: &'a [u8]) -> Found<K> {
        self.word = rest;
        let option = self.short.iter().find(|option| option.letter == letter);
        let Some(option) = option else {
            return Err(format!("invalid option -- '{}'", text(&[letter])));
        };
        if !option.has_value {
            return Ok((option.key, None));
        }
        self.word = &[];
        let value = if rest.is_empty() {
            self.arguments.next().cloned()
        } else {
            Some(OsString::from_vec(rest.to_vec()))
        };
        match value {
            Some(value) => Ok((option.key, Some(value))),
            None => Err(format!(
                "option requires an argument -- '{}'",
                text(&[letter])
            )),
        }
    }

    fn long_option(&mut self, word: &[u8]) -> Found<K> {
        let (name, value) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = word.split_at(at);
                (name, value.split_first().map(|(_, value)| value))
            }
            None => (word, None),
        };
        let option = self.named(name, word)?;
        match (option.has_value, value) {
            (false, None) => Ok((option.key, None)),
            (false, Some(_)) => Err(format!(
                "option '--{}' doesn't allow an argument",
                option.name
            )),
            (true, Some(value)) => Ok((option.key, Some(OsString::from_vec(value.to_vec())))),
            (true, None) => match self.arguments.next() {
                Some(value) => Ok((option.key, Some(value.clone()))),
                None => Err(format!("option '--{}' requires an argument", option.name)),
            },
        }
    }

    /// The option of this name, or the only one that begins with it.
    fn named(&self, name: &[u8], word: &[u8]) -> Result<LongOption<K>, String> {
        let exact = self
            .long
            .iter()
            .find(|option| option.name.as_bytes() == name);
        if let Some(option) = exact {
            return Ok(*option);
        }
        let begins = |option: &&LongOption<K>| option.name.as_bytes().starts_with(name);
        let candidates: Vec<&LongOption<K>> = self.long.iter().filter(begins).collect();
        match candidates.as_slice() {
            [] => Err(format!("unrecognized option '--{}'", text(word))),
            [option] => Ok(**option),
            several => {
                let names: Vec<String> = several
                    .iter()
                    .map(|option| format!(" '--{}'", option.name))
                    .collect();
                Err(format!(
                    "option '--{}' is ambiguous; possibilities:{}",
                    text(word),
                    names.concat()
                ))
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: [ShortOption<char>; 3] = [
        ShortOption {
            letter: b'D',
            has_value: true,
            key: 'D',
        },
        ShortOption {
            letter: b'n',
            has_value: false,
            key: 'n',
        },
        ShortOption {
            letter: b'v',
            has_value: false,
            key: 'v',
        },
    ];
    const LONG: [LongOption<char>; 4] = [
        LongOption {
            name: "directory",
            has_value: true,
            key: 'D',
        },
        LongOption {
            name: "dbname",
            has_value: true,
            key: 'd',
        },
        LongOption {
            name: "no-loop",
            has_value: false,
            key: 'n',
        },
        LongOption {
            name: "no-sync",
            has_value: false,
            key: 'y',
        },
    ];

    /// Each option as `key` or `key=value`, complaints after `!`, other arguments after `+`.
    fn parsed(arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let mut getopt = Getopt::new(&SHORT, &LONG, &arguments);
        let mut found = Vec::new();
        while let Some(option) = getopt.next_option() {
            found.push(match option {
                Ok((key, None)) => key.to_string(),
                Ok((key, Some(value))) => format!("{key}={}", value.to_str().unwrap()),
                Err(complaint) => format!("!{complaint}"),
            });
        }
        found.extend(
            getopt
                .others()
                .iter()
                .map(|other| format!("+{}", other.to_str().unwrap())),
        );
        found
    }

    #[test]
    fn takes_arguments_apart_as_the_c_library_does() {
        for (arguments, expected) in [
            (&["-nv"][..], &["n", "v"][..]),
            (&["-vDwal", "-D", "other"], &["v", "D=wal", "D=other"]),
            (&["--directory=x", "--directory", "y"], &["D=x", "D=y"]),
            (&["--dir=x", "--db", "y"], &["D=x", "d=y"]),
            (&["--directory="], &["D="]),
            (&["a", "-n", "b"], &["n", "+a", "+b"]),
            (
                &["-n", "--", "-v", "--no-loop"],
                &["n", "+-v", "+--no-loop"],
            ),
            (&["-"], &["+-"]),
            (&["-D", "--", "-n"], &["D=--", "n"]),
            (
                &["-x", "-nxv"],
                &["!invalid option -- 'x'", "n", "!invalid option -- 'x'", "v"],
            ),
            (&["-D"], &["!option requires an argument -- 'D'"]),
            (
                &["--directory"],
                &["!option '--directory' requires an argument"],
            ),
            (
                &["--no-loop=1"],
                &["!option '--no-loop' doesn't allow an argument"],
            ),
            (&["--foo=bar"], &["!unrecognized option '--foo=bar'"]),
            (
                &["--no"],
                &["!option '--no' is ambiguous; possibilities: '--no-loop' '--no-sync'"],
            ),
            (
                &["--d=1"],
                &["!option '--d=1' is ambiguous; possibilities: '--directory' '--dbname'"],
            ),
        ] {
            assert_eq!(parsed(arguments), expected, "{arguments:?}");
        }
    }
}
