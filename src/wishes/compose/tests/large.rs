//! A file as a team would write it, as a whole.

use serde_json::{Value, json};

use super::super::super::tests::{read_with, told};
use super::super::super::{After, Options, Reading, Wish, yaml};

/// Reads the large file with all profiles, as JSON of all that comes of it.
fn large(text: &str) -> (Value, Reading) {
    let others = [
        ("/app/.env", "TAG=2026.11\nDB_PASSWORD='p$w'\n"),
        ("/app/common.env", "TZ=UTC\nLOG_LEVEL=warn\n"),
        ("/app/common.yaml", include_str!("../large/common.yaml")),
        ("/app/secrets/db_password", "s3cret\n"),
        ("/app/secrets/cert.pem", "-----BEGIN-----\n"),
    ];
    let mut options = Options {
        profiles: vec!["*".to_owned()],
        ..Options::default()
    };
    options
        .environment
        .insert("SESSION_KEY".to_owned(), "k3y".to_owned());
    let reading = read_with(&[("compose.yaml", text)], &others, &options);
    let wish = |wish: &Wish| {
        let after = |after: &After| format!("{} {}", after.key.name, after.condition);
        let after: Vec<String> = wish.after.iter().map(after).collect();
        json!({"after": after, "body": wish.body})
    };
    let wishes: Vec<Value> = reading.wishes.iter().map(wish).collect();
    (json!({"wishes": wishes, "notes": told(&reading)}), reading)
}

#[test]
fn a_large_file_becomes_what_it_says() {
    let (read, _) = large(include_str!("../large/compose.yaml"));
    let expected: Value = serde_json::from_str(include_str!("../large/expected.json")).unwrap();
    let shown = serde_json::to_string_pretty(&read).unwrap();
    assert_eq!(read, expected, "{shown}");
}

/// The same file gives the same wishes in the same order, whatever order its keys have and
/// whether it is YAML or JSON.
#[test]
fn the_same_file_gives_the_same_wishes() {
    let text = include_str!("../large/compose.yaml");
    let (first, reading) = large(text);
    for _ in 0..10 {
        assert_eq!(large(text).0, first);
    }
    let nodes = yaml::documents(&"f".into(), text).unwrap();
    // JSON's keys are sorted here.
    let (_, sorted) = large(&nodes[0].to_json().to_string());
    let mut bodies: Vec<&Value> = reading.wishes.iter().map(|wish| &wish.body).collect();
    let mut others: Vec<&Value> = sorted.wishes.iter().map(|wish| &wish.body).collect();
    bodies.sort_by_key(|body| body["name"].to_string());
    others.sort_by_key(|body| body["name"].to_string());
    assert_eq!(bodies, others);
    for reading in [&reading, &sorted] {
        for (index, wish) in reading.wishes.iter().enumerate() {
            for after in &wish.after {
                let before = reading
                    .wishes
                    .iter()
                    .position(|other| other.key == after.key);
                assert!(
                    before.is_some_and(|before| before < index),
                    "{} after {}",
                    wish.key,
                    after.key
                );
            }
        }
    }
}
