//! Leader election: one replica leads at a time, by a Lease in the API server.
//!
//! The protocol is compatible with client-go:
//!
//! * The leader renews the Lease. It stops leading if it could not renew for the renew deadline, which is
//!   shorter than the Lease's duration. So it stops before another replica can lead, even while the API
//!   server does not answer.
//! * Another replica takes the Lease over after it has seen it unchanged for its whole duration. It measures
//!   this with its own monotonic clock; the times in the Lease are for people, and the clocks of different
//!   machines are never compared.
//! * Each write contains the `resourceVersion` that it is based on, so only one of several concurrent writes
//!   succeeds.
//! * A replica that ends releases the Lease, so that the others need not wait for it to expire.

mod text;

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use kube::{Client, Error, Resource};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use self::text::LeaseText;
use super::fnv::fnv;
use super::objects::fetch;
use super::random::{jitter, random};

/// The time limit for releasing the Lease.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// A refusal is logged after it has lasted this long: a starting API server refuses requests for a moment.
const LASTING: Duration = Duration::from_secs(4);
/// The maximum length of an object's name.
const MAX_NAME: usize = 253;

/// The settings of the Lease and of this replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// The name of this replica, unique among all replicas. It should have at most 128 bytes.
    pub identity: String,
    /// How long the Lease of a leader that no longer renews it lasts, at least a second. The leader renews
    /// it every 2/15 of this time, and stops leading after 2/3 of it without a renewal.
    pub duration: Duration,
}

impl LeaseSettings {
    fn renew_deadline(&self) -> Duration {
        self.duration * 2 / 3
    }

    fn retry(&self) -> Duration {
        self.duration * 2 / 15
    }
}

impl fmt::Display for LeaseSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The name of the Lease of an installation: `sluice-` and its class, changed to a valid object name. If the
/// class had to be changed, a hash is appended, so that different classes have different names.
pub fn name_for(class: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let mut name = format!("sluice-{class}");
    if name.chars().all(fits) && !name.ends_with('-') && name.len() <= MAX_NAME {
        return name;
    }
    let plain = |c: char| if fits(c) { c } else { '-' };
    name = name.to_ascii_lowercase().chars().map(plain).collect();
    name.truncate(MAX_NAME - 9);
    format!("{name}-{:08x}", fnv(class.as_bytes()) as u32)
}

/// A unique name for this replica: the name of the pod or machine, with a random suffix, so that a restarted
/// container has another name.
pub fn identity() -> String {
    let pod = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{}_{:08x}", pod.unwrap_or_else(machine), random() as u32)
}

/// A replica that takes part in the election.
pub(super) struct Candidate {
    client: Client,
    settings: LeaseSettings,
    /// The Lease as this replica last wrote it. `None` if another replica may have written it since.
    ours: Option<LeaseText>,
    seen: ObservedLease,
    /// When the last successful renewal was sent.
    renewed: Instant,
    /// The last answer, if it was a refusal.
    refused: Option<RepeatedRefusal>,
}

/// A refusal, and how long it has lasted.
#[derive(Clone, Copy, Debug)]
struct RepeatedRefusal {
    code: u16,
    since: Instant,
    /// Whether it was logged.
    said: bool,
}

/// The Lease as it was last read, and the time since which it is unchanged.
#[derive(Debug, Default)]
struct ObservedLease(Option<(LeaseSpec, Instant)>);

impl Candidate {
    pub(super) fn new(client: Client, settings: LeaseSettings) -> Self {
        let renewed = Instant::now();
        Candidate {
            client,
            settings,
            ours: None,
            seen: ObservedLease::default(),
            renewed,
            refused: None,
        }
    }

    /// Waits until this replica leads.
    pub(super) async fn acquire(&mut self) {
        loop {
            match timeout(self.settings.renew_deadline(), self.attempt()).await {
                Ok(Ok(true)) => break,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => self.log(&error),
                Err(_) => debug!(lease = %self.settings, "no answer about the Lease"),
            }
            let retry = self.settings.retry();
            sleep(retry / 2 + jitter(retry)).await;
        }
        let (lease, identity) = (&self.settings, &self.settings.identity);
        info!(%lease, identity, "this replica leads: it writes the status of routes");
    }

    /// Renews the Lease. Returns when this replica no longer leads.
    pub(super) async fn keep(&mut self) {
        let deadline = self.settings.renew_deadline();
        loop {
            let until = self.renewed + deadline;
            sleep_until(until.min(Instant::now() + self.settings.retry())).await;
            if Instant::now() >= until {
                let lease = &self.settings;
                info!(%lease, "no longer the leader: the Lease could not be renewed in time");
                return;
            }
            // Leaves time for another request if this one is lost.
            let attempt_until = until.min(Instant::now() + deadline / 2);
            match timeout_at(attempt_until, self.attempt()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    info!(lease = %self.settings, "no longer the leader: another replica is");
                    return;
                }
                Ok(Err(error)) => self.log(&error),
                Err(_) => debug!(lease = %self.settings, "no answer about the Lease"),
            }
        }
    }

    /// Releases the Lease if this replica holds it. Best effort, for at most a second.
    pub(super) async fn release(&mut self) {
        match timeout(RELEASE_TIMEOUT, self.give_up()).await {
            Ok(Ok(true)) => info!(lease = %self.settings, "released the Lease"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => warn!(lease = %self.settings, %error, "cannot release the Lease"),
            Err(_) => warn!(lease = %self.settings, "cannot release the Lease: no answer"),
        }
    }

    /// Takes or renews the Lease. Returns whether this replica now holds it.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let sent = Instant::now();
        // Taken out: if this request is cancelled, the next attempt reads the Lease first.
        if let Some(ours) = self.ours.take() {
            match self.write(ours).await {
                Err(error) if code(&error) == Some(409) => {}
                result => return result.map(|()| self.has_renewed(sent)),
            }
        }
        let lease = match self.read().await? {
            None => LeaseText::new(&self.settings.name),
            Some(lease) => {
                if !self.seen.is_free(lease.spec.clone(), &self.settings, Instant::now()) {
                    self.refused = None;
                    return Ok(false);
                }
                lease
            }
        };
        match self.write(lease).await {
            // Another replica was faster.
            Err(error) if code(&error) == Some(409) => Ok(false),
            result => result.map(|()| self.has_renewed(sent)),
        }
    }

    fn has_renewed(&mut self, sent: Instant) -> bool {
        (self.renewed, self.refused) = (sent, None);
        true
    }

    /// Writes the Lease with this replica as the holder. Fails if the Lease has changed since it was read.
    async fn write(&mut self, lease: LeaseText) -> Result<(), Error> {
        let spec = held(lease.spec.clone(), &self.settings, Timestamp::now());
        self.ours = Some(self.send(&lease, &spec).await?);
        Ok(())
    }

    /// Reads the Lease; `None` if it does not exist.
    async fn read(&self) -> Result<Option<LeaseText>, Error> {
        let request = self.leases().get(&self.settings.name, &GetParams::default());
        match fetch(&self.client, request.map_err(Error::BuildRequest)?).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            result => result.map(|lease| Some(LeaseText::of(&lease))),
        }
    }

    /// Creates or replaces the Lease with `spec`. Returns the new Lease.
    async fn send(&self, lease: &LeaseText, spec: &LeaseSpec) -> Result<LeaseText, Error> {
        let (params, body) = (PostParams::default(), lease.with(spec));
        let request = match lease.is_new() {
            true => self.leases().create(&params, body),
            false => self.leases().replace(&self.settings.name, &params, body),
        };
        let written = fetch(&self.client, request.map_err(Error::BuildRequest)?).await?;
        Ok(LeaseText::of(&written))
    }

    fn leases(&self) -> Request {
        Request::new(Lease::url_path(&(), Some(&self.settings.namespace)))
    }

    async fn give_up(&mut self) -> Result<bool, Error> {
        loop {
            // Read again, because the last write may or may not have succeeded.
            let Some(lease) = self.read().await? else { return Ok(false) };
            if lease.spec.holder_identity.as_deref() != Some(&self.settings.identity) {
                return Ok(false);
            }
            let spec = released(lease.spec.clone(), Timestamp::now());
            match self.send(&lease, &spec).await {
                Err(error) if code(&error) == Some(409) => {}
                result => return result.map(|_| true),
            }
        }
    }

    /// Logs why this replica cannot lead, once for each series of equal errors.
    fn log(&mut self, error: &Error) {
        // Trouble of the server itself is reported by the watches.
        let lease = &self.settings;
        let Some(code) = refusal(error) else {
            debug!(%lease, %error, "cannot take part in the election of the leader");
            return;
        };
        let now = Instant::now();
        let refused = match self.refused {
            Some(same) if same.code == code => same,
            _ => RepeatedRefusal { code, since: now, said: false },
        };
        let said = refused.said || now.duration_since(refused.since) >= LASTING;
        self.refused = Some(RepeatedRefusal { said, ..refused });
        if refused.said || !said {
            return;
        }
        let hint = match code {
            403 => {
                "the service account needs the verbs get, create and update on leases in the API \
                    group coordination.k8s.io, as deploy/role.yaml has them"
            }
            404 => "does the namespace exist?",
            _ => "trying again; traffic does not depend on it",
        };
        warn!(%lease, %error, hint, "cannot take part in the election of the leader");
    }
}

impl ObservedLease {
    /// Whether this replica may take the Lease `now`: it has no holder, or the holder has not renewed it for
    /// its whole duration.
    fn is_free(&mut self, spec: LeaseSpec, settings: &LeaseSettings, now: Instant) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let free = holder.is_empty() || holder == settings.identity;
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(settings.duration, Duration::from_secs);
        let since = match &self.0 {
            Some((before, since)) if *before == spec => *since,
            _ => now,
        };
        self.0 = Some((spec, since));
        free || now.duration_since(since) >= duration
    }
}

/// The spec of a Lease that this replica holds from `now` on.
fn held(before: LeaseSpec, settings: &LeaseSettings, now: Timestamp) -> LeaseSpec {
    let renewal = before.holder_identity.as_deref() == Some(&settings.identity);
    let transitions = match before.renew_time {
        Some(_) if !renewal => Some(before.lease_transitions.unwrap_or(0).saturating_add(1)),
        _ => Some(before.lease_transitions.unwrap_or(0)),
    };
    let seconds = settings.duration.as_millis().div_ceil(1000).max(1);
    LeaseSpec {
        holder_identity: Some(settings.identity.clone()),
        lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
        renew_time: Some(MicroTime(now)),
        acquire_time: before.acquire_time.clone().filter(|_| renewal).or(Some(MicroTime(now))),
        lease_transitions: transitions,
        ..before
    }
}

/// The spec of a Lease without a holder.
fn released(before: LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        acquire_time: Some(MicroTime(now)),
        ..before
    }
}

/// The status code of a refusal: the server does not allow or does not know the request. `None` for other
/// errors.
pub(super) fn refusal(error: &Error) -> Option<u16> {
    code(error).filter(|code| (400..500).contains(code) && *code != 429)
}

fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
