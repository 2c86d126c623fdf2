//! From the text of an object to what is used of it.
//!
//! The types here have those fields alone, so that nothing else in an object can be at fault. Whoever
//! uses one more field of a Service or an EndpointSlice adds it here.

use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use serde::Deserialize;

use crate::control::api::{
    FieldFault, ReferenceGrant, ReferenceGrantSpec, RouteClaims, SniRoute, SniRouteSpec,
};
use crate::control::build::UnreadableRoute;
use crate::control::objects::{Head, ObjectText};
use crate::yaml::FieldPath;

#[derive(Deserialize)]
struct Specified<S> {
    spec: S,
}

#[derive(Deserialize)]
struct UsedService {
    spec: Option<UsedServiceSpec>,
    status: Option<UsedServiceStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsedServiceSpec {
    r#type: Option<String>,
    external_name: Option<String>,
    ports: Option<Vec<UsedServicePort>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsedServiceStatus {
    load_balancer: Option<UsedLoadBalancer>,
}

#[derive(Deserialize)]
struct UsedLoadBalancer {
    ingress: Option<Vec<UsedIngress>>,
}

#[derive(Deserialize)]
struct UsedIngress {
    ip: Option<String>,
    hostname: Option<String>,
}

#[derive(Deserialize)]
struct UsedServicePort {
    name: Option<String>,
    port: i32,
    protocol: Option<String>,
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

/// The route that an object is, or the field that is at fault and why.
pub(super) fn route(head: &Head, text: &ObjectText) -> Result<SniRoute, FieldFault> {
    let Specified { spec } = text.parse::<Specified<SniRouteSpec>>()?;
    // The oldest route wins, and one of an unknown age must not be taken for that.
    if head.created.is_err() {
        let field = FieldPath::parse("metadata.creationTimestamp");
        return Err(FieldFault { field, message: "is no time that can be read".to_owned() });
    }
    Ok(SniRoute { metadata: head.metadata(), spec, status: None })
}

/// A route that cannot be read, as far as it can.
pub(super) fn unreadable_route(head: &Head, text: &ObjectText, why: &str) -> UnreadableRoute {
    let class = text.field(&["spec", "className"]);
    // Of one that has no age that can be read, it is not known before whom its claims come.
    let claims = head.created.is_ok().then(|| text.parse::<Specified<RouteClaims>>().ok());
    UnreadableRoute {
        metadata: head.metadata(),
        class: class.map_or(Some(None), |class| serde_json::from_slice(class).ok()),
        claims: claims.flatten().map(|Specified { spec }| spec),
        why: why.to_owned(),
    }
}

pub(super) fn service(head: &Head, text: &ObjectText) -> Result<Service, FieldFault> {
    let UsedService { spec, status } = text.parse()?;
    let port = |port: UsedServicePort| ServicePort {
        name: port.name,
        port: port.port,
        protocol: port.protocol,
        ..ServicePort::default()
    };
    let spec = spec.map(|spec| ServiceSpec {
        type_: spec.r#type,
        external_name: spec.external_name,
        ports: spec.ports.map(|ports| ports.into_iter().map(port).collect()),
        cluster_ip: spec.cluster_ip,
        cluster_ips: spec.cluster_ips,
        external_ips: spec.external_ips,
        ..ServiceSpec::default()
    });
    let ingress = |ingress: UsedIngress| LoadBalancerIngress {
        ip: ingress.ip,
        hostname: ingress.hostname,
        ..LoadBalancerIngress::default()
    };
    let load_balancer = |balancer: UsedLoadBalancer| LoadBalancerStatus {
        ingress: balancer.ingress.map(|all| all.into_iter().map(ingress).collect()),
    };
    let status = status.map(|status| ServiceStatus {
        load_balancer: status.load_balancer.map(load_balancer),
        ..ServiceStatus::default()
    });
    Ok(Service { metadata: head.metadata(), spec, status })
}

pub(super) fn slice(head: &Head, text: &ObjectText) -> Result<EndpointSlice, FieldFault> {
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

pub(super) fn grant(head: &Head, text: &ObjectText) -> Result<ReferenceGrant, FieldFault> {
    let Specified { spec } = text.parse::<Specified<ReferenceGrantSpec>>()?;
    Ok(ReferenceGrant { metadata: head.metadata(), spec })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(object: &Value) -> (Head, ObjectText) {
        let text = ObjectText::new(object.to_string().as_bytes());
        (text.head(), text)
    }

    /// What is used, and nothing else: it is read as it is by whoever reads all.
    #[test]
    fn what_is_used_is_read() {
        let metadata = json!({
            "name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "kubernetes.io/service-name": "s" },
        });
        let object = json!({
            "metadata": metadata,
            "spec": {
                "type": "ExternalName", "externalName": "example.com",
                "ports": [{ "name": "tls", "port": 443, "protocol": "TCP" }],
                "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
                "externalIPs": ["192.0.2.1"],
            },
            "status": { "loadBalancer": { "ingress": [
                { "ip": "192.0.2.2" }, { "hostname": "lb.example.com" },
            ] } },
        });
        let (head, service_text) = text(&object);
        let typed: Service = serde_json::from_value(object).unwrap();
        assert_eq!(service(&head, &service_text), Ok(typed));
        let object = json!({
            "metadata": metadata, "addressType": "IPv4",
            "ports": [{ "name": "tls", "port": 443, "protocol": "TCP" }, { "port": null }],
            "endpoints": [
                { "addresses": ["192.0.2.1"] },
                { "addresses": [], "conditions": { "ready": false, "serving": true, "terminating": true } },
            ],
        });
        let (head, slice_text) = text(&object);
        let typed: EndpointSlice = serde_json::from_value(object).unwrap();
        assert_eq!(slice(&head, &slice_text), Ok(typed));
    }
}
