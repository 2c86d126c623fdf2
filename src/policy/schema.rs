//! What the API server checks, so that `kubectl apply` refuses what sluice could not read.
//!
//! A rule is an expression in CEL over `self`, with a message for whoever wrote the value: the API
//! server puts the field and the value in front of it.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::Balancing;

/// A duration as [`crate::duration`] reads it, in CEL.
const WRITTEN: &str = "self.matches(r'^([0-9]{1,5}(h|m|s|ms)){1,4}$')";

/// See [`crate::duration`].
pub(super) fn timeout() -> Schema {
    let [written, most] = duration();
    let some = rule(
        &format!("!{WRITTEN} || duration(self) > duration('0s')"),
        "is no time at all; leave the field out to have the installation's own",
    );
    text(LONGEST_DURATION, &[written, some, most])
}

/// See [`crate::duration`].
pub(super) fn spread() -> Schema {
    text(LONGEST_DURATION, &duration())
}

const LONGEST_DURATION: usize = 28;

fn duration() -> [Value; 2] {
    [
        rule(WRITTEN, "is not a duration; write e.g. 5s, 500ms or 1h30m"),
        rule(
            &format!("!{WRITTEN} || duration(self) <= duration('720h')"),
            "is over the maximum of 720h (30 days)",
        ),
    ]
}

/// See [`Rate::per`](super::Rate::per): a [`timeout`] of at most an hour.
pub(super) fn per(_: &mut SchemaGenerator) -> Schema {
    timeout_with("<= duration('1h')", "is over the maximum of 1h")
}

/// See [`ActiveHealth::interval`](super::ActiveHealth): a [`timeout`] of at least a second.
pub(super) fn check_interval(_: &mut SchemaGenerator) -> Schema {
    timeout_with(">= duration('1s')", "is under the minimum of 1s")
}

/// See [`ActiveHealth::timeout`](super::ActiveHealth): a [`timeout`] of at most ten seconds.
pub(super) fn check_timeout(_: &mut SchemaGenerator) -> Schema {
    timeout_with("<= duration('10s')", "is over the maximum of 10s")
}

/// A [`timeout`] that compares so.
fn timeout_with(comparison: &str, message: &str) -> Schema {
    let mut schema = timeout();
    let rule = rule(&format!("!{WRITTEN} || duration(self) {comparison}"), message);
    let rules = schema.get_mut("x-kubernetes-validations").and_then(Value::as_array_mut);
    rules.into_iter().for_each(|rules| rules.push(rule.clone()));
    schema
}

/// See [`Balancing`].
pub(super) fn balancing() -> Schema {
    json_schema!({
        "type": "string",
        "enum": Balancing::ALL.map(Balancing::as_str)
    })
}

/// See [`crate::cidr::Cidr`]. Lists have thousands of networks, so the rule is coarse for IPv6, and bits beyond the
/// prefix pass.
pub(super) fn network() -> Schema {
    const IPV6: &str = "[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?";
    let ipv4 = format!("{}(/(3[0-2]|[12]?[0-9]))?", ipv4());
    const WRONG: &str = "is not a network; write an address and the length of its prefix, as in \
                         10.0.0.0/8 or 2001:db8::/32";
    text(49, &[rule(&format!("self.matches(r'^({ipv4}|{IPV6})$')"), WRONG)])
}

/// The rule of [`super::PassiveHealth`]. What is no duration is met by the rule of its own field.
pub(super) const EJECTION_GROWS: &str = "!has(self.ejectFor) || !has(self.maxEjectFor) \
     || !self.ejectFor.matches(r'^([0-9]{1,5}(h|m|s|ms)){1,4}$') \
     || !self.maxEjectFor.matches(r'^([0-9]{1,5}(h|m|s|ms)){1,4}$') \
     || duration(self.maxEjectFor) >= duration(self.ejectFor)";
/// What is said where it does not hold.
pub(super) const EJECTION_SHRINKS: &str = "maxEjectFor is less than ejectFor";

/// The rules of [`super::ActiveHealth`], and what is said where they do not hold.
pub(super) const CA_OF_ENFORCE: &str =
    "!has(self.verify) || self.verify != 'Enforce' || has(self.ca)";
pub(super) const CA_MISSING: &str =
    "verify is Enforce, and ca is missing; write ca: { configMap: NAME }, or verify: Report";
pub(super) const TLS_ONLY: &str = "self.type == 'TLS' || !has(self.serverName) && !has(self.verify) \
     && !has(self.ca) && (!has(self.alpn) || size(self.alpn) == 0)";
pub(super) const NOT_TLS: &str = "serverName, alpn, verify and ca are for checks of type TLS";

/// See [`super::AlpnProtocol`]. The greatest length is in characters.
pub(super) fn alpn() -> Schema {
    let expression = "self != '' && size(bytes(self)) <= 255";
    text(255, &[rule(expression, "an ALPN protocol has 1 to 255 bytes, as in h2 or http/1.1")])
}

/// See [`super::CheckServerName`].
pub(super) fn server_name() -> Schema {
    const LABEL: &str = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
    let name = format!(
        "self.matches(r'^{LABEL}([.]{LABEL})*[.]?$') && !self.matches(r'(^|[.])([0-9]+|0[xX][0-9A-Fa-f]*)[.]?$') \
         && (size(self) <= 253 || self.endsWith('.'))"
    );
    text(254, &[rule(&name, "is not a server name; write one such as www.example.com")])
}

/// See [`super::ConfigMapName`].
pub(super) fn config_map() -> Schema {
    subdomain("is not the name of a ConfigMap")
}

/// The name of an object: an RFC 1123 subdomain.
pub fn subdomain(message: &str) -> Schema {
    const LABEL: &str = "[a-z0-9]([a-z0-9-]*[a-z0-9])?";
    let name = format!("self.matches(r'^{LABEL}([.]{LABEL})*$')");
    text(253, &[rule(&name, message)])
}

/// The pattern of an IPv4 address: four numbers up to 255, with no zero in front.
pub fn ipv4() -> String {
    const NUMBER: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    format!("({NUMBER}[.]){{3}}{NUMBER}")
}

/// A text of at most so many characters.
pub fn text(max_length: usize, rules: &[Value]) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": max_length,
        "x-kubernetes-validations": rules
    })
}

/// A rule and its message.
pub fn rule(expression: &str, message: &str) -> Value {
    json!({ "rule": expression, "message": message })
}

/// A rule whose message is an expression too.
pub fn rule_telling(expression: &str, message: &str) -> Value {
    json!({ "rule": expression, "messageExpression": message })
}
