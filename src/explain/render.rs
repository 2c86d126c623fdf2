//! An explanation as text.

use std::fmt::{self, Display, Formatter};

use super::{Elsewhere, Explanation, Loser, Lost, StatusNote, Winner};
use crate::admin::limits::ExceededReport;
use crate::policy::{AccessList, Balancing, LimitMode, PolicyOrigin};
use crate::routing::{EndpointPlace, Hostname, Ring, RouteSpec, Scope, WeightedBackend};

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.winner {
            Some(winner) => self.fmt_winner(winner, f)?,
            None => self.fmt_none(f)?,
        }
        for loser in &self.losers {
            writeln!(f, "  {loser}")?;
        }
        for StatusNote { key, message } in &self.told {
            writeln!(f, "  status of {}: {message}", key.full())?;
        }
        for there in &self.elsewhere {
            writeln!(f, "  {there}")?;
        }
        Ok(())
    }
}

impl Explanation {
    fn fmt_winner(&self, winner: &Winner, f: &mut Formatter<'_>) -> fmt::Result {
        let spec = &winner.route.spec;
        writeln!(f, "{}: {}", spec.key.full(), described(&winner.claim))?;
        if let Some(protocol) = &winner.alpn {
            writeln!(f, "  alpn: {protocol:?} is offered, one of {:?} is asked for", spec.alpn)?;
        }
        for attachment in spec.in_scope(&Scope::Config).filter(|one| !one.listeners.is_empty()) {
            writeln!(f, "  listeners: {}", attachment.listeners.join(", "))?;
        }
        self.fmt_tls(spec, f)?;
        self.fmt_policy(spec, f)?;
        winner.route.backends.iter().try_for_each(|share| self.fmt_backend(share, spec, f))
    }

    /// Each field of the policy, with the layer that it comes from, and what it means for the client.
    fn fmt_policy(&self, spec: &RouteSpec, f: &mut Formatter<'_>) -> fmt::Result {
        for (field, value, origin) in spec.policy.effective().fields() {
            write!(f, "  {field}: {value} ({})", described_origin(field, origin))?;
            if field == "loadBalancing.policy" {
                self.fmt_settled(spec.policy.balancing(), f)?;
            }
            if field == "loadBalancing.locality" && spec.policy.balancing().is_by_hash() {
                write!(f, ", which {} ignores", spec.policy.balancing().as_str())?;
            }
            writeln!(f)?;
        }
        let effective = spec.policy.effective();
        if let Some(ceiling) = &effective.access_ceiling {
            writeln!(
                f,
                "  access at most: {ceiling} ({})",
                described_origin("access", PolicyOrigin::PolicyCeiling)
            )?;
        }
        if let Some(ceiling) = &effective.limits_ceiling {
            let origin = described_origin("limits", PolicyOrigin::PolicyCeiling);
            writeln!(f, "  limits at most: {ceiling} ({origin})")?;
        }
        if let Some(source) =
            self.query.source.filter(|source| !spec.policy.access().admits(*source))
        {
            let own = effective.policy.access.as_ref();
            let by = match own.is_none_or(|own| AccessList::of([own]).admits(source)) {
                true => "the setting policyCeiling",
                false => "access",
            };
            writeln!(f, "  {source} is refused: {by} does not admit it")?;
        }
        for exceeded in &self.exceeded {
            self.fmt_exceeded(exceeded, f)?;
        }
        if spec.policy.is_suspended() {
            writeln!(f, "  connections are refused: the route is suspended")?;
        }
        Ok(())
    }

    /// A limit that the client would exceed.
    fn fmt_exceeded(&self, exceeded: &ExceededReport, f: &mut Formatter<'_>) -> fmt::Result {
        let what = match exceeded.limit.as_str() {
            "source" => "it has as many as limits.perSource admits",
            "route" => "the route has limits.connections of them",
            "rate" => "limits.newConnections is used up",
            other => other,
        };
        let of = match exceeded.of {
            PolicyOrigin::PolicyCeiling => " of the setting policyCeiling",
            _ => "",
        };
        let client = self.query.source.map(|source| source.to_string()).unwrap_or_default();
        match exceeded.mode {
            LimitMode::Enforce => {
                writeln!(f, "  a connection of {client} would be refused now: {what}{of}")
            }
            LimitMode::Report => {
                writeln!(f, "  a connection of {client} would be reported now: {what}{of}")
            }
        }
    }

    /// What the policy chooses the endpoint by, and the endpoint if it is known.
    fn fmt_settled(&self, policy: Balancing, f: &mut Formatter<'_>) -> fmt::Result {
        let source = self.query.source.map(|source| source.to_string());
        let key = match policy {
            Balancing::SourceAddress => source,
            Balancing::ServerName => self.query.name.as_deref().map(str::to_owned).or(source),
            Balancing::RoundRobin | Balancing::LeastConnections | Balancing::Random => None,
        };
        match (key, self.endpoint) {
            (Some(key), Some(endpoint)) => write!(f, ", {key} goes to {endpoint}"),
            (Some(key), None) => {
                write!(f, ", {key} always gets the same endpoint while it exists")
            }
            (None, _) => Ok(()),
        }
    }

    fn fmt_backend(
        &self,
        share: &WeightedBackend,
        spec: &RouteSpec,
        f: &mut Formatter<'_>,
    ) -> fmt::Result {
        write!(f, "  backend {}, weight {}: ", share.backend.key(), share.weight)?;
        let endpoints = share.backend.endpoints();
        if endpoints.is_empty() {
            return writeln!(f, "no endpoint");
        }
        let prefers_near = spec.policy.prefers_near();
        let shown = endpoints.placed().map(|(endpoint, place)| {
            let address = endpoint.address;
            let state = self.states.iter().find(|(other, _)| *other == address);
            let notes = [
                place.and_then(|place| described_place(place, prefers_near)),
                state.map(|(_, state)| state.clone()),
            ];
            match notes.into_iter().flatten().collect::<Vec<_>>() {
                notes if notes.is_empty() => address.to_string(),
                notes => format!("{address} ({})", notes.join(", ")),
            }
        });
        writeln!(f, "{}", shown.collect::<Vec<_>>().join(", "))
    }

    fn fmt_none(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "no route")?;
        match (&self.query.name, self.losers.is_empty()) {
            (_, false) => {}
            (Some(name), true) => writeln!(f, "  no route claims {name}")?,
            (None, true) => writeln!(f, "  without a server name only * matches; none claims it")?,
        }
        match &self.bare_suffix {
            Some((key, wildcard @ Hostname::Wildcard(suffix))) => {
                let key = key.full();
                writeln!(f, "  {key} claims {wildcard}: names below {suffix}, not {suffix} itself")
            }
            _ => Ok(()),
        }
    }
}

/// Whether the route prefers the endpoint to others, or else the zone that it is in.
fn described_place(place: &EndpointPlace, prefers_near: bool) -> Option<String> {
    match place.ring {
        Ring::Node if prefers_near => Some("for this node".to_owned()),
        Ring::Zone if prefers_near => Some("for this zone".to_owned()),
        _ => place.zone.as_ref().map(|zone| format!("zone {zone}")),
    }
}

fn described_origin(field: &str, origin: PolicyOrigin) -> &'static str {
    match origin {
        PolicyOrigin::PolicyCeiling if !field.starts_with("timeouts.") => {
            "of the setting policyCeiling"
        }
        PolicyOrigin::Route => "of the route",
        PolicyOrigin::Policy => "of the setting policy",
        PolicyOrigin::PolicyCeiling => "of the setting policyCeiling or timeouts.max",
        PolicyOrigin::Default => "by default",
    }
}

fn described(claim: &Hostname) -> String {
    match claim {
        Hostname::Exact(name) => format!("exact hostname {name}"),
        Hostname::Wildcard(_) => format!("wildcard {claim}"),
        Hostname::Any => "any name".to_owned(),
    }
}

impl Display for Loser {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "not {}, which claims {}: {}", self.key.full(), self.claim, self.reason)
    }
}

impl Display for Lost {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Lost::OtherListener(listeners) => {
                write!(f, "it serves only listeners {}", listeners.join(", "))
            }
            Lost::AlpnNotOffered(protocols) => {
                write!(f, "it asks for ALPN {protocols:?}, of which the client offers none")
            }
            Lost::OtherNamespace { hostname, owner } => write!(
                f,
                "{hostname} belongs to namespace {owner}, so routes of other namespaces get no connections for it"
            ),
            Lost::AnyElsewhere => f.write_str("on this listener, * belongs to another namespace"),
            Lost::LessSpecific => f.write_str("less specific"),
            Lost::NoAlpn => f.write_str("it asks for no ALPN, and the winner's matches"),
            Lost::Younger => f.write_str("younger"),
            Lost::LaterName => f.write_str("it is as old as the winner, whose name comes first"),
        }
    }
}

impl Display for Elsewhere {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.listener {
            Some(listener) => write!(f, "on listener {listener}: ")?,
            None => f.write_str("on any other listener: ")?,
        }
        match &self.winner {
            Some(key) => key.full().fmt(f),
            None => f.write_str("no route"),
        }
    }
}
