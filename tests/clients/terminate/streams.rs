//! What goes each way, and how it ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use testkit::{Authority, Finished, PATIENCE, Program, tool, wait_until};

use super::backends::{self, Exchanged, hex};
use super::manifests::{call, secret, served, start};
use crate::client::{Call, client_config};
use crate::server::go_peer;
use crate::sluice::Sluice;

const NAME: &str = "stream.test";
const VERSIONS: [&str; 2] = ["1.2", "1.3"];
const MUCH: usize = 64 * 1024 * 1024;

fn before(backend: SocketAddr, authority: &Authority) -> Sluice {
    let identity = authority.issue(&[NAME]);
    start(&[secret("tls", &identity), served("stream", &[NAME], backend, &["tls"], "")])
}

/// A connection whose handshake may not be done yet.
fn connected(call: &Call<'_>) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(call.name.to_owned()).unwrap();
    let connection = ClientConnection::new(client_config(call), name).unwrap();
    let stream = TcpStream::connect(call.to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(connection, stream)
}

fn end(stream: &mut StreamOwned<ClientConnection, TcpStream>) {
    stream.conn.send_close_notify();
    stream.flush().unwrap();
}

#[test]
fn a_client_that_has_said_all_hears_the_answer() {
    let authority = Authority::new();
    // The answer is what was said, and comes when all of it is there.
    let backend = backends::serve(|mut client| {
        let mut said = Vec::new();
        client.read_to_end(&mut said)?;
        said.reverse();
        client.write_all(&said)
    });
    let sluice = before(backend, &authority);
    for version in VERSIONS {
        for closed in [false, true] {
            let mut stream = connected(&call(&sluice, &authority, NAME, version));
            stream.write_all(b"all of it").unwrap();
            end(&mut stream);
            if closed {
                stream.sock.shutdown(Shutdown::Write).unwrap();
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an end by close_notify");
            assert_eq!(answer, "ti fo lla", "{version}");
        }
    }
    wait_until("all to be counted", || sluice.metrics().connections("completed") == 4.0);
}

#[test]
fn a_server_that_has_said_all_hears_the_rest() {
    let authority = Authority::new();
    let (sender, received) = std::sync::mpsc::channel();
    let backend = backends::serve(move |mut client| {
        client.write_all(b"all of it")?;
        client.shutdown(Shutdown::Write)?;
        let mut rest = String::new();
        let end = client.read_to_string(&mut rest).map(|_| rest).map_err(|error| error.kind());
        let _ = sender.send(end);
        Ok(())
    });
    let sluice = before(backend, &authority);
    for version in VERSIONS {
        let mut stream = connected(&call(&sluice, &authority, NAME, version));
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an end by close_notify");
        assert_eq!(answer, "all of it", "{version}");
        stream.write_all(b"and the rest").unwrap();
        end(&mut stream);
        let rest = received.recv_timeout(PATIENCE).expect("the other end");
        assert_eq!(rest.as_deref(), Ok("and the rest"), "{version}");
    }
}

/// As a router on the way could make one, that cannot read what it cuts.
#[test]
fn a_client_that_is_cut_off_is_no_end_to_the_server() {
    let authority = Authority::new();
    let (address, received) = backends::recorder("hello\n");
    let sluice = before(address, &authority);
    for version in VERSIONS {
        // With a close_notify it is the end.
        for cut in [false, true] {
            let mut stream = connected(&call(&sluice, &authority, NAME, version));
            stream.write_all(b"some of it").unwrap();
            let mut greeting = [0; 6];
            stream.read_exact(&mut greeting).unwrap();
            if !cut {
                end(&mut stream);
            }
            stream.sock.shutdown(Shutdown::Write).unwrap();
            let received = received.recv_timeout(PATIENCE).expect("an end");
            match cut {
                true => assert_eq!(received.end, Err(ErrorKind::ConnectionReset), "{version}"),
                false => {
                    assert_eq!(received.end, Ok(()), "{version}");
                    assert_eq!(received.bytes, b"some of it", "{version}");
                }
            }
        }
    }
}

#[test]
fn a_server_that_is_cut_off_is_no_end_to_the_client() {
    let authority = Authority::new();
    let backend = backends::serve(|mut client| {
        client.write_all(b"some of it")?;
        client.read_exact(&mut [0; 4])?;
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO))
    });
    let sluice = before(backend, &authority);
    for version in VERSIONS {
        let mut stream = connected(&call(&sluice, &authority, NAME, version));
        let mut some = [0; 10];
        stream.read_exact(&mut some).unwrap();
        assert_eq!(&some, b"some of it");
        stream.write_all(b"more").unwrap();
        let error = stream.read_to_end(&mut Vec::new()).expect_err("no end by close_notify");
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
        assert!(kinds.contains(&error.kind()), "{version}: {error}");
    }
}

#[test]
#[ignore = "slow: 64 MiB both ways, four times"]
fn much_goes_both_ways_at_once_and_arrives_whole() {
    let authority = Authority::new();
    let (address, exchanged) = backends::exchange(MUCH);
    let sluice = before(address, &authority);
    for version in VERSIONS {
        let call = call(&sluice, &authority, NAME, version);
        let by_go = go(&call);
        let seen = exchanged.recv_timeout(10 * PATIENCE).expect("an exchange").unwrap();
        assert_eq!((&by_go.sent, &by_go.received), (&seen.received, &seen.sent), "Go {version}");

        let by_openssl = openssl(&call);
        let seen = exchanged.recv_timeout(10 * PATIENCE).expect("an exchange").unwrap();
        let expected = (&seen.received, &seen.sent);
        assert_eq!((&by_openssl.sent, &by_openssl.received), expected, "OpenSSL {version}");
    }
    let log = testkit::eventually("the access log", || {
        Some(sluice.access_log()).filter(|log| log.len() == 4)
    });
    for entry in log {
        assert_eq!(entry["outcome"], "completed", "{entry}");
    }
}

fn go(call: &Call<'_>) -> Exchanged {
    let mut command = Command::new(go_peer());
    command.args(["exchange", &call.to.to_string(), call.name]).arg(call.authority.file());
    let Finished { status, stdout, stderr } =
        run_long(command.args([call.version, &MUCH.to_string()]));
    assert!(status.success(), "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["receivedBytes"], MUCH);
    let text = |key: &str| report[key].as_str().unwrap().to_owned();
    Exchanged { sent: text("sent"), received: text("received") }
}

/// Longer than other programs.
fn run_long(command: &mut Command) -> Finished {
    let mut program = Program::start(command);
    program.close_stdin();
    testkit::within(10 * PATIENCE, "the program ends", || (!program.is_running()).then_some(()));
    program.finish()
}

/// Bytes as they are, from one file to another.
fn openssl(call: &Call<'_>) -> Exchanged {
    let folder = call.authority.folder();
    let (from, to) = (folder.join("sent"), folder.join("received"));
    let sent: Vec<u8> = (0..MUCH).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
    std::fs::write(&from, &sent).unwrap();
    let mut command = tool("sh");
    // With -quiet, openssl waits for the server after the end of its input, and takes no commands.
    command.args(["-c", "exec openssl \"$@\" <\"$FROM\" >\"$TO\"", "sh", "s_client", "-quiet"]);
    command.env("FROM", &from).env("TO", &to);
    command.args(["-connect", &call.to.to_string(), "-servername", call.name]);
    command.arg("-CAfile").arg(call.authority.file()).arg("-verify_return_error");
    let finished = run_long(command.arg(format!("-tls{}", call.version.replace('.', "_"))));
    assert!(finished.status.success(), "{finished:?}");
    let received = std::fs::read(&to).unwrap();
    assert_eq!(received.len(), MUCH);
    let of = |bytes: &[u8]| hex(digest(&SHA256, bytes).as_ref());
    Exchanged { sent: of(&sent), received: of(&received) }
}

/// curl in both directions, one after the other, with HTTP/1.1 in plain text behind sluice.
#[test]
#[ignore = "slow: 64 MiB up and down"]
fn curl_sends_and_fetches_a_file() {
    let authority = Authority::new();
    let file = Arc::new((0..MUCH).map(|at| (at ^ at >> 9) as u8).collect::<Vec<u8>>());
    let path = authority.folder().join("file");
    std::fs::write(&path, &*file).unwrap();
    let expected = hex(digest(&SHA256, &file).as_ref());
    let sluice = before(http(file), &authority);
    for version in VERSIONS {
        let run = |more: &[&str]| {
            let mut command = tool("curl");
            command.args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--fail"]);
            command.args(["--http1.1", "--max-time", "300", "--cacert"]).arg(authority.file());
            command.args([&format!("--tlsv{version}"), "--tls-max", version]);
            command.args(["--connect-to", &format!("::{}", sluice.address)]);
            let url = format!("https://{NAME}:{}/", sluice.address.port());
            let finished = run_long(command.args(more).arg(url));
            assert!(finished.status.success(), "{finished:?}");
            finished.stdout
        };
        let up = path.display().to_string();
        assert_eq!(run(&["--header", "Expect:", "--upload-file", &up]), expected, "{version}");
        let down = format!("{up}.fetched");
        run(&["--output", &down]);
        let fetched = std::fs::read(&down).unwrap();
        assert_eq!(hex(digest(&SHA256, &fetched).as_ref()), expected, "{version}");
    }
}

/// A server that answers GET with the file, and PUT with the digest of what it gets.
fn http(file: Arc<Vec<u8>>) -> SocketAddr {
    backends::serve(move |mut client| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        if head.starts_with(b"GET ") {
            return answer(&mut client, &file);
        }
        let mut body = vec![0; MUCH];
        client.read_exact(&mut body)?;
        let digest = hex(digest(&SHA256, &body).as_ref());
        answer(&mut client, digest.as_bytes())
    })
}

fn answer(client: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    client.write_all(head.as_bytes())?;
    client.write_all(body)
}

#[test]
fn a_client_that_leaves_in_the_handshake_reaches_nobody() {
    let authority = Authority::new();
    let (address, received) = backends::recorder("");
    let sluice = before(address, &authority);
    let call = call(&sluice, &authority, NAME, "1.3");
    let mut hello = Vec::new();
    let name = ServerName::try_from(NAME).unwrap();
    let mut connection = ClientConnection::new(client_config(&call), name).unwrap();
    connection.write_tls(&mut hello).unwrap();
    let mut stream = TcpStream::connect(sluice.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&hello).unwrap();
    let mut record = [0; 5];
    stream.read_exact(&mut record).unwrap();
    assert_eq!(record[0], 22, "a ServerHello");
    drop(stream);
    let entry = sluice.entry_of(NAME);
    assert_eq!(entry["outcome"], "handshake_failed");
    assert!(entry["endpoint"].is_null(), "{entry}");
    assert!(received.try_recv().is_err());
}
