//! A DNS server.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, port};
use super::sandbox::ADDRESS;
use super::{PATIENCE, within};

/// dnsmasq, which knows the names in the zone `test` that it is told, and no others. What it says
/// holds for a second.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    process: Mutex<Option<Process>>,
    folder: TempDir,
}

impl DnsServer {
    /// A server that knows these addresses: lines of a hosts file.
    pub(crate) fn start(hosts: &str) -> Self {
        let address = SocketAddr::new(ADDRESS.parse().expect("an address"), port());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = Self { address, process: Mutex::default(), folder };
        server.set(hosts);
        server
    }

    /// Kills it and starts it anew with other addresses. It answers when this returns.
    pub(crate) fn set(&self, hosts: &str) {
        self.kill();
        let file = self.folder.path().join("hosts");
        fs::write(&file, hosts).expect("a hosts file");
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--pid-file",
        ]);
        command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--local=/test/"]);
        command.args(["--local-ttl=1", &format!("--port={}", self.address.port())]);
        command.arg(format!("--listen-address={}", self.address.ip()));
        command.arg(format!("--addn-hosts={}", file.display()));
        let process = Process::start(&mut command, &self.folder.path().join("dnsmasq.log"));
        *self.process.lock().expect("no test failed here") = Some(process);
        self.await_answer();
    }

    fn await_answer(&self) {
        let socket = UdpSocket::bind((ADDRESS, 0)).expect("a port");
        socket.connect(self.address).expect("a way to it");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        // What is the IPv4 address of x.test?
        let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01x\x04test\0\0\x01\0\x01";
        within(PATIENCE, "the DNS server answers", || {
            socket.send(question).ok()?;
            socket.recv(&mut [0; 512]).ok().map(drop)
        });
    }

    pub(crate) fn kill(&self) {
        self.process.lock().expect("no test failed here").take();
    }
}
