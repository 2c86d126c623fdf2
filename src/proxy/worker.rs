//! A worker thread: its main loop.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::accept::{accept, take_in};
use super::context::{Context, HANDSHAKE, LAST_HANDSHAKE, LOG_DELAY, OpenBind};
use super::reactor::Reactor;
use super::settings::Settings;
use super::workers::{BindOrder, Handoff, Mail, Phase, Workers};
use crate::access_log::Buffer;
use crate::metrics::Metrics;
use crate::routing::TableReader;

/// The arguments of a worker thread.
pub(super) struct WorkerArgs {
    /// Its number.
    pub(super) number: usize,
    pub(super) workers: Arc<Workers>,
    pub(super) routes: TableReader,
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: Metrics,
    pub(super) log: Option<Buffer>,
}

/// Serves until the worker is closed and its last connection has ended.
///
/// # Errors
/// When descriptors are exhausted, or a bind ends unexpectedly.
pub(super) fn run(args: WorkerArgs) -> io::Result<()> {
    let WorkerArgs { number, workers, routes, settings, metrics, log } = args;
    let Some(inbox) = workers.handle(number).map(|handle| Arc::clone(handle.inbox())) else {
        return Err(io::Error::other("there is no worker with this number"));
    };
    let panics = metrics.process.panics.clone();
    let reactor = Reactor::new(inbox, move || panics.inc())?;
    let context = Context::new(&reactor, number, workers, routes, settings, metrics, log);
    reactor.block_on(run_loop(Rc::new(context)))?
}

/// The worker's main task: starts the other tasks, and handles messages from other threads.
async fn run_loop(context: Rc<Context>) -> io::Result<()> {
    let Some(handle) = context.handle() else { return Ok(()) };
    let reactor = &context.reactor;
    context.set_tasks(reactor.current(), reactor.spawn(write_log(Rc::clone(&context))));
    poll_fn(|_| {
        handle.answer();
        read_mail(&context, handle.take());
        if handle.has_reached(Phase::Closing) {
            context.close();
        }
        if handle.has_reached(Phase::Aborting) && !reactor.is_cancelled() {
            reactor.cancel();
        }
        let is_over = context.is_closing() && !context.has_binds();
        if is_over {
            read_mail(&context, handle.take_last());
        }
        match is_over && handle.connections() == 0 {
            _ if context.has_lost_bind() => {
                Poll::Ready(Err(io::Error::other("a bind has ended by itself")))
            }
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}

/// Handles messages from other threads: orders first, because a connection may belong to a new bind.
fn read_mail(context: &Rc<Context>, mail: Mail) {
    let Mail { orders, handoffs, removals, .. } = mail;
    for order in orders {
        match order {
            BindOrder::Open { bind, listener, socket, lease } => {
                let bind = Rc::new(OpenBind::new(bind, listener, lease));
                context.open_bind(&bind);
                let accepting = accept(Rc::clone(context), Rc::clone(&bind), socket);
                bind.set_task(context.reactor.spawn(accepting));
                if context.is_closing() {
                    context.close_bind(&bind, LAST_HANDSHAKE);
                }
            }
            BindOrder::Change { bind, listener } => {
                context.bind(bind).into_iter().for_each(|bind| bind.serve(Arc::clone(&listener)));
            }
            BindOrder::Close(bind) => {
                context
                    .bind(bind)
                    .into_iter()
                    .for_each(|bind| context.close_bind(&bind, HANDSHAKE));
            }
        }
    }
    removals.iter().for_each(|removals| context.upstreams.tell(removals, &context.reactor));
    for Handoff { listener, client, source } in handoffs {
        take_in(context, context.local_listener(&listener), client, source);
    }
}

/// Passes the lines of the access log on when the oldest has waited for its time.
async fn write_log(context: Rc<Context>) {
    poll_fn(|_| {
        if context.hand_over_log() {
            let reactor = &context.reactor;
            reactor.wake_at(reactor.current(), reactor.after(LOG_DELAY));
        }
        Poll::<()>::Pending
    })
    .await;
}
