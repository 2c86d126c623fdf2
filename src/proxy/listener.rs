//! A listener of the data plane.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{self, OtherPeers, Protocol, ProxyProtocolIn, TrustedPeers};
use crate::limiter::{LimitSet, Limiter};
use crate::policy::{Access, AccessList};
use crate::routing::{ListenerRef, Scope};

/// A listener: a name, a protocol and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The scope of its hostnames.
    pub scope: Scope,
    /// Its name in the scope, as routes use it.
    pub name: String,
    /// The protocol of its clients.
    pub protocol: Protocol,
    /// Whether a refused connection gets a TLS alert before it is closed.
    pub alerts: bool,
    /// The clients that it admits.
    pub access: Arc<AccessList>,
    /// The limits on its connections.
    pub limits: Option<LimitSet>,
    /// The proxies whose PROXY headers it reads.
    pub proxies: Option<Arc<Proxies>>,
    /// The address that all its clients connect to. `None` if the bind has several.
    pub(super) local: Option<SocketAddr>,
    /// Counts its connections, over all its binds. `None` before it is served.
    pub(super) limiter: Option<Arc<Limiter>>,
}

/// The proxies that tell a listener who their clients are.
#[derive(Debug, PartialEq, Eq)]
pub struct Proxies {
    from: AccessList,
    trusted: TrustedPeers,
    others: OtherPeers,
}

/// What a listener reads from a peer before the client's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerRole {
    /// Nothing: the peer is the client.
    Client,
    /// A PROXY header.
    Proxy,
    /// A PROXY header, if there is one.
    ProxyOrClient,
    /// Nothing: the peer is refused.
    Refused,
}

/// The id of a bind, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BindId(pub(super) u64);

impl Listener {
    /// A listener of the configuration.
    pub fn of(config: &config::ListenerConfig) -> Self {
        Listener {
            scope: Scope::Config,
            name: config.name.clone(),
            protocol: config.protocol,
            alerts: config.alerts,
            access: Arc::new(AccessList::of([&config.access])),
            proxies: config.proxy_protocol.as_ref().map(|proxies| Arc::new(Proxies::of(proxies))),
            limits: LimitSet::of(&config.limits),
            local: None,
            limiter: None,
        }
    }

    /// The listener in the form for lookups.
    pub fn reference(&self) -> ListenerRef<'_> {
        ListenerRef { scope: &self.scope, name: &self.name }
    }

    /// The listener of a bind at this address, whose connections `limiter` counts.
    pub(super) fn at(&self, bind: SocketAddr, limiter: Arc<Limiter>) -> Self {
        let local = Some(bind).filter(|bind| !bind.ip().is_unspecified());
        Listener { local, limiter: Some(limiter), ..self.clone() }
    }

    /// What it reads from a peer.
    pub(super) fn role_of(&self, peer: IpAddr) -> PeerRole {
        let Some(proxies) = &self.proxies else { return PeerRole::Client };
        match (proxies.from.admits(peer), proxies.trusted, proxies.others) {
            (true, TrustedPeers::Require, _) => PeerRole::Proxy,
            (true, TrustedPeers::Accept, _) => PeerRole::ProxyOrClient,
            (false, _, OtherPeers::Plain) => PeerRole::Client,
            (false, _, OtherPeers::Refuse) => PeerRole::Refused,
        }
    }
}

impl Proxies {
    fn of(config: &ProxyProtocolIn) -> Self {
        let from = Access { allow: config.from.clone().into(), ..Access::default() };
        let (trusted, others) = (config.trusted, config.others);
        Proxies { from: AccessList::of([&from]), trusted, others }
    }
}
