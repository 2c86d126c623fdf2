//! The endpoint of a source address.

use super::*;

#[test]
fn a_source_keeps_its_endpoint_when_others_are_removed() {
    let many = route(Balancing::SourceAddress, &[(1, 8)]);
    for n in 0..500 {
        let before = pick(&many, client(n), &[], u64::from(n)).unwrap();
        assert_eq!(pick(&many, client(n), &[], u64::from(n) + 1), Some(before));
        let gone = address(0, 3);
        let after = pick(&many, client(n), &[gone], 0).unwrap();
        assert!(before == gone || after == before);
    }
}

#[test]
fn removing_one_of_very_many_endpoints_moves_few_other_sources() {
    const SOURCES: u32 = 5_000;
    let all: Vec<SocketAddr> = (0..1000).map(|n| address(0, n)).collect();
    let key = || BackendKey::address("", "0");
    let (mut writer, reader) = channel();
    let spec = route(Balancing::SourceAddress, &[(1, 0)]).spec.clone();
    let mut serve = |addresses: Vec<SocketAddr>| -> Vec<SocketAddr> {
        let endpoints = [(key(), addresses)].into_iter().collect();
        writer.apply(Snapshot { routes: vec![spec.clone()], endpoints, ..Snapshot::default() });
        let route = Arc::clone(reader.table().routes().next().unwrap());
        (0..SOURCES).map(|n| pick(&route, client(n), &[], 0).unwrap()).collect()
    };
    let before = serve(all.clone());
    let counts = before.iter().fold(HashMap::new(), |mut counts: HashMap<_, u32>, endpoint| {
        *counts.entry(*endpoint).or_default() += 1;
        counts
    });
    // About 5 each.
    assert!(counts.len() > 950 && counts.values().all(|n| *n < 20), "{counts:?}");

    let gone = |endpoint: &SocketAddr| all[..50].contains(endpoint);
    let after = serve(all[50..].to_vec());
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    let (own, others): (Vec<_>, Vec<_>) = moved.partition(|(before, _)| gone(before));
    assert_eq!(own.len(), before.iter().filter(|endpoint| gone(endpoint)).count());
    assert!(others.len() * 2 <= own.len() * 3, "{} and {} of others", own.len(), others.len());
    // An endpoint that comes back gets its own sources.
    assert_eq!(serve(all.clone()), before);
}

/// A failed endpoint moves only its own sources.
#[test]
fn the_second_choice_of_a_source_is_stable() {
    for count in [4, 1000] {
        let route = route(Balancing::SourceAddress, &[(1, count)]);
        let first = pick(&route, client(5), &[], 0).unwrap();
        let second = pick(&route, client(5), &[first], 1).unwrap();
        let dead = endpoints(&route, 0).into_iter().find(|e| e.address == first).unwrap();
        dead.failed(Moment::now());
        for n in 0..20 {
            assert_eq!(pick(&route, client(5), &[], n), Some(second));
            assert_eq!(pick(&route, client(5), &[first], n), Some(second));
        }
        dead.succeeded();
        assert_eq!(pick(&route, client(5), &[], 3), Some(first));
    }
}
