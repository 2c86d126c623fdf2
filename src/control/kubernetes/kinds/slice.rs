//! `EndpointSlice`, as far as it is used.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use serde::Deserialize;

use super::{IncomingObject, WatchedKind};
use crate::control::api::FieldFault;
use crate::control::translate::Builder;
use crate::routing::Kind;

#[derive(Debug)]
pub(super) struct EndpointSlices;

impl WatchedKind for EndpointSlices {
    fn kind(&self) -> Kind {
        Kind::EndpointSlice
    }

    fn put(&self, object: &IncomingObject<'_>, builder: &mut Builder) -> Result<(), FieldFault> {
        builder.put_slice(&slice(object)?);
        Ok(())
    }
}

pub(super) fn slice(
    IncomingObject { head, text }: &IncomingObject<'_>,
) -> Result<EndpointSlice, FieldFault> {
    let UsedSlice { address_type, endpoints, ports } = text.parse()?;
    let conditions = |conditions: UsedConditions| EndpointConditions {
        ready: conditions.ready,
        serving: conditions.serving,
        terminating: conditions.terminating,
    };
    let endpoint = |endpoint: UsedEndpoint| Endpoint {
        addresses: endpoint.addresses.unwrap_or_default(),
        conditions: endpoint.conditions.map(conditions),
        ..Endpoint::default()
    };
    let port = |port: UsedEndpointPort| EndpointPort {
        name: port.name,
        port: port.port,
        protocol: port.protocol,
        ..EndpointPort::default()
    };
    Ok(EndpointSlice {
        metadata: head.metadata(),
        address_type,
        endpoints: endpoints.map(|endpoints| endpoints.into_iter().map(endpoint).collect()),
        ports: ports.map(|ports| ports.into_iter().map(port).collect()),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsedSlice {
    address_type: String,
    endpoints: Option<Vec<UsedEndpoint>>,
    ports: Option<Vec<UsedEndpointPort>>,
}

#[derive(Deserialize)]
struct UsedEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<UsedConditions>,
}

#[derive(Deserialize)]
struct UsedConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct UsedEndpointPort {
    name: Option<String>,
    port: Option<i32>,
    protocol: Option<String>,
}
