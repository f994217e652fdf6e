//! Words of a `synchronous_standby_names` setting.
//!
//! What a token's text is when it is wrong follows the server's scanner too, because the text is part of the message: a
//! quoted name is known by its closing quote alone.

use std::borrow::Cow;

/// A word or sign of the setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, without its quotes, or `*`.
    Name(Cow<'a, str>),
    /// Digits.
    Number(&'a str),
    /// The word `ANY` in any case.
    Any,
    /// The word `FIRST` in any case.
    First,
    Comma,
    Open,
    Close,
    /// A quoted name whose second quote is missing.
    Unterminated,
    /// A character that has no place outside quotes.
    Junk,
    End,
}

/// A token, and the text by which an error message names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scanned<'a> {
    pub(super) token: Token<'a>,
    /// Empty at the end of the setting.
    pub(super) text: &'a str,
}

/// Takes a setting apart, from its start to its end.
///
/// # Source
/// `src/backend/replication/syncrep_scanner.l`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(setting: &'a str) -> Self {
        Self { rest: setting }
    }

    /// The next token; at the end [`Token::End`], again and again.
    pub(super) fn next(&mut self) -> Scanned<'a> {
        self.take_while(is_space);
        let Some(first) = self.rest.chars().next() else {
            return Scanned {
                token: Token::End,
                text: "",
            };
        };
        if is_name_start(first) {
            let text = self.take_while(is_name_part);
            let token = if text.eq_ignore_ascii_case("any") {
                Token::Any
            } else if text.eq_ignore_ascii_case("first") {
                Token::First
            } else {
                Token::Name(Cow::Borrowed(text))
            };
            return Scanned { token, text };
        }
        if first.is_ascii_digit() {
            let text = self.take_while(|c| c.is_ascii_digit());
            return Scanned {
                token: Token::Number(text),
                text,
            };
        }
        let text = self.take(first.len_utf8());
        let token = match first {
            '"' => return self.quoted(),
            '*' => Token::Name(Cow::Borrowed(text)),
            ',' => Token::Comma,
            '(' => Token::Open,
            ')' => Token::Close,
            _ => Token::Junk,
        };
        Scanned { token, text }
    }

    /// The rest of a name whose opening quote was taken. Two quotes stand for one.
    fn quoted(&mut self) -> Scanned<'a> {
        let mut name = Cow::Borrowed("");
        loop {
            let part = self.take_while(|c| c != '"');
            if name.is_empty() {
                name = Cow::Borrowed(part);
            } else {
                name.to_mut().push_str(part);
            }
            if self.rest.is_empty() {
                return Scanned {
                    token: Token::Unterminated,
                    text: "",
                };
            }
            let quote = self.take(1);
            if !self.rest.starts_with('"') {
                return Scanned {
                    token: Token::Name(name),
                    text: quote,
                };
            }
            self.take(1);
            name.to_mut().push('"');
        }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        self.take(end)
    }

    /// The next `len` bytes, which end between two characters.
    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(len).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c' | '\x0b')
}

/// Whether an unquoted name may begin with this character: a letter, `_`, or anything beyond ASCII.
pub(super) const fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

/// Whether an unquoted name may go on with this character.
pub(super) const fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit() || c == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(setting: &str) -> Vec<(Token<'_>, &str)> {
        let mut scanner = Scanner::new(setting);
        let mut all = Vec::new();
        loop {
            let Scanned { token, text } = scanner.next();
            if token == Token::End {
                return all;
            }
            let last = token == Token::Unterminated;
            all.push((token, text));
            if last {
                return all;
            }
        }
    }

    fn name(text: &str) -> Token<'_> {
        Token::Name(Cow::Borrowed(text))
    }

    #[test]
    fn words_are_as_long_as_they_can_be() {
        assert_eq!(tokens("aNy"), [(Token::Any, "aNy")]);
        assert_eq!(tokens("First"), [(Token::First, "First")]);
        for word in ["anyone", "any2", "any$", "_any", "first_", "é", "a\u{a0}b"] {
            assert_eq!(tokens(word), [(name(word), word)]);
        }
        let two = [(Token::Number("12"), "12"), (name("a3"), "a3")];
        assert_eq!(tokens("12a3"), two);
        assert_eq!(tokens(" \t\r\n\u{b}\u{c}12 \n a3 "), two);
    }

    #[test]
    fn signs() {
        let signs = [
            (name("*"), "*"),
            (Token::Comma, ","),
            (Token::Open, "("),
            (Token::Close, ")"),
            (Token::Junk, "$"),
            (Token::Junk, "-"),
            (Token::Junk, "'"),
            (Token::Junk, "\0"),
        ];
        assert_eq!(tokens("*,()$-'\0"), signs);
    }

    #[test]
    fn quoted_names_hold_anything() {
        assert_eq!(tokens(r#""""#), [(name(""), "\"")]);
        assert_eq!(tokens(r#""a, (B)""#), [(name("a, (B)"), "\"")]);
        assert_eq!(tokens(r#""""""#), [(name("\""), "\"")]);
        assert_eq!(tokens(r#""a""b""""c""#), [(name("a\"b\"\"c"), "\"")]);
        assert_eq!(tokens(r#""any"x"#), [(name("any"), "\""), (name("x"), "x")]);
        for open in ["\"", "\"a", "\"a\"\"", "\"\"\""] {
            assert_eq!(tokens(open), [(Token::Unterminated, "")], "{open}");
        }
    }
}
