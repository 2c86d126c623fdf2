//! The installation's own Services and addresses, to which no route may lead.

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
    /// The installation's Services.
    services: BTreeSet<ObjectKey>,
    /// The ports of this process, which every pod of the installation has.
    ports: ListeningSet,
    /// The addresses of the Services and their load balancers.
    front: BTreeMap<ObjectKey, ServiceAddresses>,
    /// The addresses of the pods, by slice.
    pods: BTreeMap<ObjectKey, Vec<SocketAddr>>,
    /// All of them.
    endpoints: Arc<HashSet<SocketAddr>>,
    /// Whether `endpoints` must be updated.
    dirty: bool,
}

/// The addresses that lead to a Service.
#[derive(Debug, Default, PartialEq, Eq)]
struct ServiceAddresses {
    addresses: Vec<SocketAddr>,
    /// The names of load balancers without an address.
    names: Vec<(DnsName, u16)>,
}

/// The addresses that became the installation's own, and those that no longer are.
#[derive(Debug)]
pub(super) struct OwnAddressChanges {
    endpoints: HashSet<SocketAddr>,
    ips: HashSet<IpAddr>,
}

impl OwnAddressChanges {
    /// Whether an endpoint is among them, in IPv4 or IPv6 notation.
    pub(super) fn has(&self, endpoint: SocketAddr) -> bool {
        let port = endpoint.port();
        forms(endpoint.ip()).any(|ip| self.endpoints.contains(&SocketAddr::new(ip, port)))
    }

    /// Whether an address is among them, with any port.
    pub(super) fn has_ip(&self, ip: IpAddr) -> bool {
        forms(ip).any(|ip| self.ips.contains(&ip))
    }
}

impl OwnAddresses {
    pub(super) fn new(services: &[ObjectKey], ports: ListeningSet) -> Self {
        OwnAddresses {
            services: services.iter().cloned().collect(),
            ports,
            // The first result replaces the one that an earlier builder has published.
            dirty: !services.is_empty(),
            ..OwnAddresses::default()
        }
    }

    /// Whether the Service belongs to the installation.
    pub(super) fn has_service(&self, key: &ObjectKey) -> bool {
        self.services.contains(key)
    }

    /// Whether the name belongs to a load balancer of the installation.
    pub(super) fn has_name(&self, name: &str, port: u16) -> bool {
        let mut names = self.front.values().flat_map(|front| &front.names);
        names.any(|(own, own_port)| **own == *name && *own_port == port)
    }

    /// All addresses that lead to the installation.
    pub(super) fn endpoints(&self) -> &Arc<HashSet<SocketAddr>> {
        &self.endpoints
    }

    /// Adds or updates a Service.
    pub(super) fn put_service(&mut self, key: &ObjectKey, service: &Service) {
        if self.has_service(key) {
            let front = ServiceAddresses::of(service);
            self.dirty |= self.front.get(key) != Some(&front);
            self.front.insert(key.clone(), front);
        }
    }

    /// Removes a Service.
    pub(super) fn remove_service(&mut self, key: &ObjectKey) {
        self.dirty |= self.front.remove(key).is_some();
    }

    /// Adds or updates a slice of `service`. Every address counts, because a pod belongs to the installation
    /// also while it is not ready.
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

    /// Removes a slice.
    pub(super) fn remove_slice(&mut self, key: &ObjectKey) {
        self.dirty |= self.pods.remove(key).is_some();
    }

    /// Makes the next [`OwnAddresses::settle`] return all addresses, like the first one.
    pub(super) fn tell_all(&mut self) {
        self.dirty = !self.services.is_empty();
    }

    /// The installation's Services that do not exist.
    pub(super) fn missing(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.iter().filter(|service| !self.front.contains_key(*service))
    }

    /// Applies the changes since the last call. Returns the difference, if there is any.
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
