//! `EndpointSlice`, as far as it is used.

use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
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
    let hints = |hints: UsedHints| EndpointHints {
        for_nodes: hints.for_nodes.map(|named| named.into_iter().map(for_node).collect()),
        for_zones: hints.for_zones.map(|named| named.into_iter().map(for_zone).collect()),
    };
    let endpoint = |endpoint: UsedEndpoint| Endpoint {
        addresses: endpoint.addresses.unwrap_or_default(),
        conditions: endpoint.conditions.map(conditions),
        hints: endpoint.hints.map(hints),
        node_name: endpoint.node_name,
        zone: endpoint.zone,
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

fn for_node(named: Named) -> ForNode {
    ForNode { name: named.name }
}

fn for_zone(named: Named) -> ForZone {
    ForZone { name: named.name }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsedEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<UsedConditions>,
    hints: Option<UsedHints>,
    node_name: Option<String>,
    zone: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsedHints {
    for_nodes: Option<Vec<Named>>,
    for_zones: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
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
