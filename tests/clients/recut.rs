//! A forwarder that cuts the hellos of real clients into the smallest pieces.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use testkit::PATIENCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A TLS record for each byte of the hello.
    Records,
    /// A TCP segment for each byte of the hello's records.
    Segments,
}

/// Forwards to `to`, with every hello cut, and returns where to connect to.
pub(crate) fn forwarder(to: SocketAddr, cut: Cut) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            // What goes wrong here goes wrong for the client.
            thread::spawn(move || forward(client.unwrap(), to, cut));
        }
    });
    address
}

fn forward(mut client: TcpStream, to: SocketAddr, cut: Cut) -> std::io::Result<()> {
    let mut server = TcpStream::connect_timeout(&to, PATIENCE)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    send_cut(&read_hello(&mut client)?, &mut server, cut)?;
    let (mut client_back, mut server_back) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || pass_on(&mut server_back, &mut client_back));
    pass_on(&mut client, &mut server)
}

fn pass_on(from: &mut TcpStream, to: &mut TcpStream) -> std::io::Result<()> {
    std::io::copy(from, to)?;
    to.shutdown(Shutdown::Write)
}

/// The records that carry the hello, each whole.
fn read_hello(client: &mut TcpStream) -> std::io::Result<Vec<[Vec<u8>; 2]>> {
    let mut records = Vec::new();
    let mut message = Vec::new();
    loop {
        let mut header = vec![0; 5];
        client.read_exact(&mut header)?;
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        client.read_exact(&mut body)?;
        message.extend_from_slice(&body);
        records.push([header, body]);
        if let [1, a, b, c, rest @ ..] = &message[..]
            && rest.len() >= u32::from_be_bytes([0, *a, *b, *c]) as usize
        {
            return Ok(records);
        }
    }
}

fn send_cut(records: &[[Vec<u8>; 2]], to: &mut TcpStream, cut: Cut) -> std::io::Result<()> {
    let bytes: Vec<u8> = match cut {
        Cut::Segments => records.iter().flatten().flatten().copied().collect(),
        Cut::Records => records
            .iter()
            .flat_map(|[header, body]| body.iter().flat_map(|&byte| one_byte_record(header, byte)))
            .collect(),
    };
    match cut {
        Cut::Records => to.write_all(&bytes),
        Cut::Segments => bytes.chunks(1).try_for_each(|byte| to.write_all(byte)),
    }
}

fn one_byte_record(header: &[u8], byte: u8) -> [u8; 6] {
    [header[0], header[1], header[2], 0, 1, byte]
}
