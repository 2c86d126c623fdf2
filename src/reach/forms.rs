//! The forms of an address: IPv6 addresses that stand for IPv4 ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
pub(super) const NAT64: u128 = 0x0064_ff9b << 96;
/// That of networks of one's own choice (RFC 8215): 48 bits, and a prefix of any length below it.
pub(super) const NAT64_LOCAL: u128 = 0x0064_ff9b_0001 << 80;

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
