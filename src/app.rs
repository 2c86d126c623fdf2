//! All parts together: bind everything, run it, drain it.

mod kubernetes;
mod publish;
mod saving;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::access_log::{AccessLog, Writing};
use crate::admin::{Admin, AdminState, Limits};
use crate::config::{self, Config, Source};
use crate::control::build::Installation;
use crate::control::dns::Names;
use crate::control::files::{self, Update};
use crate::control::status::{Reporter, Statuses};
use crate::health::Health;
use crate::machine;
use crate::metrics::Metrics;
use crate::proxy::{Proxy, Running};
use crate::reach::{OwnEndpoints, Reach};
use crate::routing::{self, ObjectKey, Reader, Writer};
use publish::Publisher;
use saving::Saver;

/// How long the resets of the last connections may take.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the output of the access log may take for the last lines.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs sluice until it is told to end by SIGTERM or SIGINT, and then drains it; a second signal
/// ends it at once.
///
/// # Errors
/// When something cannot be bound or started, or a worker fails.
pub fn run(config: Config) -> anyhow::Result<()> {
    let app = App::bind(config)?;
    let runtime = control_runtime()?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        app.run(async move || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        })
        .await
    });
    // A file system that does not answer must not keep the process from ending.
    runtime.shutdown_background();
    result
}

/// The runtime of everything but connections: admin port, sources, signals.
///
/// # Errors
/// When the system has no descriptors for it.
pub fn control_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A sluice whose addresses are bound and that has not begun to serve.
#[derive(Debug)]
pub struct App {
    config: Config,
    proxy: Proxy,
    admin: Admin,
}

/// What the parts share.
struct Parts {
    metrics: Metrics,
    health: Arc<Health>,
    table: Reader,
    statuses: Statuses,
    saver: Option<Saver>,
    /// Where routes may lead.
    reach: Reach,
    own_endpoints: OwnEndpoints,
    /// Once there is a client.
    reporter: Rc<RefCell<Option<Reporter>>>,
}

impl App {
    /// Binds the admin port and every listener.
    ///
    /// # Errors
    /// The first address that cannot be had, by name.
    pub fn bind(config: Config) -> anyhow::Result<Self> {
        let admin = Admin::bind(config.admin)?;
        let mut proxy = Proxy::bind(&config)?;
        proxy.protect(admin.listening());
        Ok(App { config, proxy, admin })
    }

    /// The name and the address of every listener.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.proxy.addresses()
    }

    /// The address of the admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Serves. `signalled` waits for the next signal to end and tells which it was: the first
    /// begins to drain, the second ends at once.
    ///
    /// # Errors
    /// When threads or descriptors cannot be had, or a worker fails.
    pub async fn run(
        mut self,
        mut signalled: impl AsyncFnMut() -> &'static str,
    ) -> anyhow::Result<()> {
        for (name, address) in self.proxy.addresses() {
            tracing::info!(listener = name, %address, "listening");
        }
        tracing::info!(address = %self.admin.local_addr(), "admin port");
        tracing::info!(
            workers = self.config.workers,
            most_connections = self.proxy.most_connections(),
            "serving"
        );
        let (writer, table) = routing::channel();
        let metrics = Metrics::new(table.clone())?;
        let parts = Parts {
            saver: Saver::new(&self.config, &table, &metrics),
            metrics,
            health: Arc::new(Health::new()),
            table,
            statuses: Statuses::default(),
            reach: self.proxy.reach().clone(),
            own_endpoints: OwnEndpoints::default(),
            reporter: Rc::default(),
        };
        parts.health.set_listeners_bound();
        self.proxy.protect_own(parts.own_endpoints.clone());

        let (first, first_table) = oneshot::channel();
        let mut source: Pin<Box<dyn Future<Output = Infallible>>> = match self.config.source {
            Source::Kubernetes => {
                Box::pin(kubernetes::follow(&self.config, writer, &parts, first).await?)
            }
            Source::Auto | Source::Files => {
                Box::pin(follow_files(&self.config, writer, &parts, first))
            }
        };
        let (stop_admin, admin_stopped) = oneshot::channel::<()>();
        let admin = self.admin.serve(parts.admin_state(), async {
            let _ = admin_stopped.await;
        });
        let mut admin = pin!(admin);
        let leave = || parts.reporter.borrow().iter().for_each(Reporter::leave);
        let traffic = serve(&self.config, self.proxy, &parts, first_table, &mut signalled, leave);

        // These two go on for as long as there is traffic.
        let result = tokio::select! {
            result = traffic => result,
            result = admin.as_mut() => result.context("the admin port failed"),
            never = source.as_mut() => match never {},
        };
        drop(stop_admin);
        if let Some(saver) = &parts.saver {
            saver.finish().await;
        }
        let reporter = parts.reporter.take();
        if let Some(reporter) = reporter {
            reporter.left().await;
        }
        result
    }
}

impl Parts {
    fn admin_state(&self) -> Arc<AdminState> {
        Arc::new(AdminState {
            metrics: self.metrics.clone(),
            health: Arc::clone(&self.health),
            table: self.table.clone(),
            statuses: self.statuses.clone(),
            limits: Limits::default(),
        })
    }
}

/// Keeps the table as the files have it. `first` is told of the first table.
fn follow_files(
    config: &Config,
    writer: Writer,
    parts: &Parts,
    first: oneshot::Sender<()>,
) -> impl Future<Output = Infallible> + use<> {
    let installation = installation(config, parts);
    let (metrics, health) = (parts.metrics.clone(), Arc::clone(&parts.health));
    let table = parts.table.clone();
    let mut publisher = publisher(writer, parts);
    let mut first = Some(first);
    let publish = move |update: Update| {
        let Update { settled, complete, faults, noticed } = update;
        let applied = publisher.publish(settled, noticed);
        metrics.manifest_faults.set(i64::try_from(faults).unwrap_or(i64::MAX));
        tracing::info!(
            routes = table.table().len(),
            faults,
            new_table = applied.table,
            changed_backends = applied.backends,
            "routes are live"
        );
        metrics.source_up.set(i64::from(complete));
        if complete {
            health.set_table_complete();
        }
        if let Some(first) = first.take() {
            // Fails only if sluice is ending already.
            let _ = first.send(());
        }
    };
    let errors = parts.metrics.source_errors.clone();
    let names = Names::new(&config.dns_servers);
    files::watch(config.routes.clone(), installation, names, publish, move || errors.inc())
}

fn publisher(writer: Writer, parts: &Parts) -> Publisher {
    Publisher::new(writer, parts.statuses.clone(), parts.own_endpoints.clone(), &parts.metrics)
}

fn installation(config: &Config, parts: &Parts) -> Installation {
    let mut listeners: Vec<String> = config.listeners.iter().map(|l| l.name.clone()).collect();
    listeners.sort();
    listeners.dedup();
    Installation {
        class: config.class.clone(),
        require_class: config.require_class,
        listeners,
        reach: parts.reach.clone(),
        machine: machine::addresses().unwrap_or_else(|error| {
            tracing::debug!(%error, "the kernel does not say which addresses are this machine's");
            Vec::new()
        }),
        own_services: config
            .own_services
            .iter()
            .map(|service| ObjectKey::new(&service.namespace, &service.name))
            .collect(),
    }
}

/// Serves traffic from the first table to the end of the drain; `leave` is called when that begins.
async fn serve(
    config: &Config,
    proxy: Proxy,
    parts: &Parts,
    first_table: oneshot::Receiver<()>,
    signalled: &mut impl AsyncFnMut() -> &'static str,
    leave: impl Fn(),
) -> anyhow::Result<()> {
    // Clients that come before wait in the kernel instead of finding no route.
    tokio::select! {
        _ = first_table => {}
        signal = signalled() => {
            tracing::info!(signal, "ending before the first table");
            return Ok(());
        }
    }
    let (log, writing) = access_log(config, &parts.metrics)?;
    let ended = Arc::new(Notify::new());
    let notify = Arc::clone(&ended);
    let running = proxy.start(&parts.table, &parts.metrics, log.as_ref(), move || {
        notify.notify_one();
    })?;
    drop(log);

    tokio::select! {
        signal = signalled() => tracing::info!(signal, "draining"),
        () = ended.notified() => {
            parts.health.set_worker_lost();
            running.abort();
            running.join()?;
            anyhow::bail!("a worker ended by itself");
        }
    }
    parts.health.set_draining();
    leave();
    let hurry = async {
        let signal = signalled().await;
        tracing::warn!(signal, "ending at once");
    };
    drain(config.drain, &running, &ended, pin!(hurry)).await;
    let left = parts.metrics.connections_active.get();
    running.abort();
    if timeout(ABORT_TIMEOUT, over(&running, &ended)).await.is_err() {
        anyhow::bail!("the workers did not end in {ABORT_TIMEOUT:?}");
    }
    running.join()?;
    if writing.is_some_and(|writing| !writing.finish(LOG_TIMEOUT)) {
        tracing::warn!("the reader of the access log has stalled; its last lines are lost");
    }
    tracing::info!(reset = left, "ended");
    Ok(())
}

/// Goes on accepting while load balancers learn that this replica is unready, then lets
/// connections end by themselves; `hurry` cuts both short.
async fn drain(
    config: config::Drain,
    running: &Running,
    ended: &Notify,
    mut hurry: Pin<&mut impl Future<Output = ()>>,
) {
    tokio::select! {
        () = tokio::time::sleep(config.delay) => {}
        () = hurry.as_mut() => return,
    }
    running.close();
    tracing::info!("no longer accepting");
    tokio::select! {
        _ = timeout(config.timeout, over(running, ended)) => {}
        () = hurry => {}
    }
}

/// Waits until all workers are over.
async fn over(running: &Running, ended: &Notify) {
    while !running.is_over() {
        ended.notified().await;
    }
}

fn access_log(
    config: &Config,
    metrics: &Metrics,
) -> io::Result<(Option<AccessLog>, Option<Writing>)> {
    if config.access_log == config::AccessLog::Off {
        return Ok((None, None));
    }
    let (log, writing) = AccessLog::to_stdout(metrics.access_log_dropped.clone())?;
    Ok((Some(log), Some(writing)))
}
