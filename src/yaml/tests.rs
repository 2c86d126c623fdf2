use serde::Deserialize;
use serde_json::json;

use super::*;

fn parse(text: &str) -> Node {
    Node::parse(text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", error.line))
}

#[test]
fn every_field_has_its_line() {
    let node = parse(
        "# head\na:\n- x\n-\n  b: 1\n  c: {d: 1,\n    e: [1,\n    2]}\n- &f\n  g:\n  - !!str h\n  - ~\n\
         z: *f\n'q': []\n1: {}\n\n",
    );
    for (field, line) in [
        ("", 2),
        ("a", 2),
        ("a[0]", 3),
        ("a[1]", 5),
        ("a[1].c", 6),
        ("a[1].c.e", 7),
        ("a[1].c.e[1]", 8),
        ("a[2].g[0]", 11),
        ("a[2].g[1]", 12),
        // What stands elsewhere is where the alias is.
        ("z.g[0]", 13),
        ("q", 14),
        ("1", 15),
        // What is not there is where its surroundings are.
        ("a[7]", 2),
        ("a[0].b", 3),
        ("q[0]", 14),
        ("nope", 2),
    ] {
        assert_eq!(node.line_of(&FieldPath::parse(field)), line, "{field}");
    }
    assert_eq!(parse("").line, 1);
    assert_eq!(parse("\u{feff}a: [\r\n1,\r\n2]").line_of(&FieldPath::parse("a[1]")), 3);
}

/// A plain scalar is what YAML 1.2 makes of it, and a number is what everybody takes for one.
#[test]
fn scalars_are_what_they_look_like() {
    for (text, value) in [
        ("5", json!(5)),
        ("-5", json!(-5)),
        ("0x1f", json!(31)),
        ("1.5", json!(1.5)),
        ("99999999999999999999", json!(1e20)),
        ("007", json!("007")),
        ("1_000", json!("1_000")),
        ("2026-01-01", json!("2026-01-01")),
        ("true", json!(true)),
        ("True", json!(true)),
        ("yes", json!("yes")),
        ("'true'", json!("true")),
        ("!!str 5", json!("5")),
        ("~", json!(null)),
        ("''", json!("")),
        ("{a: , '<<': {b: 1}}", json!({"a": null, "<<": {"b": 1}})),
        (r#"{"a": ["\ud83d\ude00\/"]}"#, json!({"a": ["😀/"]})),
    ] {
        assert_eq!(serde_json::Value::deserialize(&parse(text)).unwrap(), value, "{text}");
    }
}

#[test]
fn repeated_fields_are_found_and_taken_away() {
    let mut node = parse("a: 1\nb:\n- c: 1\n  d: {e: 1,\n   'e': 2}\n  c: 3\na: 4\na: 5\n");
    let found: Vec<_> = node
        .take_duplicates()
        .into_iter()
        .map(|Duplicate { field, line, first }| (field.to_string(), line, first))
        .collect();
    let expected = [("b[0].d.e", 5, 4), ("b[0].c", 6, 3), ("a", 7, 1), ("a", 8, 1)]
        .map(|(field, line, first)| (field.to_owned(), line, first));
    assert_eq!(found, expected);
    assert_eq!(node, parse("a: 1\nb:\n- c: 1\n  d: {e: 1}\n"));
    assert_eq!(node.take_duplicates(), []);
}

#[test]
fn aliases_are_bounded_by_what_is_written() {
    let repeated = |anchor: &str, times| {
        Node::parse(&format!("x: &x {anchor}\ny: [{}]\n", vec!["*x"; times].join(", ")))
    };
    let many = format!("[{}]", vec!["1"; 3000].join(", "));
    let long = "a".repeat(8000);
    for anchor in [many.as_str(), &long, &format!("!!seq {many}"), &format!("{{a: {many}}}")] {
        let error = repeated(anchor, 3000).unwrap_err().to_string();
        assert!(error.starts_with("stands for far more"), "{error}");
        assert!(repeated(anchor, 2).is_ok());
    }
    assert!(repeated("{connect: 5s, idle: 1h}", 500).is_ok(), "as people use them");
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize, open: &str, close: &str| {
        Node::parse(&format!("{}1{}", open.repeat(levels), close.repeat(levels)))
    };
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("[{a: ", "}]")] {
        let levels = 32 / open.matches(['[', '{', '-']).count();
        assert!(nested(levels, open, close).is_ok(), "{open}");
        for levels in [levels + 1, 100_000] {
            let error = nested(levels, open, close).unwrap_err();
            assert_eq!(error.message, "is nested more than 32 levels deep", "{open}");
        }
    }
}

#[test]
fn what_is_written_out_is_never_too_much() {
    for piece in
        ["a: &b", "{a,b,c}", "- \n", "[],", "\"\\P\\P\\P\", ", "~, ", "?:, ", "&a [&b [&c []]],"]
    {
        for (open, close) in [("", ""), ("[", "]"), ("{", "}"), ("- &a [", "]")] {
            let text = format!("{open}{}{close}", piece.repeat(1000));
            if let Err(error) = Node::parse(&text) {
                assert!(!error.message.contains("aliases"), "{open}{piece}: {error}");
            }
        }
    }
}

#[test]
fn comments_may_be_long() {
    let node = parse(&format!("a:\n{0}- 1\n{0}- 2\n{0}", "# x\n".repeat(1000)));
    assert_eq!(node.line_of(&FieldPath::parse("a[1]")), 2003);
}

#[test]
fn names_are_alike_whatever_their_case_and_hyphens() {
    let known = ["drain", "drain.delay", "accessLog"];
    for (wrong, meant) in [
        ("drian", Some("drain")),
        ("drain-dely", Some("drain.delay")),
        ("ACCESS_LOG", Some("accessLog")),
        ("drain.zzz", None),
        ("", None),
    ] {
        assert_eq!(nearest(wrong, known), meant, "{wrong}");
    }
}

#[test]
fn a_path_is_read_as_it_is_shown() {
    for text in ["", "a", "a[0]", "a[0][1].b", "spec.backends[12].weight"] {
        assert_eq!(FieldPath::parse(text).to_string(), text);
    }
}
