//! PROXY headers, with HAProxy and nginx in front of sluice and behind it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Signal, kill_process_group};
use serde_json::Value;
use testkit::{Authority, Program, eventually, tool, wait_until};

use super::client::{Answer, Call, Client};
use super::server::{Kind, Server};
use super::sluice::{Sluice, route, route_with};

const NAME: &str = "www.example.test";

/// A TCP proxy in front of one address.
struct Peer {
    address: SocketAddr,
    program: Program,
    _folder: tempfile::TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The workers, too, which outlive a main process that is killed.
        let _ = kill_process_group(self.program.pid(), Signal::KILL);
    }
}

impl Peer {
    /// HAProxy, with these words after `bind` and `server`. It logs who it takes for the client, and the name
    /// that the PROXY header has.
    fn haproxy(bind: &str, to: SocketAddr, server: &str) -> Self {
        let config = format!(
            "defaults
  mode tcp
  timeout connect 60s
  timeout client 60s
  timeout server 60s
  log stdout format raw local0
  unique-id-format %{{+X}}o%ci%cp
listen peer
  bind fd@3 {bind}
  log-format \"client=%ci:%cp served=%fi:%fp name=%[fc_pp_authority] id=%[fc_pp_unique_id]\"
  server one {to} {server}
"
        );
        Peer::start(&config, |config, _| {
            let mut haproxy = tool("haproxy");
            haproxy.arg("-db").arg("-f").arg(config);
            haproxy
        })
    }

    /// nginx. It logs who its client is, and who that is by the PROXY header.
    fn nginx(listen: &str, to: SocketAddr, more: &str) -> Self {
        let config = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
stream {{
  log_format peer 'client=$remote_addr:$remote_port proxied=$proxy_protocol_addr:$proxy_protocol_port';
  access_log /dev/stdout peer;
  server {{
    listen ADDRESS {listen};
    proxy_pass {to};
    {more}
  }}
}}
"
        );
        Peer::start(&config, |config, folder| {
            let mut nginx = tool("nginx");
            nginx
                .env("NGINX", "3;")
                .arg("-e")
                .arg("stderr")
                .arg("-p")
                .arg(folder)
                .arg("-c")
                .arg(config);
            nginx
        })
    }

    /// Starts a program that takes its listening socket as descriptor 3.
    fn start(config: &str, command: impl FnOnce(&Path, &Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, config.replace("ADDRESS", &address.to_string())).unwrap();
        let proxy = command(&file, folder.path());
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec 3<&0 </dev/null; exec \"$@\"", "sh"]).process_group(0);
        shell.arg(proxy.get_program()).args(proxy.get_args());
        shell.envs(proxy.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let program = Program::start_from(&mut shell, Stdio::from(OwnedFd::from(listener)));
        Peer { address, program, _folder: folder }
    }

    /// The words of its log line about its one connection.
    fn logged(&self) -> Vec<String> {
        let line = eventually("a log line", || {
            self.program.stdout.lines().into_iter().find(|line| line.starts_with("client="))
        });
        line.split(' ').map(str::to_owned).collect()
    }

    fn logged_word(&self, key: &str) -> String {
        let words = self.logged();
        let word = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        word.unwrap_or_else(|| panic!("no {key} in {words:?}")).to_owned()
    }
}

/// A sluice that believes 127.0.0.1.
fn trusting(manifest: String) -> Sluice {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("routes")).unwrap();
    fs::write(folder.path().join("routes/routes.yaml"), manifest).unwrap();
    let file = folder.path().join("sluice.yaml");
    let listen = "listen: [{ address: '127.0.0.1:0', proxyProtocol: { from: [127.0.0.1] } }]\n";
    fs::write(&file, listen).unwrap();
    let sluice = Sluice::configured(folder, &file);
    sluice.await_ready();
    sluice
}

fn calls(to: SocketAddr, authority: &Authority) {
    let call = Call { to, authority, name: NAME, version: "1.3", alpn: &[] };
    // Not one that closes its side first: nginx then closes the other.
    assert_eq!(Client::OpenSsl.call(&call), Ok(Answer::to(&call, "")));
}

#[test]
fn the_clients_of_other_proxies_are_known() {
    let authority = Authority::new();
    let server = Server::start(Kind::Rustls, &authority, &[NAME], &[]);
    const ALL: &str = "send-proxy-v2 proxy-v2-options crc32c,unique-id";
    for start in [
        |to| Peer::haproxy("", to, "send-proxy"),
        |to| Peer::haproxy("", to, "send-proxy-v2"),
        |to| Peer::haproxy("", to, ALL),
        |to| Peer::nginx("", to, "proxy_protocol on;"),
    ] as [fn(SocketAddr) -> Peer; 4]
    {
        let sluice = trusting(route("web", &[NAME], server.address));
        let peer = start(sluice.address);
        calls(peer.address, &authority);
        let line = sluice.entry_of(NAME);
        assert_eq!(line["source"], peer.logged_word("client"), "{line}");
        assert_ne!(line["source"], line["peer"], "{line}");
    }
}

#[test]
fn other_proxies_read_what_they_are_sent() {
    let authority = Authority::new();
    let server = Server::start(Kind::Rustls, &authority, &[NAME], &[]);
    let haproxy = || Peer::haproxy("accept-proxy", server.address, "");
    let nginx = || Peer::nginx("proxy_protocol", server.address, "");
    for (peer, client, sent) in [
        (haproxy(), "client", "{ send: V1 }"),
        (haproxy(), "client", "{ send: V2, uniqueId: true, checksum: true }"),
        (nginx(), "proxied", "{ send: V1 }"),
        (nginx(), "proxied", "{ send: V2, uniqueId: true, checksum: true }"),
    ] {
        let more = format!("  proxyProtocol: {sent}\n");
        let manifest = route_with("web", &[NAME], peer.address, &more);
        let sluice = Sluice::start(&[("routes.yaml", manifest)]);
        calls(sluice.address, &authority);
        let line = sluice.entry_of(NAME);
        assert_eq!(line["source"], peer.logged_word(client), "{sent}");
        if client == "client" && sent.contains("V2") {
            assert_eq!(peer.logged_word("served"), sluice.address.to_string());
            assert_eq!(peer.logged_word("name"), NAME);
            assert_eq!(Value::from(peer.logged_word("id")), line["id"]);
        }
    }
}

/// A load balancer that sends headers to a sluice that does not know of it.
#[test]
fn a_proxy_that_is_not_trusted_is_named() {
    let authority = Authority::new();
    let sluice = Sluice::start(&[]);
    let peer = Peer::haproxy("", sluice.address, "send-proxy-v2");
    let call =
        Call { to: peer.address, authority: &authority, name: NAME, version: "1.3", alpn: &[] };
    assert!(Client::OpenSsl.call(&call).is_err());
    wait_until("its line", || {
        let log = sluice.access_log();
        log.iter().any(|line| line["outcome"] == "untrusted_proxy_header")
    });
}
