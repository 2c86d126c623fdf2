//! Who leads: one replica at a time, by a Lease in the API server.
//!
//! The protocol is that of client-go, and any mix of versions of the two understands it:
//!
//! * The leader renews the Lease, and stops leading when it could not for the renew deadline, which
//!   is shorter than the Lease's duration. So it has stopped before anybody else can lead, even
//!   while the API server does not answer.
//! * The others take the Lease over once they have seen it unchanged for its whole duration. Each
//!   measures that by its own monotonic clock: the times in the Lease are for people, and the
//!   clocks of different machines are never compared.
//! * Each write names the `resourceVersion` that it is based on, so of two that want it one wins.
//! * Who ends gives the Lease up, so that nobody has to wait for it to run out.

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

/// How long giving the Lease up may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// What is refused for so long is logged: a server that starts refuses for a moment what it does
/// not know yet.
const LASTING: Duration = Duration::from_secs(4);
/// The longest name that an object may have.
const MAX_NAME: usize = 253;

/// Which Lease, and who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Where the Lease is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who this replica is: of all replicas no other is named like that. At most 128 bytes are
    /// sensible.
    pub identity: String,
    /// How long a leader that is not heard of any more keeps the Lease, at least a second. It is
    /// renewed each 2/15 of that, and the leader gives up after 2/3 of it without.
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

/// The name of the Lease of an installation: `sluice-` and its class, made a valid name of an
/// object. What had to be changed for that is told apart by a hash at the end.
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

/// A name for this replica: the pod's or the machine's, and a random end, so that not even a
/// container that was started again is taken for the one before.
pub fn identity() -> String {
    let pod = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{}_{:08x}", pod.unwrap_or_else(machine), random() as u32)
}

/// A replica that wants to lead.
pub(super) struct Candidate {
    client: Client,
    settings: LeaseSettings,
    /// The Lease as this replica wrote it last, as long as nobody else is known to have.
    ours: Option<LeaseText>,
    seen: ObservedLease,
    /// When the last successful renewal was sent.
    renewed: Instant,
    /// The refusal that was the last answer.
    refused: Option<RepeatedRefusal>,
}

/// The same refusal, once or several times in a row.
#[derive(Clone, Copy, Debug)]
struct RepeatedRefusal {
    code: u16,
    since: Instant,
    /// Whether it was logged.
    said: bool,
}

/// The Lease as it was read last, and since when it has been like that.
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

    /// Returns when this replica leads.
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

    /// Renews; returns when this replica leads no longer.
    pub(super) async fn keep(&mut self) {
        let deadline = self.settings.renew_deadline();
        loop {
            let until = self.renewed + deadline;
            sleep_until(until.min(Instant::now() + self.settings.retry())).await;
            if Instant::now() >= until {
                let lease = &self.settings;
                info!(%lease, "leads no longer: the Lease could not be renewed in time");
                return;
            }
            // A request that is lost must leave time for another.
            let attempt_until = until.min(Instant::now() + deadline / 2);
            match timeout_at(attempt_until, self.attempt()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    info!(lease = %self.settings, "leads no longer: another replica does");
                    return;
                }
                Ok(Err(error)) => self.log(&error),
                Err(_) => debug!(lease = %self.settings, "no answer about the Lease"),
            }
        }
    }

    /// Gives the Lease up if this replica has it. Best effort, in a second at most.
    pub(super) async fn release(&mut self) {
        match timeout(RELEASE_TIMEOUT, self.give_up()).await {
            Ok(Ok(true)) => info!(lease = %self.settings, "gave up the Lease"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => warn!(lease = %self.settings, %error, "cannot give up the Lease"),
            Err(_) => warn!(lease = %self.settings, "cannot give up the Lease: no answer"),
        }
    }

    /// Takes or renews the Lease; returns whether this replica has it now.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let sent = Instant::now();
        // Taken out, so that what becomes of a request that is not waited for is looked up.
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
            // Another was quicker.
            Err(error) if code(&error) == Some(409) => Ok(false),
            result => result.map(|()| self.has_renewed(sent)),
        }
    }

    fn has_renewed(&mut self, sent: Instant) -> bool {
        (self.renewed, self.refused) = (sent, None);
        true
    }

    /// Writes the Lease with this replica as its holder, unless it is no longer as it was read.
    async fn write(&mut self, lease: LeaseText) -> Result<(), Error> {
        let spec = held(lease.spec.clone(), &self.settings, Timestamp::now());
        self.ours = Some(self.send(&lease, &spec).await?);
        Ok(())
    }

    /// The Lease, if it is there.
    async fn read(&self) -> Result<Option<LeaseText>, Error> {
        let request = self.leases().get(&self.settings.name, &GetParams::default());
        match fetch(&self.client, request.map_err(Error::BuildRequest)?).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(None),
            result => result.map(|lease| Some(LeaseText::of(&lease))),
        }
    }

    /// Writes what a Lease that was read is to be, and returns what it is now.
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
            // Looked up, for what was sent last may have arrived or not.
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

    /// Says what keeps this replica from leading, once for each way to fail in a row.
    fn log(&mut self, error: &Error) {
        // Whoever watches tells of a server in trouble.
        let lease = &self.settings;
        let Some(code) = refusal(error) else {
            debug!(%lease, %error, "cannot take part in choosing who writes statuses");
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
            404 => "is there such a namespace?",
            _ => "trying again; traffic does not depend on it",
        };
        warn!(%lease, %error, hint, "cannot take part in choosing who writes statuses");
    }
}

impl ObservedLease {
    /// Whether a Lease that is like this `now` may be taken: nobody has it, or who has it has not
    /// renewed it for its whole duration.
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

/// A Lease as this replica holds it from `now` on.
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

/// A Lease that nobody holds.
fn released(before: LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        acquire_time: Some(MicroTime(now)),
        ..before
    }
}

/// The code of an error that is not the server's own trouble: it does not allow what was asked for,
/// or does not know it.
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
