//! Starts, runs and drains all parts of the process.

mod beat;
mod checks;
mod control;
mod drain;
mod kubernetes;
mod listening;
mod part_thread;
mod publish;
mod saving;
mod service_manager;
mod signals;
mod tickets;
mod watchdog;

use std::io;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot, watch};

use crate::access_log::{AccessLog, Writing};
use crate::admin::{Admin, AdminLimits, AdminState};
use crate::config::{self, Config, ListenerConfig, Protocol, RouteSource};
use crate::control::checks::Authorities;
use crate::control::status::Statuses;
use crate::control::supervise::Supervised;
use crate::control::translate::{Installation, OwnPlace};
use crate::heartbeat::Duty;
use crate::logging;
use crate::machine;
use crate::metrics::Metrics;
use crate::proxy::{PassedSocket, Proxy};
use crate::reach::{OwnEndpoints, Reach};
use crate::readiness::Readiness;
use crate::routing::{self, ObjectKey, TableReader, TableWriter};
use crate::termination::TicketKeys;
use control::ControlThread;
use kubernetes::StatusTask;
use saving::Saver;
use service_manager::{ServiceManager, passed_sockets};
use signals::Signals;
use watchdog::Watchdog;

/// The process before its configuration is read.
///
/// Must be created once, before anything else. From then on, signals no longer kill the process.
#[derive(Debug)]
pub struct Startup {
    runtime: Runtime,
    signals: Signals,
    passed: Vec<PassedSocket>,
}

impl Startup {
    /// Catches signals, and takes the sockets that were passed to the process.
    ///
    /// # Errors
    /// When the system has no descriptors left, or the sockets do not exist.
    pub fn new() -> anyhow::Result<Self> {
        // First, before other descriptors can have these numbers.
        let passed = passed_sockets()?;
        let runtime = single_threaded()?;
        let signals = {
            let _runtime = runtime.enter();
            Signals::catch()?
        };
        Ok(Startup { runtime, signals, passed })
    }

    /// Runs sluice until SIGTERM or SIGINT, and then drains it; a second signal ends it at once. SIGHUP
    /// makes it read the manifests again. Other signals have no effect. First sets up the log of the
    /// process.
    ///
    /// # Errors
    /// When the log, an address or a part cannot be set up, or a worker fails.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        let Startup { runtime, signals, passed } = self;
        let (writer, table) = routing::channel();
        let metrics = Metrics::new(table.clone())?;
        // Dropped last, which writes the last lines.
        let _log = logging::init(&config.log, metrics.process.log_dropped.clone())?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            config = config.in_force(),
            "the configuration in force"
        );
        let app = App::bind(config, passed, writer, table, metrics)?;
        let reread = app.on_hangup();
        let result = runtime.block_on(async { app.run(signals.follow(reread)).await });
        // A file system that does not answer must not keep the process from ending.
        runtime.shutdown_background();
        result
    }
}

/// A single-threaded runtime, for everything but connections.
///
/// # Errors
/// When the system has no descriptors for it.
pub fn single_threaded() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A process whose addresses are bound, and that does not serve yet.
struct App {
    config: Config,
    proxy: Proxy,
    admin: Admin,
    writer: TableWriter,
    parts: SharedParts,
}

/// State that the parts share across threads.
#[derive(Clone)]
struct SharedParts {
    metrics: Metrics,
    readiness: Arc<Readiness>,
    table: TableReader,
    statuses: Statuses,
    saver: Option<Saver>,
    /// The rules for endpoint addresses.
    reach: Reach,
    own_endpoints: OwnEndpoints,
    /// The authorities of active health checks.
    authorities: Authorities,
    /// The keys of session tickets; `None` if no route may serve TLS.
    ticket_keys: Option<TicketKeys>,
    /// Notified when the manifests are to be read again.
    reread: Arc<Notify>,
}

impl App {
    /// Binds the admin port and all listeners, except for those with passed sockets.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    fn bind(
        config: Config,
        passed: Vec<PassedSocket>,
        writer: TableWriter,
        table: TableReader,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let admin = Admin::bind(config.admin)?;
        let mut proxy = Proxy::bind_with(&config, passed)?;
        proxy.protect(admin.listening());
        let parts = SharedParts {
            saver: Saver::new(&config, &table, &metrics),
            metrics,
            readiness: Arc::new(Readiness::new()),
            table,
            statuses: Statuses::default(),
            reach: proxy.reach().clone(),
            own_endpoints: OwnEndpoints::default(),
            authorities: Authorities::default(),
            ticket_keys: tickets::first(&config)?,
            reread: Arc::default(),
        };
        proxy.protect_own(parts.own_endpoints.clone());
        Ok(App { config, proxy, admin, writer, parts })
    }

    /// The action for SIGHUP: reads manifests in files again. Changes in the API server need no such action.
    fn on_hangup(&self) -> impl FnMut() + Send + use<> {
        let (source, reread) = (self.config.source, Arc::clone(&self.parts.reread));
        move || match source {
            RouteSource::Kubernetes => {
                tracing::info!("SIGHUP: nothing to read again, routes come from the API server");
            }
            RouteSource::Auto | RouteSource::Files => {
                tracing::info!("SIGHUP: reading the manifests again");
                reread.notify_one();
            }
        }
    }

    /// Serves. `signalled` waits for the next signal that ends the process, and returns its name: the first
    /// starts the drain, the second ends the process at once.
    ///
    /// The thread of this function answers probes, receives signals and keeps the Lease. It never blocks for
    /// long; the control plane has its own thread.
    ///
    /// # Errors
    /// When a thread or descriptor cannot be created, or a worker fails.
    async fn run(self, mut signalled: impl AsyncFnMut() -> &'static str) -> anyhow::Result<()> {
        let App { config, proxy, admin, writer, parts } = self;
        log_addresses(&config, &proxy, &admin);
        parts.readiness.set_listeners_bound();

        let (first, first_table) = oneshot::channel();
        let mut control = ControlThread::start(config.clone(), writer, parts.clone(), first)?;
        let stalled = parts.metrics.process.stalled_threads.clone();
        let watchdog = Watchdog::new(Arc::clone(&parts.readiness), stalled);
        watchdog.add(control.pulse());
        let checks = checks::start(&config, &parts, proxy.descriptors_of_checks())?;
        watchdog.add(checks.pulse(Duty::Checks));
        let statuses = StatusTask::default();
        let (stop_admin, admin_stopped) = oneshot::channel::<()>();
        let admin = admin.serve(parts.admin_state(), async {
            let _ = admin_stopped.await;
        });
        let mut admin = pin!(admin);
        let manager = ServiceManager::from_environment().context("NOTIFY_SOCKET")?;
        let serving =
            Traffic { config: &config, parts: &parts, watchdog: &watchdog, manager: &manager };
        let traffic = serving.run(proxy, first_table, &mut signalled, || statuses.leave());

        // The other parts run as long as there is traffic.
        let result = tokio::select! {
            result = traffic => result,
            error = control.failure() => Err(error),
            result = admin.as_mut() => result.context("the admin port failed"),
            never = watchdog.run() => match never {},
            never = manager.watch(Arc::clone(&parts.readiness)) => match never {},
            never = statuses.run(&config, &parts) => match never {},
        };
        drop(stop_admin);
        if let Some(saver) = &parts.saver {
            saver.finish().await;
        }
        statuses.left().await;
        result
    }
}

fn log_addresses(config: &Config, proxy: &Proxy, admin: &Admin) {
    for (name, address) in proxy.addresses() {
        tracing::info!(listener = name, %address, "listening");
    }
    tracing::info!(address = %admin.local_addr(), "admin port");
    let most_connections = proxy.most_connections();
    tracing::info!(workers = config.workers, most_connections, "serving");
}

impl SharedParts {
    fn admin_state(&self) -> Arc<AdminState> {
        Arc::new(AdminState {
            metrics: self.metrics.clone(),
            readiness: Arc::clone(&self.readiness),
            table: self.table.clone(),
            statuses: self.statuses.clone(),
            limits: AdminLimits::default(),
        })
    }

    /// Counts and reports failures of the control plane.
    fn supervised(&self) -> impl Fn(Supervised) + Send + Sync + 'static {
        let (panics, readiness) =
            (self.metrics.process.panics.clone(), Arc::clone(&self.readiness));
        move |event| match event {
            Supervised::Failed { part, detail } => {
                panics.inc();
                readiness.set_part_failed(part, detail);
            }
            Supervised::Steady { part } => readiness.set_part_steady(part),
        }
    }
}

fn installation(config: &Config, parts: &SharedParts) -> Installation {
    let mut listeners: Vec<String> = config.listeners.iter().map(|l| l.name.clone()).collect();
    listeners.sort();
    listeners.dedup();
    let of_tcp = |listener: &&ListenerConfig| listener.protocol == Protocol::Tcp;
    let tcp_listeners = config.listeners.iter().filter(of_tcp).map(|l| l.name.clone()).collect();
    Installation {
        class: config.class.clone(),
        require_class: config.require_class,
        layers: config.policy_layers(),
        listeners,
        reach: parts.reach.clone(),
        machine: machine::addresses().unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot read the addresses of this machine");
            Vec::new()
        }),
        place: OwnPlace { node: config.node.clone(), zone: config.zone.clone() },
        own_services: config
            .own_services
            .iter()
            .map(|service| ObjectKey::new(&service.namespace, &service.name))
            .collect(),
        tcp_listeners,
        hostnames_below: config.hostnames_below,
        termination: parts.ticket_keys.clone(),
    }
}

/// Serves traffic: from the first table to the end of the drain.
struct Traffic<'a> {
    config: &'a Config,
    parts: &'a SharedParts,
    watchdog: &'a Watchdog,
    manager: &'a ServiceManager,
}

impl Traffic<'_> {
    /// Serves traffic from the first table to the end of the drain. Calls `leave` at the start of the drain.
    async fn run(
        self,
        proxy: Proxy,
        first_table: oneshot::Receiver<()>,
        signalled: &mut impl AsyncFnMut() -> &'static str,
        leave: impl Fn(),
    ) -> anyhow::Result<()> {
        let Traffic { config, parts, watchdog, manager } = &self;
        // Clients that connect earlier wait in the kernel, where otherwise they would find no route.
        tokio::select! {
            Ok(()) = first_table => {}
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
        running.pulses().for_each(|pulse| watchdog.add(Box::new(pulse)));
        manager.ready();
        // The binds of the configuration, which do not change.
        let (_wanted, wanted) = watch::channel(running.binds_in_force());

        let lost = tokio::select! {
            never = listening::follow(&running, wanted, &parts.readiness) => match never {},
            lost = self.drain_begins(signalled, &ended) => lost,
        };
        parts.readiness.set_draining();
        let drain_time = config.drain.delay.saturating_add(config.drain.timeout);
        manager.stopping(drain_time.saturating_add(drain::LAST_STEPS));
        leave();
        drain::drain(config.drain, &running, &ended, pin!(hurry(signalled, lost))).await;
        drain::end(&parts.metrics, running, &ended, writing).await
    }

    /// Waits for a signal or the end of a worker. Returns whether a worker has ended.
    async fn drain_begins(
        &self,
        signalled: &mut impl AsyncFnMut() -> &'static str,
        ended: &Notify,
    ) -> bool {
        tokio::select! {
            signal = signalled() => {
                tracing::info!(signal, "draining");
                false
            }
            () = ended.notified() => {
                self.parts.readiness.set_worker_lost();
                tracing::error!("a worker has ended by itself; draining the others");
                true
            }
        }
    }
}

/// Waits for the signal that ends a drain: the second one, or the second after a worker was `lost`.
async fn hurry(signalled: &mut impl AsyncFnMut() -> &'static str, lost: bool) {
    if lost {
        let signal = signalled().await;
        tracing::info!(signal, "draining already");
    }
    let signal = signalled().await;
    tracing::warn!(signal, "ending at once");
}

fn access_log(
    config: &Config,
    metrics: &Metrics,
) -> io::Result<(Option<AccessLog>, Option<Writing>)> {
    if config.access_log == config::AccessLogMode::Off {
        return Ok((None, None));
    }
    let (log, writing) = AccessLog::to_stdout(metrics.process.access_log_dropped.clone())?;
    Ok((Some(log), Some(writing)))
}
