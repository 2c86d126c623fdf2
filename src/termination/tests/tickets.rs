//! Sessions that are resumed.

use super::*;

#[test]
fn tickets_are_good_for_their_route_and_its_rules_alone() {
    let ca = authority();
    let keys = TicketKeys::local(0).unwrap();
    let own = identity(&ca, &["a.test"]);
    let server = |route: &str, client_certificates| {
        let (tickets, route) = (keys.clone(), route.into());
        let parts = parts(vec![Arc::clone(&own)]);
        ServerTls::new(ServerParts { tickets, route, client_certificates, ..parts }).unwrap()
    };
    let (one, replica, other) = (server("one", None), server("one", None), server("two", None));
    let optional = ClientCertificates { roots: roots(&ca), required: false };
    let with_rules = server("one", Some(optional));
    let client = Arc::new(client(&ca));
    let full = HandshakeKind::Full;
    assert_eq!(kind(&one, &client, "a.test"), full);
    assert_eq!(kind(&replica, &client, "a.test"), HandshakeKind::Resumed);
    assert_eq!(kind(&other, &client, "a.test"), full);
    assert_eq!(kind(&one, &client, "a.test"), full);
    assert_eq!(kind(&with_rules, &client, "a.test"), full);
    assert_eq!(kind(&with_rules, &client, "a.test"), HandshakeKind::Resumed);
    // A key is used up to two moves later, and by replicas that have not moved yet.
    let set = keys.get().unwrap();
    let (next, after) = (set.rotated(1).unwrap(), set.rotated(1).unwrap().rotated(2).unwrap());
    assert_eq!(kind(&one, &client, "a.test"), full);
    keys.set(next.clone());
    assert_eq!(kind(&one, &client, "a.test"), HandshakeKind::Resumed);
    keys.set((*set).clone());
    assert_eq!(kind(&one, &client, "a.test"), HandshakeKind::Resumed);
    keys.set(after);
    assert_eq!(kind(&one, &client, "a.test"), full);
}

#[test]
fn without_keys_no_session_is_resumed() {
    let ca = authority();
    let parts = parts(vec![identity(&ca, &["a.test"])]);
    let server = ServerTls::new(ServerParts { tickets: TicketKeys::default(), ..parts }).unwrap();
    let client = Arc::new(client(&ca));
    for _ in 0..2 {
        assert_eq!(kind(&server, &client, "a.test"), HandshakeKind::Full);
    }
}

/// The end passes from ticket to ticket, so a client shows its certificate again some day.
#[test]
fn a_ticket_ends_with_what_its_client_has_shown() {
    let ca = authority();
    let verifier: Arc<dyn ClientCertVerifier> = WebPkiClientVerifier::builder_with_provider(
        Arc::clone(roots(&ca).store()),
        provider().clone(),
    )
    .build()
    .unwrap();
    let tickets: Arc<dyn ProducesTickets> =
        Arc::new(ticketer::Ticketer::new(&TicketKeys::local(0).unwrap(), [0; 32]));
    let verifier = verifier::ClientVerifier::new(verifier);
    let connection = || {
        let (tickets, end) = session_end::EndingTicketer::of_connection(&tickets);
        (verifier.of_connection(&end), tickets)
    };
    let chain = identity(&ca, &["client"]).certified_key().cert.clone();
    let show = |verifier: &verifier::ClientVerifier, ago: u64| {
        let then = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() - ago));
        verifier.verify_client_cert(&chain[0], &[], then).unwrap();
    };
    let resume = |ticket: &[u8]| {
        let (_, next) = connection();
        assert_eq!(next.decrypt(ticket)?, b"session");
        next.encrypt(b"session")
    };
    let (_, without) = connection();
    assert!(resume(&resume(&without.encrypt(b"session").unwrap()).unwrap()).is_some());
    let (seen, recent) = connection();
    show(&seen, 7100);
    assert!(resume(&resume(&recent.encrypt(b"session").unwrap()).unwrap()).is_some());
    let (seen, old) = connection();
    show(&seen, 7201);
    assert_eq!(resume(&old.encrypt(b"session").unwrap()), None);
    // The end of a resumed session is that of its first one.
    let (_, next) = connection();
    next.decrypt(&recent.encrypt(b"session").unwrap()).unwrap();
    let bytes = tickets.decrypt(&next.encrypt(b"session").unwrap()).unwrap();
    assert_eq!(bytes, tickets.decrypt(&recent.encrypt(b"session").unwrap()).unwrap());
    let [soon, _] = issue(&ca, &["client"], &PKCS_ECDSA_P256_SHA256, |params| {
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    });
    let soon = pem::certificates(soon.as_bytes()).unwrap();
    let end = 1_893_456_000;
    assert_eq!(session_end::end_of(&soon, end - 100), end);
    assert_eq!(session_end::end_of(soon.iter().chain(&chain), end - 100), end);
    assert_eq!(session_end::end_of(&soon, end - 10_000), end - 2800);
}

/// Its client could not send it back.
#[test]
fn a_session_that_is_too_large_gets_no_ticket() {
    let tickets = ticketer::Ticketer::new(&TicketKeys::local(0).unwrap(), [0; 32]);
    let ticket = tickets.encrypt(&[7; 8 << 10]).unwrap();
    assert_eq!(tickets.decrypt(&ticket).unwrap(), [7; 8 << 10]);
    assert_eq!(tickets.encrypt(&[7; (8 << 10) + 1]), None);
}

#[test]
fn ticket_keys_have_a_text_form_and_move_once_an_hour() {
    let set = TicketKeySet::new(1_000_000).unwrap();
    let text = set.to_text();
    assert_eq!(TicketKeySet::from_text(text.as_bytes()).as_ref(), Ok(&set));
    assert_eq!(TicketKeySet::from_text(b"{}"), Err(InvalidTicketKeys::Format));
    let short = text.replacen("\"next\":\"", "\"next\":\"0", 1);
    assert_eq!(TicketKeySet::from_text(short.as_bytes()), Err(InvalidTicketKeys::Key));
    assert!(!format!("{set:?}").contains(&text[text.len() - 20..text.len() - 4]));
    for (age, is_due) in [(0, false), (3599, false), (3600, true), (-60, false), (-7200, true)] {
        assert_eq!(set.is_due(1_000_000 + age), is_due, "{age}");
    }
    // Two leaders whose clocks differ by a day move the keys once each, and not again.
    let moved = set.rotated(1_000_000 + 86_400).unwrap();
    assert!(!moved.is_due(1_000_000 + 86_400) && moved.is_due(1_000_000));
    assert!(!moved.rotated(1_000_000).unwrap().is_due(1_000_060));
}
