//! Active health checks: connections of sluice itself that show whether endpoints serve.
//!
//! * `plan` says which checks a table needs, `schedule` when each is made, and `check_queues` which one first;
//! * `probe` makes one check, `handshake` its TLS part, `goodbyes` its end, and `result_run` has what the results come
//!   to;
//! * `certificates` judges what a server shows, by the `authorities` of ConfigMaps, `verdicts` keeps what they say,
//!   `reports` tells of its `problems`, and `steady` which of that counts; `log` logs it.
//!
//! The verdicts are states of the endpoints in the table, which the data plane reads: a result publishes nothing.

mod authorities;
mod certificates;
mod check_queues;
#[cfg(test)]
mod fixture;
mod goodbyes;
mod handshake;
mod log;
mod plan;
mod probe;
mod problems;
mod reports;
mod result_run;
mod schedule;
mod shared_wildcards;
mod steady;
mod verdicts;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use prometheus::{Gauge, IntCounter, IntGauge};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

pub use self::authorities::{
    Authorities, Authority, AuthorityFault, CA_KEY, KnownAuthorities, authority, named_config_maps,
};
use self::goodbyes::Goodbyes;
use self::log::CheckLog;
use self::plan::{CheckPlan, plan};
pub use self::probe::CheckOutcome;
use self::probe::{Probe, probe};
pub use self::problems::ProblemKind;
use self::reports::CertificateReport;
use self::schedule::{CheckJob, CheckSchedule};
use self::steady::SteadyConditions;
use crate::control::status::Condition;
use crate::reach::EndpointRefusal;
use crate::routing::{CheckVerdict, ObjectRef, TableReader};

/// The least time between two plans. Until then, new endpoints are not checked, and count as healthy.
const PLAN_EVERY: Duration = Duration::from_millis(200);
/// The least time between two plans, and between two reports, as a multiple of what the last one took.
const PAUSE_PART: u32 = 20;
/// The least time between two reports of what was seen of certificates.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The most time between them.
const REPORT_AGAIN: Duration = Duration::from_secs(60);
/// The most endpoints with checks, each once for each backend and each kind of checks: they use some tens of MiB.
const MOST_ENDPOINTS: usize = 65_536;
/// The part of the descriptors for handshakes whose server has yet to close; the others are for running checks.
const GOODBYES_PART: usize = 5;

/// The arguments of [`run`].
pub struct ChecksArgs {
    /// The table with the endpoints.
    pub table: TableReader,
    /// How many checks may begin in a second.
    pub per_second: NonZeroU32,
    /// How many descriptors they may have at a time.
    pub descriptors: usize,
    /// Decides whether an address may be connected to.
    pub judge: Box<dyn Fn(SocketAddr) -> Result<(), EndpointRefusal>>,
    /// The authorities that may vouch for servers.
    pub authorities: Authorities,
    /// Receives what is said of the certificates of all routes, whenever that may have changed.
    pub report: Box<dyn Fn(BTreeMap<ObjectRef, Condition>)>,
    /// Its metrics.
    pub meters: CheckMeters,
}

impl fmt::Debug for ChecksArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChecksArgs").field("per_second", &self.per_second).finish_non_exhaustive()
    }
}

/// The metrics of the checks.
#[derive(Clone, Debug)]
pub struct CheckMeters {
    /// The checks that were made, in the order of [`CheckOutcome::ALL`].
    pub made: [IntCounter; CheckOutcome::ALL.len()],
    /// How many addresses are checked, each once for each kind of checks.
    pub checked: IntGauge,
    /// How many endpoints are not checked, because there are too many.
    pub unchecked: IntGauge,
    /// How long the check that waits longest has waited for a turn and the budget, in seconds.
    pub delay: Gauge,
    /// How many addresses became unhealthy.
    pub failed: IntCounter,
    /// How many routes have each kind of problem with certificates, in the order of [`ProblemKind::ALL`].
    pub problems: [IntGauge; ProblemKind::ALL.len()],
}

/// Makes the checks of the current table, for ever. Needs a tokio runtime.
pub async fn run(args: &ChecksArgs) -> Infallible {
    let changed = Arc::new(Notify::new());
    let notify = Arc::downgrade(&changed);
    args.table.on_change(move |_| {
        if let Some(changed) = notify.upgrade() {
            changed.notify_one();
        }
    });
    let start = Instant::now();
    let goodbyes = args.descriptors / GOODBYES_PART;
    let at_once = args.descriptors.saturating_sub(goodbyes).max(1);
    let mut checks = Checks {
        args,
        schedule: CheckSchedule::new(args.per_second, at_once, start),
        next_plan: start,
        report_at: None,
        next_report: start,
        goodbyes: Goodbyes::new(goodbyes),
        steady: SteadyConditions::default(),
        log: CheckLog::new(start),
    };
    let mut running = JoinSet::new();
    // The table may have been published before anybody was told.
    let mut plan_at = Some(start);
    loop {
        let now = Instant::now();
        if plan_at.is_some_and(|at| at <= now) {
            plan_at = None;
            checks.plan(now);
        }
        checks.report_at.is_some_and(|at| at <= now).then(|| checks.report(now));
        checks.begin(&mut running);
        let wakes = [checks.schedule.wake(), plan_at, checks.report_at];
        let wake = wakes.into_iter().flatten().min();
        tokio::select! {
            () = changed.notified(), if plan_at.is_none() => {
                plan_at = Some(checks.next_plan);
            }
            Some(done) = running.join_next() => {
                // Tasks here are never aborted, and panics are caught.
                if let Ok((job, made)) = done {
                    checks.finish(&job, made);
                }
            }
            () = sleep_until(wake.unwrap_or(now).into()), if wake.is_some() => {}
        }
    }
}

/// The checks of one start.
struct Checks<'a> {
    args: &'a ChecksArgs,
    schedule: CheckSchedule,
    /// When the next plan may be made.
    next_plan: Instant,
    /// When the next report is due, if anything is new.
    report_at: Option<Instant>,
    /// When the next one may be made.
    next_report: Instant,
    /// The ends of handshakes that have shown what they had to.
    goodbyes: Goodbyes,
    steady: SteadyConditions,
    log: CheckLog,
}

impl Checks<'_> {
    fn plan(&mut self, now: Instant) {
        let table = Arc::clone(&self.args.table.table());
        let CheckPlan { checks, unchecked } = plan(&table, MOST_ENDPOINTS);
        self.schedule.replace(checks, now);
        let gauged = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.args.meters.checked.set(gauged(self.schedule.len()));
        self.args.meters.unchecked.set(gauged(unchecked));
        self.report_later();
        self.next_plan = now + PLAN_EVERY.max(now.elapsed() * PAUSE_PART);
    }

    /// Begins the checks that are due.
    fn begin(&mut self, running: &mut JoinSet<(CheckJob, Probe)>) {
        while let Some(job) = self.schedule.next(Instant::now()) {
            match (self.args.judge)(job.key.address) {
                Err(_) => self.finish(&job, Probe::blind(CheckOutcome::Forbidden)),
                Ok(()) => drop(running.spawn(make(job, self.args.authorities.clone()))),
            }
        }
        self.args.meters.delay.set(self.schedule.delay(Instant::now()).as_secs_f64());
    }

    fn report_later(&mut self) {
        let soon = self.next_report;
        self.report_at = Some(self.report_at.map_or(soon, |at| at.min(soon)));
    }

    fn report(&mut self, now: Instant) {
        let table = Arc::clone(&self.args.table.table());
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unix = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
        let mut report = CertificateReport::of(&table, unix, |check| self.schedule.seen(check));
        for route in table.routes() {
            let expiry = report.expiries.get(&route.spec.key).copied().unwrap_or_default();
            // Written only on a change, so that scrapes share the cache line.
            if route.stats.certificate_expiry.load(Ordering::Relaxed) != expiry {
                route.stats.certificate_expiry.store(expiry, Ordering::Relaxed);
            }
        }
        for (gauge, routes) in self.args.meters.problems.iter().zip(report.problems) {
            gauge.set(i64::try_from(routes).unwrap_or(i64::MAX));
        }
        let changes = self.steady.count(&mut report.conditions, now);
        (self.args.report)(report.conditions);
        self.log.conditions(&changes, now);
        self.log.count_left_out(now);
        self.next_report = now + REPORT_EVERY.max(now.elapsed() * PAUSE_PART);
        // Certificates expire without a new result.
        self.report_at = Some(self.next_report.max(now + REPORT_AGAIN));
    }

    fn finish(&mut self, job: &CheckJob, Probe { outcome, seen, stream }: Probe) {
        stream.into_iter().for_each(|stream| self.goodbyes.say(stream));
        if seen.is_some_and(|seen| self.schedule.saw(job, seen)) {
            self.report_later();
        }
        if outcome == CheckOutcome::NoAuthorities {
            self.schedule.forget(job);
        }
        // In bounds: every outcome is its own index in `CheckOutcome::ALL`.
        self.args.meters.made[outcome as usize].inc();
        let now = Instant::now();
        if let Some(verdict) = self.schedule.finish(job, outcome.passes(), now) {
            let failed = u64::from(verdict == CheckVerdict::Unhealthy);
            self.args.meters.failed.inc_by(failed);
            self.log.verdict(&job.key, (outcome, verdict), now);
        }
    }
}

async fn make(job: CheckJob, authorities: Authorities) -> (CheckJob, Probe) {
    let check = probe(job.key.address, &job.key.params, &authorities);
    let made = AssertUnwindSafe(check).catch_unwind().await;
    (job, made.unwrap_or(Probe::blind(CheckOutcome::Exhausted)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};

    use super::fixture::{route, route_with, snapshot, table};
    use super::*;
    use crate::routing::{Availability, Moment};

    fn meters() -> CheckMeters {
        let counter = || IntCounter::new("c", "c").unwrap();
        CheckMeters {
            made: CheckOutcome::ALL.map(|_| counter()),
            checked: IntGauge::new("g", "g").unwrap(),
            unchecked: IntGauge::new("g", "g").unwrap(),
            delay: Gauge::new("d", "d").unwrap(),
            failed: counter(),
            problems: ProblemKind::ALL.map(|_| IntGauge::new("g", "g").unwrap()),
        }
    }

    fn args(
        reader: &TableReader,
        descriptors: usize,
        judge: impl Fn(SocketAddr) -> Result<(), EndpointRefusal> + 'static,
    ) -> ChecksArgs {
        ChecksArgs {
            table: reader.clone(),
            per_second: NonZeroU32::MIN.saturating_add(999),
            descriptors,
            judge: Box::new(judge),
            authorities: Authorities::default(),
            report: Box::new(|_| {}),
            meters: meters(),
        }
    }

    /// The states of all endpoints of the only route.
    fn states(reader: &TableReader) -> Vec<Availability> {
        let table = reader.table();
        let route = table.routes().next().unwrap();
        let endpoints = route.backends[0].backend.endpoints();
        endpoints.iter().map(|one| route.health_rule().judge(one, Moment::now())).collect()
    }

    async fn wait_until(what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(Duration::from_secs(10), waiting).await.is_ok(), "{what}");
    }

    #[tokio::test]
    async fn checks_follow_the_table_and_keep_away_from_forbidden_addresses() {
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [live_address, dead] = [&live, &unused].map(|one| one.local_addr().unwrap());
        drop(unused);
        let forbidden: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let texts = [live_address, dead, forbidden].map(|address| address.to_string());
        let texts = texts.each_ref().map(String::as_str);
        let checked = || vec![route("a/r", &["x"], Some("TCP"))];
        let (mut writer, reader) = table(checked(), &[("x", &texts[..1])]);
        let args = args(&reader, 640, move |address| match address == forbidden {
            true => Err(EndpointRefusal::Local),
            false => Ok(()),
        });
        let made = |outcome: CheckOutcome| args.meters.made[outcome as usize].get();
        let steps = async {
            wait_until("a first check", || made(CheckOutcome::Passed) > 0).await;
            writer.apply(snapshot(checked(), &[("x", &texts)]));
            wait_until("further checks", || {
                made(CheckOutcome::Refused) > 0 && made(CheckOutcome::Forbidden) > 0
            })
            .await;
            let [well, unhealthy] = [Availability::Well, Availability::Unhealthy];
            assert_eq!(states(&reader), [well, unhealthy, well]);
            assert_eq!((args.meters.failed.get(), args.meters.checked.get()), (1, 3));
            writer.apply(snapshot(vec![route("a/r", &["x"], None)], &[("x", &texts)]));
            wait_until("the end of checks", || args.meters.checked.get() == 0).await;
            assert_eq!(states(&reader), [well, well, well]);
        };
        tokio::select! {
            never = run(&args) => match never {},
            () = steps => {}
        }
    }

    #[tokio::test]
    async fn no_more_checks_run_than_have_descriptors() {
        let silent = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let texts: Vec<_> = (1..=60).map(|last| format!("127.0.0.{last}:{port}")).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let active = json!({ "type": "TLS", "serverName": "a.test", "timeout": "50ms" });
        let routes = ["a/r", "b/r", "c/r"].map(|key| route_with(key, &["x"], active.clone()));
        let (_writer, reader) = table(routes.to_vec(), &[("x", &texts)]);
        let (meters, begun, at_once) = (meters(), AtomicU64::new(0), Arc::<AtomicU64>::default());
        let made = meters.made.clone();
        let ended = move || made.iter().map(IntCounter::get).sum::<u64>();
        let (most, ended_before) = (Arc::clone(&at_once), ended.clone());
        let args = args(&reader, 10, move |_| {
            let begun = begun.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(begun - ended_before(), Ordering::Relaxed);
            Ok(())
        });
        let args = ChecksArgs { meters, ..args };
        tokio::select! {
            never = run(&args) => match never {},
            () = wait_until("some rounds", || ended() >= 40) => {}
        }
        // The others are for goodbyes.
        assert_eq!(at_once.load(Ordering::Relaxed), 8);
    }
}
