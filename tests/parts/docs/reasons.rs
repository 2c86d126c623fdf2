//! Every reason in a status, and every outcome of a connection, has a line that says what to do.

use std::collections::BTreeSet;

use sluice::outcome::Outcome;

use super::markdown::headings;
use super::read;

/// Where reasons are made.
const SOURCES: [&str; 8] = [
    "src/control/translate/resolved_route.rs",
    "src/control/translate/ports.rs",
    "src/control/translate/route_tls.rs",
    "src/control/translate/conditions.rs",
    "src/control/translate/unresolved.rs",
    "src/control/translate/conflict.rs",
    "src/control/status/mod.rs",
    "src/control/checks/problems.rs",
];
/// What stands before them there.
const MARKS: [&str; 6] = ["reason: \"", "true, \"", "false, \"", "Some(\"", "&str = \"", "=> \""];

#[test]
fn every_reason_has_a_section() {
    let mut made = BTreeSet::new();
    for source in SOURCES {
        let text = read(source);
        for mark in MARKS {
            made.extend(text.split(mark).skip(1).filter_map(word));
        }
    }
    // What such a mark stands before, too, in tests as well.
    made.remove("Bad");
    made.remove("BackendCertificate");
    made.remove("ExternalName");
    made.remove("TCP");
    assert!(made.len() > 8, "{made:?}");
    let headings = headings(&read("docs/routes.md"));
    let told: BTreeSet<String> = headings
        .iter()
        .flat_map(|heading| heading.split('`').skip(1).step_by(2))
        .filter_map(word)
        .collect();
    assert_eq!(told, made, "the sections of docs/routes.md, and the reasons in {SOURCES:?}");
}

/// A CamelCase word, up to a quote.
fn word(text: &str) -> Option<String> {
    let word = text.split('"').next()?;
    let upper = word.starts_with(|c: char| c.is_ascii_uppercase());
    (upper && word.chars().all(|c| c.is_ascii_alphabetic())).then(|| word.to_owned())
}

#[test]
fn every_outcome_has_a_line() {
    let page = read("docs/operations.md");
    for outcome in Outcome::ALL {
        assert!(page.contains(&format!("\n| `{outcome}` |")), "{outcome}");
    }
}
