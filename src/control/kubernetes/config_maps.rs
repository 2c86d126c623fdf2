//! The ConfigMaps with the authorities of active health checks.
//!
//! They are read by name, one after the other, and read again from time to time. So sluice needs the permission to get
//! ConfigMaps, and none to list or watch them: it never sees any that no route names.

use std::collections::BTreeMap;
use std::convert::Infallible;
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
/// How long the API server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The least time between two requests, and between two looks at the table.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest cause of a failure that is told.
const LONGEST_CAUSE: usize = 200;

/// Reads the ConfigMaps that the checks of `table` need into `authorities`, until it is dropped.
pub async fn follow_authorities(
    client: Client,
    table: TableReader,
    authorities: Authorities,
) -> Infallible {
    let changed = Arc::new(Notify::new());
    let notify = Arc::downgrade(&changed);
    table.on_change(move |_| notify.upgrade().into_iter().for_each(|notify| notify.notify_one()));
    let mut known: HashMap<ObjectKey, KnownConfigMap> = HashMap::new();
    loop {
        let (named, beyond) = named_config_maps(&table.table());
        let before = known.len();
        known.retain(|key, _| named.contains(key) || beyond.contains(key));
        let mut is_new = known.len() != before;
        for key in beyond {
            let too_many = Some(Err(AuthorityFault::TooMany));
            is_new |=
                known.insert(key, KnownConfigMap { authority: too_many, due: None }).is_none();
        }
        if is_new {
            publish(&known, &authorities);
        }
        let due = |key: &ObjectKey| known.get(key).map_or(Some(Instant::now()), |known| known.due);
        let next = named.iter().filter_map(|key| Some((due(key)?, key))).min();
        tokio::select! {
            () = changed.notified() => {}
            () = sleep_until(next.as_ref().map_or_else(Instant::now, |(due, _)| *due)), if next.is_some() => {
                if let Some((_, key)) = next {
                    let former = known.remove(key);
                    let now = read(&client, key, former.as_ref()).await;
                    let is_new = former.is_none_or(|former| !same(&former, &now));
                    known.insert(key.clone(), now);
                    if is_new {
                        publish(&known, &authorities);
                    }
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// A ConfigMap that is needed.
struct KnownConfigMap {
    /// `None` until it was read.
    authority: Option<Authority>,
    /// When it is to be read again; `None` is never.
    due: Option<Instant>,
}

fn same(one: &KnownConfigMap, other: &KnownConfigMap) -> bool {
    match (&one.authority, &other.authority) {
        (Some(Err(one)), Some(Err(other))) => one == other,
        (Some(Ok(one)), Some(Ok(other))) => one.roots == other.roots,
        (None, None) => true,
        _ => false,
    }
}

fn publish(known: &HashMap<ObjectKey, KnownConfigMap>, authorities: &Authorities) {
    let read =
        known.iter().filter_map(|(key, known)| Some((key.clone(), known.authority.clone()?)));
    authorities.set(KnownAuthorities { by_config_map: read.collect(), complete: false });
}

/// Reads a ConfigMap. If that fails, what was read before stays.
async fn read(
    client: &Client,
    config_map: &ObjectKey,
    former: Option<&KnownConfigMap>,
) -> KnownConfigMap {
    let due = |after| Some(Instant::now() + jitter(after));
    let failed = |cause: String| {
        let former = former.and_then(|former| former.authority.clone());
        let cause = cause.chars().take(LONGEST_CAUSE).collect::<String>();
        let known = former.filter(Result::is_ok);
        let authority = known.unwrap_or_else(|| Err(AuthorityFault::NotRead(cause.into())));
        KnownConfigMap { authority: Some(authority), due: due(AGAIN_AFTER_FAILURE) }
    };
    match timeout(TIMEOUT, get(client, config_map)).await {
        Ok(Ok(authority)) => KnownConfigMap { authority: Some(authority), due: due(AGAIN) },
        Ok(Err(Error::Api(status))) if status.code == 404 => KnownConfigMap {
            authority: Some(Err(AuthorityFault::Missing)),
            due: due(AGAIN_AFTER_FAILURE),
        },
        Ok(Err(Error::Api(status))) => failed(status.message.clone()),
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed("the API server does not answer".to_owned()),
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
