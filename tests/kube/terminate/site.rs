//! A route that serves TLS, and its clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use testkit::{Authority, Identity};

use super::{account, route};
use crate::controlled::Sluice;
use crate::support::{ApiServer, Kubeconfig, PATIENCE, succeeded, within};

/// The status of a route that is served.
pub(super) const SERVED: &str = crate::status::GOOD;
/// The status of a route whose Secret does not exist.
pub(super) const NOT_READY: &str = "Accepted=True/Accepted/1 ResolvedRefs=False/InvalidCertificateRef/1 \
                                    Programmed=False/CertificateNotReady/1 ";

/// A sluice with a route for `app.test`, whose certificate is in the Secret `app`.
pub(super) struct Site {
    pub(super) api: &'static ApiServer,
    pub(super) namespace: &'static str,
    pub(super) sluice: Sluice,
    pub(super) authority: Authority,
    client: Arc<ClientConfig>,
}

impl Site {
    pub(super) fn new(namespace: &'static str, class: &str) -> Self {
        Site::with(namespace, class, &[])
    }

    pub(super) fn with(namespace: &'static str, class: &str, arguments: &[&str]) -> Self {
        let api = ApiServer::shared();
        api.namespace(namespace);
        let account = terminating(api, namespace);
        let sluice = Sluice::start(&account, class, &arguments_with(arguments));
        succeeded(api.admin().apply(&route(namespace, class)));
        sluice.await_ready();
        let authority = Authority::new();
        let client = TlsClient::config(&authority);
        Site { api, namespace, sluice, authority, client }
    }

    /// Puts a new certificate into a Secret.
    pub(super) fn put_secret(&self, name: &str) -> Identity {
        let identity = self.authority.issue(&["app.test"]);
        succeeded(self.api.admin().apply(&secret(self.namespace, name, &identity)));
        identity
    }

    pub(super) fn patch_secret(&self, name: &str, patch: &Value) {
        let patch = patch.to_string();
        let of = ["-n", self.namespace, "--type", "merge", "-p", &patch];
        succeeded(self.api.admin().kubectl(&[&["patch", "secret", name], &of[..]].concat()));
    }

    pub(super) fn connect(&self) -> std::io::Result<TlsClient> {
        TlsClient::connect(&self.client, self.sluice.address, "app.test")
    }

    /// The first connection that is served.
    pub(super) fn connect_patiently(&self) -> TlsClient {
        within(PATIENCE, "the route is served", || self.connect().ok())
    }

    /// The first connection with this certificate.
    pub(super) fn await_certificate(&self, identity: &Identity) -> TlsClient {
        within(PATIENCE, "the certificate is served", || {
            self.connect().ok().filter(|client| client.has(identity))
        })
    }
}

pub(super) fn arguments_with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--require-class", "--terminate"], more].concat()
}

/// A sluice's account that may also read Secrets, by the role that is shipped.
pub(super) fn terminating(api: &ApiServer, namespace: &str) -> Kubeconfig {
    let account = account(api, namespace);
    let role = include_str!("../../../deploy/clusterrole-terminate.yaml");
    // Of tests that do so at the same time, one fails to make it.
    within(PATIENCE, "the role is there", || {
        api.admin().apply(role).status.success().then_some(())
    });
    let binding = ["create", "clusterrolebinding", &format!("{namespace}-terminate")];
    let subject = format!("--serviceaccount={namespace}:sluice");
    let of = ["--clusterrole=sluice-terminate", &subject];
    succeeded(api.admin().kubectl(&[&binding[..], &of].concat()));
    account
}

/// A Secret with a certificate and its key.
pub(super) fn secret(namespace: &str, name: &str, identity: &Identity) -> String {
    let mut object = secret_object(name, identity);
    object["metadata"]["namespace"] = json!(namespace);
    object.to_string()
}

/// The same, in whatever namespace it is put.
pub(super) fn secret_object(name: &str, identity: &Identity) -> Value {
    let text = |path| std::fs::read_to_string(path).unwrap();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": { "name": name },
        "stringData": {
            "tls.crt": text(&identity.certificate_file), "tls.key": text(&identity.key_file),
        },
    })
}

/// A connection that speaks TLS with sluice.
pub(super) struct TlsClient(StreamOwned<ClientConnection, TcpStream>);

impl TlsClient {
    /// What clients have in common: whom they trust, and their tickets.
    pub(super) fn config(authority: &Authority) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// A connection that has shaken hands.
    pub(super) fn connect(
        config: &Arc<ClientConfig>,
        address: SocketAddr,
        name: &'static str,
    ) -> std::io::Result<Self> {
        let name = ServerName::try_from(name).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(TlsClient(StreamOwned::new(connection, stream)))
    }

    /// It carries what is sent, both ways.
    pub(super) fn echo(&mut self, text: &str) {
        self.try_echo(text).expect("an open connection");
    }

    pub(super) fn try_echo(&mut self, text: &str) -> std::io::Result<()> {
        self.0.write_all(text.as_bytes())?;
        let mut back = vec![0; text.len()];
        self.0.read_exact(&mut back)?;
        assert_eq!(back, text.as_bytes());
        Ok(())
    }

    /// Whether the server has shown this certificate.
    pub(super) fn has(&self, identity: &Identity) -> bool {
        self.0.conn.peer_certificates() == Some(&identity.chain())
    }

    /// Whether it has resumed a session.
    pub(super) fn is_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}
