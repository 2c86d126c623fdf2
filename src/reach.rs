//! Where routes may lead: one judgement of an endpoint, whatever it came from.
//!
//! The control plane asks it when it resolves a backend, so that a route is told in its status, and
//! the data plane asks it again before each attempt to connect: a table that was saved, an address
//! that has moved and a Service that came a moment ago meet the same answer.

mod forms;

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

pub use self::forms::forms;
use crate::cidr::Cidr;

/// An address that this process listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Where. An unspecified address is every address of this machine.
    pub address: SocketAddr,
    /// Whether `[::]` takes IPv4 as well.
    pub dual_stack: bool,
}

/// All addresses on which this process listens now, for clients and for the admin port. The data plane sets
/// them, and the control plane reads them. Clones share the set.
#[derive(Clone, Debug, Default)]
pub struct ListeningSet(Arc<ArcSwap<Vec<Listening>>>);

impl ListeningSet {
    /// The current addresses. The guard must not be held across an `await`.
    pub fn get(&self) -> Guard<Arc<Vec<Listening>>> {
        self.0.load()
    }

    /// Replaces the addresses.
    pub fn set(&self, listening: impl Iterator<Item = Listening>) {
        self.0.store(Arc::new(listening.collect()));
    }
}

impl FromIterator<Listening> for ListeningSet {
    fn from_iter<I: IntoIterator<Item = Listening>>(listening: I) -> Self {
        let set = ListeningSet::default();
        set.set(listening.into_iter());
        set
    }
}

/// What endpoints may be. But for `listening`, it never changes while sluice runs.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Whether routes may lead to this machine itself, to its link and to the metadata services of
    /// clouds, as they may where those who write routes run sluice, too.
    pub local_addresses: bool,
    /// The networks that endpoints may be in; any if there are none.
    pub allow: Vec<Cidr>,
    /// The networks that they may not be in, even if they are in one of `allow`.
    pub deny: Vec<Cidr>,
    /// Where this process listens.
    pub listening: ListeningSet,
}

/// The addresses of the installation's own Services: of their pods, and those that lead to them. The
/// control plane sets what the data plane reads, for each connection, and so with a quick hash.
/// Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct OwnEndpoints(Arc<ArcSwap<HashSet<SocketAddr, ahash::RandomState>>>);

impl OwnEndpoints {
    /// Those of this moment. Not to be held across an await.
    pub fn get(&self) -> Guard<Arc<HashSet<SocketAddr, ahash::RandomState>>> {
        self.0.load()
    }

    /// Replaces the addresses.
    pub fn set(&self, endpoints: &HashSet<SocketAddr>) {
        self.0.store(Arc::new(endpoints.iter().copied().collect()));
    }
}

/// Why an endpoint is refused. Shown as the rest of a sentence that begins with its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointRefusal {
    /// This process listens there.
    OwnPort,
    /// It leads to the installation itself, by one of its own Services.
    OwnService,
    /// It is this machine's, or of its link alone, or of no machine at all.
    Local,
    /// It is the metadata service of a cloud.
    Metadata,
    /// It is in this network of `deny`.
    Denied(Cidr),
    /// It is in no network of `allow`.
    NotAllowed,
}

/// A [`EndpointRefusal`], whatever network it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndpointRefusalKind {
    /// [`EndpointRefusal::OwnPort`].
    OwnPort,
    /// [`EndpointRefusal::OwnService`].
    OwnService,
    /// [`EndpointRefusal::Local`].
    Local,
    /// [`EndpointRefusal::Metadata`].
    Metadata,
    /// [`EndpointRefusal::Denied`].
    Denied,
    /// [`EndpointRefusal::NotAllowed`].
    NotAllowed,
}

impl EndpointRefusalKind {
    /// The label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            EndpointRefusalKind::OwnPort => "own_port",
            EndpointRefusalKind::OwnService => "own_service",
            EndpointRefusalKind::Local => "local",
            EndpointRefusalKind::Metadata => "metadata",
            EndpointRefusalKind::Denied => "denied",
            EndpointRefusalKind::NotAllowed => "not_allowed",
        }
    }
}

impl EndpointRefusal {
    /// All kinds, each at the index that `as usize` gives it.
    pub const KINDS: [EndpointRefusalKind; 6] = [
        EndpointRefusalKind::OwnPort,
        EndpointRefusalKind::OwnService,
        EndpointRefusalKind::Local,
        EndpointRefusalKind::Metadata,
        EndpointRefusalKind::Denied,
        EndpointRefusalKind::NotAllowed,
    ];

    /// Which it is.
    pub fn kind(self) -> EndpointRefusalKind {
        match self {
            EndpointRefusal::OwnPort => EndpointRefusalKind::OwnPort,
            EndpointRefusal::OwnService => EndpointRefusalKind::OwnService,
            EndpointRefusal::Local => EndpointRefusalKind::Local,
            EndpointRefusal::Metadata => EndpointRefusalKind::Metadata,
            EndpointRefusal::Denied(_) => EndpointRefusalKind::Denied,
            EndpointRefusal::NotAllowed => EndpointRefusalKind::NotAllowed,
        }
    }

    /// Whether the endpoint is sluice itself, in this process or another of the installation.
    pub fn is_own(self) -> bool {
        matches!(self, EndpointRefusal::OwnPort | EndpointRefusal::OwnService)
    }
}

impl fmt::Display for EndpointRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointRefusal::OwnPort => f.write_str("is sluice itself, which listens there"),
            EndpointRefusal::OwnService => f.write_str("leads to sluice itself"),
            EndpointRefusal::Local => f.write_str("is local to the machine that sluice runs on"),
            EndpointRefusal::Metadata => f.write_str("is the metadata service of a cloud"),
            EndpointRefusal::Denied(network) => {
                write!(f, "is in {network}, which addresses.deny of this installation has")
            }
            EndpointRefusal::NotAllowed => {
                f.write_str("is in no network of addresses.allow of this installation")
            }
        }
    }
}

impl Reach {
    /// Judges an endpoint. `own` has the addresses of the installation's Services;
    /// `is_of_this_machine` is asked only about endpoints at a port that this process listens on.
    ///
    /// # Errors
    /// Why nothing may connect there.
    pub fn judge(
        &self,
        endpoint: SocketAddr,
        own: &HashSet<SocketAddr, impl BuildHasher>,
        is_of_this_machine: impl Fn(IpAddr) -> bool,
    ) -> Result<(), EndpointRefusal> {
        let port = endpoint.port();
        let ip = endpoint.ip().to_canonical();
        let listening = self.listening.get();
        for listening in listening.iter().filter(|listening| listening.address.port() == port) {
            if forms(ip).any(|ip| listening.is_at(ip, &is_of_this_machine)) {
                return Err(EndpointRefusal::OwnPort);
            }
        }
        if !own.is_empty() && forms(ip).any(|ip| own.contains(&SocketAddr::new(ip, port))) {
            return Err(EndpointRefusal::OwnService);
        }
        if !self.local_addresses {
            if forms(ip).any(is_metadata_service) {
                return Err(EndpointRefusal::Metadata);
            }
            if forms(ip).any(is_local) {
                return Err(EndpointRefusal::Local);
            }
        }
        let denied = |network: &&Cidr| forms(ip).any(|ip| network.contains(ip));
        if let Some(network) = self.deny.iter().find(denied) {
            return Err(EndpointRefusal::Denied(*network));
        }
        match self.allow.is_empty() || self.allow.iter().any(|network| network.contains(ip)) {
            true => Ok(()),
            false => Err(EndpointRefusal::NotAllowed),
        }
    }
}

impl Listening {
    fn is_at(&self, ip: IpAddr, is_of_this_machine: &impl Fn(IpAddr) -> bool) -> bool {
        let here = self.address.ip();
        // What connects to the unspecified address comes to this machine by loopback.
        if ip.is_unspecified() {
            return here.is_unspecified() || here.is_loopback();
        }
        if !here.is_unspecified() {
            return here.to_canonical() == ip;
        }
        (here.is_ipv4() == ip.is_ipv4() || self.dual_stack)
            && (ip.is_loopback() || is_of_this_machine(ip))
    }
}

/// The metadata services that are not on the link.
const METADATA_SERVICES: [IpAddr; 6] = [
    // Amazon's by IPv6, and the one that gives pods of EKS their identity.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    // Google's by IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Azure's, Alibaba's, Oracle's.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Those of the link, of most clouds: instances, tasks, and the identity of pods.
const ON_THE_LINK: [Ipv4Addr; 3] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
];

fn is_metadata_service(ip: IpAddr) -> bool {
    METADATA_SERVICES.contains(&ip) || matches!(ip, IpAddr::V4(ip) if ON_THE_LINK.contains(&ip))
}

/// Whether an address leads to this machine itself, to what only its link knows, or to no machine.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                // "This network" (RFC 6890 §2.2.2), which Linux takes for this machine.
                || ip.octets()[0] == 0
                || ip.is_multicast()
                || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
