//! The ConfigMaps with the authorities of active health checks.
//!
//! They are read by name, one after the other, and read again from time to time. So sluice needs the permission to get
//! ConfigMaps, and none to list or watch them: it never sees any that no route names. An installation without such
//! routes need not give it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap as HashMap;
use kube::core::Request;
use kube::{Client, Error};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::control::checks::{
    Authorities, Authority, AuthorityFault, KnownAuthorities, authority, named_config_maps,
};
use crate::control::objects::fetch;
use crate::control::random::jitter;
use crate::routing::{ObjectKey, TableReader};

/// How long after it was read a ConfigMap is read again, or a little sooner.
const AGAIN: Duration = Duration::from_secs(20);
/// The same after a failure.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The longest pause after several failures in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the API server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The cause if the API server forbids it, as it does by default.
const FORBIDDEN: &str =
    "sluice may not get ConfigMaps there; the value rbac.configMaps of its chart lets it";
/// The least time between two requests, and between two looks at a changed table.
const PAUSE: Duration = Duration::from_millis(50);

/// Reads the ConfigMaps that the checks of `table` need into `authorities`, until it is dropped.
pub async fn follow_authorities(
    client: Client,
    table: TableReader,
    authorities: Authorities,
) -> Infallible {
    let changed = Arc::new(Notify::new());
    let notify = Arc::downgrade(&changed);
    table.on_change(move |_| notify.upgrade().into_iter().for_each(|notify| notify.notify_one()));
    let mut followed = Followed::default();
    followed.name(&table);
    loop {
        followed.publish(&authorities);
        let next = followed.next();
        tokio::select! {
            () = changed.notified() => followed.name(&table),
            () = sleep_until(next.as_ref().map_or_else(Instant::now, |(due, _)| *due)), if next.is_some() => {
                if let Some((_, key)) = next {
                    let mut now = read(&client, &key, followed.read.get(&key)).await;
                    now.authority = now.authority.map(|roots| authorities.shared(roots));
                    followed.read.insert(key, now);
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// The ConfigMaps that are needed, and what is known of them.
#[derive(Default)]
struct Followed {
    /// Those that are read.
    named: BTreeSet<ObjectKey>,
    /// Those beyond the most of their namespace, which are not.
    beyond: BTreeSet<ObjectKey>,
    read: HashMap<ObjectKey, KnownConfigMap>,
    /// What was published last.
    published: Option<HashMap<ObjectKey, Authority>>,
}

/// A ConfigMap that was read.
struct KnownConfigMap {
    authority: Authority,
    /// When it is to be read again.
    due: Instant,
    /// How many times in a row it could not be read, or did not exist.
    failures: u32,
}

impl Followed {
    /// Takes the names from a table.
    fn name(&mut self, table: &TableReader) {
        (self.named, self.beyond) = named_config_maps(&table.table());
        self.read.retain(|key, _| self.named.contains(key));
    }

    /// The next one to read, and when.
    fn next(&self) -> Option<(Instant, ObjectKey)> {
        let due = |key: &ObjectKey| self.read.get(key).map(|known| known.due);
        let now = Instant::now();
        let next = self.named.iter().map(|key| (due(key).unwrap_or(now), key)).min();
        next.map(|(due, key)| (due, key.clone()))
    }

    /// Publishes what has changed, once each one has been read: until then, what others have read is still in force.
    fn publish(&mut self, authorities: &Authorities) {
        let is_whole = self.named.iter().all(|key| self.read.contains_key(key));
        if !is_whole && self.published.is_none() {
            return;
        }
        let read = self.read.iter().map(|(key, known)| (key.clone(), known.authority.clone()));
        let beyond = self.beyond.iter().map(|key| (key.clone(), Err(AuthorityFault::TooMany)));
        let known: HashMap<_, _> = read.chain(beyond).collect();
        if self.published.as_ref() != Some(&known) {
            self.published = Some(known.clone());
            authorities.set(KnownAuthorities { by_config_map: known, complete: false });
        }
    }
}

/// Reads a ConfigMap. If that fails, what was read before stays.
async fn read(
    client: &Client,
    config_map: &ObjectKey,
    former: Option<&KnownConfigMap>,
) -> KnownConfigMap {
    let failures = former.map_or(0, |former| former.failures).saturating_add(1);
    let pause = AGAIN_AFTER_FAILURE.saturating_mul(failures).min(LONGEST_PAUSE);
    let failed = |fault| KnownConfigMap {
        authority: Err(fault),
        due: Instant::now() + jitter(pause),
        failures,
    };
    let not_read = |cause: &'static str, told: &dyn Display| {
        let (namespace, name) = (config_map.namespace(), config_map.name());
        tracing::debug!(namespace, name, cause = %told, "cannot read the certificates of authorities");
        let known = former.map(|former| former.authority.clone()).filter(Result::is_ok);
        let failed = failed(AuthorityFault::NotRead(cause.into()));
        KnownConfigMap { authority: known.unwrap_or(failed.authority), ..failed }
    };
    match timeout(TIMEOUT, get(client, config_map)).await {
        Ok(Ok(authority)) => {
            let due = Instant::now() + jitter(AGAIN);
            KnownConfigMap { authority, due, failures: 0 }
        }
        Ok(Err(Error::Api(status))) if status.code == 404 => failed(AuthorityFault::Missing),
        // What the API server says is for the operator: it names accounts, and may be another each time.
        Ok(Err(Error::Api(status))) if status.code == 403 => not_read(FORBIDDEN, &status.message),
        Ok(Err(error)) => not_read("the API server does not give it", &error),
        Err(elapsed) => not_read("the API server does not answer", &elapsed),
    }
}

async fn get(client: &Client, config_map: &ObjectKey) -> Result<Authority, Error> {
    #[derive(Deserialize)]
    struct UsedConfigMap {
        #[serde(default)]
        data: Option<BTreeMap<String, String>>,
    }

    let (namespace, name) = (config_map.namespace(), config_map.name());
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let request = Request::new(path).get(name, &Default::default()).map_err(Error::BuildRequest)?;
    let object = fetch(client, request).await?;
    Ok(match object.parse::<UsedConfigMap>() {
        Ok(config_map) => authority(config_map.data.as_ref()),
        Err(fault) => Err(AuthorityFault::NotRead(fault.to_string().into())),
    })
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    fn known(authority: Authority, due: Instant) -> KnownConfigMap {
        KnownConfigMap { authority, due, failures: 0 }
    }

    /// What is in force.
    fn published(authorities: &Authorities, name: &str) -> Option<Authority> {
        authorities.get(&key(name))
    }

    #[test]
    fn one_that_was_beyond_the_most_is_read_once_there_is_room() {
        let (mut followed, authorities) = (Followed::default(), Authorities::default());
        let later = Instant::now() + AGAIN;
        followed.named = [key("a")].into();
        followed.beyond = [key("b")].into();
        followed.read.insert(key("a"), known(Err(AuthorityFault::Missing), later));
        followed.publish(&authorities);
        assert_eq!(published(&authorities, "b").expect("b").err(), Some(AuthorityFault::TooMany));
        (followed.named, followed.beyond) = ([key("b")].into(), [].into());
        followed.read.retain(|key, _| followed.named.contains(key));
        assert_eq!(followed.next().map(|(_, key)| key), Some(key("b")));
        followed.publish(&authorities);
        assert!(published(&authorities, "b").is_none(), "it counts as not read yet");
    }

    #[test]
    fn one_that_falls_beyond_the_most_is_told() {
        let (mut followed, authorities) = (Followed::default(), Authorities::default());
        followed.named = [key("a")].into();
        followed.read.insert(key("a"), known(Err(AuthorityFault::Missing), Instant::now()));
        followed.publish(&authorities);
        (followed.named, followed.beyond) = ([].into(), [key("a")].into());
        followed.read.clear();
        followed.publish(&authorities);
        assert_eq!(published(&authorities, "a").expect("a").err(), Some(AuthorityFault::TooMany));
    }

    /// A source that starts again has read nothing, and what the one before has read is still right.
    #[test]
    fn nothing_is_published_before_each_was_read() {
        let (mut followed, authorities) = (Followed::default(), Authorities::default());
        authorities.set(KnownAuthorities {
            by_config_map: [(key("b"), Err(AuthorityFault::Missing))].into_iter().collect(),
            complete: false,
        });
        followed.named = [key("a"), key("b")].into();
        followed.read.insert(key("a"), known(Err(AuthorityFault::Missing), Instant::now()));
        followed.publish(&authorities);
        assert!(published(&authorities, "b").is_some());
        followed.read.insert(key("b"), known(Err(AuthorityFault::TooMany), Instant::now()));
        followed.publish(&authorities);
        assert_eq!(published(&authorities, "b").expect("b").err(), Some(AuthorityFault::TooMany));
    }
}
