//! The report of `/limits`: which limits a client of a route would exceed now, in this process.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limiter::ExceededLimit;
use crate::policy::{LimitMode, PolicyOrigin};
use crate::routing::{Kind, ObjectKey, ObjectRef, Route, RouteKey};

/// The client and the route in question, in the form of a URL's query:
/// `kind=SniRoute&namespace=data&name=kafka&source=192.0.2.1`. `kind` may be left out, and so may `rule`, the index of
/// the rule in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsQuery {
    /// The route.
    pub route: RouteKey,
    /// The client's address.
    pub source: IpAddr,
}

/// Why a text is no query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimitsQuery {
    /// A field is missing.
    #[error("{0} is missing, as in ?namespace=data&name=kafka&source=192.0.2.1")]
    Missing(&'static str),
    /// A field has no such value.
    #[error("{0} cannot be read")]
    Value(&'static str),
}

/// The limits that a client would exceed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsReport {
    /// At most one of each place; empty if the client would be admitted.
    pub exceeded: Vec<ExceededReport>,
}

/// A limit that a client would exceed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceededReport {
    /// `source`, `route` or `rate`, as in the access log.
    pub limit: String,
    /// Whose limit it is: that of the route's policy, or of the installation's ceiling.
    pub of: PolicyOrigin,
    /// Whether it is only reported.
    pub mode: LimitMode,
}

impl FromStr for LimitsQuery {
    type Err = InvalidLimitsQuery;

    fn from_str(text: &str) -> Result<Self, InvalidLimitsQuery> {
        let fields = || text.split('&').filter_map(|field| field.split_once('='));
        let field = |name: &str| fields().find(|(known, _)| *known == name).map(|(_, value)| value);
        let needed = |name| field(name).ok_or(InvalidLimitsQuery::Missing(name));
        let kind = field("kind").map_or(Ok(Kind::SniRoute), |kind| {
            Kind::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(
                kind,
            ))
            .map_err(|_| InvalidLimitsQuery::Value("kind"))
        })?;
        let rule = field("rule")
            .map_or(Ok(0), |rule| rule.parse().map_err(|_| InvalidLimitsQuery::Value("rule")))?;
        let object = ObjectRef::new(kind, ObjectKey::new(needed("namespace")?, needed("name")?));
        let source = needed("source")?.parse();
        Ok(LimitsQuery {
            route: RouteKey::of_rule(object, rule),
            source: source.map_err(|_| InvalidLimitsQuery::Value("source"))?,
        })
    }
}

impl LimitsQuery {
    /// The text that [`LimitsQuery::from_str`] reads.
    pub fn text(&self) -> String {
        let (route, source) = (&self.route, self.source);
        format!(
            "kind={}&namespace={}&name={}&rule={}&source={source}",
            route.kind().as_str(),
            route.namespace(),
            route.name(),
            route.rule()
        )
    }
}

impl LimitsReport {
    /// What a connection of `source` to a route would exceed now.
    pub fn of(route: &Route, source: IpAddr) -> Self {
        let mode = route.spec.policy.effective().policy.limits.mode.unwrap_or_default();
        let [own, ceiling] = route.exceeded(source);
        let places = [
            (own, PolicyOrigin::Route, mode),
            (ceiling, PolicyOrigin::PolicyCeiling, LimitMode::Enforce),
        ];
        let report = |(exceeded, of, mode): (Option<ExceededLimit>, _, _)| {
            let limit = match exceeded? {
                ExceededLimit::Source => "source",
                ExceededLimit::Connections => "route",
                ExceededLimit::Rate => "rate",
            };
            Some(ExceededReport { limit: limit.to_owned(), of, mode })
        };
        LimitsReport { exceeded: places.into_iter().filter_map(report).collect() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_route_and_a_client() {
        let query: LimitsQuery = "namespace=data&name=kafka&source=2001:db8::1".parse().unwrap();
        assert_eq!(query.route, RouteKey::sni_route("data", "kafka"));
        assert_eq!(query.text().parse(), Ok(query));
        for (text, error) in [
            ("", InvalidLimitsQuery::Missing("namespace")),
            ("namespace=a&name=b", InvalidLimitsQuery::Missing("source")),
            ("namespace=a&name=b&source=x", InvalidLimitsQuery::Value("source")),
            ("namespace=a&name=b&source=::1&kind=x", InvalidLimitsQuery::Value("kind")),
            ("namespace=a&name=b&source=::1&rule=-1", InvalidLimitsQuery::Value("rule")),
        ] {
            assert_eq!(text.parse::<LimitsQuery>(), Err(error), "{text}");
        }
    }
}
