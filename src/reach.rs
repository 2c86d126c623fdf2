//! Where routes may lead: one judgement of an endpoint, whatever it came from.
//!
//! The control plane asks it when it resolves a backend, so that a route is told in its status, and
//! the data plane asks it again before each attempt to connect: a table that was saved, an address
//! that has moved and a Service that came a moment ago meet the same answer.

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::cidr::Cidr;

/// An address that this process listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Where. An unspecified address is every address of this machine.
    pub address: SocketAddr,
    /// Whether `[::]` takes IPv4 as well.
    pub dual_stack: bool,
}

/// Where this process listens at any time: for clients, and for those who look after it. The data
/// plane sets it, and the control plane reads it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct ListeningSet(Arc<ArcSwap<Vec<Listening>>>);

impl ListeningSet {
    /// All of this moment. Not to be held across an await.
    pub fn get(&self) -> Guard<Arc<Vec<Listening>>> {
        self.0.load()
    }

    /// Others from now on.
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

    /// Others from now on.
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

/// An address, in IPv4 if it is mapped from there, and each IPv4 address that it may stand for where
/// a translator or a tunnel is.
pub fn forms(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let ip = ip.to_canonical();
    let embedded = match ip {
        IpAddr::V4(_) => [None; 11],
        IpAddr::V6(ip) => embedded(ip),
    };
    std::iter::once(ip).chain(embedded.into_iter().flatten().map(IpAddr::V4))
}

/// The well-known prefix of NAT64 (RFC 6052 §2.1).
const NAT64: u128 = 0x0064_ff9b << 96;
/// That of networks of one's own choice (RFC 8215): 48 bits, and a prefix of any length below it.
const NAT64_LOCAL: u128 = 0x0064_ff9b_0001 << 80;

/// The IPv4 addresses in an IPv6 address that is not IPv4 in its form, by each way in which it may
/// have one.
fn embedded(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 11] {
    let bits = ip.to_bits();
    let low = Ipv4Addr::from_bits(bits as u32);
    // By the prefixes of RFC 6052 §2.2, of which bits 64 to 71 are no part.
    let local = |prefix: u32| {
        let ip = Ipv4Addr::from_bits(match prefix {
            48 => (bits >> 64 << 16 | bits >> 40 & 0xffff) as u32,
            56 => (bits >> 64 << 24 | bits >> 32 & 0xff_ffff) as u32,
            64 => (bits >> 24) as u32,
            _ => bits as u32,
        });
        // Read by the length of another prefix, most are in 0.0.0.0/8.
        (bits >> 80 == NAT64_LOCAL >> 80 && ip.octets()[0] != 0).then_some(ip)
    };
    let six_to_four = Ipv4Addr::from_bits((bits >> 80) as u32);
    let teredo = |ip: u32| (bits >> 96 == 0x2001_0000).then(|| Ipv4Addr::from_bits(ip));
    let interface = (bits >> 32) as u32;
    [
        // ::a.b.c.d (RFC 4291 §2.5.5.1), but for :: and ::1.
        (bits >> 32 == 0 && bits > 1).then_some(low),
        (bits >> 32 == NAT64 >> 32).then_some(low),
        local(48),
        local(56),
        local(64),
        local(96),
        // RFC 3056 §2.
        (bits >> 112 == 0x2002).then_some(six_to_four),
        // ::ffff:0:a.b.c.d, of translators without a prefix (RFC 2765 §2.1).
        (bits >> 32 == 0xffff_0000).then_some(low),
        // A client's address, which is inverted, and its server's (RFC 4380 §4).
        teredo(!(bits as u32)),
        teredo((bits >> 64) as u32),
        // In any network (RFC 5214 §6.1), of a private address and of a public one.
        matches!(interface, 0x5efe | 0x0200_5efe).then_some(low),
    ]
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
mod tests {
    use super::*;

    fn judge(reach: &Reach, endpoint: &str) -> Result<(), EndpointRefusal> {
        reach.judge(endpoint.parse().unwrap(), &HashSet::new(), |_| false)
    }

    #[test]
    fn no_form_of_a_forbidden_address_is_taken() {
        let reach = Reach::default();
        for (v4, refusal) in [
            ("127.0.0.1", EndpointRefusal::Local),
            ("127.255.0.9", EndpointRefusal::Local),
            ("169.254.1.1", EndpointRefusal::Local),
            ("224.0.0.1", EndpointRefusal::Local),
            ("255.255.255.255", EndpointRefusal::Local),
            ("169.254.169.254", EndpointRefusal::Metadata),
            ("169.254.170.23", EndpointRefusal::Metadata),
            ("168.63.129.16", EndpointRefusal::Metadata),
            ("100.100.100.200", EndpointRefusal::Metadata),
            ("192.0.0.192", EndpointRefusal::Metadata),
        ] {
            assert_eq!(judge(&reach, &format!("{v4}:443")), Err(refusal), "{v4}");
            for form in all_forms(v4.parse().unwrap()) {
                assert_eq!(judge(&reach, &format!("[{form}]:443")), Err(refusal), "{form}");
            }
        }
        for (ip, refusal) in [
            ("0.0.0.0", EndpointRefusal::Local),
            ("0.1.2.3", EndpointRefusal::Local),
            ("::ffff:0.1.2.3", EndpointRefusal::Local),
            ("64:ff9b::0.1.2.3", EndpointRefusal::Local),
            ("::", EndpointRefusal::Local),
            ("::1", EndpointRefusal::Local),
            ("fe80::1", EndpointRefusal::Local),
            ("febf::1", EndpointRefusal::Local),
            ("ff02::1", EndpointRefusal::Local),
            ("fd00:ec2::254", EndpointRefusal::Metadata),
            ("fd00:ec2::23", EndpointRefusal::Metadata),
            ("fd20:ce::254", EndpointRefusal::Metadata),
        ] {
            let endpoint = SocketAddr::new(ip.parse().unwrap(), 443).to_string();
            assert_eq!(judge(&reach, &endpoint), Err(refusal), "{ip}");
        }
    }

    /// Mapped, compatible, NAT64 by the well-known prefix and by each length of a local one, 6to4,
    /// translated, Teredo of the client and of the server, ISATAP.
    fn all_forms(ip: Ipv4Addr) -> Vec<Ipv6Addr> {
        let bits = u128::from(ip.to_bits());
        let (high, low) = (bits >> 16, bits & 0xffff);
        [
            0xffff << 32 | bits,
            bits,
            NAT64 | bits,
            NAT64_LOCAL | bits,
            NAT64_LOCAL | 0x7_u128 << 32 | bits,
            NAT64_LOCAL | high << 64 | low << 40,
            NAT64_LOCAL | 0x7_u128 << 72 | bits >> 24 << 64 | (bits & 0xff_ffff) << 32,
            NAT64_LOCAL | 0x7_u128 << 64 | bits << 24,
            0x2002 << 112 | bits << 80 | 1,
            0xffff_0000 << 32 | bits,
            0x2001_0000 << 96 | 0x0a00_0001 << 64 | !bits & 0xffff_ffff,
            0x2001_0000 << 96 | bits << 64 | 0xf5ff_fffe,
            0xfe80 << 112 | 0x5efe << 32 | bits,
            0x2001_0db8 << 96 | 0x0200_5efe << 32 | bits,
        ]
        .map(Ipv6Addr::from_bits)
        .to_vec()
    }

    #[test]
    fn what_only_looks_like_one_is_taken() {
        let reach = Reach::default();
        for endpoint in [
            "10.0.0.1:443",
            "1.0.0.0:443",
            "169.253.1.1:443",
            "[fd00:ec2::255]:443",
            "[64:ff9b::10.0.0.1]:443",
            "[64:ff9b:1::10.0.0.1]:443",
            "[64:ff9b:2::127.0.0.1]:443",
            "[::ffff:10.0.0.1]:443",
            "[2001:db8::7f00:1]:443",
            "[2002:a00:1::1]:443",
            "[::ffff:0:10.0.0.1]:443",
            "[2001:0:a00:1::f5ff:fffe]:443",
            "[2001:1:7f00:1::80ff:fffe]:443",
            "[2001:db8::5efe:10.0.0.1]:443",
            "[2001:db8::100:5efe:127.0.0.1]:443",
        ] {
            assert_eq!(judge(&reach, endpoint), Ok(()), "{endpoint}");
        }
    }

    #[test]
    fn who_writes_files_may_lead_to_the_machine() {
        let files = Reach { local_addresses: true, ..Reach::default() };
        for endpoint in ["127.0.0.1:443", "169.254.169.254:80", "[::1]:443", "0.0.0.0:443"] {
            assert_eq!(judge(&files, endpoint), Ok(()), "{endpoint}");
        }
    }

    fn cidrs(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn deny_wins_and_an_empty_allow_is_all() {
        let deny = cidrs(&["10.9.0.0/16", "fd09::/16"]);
        let reach = Reach { deny: deny.clone(), local_addresses: true, ..Reach::default() };
        assert_eq!(judge(&reach, "10.8.0.1:1"), Ok(()));
        assert_eq!(judge(&reach, "10.9.0.1:1"), Err(EndpointRefusal::Denied(deny[0])));
        assert_eq!(judge(&reach, "[fd09::1]:1"), Err(EndpointRefusal::Denied(deny[1])));
        // In whatever form it is written.
        for form in all_forms([10, 9, 0, 1].into()) {
            let denied = judge(&reach, &format!("[{form}]:1"));
            assert_eq!(denied, Err(EndpointRefusal::Denied(deny[0])), "{form}");
        }
        let reach = Reach { allow: cidrs(&["10.0.0.0/8"]), ..reach };
        assert_eq!(judge(&reach, "10.8.0.1:1"), Ok(()));
        assert_eq!(judge(&reach, "[::ffff:10.8.0.1]:1"), Ok(()));
        assert_eq!(judge(&reach, "10.9.0.1:1"), Err(EndpointRefusal::Denied(deny[0])));
        assert_eq!(judge(&reach, "11.0.0.1:1"), Err(EndpointRefusal::NotAllowed));
        assert_eq!(judge(&reach, "[fd08::1]:1"), Err(EndpointRefusal::NotAllowed));
        // What a route from Kubernetes may never have is not to be allowed.
        let reach = Reach { allow: cidrs(&["0.0.0.0/0"]), ..Reach::default() };
        assert_eq!(judge(&reach, "169.254.169.254:80"), Err(EndpointRefusal::Metadata));
        assert_eq!(judge(&reach, "127.0.0.1:80"), Err(EndpointRefusal::Local));
    }

    #[test]
    fn own_ports_are_refused_on_own_addresses_alone() {
        let listening =
            |address: &str, dual_stack| Listening { address: address.parse().unwrap(), dual_stack };
        let mut reach = Reach {
            local_addresses: true,
            listening: ListeningSet::from_iter([
                listening("0.0.0.0:8443", false),
                listening("[::]:9901", true),
                listening("[::]:7443", false),
                listening("127.0.0.1:6443", false),
            ]),
            allow: cidrs(&["0.0.0.0/0", "::/0"]),
            ..Reach::default()
        };
        let machine = ["192.0.2.1", "fd00::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let judge = |reach: &Reach, endpoint: &str| {
            let endpoint = endpoint.parse().unwrap();
            reach.judge(endpoint, &HashSet::new(), |ip| machine.contains(&ip))
        };
        for local_addresses in [true, false] {
            reach.local_addresses = local_addresses;
            for own in [
                "192.0.2.1:8443",
                "127.0.0.1:8443",
                "127.9.9.9:8443",
                "0.0.0.0:8443",
                "[::ffff:192.0.2.1]:8443",
                "[64:ff9b::192.0.2.1]:8443",
                "192.0.2.1:9901",
                "127.0.0.1:9901",
                "[fd00::1]:9901",
                "[::1]:9901",
                "[fd00::1]:7443",
                "127.0.0.1:6443",
                "0.0.0.0:6443",
            ] {
                assert_eq!(judge(&reach, own), Err(EndpointRefusal::OwnPort), "{own}");
            }
        }
        reach.local_addresses = true;
        for other in [
            "192.0.2.2:8443",
            "192.0.2.1:8444",
            "[fd00::1]:8443",
            "192.0.2.1:7443",
            "192.0.2.1:6443",
            "127.0.0.2:6443",
        ] {
            assert_eq!(judge(&reach, other), Ok(()), "{other}");
        }
    }

    #[test]
    fn what_leads_to_the_installation_is_refused_in_every_form() {
        let own = HashSet::from(["10.0.0.7:8443".parse().unwrap()]);
        let reach = Reach::default();
        for endpoint in ["10.0.0.7:8443", "[::ffff:10.0.0.7]:8443", "[64:ff9b::10.0.0.7]:8443"] {
            let judged = reach.judge(endpoint.parse().unwrap(), &own, |_| false);
            assert_eq!(judged, Err(EndpointRefusal::OwnService), "{endpoint}");
        }
        let other = reach.judge("10.0.0.7:443".parse().unwrap(), &own, |_| false);
        assert_eq!(other, Ok(()));
    }
}
