//! Version 1: a line of text (§2.1).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{ConnectionAddresses, Header, HeaderProgress, InvalidHeader, begins};

pub(super) const BEGIN: &[u8] = b"PROXY ";
/// The longest line, with its end.
const MOST_BYTES: usize = 107;

pub(super) fn read(received: &[u8]) -> HeaderProgress {
    match begins(received, BEGIN) {
        Some(true) => {}
        Some(false) => return HeaderProgress::Incomplete,
        None => return HeaderProgress::Other,
    }
    let within = received.get(..MOST_BYTES).unwrap_or(received);
    let Some(end) = within.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        let is_too_long = received.len() >= MOST_BYTES;
        return if is_too_long {
            HeaderProgress::Invalid(InvalidHeader::LineTooLong)
        } else {
            HeaderProgress::Incomplete
        };
    };
    let (line, end_of_line) = within.split_at(end);
    match begins(end_of_line, b"\r\n") {
        Some(true) => match fields(line) {
            Some(addresses) => {
                HeaderProgress::Header(Header { length: end + 2, addresses, unique_id: None })
            }
            None => HeaderProgress::Invalid(InvalidHeader::LineFields),
        },
        Some(false) if received.len() < MOST_BYTES => HeaderProgress::Incomplete,
        Some(false) => HeaderProgress::Invalid(InvalidHeader::LineTooLong),
        None => HeaderProgress::Invalid(InvalidHeader::LineEnd),
    }
}

/// The addresses of a line without its end, or none for `UNKNOWN`, whose other fields are ignored.
fn fields(line: &[u8]) -> Option<Option<ConnectionAddresses>> {
    let line = line.strip_prefix(BEGIN)?;
    let mut fields = line.split(|byte| *byte == b' ');
    let family = fields.next()?;
    if family == b"UNKNOWN" {
        return Some(None);
    }
    let (source, destination) = (fields.next()?, fields.next()?);
    let (source_port, destination_port) = (port(fields.next()?)?, port(fields.next()?)?);
    if fields.next().is_some() {
        return None;
    }
    let [source, destination] = match family {
        b"TCP4" => [ip::<Ipv4Addr>(source)?, ip::<Ipv4Addr>(destination)?],
        b"TCP6" => [ip::<Ipv6Addr>(source)?, ip::<Ipv6Addr>(destination)?],
        _ => return None,
    };
    Some(Some(ConnectionAddresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    }))
}

fn ip<T: FromStr + Into<IpAddr>>(text: &[u8]) -> Option<IpAddr> {
    let ip: T = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(ip.into().to_canonical())
}

/// A number without a sign, and without a zero before it.
fn port(text: &[u8]) -> Option<u16> {
    let is_number =
        text.iter().all(u8::is_ascii_digit) && (text == b"0" || !text.starts_with(b"0"));
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

pub(super) fn write(
    header: &mut Vec<u8>,
    ConnectionAddresses { source, destination }: ConnectionAddresses,
) {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (source_ip, destination_ip) = (text(source.ip()), text(destination.ip()));
    let mut line = String::with_capacity(MOST_BYTES);
    // To write to a String never fails.
    let _ = write!(
        line,
        "PROXY {family} {source_ip} {destination_ip} {} {}\r\n",
        source.port(),
        destination.port()
    );
    header.extend_from_slice(line.as_bytes());
}

/// An address in groups of hexadecimal digits, if it is one of IPv6 (§2.1). IPv4 in the form of IPv6 has another
/// usual text.
fn text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            let [.., high, low] = v6.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        _ => ip.to_string(),
    }
}
