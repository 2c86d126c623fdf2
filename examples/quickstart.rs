//! The quick start: two real TLS servers with certificates of a local CA made on the spot, and the
//! sluice binary in front of them. `make run` builds and starts it; Ctrl-C ends all of it.
//!
//! Everything it writes is in `.quickstart`: the CA's certificate and a folder of manifests, which
//! is yours to edit while it runs. `PORT` and `ADMIN_PORT` move sluice's own ports.

// It is a program for a terminal: what it prints is its purpose.
#![allow(clippy::print_stdout)]

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustix::process::{Pid, Signal, kill_process};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio::runtime::Runtime;
use tokio::signal::unix::{self, SignalKind};

const CA: &str = ".quickstart/ca.pem";
const ROUTES: &str = ".quickstart/routes";

/// The servers: a name, and the port that each takes if it is free.
const SERVERS: [(&str, u16); 2] = [("apple", 8444), ("banana", 8445)];

/// How long a client of the servers may take for its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long sluice may take until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one answer to "are you ready?" may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("quickstart: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let port = port_from_env("PORT", 8443)?;
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, port_from_env("ADMIN_PORT", 9901)?));
    // Held until the servers have theirs, so that none of them takes sluice's.
    let held = reserve(port, admin)?;
    let listen: Vec<_> = held.iter().flat_map(TcpListener::local_addr).collect();

    let ca = certificate_authority()?;
    fs::create_dir_all(ROUTES).with_context(|| format!("cannot make {ROUTES}"))?;
    fs::write(CA, ca.pem()).with_context(|| format!("cannot write {CA}"))?;
    let mut servers = Vec::new();
    for (name, preferred) in SERVERS {
        servers.push((name, start_server(name, preferred, &ca)?));
    }
    write_manifests(&servers)?;

    drop(held);
    let guide = guide(port, admin, &servers)?;
    let signals = Signals::catch()?;
    let mut sluice = start_sluice(&listen, admin)?;
    signals.pass_on_to(&sluice);
    if await_ready(&mut sluice, admin)? {
        println!("{guide}");
    }
    let status = sluice.wait().context("cannot wait for sluice")?;
    println!("sluice ended: {status}");
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}

fn port_from_env(variable: &str, default: u16) -> Result<u16> {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(port) if port != 0 => Ok(port),
            _ => bail!("{variable}={text}: not a port"),
        },
        _ => Ok(default),
    }
}

/// Holds sluice's addresses, or says which one is taken and what to do about it.
fn reserve(port: u16, admin: SocketAddr) -> Result<Vec<TcpListener>> {
    let mut held = Vec::new();
    for (address, variable) in [
        (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "PORT"),
        (SocketAddr::from((Ipv6Addr::LOCALHOST, port)), "PORT"),
        (admin, "ADMIN_PORT"),
    ] {
        match TcpListener::bind(address) {
            Ok(listener) => held.push(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                bail!("{address} is in use. Take another port: {variable}=10443 make run")
            }
            // Not every machine has IPv6.
            Err(_) if address.is_ipv6() => {}
            Err(error) => return Err(error).with_context(|| format!("cannot listen on {address}")),
        }
    }
    Ok(held)
}

/// A new CA each time. Its key never leaves this process, so nobody can sign with it later.
fn certificate_authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "sluice quick start");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Starts a server for `NAME.localhost` and the names below it; returns its port.
fn start_server(
    name: &'static str,
    preferred: u16,
    ca: &CertifiedIssuer<'static, KeyPair>,
) -> Result<u16> {
    let tls = Arc::new(server_config(name, ca)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, preferred))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .with_context(|| format!("cannot start the server {name}"))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let tls = Arc::clone(&tls);
            // A client that fails has only itself to tell.
            thread::spawn(move || answer(client, name, tls));
        }
    });
    Ok(port)
}

fn server_config(name: &str, ca: &CertifiedIssuer<'static, KeyPair>) -> Result<ServerConfig> {
    let names = [format!("{name}.localhost"), format!("*.{name}.localhost")];
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Every run has a CA of the same name; this tells clients which of them signed.
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Ok(ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?)
}

/// One connection: one request, one page that says who answers.
fn answer(client: TcpStream, server: &str, tls: Arc<ServerConfig>) -> Result<()> {
    client.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let mut stream = StreamOwned::new(ServerConnection::new(tls)?, client);
    let request = read_head(&mut stream)?;
    let asked = stream.conn.server_name().unwrap_or("nobody by name");
    let text = format!("hello from {server}, you asked for {asked}");
    let (kind, body) = if request.contains("text/html") {
        ("text/html", format!("<!doctype html><title>{server}</title><h1>{text}</h1>\n"))
    } else {
        ("text/plain", text + "\n")
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}; charset=utf-8\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(stream.sock.shutdown(Shutdown::Write)?)
}

/// Reads to the end of the request's header.
fn read_head(stream: &mut impl Read) -> Result<String> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut chunk)?;
        if count == 0 || head.len() > 16 * 1024 {
            bail!("not a request");
        }
        head.extend(chunk.iter().take(count));
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Writes the manifests, or keeps those that are there, edited or not.
fn write_manifests(servers: &[(&str, u16)]) -> Result<()> {
    let existing = manifests()?;
    if existing.is_empty() {
        for &(name, port) in servers {
            let path = Path::new(ROUTES).join(name).with_extension("yaml");
            fs::write(&path, manifest(name, port))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        return Ok(());
    }
    println!("The manifests in {ROUTES} are kept as they are; remove the folder for new ones.");
    for path in existing {
        let old =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let new =
            servers.iter().fold(old.clone(), |text, &(name, port)| set_port(&text, name, port));
        if new != old {
            println!("{}: a server has another port this time.", path.display());
            fs::write(&path, new).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

fn manifests() -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(ROUTES).with_context(|| format!("cannot read {ROUTES}"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn manifest(name: &str, port: u16) -> String {
    format!(
        "\
# A change of this file is live within a second. One that is broken changes nothing, and the log
# says why. In a line that ends in \"{marker}\" the quick start keeps the port right.
apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: {{ name: {name}, namespace: demo }}
spec:
  hostnames: [{name}.localhost]
  backends:
    - address: 127.0.0.1:{port}  {marker}
",
        marker = marker(name)
    )
}

/// Sets the port in the lines that name the server.
fn set_port(text: &str, name: &str, port: u16) -> String {
    let marker = marker(name);
    let line = |line: &str| match line.split_once("127.0.0.1:") {
        Some((before, after)) if after.trim_end().ends_with(&marker) => {
            format!("{before}127.0.0.1:{port}  {marker}\n")
        }
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The comment by which the quick start finds the address of a server again.
fn marker(name: &str) -> String {
    format!("# server {name}")
}

fn start_sluice(listen: &[SocketAddr], admin: SocketAddr) -> Result<Child> {
    let binary = sluice_binary()?;
    let mut command = Command::new(&binary);
    command.args(["run", "--source", "files", "--routes", ROUTES]);
    for address in listen.iter().filter(|address| **address != admin) {
        command.args(["--listen", &address.to_string()]);
    }
    // No load balancer has to learn that it stops: it may stop at once.
    command.args(["--admin", &admin.to_string(), "--drain-delay", "0s"]);
    // A group of its own: Ctrl-C reaches this process alone, which passes it on once.
    command.process_group(0);
    command.spawn().with_context(|| format!("cannot start {}", binary.display()))
}

/// The binary of the same build: `target/debug/sluice` beside `target/debug/examples/quickstart`.
fn sluice_binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    let binary = own.parent().and_then(Path::parent).map(|folder| folder.join("sluice"));
    match binary {
        Some(binary) if binary.exists() => Ok(binary),
        _ => bail!("sluice itself is not built: use make run, or cargo build first"),
    }
}

/// The signals that end a program from outside.
struct Signals {
    runtime: Runtime,
    streams: [unix::Signal; 3],
}

impl Signals {
    /// From here on they no longer end this process.
    fn catch() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let streams = [
            unix::signal(SignalKind::interrupt())?,
            unix::signal(SignalKind::terminate())?,
            unix::signal(SignalKind::hangup())?,
        ];
        drop(inside);
        Ok(Signals { runtime, streams })
    }

    /// Passes them on, as SIGTERM: the first lets sluice drain, the second ends it at once.
    fn pass_on_to(self, sluice: &Child) {
        let pid = Pid::from_child(sluice);
        let [mut interrupt, mut terminate, mut hangup] = self.streams;
        thread::spawn(move || {
            self.runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                    // It may be gone already.
                    let _ = kill_process(pid, Signal::TERM);
                }
            });
        });
    }
}

/// Waits until sluice serves; false when it ended instead.
fn await_ready(sluice: &mut Child, admin: SocketAddr) -> Result<bool> {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        if sluice.try_wait()?.is_some() {
            return Ok(false);
        }
        if is_ready(admin).unwrap_or(false) {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(20));
    }
    sluice.kill()?;
    bail!("sluice was not ready within {} s", START_TIMEOUT.as_secs())
}

fn is_ready(admin: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&admin, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

fn guide(port: u16, admin: SocketAddr, servers: &[(&str, u16)]) -> Result<String> {
    let binary = sluice_binary()?;
    let binary = binary.strip_prefix(std::env::current_dir()?).unwrap_or(&binary);
    let curl = |name: &str| {
        format!("curl --cacert {CA} --resolve {name}:{port}:127.0.0.1 https://{name}:{port}/")
    };
    let ports: Vec<_> = servers.iter().map(|(name, port)| format!("{name} on {port}")).collect();
    Ok(format!(
        "
sluice listens on port {port}; behind it are two TLS servers: {servers}.
Keep this running and try, in another terminal in the same folder:

One port, two names, two servers. Each shows its own certificate, which sluice has no key for:
  {apple}
  {banana}
A name that no route has is refused, and the log above names it with the outcome no_route:
  {cherry}
A browser finds both too, once it trusts {CA}:
  https://apple.localhost:{port}/  https://banana.localhost:{port}/

Edit a route and see it live within a second. Before the edit, the second line is refused:
  sed -i 's/\\[apple.localhost\\]/[apple.localhost, \"*.apple.localhost\"]/' {ROUTES}/apple.yaml
  {green}

Which route wins, and why; the routes in force; what was counted:
  {binary} explain --sni apple.localhost --admin http://{admin}
  curl http://{admin}/routes
  curl http://{admin}/metrics

Ctrl-C ends everything.
",
        servers = ports.join(", "),
        apple = curl("apple.localhost"),
        banana = curl("banana.localhost"),
        cherry = curl("cherry.localhost"),
        green = curl("green.apple.localhost"),
        binary = binary.display(),
    ))
}
