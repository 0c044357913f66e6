//! What text becomes which values, and which is refused.

use super::*;
use serde_json::{Value, json};

fn read(text: &str) -> Result<Vec<Node>, Note> {
    documents(&"f".into(), text)
}

fn check(text: &str, expected: Value) {
    let documents = read(text).unwrap_or_else(|note| panic!("{text}: {note}"));
    let json: Value = documents.iter().map(Node::to_json).collect();
    assert_eq!(json, expected, "{text}");
}

#[test]
fn scalars_are_those_of_yaml_1_2() {
    check(
        "[a, 'a', \"a\\n\", 1, -1, +1, 0x10, 0o10, 010, 1.5, .5, 1e3, '1', ~, null, '', true]",
        json!([[
            "a", "a", "a\n", 1, -1, 1, 16, 8, 10, 1.5, 0.5, 1000.0, "1", null, null, "", true
        ]]),
    );
    check(
        "[False, yes, no, off, 1:30, 1.2.3, 5m, 0x, 12345678901234567890, -0, .inf, !!str 7]",
        json!([[
            false,
            "yes",
            "no",
            "off",
            "1:30",
            "1.2.3",
            "5m",
            "0x",
            12_345_678_901_234_567_890_u64,
            0,
            ".inf",
            "7"
        ]]),
    );
}

#[test]
fn anchors_and_merge_keys_are_written_out() {
    check(
        "base: &base {a: 1, b: 2}\nother: &other {b: 3, c: 4}\nall:\n  <<: [*base, *other]\n  a: 0\nlist: [*base]\ntext: '<<'\n",
        json!([{
            "base": {"a": 1, "b": 2}, "other": {"b": 3, "c": 4},
            "all": {"a": 0, "b": 2, "c": 4}, "list": [{"a": 1, "b": 2}], "text": "<<",
        }]),
    );
    check(
        "a: &x\n  k: v\nb:\n  <<: *x\n  <<: {k: w, l: 1}\n",
        json!([{"a": {"k": "v"}, "b": {"k": "v", "l": 1}}]),
    );
}

#[test]
fn documents_that_hold_nothing_are_left_out() {
    check("", json!([]));
    check("# only a comment\n", json!([]));
    check(
        "---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n",
        json!([{"a": 1}, {"b": 2}]),
    );
    check("\u{feff}a: 1", json!([{"a": 1}]));
    check(
        "{\"a\": [1, \"x\\u00e4\\/\"], \"b\": {}}",
        json!([{"a": [1, "xä/"], "b": {}}]),
    );
    check("{\n\t\"a\": [\n\t\t1\n\t]\n}\n", json!([{"a": [1]}]));
}

#[test]
fn json_may_escape_letters_in_halves() {
    check(
        r#"{"a": "\ud83d\uDE00", "b": "\\ud83d\\ude00", "c": "\u00e4\n"}"#,
        json!([{"a": "😀", "b": r"\ud83d\ude00", "c": "ä\n"}]),
    );
    assert!(read(r#"{"a": "\ud83d"}"#).is_err());
}

#[test]
fn values_know_their_lines() {
    for text in [
        "a:\n  b: 1\n\n  c:\n    - x\n    - y\n",
        "a:\r\n  b: 1\r\n\r\n  c:\r\n    - x\r\n    - y\r\n",
    ] {
        lines(text);
    }
}

fn lines(text: &str) {
    let documents = read(text).unwrap();
    let a = documents[0].get("a").unwrap();
    assert_eq!(a.place.line, 1);
    assert_eq!(a.value.get("b").unwrap().place.line, 2);
    let c = a.value.get("c").unwrap();
    let Content::List(items) = &c.value.content else {
        panic!("{c:?}");
    };
    assert_eq!((c.place.line, items[1].place.line), (4, 6));
}

#[test]
fn what_is_no_yaml_is_told_with_its_line() {
    for (text, line, part) in [
        ("a: 1\nb: [\n", 3, "this is no YAML"),
        ("a:\n  - b\n\t- c\n", 3, "use spaces"),
        ("a: *nothing\n", 1, "this is no YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, "stands on line 1 too"),
        ("a: 1\n? [x]\n: y\n", 2, "a single value"),
        ("a: &a [*a]\n", 1, "within its own anchor"),
        ("a: 1\n<<: 7\n", 2, "has to be a mapping"),
        ("a: !!binary aGk=\n", 1, "is not known here"),
        ("a: !secret x\n", 1, "is not known here"),
    ] {
        let note = read(text).unwrap_err();
        assert!(note.to_string().contains(part), "{text:?}: {note}");
        assert_eq!(note.place.line, line, "{text:?}: {note}");
    }
}

#[test]
fn files_that_would_fill_the_memory_are_refused() {
    let note = read(&"[".repeat(100)).unwrap_err();
    assert!(note.text.contains("deeper than 64"), "{note}");
    assert!(read(&"[".repeat(100_000)).is_err());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let alias = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    let note = read(&bomb).unwrap_err();
    assert!(note.text.contains("more than 100000 values"), "{note}");
}
