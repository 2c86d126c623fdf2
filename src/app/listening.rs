//! Applies changes of the wanted binds to the data plane.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::proxy::{BindSpec, Running};
use crate::readiness::Readiness;

/// The first pause before failed binds are tried again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Applies each new value of `wanted`, for ever. A bind that fails is logged once for each reason, is a
/// notice until it succeeds, and is tried again after a pause. Other binds do not wait for it.
pub(super) async fn follow(
    running: &Running,
    mut wanted: watch::Receiver<Vec<BindSpec>>,
    readiness: &Readiness,
) -> Infallible {
    let mut known: Vec<String> = Vec::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let specs = wanted.borrow_and_update().clone();
        let faults: Vec<String> = running.apply(&specs).iter().map(ToString::to_string).collect();
        for fault in faults.iter().filter(|fault| !known.contains(fault)) {
            tracing::error!(error = fault, "cannot accept clients there; trying again");
        }
        for fault in known.iter().filter(|fault| !faults.contains(fault)) {
            tracing::info!(
                before = fault,
                "clients are accepted there again, or the bind was removed"
            );
        }
        readiness.set_bind_faults(faults.clone());
        known = faults;
        let changed = async {
            if wanted.changed().await.is_err() {
                // The sender is gone: there is no other value.
                pending::<()>().await;
            }
        };
        if known.is_empty() {
            changed.await;
            pause = FIRST_PAUSE;
        } else if timeout(pause, changed).await.is_ok() {
            pause = FIRST_PAUSE;
        } else {
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;
    use crate::config::{Config, ListenerConfig};
    use crate::metrics::Metrics;
    use crate::proxy::Proxy;
    use crate::routing::channel;

    async fn until(mut holds: impl FnMut() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), wait).await.expect("in time");
    }

    #[tokio::test]
    async fn a_bind_of_a_taken_address_is_a_notice_until_the_address_is_free() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = vec![ListenerConfig::new("https", any)];
        let config = Config { listeners, workers: 1.try_into().unwrap(), ..Config::default() };
        let (_writer, reader) = channel();
        let metrics = Metrics::new(reader.clone()).unwrap();
        let running = Proxy::bind(&config).unwrap().start(&reader, &metrics, None, || {}).unwrap();
        let other = TcpListener::bind(any).unwrap();
        let taken = other.local_addr().unwrap();
        let mut wanted = running.binds_in_force();
        let (want, wanting) = watch::channel(wanted.clone());
        let readiness = Readiness::new();

        let story = async {
            wanted.push(BindSpec::of(&ListenerConfig::new("more", taken)));
            want.send(wanted.clone()).unwrap();
            until(|| !readiness.notices().is_empty()).await;
            let notice = &readiness.notices()[0];
            assert!(notice.contains(&format!("\"more\" cannot listen on {taken}: ")), "{notice}");
            drop(other);
            until(|| readiness.notices().is_empty()).await;
            assert!(TcpStream::connect(taken).is_ok());
            wanted.pop();
            want.send(wanted).unwrap();
            until(|| TcpStream::connect(taken).is_err()).await;
        };
        tokio::select! {
            () = story => {}
            never = follow(&running, wanting, &readiness) => match never {},
        }
        running.abort();
        running.join().unwrap();
    }
}
