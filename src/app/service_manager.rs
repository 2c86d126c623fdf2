//! The service manager that started the process, if any: the sockets that it passes, and the notifications
//! that it receives (sd_listen_fds(3), sd_notify(3)).

use std::convert::Infallible;
use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::time::{MissedTickBehavior, interval};

use crate::proxy::PassedSocket;
use crate::readiness::Readiness;

/// The maximum number of passed sockets. No unit has more; a higher number is a mistake.
const MOST_SOCKETS: u32 = 1024;

/// Takes the sockets that were passed to this process. Must be called once, before the process opens
/// anything.
///
/// # Errors
/// When `LISTEN_FDS` is not a number of open descriptors.
pub(super) fn passed_sockets() -> anyhow::Result<Vec<PassedSocket>> {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u32>());
    // If LISTEN_PID is another process's id, the sockets are not for this process.
    if number("LISTEN_PID") != Some(Ok(std::process::id())) {
        return Ok(Vec::new());
    }
    match number("LISTEN_FDS") {
        None => return Ok(Vec::new()),
        Some(Ok(count @ 0..=MOST_SOCKETS)) => check_open(count)?,
        Some(_) => anyhow::bail!("LISTEN_FDS is not a number of sockets from 0 to {MOST_SOCKETS}"),
    }
    let all = sd_listen_fds::get()?;
    let passed = all.into_iter().enumerate().map(|(index, (name, socket))| {
        let socket: OwnedFd = socket.into_std();
        // Programs that get credentials for an API server must not inherit it.
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        let number = index + 1;
        let described = match &name {
            Some(name) => format!("socket {number} of LISTEN_FDS, named {name:?},"),
            None => format!("socket {number} of LISTEN_FDS"),
        };
        Ok(PassedSocket { name, described, socket })
    });
    passed.collect()
}

/// Checks that this number of descriptors is open after the standard ones. Taking a descriptor that is not
/// open would later close that of another owner.
fn check_open(count: u32) -> anyhow::Result<()> {
    for fd in 3..3 + count {
        if std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err() {
            anyhow::bail!("LISTEN_FDS is {count}, but descriptor {fd} is not open");
        }
    }
    Ok(())
}

/// The notification socket of the service manager. Without one, nothing is sent.
#[derive(Debug)]
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    ///
    /// # Errors
    /// When `NOTIFY_SOCKET` is no socket address, or no descriptor is left.
    pub(super) fn from_environment() -> io::Result<Self> {
        let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Ok(ServiceManager { socket: None, watchdog: None });
        };
        let address = match path.as_encoded_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&path)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A service manager that does not read must not block anything.
        socket.set_nonblocking(true)?;
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0);
        let watchdog = watchdog.map(Duration::from_micros);
        Ok(ServiceManager { socket: Some((socket, address)), watchdog })
    }

    /// Reports that connections are served.
    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// Reports that the process is about to end, within this time.
    pub(super) fn stopping(&self, within: Duration) {
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", within.as_micros()));
    }

    /// Sends watchdog notifications as often as requested, but only while the process works.
    pub(super) async fn watch(&self, readiness: Arc<Readiness>) -> Infallible {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        let mut turns = interval(watchdog / 2);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if readiness.live().is_ok() {
                self.send("WATCHDOG=1");
            }
        }
    }

    fn send(&self, state: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::warn!(%error, state, "cannot notify the service manager");
        }
    }
}
