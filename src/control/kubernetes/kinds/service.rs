//! `Service`, as far as it is used.

use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus,
};
use serde::Deserialize;

use super::{IncomingObject, WatchedKind};
use crate::control::api::FieldFault;
use crate::control::translate::Builder;
use crate::routing::Kind;

#[derive(Debug)]
pub(super) struct Services;

impl WatchedKind for Services {
    fn kind(&self) -> Kind {
        Kind::Service
    }

    fn put(&self, object: &IncomingObject<'_>, builder: &mut Builder) -> Result<(), FieldFault> {
        builder.put_service(&service(object)?);
        Ok(())
    }
}

pub(super) fn service(
    IncomingObject { head, text }: &IncomingObject<'_>,
) -> Result<Service, FieldFault> {
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
