//! Real TLS servers. Each answers a line with the same line backwards, and an HTTP request with its
//! path backwards.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::thread;

use rustls::crypto::aws_lc_rs;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, Socket, Type};
use testkit::{Authority, Identity, PATIENCE, Program, eventually, tool};

use super::client::MESSAGE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    OpenSsl,
    /// It speaks either lines or HTTP.
    OpenSslWeb,
    Rustls,
    Go,
}

/// A server that runs until the end of the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _program: Option<Program>,
}

impl Server {
    /// A server for `names`, of which it has the only certificate. Without protocols it does not
    /// negotiate one; with some, it refuses clients that offer others only.
    pub(crate) fn start(kind: Kind, authority: &Authority, names: &[&str], alpn: &[&str]) -> Self {
        let identity = authority.issue(names);
        match kind {
            Kind::OpenSsl => openssl(&identity, &["-rev"], alpn),
            Kind::OpenSslWeb => openssl(&identity, &["-WWW"], alpn),
            Kind::Rustls => rustls(&identity, alpn),
            Kind::Go => go(&identity, alpn),
        }
    }
}

/// An address that refuses connections for as long as the socket lives: bound, not listening.
pub(crate) fn refusing() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

pub(crate) fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

/// `openssl s_server` as the arguments have it. It serves one client after the other.
pub(crate) fn s_server(identity: &Identity, arguments: &[&str]) -> (SocketAddr, Program) {
    let mut command = tool("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0"]);
    command.arg("-cert").arg(&identity.certificate_file).arg("-key").arg(&identity.key_file);
    command.args(arguments).current_dir(identity.certificate_file.parent().unwrap());
    let program = Program::start(&mut command);
    let address = announced(&program, "ACCEPT ");
    (address, program)
}

/// Python's `ssl`, which says how each connection ended. With the file of an authority, it requires client
/// certificates.
pub(crate) fn python(identity: &Identity, ca: &[&str]) -> (SocketAddr, Program) {
    let mut command = tool("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/server.py"));
    command.arg(&identity.certificate_file).arg(&identity.key_file).args(ca);
    let program = Program::start(&mut command);
    let address = announced(&program, "listening on ");
    (address, program)
}

fn openssl(identity: &Identity, mode: &[&str], alpn: &[&str]) -> Server {
    let folder = identity.certificate_file.parent().unwrap();
    fs::write(folder.join(MESSAGE), reversed(MESSAGE)).unwrap();
    let protocols = alpn.join(",");
    let alpn = if alpn.is_empty() { vec![] } else { vec!["-alpn", &protocols] };
    let (address, program) = s_server(identity, &[mode, &alpn].concat());
    Server { address, _program: Some(program) }
}

fn go(identity: &Identity, alpn: &[&str]) -> Server {
    let mut command = Command::new(go_peer());
    command.arg("serve").arg(&identity.certificate_file).arg(&identity.key_file).args(alpn);
    let program = Program::start(&mut command);
    Server { address: announced(&program, "listening on "), _program: Some(program) }
}

/// The Go server with flags, and what it says.
pub(crate) fn go_server(identity: &Identity, flags: &[&str]) -> (SocketAddr, Program) {
    let mut command = Command::new(go_peer());
    command.arg("serve").args(flags).arg(&identity.certificate_file).arg(&identity.key_file);
    let program = Program::start(&mut command);
    let address = announced(&program, "listening on ");
    (address, program)
}

/// The address that a server says it listens on.
fn announced(program: &Program, prefix: &str) -> SocketAddr {
    eventually("the server listens", || {
        let lines = program.stdout.lines();
        lines.iter().find_map(|line| line.strip_prefix(prefix))?.trim().parse().ok()
    })
}

/// The program in `go/`, built once for all tests of a run.
pub(crate) fn go_peer() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let binary = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go-peer");
        let mut command = tool("go");
        command.arg("build").arg("-o").arg(&binary).arg(".");
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/go"));
        // Not through `Program::run`: with an empty build cache it compiles the standard library.
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        binary
    };
    BUILT.get_or_init(build).clone()
}

fn rustls(identity: &Identity, alpn: &[&str]) -> Server {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain(), identity.key())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let config = Arc::clone(&config);
            thread::spawn(move || answer(client.unwrap(), config));
        }
    });
    Server { address, _program: None }
}

/// Serves one client to its end. Its failures are the client's to tell.
fn answer(client: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    // Long-lived clients are silent for as long as their test lasts, and no longer.
    client.set_read_timeout(Some(10 * PATIENCE))?;
    let tls = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(tls, client));
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let said = line.trim_end();
        if let Some(request) = said.strip_prefix("GET /") {
            let body = reversed(request.split(' ').next().unwrap_or_default());
            skip_header(&mut reader)?;
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            reader.get_mut().write_all(answer.as_bytes())?;
            // The client ends it, and does not wait for a close_notify: one sent then would be
            // reset.
            return std::io::copy(&mut reader.get_mut().sock, &mut std::io::sink()).map(drop);
        }
        let answer = reversed(said) + "\n";
        reader.get_mut().write_all(answer.as_bytes())?;
        line.clear();
    }
    let stream = reader.get_mut();
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(Shutdown::Write)?;
    std::io::copy(&mut stream.sock, &mut std::io::sink()).map(drop)
}

fn skip_header(reader: &mut impl BufRead) -> std::io::Result<()> {
    let mut line = String::new();
    while reader.by_ref().take(16 * 1024).read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        line.clear();
    }
    Ok(())
}
