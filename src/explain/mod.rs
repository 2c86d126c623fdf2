//! Explains which route gets a connection, and why the others do not.
//!
//! The winner is found by [`Table::lookup`], as in the data plane; the rest explains the result. The table
//! is made from manifests, or from the report of a running sluice ([`fetch()`]).

mod fetch;
mod render;
mod tls;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::admin::certificates::ServedCertificate;
use crate::admin::limits::ExceededReport;
use crate::routing::{
    Attachment, Hostname, MOST_OFFERS, MatchKind, Route, RouteKey, Scope, Snapshot, Table, channel,
};
use crate::termination::TlsState;
use crate::tls::{InvalidServerName, ServerName};

pub use fetch::{Fetched, fetch, fetch_limits};

/// The connection to explain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The normalised server name, as returned by [`server_name`]; `None` if the client sends none.
    pub name: Option<Box<str>>,
    /// The protocols that the client offers.
    pub alpn: Vec<String>,
    /// The listener. If `None`, the one on which the best route is served; the explanation then also
    /// contains the other answers.
    pub listener: Option<String>,
    /// The client's address.
    pub source: Option<IpAddr>,
}

/// Why a text is not a server name that a client can send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQueryName {
    /// A wildcard. Routes claim wildcards; clients do not send them.
    #[error("{0:?} is a wildcard, which no client sends; give a name that it is to cover")]
    Wildcard(String),
    /// A name that sluice treats as if the client sent none.
    #[error("{0}, so a client is routed as if it sent no name: ask for that with an empty one")]
    LikeNone(#[from] InvalidServerName),
}

/// Parses a server name as a client sends it. The empty text means that the client sends none.
///
/// # Errors
/// When clients cannot send the name, or sluice treats it like no name.
pub fn server_name(text: &str) -> Result<Option<Box<str>>, InvalidQueryName> {
    if text.is_empty() {
        return Ok(None);
    }
    if matches!(text.parse(), Ok(Hostname::Wildcard(_) | Hostname::Any)) {
        return Err(InvalidQueryName::Wildcard(text.to_owned()));
    }
    Ok(Some(ServerName::parse(text.as_bytes())?.as_str().into()))
}

/// The table that serves `snapshot`.
pub fn table(snapshot: Snapshot) -> Arc<Table> {
    let (mut writer, reader) = channel();
    writer.apply(snapshot);
    Arc::clone(&reader.table())
}

/// The route that gets a connection, and the reasons. `Display` is the output of `sluice explain`, whose
/// first line starts with the winner (its kind and `namespace/name`) or with `no route`.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The connection.
    pub query: Query,
    /// The route that gets the connection.
    pub winner: Option<Winner>,
    /// The other routes that claim the name, starting with the best claim.
    pub losers: Vec<Loser>,
    /// Messages from statuses: those about hostnames that cover the name, and, for the winner, those about
    /// its timeouts.
    pub told: Vec<StatusNote>,
    /// The listeners with another answer, if the query has no listener.
    pub elsewhere: Vec<Elsewhere>,
    /// A wildcard whose suffix is the name, which it does not cover. Set only without a winner.
    pub bare_suffix: Option<(RouteKey, Hostname)>,
    /// The endpoint for the client's address or the server name. The caller, which knows the balancer, sets it.
    pub endpoint: Option<SocketAddr>,
    /// The limits of the winner that the client would exceed now. The caller sets them, if a running sluice knows.
    pub exceeded: Vec<ExceededReport>,
    /// The endpoints of the winner that come last, and why: `resting`, `ejected` or `unhealthy`.
    pub states: Vec<(SocketAddr, String)>,
    /// The certificates that the winner serves. The caller adds those that a running sluice serves.
    pub certificates: Vec<ServedCertificate>,
    /// Whether the winner serves TLS, if it terminates it.
    pub tls_state: Option<TlsState>,
}

/// The route that takes a connection.
#[derive(Clone, Debug)]
pub struct Winner {
    /// The route.
    pub route: Arc<Route>,
    /// The claim that wins.
    pub claim: Hostname,
    /// The first of its protocols that the client offers.
    pub alpn: Option<Box<str>>,
}

/// A route that claims the name and does not get the connection.
#[derive(Clone, Debug)]
pub struct Loser {
    /// The route.
    pub key: RouteKey,
    /// The most specific of its claims that cover the name.
    pub claim: Hostname,
    /// Why it loses.
    pub reason: Lost,
}

/// Why a route that claims the name does not get the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The route is only on these listeners.
    OtherListener(Vec<Box<str>>),
    /// The route asks for one of these protocols, and the client offers none of them.
    AlpnNotOffered(Vec<Box<str>>),
    /// A hostname that covers the name belongs to this namespace, so routes of other namespaces do not get
    /// the connection.
    OtherNamespace {
        /// The hostname.
        hostname: Hostname,
        /// The namespace that owns it.
        owner: Box<str>,
    },
    /// The winner's claim is more specific.
    LessSpecific,
    /// On this listener, another namespace owns `*`.
    AnyElsewhere,
    /// The winner asks for a protocol that the client offers, and this route asks for none.
    NoAlpn,
    /// The winner is older.
    Younger,
    /// The winner is as old and its namespace/name comes first.
    LaterName,
}

/// A message from a route's status that concerns the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusNote {
    /// The route.
    pub key: RouteKey,
    /// The message.
    pub message: String,
}

/// The answer on another listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The listener; `None` stands for all listeners that are not listed.
    pub listener: Option<Box<str>>,
    /// The route that takes the connection there.
    pub winner: Option<RouteKey>,
}

impl Explanation {
    /// Whether any route gets the connection. If not, the command exits with 1.
    pub fn found(&self) -> bool {
        self.winner.is_some()
    }

    /// Adds the state of an endpoint of a route, if the route is the winner.
    pub fn add_state(&mut self, key: &RouteKey, endpoint: SocketAddr, state: &str) {
        if self.winner.as_ref().is_some_and(|winner| winner.route.spec.key == *key) {
            self.states.push((endpoint, state.to_owned()));
        }
    }

    /// Adds the parts of a condition's message about hostnames that cover the name, and, for the winner,
    /// about timeouts that the installation limits. A message is a list of sentences; those about a hostname
    /// or field begin with it.
    pub fn add_told(&mut self, key: &RouteKey, condition: &str) {
        let name = self.query.name.as_deref();
        let wins = self.winner.as_ref().is_some_and(|winner| winner.route.spec.key == *key);
        let concerns = |message: &&str| {
            let hostname = message.split(' ').next().and_then(|word| word.parse::<Hostname>().ok());
            hostname.is_some_and(|hostname| hostname.matches(name))
                || wins && message.starts_with("timeouts.")
        };
        let told = condition.split("; ").filter(concerns);
        self.told.extend(
            told.map(|message| StatusNote { key: key.clone(), message: message.to_owned() }),
        );
    }
}

/// Explains which route of `table` gets the connection in `query`. Pure.
pub fn explain(table: &Table, query: &Query) -> Explanation {
    let claims = claims(table, query.name.as_deref());
    let listener = query.listener.as_deref().unwrap_or_else(|| best_listener(&claims, query));
    let winner = winner(table, query, listener);
    let owner = NameOwner::of(&claims);
    let losers = claims
        .iter()
        .filter(|claim| winner.as_ref().is_none_or(|w| w.route.spec.key != claim.route.spec.key))
        .filter_map(|claim| {
            let reason = claim.lost(query, listener, winner.as_ref(), owner.as_ref())?;
            Some(Loser { key: claim.route.spec.key.clone(), claim: claim.hostname.owned(), reason })
        })
        .collect();
    let elsewhere = match query.listener {
        Some(_) => Vec::new(),
        None => elsewhere(table, query, &claims, listener),
    };
    let bare_suffix = match winner {
        Some(_) => None,
        None => bare_suffix(table, query.name.as_deref()),
    };
    let query = query.clone();
    let mut explanation = Explanation {
        query,
        winner,
        losers,
        told: Vec::new(),
        elsewhere,
        bare_suffix,
        endpoint: None,
        exceeded: Vec::new(),
        states: Vec::new(),
        certificates: Vec::new(),
        tls_state: None,
    };
    let winner = explanation.winner.as_ref().map(|winner| Arc::clone(&winner.route));
    if let Some(termination) = winner.as_ref().and_then(|route| route.spec.termination.as_ref()) {
        explanation.take_termination(termination);
    }
    explanation
}

/// A route's best claim to the name.
struct BestClaim<'t> {
    hostname: Hostname<&'t str>,
    route: &'t Arc<Route>,
    attachment: &'t Attachment,
}

impl BestClaim<'_> {
    /// Why this claim loses to the winner's. `None` if it should have won, which contradicts the lookup.
    fn lost(
        &self,
        query: &Query,
        listener: &str,
        winner: Option<&Winner>,
        owner: Option<&NameOwner<'_>>,
    ) -> Option<Lost> {
        let spec = &self.route.spec;
        if !self.attachment.is_to(listener.into()) {
            return Some(Lost::OtherListener(self.attachment.listeners.clone()));
        }
        if !self.attachment.has(self.hostname, listener) {
            return Some(Lost::AnyElsewhere);
        }
        if !spec.asks_for(|protocol| query.offers(protocol)) {
            return Some(Lost::AlpnNotOffered(spec.alpn.clone()));
        }
        let less_specific = winner.is_some_and(|winner| self.hostname < winner.claim.borrowed());
        if let Some(owner) = owner.filter(|owner| !less_specific && owner.keeps_out(self)) {
            let hostname = owner.hostname.owned();
            return Some(Lost::OtherNamespace { hostname, owner: owner.namespace.into() });
        }
        let winner = winner?;
        let other = &winner.route.spec;
        Some(if less_specific {
            Lost::LessSpecific
        } else if spec.alpn.is_empty() && !other.alpn.is_empty() {
            Lost::NoAlpn
        } else if spec.created != other.created {
            Lost::Younger
        } else {
            Lost::LaterName
        })
    }
}

/// The owner of the most specific claimed hostname that covers the name.
struct NameOwner<'t> {
    hostname: Hostname<&'t str>,
    namespace: &'t str,
}

impl<'t> NameOwner<'t> {
    /// `claims` must be sorted by hostname.
    fn of(claims: &[BestClaim<'t>]) -> Option<Self> {
        let hostname = claims.first()?.hostname;
        let same = claims.iter().take_while(|claim| claim.hostname == hostname);
        let oldest = same.min_by(|a, b| a.route.spec.age().cmp(&b.route.spec.age()))?;
        Some(NameOwner { hostname, namespace: oldest.route.spec.key.namespace() })
    }

    fn keeps_out(&self, claim: &BestClaim<'_>) -> bool {
        claim.hostname != self.hostname && claim.route.spec.key.namespace() != self.namespace
    }
}

impl Query {
    fn offers(&self, protocol: &[u8]) -> bool {
        self.protocols().any(|offered| offered == protocol)
    }

    /// The protocols that a lookup considers.
    fn protocols(&self) -> impl Iterator<Item = &[u8]> {
        self.alpn.iter().map(String::as_bytes).take(MOST_OFFERS)
    }
}

/// All routes that claim the name, starting with the best claim.
fn claims<'t>(table: &'t Table, name: Option<&str>) -> Vec<BestClaim<'t>> {
    let mut claims: Vec<BestClaim<'_>> = table
        .routes()
        .flat_map(|route| {
            let attachments = route.spec.in_scope(&Scope::Config);
            attachments.filter_map(move |attachment| {
                let covering = attachment.hostnames.iter().filter(|one| one.matches(name));
                Some(BestClaim { hostname: covering.max()?, route, attachment })
            })
        })
        .collect();
    claims.sort_by(|a, b| {
        let precedence = || b.route.spec.precedence().cmp(&a.route.spec.precedence());
        b.hostname.cmp(&a.hostname).then_with(precedence)
    });
    claims
}

/// A listener of the best claim that accepts the client's protocols. The empty name is a listener that no
/// route names.
fn best_listener<'t>(claims: &[BestClaim<'t>], query: &Query) -> &'t str {
    claims
        .iter()
        .map(|claim| {
            let listener = claim.attachment.listeners.first();
            (&claim.route.spec, listener.map_or("", |listener| &**listener))
        })
        .find(|(spec, _)| spec.asks_for(|protocol| query.offers(protocol)))
        .map_or("", |(_, listener)| listener)
}

fn winner(table: &Table, query: &Query, listener: &str) -> Option<Winner> {
    let name = query.name.as_deref();
    let found = table.lookup(name, listener, query.protocols())?;
    let claim = match found.kind {
        MatchKind::Exact => Hostname::Exact(name?.into()),
        MatchKind::Wildcard(suffix) => Hostname::Wildcard(suffix.into()),
        MatchKind::Any => Hostname::Any,
    };
    let alpn =
        found.route.spec.alpn.iter().find(|protocol| query.offers(protocol.as_bytes())).cloned();
    Some(Winner { route: Arc::clone(found.route), claim, alpn })
}

/// The listeners on which the answer differs from the one on `listener`.
fn elsewhere(
    table: &Table,
    query: &Query,
    claims: &[BestClaim<'_>],
    listener: &str,
) -> Vec<Elsewhere> {
    let winner_at = |listener: &str| {
        let found = table.lookup(query.name.as_deref(), listener, query.protocols())?;
        Some(found.route.spec.key.clone())
    };
    let here = winner_at(listener);
    let mentioned: BTreeSet<&str> = claims
        .iter()
        .flat_map(|claim| claim.attachment.listeners.iter().map(|listener| &**listener))
        .collect();
    mentioned
        .into_iter()
        .map(|listener| Elsewhere { listener: Some(listener.into()), winner: winner_at(listener) })
        .chain([Elsewhere { listener: None, winner: winner_at("") }])
        .filter(|there| there.winner != here)
        .collect()
}

fn bare_suffix(table: &Table, name: Option<&str>) -> Option<(RouteKey, Hostname)> {
    let wildcard = Hostname::Wildcard(name?.into());
    let claims = |route: &&Arc<Route>| {
        let mut attachments = route.spec.in_scope(&Scope::Config);
        attachments.any(|attachment| attachment.hostnames.contains(&wildcard))
    };
    let precedence =
        |a: &&Arc<Route>, b: &&Arc<Route>| a.spec.precedence().cmp(&b.spec.precedence());
    let route = table.routes().filter(claims).max_by(precedence)?;
    Some((route.spec.key.clone(), wildcard))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests;
