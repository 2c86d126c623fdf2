//! What fails on a node, while there is traffic.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::{
    Backend, Held, Load, Namespace, Sluice, Target, alone, eventually, kubectl, node, shared, test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test!(a_pod_that_is_killed_takes_only_its_own_connections),
        test!(the_api_server_may_go_away_and_come_back),
        test!(the_kubelet_may_be_restarted),
    ]
}

/// A second for kube-proxy, and the rest for a node with other work to do.
const KILLED_IS_KNOWN: Duration = Duration::from_secs(20);

fn a_pod_that_is_killed_takes_only_its_own_connections() {
    let _cluster = shared();
    let namespace = Namespace::new("killed-pod");
    let sluice = Sluice::install(&namespace, "{}");
    let target = backend_behind(&sluice, &namespace);
    let mut held: Vec<Held> = (0..16).map(|_| Held::open(target).unwrap()).collect();
    let pods = sluice.pods();
    let active = eventually("the pods have the held connections and no other", || {
        let active = pods.iter().map(|pod| active_connections(&namespace, pod));
        let active: Vec<usize> = active.collect();
        (active.iter().sum::<usize>() == held.len()).then_some(active)
    });

    let load = Load::start(target);
    namespace.kubectl(&["delete", "pod", &pods[0], "--grace-period=0", "--force"]);
    // Its connections end with it.
    let survivors = held.len() - active[0];
    eventually("the connections of the killed pod end", || {
        held.retain_mut(|held| held.get().is_ok());
        (held.len() <= survivors).then_some(())
    });
    target.until_says("one");
    namespace.rolled_out("deployment/sluice");
    let replaced = load.elapsed();
    load.goes_on(200);
    let tally = load.finish();
    // Until kube-proxy has heard of it, it still gets new ones.
    let known = replaced.min(KILLED_IS_KNOWN);
    assert!(tally.failures.iter().all(|(begun, _)| *begun < known), "{known:?}: {tally:?}");
    assert!(held.iter_mut().all(|held| held.get().is_ok()), "other connections go on");
    assert_eq!(held.len(), survivors);
}

fn the_api_server_may_go_away_and_come_back() {
    let _cluster = alone();
    let namespace = Namespace::new("api-server");
    let sluice = Sluice::install(&namespace, "{}");
    let target = backend_behind(&sluice, &namespace);
    let mut held = Held::open(target).unwrap();
    let load = Load::start(target);

    node("kill", "kube-apiserver");
    load.goes_on(300);
    node("start", "kube-apiserver");
    // What is changed then is soon live.
    sluice.route("two", "two.example.com", "one");
    Target { name: "two.example.com", ..target }.until_says("one");

    held.get().expect("a connection of before goes on");
    let tally = load.finish();
    assert!(tally.failures.is_empty(), "{tally:?}");
    assert_eq!(restarts(&namespace), 0);
}

fn the_kubelet_may_be_restarted() {
    let _cluster = alone();
    let namespace = Namespace::new("kubelet");
    let sluice = Sluice::install(&namespace, "{}");
    let target = backend_behind(&sluice, &namespace);
    let ready = Instant::now();
    let mut held = Held::open(target).unwrap();
    let load = Load::start(target);

    node("kill", "kubelet");
    // A kubelet takes a pod to be new, and so not ready, that began less than 10 s before itself.
    eventually("the pods are old enough", || {
        (ready.elapsed() > Duration::from_secs(11)).then_some(())
    });
    load.goes_on(100);
    node("start", "kubelet");
    // It runs pods again.
    Backend::new("two").deploy(&namespace);
    load.goes_on(100);

    held.get().expect("a connection of before goes on");
    let tally = load.finish();
    assert!(tally.failures.is_empty(), "{tally:?}");
    assert_eq!(restarts(&namespace), 0);
}

fn backend_behind(sluice: &Sluice<'_>, namespace: &Namespace) -> Target {
    Backend::new("one").deploy(namespace);
    sluice.route("one", "one.example.com", "one");
    let target = sluice.target("one.example.com");
    target.until_says("one");
    // Both replicas have the route.
    for pod in sluice.pods() {
        eventually("the route is in force", || metric(namespace, &pod, "sluice_endpoints"));
    }
    target
}

fn active_connections(namespace: &Namespace, pod: &str) -> usize {
    metric(namespace, pod, "sluice_connections_active").unwrap_or_default()
}

/// The sum of a metric's series, if there are any that are not 0.
fn metric(namespace: &Namespace, pod: &str, name: &str) -> Option<usize> {
    let namespace = namespace.name();
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:9901/proxy/metrics");
    let page = kubectl(&["get", "--raw", &path]);
    let series = page.lines().filter(|line| line.starts_with(name));
    let sum = series.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum();
    (sum > 0).then_some(sum)
}

/// How often containers of the namespace were restarted.
fn restarts(namespace: &Namespace) -> u64 {
    let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let counts = namespace.kubectl(&["get", "pods", "--output", path]);
    counts.split_whitespace().map(|count| count.parse::<u64>().unwrap()).sum()
}
