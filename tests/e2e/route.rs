//! From the installation to the first byte.

use std::net::SocketAddr;

use libtest_mimic::Trial;

use crate::support::{Backend, NODE, Namespace, Sluice, Target, shared, test};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test!(a_route_of_five_lines_leads_from_outside_to_the_pod),
        test!(a_backend_that_speaks_proxy_sees_the_clients_address),
        test!(a_daemon_set_listens_on_the_nodes_own_network),
    ]
}

fn a_route_of_five_lines_leads_from_outside_to_the_pod() {
    let _cluster = shared();
    let namespace = Namespace::new("route");
    let sluice = Sluice::install(
        &namespace,
        // A low port, for which there are no rights but a sysctl.
        "{ service: { type: LoadBalancer }, replicas: 1,
           listeners: { https: { containerPort: 443, hostPort: 9443 } } }",
    );
    Backend::new("one").deploy(&namespace);
    Backend::new("two").deploy(&namespace);
    sluice.route("one", "one.example.com", "one");
    sluice.route("two", "two.example.com", "two");

    let balancer = balance(&namespace, "198.18.1.1");
    for name in ["one.example.com", "two.example.com"] {
        let says = name.split('.').next().unwrap();
        let node_port = sluice.target(name);
        assert_eq!(node_port.curl(), says);
        for address in [balancer, format!("{NODE}:9443").parse().unwrap()] {
            Target { address, name }.until_says(says);
        }
    }
    for route in ["one", "two"] {
        for condition in ["Accepted", "ResolvedRefs", "Programmed"] {
            let condition = format!("--for=condition={condition}");
            namespace.kubectl(&["wait", &condition, "--timeout=300s", "sniroute", route]);
        }
    }
    let unknown = sluice.target("three.example.com").get();
    assert!(unknown.is_err(), "a name without a route is not answered: {unknown:?}");
}

/// What a cloud's load balancer would do.
fn balance(namespace: &Namespace, ip: &str) -> SocketAddr {
    let status = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{ip}"}}]}}}}}}"#);
    let patch = ["patch", "service", "sluice", "--subresource=status", "--type=merge", "-p"];
    namespace.kubectl(&[&patch[..], &[&status]].concat());
    format!("{ip}:443").parse().unwrap()
}

fn a_backend_that_speaks_proxy_sees_the_clients_address() {
    let _cluster = shared();
    let namespace = Namespace::new("proxied");
    let sluice = Sluice::install(&namespace, "{ service: { type: LoadBalancer }, replicas: 1 }");
    Backend { proxied: true, ..Backend::new("one") }.deploy(&namespace);
    let class = namespace.name();
    namespace.apply(&format!(
        "apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: {{ name: one }}
spec:
  className: {class}
  hostnames: [one.example.com]
  backends: [{{ service: {{ name: one, port: 443 }} }}]
  proxyProtocol: {{ send: V2 }}
"
    ));
    let name = "one.example.com";
    for address in [balance(&namespace, "198.18.1.2"), sluice.node_port()] {
        let target = Target { address, name };
        target.until_says("one");
        let (seen, own) = target.addresses().unwrap();
        assert_eq!(seen, own.to_string(), "{address}");
    }
}

fn a_daemon_set_listens_on_the_nodes_own_network() {
    let _cluster = shared();
    let namespace = Namespace::new("daemon-set");
    let sluice = Sluice::install(
        &namespace,
        "{ kind: DaemonSet, hostNetwork: true,
           admin: { address: 127.0.0.1, port: 19901, service: { enabled: false } },
           service: { enabled: false }, listeners: { https: { containerPort: 10443 } } }",
    );
    Backend::new("one").deploy(&namespace);
    sluice.route("one", "one.example.com", "one");
    let address = format!("{NODE}:10443").parse().unwrap();
    Target { address, name: "one.example.com" }.until_says("one");
    assert_eq!(sluice.pods().len(), 1, "one for each node");
}
