//! A proxy that clients ask for a tunnel to the API server, by CONNECT or SOCKS5.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::kubectl::Kubeconfig;
use super::{ApiServer, sandbox};

/// Leads to the API server whatever it is asked for, and notes that.
pub(crate) struct Tunnel {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    pub(crate) fn start(api: &ApiServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = server_of(api);
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&asked);
        each_client(listener, move |mut client| {
            let target = negotiate(&mut client)?;
            noted.lock().expect("no test failed here").push(target);
            pass(client, TcpStream::connect(server)?)
        });
        Tunnel { address, asked }
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked for so far: the target, and the credentials if there were any.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test failed here").clone()
    }
}

/// An address of the API server that is no loopback, which it has a certificate for.
pub(crate) fn reachable(api: &ApiServer) -> SocketAddr {
    let listener = TcpListener::bind((sandbox::ADDRESS, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = server_of(api);
    each_client(listener, move |client| pass(client, TcpStream::connect(server)?));
    address
}

/// The user of `account`, at a server of that name, with more fields of the cluster.
pub(crate) fn at(account: &Kubeconfig, server: SocketAddr, name: &str, more: &str) -> Kubeconfig {
    let found = account.at(&format!("https://{name}:{}", server.port()), server.port(), "");
    let text = std::fs::read_to_string(found.path()).expect("as written");
    let text = text.replace("cluster: { server", &format!("cluster: {{ {more} server"));
    std::fs::write(found.path(), text).expect("room for it");
    found
}

fn server_of(api: &ApiServer) -> SocketAddr {
    api.url().strip_prefix("https://").expect("TLS").parse().expect("an address")
}

fn each_client(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) {
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, serve) = (client.expect("a client"), Arc::clone(&serve));
            thread::spawn(move || serve(client));
        }
    });
}

/// Answers the request for a tunnel; returns what was asked for.
fn negotiate(client: &mut TcpStream) -> io::Result<String> {
    let mut first = [0];
    client.read_exact(&mut first)?;
    if first == [5] {
        return negotiate_socks(client);
    }
    let mut head = first.to_vec();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let target = lines.next().unwrap_or_default();
    let target = target.trim_start_matches("CONNECT ").trim_end_matches(" HTTP/1.1");
    let credentials = lines.find_map(|line| line.strip_prefix("Proxy-Authorization: "));
    Ok(credentials.map_or(target.to_owned(), |credentials| format!("{target} {credentials}")))
}

/// RFC 1928, for names and without credentials.
fn negotiate_socks(client: &mut TcpStream) -> io::Result<String> {
    let mut take = |size: usize| {
        let mut bytes = vec![0; size];
        client.read_exact(&mut bytes).map(|()| bytes)
    };
    let methods = take(1)?;
    take(methods[0].into())?;
    client.write_all(&[5, 0])?;
    let mut take = |size: usize| {
        let mut bytes = vec![0; size];
        client.read_exact(&mut bytes).map(|()| bytes)
    };
    let head = take(5)?;
    assert_eq!(head[..4], [5, 1, 0, 3], "to connect to a name");
    let name = take(head[4].into())?;
    let port = take(2)?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    let port = u16::from_be_bytes([port[0], port[1]]);
    Ok(format!("{}:{port}", String::from_utf8_lossy(&name)))
}

fn pass(client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (mut up, mut down) = ((client.try_clone()?, server.try_clone()?), (server, client));
    let upward = thread::spawn(move || {
        let _ = io::copy(&mut up.0, &mut up.1);
        let _ = up.1.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut down.0, &mut down.1);
    let _ = down.1.shutdown(Shutdown::Both);
    let _ = upward.join();
    Ok(())
}
