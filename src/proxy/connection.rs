//! The life of a connection.

use std::rc::Rc;
use std::sync::Arc;

use super::connect::connect;
use super::hellos::ServedHello;
use super::listener::Listener;
use super::peek::{Peeked, peek};
use super::record::Record;
use super::refuse::refuse;
use super::relay::Relay;
use super::socket::Socket;
use super::worker::Worker;
use crate::config::Protocol;
use crate::outcome::Outcome;
use crate::routing::Route;

/// Serves one client, from accept to record.
#[allow(clippy::manual_async_fn, reason = "an async fn keeps what it is given twice")]
pub(super) fn serve(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    downstream: Socket,
    mut record: Record,
) -> impl Future<Output = ()> {
    async move {
        let served = async {
            let peeked = peek(&worker, &listener, &downstream, &mut record).await?;
            let Peeked { hello, key, received } = peeked;
            record.peeked(hello);
            let route = lookup(&worker, &listener, &record)?;
            record.routed(&route);
            let _served = enter(&worker, key)?;
            let upstream = connect(&worker, &route, &downstream, &mut record).await?;
            record.connected();
            let idle = worker.settings.timeouts.idle_of(route.spec.policy.timeouts.idle);
            let relay = Relay::new(&worker, &downstream, &upstream.socket, received);
            Ok(relay.run(idle, |passed| record.passed(passed)).await)
        };
        let outcome = match served.await {
            Ok(outcome) => outcome,
            Err(refused) => {
                refuse(&worker, &listener, &downstream, refused).await;
                refused
            }
        };
        drop(downstream);
        // Health checks reset as well; a listener that reads no hello would never know them.
        let silent = listener.protocol == Protocol::Tcp && record.is_silent();
        record.close(match outcome {
            Outcome::DownstreamReset if silent => Outcome::NoHello,
            outcome => outcome,
        });
    }
}

/// Notes that the hello of `key` is being served, unless it goes round.
fn enter(worker: &Worker, key: Option<u64>) -> Result<Option<ServedHello<'_>>, Outcome> {
    key.map(|key| worker.hellos().enter(key).ok_or(Outcome::Loop)).transpose()
}

fn lookup(worker: &Worker, listener: &Listener, record: &Record) -> Result<Arc<Route>, Outcome> {
    let hello = record.hello();
    let name = hello.and_then(|hello| hello.server_name.as_ref());
    let offers = hello.into_iter().flat_map(|hello| hello.alpn.iter());
    let table = worker.routes.table();
    let found = table.lookup(name.map(|name| name.as_str()), &listener.name, offers);
    let none = if name.is_none() && hello.is_some() { Outcome::NoSni } else { Outcome::NoRoute };
    found.map(|found| Arc::clone(found.route)).ok_or(none)
}
