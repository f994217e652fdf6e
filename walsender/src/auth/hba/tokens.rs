//! Lines, fields and tokens of a rules file.
//!
//! # Source
//! `tokenize_auth_file` and `next_token` in `src/backend/libpq/hba.c`.

use super::hba_error::HbaProblem;

/// A word of the file, and whether it stood in quotes, which take its special meaning away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) is_quoted: bool,
}

impl Token {
    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        !self.is_quoted && self.text == keyword
    }
}

/// One or more tokens with commas between them.
pub(super) type Field = Vec<Token>;

/// A line, with those that a backslash at the end joins to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Of its first line, from 1.
    pub(super) number: usize,
    text: Result<String, HbaProblem>,
}

impl Line {
    /// As it stands in the file; empty where it is no text.
    pub(super) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Its fields; none for an empty line or a comment.
    pub(super) fn fields(&self) -> Result<Vec<Field>, HbaProblem> {
        let text = self.text.as_ref().map_err(Clone::clone)?;
        let mut rest = text.as_str();
        let mut fields = Vec::new();
        loop {
            let (field, after) = next_field(rest);
            rest = after;
            match field {
                field if !field.is_empty() => fields.push(field),
                _ if rest.is_empty() => return Ok(fields),
                _ => {}
            }
        }
    }
}

/// The file's lines, from its first on.
pub(super) fn lines(content: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut joined: Option<(usize, Vec<u8>)> = None;
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let end = line
            .iter()
            .rposition(|byte| *byte != b'\r')
            .map_or(0, |last| last + 1);
        let line = line.get(..end).unwrap_or(line);
        let (number, mut bytes) = joined.take().unwrap_or((index + 1, Vec::new()));
        if let Some(begun) = line.strip_suffix(b"\\") {
            bytes.extend_from_slice(begun);
            joined = Some((number, bytes));
        } else {
            bytes.extend_from_slice(line);
            lines.push(finished(number, bytes));
        }
    }
    lines.extend(joined.map(|(number, bytes)| finished(number, bytes)));
    lines
}

fn finished(number: usize, bytes: Vec<u8>) -> Line {
    let text = match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Err(HbaProblem::ZeroByte),
        Ok(text) => Ok(text),
        Err(_) => Err(HbaProblem::NotUtf8),
    };
    Line { number, text }
}

const fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r')
}

/// The tokens up to a blank that no comma goes before, and the rest of the line.
fn next_field(mut rest: &str) -> (Field, &str) {
    let mut field = Field::new();
    loop {
        let (token, ends_with_comma, after) = next_token(rest);
        rest = after;
        let is_end = token.is_none();
        field.extend(token);
        if is_end || !ends_with_comma {
            return (field, rest);
        }
    }
}

/// The next token, if there is one; whether a comma ended it; what comes after.
fn next_token(line: &str) -> (Option<Token>, bool, &str) {
    let line = line.trim_start_matches(|letter| is_blank(letter) || letter == ',');
    let mut text = String::new();
    let (mut is_quoted, mut in_quote, mut was_quote, mut saw_quote) = (false, false, false, false);
    for (at, letter) in line.char_indices() {
        let rest = line.get(at..).unwrap_or_default();
        if !in_quote && is_blank(letter) {
            return (
                (saw_quote || !text.is_empty()).then_some(Token { text, is_quoted }),
                false,
                rest,
            );
        }
        if !in_quote && letter == '#' {
            return (
                (saw_quote || !text.is_empty()).then_some(Token { text, is_quoted }),
                false,
                "",
            );
        }
        if !in_quote && letter == ',' {
            return (
                (saw_quote || !text.is_empty()).then_some(Token { text, is_quoted }),
                true,
                rest,
            );
        }
        if letter != '"' || was_quote {
            text.push(letter);
        }
        // Two quotes within quotes are one.
        was_quote = in_quote && letter == '"' && !was_quote;
        if letter == '"' {
            in_quote = !in_quote;
            saw_quote = true;
            is_quoted |= text.is_empty();
        }
    }
    (
        (saw_quote || !text.is_empty()).then_some(Token { text, is_quoted }),
        false,
        "",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of each line that has some; quoted tokens in angle brackets.
    fn read(content: &str) -> Vec<(usize, Vec<String>)> {
        let shown = |token: &Token| match token.is_quoted {
            true => format!("<{}>", token.text),
            false => token.text.clone(),
        };
        let mut found = Vec::new();
        for line in lines(content.as_bytes()) {
            let fields = line.fields().unwrap();
            let fields: Vec<_> = fields
                .iter()
                .map(|field| field.iter().map(shown).collect::<Vec<_>>().join("|"))
                .collect();
            if !fields.is_empty() {
                found.push((line.number, fields));
            }
        }
        found
    }

    #[test]
    fn fields_are_cut_as_by_postgresql() {
        for (content, expected) in [
            ("a b\tc", vec![(1, vec!["a", "b", "c"])]),
            ("\n\n a # b\r\n#c\n", vec![(3, vec!["a"])]),
            ("a,b c , d ,e", vec![(1, vec!["a|b", "c", "d", "e"])]),
            ("a, b", vec![(1, vec!["a|b"])]),
            ("a,", vec![(1, vec!["a"])]),
            ("\"a b\",\"#\" \"\"", vec![(1, vec!["<a b>|<#>", "<>"])]),
            ("\"a\"\"b\" c\"d e\"", vec![(1, vec!["<a\"b>", "cd e"])]),
            ("a#b", vec![(1, vec!["a"])]),
            ("a \\\nb\nc", vec![(1, vec!["a", "b"]), (3, vec!["c"])]),
            ("a\\\n\\\nb\\", vec![(1, vec!["ab"])]),
            ("\"open b", vec![(1, vec!["<open b>"])]),
        ] {
            let expected: Vec<(usize, Vec<String>)> = expected
                .into_iter()
                .map(|(number, fields)| {
                    (number, fields.into_iter().map(ToOwned::to_owned).collect())
                })
                .collect();
            assert_eq!(read(content), expected, "{content}");
        }
    }

    #[test]
    fn what_is_no_text_is_a_problem_of_its_line() {
        let lines = lines(b"fine\n\xff\na\0b");
        let problems: Vec<_> = lines.iter().map(|line| line.fields().err()).collect();
        assert_eq!(
            problems,
            [None, Some(HbaProblem::NotUtf8), Some(HbaProblem::ZeroByte)]
        );
    }
}
