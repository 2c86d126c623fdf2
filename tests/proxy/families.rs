//! Machines that have one address family.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;

use tempfile::tempdir;

use crate::support::{Process, answering, ask, manifest};

/// Runs the rest of its arguments as on a kernel with `ipv6.disable=1`: by a filter of system calls
/// that fails `socket(AF_INET6, ...)` with EAFNOSUPPORT.
const WITHOUT_IPV6: &str = r#"
import ctypes, os, struct, sys
LOAD, EQUAL, RETURN, ALLOW, ERRNO = 0x20, 0x15, 0x06, 0x7fff0000, 0x00050000
SOCKET = {'x86_64': 41, 'aarch64': 198}[os.uname().machine]
AF_INET6, EAFNOSUPPORT = 10, 97
steps = [(LOAD, 0, 0, 0), (EQUAL, 0, 3, SOCKET), (LOAD, 0, 0, 16), (EQUAL, 0, 1, AF_INET6),
         (RETURN, 0, 0, ERRNO | EAFNOSUPPORT), (RETURN, 0, 0, ALLOW)]
program = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
header = ctypes.create_string_buffer(struct.pack('HP', len(steps), ctypes.addressof(program)))
libc = ctypes.CDLL(None, use_errno=True)
for call in [(38, 1, 0, 0, 0), (22, 2, ctypes.addressof(header), 0, 0)]:
    if libc.prctl(*map(ctypes.c_ulong, call)):
        sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// What the chart's default values come to.
fn defaults_of_the_chart(port: u16) -> String {
    format!(
        "admin: '[::]:0'\nlisten:\n  - {{ name: https, address: '0.0.0.0:{port}' }}\n  \
         - {{ name: https, address: '[::]:{port}' }}\n"
    )
}

#[test]
fn the_defaults_of_the_chart_start_without_ipv6() {
    let (folder, before) = without_ipv6();
    let config = folder.path().join("sluice.yaml");
    fs::write(&config, defaults_of_the_chart(0)).unwrap();
    // Flags would beat the file.
    let start = format!("set -- run --routes \"$7\" --config {}\n{before}", config.display());
    let process = Process::start_unread(&start, &manifest("a.test", answering("served"), ""), &[]);
    assert!(process.address.is_ipv4() && process.admin.is_ipv4());
    let loopback = |address: SocketAddr| SocketAddr::from(([127, 0, 0, 1], address.port()));
    assert_eq!(ask(loopback(process.address), "a.test"), "served");
    for said in ["not listening there", "lacks this address family"] {
        assert!(process.has_logged(said), "{said}");
    }
}

#[test]
fn a_listener_that_has_no_other_address_is_missed() {
    let (_folder, before) = without_ipv6();
    let error = Process::fails(
        Stdio::null(),
        &before,
        &["--listen", "https=127.0.0.1:0", "--listen", "db=tcp://[::]:0"],
    );
    assert!(
        error.contains("listener \"db\" cannot listen on [::]:0: Address family not supported"),
        "{error}"
    );
}

/// The folder has to outlive the process's start.
fn without_ipv6() -> (tempfile::TempDir, String) {
    let folder = tempdir().unwrap();
    let script = folder.path().join("without_ipv6.py");
    fs::write(&script, WITHOUT_IPV6).unwrap();
    let before = format!("exec python3 {} \"$0\" \"$@\"", script.display());
    (folder, before)
}
