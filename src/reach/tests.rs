use super::forms::{NAT64, NAT64_LOCAL};
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
