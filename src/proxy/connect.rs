//! Connect: opens a connection to one endpoint of a route.
//!
//! Nearly always, the first endpoint answers at once. If it does not, [`Race`] tries others; it is
//! allocated only then.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Attempt, ConnectFailure, Upstream};
use super::connection::Connection;
use super::context::Context;
use super::endpoint_tls::EndpointTls;
use super::race::Race;
use super::reactor::Interrupted;
use super::refuse::Refusal;
use super::stream::Stream;
use crate::outcome::Limit;
use crate::routing::{ActiveConnection, EndpointRequest, NoEndpoint, Route, SearchState, choose};

/// The precision of the first attempt's deadline is this part of it. Almost no connection reaches this
/// deadline, so it can be coarse; equal deadlines of several connections make the worker wake less often.
const PATIENCE_PARTS: u32 = 3;

/// Connects to an endpoint of `route`. If that fails or takes long, tries others, because the client has
/// received nothing yet. Stops as soon as the client (`downstream`) is gone.
pub(super) async fn connect(
    context: &Context,
    connection: &mut Connection,
    route: &Arc<Route>,
    downstream: &Stream,
) -> Result<Upstream, Refusal> {
    let _connecting = context.connecting();
    let (active, search) = choose_first(context, connection, route)?;
    let limit = route.spec.policy.connect_timeout();
    let tls = EndpointTls::of(connection, route, downstream);
    let first = match Attempt::begin(context, route, active, tls) {
        Ok(attempt) => {
            let patience = patience(context, route.spec.policy.race().after);
            let quick = attempt.is_quick();
            let looked = if quick { attempt.look(context, route, downstream).await } else { None };
            let answer = match looked {
                Some(answer) => Ok(answer),
                None => {
                    let answer = poll_fn(|_| attempt.poll(context, route, downstream));
                    context.reactor.within(patience.min(limit), answer).await
                }
            };
            match answer {
                Ok(Ok(true)) => return Ok(attempt.succeed(context)),
                Ok(Ok(false)) => {
                    let fault = attempt.take_fault();
                    fault.into_iter().for_each(|fault| connection.endpoint_failed(&fault));
                    Err(ConnectFailure::Failed)
                }
                Ok(Err(gone)) => return Err(gone),
                Err(Interrupted::Cancelled) => return Err(Refusal::Drained),
                // What TLS has waited for its turns is added: a race goes on with one attempt as well.
                Err(Interrupted::Elapsed) if patience < limit || !attempt.held_back().is_zero() => {
                    Ok(attempt)
                }
                Err(Interrupted::Elapsed) => {
                    attempt.give_up(context, route);
                    Err(ConnectFailure::TimedOut)
                }
            }
        }
        Err(failure) => Err(failure),
    };
    // Boxed, so that the tasks of ordinary connections reserve no space for it.
    Box::pin(Race::new(context, connection, route, downstream, limit, search, first).run()).await
}

/// Chooses the endpoint that is tried first.
fn choose_first(
    context: &Context,
    connection: &mut Connection,
    route: &Arc<Route>,
) -> Result<(ActiveConnection, SearchState), Refusal> {
    let request = EndpointRequest {
        name: connection.server_name(),
        ..EndpointRequest::new(connection.source.ip(), &[], context.random())
    };
    let active = choose(route, &request).map_err(|none| match none {
        NoEndpoint::NoneLeft => Refusal::NoEndpoints,
        NoEndpoint::AllFull => Refusal::LimitExceeded(Limit::Endpoint),
    })?;
    let search = request.search;
    let is_over = |most| active.endpoint().active() > most;
    if route.spec.policy.reported_endpoint_limit().is_some_and(is_over) {
        connection.is_over(Limit::Endpoint);
    }
    connection.trying(active.endpoint().address);
    Ok((active, search))
}

/// The time after which a race begins, rounded up to the next step.
fn patience(context: &Context, after: Duration) -> Duration {
    let step = u64::try_from((after / PATIENCE_PARTS).as_millis()).unwrap_or(u64::MAX).max(1);
    let past = context.reactor.after(after) % step;
    after.saturating_add(Duration::from_millis((step - past) % step))
}
