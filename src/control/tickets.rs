//! Keeps the keys of session tickets up to date.
//!
//! Without a Secret for them, the keys are those of this process, which moves them on every hour. With a Secret, all
//! replicas read the keys from it, and the leader makes them and moves them on: a client can then resume its session
//! with any replica. Each write has the version that it is based on, so of several only one succeeds. The Secret has to
//! be there: sluice may write this one, and may make none.
//!
//! Whatever is wrong with the Secret, clients are served: the last keys stay in use, and before there were any, those of
//! this process.

use std::convert::Infallible;
use std::fmt;
use std::mem;
use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use kube::api::GetParams;
use kube::core::Request;
use kube::{Client, Error};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::objects::{fetch_wiped, field};
use super::random::jitter;
use crate::termination::{InvalidTicketKeys, TicketKeySet, TicketKeys};

/// The entry of the Secret that has the keys.
const ENTRY: &str = "keys";
/// How often the Secret is read, or a little more often.
const EVERY: Duration = Duration::from_secs(20);
/// The same while it has no keys, which the leader is about to make; twice as long each time, up to [`EVERY`].
const SOON: Duration = Duration::from_secs(2);
/// How long the API server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often keys of this process are looked at.
const LOCAL_EVERY: Duration = Duration::from_secs(60);
/// How long keys of the Secret are used without another look at it.
const LONGEST: Duration = Duration::from_hours(24);

/// The Secret with the shared keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketSecret {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Keys of this process.
///
/// # Errors
/// When the system has no random bytes.
pub fn local() -> Result<TicketKeys, aws_lc_rs::error::Unspecified> {
    TicketKeys::local(now())
}

/// Moves on the keys of this process, until it is dropped.
pub async fn keep_local(keys: &TicketKeys) -> Infallible {
    loop {
        move_on(keys, now());
        sleep(LOCAL_EVERY).await;
    }
}

/// Reads shared keys into `keys`, until it is dropped, and writes them while `leads` is true.
pub async fn keep_shared(
    client: &Client,
    secret: &TicketSecret,
    keys: &TicketKeys,
    leads: &mut watch::Receiver<bool>,
) -> Infallible {
    let mut shared = SharedKeys::new(keys);
    loop {
        let is_leader = *leads.borrow_and_update();
        let pause = shared.follow(client, secret, is_leader).await;
        tokio::select! {
            () = sleep(jitter(pause)) => {}
            // Without a sender, this one leads for good, or never.
            Ok(()) = leads.changed() => {}
        }
    }
}

/// The keys that are shared.
struct SharedKeys<'k> {
    keys: &'k TicketKeys,
    /// When keys were read last.
    read: Option<Instant>,
    /// Why it was of no use when it was read last, if so.
    unread: Option<TicketTrouble>,
    /// Whether it may not be written. It may be read all the same.
    unwritten: bool,
    /// The time until the next look at a Secret without keys.
    soon: Duration,
}

/// What the Secret has.
struct StoredKeys {
    version: String,
    keys: Result<TicketKeySet, NoKeys>,
}

/// Why a Secret has no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NoKeys {
    #[error("it has no keys yet")]
    Empty,
    #[error("its keys cannot be read: {0}")]
    Invalid(#[from] InvalidTicketKeys),
}

/// Why the Secret is of no use. Each is logged once in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TicketTrouble {
    Missing,
    Forbidden,
    NotWritten,
    Invalid,
    /// The API server is away, which the watches report.
    Away,
}

impl<'k> SharedKeys<'k> {
    fn new(keys: &'k TicketKeys) -> Self {
        SharedKeys { keys, read: None, unread: None, unwritten: false, soon: SOON }
    }

    /// Reads the Secret once, and writes it if that is due. Returns the time until the next look.
    async fn follow(
        &mut self,
        client: &Client,
        secret: &TicketSecret,
        is_leader: bool,
    ) -> Duration {
        let at = now();
        let stored = match timeout(TIMEOUT, read(client, secret)).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => return self.unread(secret, &error, at),
            Err(elapsed) => return self.unread(secret, &Error::Service(elapsed.into()), at),
        };
        let next = match &stored.keys {
            Ok(keys) => {
                self.take(secret, keys.clone());
                if !keys.is_due(at) {
                    // Somebody has written them.
                    self.written(secret);
                    return EVERY;
                }
                keys.rotated(at)
            }
            Err(fault) => {
                self.without(secret, *fault, at);
                TicketKeySet::new(at)
            }
        };
        match next {
            Ok(next) if is_leader => self.write(client, secret, &stored.version, next).await,
            _ if stored.keys.is_ok() => EVERY,
            _ => self.soon(),
        }
    }

    /// Writes new keys. Returns the time until the next look.
    async fn write(
        &mut self,
        client: &Client,
        secret: &TicketSecret,
        version: &str,
        keys: TicketKeySet,
    ) -> Duration {
        let written = timeout(TIMEOUT, write(client, secret, version, &keys)).await;
        match written.unwrap_or_else(|elapsed| Err(Error::Service(elapsed.into()))) {
            Ok(()) => {
                debug!(%secret, "moved on the keys of session tickets");
                self.take(secret, keys);
                self.written(secret);
                EVERY
            }
            // Another replica was faster.
            Err(Error::Api(status)) if status.code == 409 => self.soon(),
            Err(error) => {
                let is_refused = matches!(&error, Error::Api(status) if status.code < 500);
                let trouble =
                    if is_refused { TicketTrouble::NotWritten } else { TicketTrouble::Away };
                self.tell(secret, trouble, &error);
                EVERY
            }
        }
    }

    /// Uses keys of the Secret.
    fn take(&mut self, secret: &TicketSecret, keys: TicketKeySet) {
        if self.read.replace(Instant::now()).is_none() {
            info!(%secret, "the keys of session tickets are shared");
        }
        if self.unread.take().is_some() {
            info!(%secret, "the Secret with the keys of session tickets is of use again");
        }
        if self.keys.get().as_deref() != Some(&keys) {
            self.keys.set(keys);
        }
    }

    /// Notes that the keys are written as they should be.
    fn written(&mut self, secret: &TicketSecret) {
        self.soon = SOON;
        if mem::take(&mut self.unwritten) {
            info!(%secret, "the keys of session tickets are written again");
        }
    }

    /// The time until the next look at a Secret of which another replica may make something.
    fn soon(&mut self) -> Duration {
        let longer = self.soon.saturating_mul(2).min(EVERY);
        mem::replace(&mut self.soon, longer)
    }

    fn unread(&mut self, secret: &TicketSecret, error: &Error, at: i64) -> Duration {
        let trouble = match error {
            Error::Api(status) if status.code == 404 => TicketTrouble::Missing,
            Error::Api(status) if status.code == 403 => TicketTrouble::Forbidden,
            _ => TicketTrouble::Away,
        };
        self.tell(secret, trouble, error);
        self.fall_back(secret, at);
        EVERY
    }

    fn without(&mut self, secret: &TicketSecret, fault: NoKeys, at: i64) {
        match fault {
            // Somebody has emptied it, because nobody is to use these keys any more.
            NoKeys::Empty if self.read.take().is_some() => {
                warn!(%secret, "the Secret has no keys of session tickets any more; using keys of this process");
                return self.use_own(at);
            }
            NoKeys::Empty => debug!(%secret, "the Secret has no keys of session tickets yet"),
            NoKeys::Invalid(_) => self.tell(secret, TicketTrouble::Invalid, &fault),
        }
        self.fall_back(secret, at);
    }

    /// Uses keys of this process, if none were read from the Secret for long.
    fn fall_back(&mut self, secret: &TicketSecret, at: i64) {
        match self.read {
            Some(read) if read.elapsed() < LONGEST => {}
            None => move_on(self.keys, at),
            Some(_) => {
                self.read = None;
                warn!(%secret, "no shared keys of session tickets for long; using keys of this process");
                self.use_own(at);
            }
        }
    }

    /// Uses new keys of this process.
    fn use_own(&mut self, at: i64) {
        // Without random bytes, the present keys are better than none.
        if let Ok(keys) = TicketKeySet::new(at) {
            self.keys.set(keys);
        }
    }

    fn tell(&mut self, secret: &TicketSecret, trouble: TicketTrouble, error: &dyn fmt::Display) {
        let is_news = match trouble {
            TicketTrouble::Away => false,
            TicketTrouble::NotWritten => !mem::replace(&mut self.unwritten, true),
            _ => self.unread.replace(trouble) != Some(trouble),
        };
        if !is_news {
            debug!(%secret, %error, "the Secret with the keys of session tickets is of no use");
            return;
        }
        let hint = match trouble {
            TicketTrouble::Missing => "create an empty Secret of this name, as the chart does",
            TicketTrouble::Forbidden => {
                "the service account needs the verbs get and patch on this Secret"
            }
            TicketTrouble::NotWritten => {
                "the service account needs the verb patch on this Secret, which must not be immutable"
            }
            TicketTrouble::Invalid | TicketTrouble::Away => "the leader writes new keys into it",
        };
        warn!(%secret, %error, hint, "the Secret with the keys of session tickets is of no use");
    }
}

/// Moves the keys on, if that is due. Whoever switched tickets off gets none.
fn move_on(keys: &TicketKeys, at: i64) {
    let Some(current) = keys.get() else { return };
    // Without random bytes, the present keys are better than none.
    if current.is_due(at)
        && let Ok(next) = current.rotated(at)
    {
        keys.set(next);
    }
}

async fn read(client: &Client, secret: &TicketSecret) -> Result<StoredKeys, Error> {
    let request = resource(secret).get(&secret.name, &GetParams::default());
    let text = fetch_wiped(client, request.map_err(Error::BuildRequest)?).await?;
    let version = field(&text, "metadata").and_then(|head| field(head, "resourceVersion"));
    let version = version.and_then(|version| serde_json::from_slice(version).ok());
    let entry = field(&text, "data").and_then(|data| field(data, ENTRY));
    let keys = match entry {
        None => Err(NoKeys::Empty),
        Some(entry) => keys_of(entry),
    };
    Ok(StoredKeys { version: version.unwrap_or_default(), keys })
}

/// The keys in an entry of a Secret, in JSON.
fn keys_of(entry: &[u8]) -> Result<TicketKeySet, NoKeys> {
    let Ok(ByteString(text)) = serde_json::from_slice(entry) else {
        return Err(InvalidTicketKeys::Format.into());
    };
    let text = Zeroizing::new(text);
    match text.is_empty() {
        true => Err(NoKeys::Empty),
        false => Ok(TicketKeySet::from_text(&text)?),
    }
}

/// Writes keys, unless the Secret has changed since it had this version.
async fn write(
    client: &Client,
    secret: &TicketSecret,
    version: &str,
    keys: &TicketKeySet,
) -> Result<(), Error> {
    let path = format!(
        "/api/v1/namespaces/{}/secrets/{}?fieldManager=sluice",
        secret.namespace, secret.name
    );
    let request = hyper::Request::patch(path)
        .header(CONTENT_TYPE, "application/merge-patch+json")
        .body(patch(version, keys))
        .map_err(|error| Error::Service(error.into()))?;
    // The answer has the keys, too.
    fetch_wiped(client, request).await.map(drop)
}

/// What is to become of the Secret.
fn patch(version: &str, keys: &TicketKeySet) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct SecretPatch<'s> {
        metadata: PatchMetadata<'s>,
        string_data: PatchEntries<'s>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct PatchMetadata<'s> {
        resource_version: &'s str,
    }
    #[derive(Serialize)]
    struct PatchEntries<'s> {
        keys: &'s str,
    }
    let text = keys.to_text();
    let patch = SecretPatch {
        metadata: PatchMetadata { resource_version: version },
        string_data: PatchEntries { keys: &text },
    };
    // With all its room at once: a vector that grows leaves copies behind.
    let mut body = Vec::with_capacity(2 * text.len() + version.len() + 128);
    // A struct of texts can always be written.
    let _ = serde_json::to_writer(&mut body, &patch);
    body
}

fn resource(secret: &TicketSecret) -> Request {
    Request::new(format!("/api/v1/namespaces/{}/secrets", secret.namespace))
}

/// The time in seconds since 1970.
fn now() -> i64 {
    Timestamp::now().as_second()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
