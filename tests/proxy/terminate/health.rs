//! What shows something about an endpoint whose clients speak TLS with sluice, and what does not.

use std::time::Duration;

use sluice::outcome::Outcome;
use sluice::policy::{Number, Policy, Timeout};
use sluice::routing::{Availability, Moment};

use super::Site;
use super::peer::TlsEnd;
use crate::support::{Plane, expect, wait_until};

/// Ejects after one failure, for much longer than a test takes.
fn strict(policy: &mut Policy) {
    let passive = &mut policy.health.passive;
    passive.failures = Some(Number::new(1));
    passive.eject_for = Timeout::new(Duration::from_hours(1));
    passive.max_eject_for = Timeout::new(Duration::from_hours(1));
}

/// How the first route judges its first endpoint.
fn first(plane: &Plane) -> Availability {
    let table = plane.reader.table();
    let rule = table.routes().next().unwrap().spec.policy.ejection();
    plane.endpoints()[0].availability(Moment::now(), rule)
}

/// It may have waited for a request for as long as it waits for one.
#[test]
fn an_endpoint_that_closes_without_a_request_has_not_failed() {
    let site = Site::with(|target| target.policy(strict));
    let (mut client, server) = site.pair();
    drop(server);
    assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
    drop(client);
    site.plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
    assert_eq!(first(&site.plane), Availability::Well);
    let (mut client, mut server) = site.pair();
    client.send(b"request");
    expect(&mut server, b"request");
    drop(server);
    client.rest();
    wait_until("the ejection", || first(&site.plane) == Availability::Ejected);
}
