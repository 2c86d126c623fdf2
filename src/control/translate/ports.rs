//! The ports of a Service, and their lookup by number or name.

use ahash::AHashMap as HashMap;
use k8s_openapi::api::core::v1::Service;

use super::unresolved::Unresolved;
use crate::control::api::{DnsName, dns_name};
use crate::routing::{ObjectKey, ServicePort};

/// The maximum number of ports in a message.
const MOST_LISTED: usize = 16;

/// The ports of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePorts {
    /// The `externalName` of a Service of type ExternalName, and the DNS name if it is valid.
    external_name: Option<(Box<str>, Option<DnsName>)>,
    ports: Vec<DeclaredPort>,
}

/// The target of a Service's port.
#[derive(Debug)]
pub(super) enum PortMeaning<'s> {
    /// The endpoints of slices, at the port with this name; empty if it has none.
    Endpoints(&'s str),
    /// A DNS name and the port.
    Name(&'s DnsName, u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct DeclaredPort {
    name: Option<Box<str>>,
    number: i32,
    /// `None` for TCP.
    protocol: Option<Box<str>>,
}

impl ServicePorts {
    pub(super) fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        ServicePorts {
            external_name: spec
                .filter(|spec| spec.type_.as_deref() == Some("ExternalName"))
                .map(|spec| spec.external_name.as_deref().unwrap_or_default())
                .map(|name| (name.into(), dns_name(name))),
            ports: ports
                .iter()
                .map(|port| DeclaredPort {
                    name: port.name.as_deref().map(Into::into),
                    number: port.port,
                    protocol: port.protocol.as_deref().filter(|p| *p != "TCP").map(Into::into),
                })
                .collect(),
        }
    }

    /// Whether the Service stands for a DNS name.
    pub(super) fn has_name(&self) -> bool {
        self.external_name.is_some()
    }

    /// An index for many lookups.
    pub(super) fn index(&self) -> PortIndex<'_> {
        let mut index = PortIndex { service: self, numbers: HashMap::new(), names: HashMap::new() };
        for port in &self.ports {
            prefer(index.numbers.entry(port.number).or_insert(port), port);
            if let Some(name) = port.name.as_deref() {
                prefer(index.names.entry(name).or_insert(port), port);
            }
        }
        index
    }
}

/// Of several matching ports, the first TCP port is used, or else the first port.
fn prefer<'s>(found: &mut &'s DeclaredPort, port: &'s DeclaredPort) {
    if found.protocol.is_some() && port.protocol.is_none() {
        *found = port;
    }
}

/// The ports of a Service by number and by name.
pub(super) struct PortIndex<'s> {
    service: &'s ServicePorts,
    numbers: HashMap<i32, &'s DeclaredPort>,
    names: HashMap<&'s str, &'s DeclaredPort>,
}

impl<'s> PortIndex<'s> {
    /// The target of the port that a route names. `key` is the Service's.
    pub(super) fn find(
        &self,
        key: &ObjectKey,
        wanted: &ServicePort,
    ) -> Result<PortMeaning<'s>, Unresolved> {
        let missing = |why| Unresolved {
            reason: "PortNotFound",
            field: "service.port",
            message: format!("Service {key} {why}"),
        };
        match &self.service.external_name {
            None => {
                let port = self.port(wanted).map_err(missing)?;
                Ok(PortMeaning::Endpoints(port.name.as_deref().unwrap_or_default()))
            }
            Some((_, Some(name))) => {
                Ok(PortMeaning::Name(name, self.outside(wanted).map_err(missing)?))
            }
            Some((text, None)) => Err(Unresolved {
                reason: "UnsupportedService",
                field: "service.name",
                message: format!(
                    "Service {key} has the externalName {text:?}, which is no DNS name"
                ),
            }),
        }
    }

    /// The port of an external name. Such a Service need not list its ports.
    fn outside(&self, wanted: &ServicePort) -> Result<u16, String> {
        match wanted {
            ServicePort::Number(number) if self.service.ports.is_empty() => Ok(*number),
            _ => u16::try_from(self.port(wanted)?.number)
                .map_err(|_| format!("has a port {wanted} that is no port")),
        }
    }

    fn port(&self, wanted: &ServicePort) -> Result<&'s DeclaredPort, String> {
        let found = match wanted {
            ServicePort::Number(number) => self.numbers.get(&i32::from(*number)),
            ServicePort::Name(name) => self.names.get(&**name),
        };
        let Some(port) = found else {
            return Err(format!("has no port {wanted}{}", offered(&self.service.ports)));
        };
        match &port.protocol {
            None => Ok(port),
            Some(protocol) => {
                Err(format!("has port {wanted} for {protocol} only; sluice routes TCP"))
            }
        }
    }
}

fn offered(ports: &[DeclaredPort]) -> String {
    let listed = ports.iter().take(MOST_LISTED).map(|port| match &port.name {
        Some(name) => format!("{} ({name})", port.number),
        None => port.number.to_string(),
    });
    let listed = listed.collect::<Vec<_>>().join(", ");
    match ports.len().saturating_sub(MOST_LISTED) {
        0 if listed.is_empty() => String::new(),
        0 => format!("; it has {listed}"),
        more => format!("; it has {listed} and {more} more"),
    }
}
