//! A data plane in this process; the test is its control plane.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use sluice::access_log::{AccessLog, Writing};
use sluice::config::{Config, ListenerConfig, Protocol};
use sluice::metrics::Metrics;
use sluice::outcome::Outcome;
use sluice::policy::{AccessLists, Balancing, Layers, Policy};
use sluice::proxy::{PassedSocket, Proxy, Running};
use sluice::routing::{
    BackendKey, Endpoint, Hostname, Moment, RouteKey, RouteSpec, RouteStats, Snapshot, TableReader,
    TableWriter, TrafficPolicy, channel,
};

use super::{PATIENCE, wait_until};

/// A route and the endpoints of each of its backends.
pub(crate) struct Target {
    pub(crate) spec: RouteSpec,
    endpoints: Vec<(BackendKey, Vec<SocketAddr>)>,
}

/// A route for `hostname` that is named like it, with one backend.
pub(crate) fn target(hostname: &str, endpoints: &[SocketAddr]) -> Target {
    let backend = BackendKey::address("", &format!("{hostname} backend"));
    Target {
        spec: RouteSpec {
            backends: vec![(backend.clone(), 1)],
            ..RouteSpec::new(
                RouteKey::sni_route("test", hostname),
                hostname.parse::<Hostname>().unwrap().into(),
            )
        },
        endpoints: vec![(backend, endpoints.to_vec())],
    }
}

impl Target {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut RouteSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// With a policy of its own.
    pub(crate) fn policy(self, change: impl FnOnce(&mut Policy)) -> Self {
        self.with(|spec| {
            let mut policy = spec.policy.effective().of_route();
            change(&mut policy);
            spec.policy = TrafficPolicy::of(&policy);
        })
    }

    /// Whose endpoints are chosen so.
    pub(crate) fn balanced(self, balancing: Balancing) -> Self {
        self.policy(|policy| policy.load_balancing.policy = Some(balancing))
    }

    /// With another route's first backend in place of its own.
    pub(crate) fn naming(mut self, key: BackendKey) -> Self {
        self.spec.backends[0].0 = key.clone();
        self.endpoints[0].0 = key;
        self
    }

    /// With one more backend.
    pub(crate) fn and(mut self, weight: u32, endpoints: &[SocketAddr]) -> Self {
        let number = self.endpoints.len();
        let key = BackendKey::address("", &format!("{} backend {number}", self.spec.key.name()));
        self.spec.backends.push((key.clone(), weight));
        self.endpoints.push((key, endpoints.to_vec()));
        self
    }
}

/// A listener on a free port.
pub(crate) fn listener(name: &str, protocol: Protocol, alerts: bool) -> ListenerConfig {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    ListenerConfig { protocol, alerts, ..ListenerConfig::new(name, address) }
}

/// A data plane that serves. When it is dropped, it must end without a trace.
pub(crate) struct Plane {
    pub(crate) writer: TableWriter,
    pub(crate) reader: TableReader,
    pub(crate) metrics: Metrics,
    /// The layers below the policies of routes.
    layers: Layers,
    running: Option<Running>,
    writing: Option<Writing>,
    lines: Lines,
    addresses: Vec<(String, SocketAddr)>,
}

impl Plane {
    pub(crate) fn start(targets: Vec<Target>) -> Self {
        Plane::with(targets, |_| {})
    }

    pub(crate) fn with(targets: Vec<Target>, configure: impl FnOnce(&mut Config)) -> Self {
        Plane::with_waiting(targets, configure, |_| {})
    }

    /// One whose first clients come before it begins to serve.
    pub(crate) fn with_waiting(
        targets: Vec<Target>,
        configure: impl FnOnce(&mut Config),
        early: impl FnOnce(SocketAddr),
    ) -> Self {
        let mut config = Config {
            listeners: vec![listener("https", Protocol::Tls, false)],
            workers: 2.try_into().unwrap(),
            ..Config::default()
        };
        configure(&mut config);
        Plane::of(Proxy::bind(&config).unwrap(), &config, targets, early)
    }

    /// One whose first listener has this socket.
    pub(crate) fn with_passed(
        targets: Vec<Target>,
        passed: PassedSocket,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let listeners = vec![listener("https", Protocol::Tls, false)];
        let mut config = Config { listeners, workers: 2.try_into().unwrap(), ..Config::default() };
        configure(&mut config);
        Plane::of(Proxy::bind_with(&config, vec![passed]).unwrap(), &config, targets, |_| {})
    }

    fn of(
        proxy: Proxy,
        config: &Config,
        targets: Vec<Target>,
        early: impl FnOnce(SocketAddr),
    ) -> Self {
        let addresses: Vec<_> = proxy.addresses().map(|(n, a)| (n.to_owned(), a)).collect();
        early(addresses[0].1);
        let layers = config.policy_layers();
        let (mut writer, reader) = channel();
        writer.apply(snapshot(targets, &layers));
        let metrics = Metrics::new(reader.clone()).unwrap();
        let lines = Lines::default();
        let dropped = metrics.process.access_log_dropped.clone();
        let (log, writing) = AccessLog::start(lines.clone(), dropped).unwrap();
        let running = Some(proxy.start(&reader, &metrics, Some(&log), || {}).unwrap());
        Plane { writer, reader, metrics, layers, running, writing: Some(writing), lines, addresses }
    }

    /// Where clients connect to: the first listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0].1
    }

    pub(crate) fn address_of(&self, listener: &str) -> SocketAddr {
        self.addresses.iter().find(|(name, _)| name == listener).unwrap().1
    }

    /// Serves these routes instead.
    pub(crate) fn apply(&mut self, targets: Vec<Target>) {
        self.writer.apply(snapshot(targets, &self.layers));
    }

    /// Serves these routes instead, with a snapshot that is changed before.
    pub(crate) fn apply_with(&mut self, targets: Vec<Target>, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = snapshot(targets, &self.layers);
        change(&mut snapshot);
        self.writer.apply(snapshot);
    }

    /// Serves these routes instead, as the first table of a source that has started again.
    pub(crate) fn start_over(&mut self, targets: Vec<Target>) {
        self.writer.start_over(snapshot(targets, &self.layers));
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Waits until all connections are over; then exactly these have ended, and in this way. The
    /// route of a connection that found none is "".
    #[track_caller]
    pub(crate) fn assert_ended(&self, expected: &[(&str, Outcome, u64)]) {
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(route, outcome, count)| (((*route).to_owned(), outcome.as_str()), *count))
            .collect();
        let total = expected.values().sum();
        wait_until(&format!("{expected:?}, so far {:?}", self.ended()), || {
            self.ended().values().sum::<u64>() >= total && self.metrics.connections.total() == 0
        });
        assert_eq!(self.ended(), expected);
    }

    /// Whether any connection of the route has ended so.
    pub(crate) fn has_ended(&self, route: &str, outcome: Outcome) -> bool {
        self.ended().contains_key(&(route.to_owned(), outcome.as_str()))
    }

    /// How many connections of the route have ended so.
    pub(crate) fn count(&self, route: &str, outcome: Outcome) -> u64 {
        self.ended().get(&(route.to_owned(), outcome.as_str())).copied().unwrap_or_default()
    }

    /// Waits until just so many connections are open.
    #[track_caller]
    pub(crate) fn assert_active(&self, count: usize) {
        wait_until("the open connections", || self.metrics.connections.total() == count);
    }

    fn ended(&self) -> BTreeMap<(String, &'static str), u64> {
        let mut ended = BTreeMap::new();
        self.tallies(|route, tally| {
            for outcome in Outcome::ALL {
                let count = tally.ended(outcome).load(Ordering::Relaxed);
                if count > 0 {
                    ended.insert((route.to_owned(), outcome.as_str()), count);
                }
            }
        });
        ended
    }

    fn tallies(&self, mut each: impl FnMut(&str, &RouteStats)) {
        let table = self.reader.table();
        each("", &self.metrics.unrouted);
        table.routes().for_each(|route| each(route.spec.key.name(), &route.stats));
        table.retired().iter().for_each(|(key, tally)| each(key.name(), tally));
    }

    /// The endpoints of the first route, backend after backend.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let table = self.reader.table();
        let backends = &table.routes().next().unwrap().backends;
        backends.iter().flat_map(|backend| backend.backend.endpoints().to_vec()).collect()
    }

    /// Has one endpoint of the first route tried before all others, until those have answered.
    pub(crate) fn prefer(&self, index: usize) {
        let endpoints = self.endpoints();
        let others = endpoints.iter().enumerate().filter(|(other, _)| *other != index);
        others.for_each(|(_, endpoint)| endpoint.failed(Moment::now() + PATIENCE));
    }

    /// Bytes up and down that were counted for a route.
    pub(crate) fn bytes(&self, of: &str) -> (u64, u64) {
        let mut bytes = (0, 0);
        self.tallies(|route, tally| {
            if route == of {
                let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
                bytes = (load(&tally.bytes_up), load(&tally.bytes_down));
            }
        });
        bytes
    }

    /// Ends it, and returns the lines of its access log.
    #[track_caller]
    pub(crate) fn access_log(mut self) -> Vec<Value> {
        self.end();
        let text = String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    fn end(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.abort();
        wait_until("the end of the workers", || running.is_over());
        running.join().unwrap();
        assert!(self.writing.take().unwrap().finish(PATIENCE));
        assert_eq!(self.metrics.process.panics.get(), 0, "panics");
        assert_eq!(self.metrics.connections.total(), 0, "connections that are never over");
        assert_eq!(self.metrics.pipes.busy.get(), 0, "pipes that never come back");
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
    }
}

fn snapshot(targets: Vec<Target>, layers: &Layers) -> Snapshot {
    let (mut snapshot, mut lists) = (Snapshot::default(), AccessLists::default());
    for target in targets {
        let (effective, _) = layers.effective(&target.spec.policy.effective().of_route());
        let policy = Arc::new(TrafficPolicy::new(effective, &mut lists));
        snapshot.routes.push(RouteSpec { policy, ..target.spec });
        snapshot.endpoints.extend(target.endpoints);
    }
    snapshot
}

/// Where the access log goes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
