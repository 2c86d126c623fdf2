//! Objects of one namespace, for more changes than kubectl makes in a short time.

use std::net::SocketAddr;

use futures::{StreamExt, stream};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind, Request};
use serde_json::{Value, json};
use testkit::greeter_at;
use tokio::runtime::{self, Runtime};

use crate::support::{ApiServer, Kubeconfig, PATIENCE, succeeded, within};

const ROLE: &str = include_str!("../../deploy/clusterrole.yaml");

/// How many requests are under way at a time, of those that make or change many objects.
const AT_A_TIME: usize = 16;

pub(crate) struct Objects {
    runtime: Runtime,
    client: kube::Client,
    namespace: String,
}

impl Objects {
    pub(crate) fn of(user: &Kubeconfig, namespace: &str) -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(user.client());
        Objects { runtime, client, namespace: namespace.to_owned() }
    }

    /// Applies one, and returns when the API server has it.
    pub(crate) fn put(&self, object: &Value) {
        self.runtime.block_on(self.apply(object));
    }

    /// Applies many at the same time.
    pub(crate) fn put_all(&self, objects: impl IntoIterator<Item = Value>) {
        let all = stream::iter(objects).for_each_concurrent(AT_A_TIME, async |object| {
            self.apply(&object).await;
        });
        self.runtime.block_on(all);
    }

    /// Deletes one. Of `object`, only kind and name count.
    pub(crate) fn delete(&self, object: &Value) {
        let deleted = self.runtime.block_on(self.api(object).delete(name(object), &<_>::default()));
        deleted.unwrap_or_else(|error| panic!("{object}: {error}"));
    }

    /// Merges a patch into one, and returns its text.
    pub(crate) fn merge(&self, object: &Value, patch: &Value) -> String {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        self.runtime.block_on(self.patch(object, &parameters, &patch)).unwrap()
    }

    /// Merges a patch into many at the same time. Each text that comes back goes to `answered`.
    pub(crate) fn merge_all(&self, objects: &[Value], patch: &Value, answered: impl Fn(&str)) {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let all = stream::iter(objects).for_each_concurrent(AT_A_TIME, async |object| {
            answered(&self.patch(object, &parameters, &patch).await.unwrap());
        });
        self.runtime.block_on(all);
    }

    async fn apply(&self, object: &Value) {
        let parameters = PatchParams::apply("test").force();
        let applied = self.patch(object, &parameters, &Patch::Apply(object)).await;
        applied.unwrap_or_else(|error| panic!("{object}: {error}"));
    }

    /// What is answered may be an object that cannot be parsed.
    async fn patch(
        &self,
        object: &Value,
        parameters: &PatchParams,
        patch: &Patch<&Value>,
    ) -> kube::Result<String> {
        let request = Request::new(self.api(object).resource_url());
        let request = request.patch(name(object), parameters, patch).unwrap();
        self.client.request_text(request).await
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let text = |key: &str| object[key].as_str().unwrap();
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", "v1"));
        let kind = GroupVersionKind::gvk(group, version, text("kind"));
        let resource = ApiResource::from_gvk(&kind);
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// A route to a [`service`].
pub(crate) fn route(name: &str, class: &str, hostname: &str, service: &str) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "SniRoute",
        "metadata": { "name": name },
        "spec": {
            "className": class,
            "hostnames": [hostname],
            "backends": [{ "service": { "name": service, "port": "tls" } }],
        },
    })
}

/// A headless Service: making one takes the API server least.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": { "clusterIP": "None", "ports": [{ "name": "tls", "port": 443 }] },
    })
}

/// The endpoints of a [`service`], which have the same port.
pub(crate) fn slice(service: &str, endpoints: &[SocketAddr]) -> Value {
    let port = endpoints.first().map_or(1, SocketAddr::port);
    let endpoints: Vec<Value> =
        endpoints.iter().map(|endpoint| json!({ "addresses": [endpoint.ip()] })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": service,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "tls", "port": port }],
        "endpoints": endpoints,
    })
}

/// Two servers on the same port, as the endpoints of one slice are. They say that they are "one"
/// and "two", and echo.
pub(crate) fn servers([one, two]: [&str; 2]) -> [SocketAddr; 2] {
    let one = greeter_at((one, 0), "one");
    [one, greeter_at((two, one.port()), "two")]
}

/// A sluice's account: bound to just the roles that are shipped.
pub(crate) fn account(api: &ApiServer, namespace: &str) -> Kubeconfig {
    install_role(api);
    let account = api.service_account(namespace, "sluice", "sluice");
    bind_role(api, namespace);
    account
}

/// Gives a sluice's account its role in its own namespace.
pub(crate) fn bind_role(api: &ApiServer, namespace: &str) {
    let role = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/role.yaml");
    succeeded(api.admin().kubectl(&["apply", "-n", namespace, "-f", role]));
    let binding = ["create", "rolebinding", "sluice", "--role=sluice", "-n", namespace];
    let subject = format!("--serviceaccount={namespace}:sluice");
    succeeded(api.admin().kubectl(&[&binding[..], &[&subject]].concat()));
}

/// Applies the cluster role that is shipped. Of tests that do so at the same time, one fails to
/// make it.
pub(crate) fn install_role(api: &ApiServer) {
    within(PATIENCE, "the role is there", || {
        api.admin().apply(ROLE).status.success().then_some(())
    });
}
