//! Which addresses are this machine's, as its kernel has it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ahash::AHashMap as HashMap;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Socket, Type};

/// How many addresses are remembered to be this machine's or not, and for how long: an address may
/// move to another machine.
const MOST: usize = 4096;
const REMEMBERED_FOR: Duration = Duration::from_secs(10);

/// Asks the kernel which addresses are this machine's, and remembers the answers for ten seconds.
///
/// Its only descriptor is opened when it is made, so that it can ask when there are none left. What
/// the kernel does not answer counts as this machine's, and is asked again the next time.
#[derive(Debug)]
pub struct Machine {
    /// Missing where netlink is not to be had: then each question takes a socket.
    routes: Option<RouteSocket>,
    known: RefCell<HashMap<IpAddr, bool>>,
    known_until: Cell<Instant>,
}

impl Machine {
    /// Needs one descriptor, and does without where the system gives no netlink socket.
    pub fn new() -> Self {
        Machine {
            routes: RouteSocket::open().ok(),
            known: RefCell::default(),
            known_until: Cell::new(Instant::now()),
        }
    }

    /// Whether what is sent to `ip` stays on this machine.
    pub fn has(&self, ip: IpAddr) -> bool {
        if ip.is_loopback() || ip.is_unspecified() {
            return true;
        }
        let mut known = self.known.borrow_mut();
        let now = Instant::now();
        if known.len() >= MOST || now >= self.known_until.get() {
            known.clear();
            self.known_until.set(now + REMEMBERED_FOR);
        }
        if let Some(answer) = known.get(&ip) {
            return *answer;
        }
        let asked = match &self.routes {
            Some(routes) => routes.is_local(ip),
            None => ask_by_socket(ip),
        };
        match asked {
            Ok(answer) => {
                known.insert(ip, answer);
                answer
            }
            Err(error) => {
                tracing::debug!(%ip, %error, "the kernel does not say whose address this is");
                true
            }
        }
    }
}

/// The addresses of this machine's interfaces.
///
/// # Errors
/// When the kernel gives no netlink socket, or no answer.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let RouteSocket { socket, .. } = RouteSocket::open()?;
    let length = (HEADER + 8) as u32;
    let mut question = length.to_ne_bytes().to_vec();
    question.extend(RTM_GETADDR.to_ne_bytes());
    question.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    question.resize(length as usize, 0);
    send(&socket, &question, SendFlags::empty())?;
    let mut found = Vec::new();
    let mut answer = vec![0; 64 * 1024];
    loop {
        let (length, _) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
        let mut rest = answer.get(..length).unwrap_or_default();
        while let Some((kind, message, next)) = split_message(rest) {
            match kind {
                RTM_NEWADDR => found.extend(address_in(message)),
                NLMSG_DONE => return Ok(found),
                _ => return Err(io::Error::other("no answer about addresses")),
            }
            rest = next;
        }
    }
}

/// The kind and the content of the first of several messages, and the others.
fn split_message(messages: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32_at(messages, 0)? as usize;
    let kind = u16_at(messages, 4)?;
    let message = messages.get(HEADER..length)?;
    Some((kind, message, messages.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The address of an interface. Of a link between two, the local end is `IFA_LOCAL`.
fn address_in(message: &[u8]) -> Option<IpAddr> {
    let mut rest = message.get(8..)?;
    let mut address = None;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let Some(value) = rest.get(ATTRIBUTE..length.into()) else { break };
        let ip = <[u8; 4]>::try_from(value).map(IpAddr::from);
        let ip = ip.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok();
        match kind {
            IFA_LOCAL => address = ip.or(address),
            IFA_ADDRESS => address = address.or(ip),
            _ => {}
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    address
}

impl Default for Machine {
    fn default() -> Self {
        Machine::new()
    }
}

/// A netlink socket (RFC 3549) for questions to the kernel's routing: where would a packet to this
/// address go? So every local route counts, not only the addresses of interfaces.
#[derive(Debug)]
struct RouteSocket {
    socket: OwnedFd,
    /// The number of the last question.
    sequence: Cell<u32>,
}

// <linux/netlink.h>, <linux/rtnetlink.h>.
const AF_NETLINK: i32 = 16;
const NETLINK_ROUTE: i32 = 0;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// There is no way there, or one that is barred: none that ends here.
const NOWHERE: [Errno; 4] = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL];
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct rtmsg`.
const ROUTE: usize = 12;
/// `struct rtattr`.
const ATTRIBUTE: usize = 4;

impl RouteSocket {
    fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(NETLINK_ROUTE.into()))?;
        Ok(RouteSocket { socket: socket.into(), sequence: Cell::new(0) })
    }

    fn is_local(&self, ip: IpAddr) -> io::Result<bool> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        send(&self.socket, &question(ip, sequence), SendFlags::empty())?;
        let mut answer = [0; 4096];
        loop {
            // The kernel has answered before `send` returns.
            let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::DONTWAIT)?;
            let answer = answer.get(..length).unwrap_or_default();
            if u32_at(answer, 8) == Some(sequence) {
                return answered(answer);
            }
            // An answer to an earlier question, which came too late for it.
        }
    }
}

/// The message that asks for the route to `ip`.
fn question(ip: IpAddr, sequence: u32) -> Vec<u8> {
    let (family, octets) = match ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let attribute = (ATTRIBUTE + octets.len()) as u16;
    let length = (HEADER + ROUTE) as u32 + u32::from(attribute);
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(RTM_GETROUTE.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([family, octets.len() as u8 * 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(attribute.to_ne_bytes());
    message.extend(RTA_DST.to_ne_bytes());
    message.extend(octets);
    message
}

/// What the kernel's answer comes to.
fn answered(answer: &[u8]) -> io::Result<bool> {
    match u16_at(answer, 4) {
        Some(RTM_NEWROUTE) => match answer.get(HEADER + 7) {
            Some(&kind) => Ok(matches!(kind, RTN_LOCAL | RTN_BROADCAST)),
            None => Err(io::Error::other("a route that is cut off")),
        },
        Some(NLMSG_ERROR) => {
            let error = u32_at(answer, HEADER).unwrap_or_default().cast_signed().wrapping_neg();
            unless(Err(io::Error::from_raw_os_error(error)), &NOWHERE)
        }
        _ => Err(io::Error::other("no answer about a route")),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Asks by what the kernel does with a socket. Whether an address can be bound does not tell: all
/// can be, where `net.ipv4.ip_nonlocal_bind` is set.
fn ask_by_socket(ip: IpAddr) -> io::Result<bool> {
    match ip {
        // Multicast is sent from an address of this machine, and no other is taken.
        IpAddr::V4(ip) => {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            unless(socket.set_multicast_if_v4(&ip).map(|()| true), &[Errno::ADDRNOTAVAIL])
        }
        // What is sent to an address of this machine is sent from the same (RFC 6724 §5, rule 1).
        IpAddr::V6(_) => {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            let connected = socket.connect(SocketAddr::new(ip, 9));
            unless(connected.and_then(|()| Ok(socket.local_addr()?.ip() == ip)), &NOWHERE)
        }
    }
}

/// What was asked; that it is not so, if one of these errors is the answer. Any other is none.
fn unless(asked: io::Result<bool>, says_no: &[Errno]) -> io::Result<bool> {
    let no = |error: &io::Error| says_no.iter().any(|no| Errno::from_io_error(error) == Some(*no));
    match asked {
        Err(error) if no(&error) => Ok(false),
        asked => asked,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_its_own_addresses() {
        let routes = RouteSocket::open().unwrap();
        for ip in ["127.0.0.1", "127.1.2.3", "::1"] {
            assert!(routes.is_local(ip.parse().unwrap()).unwrap(), "{ip}");
            assert!(ask_by_socket(ip.parse().unwrap()).is_ok(), "{ip}");
        }
        let all = addresses().unwrap();
        for ip in &all {
            assert!(routes.is_local(*ip).unwrap(), "{ip}");
        }
        for ip in ["198.51.100.1", "2001:db8::1", "169.254.1.1"] {
            assert!(!routes.is_local(ip.parse().unwrap()).unwrap(), "{ip}");
        }
        assert!(ask_by_socket("127.0.0.1".parse().unwrap()).unwrap());
        assert!(!ask_by_socket("198.51.100.1".parse().unwrap()).unwrap());
    }

    #[test]
    fn what_cannot_be_asked_counts_as_this_machines_and_is_asked_again() {
        let socket = std::fs::File::open("/dev/null").unwrap().into();
        let broken = RouteSocket { socket, sequence: Cell::new(0) };
        let mut machine = Machine { routes: Some(broken), ..Machine::new() };
        let elsewhere = "198.51.100.1".parse().unwrap();
        assert!(machine.has(elsewhere));
        machine.routes = Some(RouteSocket::open().unwrap());
        assert!(!machine.has(elsewhere));
    }

    /// A kernel that is out of memory, or a filter of system calls, does not say "no".
    #[test]
    fn no_other_error_than_the_one_that_says_so_is_a_no() {
        let failed = |errno: Errno| unless(Err(errno.into()), &[Errno::ADDRNOTAVAIL]);
        assert!(!failed(Errno::ADDRNOTAVAIL).unwrap());
        for errno in [Errno::NOMEM, Errno::NOBUFS, Errno::PERM, Errno::NOSYS, Errno::INVAL] {
            assert!(failed(errno).is_err(), "{errno}");
        }
        for answer in [true, false] {
            assert_eq!(unless(Ok(answer), &NOWHERE).unwrap(), answer);
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_an_error() {
        let header = |kind: u16| {
            let mut answer = vec![0; HEADER];
            answer[4..6].copy_from_slice(&kind.to_ne_bytes());
            answer
        };
        for answer in [vec![], vec![0; 3], header(0), header(RTM_NEWROUTE), header(NLMSG_ERROR)] {
            assert!(answered(&answer).is_err(), "{answer:?}");
        }
        let mut out_of_memory = header(NLMSG_ERROR);
        out_of_memory.extend((-12_i32).to_ne_bytes());
        assert!(answered(&out_of_memory).is_err());
        let mut unreachable = header(NLMSG_ERROR);
        unreachable.extend((-101_i32).to_ne_bytes());
        assert!(!answered(&unreachable).unwrap());
    }
}
