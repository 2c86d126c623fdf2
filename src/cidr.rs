//! Networks as people write them: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network of IPv4 or IPv6 (RFC 4632 §3.1, RFC 4291 §2.3). An IPv4 address in the form of IPv6
/// (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2) counts as IPv4, in a network and in what is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    /// The first address of the network.
    address: IpAddr,
    /// Its length in bits, in the address's own family.
    prefix: u8,
}

/// Why a text is no network. The message quotes it and says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCidr {
    /// It has no address before the slash, or no number after it.
    #[error(
        "{0:?} is not a network; write an address and the length of its prefix, as in 10.0.0.0/8 \
         or 2001:db8::/32"
    )]
    Syntax(String),
    /// The prefix is longer than an address of this family.
    #[error("{text:?} has a prefix of more than {most} bits")]
    Prefix {
        /// What was written.
        text: String,
        /// The bits of an address.
        most: u8,
    },
    /// There are bits beyond the prefix, so that it is unclear which of the two is meant.
    #[error(
        "{text:?} has bits beyond its prefix; write {network}, or {address}/{most} for one address"
    )]
    HostBits {
        /// What was written.
        text: String,
        /// The network around it.
        network: Cidr,
        /// The address that was written.
        address: IpAddr,
        /// The bits of an address.
        most: u8,
    },
}

impl Cidr {
    /// The network of the first `prefix` bits of `address`; nothing if it has fewer.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        match address {
            IpAddr::V4(ip) => Some(Cidr {
                address: Ipv4Addr::from_bits(ip.to_bits() & mask_v4(prefix)?).into(),
                prefix,
            }),
            IpAddr::V6(ip) => {
                let network = Ipv6Addr::from_bits(ip.to_bits() & mask_v6(prefix)?);
                // Of a mapped network, the last 32 bits are IPv4's.
                Some(match (network.to_ipv4_mapped(), prefix.checked_sub(96)) {
                    (Some(ip), Some(prefix)) => Cidr { address: ip.into(), prefix },
                    _ => Cidr { address: network.into(), prefix },
                })
            }
        }
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.address
    }

    /// Whether it is a network of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The first and the last address, as numbers of its family.
    pub fn range(&self) -> (u128, u128) {
        let (first, bits) = match self.address {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
            IpAddr::V6(ip) => (ip.to_bits(), 128),
        };
        let rest = 1_u128.checked_shl(bits - u32::from(self.prefix)).map(|size| size - 1);
        (first, first | rest.unwrap_or(u128::MAX))
    }

    /// Whether `ip` is in it. Networks of one family have no address of the other.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                mask_v4(self.prefix).is_some_and(|mask| ip.to_bits() & mask == network.to_bits())
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                mask_v6(self.prefix).is_some_and(|mask| ip.to_bits() & mask == network.to_bits())
            }
            _ => false,
        }
    }
}

/// The first `prefix` of 32 bits; nothing if that is more than there are.
fn mask_v4(prefix: u8) -> Option<u32> {
    let rest = 32_u32.checked_sub(prefix.into())?;
    Some(u32::MAX.checked_shl(rest).unwrap_or(0))
}

fn mask_v6(prefix: u8) -> Option<u128> {
    let rest = 128_u32.checked_sub(prefix.into())?;
    Some(u128::MAX.checked_shl(rest).unwrap_or(0))
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    /// An address alone is the network that has nothing else.
    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let syntax = || InvalidCidr::Syntax(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let too_long = || InvalidCidr::Prefix { text: text.to_owned(), most };
        let prefix = match prefix {
            None => most,
            // No sign, and no zero before a number.
            Some(digits) if digits != "0" && !digits.starts_with(|c| matches!(c, '1'..='9')) => {
                return Err(syntax());
            }
            Some(digits) if !digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(syntax());
            }
            Some(digits) => digits.parse().map_err(|_| too_long())?,
        };
        let network = Cidr::new(address, prefix).ok_or_else(too_long)?;
        if network.address != address.to_canonical() {
            let text = text.to_owned();
            return Err(InvalidCidr::HostBits { text, network, address, most });
        }
        Ok(network)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_its_addresses_and_no_other() {
        for (network, within, without) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "ffff::", "10.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("fd00::1/128", "fd00::1", "fd00::2"),
            // The form of IPv6 of IPv4 is IPv4, on either side.
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "::a01:203"),
        ] {
            assert!(cidr(network).contains(within.parse().unwrap()), "{network} {within}");
            assert!(!cidr(network).contains(without.parse().unwrap()), "{network} {without}");
        }
    }

    #[test]
    fn it_reads_back_as_it_was_written() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(cidr(text).to_string(), shown);
            assert_eq!(cidr(shown), cidr(text));
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_to_write() {
        for (text, message) in [
            ("", "\"\" is not a network"),
            ("10.0.0.0/", "is not a network"),
            ("10.0.0.0/+8", "is not a network"),
            ("10.0.0.0/08", "is not a network"),
            ("10.0.0.0/8/8", "is not a network"),
            ("10.0.0/8", "is not a network"),
            ("example.com", "is not a network"),
            ("10.0.0.0/33", "has a prefix of more than 32 bits"),
            ("10.0.0.0/999", "has a prefix of more than 32 bits"),
            ("::/129", "has a prefix of more than 128 bits"),
            ("10.0.0.1/8", "write 10.0.0.0/8, or 10.0.0.1/32 for one address"),
            ("fd00::1/8", "write fd00::/8, or fd00::1/128 for one address"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
