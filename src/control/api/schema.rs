//! What the API server checks, so that `kubectl apply` refuses what sluice could not read.
//!
//! A rule is an expression in CEL over `self`, with a message for whoever wrote the value: the API
//! server puts the field and the value in front of it. A rule that makes sense only where another
//! one holds is met where that one is not, so that each fault is told once.
//!
//! The API server refuses a definition whose rules could cost too much. It estimates that from the
//! greatest length of each text and list, so every one of them has a limit.
//!
//! The expressions need no function that came after Kubernetes 1.29. A rule may let pass what the
//! parser refuses, but never the other way round.

use schemars::{Schema, json_schema};
use serde_json::{Value, json};

use crate::policy::schema::{ipv4, subdomain, text};
pub(super) use crate::policy::schema::{rule, rule_telling};

/// See [`crate::routing::Hostname`].
pub(super) fn hostname() -> Schema {
    const IPV6: &str = "^[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*$";
    text(
        // With a trailing dot.
        254,
        &[
            rule("self != ''", "write a name, a wildcard such as *.example.com, or * for any name"),
            rule("size(self) <= 253 || self.endsWith('.')", "is longer than 253 characters"),
            rule(
                "!self.matches(r'^[.]|[.][.]')",
                "has an empty label; write one dot between labels, and none in front",
            ),
            rule(
                "!self.contains('*') || self == '*' || self.matches(r'^[*][.][^*]+$')",
                "'*' may only stand alone or as the whole first label, as in *.example.com",
            ),
            rule(
                &format!(
                    "!self.matches(r'^([*][.])?[0-9]+([.][0-9]+)*[.]?$') \
                     && !self.matches(r'{IPV6}')"
                ),
                "is an IP address; TLS clients send no server name for those: use * instead",
            ),
            rule(
                &format!("self.matches(r'^[*.A-Za-z0-9_-]*$') || self.matches(r'{IPV6}')"),
                "has a character that no server name has; allowed are a-z, 0-9, '-' and '_' (write \
                 international names in their xn-- form, and no port)",
            ),
            rule("!self.matches(r'[^.]{64}')", "has a label that is longer than 63 characters"),
            rule(
                "!self.matches(r'(^|[.])-|-([.]|$)')",
                "has a label that begins or ends with a hyphen",
            ),
        ],
    )
}

/// What is said of a check without a name.
pub(super) const NO_CHECKED_NAME: &str = "is missing, and no hostname is an exact name, which a check of type TLS could ask \
                                          for; write serverName: NAME, or type: TCP";

/// See [`super::SniRouteSpec::has_checked_name`].
pub(super) fn checked_name() -> Value {
    let mut rule = rule(
        "!has(self.health) || !has(self.health.active) || self.health.active.type != 'TLS' \
         || has(self.health.active.serverName) || has(self.tls) || self.hostnames.exists(h, !h.startsWith('*'))",
        NO_CHECKED_NAME,
    );
    rule["fieldPath"] = json!(".health.active.serverName");
    rule["reason"] = json!("FieldValueRequired");
    rule
}

/// See [`super::ClassName`].
pub(super) fn class() -> Schema {
    let expression = "self.matches(r'^[A-Za-z0-9._/-]+$')";
    let message = "is not a class; write letters, digits, and any of - . _ / (1 to 253)";
    text(253, &[rule(expression, message)])
}

/// See [`super::ListenerName`].
pub(super) fn listener() -> Schema {
    label(
        "is not a listener's name; it has 1 to 63 of a-z, 0-9 and '-', and begins and ends with a \
         letter or digit",
    )
}

/// See [`super::ServiceName`].
pub(super) fn service() -> Schema {
    label(
        "is not the name of a Service; it has 1 to 63 of a-z, 0-9 and '-', begins and ends with a \
         letter or digit, and its namespace goes into a field of its own",
    )
}

/// See [`super::Namespace`].
pub(super) fn namespace() -> Schema {
    label(
        "is not the name of a namespace; it has 1 to 63 of a-z, 0-9 and '-', and begins and ends \
         with a letter or digit",
    )
}

/// See [`super::SecretName`].
pub(super) fn secret() -> Schema {
    subdomain("is not the name of a Secret")
}

/// An RFC 1123 label, in lower case as Kubernetes has it.
fn label(message: &str) -> Schema {
    text(63, &[rule("self.matches(r'^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')", message)])
}

/// A number or a name. The rule for names is a pattern, because the API server estimates the cost
/// of a rule over a number or text as if that text could be as long as a whole request.
pub(super) fn port() -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "maximum": 65535,
        "maxLength": 63,
        "pattern": "^[a-z0-9-]+$",
        "x-kubernetes-validations": [rule(
            r"type(self) == int || self == '' || self.matches(r'\D')",
            "is a name that looks like a number; write the number without quotes",
        )]
    })
}

/// See [`super::Address`].
pub(super) fn address() -> Schema {
    const WRONG: &str = "is not an address; write an IP address or a DNS name with a port, as in \
                         203.0.113.7:9093, [2001:db8::7]:9093 or kafka.example.com:9093";
    const PLACE: &str = r"^([^:]*|\[.*\]):";
    let begun = format!(r"self.matches(r'{PLACE}[^:\]]*$')");
    let whole = format!("self.matches(r'{PLACE}[0-9]+$')");
    let number = "int(self.substring(self.lastIndexOf(':') + 1))";
    let bracket = "self.startsWith('[')";
    let digits = "self.matches(r'^[0-9.]+:')";
    let host = |other: &str, valid: &str| rule(&format!("!{whole} || {other} || {valid}"), WRONG);
    text(
        super::address::MAX_LENGTH,
        &[
            rule_telling(
                &begun,
                &format!(
                    "self.matches(r'^([^:]*|[0-9A-Fa-f:.]*)$') ? '{}' : '{WRONG}'",
                    WRONG.replace("is not an address", "has no port")
                ),
            ),
            rule(
                &format!("!{begun} || self.matches(r':[0-9]+$')"),
                &WRONG.replace("is not an address", "has no port number"),
            ),
            rule(
                &format!("!{whole} || self.matches(r':0*[1-9][0-9]{{0,4}}$') && {number} <= 65535"),
                "has a port that nothing can be reached at; write 1 to 65535",
            ),
            host(&format!("!{digits}"), &format!("self.matches(r'^{}:')", ipv4())),
            host(&format!("!{bracket}"), &ipv6()),
            host(&format!("{bracket} || {digits}"), &dns_name()),
            rule(&format!("!{}", nowhere()), "cannot be reached; write the address of one machine"),
        ],
    )
}

/// Whether it begins with an IPv6 address (RFC 4291 §2.2) in brackets, perhaps with the number of a
/// zone.
fn ipv6() -> String {
    const GROUP: &str = "[0-9A-Fa-f]{1,4}";
    const END: &str = r"(%[0-9]+)?\]:";
    // `::` stands for one group at least, and an IPv4 address for two.
    const TOO_MANY: &str = "([0-9A-Fa-f]+:+){7}[0-9A-Fa-f]|([0-9A-Fa-f]+:+){6}[0-9]+[.]";
    let ipv4 = ipv4();
    let full = format!(r"^\[({GROUP}:){{6}}({GROUP}:{GROUP}|{ipv4}){END}");
    let short = format!(r"^\[({GROUP}(:{GROUP})*)?::(({GROUP}:)*({GROUP}|{ipv4}))?{END}");
    format!("self.matches(r'{full}') || self.matches(r'{short}') && !self.matches(r'{TOO_MANY}')")
}

/// Whether it begins with what [`super::address::dns_name`] takes, if that is not all digits.
fn dns_name() -> String {
    const LABEL: &str = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
    format!(
        "self.matches(r'^{LABEL}([.]{LABEL})*[.]?:') && \
         self.indexOf(':') <= (self.contains('.:') ? 254 : 253)"
    )
}

/// The unspecified addresses and the multicast ones.
fn nowhere() -> String {
    let ipv4 = "0[.]0[.]0[.]0|(22[4-9]|23[0-9])([.][0-9]+){3}";
    let ipv6 = r"\[([0:.]+|[Ff]{2}[0-9A-Fa-f]{2}:[^\]%]*)(%[0-9]+)?\]";
    format!("self.matches(r'^({ipv4}|{ipv6}):')")
}

/// Makes one line of each paragraph of the descriptions, as `kubectl explain` breaks lines itself.
/// An item of a list, which begins with `- `, stays on a line of its own.
pub(super) fn reflow(node: &mut Value) {
    match node {
        Value::Array(items) => items.iter_mut().for_each(reflow),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match value {
            Value::String(text) if name == "description" => *text = unbroken(text),
            value => reflow(value),
        }),
        _ => {}
    }
}

fn unbroken(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        match lines.last_mut() {
            Some(last) if !last.is_empty() && !line.is_empty() && !line.starts_with("- ") => {
                last.push(' ');
                last.push_str(line);
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::SniRoute;
    use super::*;
    use kube::CustomResourceExt;

    /// What the API server asks of a structural schema: every node has a type (or is an
    /// int-or-string) and every field a description, and nothing is said by reference.
    #[test]
    fn the_schema_is_structural_and_explains_every_field() {
        let schema = schema();
        visit("", &schema, &mut |path, node| {
            let is_port = node["x-kubernetes-int-or-string"] == json!(true);
            assert!(is_port != node["type"].is_string(), "{path}: {node}");
            assert!(node.get("$ref").is_none() && node.get("anyOf").is_none(), "{path}");
            for (name, property) in node["properties"].as_object().into_iter().flatten() {
                assert!(property["description"].is_string(), "{path}.{name} has no description");
            }
        });
        let backend = &field(&schema, "spec.backends")["items"];
        assert_eq!(field(backend, "service.port")["x-kubernetes-int-or-string"], json!(true));
        assert_eq!(field(&schema, "spec")["required"], json!(["backends", "hostnames"]));
        assert!(!backend.to_string().contains("nullable"), "has() would take null for a value");
    }

    /// Without a greatest length, the API server takes the rules over a text or list for too dear.
    #[test]
    fn whatever_people_write_has_a_limit_and_every_rule_a_message() {
        visit("spec", field(&schema(), "spec"), &mut |path, node| {
            let limit = match node["type"].as_str() {
                Some("array") => "maxItems",
                Some("string") if node.get("enum").is_none() => "maxLength",
                Some("integer") => "maximum",
                _ => "type",
            };
            assert!(node.get(limit).is_some() || limit == "type", "{path} has no {limit}");
            assert!(limit != "maxItems" || node["x-kubernetes-list-type"].is_string(), "{path}");
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let told = ["message", "messageExpression"].iter().any(|key| rule[key].is_string());
                assert!(told, "{path}: {rule}");
            }
        });
    }

    #[test]
    fn paragraphs_are_one_line_each_and_items_of_lists_too() {
        let mut schema =
            json!({ "properties": { "description": { "description": "a\nb\n- c\n  d\n\ne\nf" } } });
        reflow(&mut schema);
        let text = "a b\n- c d\n\ne f";
        assert_eq!(schema, json!({ "properties": { "description": { "description": text } } }));
    }

    fn schema() -> Value {
        let crd = serde_json::to_value(SniRoute::crd()).expect("JSON");
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    fn field<'s>(schema: &'s Value, path: &str) -> &'s Value {
        path.split('.').fold(schema, |schema, key| &schema["properties"][key])
    }

    /// The node and all that are in it.
    fn visit(path: &str, node: &Value, check: &mut impl FnMut(&str, &Value)) {
        check(path, node);
        for (name, property) in node["properties"].as_object().into_iter().flatten() {
            visit(&format!("{path}.{name}"), property, check);
        }
        if let Some(items) = node.get("items") {
            visit(&format!("{path}[]"), items, check);
        }
    }
}
