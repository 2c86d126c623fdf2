//! The problems of backends that cannot be resolved.

use std::fmt::Display;
use std::net::SocketAddr;

use super::endpoints::ADDRESSES_OF_A_SERVICE;
use super::names::{ADDRESSES_OF_A_NAME, NAMES_OF_A_NAMESPACE, NameFault};
use crate::reach::EndpointRefusal;
use crate::routing::{ObjectKey, RouteKey};

/// Why a backend cannot be resolved.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    /// The reason, one CamelCase word.
    pub(super) reason: &'static str,
    /// The field of the backend that is at fault.
    pub(super) field: &'static str,
    /// The message, for people.
    pub(super) message: String,
}

impl Unresolved {
    pub(super) fn no_service(key: &ObjectKey) -> Self {
        Unresolved {
            reason: "BackendNotFound",
            field: "service.name",
            message: format!("there is no Service {key}"),
        }
    }

    pub(super) fn not_granted(route: &RouteKey, service: &ObjectKey) -> Self {
        Unresolved {
            reason: "RefNotPermitted",
            field: "service.namespace",
            message: format!(
                "no ReferenceGrant in namespace {} lets the {}s of {} refer to Service {}",
                service.namespace(),
                route.kind(),
                route.namespace(),
                service.name()
            ),
        }
    }

    /// An endpoint is forbidden. `field` is the field that led there. `left` is whether there are other
    /// endpoints.
    pub(super) fn not_permitted(
        endpoint: SocketAddr,
        why: EndpointRefusal,
        left: bool,
        field: &'static str,
    ) -> Self {
        let ip = endpoint.ip();
        match (why.is_own(), left) {
            (true, false) => Unresolved::leads_to_itself_by(format!("{endpoint} {why}"), field),
            (true, true) => Unresolved {
                reason: "LeadsToItself",
                field,
                message: format!("{endpoint} {why}, and gets no connection"),
            },
            (false, _) => Unresolved {
                reason: "AddressNotPermitted",
                field,
                message: match left {
                    true => format!("{ip} {why}, and gets no connection"),
                    false => format!("{ip} {why}; write an address of the network"),
                },
            },
        }
    }

    /// A backend leads to the installation itself.
    pub(super) fn leads_to_itself(what: impl Display, field: &'static str) -> Self {
        Unresolved::leads_to_itself_by(format!("{what} leads to sluice itself"), field)
    }

    fn leads_to_itself_by(said: String, field: &'static str) -> Self {
        Unresolved {
            reason: "LeadsToItself",
            field,
            message: format!("{said}; name what is behind sluice"),
        }
    }

    /// A port of a Service has `all` addresses, more than its share of the Service's limit.
    pub(super) fn too_many_addresses(service: &ObjectKey, all: usize, used: usize) -> Self {
        Unresolved {
            reason: "TooManyAddresses",
            field: "service.name",
            message: format!(
                "Service {service} has more than {ADDRESSES_OF_A_SERVICE} addresses at the ports \
                 that routes name; of the {all} at this one, {used} are used"
            ),
        }
    }

    /// `held` is whether the addresses of an earlier answer are still used.
    pub(super) fn no_answer(
        name: &str,
        fault: &NameFault,
        held: bool,
        field: &'static str,
    ) -> Self {
        match fault {
            NameFault::NotResolved(why) => {
                let meanwhile = if held { "; its last known addresses are still used" } else { "" };
                Unresolved {
                    reason: "NameNotResolved",
                    field,
                    message: format!("{name} cannot be resolved: {why}{meanwhile}"),
                }
            }
            NameFault::TooManyNames => Unresolved {
                reason: "TooManyNames",
                field,
                message: format!(
                    "{name} is not looked up: the routes of this namespace lead to more than \
                     {NAMES_OF_A_NAMESPACE} DNS names; only those of the oldest routes are looked up"
                ),
            },
            NameFault::TooManyAddresses => Unresolved {
                reason: "TooManyAddresses",
                field,
                message: format!(
                    "{name} has more than {ADDRESSES_OF_A_NAME} addresses, of which the first are \
                     used"
                ),
            },
        }
    }
}
