//! TLS clients outside the pods. They take an answer only from a server with the right certificate.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use testkit::{Authority, Identity};

/// For connecting, and for each answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What all clients trust, and the one certificate of all backends.
pub(crate) struct Trust {
    authority: Authority,
    identity: Identity,
    config: ClientConfig,
}

/// Made by the first call.
pub(crate) fn authority() -> &'static Trust {
    static TRUST: OnceLock<Trust> = OnceLock::new();
    TRUST.get_or_init(|| {
        let authority = Authority::new();
        let identity = authority.issue(&["*.example.com"]);
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate()).expect("a certificate");
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Trust { authority, identity, config }
    })
}

impl Trust {
    /// The file that clients trust.
    pub(crate) fn file(&self) -> PathBuf {
        self.authority.file()
    }

    /// For `*.example.com`.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Another one, for that name.
    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.authority.issue(&[name])
    }
}

/// Where to connect to, and the server name to ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) name: &'static str,
}

impl Target {
    /// A new connection for one request.
    ///
    /// # Errors
    /// When the connection fails, or does not end cleanly after the answer.
    pub(crate) fn get(&self) -> io::Result<String> {
        let mut stream = self.connect()?;
        request(&mut stream, self.name, "/", "close")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        body(&answer)
    }

    /// The client's address: as the backend sees it, and as it is.
    ///
    /// # Errors
    /// As for [`Target::get`].
    pub(crate) fn addresses(&self) -> io::Result<(String, SocketAddr)> {
        let mut stream = self.connect()?;
        let own = stream.sock.local_addr()?;
        request(&mut stream, self.name, "/client", "close")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok((body(&answer)?, own))
    }

    /// Waits until the backend answers that. Until then it may answer otherwise, or not at all.
    pub(crate) fn until_says(&self, wanted: &str) {
        let mut last = None;
        super::eventually(&format!("{self:?} says {wanted:?}"), || {
            let answer = self.get();
            if answer.as_ref().is_ok_and(|said| said == wanted) {
                return Some(());
            }
            let answer = format!("{answer:?}");
            if last.as_ref() != Some(&answer) {
                eprintln!("{self:?}: {answer}");
                last = Some(answer);
            }
            None
        });
    }

    /// Like curl, the program.
    pub(crate) fn curl(&self) -> String {
        let Target { address, name } = self;
        let authority = authority().file();
        super::run(
            "curl",
            &[
                "--disable",
                "--silent",
                "--show-error",
                "--fail",
                "--max-time",
                "10",
                "--retry",
                "20",
                "--retry-all-errors",
                "--retry-delay",
                "1",
                "--cacert",
                authority.to_str().expect("UTF-8"),
                "--connect-to",
                &format!("::{address}"),
                &format!("https://{name}/"),
            ],
        )
    }

    fn connect(&self) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        self.connect_as(Arc::new(authority().config.clone()))
    }

    fn connect_as(
        &self,
        config: Arc<ClientConfig>,
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from(self.name).map_err(io::Error::other)?;
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(StreamOwned::new(tls, stream))
    }
}

/// A client that remembers its sessions, and resumes them wherever it can.
pub(crate) struct Resumer {
    config: Arc<ClientConfig>,
}

/// What it got.
#[derive(Debug)]
pub(crate) struct Served {
    /// The server's certificate.
    pub(crate) certificate: CertificateDer<'static>,
    /// Whether the session is one of before.
    pub(crate) resumed: bool,
    /// What the backend says.
    pub(crate) said: String,
}

impl Resumer {
    /// One without sessions.
    pub(crate) fn new() -> Self {
        let mut config = authority().config.clone();
        config.resumption = Resumption::in_memory_sessions(8);
        Resumer { config: Arc::new(config) }
    }

    /// A new connection for one request.
    ///
    /// # Errors
    /// When the connection fails, or does not end cleanly after the answer.
    pub(crate) fn get(&self, target: Target) -> io::Result<Served> {
        let mut stream = target.connect_as(Arc::clone(&self.config))?;
        request(&mut stream, target.name, "/", "close")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let chain = stream.conn.peer_certificates().unwrap_or_default();
        let certificate = chain.first().ok_or_else(|| io::Error::other("no certificate"))?;
        Ok(Served {
            certificate: certificate.clone().into_owned(),
            resumed: stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
            said: body(&answer)?,
        })
    }
}

/// A connection that stays open.
pub(crate) struct Held {
    reader: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    name: &'static str,
}

impl Held {
    /// Opens it, and asks for the backend's name.
    pub(crate) fn open(target: Target) -> io::Result<Self> {
        let mut held = Held { reader: BufReader::new(target.connect()?), name: target.name };
        held.get()?;
        Ok(held)
    }

    /// Asks for the backend's name.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) fn get(&mut self) -> io::Result<String> {
        request(self.reader.get_mut(), self.name, "/", "keep-alive")?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim_end().parse().map_err(io::Error::other)?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        String::from_utf8(body).map_err(io::Error::other)
    }

    /// Asks for an answer that takes so many seconds. [`finish`](Self::finish) takes it.
    pub(crate) fn ask_for_stream(&mut self, seconds: u32) -> io::Result<()> {
        let path = format!("/stream?seconds={seconds}");
        request(self.reader.get_mut(), self.name, &path, "close")?;
        let mut line = String::new();
        self.reader.read_line(&mut line).map(|_| ())
    }

    /// Reads the stream to its end.
    ///
    /// # Errors
    /// When the end is missing.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest)?;
        if rest.contains("end\n") { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

fn request(to: &mut impl Write, host: &str, path: &str, connection: &str) -> io::Result<()> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n");
    to.write_all(request.as_bytes())?;
    to.flush()
}

fn body(answer: &str) -> io::Result<String> {
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("no good answer: {answer:?}"))),
    }
}
