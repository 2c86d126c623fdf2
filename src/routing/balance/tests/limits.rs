//! Endpoints that have as many connections as the route allows.

use super::*;

#[test]
fn a_full_endpoint_is_passed_over_and_one_with_a_place_again_is_chosen() {
    for balancing in Balancing::ALL {
        let limits = serde_json::json!({ "perEndpoint": { "connections": 2 } });
        let policy =
            Policy { limits: serde_json::from_value(limits).unwrap(), ..Policy::from(balancing) };
        let route = route(policy, &[(1, 3)]);
        let request = |random| EndpointRequest::new(client(0), &[], random);
        let mut open: Vec<_> = (0..6).map(|n| choose(&route, &request(n)).unwrap()).collect();
        let mut active: Vec<_> =
            route.backends[0].backend.endpoints().iter().map(|one| one.active()).collect();
        active.sort_unstable();
        assert_eq!(active, [2, 2, 2], "{balancing}");
        assert_eq!(choose(&route, &request(6)).unwrap_err(), NoEndpoint::AllFull);
        let freed = open.swap_remove(3).endpoint().address;
        assert_eq!(choose(&route, &request(7)).unwrap().endpoint().address, freed);
    }
}
