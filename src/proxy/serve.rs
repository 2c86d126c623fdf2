//! The life of a connection: accept → preamble → peek → lookup → admit → handshake → connect → relay → record.
//! There is a handshake only if the route serves TLS.

use std::rc::Rc;
use std::sync::Arc;

use rustix::fd::OwnedFd;

use super::admit::admit;
use super::announce::announce;
use super::connect::connect;
use super::connection::Connection;
use super::handshake::handshake;
use super::peek::peek;
use super::preamble::preamble;
use super::refuse::{Refusal, close_refused, refuse};
use super::relay::Relay;
use super::socket::Socket;
use super::stream::Stream;
use crate::config::Protocol;
use crate::outcome::{Limit, Outcome};
use crate::routing::Route;

/// Serves an accepted client.
#[allow(clippy::manual_async_fn, reason = "an async fn stores its arguments twice")]
pub(super) fn serve(mut connection: Connection, client: OwnedFd) -> impl Future<Output = ()> {
    async move {
        let Ok(socket) = Socket::accepted(&connection.context.reactor, client) else {
            // The user's epoll watches are used up (`fs.epoll.max_user_watches`).
            return close_refused(connection, Refusal::LimitExceeded(Limit::Process));
        };
        let downstream = Stream::new(socket);
        let context = Rc::clone(&connection.context);
        let served = async {
            let received = preamble(&context, &mut connection, downstream.socket()).await?;
            let member = context.room.enter(connection.source.ip());
            let received = peek(&context, &mut connection, downstream.socket(), received).await?;
            let route = lookup(&mut connection)?;
            let _admission = admit(&context, &mut connection, &route)?;
            let received =
                handshake(&context, &mut connection, &route, &downstream, received).await?;
            let known = context.upstreams.enter(&context.reactor);
            let upstream = connect(&context, &mut connection, &route, &downstream).await?;
            let first = announce(&connection, &route, &downstream, received);
            connection.connected();
            known.connected(connection.endpoint);
            let relay = Relay::new(&context, &downstream, &upstream.stream, &member, known, first);
            let has_hello = connection.listener.protocol != Protocol::Tcp;
            let client = has_hello.then(|| connection.source.ip());
            let report = |bytes| connection.record.passed(&route.stats, bytes);
            let answered = |answer| upstream.answered(&context, &route, answer, client);
            let outcome = relay.run(&route, report, answered).await;
            connection.relayed(&downstream, &upstream.stream);
            Ok(outcome)
        };
        let mut served = served.await;
        if let Some(limit) = context.room.take_displaced()
            && matches!(served, Ok(Outcome::Drained) | Err(Refusal::Drained))
        {
            served = Err(Refusal::LimitExceeded(limit));
        }
        if let Err(refusal) = served {
            refuse(&connection, &downstream, refusal).await;
        }
        drop(downstream);
        match served {
            Ok(outcome) => connection.close(outcome),
            Err(refusal) => close_refused(connection, refusal),
        }
    }
}

/// Finds the route that takes a connection.
fn lookup(connection: &mut Connection) -> Result<Arc<Route>, Refusal> {
    let hello = connection.hello.as_ref();
    let name = hello.and_then(|hello| hello.server_name.as_ref());
    let offers = hello.into_iter().flat_map(|hello| hello.alpn.iter());
    let table = connection.context.routes.table();
    let listener = connection.listener.reference();
    let found = table.lookup(name.map(|name| name.as_str()), listener, offers);
    let none = if name.is_none() && hello.is_some() { Refusal::NoSni } else { Refusal::NoRoute };
    let route = found.map(|found| Arc::clone(found.route)).ok_or(none)?;
    drop(table);
    connection.routed(&route);
    Ok(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This is most of the memory of an idle connection. Every value that is held across an `.await` counts.
    const MOST_BYTES: usize = 1344;

    #[test]
    fn a_connection_is_small() {
        fn size<A, B, F>(_: fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(serve);
        assert!(bytes <= MOST_BYTES, "{bytes} bytes");
    }
}
