//! Backends, and the rules over one of them.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Address, Namespace, ServiceName, schema};
use crate::policy::InvalidValue;
use crate::routing::ServicePort;

const MAX_WEIGHT: u32 = 1_000_000;

/// A backend of a route, which gets a share of its connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BackendFields", into = "BackendFields")]
pub struct BackendRef {
    /// The Service or address.
    pub target: BackendTarget,
    /// Its share of the connections, relative to the sum of all weights; at most 1,000,000.
    pub weight: u32,
}

/// A backend is either a Service or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// A port of a Service.
    Service(ServiceRef),
    /// An address outside the cluster.
    Address(Address),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(expecting = "an object with a name and a port")]
pub struct ServiceRef {
    /// The Service's namespace. Without it: the namespace of the route. A Service of another
    /// namespace is used only as long as a ReferenceGrant there allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Namespace")]
    pub namespace: Option<Namespace>,

    /// The Service's name.
    pub name: ServiceName,

    /// The port of the Service, by its number (`443`, without quotes) or its name (`https`).
    /// Connections go to the endpoints of that port, not to the Service's own address.
    pub port: ServicePort,
}

/// A backend is either a Service or an address.
// Optional fields have the schema of what they hold: `null` is nothing to write here, and CEL's
// `has` would take it for a value.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(expecting = "a backend with a service or an address")]
#[schemars(extend("x-kubernetes-validations" = [schema::rule_telling(
    "has(self.service) != has(self.address)",
    "(has(self.service) ? 'has both service and address' : 'has neither service nor address') \
     + '; give exactly one'"
)]))]
struct BackendFields {
    /// A port of a Service, whose ready endpoints get the connections. Either this or `address` is
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ServiceRef")]
    service: Option<ServiceRef>,

    /// An address outside the cluster: an IP address or a DNS name with a port, such as
    /// `203.0.113.7:9093`, `[2001:db8::7]:9093` or `kafka.example.com:9093`. A name is looked up as
    /// it stands, without search domains, and again when its records expire. Either this or
    /// `service` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Address")]
    address: Option<Address>,

    /// The share of the connections that this backend gets, relative to the sum of all weights: of
    /// two backends with the weights 90 and 10, the second gets a tenth. A backend of weight 0 gets
    /// none. At most 1,000,000.
    #[serde(default = "default_weight", deserialize_with = "weight")]
    #[schemars(with = "i32", range(min = 0, max = 1_000_000))]
    weight: u32,
}

fn default_weight() -> u32 {
    1
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        weight @ 0..=MAX_WEIGHT => Ok(weight),
        weight => Err(D::Error::custom(format!("{weight} is over the maximum of {MAX_WEIGHT}"))),
    }
}

impl TryFrom<BackendFields> for BackendRef {
    type Error = InvalidValue;

    fn try_from(fields: BackendFields) -> Result<Self, InvalidValue> {
        let target = match (fields.service, fields.address) {
            (Some(service), None) => BackendTarget::Service(service),
            (None, Some(address)) => BackendTarget::Address(address),
            (Some(_), Some(_)) => {
                return Err(InvalidValue::new("has both service and address; give exactly one"));
            }
            (None, None) => {
                return Err(InvalidValue::new("has neither service nor address; give exactly one"));
            }
        };
        Ok(BackendRef { target, weight: fields.weight })
    }
}

impl From<BackendRef> for BackendFields {
    fn from(backend: BackendRef) -> Self {
        let (service, address) = match backend.target {
            BackendTarget::Service(service) => (Some(service), None),
            BackendTarget::Address(address) => (None, Some(address)),
        };
        BackendFields { service, address, weight: backend.weight }
    }
}

impl JsonSchema for BackendRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Backend".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        BackendFields::json_schema(generator)
    }
}
