//! A test per rule of the grammar. That the server agrees is tested against a real one.

use proptest::prelude::*;

use super::*;

fn parsed(setting: &str) -> StandbyNames {
    StandbyNames::parse(setting).unwrap().unwrap()
}

fn parts(setting: &str) -> (SyncMethod, u32, Vec<String>) {
    let StandbyNames {
        method,
        num_sync,
        names,
    } = parsed(setting);
    (method, num_sync, names)
}

fn refusal(setting: &str) -> String {
    StandbyNames::parse(setting).unwrap_err().to_string()
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

#[test]
fn nothing_is_off_and_spaces_are_an_error() {
    assert_eq!(StandbyNames::parse(""), Ok(None));
    for blank in [" ", "\n", "\t \r"] {
        assert_eq!(refusal(blank), "syntax error at end of input");
    }
}

#[test]
fn a_bare_list_is_first_one() {
    assert_eq!(parts("a"), (SyncMethod::Priority, 1, names(["a"])));
    assert_eq!(
        parts(" s1 ,S2,* "),
        (SyncMethod::Priority, 1, names(["s1", "S2", "*"]))
    );
    assert_eq!(parts("2"), (SyncMethod::Priority, 1, names(["2"])));
    assert_eq!(
        parts("2,a , 007"),
        (SyncMethod::Priority, 1, names(["2", "a", "007"]))
    );
}

#[test]
fn first_any_and_a_number() {
    assert_eq!(
        parts("FIRST 2 (a,b)"),
        (SyncMethod::Priority, 2, names(["a", "b"]))
    );
    assert_eq!(
        parts("fIRSt 02(a)"),
        (SyncMethod::Priority, 2, names(["a"]))
    );
    assert_eq!(
        parts("3 (1, 2)"),
        (SyncMethod::Priority, 3, names(["1", "2"]))
    );
    assert_eq!(
        parts("any 1(\"any\",\"FIRST\")"),
        (SyncMethod::Quorum, 1, names(["any", "FIRST"]))
    );
    assert_eq!(parts("ANY 7 (*)"), (SyncMethod::Quorum, 7, names(["*"])));
}

#[test]
fn what_the_grammar_refuses() {
    let near = |word: &str| format!("syntax error at or near \"{word}\"");
    for (setting, message) in [
        ("FIRST", "syntax error at end of input".to_owned()),
        ("any 2", "syntax error at end of input".to_owned()),
        ("ANY 2 (a", "syntax error at end of input".to_owned()),
        ("a,", "syntax error at end of input".to_owned()),
        (",a", near(",")),
        ("a b", near("b")),
        ("a \"b\"", near("\"")),
        ("a,,b", near(",")),
        ("FIRST (a)", near("(")),
        ("FIRST, a", near(",")),
        ("a, any", near("any")),
        ("ANY any (a)", near("any")),
        ("ANY -1 (a)", near("-")),
        ("ANY 1 a", near("a")),
        ("ANY 1 ()", near(")")),
        ("ANY 1 (a,)", near(")")),
        ("ANY 1 (a))", near(")")),
        ("ANY 1 (a), b", near(",")),
        ("2 (a) b", near("b")),
        ("(a)", near("(")),
        ("a (b)", near("(")),
        ("1.5 (a)", near(".")),
        ("it's", near("'")),
        ("a;b", near(";")),
        ("$1", near("$")),
        (
            "\"a",
            "unterminated quoted identifier at end of input".to_owned(),
        ),
        (
            "a, \"\"\"",
            "unterminated quoted identifier at end of input".to_owned(),
        ),
        ("a,,\"b", near(",")),
    ] {
        assert_eq!(refusal(setting), message, "{setting}");
    }
}

#[test]
fn the_number_is_what_atoi_makes_of_it() {
    let message =
        |n: i64| format!("number of synchronous standbys ({n}) must be greater than zero");
    assert_eq!(refusal("0 (a)"), message(0));
    assert_eq!(refusal("ANY 000 (a)"), message(0));
    assert_eq!(refusal("2147483648 (a)"), message(-2_147_483_648));
    assert_eq!(refusal("4294967296 (a)"), message(0));
    assert_eq!(refusal("9223372036854775807 (a)"), message(-1));
    assert_eq!(refusal("99999999999999999999999 (a)"), message(-1));
    assert_eq!(parsed("2147483647 (a)").num_sync(), 2_147_483_647);
    assert_eq!(parsed("4294967297 (a)").num_sync(), 1);
    // The grammar comes first.
    assert_eq!(refusal("0 (a"), "syntax error at end of input");
}

#[test]
fn messages_are_the_servers() {
    let error = StandbyNames::parse("a b").unwrap_err();
    assert_eq!(
        error.message("a b"),
        "invalid value for parameter \"synchronous_standby_names\": \"a b\""
    );
    assert_eq!(
        error.detail().as_deref(),
        Some("syntax error at or near \"b\"")
    );
    let error = StandbyNames::parse("0 (b)").unwrap_err();
    assert_eq!(
        error.message("0 (b)"),
        "number of synchronous standbys (0) must be greater than zero"
    );
    assert_eq!(error.detail(), None);
}

#[test]
fn priorities() {
    let first = parsed("FIRST 2 (a, \"B\", A, b, c)");
    for (name, priority) in [
        ("a", 1),
        ("A", 1),
        ("b", 2),
        ("B", 2),
        ("c", 5),
        ("d", 0),
        ("", 0),
        ("*", 0),
    ] {
        assert_eq!(first.priority(name), priority, "{name}");
    }
    let any = parsed("ANY 2 (a, b)");
    assert_eq!(
        [any.priority("A"), any.priority("b"), any.priority("c")],
        [1, 1, 0]
    );
    let star = parsed("c, \"*\", a");
    assert_eq!(
        [star.priority("c"), star.priority("a"), star.priority("")],
        [1, 2, 2]
    );
    assert_eq!(parsed("\"\"").priority(""), 1);
}

#[test]
fn printing_quotes_what_needs_it() {
    for (setting, printed) in [
        ("a, B", "FIRST 1 (a, B)"),
        (
            "2(\"a\", \"A b\", \"x\"\"y\")",
            "FIRST 2 (a, \"A b\", \"x\"\"y\")",
        ),
        (
            "aNY 3 (\"any\", \"First\", \"\", 12, \"12\", \"1a\", *, \"*\")",
            "ANY 3 (\"any\", \"First\", \"\", 12, 12, \"1a\", *, *)",
        ),
        (
            "é, \"a$\", \"$a\", \" a\"",
            "FIRST 1 (é, a$, \"$a\", \" a\")",
        ),
    ] {
        assert_eq!(parsed(setting).to_string(), printed);
        assert_eq!(parsed(printed), parsed(setting));
    }
}

proptest! {
    #[test]
    fn printing_and_parsing_are_inverse(
        quorum: bool,
        num_sync in 1..=i32::MAX.cast_unsigned(),
        names in prop::collection::vec(any::<String>(), 1..5),
    ) {
        let method = if quorum { SyncMethod::Quorum } else { SyncMethod::Priority };
        let value = StandbyNames { method, num_sync, names };
        prop_assert_eq!(StandbyNames::parse(&value.to_string()), Ok(Some(value.clone())));
    }

    #[test]
    fn any_text_is_parsed_or_refused(setting in r#"([A-Za-z0-9,()"* $\n]|any|FIRST){0,30}"#) {
        if let Ok(Some(value)) = StandbyNames::parse(&setting) {
            prop_assert_eq!(StandbyNames::parse(&value.to_string()), Ok(Some(value)));
        }
    }
}
