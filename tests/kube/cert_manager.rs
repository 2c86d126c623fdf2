//! Certificates by cert-manager's own controllers, and sluice that serves them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use libtest_mimic::Trial;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use testkit::{echo_at, wait_until};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::controlled::{Sluice, manifest};
use crate::objects::account;
use crate::status::get;
use crate::support::{ApiServer, CertManager, Kubeconfig, PATIENCE, slow, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        slow!(cert_manager_issues_and_renews_without_sluice),
        slow!(a_renewed_certificate_is_live_and_leaves_open_connections_alone),
    ]
}

/// An issuer that lets certificates sign themselves, one of an authority that the first one has signed, and
/// the authority.
const ISSUERS: &str = "
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: { name: self-signed }
spec: { selfSigned: {} }
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: { name: authority }
spec:
  secretName: authority
  commonName: the authority of a test
  isCA: true
  privateKey: { algorithm: ECDSA, rotationPolicy: Always }
  issuerRef: { name: self-signed }
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: { name: authority }
spec: { ca: { secretName: authority } }
";

/// A Certificate, whose Secret has its name and the ending `-tls`.
fn certificate(name: &str, issuer: &str, dns_names: &str, algorithm: &str) -> String {
    format!(
        "apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{ name: {name} }}
spec:
  secretName: {name}-tls
  dnsNames: [{dns_names}]
  privateKey: {{ algorithm: {algorithm}, rotationPolicy: Always }}
  issuerRef: {{ name: {issuer} }}
"
    )
}

/// A namespace with the issuers, in which objects are applied.
struct Issued<'a> {
    api: &'a ApiServer,
    namespace: &'static str,
}

impl<'a> Issued<'a> {
    fn new(api: &'a ApiServer, namespace: &'static str) -> Self {
        api.namespace(namespace);
        let issued = Issued { api, namespace };
        issued.apply(ISSUERS);
        issued.await_ready("authority");
        issued
    }

    fn apply(&self, objects: &str) {
        succeeded(self.api.admin().apply_with(&["-n", self.namespace], objects));
    }

    /// Waits until a Certificate's Secret has what its spec asks for.
    fn await_ready(&self, name: &str) {
        let path = "jsonpath={.metadata.generation} {range .status.conditions[*]}\
                    {.type}={.status}/{.observedGeneration} {end}";
        wait_until(&format!("Certificate {name} is ready"), || {
            let told = self.get("certificate", name, path);
            let generation = told.split(' ').next().unwrap_or_default();
            !generation.is_empty()
                && told.contains(&format!(" Ready=True/{generation} "))
                && !told.contains("Issuing=True")
        });
    }

    /// What `cmctl renew` does: a condition that the user sets.
    fn renew(&self, name: &str) {
        let condition = r#"{"type":"Issuing","status":"True","reason":"ManuallyTriggered"}"#;
        let patch =
            format!(r#"[{{"op":"add","path":"/status/conditions/-","value":{condition}}}]"#);
        let of = ["-n", self.namespace, "patch", "certificate", name, "--subresource=status"];
        succeeded(self.api.admin().kubectl(&[&of[..], &["--type=json", "-p", &patch]].concat()));
    }

    /// The Secret of a Certificate, once it has one.
    fn secret(&self, name: &str) -> Pair {
        let secret = within(PATIENCE, &format!("the Secret of {name}"), || {
            let text = self.get("secret", name, "json");
            serde_json::from_str::<Value>(&text).ok()
        });
        assert_eq!(secret["type"], "kubernetes.io/tls", "{name}");
        Pair::of(&secret["data"])
    }

    fn get(&self, kind: &str, name: &str, output: &str) -> String {
        let get = ["get", kind, name, "-n", self.namespace, "--ignore-not-found", "-o", output];
        succeeded(self.api.admin().kubectl(&get))
    }
}

/// What a Secret of cert-manager holds.
#[derive(PartialEq)]
struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    authority: CertificateDer<'static>,
}

impl Pair {
    fn of(data: &Value) -> Self {
        let pem = |key: &str| decoded(data[key].as_str().unwrap_or_else(|| panic!("no {key}")));
        let chain = CertificateDer::pem_slice_iter(&pem("tls.crt")).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(&pem("tls.key")).unwrap().secret_der().to_vec();
        let authority = CertificateDer::from_pem_slice(&pem("ca.crt")).unwrap();
        Pair { chain, key, authority }
    }

    fn serial(&self) -> String {
        serial(&self.chain[0])
    }

    fn names(&self) -> Vec<String> {
        let (_, parsed) = X509Certificate::from_der(&self.chain[0]).unwrap();
        let names = parsed.subject_alternative_name().unwrap().expect("names");
        let dns_name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            other => panic!("{other:?}"),
        };
        names.value.general_names.iter().map(dns_name).collect()
    }

    /// Panics unless a server that has it can prove so to a client that knows its authority.
    fn assert_sound(&self) {
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        rustls::sign::CertifiedKey::new(self.chain.clone(), key).keys_match().unwrap();
        let (_, leaf) = X509Certificate::from_der(&self.chain[0]).unwrap();
        let (_, authority) = X509Certificate::from_der(&self.authority).unwrap();
        assert_eq!(leaf.issuer(), authority.subject());
    }
}

/// Base64 as the API server writes it.
fn decoded(base64: &str) -> Vec<u8> {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(base64.into()).unwrap();
    bytes.0
}

fn serial(certificate: &CertificateDer<'_>) -> String {
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the tests of sluice take for granted: the controllers work here, without a webhook.
fn cert_manager_issues_and_renews_without_sluice() {
    let api = ApiServer::start();
    let _cert_manager = CertManager::start(&api);
    let issued = Issued::new(&api, "issued");
    for (name, issuer, algorithm) in [
        ("alone", "self-signed", "RSA"),
        ("app", "authority", "ECDSA"),
        ("rsa", "authority", "RSA"),
    ] {
        issued.apply(&certificate(name, issuer, "app.test, '*.app.test'", algorithm));
        issued.await_ready(name);
        let pair = issued.secret(&format!("{name}-tls"));
        assert_eq!(pair.names(), ["app.test", "*.app.test"], "{name}");
        pair.assert_sound();
        let alone = pair.chain[0] == pair.authority;
        assert_eq!(alone, issuer == "self-signed", "{name}");
    }
    let before = issued.secret("app-tls");
    assert!(before.authority == issued.secret("authority").chain[0]);

    issued.renew("app");
    wait_until("the Secret is renewed", || issued.secret("app-tls") != before);
    issued.await_ready("app");
    let renewed = issued.secret("app-tls");
    assert_ne!(renewed.serial(), before.serial());
    assert!(renewed.key != before.key, "the key rotates too");
    renewed.assert_sound();

    issued.apply(&certificate("app", "authority", "new.test", "ECDSA"));
    wait_until("the names change", || issued.secret("app-tls").names() == ["new.test"]);
    issued.secret("app-tls").assert_sound();
}

fn a_renewed_certificate_is_live_and_leaves_open_connections_alone() {
    let api = ApiServer::start();
    api.install_crds();
    let _cert_manager = CertManager::start(&api);
    let issued = Issued::new(&api, "served");
    let namespace = issued.namespace;
    let backend = echo_at("198.18.1.2:0");
    // The route is there before its certificate is.
    let spec = format!(
        "hostnames: [app.test, '*.app.test']\n  backends: [{{ address: '{backend}' }}]\n  \
         tls: {{ mode: Terminate, certificates: [{{ secret: app-tls }}] }}"
    );
    issued.apply(&manifest(namespace, "app", "served", &spec));
    let account = account_with_secrets(&api, namespace);
    let sluice = Sluice::start(&account, "served", &["--require-class", "--terminate"]);
    let reason = "jsonpath={.status.conditions[?(@.type=='ResolvedRefs')].reason}";
    wait_until("sluice waits for the certificate", || {
        get(&api, namespace, "app", reason) == "InvalidCertificateRef"
    });
    let authority = issued.secret("authority").authority;
    assert!(Opened::by_name(sluice.address, "app.test", &authority).is_none());

    issued.apply(&certificate("app", "authority", "app.test, '*.app.test'", "ECDSA"));
    let open = |name: &str, serial: &str| {
        within(PATIENCE, &format!("{name} is served with {serial}"), || {
            Opened::by_name(sluice.address, name, &authority)
                .filter(|opened| opened.serial() == serial)
        })
    };
    issued.await_ready("app");
    let first = issued.secret("app-tls").serial();
    let mut old = open("app.test", &first);
    let mut of_a_subdomain = open("a.app.test", &first);
    wait_until("the route is resolved", || get(&api, namespace, "app", reason) == "ResolvedRefs");

    issued.renew("app");
    wait_until("it is renewed", || issued.secret("app-tls").serial() != first);
    let second = issued.secret("app-tls").serial();
    let mut new = open("app.test", &second);
    assert_eq!(old.serial(), first);
    for opened in [&mut old, &mut of_a_subdomain, &mut new] {
        opened.assert_open();
    }

    // Another key, of another kind, by another authority: its own.
    issued.apply(&certificate("app", "self-signed", "app.test", "RSA"));
    let third = within(PATIENCE, "the Secret of the other issuer", || {
        Some(issued.secret("app-tls")).filter(|pair| pair.chain[0] == pair.authority)
    });
    let mut signed_by_itself = within(PATIENCE, "it is served", || {
        Opened::by_name(sluice.address, "app.test", &third.authority)
    });
    assert_eq!(signed_by_itself.serial(), third.serial());
    for opened in [&mut old, &mut of_a_subdomain, &mut new, &mut signed_by_itself] {
        opened.assert_open();
    }
}

/// An account of sluice that may read the Secrets of its namespace too.
fn account_with_secrets(api: &ApiServer, namespace: &str) -> Kubeconfig {
    let account = account(api, namespace);
    let of = ["-n", namespace];
    let role = ["create", "role", "secrets", "--verb=get,list,watch", "--resource=secrets"];
    succeeded(api.admin().kubectl(&[&role[..], &of].concat()));
    let subject = format!("--serviceaccount={namespace}:sluice");
    let binding = ["create", "rolebinding", "secrets", "--role=secrets", &subject];
    succeeded(api.admin().kubectl(&[&binding[..], &of].concat()));
    account
}

/// A connection that stays open, to a server that sends back what it receives.
struct Opened(StreamOwned<ClientConnection, TcpStream>);

impl Opened {
    /// Nothing if there is no such server, or it has no certificate by this authority.
    fn by_name(
        sluice: SocketAddr,
        name: &str,
        authority: &CertificateDer<'static>,
    ) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(sluice).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut opened = Opened(StreamOwned::new(connection, stream));
        opened.echoes().then_some(opened)
    }

    fn echoes(&mut self) -> bool {
        let mut back = [0; 10];
        self.0.write_all(b"still here").is_ok()
            && self.0.read_exact(&mut back).is_ok()
            && &back == b"still here"
    }

    fn assert_open(&mut self) {
        assert!(self.echoes(), "a connection with certificate {}", self.serial());
    }

    fn serial(&self) -> String {
        serial(&self.0.conn.peer_certificates().expect("after the handshake")[0])
    }
}
