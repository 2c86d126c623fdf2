//! The reference of the fields in docs/routes.md, from the definition that `sluice crds` prints.

use std::fmt::Write;
use std::fs;

use serde_json::Value;
use sluice::control::api;

use super::{read, root};

const PAGE: &str = "docs/routes.md";
const BEGIN: &str =
    "<!-- Generated from the definition: UPDATE_DOCS=1 cargo test --test parts docs -->\n";
const END: &str = "<!-- The end of what is generated. -->\n";

#[test]
fn the_reference_is_fresh() {
    let page = read(PAGE);
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let fresh = format!("{before}{BEGIN}\n{}{END}{after}", reference());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(PAGE), fresh).unwrap();
    } else {
        assert!(page == fresh, "{PAGE} is stale: run UPDATE_DOCS=1 cargo test --test parts docs");
    }
}

/// A section for each field of `spec` and `status`.
fn reference() -> String {
    let definition: Value = serde_yaml::from_str(&api::crds()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut text = String::new();
    for part in ["spec", "status"] {
        fields(part, &schema[part], &mut text);
    }
    text
}

/// The fields of an object, those that have to be there first.
fn fields(path: &str, object: &Value, text: &mut String) {
    let required = |name: &str| {
        let all = object["required"].as_array();
        all.is_some_and(|all| all.iter().any(|one| one == name))
    };
    let mut properties: Vec<_> = object["properties"].as_object().unwrap().iter().collect();
    properties.sort_by_key(|(name, _)| (!required(name), *name));
    for (name, field) in properties {
        let path = format!("{path}.{name}");
        let needed = if required(name) { ", required" } else { "" };
        let default = match &field["default"] {
            Value::Null => String::new(),
            value => format!(", by default `{}`", value.as_str().unwrap_or(&value.to_string())),
        };
        writeln!(text, "#### `{path}`\n\n*{}{needed}{default}*\n", kind(field)).unwrap();
        writeln!(text, "{}\n", field["description"].as_str().unwrap().trim()).unwrap();
        inner(&path, field, text);
    }
}

/// What a field has in it; of conditions, which are the same for all kinds of objects, nothing.
fn inner(path: &str, field: &Value, text: &mut String) {
    if field["properties"].is_object() {
        fields(path, field, text);
    } else if field["items"]["properties"].is_object() && path != "status.conditions" {
        fields(&format!("{path}[]"), &field["items"], text);
    }
}

fn kind(field: &Value) -> String {
    if let Some(words) = field["enum"].as_array() {
        let words: Vec<_> =
            words.iter().map(|word| format!("`{}`", word.as_str().unwrap())).collect();
        return format!("one of {}", words.join(", "));
    }
    match field["type"].as_str() {
        Some("string") => match &field["maxLength"] {
            Value::Null => "text".to_owned(),
            most => format!("text of at most {most} characters"),
        },
        Some("integer") => match (field["minimum"].as_f64(), field["maximum"].as_f64()) {
            (Some(least), Some(most)) => format!("number from {least} to {most}"),
            (Some(least), None) => format!("number from {least}"),
            _ => "number".to_owned(),
        },
        Some("array") => {
            let items = field["items"]["type"].as_str().unwrap();
            let items = if items == "string" { "texts" } else { "objects" };
            match (&field["minItems"], &field["maxItems"]) {
                (Value::Null, Value::Null) => format!("list of {items}"),
                (Value::Null, most) => format!("list of at most {most} {items}"),
                (least, most) => format!("list of {least} to {most} {items}"),
            }
        }
        Some(other) => other.to_owned(),
        None => format!("number up to {}, or name", field["maximum"].as_f64().unwrap()),
    }
}
