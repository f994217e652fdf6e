//! Tokens of the replication grammar, and the quoting that makes them.

use super::CommandError;
use crate::Lsn;

/// Longest identifier in bytes; a longer one is cut, as PostgreSQL does.
///
/// # Source
/// `NAMEDATALEN` in `src/include/pg_config_manual.h`, less its zero byte.
pub(super) const MAX_IDENTIFIER_LEN: usize = 63;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An unquoted word: a keyword, or an identifier that is still to be put in lower case.
    Word(&'a str),
    /// A quoted identifier.
    Identifier(String),
    /// A quoted string.
    Literal(String),
    Number(u32),
    Lsn(Lsn),
    Sign(u8),
    End,
}

/// Splits a command into tokens, by the rules of `repl_scanner.l`.
#[derive(Clone)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, offset: 0 }
    }

    /// The next token and the offset it starts at.
    pub(super) fn next_token(&mut self) -> Result<(usize, Token<'a>), CommandError> {
        self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0C));
        let offset = self.offset;
        let Some(&first) = self.rest().as_bytes().first() else {
            return Ok((offset, Token::End));
        };
        let token = if let Some(lsn) = self.lsn(offset)? {
            Token::Lsn(lsn)
        } else if first.is_ascii_digit() {
            let what = "number";
            let digits = self.take_while(|byte| byte.is_ascii_digit());
            let number = digits
                .parse()
                .map_err(|_| CommandError::OutOfRange { what, offset })?;
            Token::Number(number)
        } else if is_word_start(first) {
            Token::Word(self.take_while(is_word_part))
        } else if first == b'\'' {
            Token::Literal(self.quoted(first)?)
        } else if first == b'"' {
            Token::Identifier(cut_identifier(self.quoted(first)?))
        } else {
            self.offset += 1;
            Token::Sign(first)
        };
        Ok((offset, token))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or_default()
    }

    /// Takes bytes while they match. Every byte beyond ASCII must match alike, so that no character is cut.
    fn take_while(&mut self, matches: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest
            .bytes()
            .position(|byte| !matches(byte))
            .unwrap_or(rest.len());
        self.offset += length;
        rest.get(..length).unwrap_or_default()
    }

    fn lsn(&mut self, offset: usize) -> Result<Option<Lsn>, CommandError> {
        let mut ahead = self.clone();
        let high = ahead.take_while(|byte| byte.is_ascii_hexdigit());
        if high.is_empty() || !ahead.rest().starts_with('/') {
            return Ok(None);
        }
        ahead.offset += 1;
        let low = ahead.take_while(|byte| byte.is_ascii_hexdigit());
        if low.is_empty() {
            return Ok(None);
        }
        let what = "LSN";
        let lsn = format!("{high}/{low}").parse();
        let lsn = lsn.map_err(|_| CommandError::OutOfRange { what, offset })?;
        *self = ahead;
        Ok(Some(lsn))
    }

    /// The content of a quoted string that starts here; a doubled quote stands for one.
    fn quoted(&mut self, quote: u8) -> Result<String, CommandError> {
        let offset = self.offset;
        let mut content = String::new();
        loop {
            self.offset += 1;
            content.push_str(self.take_while(|byte| byte != quote));
            if self.rest().is_empty() {
                return Err(CommandError::UnterminatedString { offset });
            }
            self.offset += 1;
            if self.rest().as_bytes().first() != Some(&quote) {
                return Ok(content);
            }
            content.push(char::from(quote));
        }
    }
}

const fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn is_word_part(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Cuts an identifier to the greatest length, between characters.
pub(super) fn cut_identifier(mut identifier: String) -> String {
    let mut length = identifier.len().min(MAX_IDENTIFIER_LEN);
    while !identifier.is_char_boundary(length) {
        length -= 1;
    }
    identifier.truncate(length);
    identifier
}

/// Appends an identifier, quoted unless it is plain lower case.
pub(super) fn push_identifier(out: &mut String, identifier: &str) {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    let starts_plain = identifier
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    if starts_plain && identifier.bytes().all(is_plain) {
        out.push_str(identifier);
    } else {
        push_quoted(out, identifier, '"');
    }
}

/// Appends a quoted string.
pub(super) fn push_literal(out: &mut String, literal: &str) {
    push_quoted(out, literal, '\'');
}

fn push_quoted(out: &mut String, text: &str, quote: char) {
    out.push(quote);
    for character in text.chars() {
        if character == quote {
            out.push(quote);
        }
        out.push(character);
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token<'_>>, CommandError> {
        let mut scanner = Scanner::new(text);
        let mut tokens = Vec::new();
        loop {
            match scanner.next_token()?.1 {
                Token::End => return Ok(tokens),
                token => tokens.push(token),
            }
        }
    }

    #[test]
    fn tokens_are_those_of_repl_scanner() {
        assert_eq!(
            tokens("SHOW\t\"a\"\"b\" 'c''d' 4294967295 16/B374D848 abc/0 abc /x;é$1").unwrap(),
            [
                Token::Word("SHOW"),
                Token::Identifier("a\"b".to_owned()),
                Token::Literal("c'd".to_owned()),
                Token::Number(u32::MAX),
                Token::Lsn(Lsn(0x16_B374_D848)),
                Token::Lsn(Lsn(0xABC_0000_0000)),
                Token::Word("abc"),
                Token::Sign(b'/'),
                Token::Word("x"),
                Token::Sign(b';'),
                Token::Word("é$1"),
            ]
        );
        assert_eq!(tokens("''").unwrap(), [Token::Literal(String::new())]);
        assert_eq!(tokens("1a").unwrap(), [Token::Number(1), Token::Word("a")]);
        for bad in [
            "'",
            "\"",
            "'a''",
            "4294967296",
            "123456789/0",
            "0/123456789",
        ] {
            assert!(tokens(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_long_identifier_is_cut_between_characters() {
        assert_eq!(cut_identifier("x".repeat(64)), "x".repeat(63));
        assert_eq!(cut_identifier("x".repeat(63)), "x".repeat(63));
        assert_eq!(
            cut_identifier(format!("{}é", "x".repeat(62))),
            "x".repeat(62)
        );
    }

    #[test]
    fn only_plain_identifiers_stay_unquoted() {
        for (identifier, text) in [
            ("slot_1", "slot_1"),
            ("Slot", "\"Slot\""),
            ("1slot", "\"1slot\""),
            ("", "\"\""),
            ("a\"b", "\"a\"\"b\""),
        ] {
            let mut out = String::new();
            push_identifier(&mut out, identifier);
            assert_eq!(out, text);
        }
    }
}
