//! `synchronous_standby_names`: what the server refuses ours refuses, with the same words, and nothing else.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use walstream::sync::StandbyNames;
use walstream_tests::{Cluster, LONG, Random, Workdir};

const SETTINGS: &[&str] = &[
    "",
    " ",
    "a",
    "A,b , c",
    "a b",
    "*",
    "a,*",
    "\"*\"",
    "\"\"",
    "\"a\"\"b\"",
    "\"\"\"\"",
    "\"a",
    "\"",
    "\"\"\"",
    "a, \"b",
    "a,,\"b",
    "2 \"b",
    "any \"b",
    "2 (a) \"b",
    "\"a\" \"b\"",
    "\"a\"b",
    "a\"b\"",
    "1",
    "1, 2",
    "1 2",
    "1 a",
    "1a",
    "a1",
    "007",
    "1 (a)",
    "1(a)",
    "1 (1)",
    "1 (*)",
    "2 (a, b)",
    "2 (a b)",
    "2 (a,)",
    "2 (,a)",
    "2 ()",
    "2 (",
    "2 (a",
    "2 (a))",
    "2 ((a))",
    "2 (a), b",
    "(a)",
    "a (b)",
    "first",
    "FIRST",
    "first,a",
    "\"first\"",
    "firsts",
    "FIRST 1",
    "FIRST 1 a",
    "FIRST 1 (a)",
    "fIrSt 1 (first)",
    "FIRST 1 (\"first\")",
    "FIRST (a)",
    "FIRST a (a)",
    "FIRST any (a)",
    "FIRST 1 2 (a)",
    "FIRST1(a)",
    "ANY",
    "any, a",
    "a, any",
    "anyone",
    "any$",
    "any 1 (a, \"b\", *, 4)",
    "ANY 1 (a) b",
    "ANY * (a)",
    "ANY -1 (a)",
    "ANY 0 (a)",
    "ANY 00 (a)",
    "0 (a)",
    "0",
    "FIRST 0 (a)",
    "-1 (a)",
    "+1 (a)",
    "1.5 (a)",
    "1e3 (a)",
    "0 (a",
    "2147483647 (a)",
    "2147483648 (a)",
    "4294967295 (a)",
    "4294967296 (a)",
    "4294967297 (a)",
    "9223372036854775807 (a)",
    "9223372036854775808 (a)",
    "99999999999999999999999999 (a)",
    "a;b",
    "a-b",
    "\"a-b\"",
    "a.b",
    "a'b",
    "a\\b",
    "a$b",
    "$a",
    "_a",
    "a\tb",
    "a\t,\tb",
    "a\u{b},\u{c}b",
    "a\u{1}b",
    "é",
    "a,é ü",
    "\"é, ü\" x",
    "a\u{a0}b",
    "a{b",
    "a=b",
    "a@b",
    "%",
    "🐘, b",
];

/// Words that random settings are made of.
const WORDS: &[&str] = &[
    "a", "B2", "any", "FIRST", "1", "0", "20", "(", ")", ",", ",", ",", "*", "\"", "\"x\"", "\"\"",
    " ", " ", "$", "é", "-",
];

/// What the server says to each setting: nothing when it is accepted, else the lines of its error.
fn answers(cluster: &Cluster, settings: &[String]) -> Result<Vec<String>> {
    let statement = |setting: &String| {
        format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{}';\n",
            setting.replace('\'', "''")
        )
    };
    let workdir = Workdir::new()?;
    let psql = workdir.external(&cluster.programs().client("psql"));
    let finished = psql
        .args(["-X", "-q", "-f", "-", "-d"])
        .arg(format!("{} dbname=postgres", cluster.conninfo()))
        .env("PGCLIENTENCODING", "UTF8")
        .stdin(&settings.iter().map(statement).collect::<String>())
        .succeed(LONG)?;
    // Each statement is a line, and psql says of which line an error is.
    let mut errors = BTreeMap::new();
    for error in finished.stderr.split("psql:<stdin>:").skip(1) {
        let (line, message) = error.split_once(": ").context("an error without a line")?;
        errors.insert(
            line.parse::<usize>()?,
            message.trim_end_matches('\n').to_owned(),
        );
    }
    Ok((1..=settings.len())
        .map(|line| errors.remove(&line).unwrap_or_default())
        .collect())
}

/// The same by our parser.
fn our_answer(setting: &str) -> String {
    let Err(error) = StandbyNames::parse(setting) else {
        return String::new();
    };
    let detail = error.detail().map(|detail| format!("\nDETAIL:  {detail}"));
    format!(
        "ERROR:  {}{}",
        error.message(setting),
        detail.unwrap_or_default()
    )
}

#[test]
fn every_setting_is_answered_as_the_server_does() -> Result<()> {
    let cluster = Cluster::started()?;
    let mut settings: Vec<String> = SETTINGS
        .iter()
        .map(|setting| (*setting).to_owned())
        .collect();
    let mut random = Random::seeded();
    let mut below = |most: usize| usize::try_from(random.next() % most as u64).unwrap_or(0);
    for _ in 0..1500 {
        let words = 1 + below(10);
        settings.push((0..words).map(|_| WORDS[below(WORDS.len())]).collect());
    }
    let answers = answers(&cluster, &settings)?;
    for (setting, answer) in settings.iter().zip(&answers) {
        assert_eq!(our_answer(setting), *answer, "{setting}");
    }
    let accepted = answers.iter().filter(|answer| answer.is_empty()).count();
    ensure!(
        accepted > 100 && accepted + 100 < settings.len(),
        "{accepted} of {} accepted",
        settings.len()
    );
    Ok(())
}

#[test]
fn what_is_printed_is_accepted_by_the_server() -> Result<()> {
    let cluster = Cluster::started()?;
    let printed: Vec<String> = SETTINGS
        .iter()
        .filter_map(|setting| StandbyNames::parse(setting).ok().flatten())
        .map(|names| names.to_string())
        .collect();
    ensure!(printed.len() > 25, "too few of the settings are good");
    for (setting, answer) in printed.iter().zip(answers(&cluster, &printed)?) {
        assert_eq!(answer, "", "{setting}");
    }
    Ok(())
}

/// `ALTER SYSTEM` takes no line ends; the command line does.
#[test]
fn line_ends_are_spaces() -> Result<()> {
    let cluster = Cluster::started()?;
    for setting in [
        "\n",
        "a\n,\r\nb",
        "a\nb",
        "ANY\n1\n(a)",
        "\"a\nb\"",
        "\"a\n",
    ] {
        let data_dir = cluster.data_dir().to_string_lossy().into_owned();
        let value = format!("synchronous_standby_names={setting}");
        let answer = cluster.run(
            "postgres",
            &[
                "-C",
                "synchronous_standby_names",
                "-D",
                &data_dir,
                "-c",
                &value,
            ],
        );
        match (answer, StandbyNames::parse(setting)) {
            (Ok(value), Ok(_)) => assert_eq!(value, setting),
            (Err(theirs), Err(ours)) => {
                let theirs = theirs.to_string();
                let detail = ours.detail().context("a syntax error without detail")?;
                // A log puts a tab at the start of each further line.
                for text in [ours.message(setting), detail].map(|text| text.replace('\n', "\n\t")) {
                    ensure!(
                        theirs.contains(&text),
                        "{setting:?}: no \"{text}\" in {theirs}"
                    );
                }
            }
            (theirs, ours) => anyhow::bail!("{setting:?}: the server {theirs:?}, ours {ours:?}"),
        }
    }
    Ok(())
}
