//! What is to be said of the certificates that a route serves.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::routing::{Hostname, RouteSpec};
use crate::termination::{CertificateText, Identity};

/// Which of these certificates and the one for the backends (`upstream`) are not valid now, and which hostnames of the
/// route none covers. `now` is in seconds since 1970, or 0 if it is not known.
pub(super) fn certificate_notes(
    route: &RouteSpec,
    certificates: &[(CertificateText, Arc<Identity>)],
    upstream: Option<&(CertificateText, Arc<Identity>)>,
    now: i64,
) -> Vec<String> {
    let validity = certificates.iter().chain(upstream).filter_map(|(text, identity)| {
        let (facts, secret) = (identity.facts(), &text.secret);
        if now > facts.not_after {
            let at = at(facts.not_after);
            Some(format!("the certificate of Secret {secret} has expired at {at}"))
        } else if now != 0 && now < facts.not_before {
            let at = at(facts.not_before);
            Some(format!("the certificate of Secret {secret} is valid only from {at}"))
        } else {
            None
        }
    });
    let covers =
        |name: &str| certificates.iter().any(|(_, identity)| identity.facts().covers(name));
    let mut uncovered = route.hostnames().filter_map(|hostname| match hostname {
        Hostname::Exact(name) if !covers(name) => Some(name),
        _ => None,
    });
    let names = uncovered.next().map(|first| {
        let more = match uncovered.count() {
            0 => String::new(),
            more => format!(" and {more} more hostnames"),
        };
        format!("no certificate of the route has the name {first}{more}")
    });
    validity.chain(names).collect()
}

fn at(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
