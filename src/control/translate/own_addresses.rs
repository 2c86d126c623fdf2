//! The installation's own Services, to which no route may lead.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::endpoints::{ADDRESSES_OF_A_SERVICE, all_addresses, tcp_ports};
use crate::control::api::{DnsName, dns_name};
use crate::reach::{ListeningSet, forms};
use crate::routing::ObjectKey;

/// The addresses that lead to the installation itself.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses {
    /// Which Services are the installation's.
    services: BTreeSet<ObjectKey>,
    /// Ports of this process, which every pod of the installation has.
    ports: ListeningSet,
    /// Those in front of the Services, by Service.
    front: BTreeMap<ObjectKey, ServiceAddresses>,
    /// Those of the pods, by slice.
    pods: BTreeMap<ObjectKey, Vec<SocketAddr>>,
    /// All of them.
    endpoints: Arc<HashSet<SocketAddr>>,
    /// Whether something has changed that `endpoints` does not have yet.
    dirty: bool,
}

/// What leads to a Service from elsewhere.
#[derive(Debug, Default, PartialEq, Eq)]
struct ServiceAddresses {
    addresses: Vec<SocketAddr>,
    /// Of load balancers that have a name alone.
    names: Vec<(DnsName, u16)>,
}

/// The addresses that have become the installation's own, and those that are no longer.
#[derive(Debug)]
pub(super) struct OwnAddressChanges {
    endpoints: HashSet<SocketAddr>,
    ips: HashSet<IpAddr>,
}

impl OwnAddressChanges {
    /// Whether an endpoint is among them, in whatever form it is written.
    pub(super) fn has(&self, endpoint: SocketAddr) -> bool {
        let port = endpoint.port();
        forms(endpoint.ip()).any(|ip| self.endpoints.contains(&SocketAddr::new(ip, port)))
    }

    /// Whether any port of an address is among them.
    pub(super) fn has_ip(&self, ip: IpAddr) -> bool {
        forms(ip).any(|ip| self.ips.contains(&ip))
    }
}

impl OwnAddresses {
    pub(super) fn new(services: &[ObjectKey], ports: ListeningSet) -> Self {
        OwnAddresses {
            services: services.iter().cloned().collect(),
            ports,
            // The first time, whatever an earlier builder has had published is replaced.
            dirty: !services.is_empty(),
            ..OwnAddresses::default()
        }
    }

    /// Whether a Service is the installation's.
    pub(super) fn has_service(&self, key: &ObjectKey) -> bool {
        self.services.contains(key)
    }

    /// Whether a name leads to a load balancer of the installation.
    pub(super) fn has_name(&self, name: &str, port: u16) -> bool {
        let mut names = self.front.values().flat_map(|front| &front.names);
        names.any(|(own, own_port)| **own == *name && *own_port == port)
    }

    /// The addresses that lead to the installation.
    pub(super) fn endpoints(&self) -> &Arc<HashSet<SocketAddr>> {
        &self.endpoints
    }

    /// A Service is there, or is different.
    pub(super) fn put_service(&mut self, key: &ObjectKey, service: &Service) {
        if self.has_service(key) {
            let front = ServiceAddresses::of(service);
            self.dirty |= self.front.get(key) != Some(&front);
            self.front.insert(key.clone(), front);
        }
    }

    /// A Service is gone.
    pub(super) fn remove_service(&mut self, key: &ObjectKey) {
        self.dirty |= self.front.remove(key).is_some();
    }

    /// A slice of `service` is there, or is different. Every address counts: a pod is the
    /// installation's before it is ready, too, and when it is no longer.
    pub(super) fn put_slice(
        &mut self,
        key: &ObjectKey,
        service: &ObjectKey,
        slice: &EndpointSlice,
    ) {
        if !self.has_service(service) {
            return self.remove_slice(key);
        }
        let ports: Vec<u16> = tcp_ports(slice).map(|(_, number)| number).collect();
        let listening: Vec<u16> = self.ports.get().iter().map(|one| one.address.port()).collect();
        let pods = all_addresses(slice).flat_map(|ip| {
            let ports = ports.iter().copied().chain(listening.iter().copied());
            ports.map(move |port| SocketAddr::new(ip.to_canonical(), port))
        });
        let pods: Vec<SocketAddr> = pods.take(ADDRESSES_OF_A_SERVICE).collect();
        self.dirty |= self.pods.get(key) != Some(&pods);
        self.pods.insert(key.clone(), pods);
    }

    /// A slice is gone.
    pub(super) fn remove_slice(&mut self, key: &ObjectKey) {
        self.dirty |= self.pods.remove(key).is_some();
    }

    /// Has the next [`OwnAddresses::settle`] tell of all, as the first one does.
    pub(super) fn tell_all(&mut self) {
        self.dirty = !self.services.is_empty();
    }

    /// Those of the installation's Services that are not there.
    pub(super) fn missing(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.iter().filter(|service| !self.front.contains_key(*service))
    }

    /// Takes the changes since the last time over, if there are any. Returns what is different.
    pub(super) fn settle(&mut self) -> Option<OwnAddressChanges> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let front = self.front.values().flat_map(|front| &front.addresses);
        let all = front.chain(self.pods.values().flatten()).copied();
        let before = std::mem::replace(&mut self.endpoints, Arc::new(all.collect()));
        let endpoints: HashSet<SocketAddr> =
            before.symmetric_difference(&self.endpoints).copied().collect();
        let ips = endpoints.iter().map(SocketAddr::ip).collect();
        Some(OwnAddressChanges { endpoints, ips })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.front.is_empty() && self.pods.is_empty()
    }
}

impl ServiceAddresses {
    fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = || status.and_then(|status| status.ingress.as_deref()).into_iter().flatten();
        let texts = [
            spec.and_then(|spec| spec.cluster_ips.as_deref()),
            spec.and_then(|spec| spec.cluster_ip.as_ref()).map(std::slice::from_ref),
            spec.and_then(|spec| spec.external_ips.as_deref()),
        ];
        let texts = texts.into_iter().flatten().flatten();
        let texts = texts.chain(ingress().filter_map(|ingress| ingress.ip.as_ref()));
        // "None" is the cluster IP of a headless Service.
        let ips: BTreeSet<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        let names = ingress().filter_map(|ingress| dns_name(ingress.hostname.as_deref()?));
        let names: BTreeSet<DnsName> = names.collect();
        let ports = spec.and_then(|spec| spec.ports.as_deref()).into_iter().flatten();
        let ports: Vec<u16> = ports.filter_map(|port| u16::try_from(port.port).ok()).collect();
        let each = |port: &u16| {
            let port = *port;
            ips.iter().map(move |ip| SocketAddr::new(ip.to_canonical(), port))
        };
        ServiceAddresses {
            addresses: ports.iter().flat_map(each).collect(),
            names: ports
                .iter()
                .flat_map(|port| names.iter().map(|name| (name.clone(), *port)))
                .collect(),
        }
    }
}
