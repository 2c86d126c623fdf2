//! Many routes tried out at once.

use std::collections::HashMap;
use std::thread;

use serde_json::{Value, json};

use crate::support::ApiServer;

/// How many kubectls are asked at the same time. Each makes 50 requests a second, two for a route.
const KUBECTLS: usize = 8;
/// How many routes a kubectl of its own is worth.
const ROUTES: usize = 100;

/// What `kubectl apply --dry-run=server` says to a route of each of the specs: nothing to one that
/// is taken.
pub(crate) fn try_out(specs: &[Value]) -> Vec<Option<String>> {
    let part = specs.len().div_ceil(KUBECTLS).max(ROUTES);
    thread::scope(|scope| {
        let parts: Vec<_> =
            specs.chunks(part).map(|part| scope.spawn(|| ask_kubectl(part))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("answers")).collect()
    })
}

fn ask_kubectl(specs: &[Value]) -> Vec<Option<String>> {
    // Two that are always refused: of a single one kubectl writes in another way.
    let documents: Vec<String> = specs
        .iter()
        .chain([&Value::Null; 2])
        .enumerate()
        .map(|(index, spec)| route(&format!("route-{index}"), spec).to_string())
        .collect();
    let output =
        ApiServer::shared().admin().apply_with(&["--dry-run=server"], &documents.join("\n---\n"));
    let (taken, refused) = (text(&output.stdout), text(&output.stderr));
    let mut answers: HashMap<&str, Option<String>> = HashMap::new();
    for line in taken.lines().filter(|line| line.contains(" created (server dry run)")) {
        let name = between(line, "sniroute.sluice.dev/", " ");
        answers.insert(name.expect("the name of a route"), None);
    }
    for line in refused.lines() {
        if let Some(name) = between(line, "SniRoute.sluice.dev \"", "\" is invalid: ") {
            let (_, reason) = line.split_once(" is invalid: ").expect("found before");
            answers.insert(name, Some(reason.to_owned()));
        }
    }
    assert_eq!(answers.len(), documents.len(), "an answer for each\n{taken}\n{refused}");
    (0..specs.len()).map(|index| answers[&*format!("route-{index}")].clone()).collect()
}

pub(crate) fn route(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "SniRoute",
        "metadata": { "name": name },
        "spec": spec,
    })
}

/// A spec that is valid, but for values at places in it, such as `/backends/1/address`.
pub(crate) fn spec<'v>(values: impl IntoIterator<Item = (String, &'v Value)>) -> Value {
    let mut spec = json!({ "hostnames": ["a.example"], "backends": [{ "address": "a:1" }] });
    for (place, value) in values {
        if let Some((backend, _)) = place.split_once("/service/") {
            let service = json!({ "name": "app", "port": 1 });
            put(&mut spec, &format!("{backend}/service"), &service);
        } else if let Some(backend) = place.strip_suffix("/weight") {
            put(&mut spec, &format!("{backend}/address"), &json!("a:1"));
        }
        put(&mut spec, &place, value);
    }
    spec
}

fn put(node: &mut Value, place: &str, value: &Value) {
    let Some(place) = place.strip_prefix('/') else {
        *node = value.clone();
        return;
    };
    let end = place.find('/').unwrap_or(place.len());
    let (step, rest) = place.split_at(end);
    match step.parse::<usize>() {
        Ok(index) => {
            if node.is_null() {
                *node = json!([]);
            }
            let items = node.as_array_mut().expect("a list");
            items.resize(items.len().max(index + 1), Value::Null);
            put(&mut items[index], rest, value);
        }
        Err(_) => put(&mut node[step], rest, value),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}
