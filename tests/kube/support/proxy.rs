//! A way to an API server that can be made bad.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::kubectl::Kubeconfig;
use super::{ApiServer, within};

/// Passes connections on to an API server, or does something else with them.
pub(crate) struct Proxy {
    address: SocketAddr,
    certificate: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    tls: Arc<ServerConfig>,
    mode: Mutex<Mode>,
    /// Both ends of every connection.
    open: Mutex<Vec<TcpStream>>,
    /// How many connections there have been.
    taken: AtomicUsize,
}

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are passed on.
    Pass,
    /// So are they, and each part of an answer takes so long.
    Slow(Duration),
    /// They are taken, and not a byte moves; those of before stay open too.
    Silent,
    /// They are closed at once.
    Refuse,
    /// Each request is answered with this status.
    Status(u16),
}

impl Proxy {
    pub(crate) fn start(api: &ApiServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a key that fits");
        let server = api.url().strip_prefix("https://").expect("TLS").parse().expect("an address");
        let shared = Arc::new(Shared {
            server,
            tls: Arc::new(tls),
            mode: Mutex::new(Mode::Pass),
            open: Mutex::default(),
            taken: AtomicUsize::new(0),
        });
        let address = listener.local_addr().expect("an address");
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let shared = Arc::clone(&serving);
                thread::spawn(move || shared.serve(client.expect("a client")));
            }
        });
        Proxy { address, certificate: cert.pem(), shared }
    }

    /// The user of `account`, by this way.
    pub(crate) fn kubeconfig(&self, account: &Kubeconfig) -> Kubeconfig {
        let server = format!("https://{}", self.address);
        account.at(&server, self.address.port(), &self.certificate)
    }

    /// What happens from now on, also on the connections that there are.
    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().expect("no test failed here") = mode;
    }

    /// Closes all connections that there are.
    pub(crate) fn cut(&self) {
        for stream in self.shared.open.lock().expect("no test failed here").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections there have been. In [`Mode::Status`], each has one request.
    pub(crate) fn taken(&self) -> usize {
        self.shared.taken.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().expect("no test failed here")
    }

    fn serve(self: Arc<Self>, client: TcpStream) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        match self.mode() {
            Mode::Refuse => {}
            Mode::Status(code) => self.answer(client, code),
            Mode::Silent => self.open.lock().expect("no test failed here").push(client),
            Mode::Pass | Mode::Slow(_) => {
                let Ok(server) = TcpStream::connect(self.server) else { return };
                let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                let ends = [clone(&client), clone(&server)];
                self.open.lock().expect("no test failed here").extend(ends);
                let upward = Arc::clone(&self);
                let (from, to) = (clone(&client), clone(&server));
                thread::spawn(move || upward.pass(from, to, false));
                self.pass(server, client, true);
            }
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, answers: bool) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            match self.mode() {
                Mode::Slow(pause) if answers => thread::sleep(pause),
                Mode::Silent => {
                    let passing = || (self.mode() != Mode::Silent).then_some(());
                    within(Duration::from_secs(600), "an end of silence", passing);
                    // A network that has lost what was sent.
                    break;
                }
                _ => {}
            }
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        for stream in [from, to] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// As an API server in trouble does: with a Status.
    fn answer(&self, client: TcpStream, code: u16) {
        let tls = ServerConnection::new(Arc::clone(&self.tls)).expect("a configuration");
        let mut stream = StreamOwned::new(tls, client);
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
                _ => return,
            }
        }
        let status = format!(
            concat!(
                r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","#,
                r#""message":"in trouble","reason":"Trouble","code":{code}}}"#
            ),
            code = code
        );
        let _ = write!(
            stream,
            "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{status}",
            status.len()
        );
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
}
