//! The addresses of DNS names, kept up to date by the time to live of their records.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::RecordType;
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::api::DnsName;
use super::build::{Answer, NameChanges};

/// How long the first table waits for the names that it leads to.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// A name is not looked up again sooner than this, whatever its records say.
const SHORTEST: Duration = Duration::from_secs(1);
/// A name is looked up again after this at the latest.
const LONGEST: Duration = Duration::from_secs(3600);
/// The longest pause between attempts that bring nothing; the first is [`SHORTEST`].
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How many names are looked up at once.
const AT_ONCE: usize = 32;

/// Keeps names resolved. Needs a tokio runtime.
///
/// Names are looked up as they stand, without search domains, first in the hosts file. Both address
/// families count. When a lookup fails, the addresses of the last good answer stay; when the
/// servers say that there are none, they go.
#[derive(Debug)]
pub struct Names {
    lookup: Arc<Lookup>,
    followed: HashMap<DnsName, Task>,
    tell: mpsc::UnboundedSender<(DnsName, Answer)>,
}

/// What [`Names`] finds out, as a stream that ends with it.
#[derive(Debug)]
pub struct Answers(mpsc::UnboundedReceiver<(DnsName, Answer)>);

impl Stream for Answers {
    type Item = (DnsName, Answer);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

impl Names {
    /// Resolves by these servers; by those of `/etc/resolv.conf` if there are none.
    pub fn new(servers: &[SocketAddr]) -> (Self, Answers) {
        let (tell, told) = mpsc::unbounded_channel();
        let lookup = Arc::new(Lookup {
            servers: servers.to_vec(),
            resolver: OnceCell::new(),
            turns: Semaphore::new(AT_ONCE),
        });
        (Names { lookup, followed: HashMap::new(), tell }, Answers(told))
    }

    /// Begins and ends to follow names.
    pub fn change(&mut self, changes: NameChanges) {
        for name in changes.unwanted {
            self.followed.remove(&name);
        }
        for name in changes.wanted {
            let follow = follow(name.clone(), Arc::clone(&self.lookup), self.tell.clone());
            self.followed.entry(name).or_insert_with(|| Task(tokio::spawn(follow)));
        }
    }
}

/// Ends when it is dropped.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks a name up again and again, and tells what is new.
async fn follow(
    name: DnsName,
    lookup: Arc<Lookup>,
    tell: mpsc::UnboundedSender<(DnsName, Answer)>,
) {
    let mut held = Held::default();
    let mut told = None;
    let mut pause = SHORTEST;
    loop {
        let (answer, valid) = held.take(lookup.both(&name).await);
        if told.as_ref() != Some(&answer) {
            told = Some(answer.clone());
            // Fails only when nobody wants to know any more.
            let _ = tell.send((name.clone(), answer));
        }
        match valid {
            Some(valid) => {
                pause = SHORTEST;
                tokio::time::sleep(valid.clamp(SHORTEST, LONGEST)).await;
            }
            None => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// What a lookup of one address family brought.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// Addresses, and for how long they hold.
    Found(Vec<IpAddr>, Duration),
    /// The servers say that there are none, or that there is no such name at all.
    Nothing { no_such_name: bool },
    /// No answer.
    Failed(String),
}

/// The addresses that are held of a name, by family.
#[derive(Debug, Default)]
struct Held {
    families: [Vec<IpAddr>; 2],
}

impl Held {
    /// Takes the outcomes of both families over. Returns what is known now, and for how long that
    /// holds if it is all good.
    ///
    /// One family that has addresses is enough: servers that know no AAAA records often fail to say
    /// so.
    fn take(&mut self, outcomes: [Outcome; 2]) -> (Answer, Option<Duration>) {
        let mut valid: Option<Duration> = None;
        let mut fault = None;
        for (held, outcome) in self.families.iter_mut().zip(outcomes) {
            match outcome {
                Outcome::Found(addresses, holds) => {
                    *held = addresses;
                    valid = Some(valid.map_or(holds, |valid| valid.min(holds)));
                }
                Outcome::Nothing { no_such_name } => {
                    held.clear();
                    let why =
                        if no_such_name { "there is no such name" } else { "it has no address" };
                    fault.get_or_insert(why.to_owned());
                }
                Outcome::Failed(why) => fault = Some(why),
            }
        }
        let mut addresses = self.families.concat();
        addresses.sort_unstable();
        let fault = if valid.is_some() { None } else { fault.map(Into::into) };
        (Answer { addresses, fault }, valid)
    }
}

/// Asks the servers.
#[derive(Debug)]
struct Lookup {
    servers: Vec<SocketAddr>,
    /// Made when it is first needed, and again if that failed: the system's configuration may be
    /// mended meanwhile.
    resolver: OnceCell<TokioResolver>,
    turns: Semaphore,
}

impl Lookup {
    /// IPv4 and IPv6.
    async fn both(&self, name: &str) -> [Outcome; 2] {
        let _turn = self.turns.acquire().await;
        let resolver = match self.resolver.get_or_try_init(|| async { self.resolver() }).await {
            Ok(resolver) => resolver,
            Err(error) => {
                let failed = Outcome::Failed(format!("no DNS server is known: {error}"));
                return [failed.clone(), failed];
            }
        };
        // The dot at the end keeps it from being tried under the search domains.
        let name = format!("{name}.");
        let (four, six) = tokio::join!(
            resolver.lookup(name.as_str(), RecordType::A),
            resolver.lookup(name.as_str(), RecordType::AAAA)
        );
        [outcome(four), outcome(six)]
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match self.servers.as_slice() {
            [] => TokioResolver::builder_tokio()?,
            servers => {
                let servers = servers.iter().map(|server| name_server(*server)).collect();
                let config = ResolverConfig::from_parts(None, Vec::new(), servers);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        // Each name is looked up when its records have expired, and not before.
        builder.options_mut().cache_size = 0;
        builder.build()
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let with_port = |mut config: ConnectionConfig| {
        config.port = address.port();
        config
    };
    let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

fn outcome(answer: Result<hickory_resolver::lookup::Lookup, NetError>) -> Outcome {
    match answer {
        Ok(lookup) => {
            let ips = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
            let addresses: Vec<IpAddr> = ips.collect();
            if addresses.is_empty() {
                return Outcome::Nothing { no_such_name: false };
            }
            Outcome::Found(
                addresses,
                lookup.valid_until().saturating_duration_since(Instant::now()),
            )
        }
        Err(error) if error.is_nx_domain() => Outcome::Nothing { no_such_name: true },
        Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Outcome::Nothing { no_such_name: false },
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NONE: Outcome = Outcome::Nothing { no_such_name: false };
    const NO_NAME: Outcome = Outcome::Nothing { no_such_name: true };

    fn found(address: &str, seconds: u64) -> Outcome {
        Outcome::Found(vec![address.parse().unwrap()], Duration::from_secs(seconds))
    }

    fn failed() -> Outcome {
        Outcome::Failed("away".to_owned())
    }

    /// A lookup, and what is known then: the addresses, what is wrong, and for how long it holds.
    type Step<'s> = ([Outcome; 2], &'s [&'s str], Option<&'s str>, Option<u64>);

    #[track_caller]
    fn goes(steps: &[Step<'_>]) {
        let mut held = Held::default();
        for (outcomes, addresses, fault, seconds) in steps {
            let (answer, valid) = held.take(outcomes.clone());
            let expected: Vec<IpAddr> =
                addresses.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(answer.addresses, expected, "{outcomes:?}");
            assert_eq!(answer.fault.as_deref(), *fault, "{outcomes:?}");
            assert_eq!(valid, seconds.map(Duration::from_secs), "{outcomes:?}");
        }
    }

    #[test]
    fn both_families_count_and_the_shorter_life() {
        goes(&[
            (
                [found("10.0.0.1", 60), found("fd00::1", 30)],
                &["10.0.0.1", "fd00::1"],
                None,
                Some(30),
            ),
            ([found("10.0.0.2", 60), NONE], &["10.0.0.2"], None, Some(60)),
            ([NONE, found("fd00::2", 5)], &["fd00::2"], None, Some(5)),
        ]);
    }

    #[test]
    fn a_failure_keeps_what_was_there() {
        goes(&[
            ([failed(), failed()], &[], Some("away"), None),
            (
                [found("10.0.0.1", 60), found("fd00::1", 60)],
                &["10.0.0.1", "fd00::1"],
                None,
                Some(60),
            ),
            ([failed(), failed()], &["10.0.0.1", "fd00::1"], Some("away"), None),
            // One family that has addresses is enough.
            ([found("10.0.0.2", 9), failed()], &["10.0.0.2", "fd00::1"], None, Some(9)),
            ([NONE, failed()], &["fd00::1"], Some("away"), None),
        ]);
    }

    #[test]
    fn an_answer_that_there_is_nothing_takes_it_away() {
        goes(&[
            ([found("10.0.0.1", 60), NONE], &["10.0.0.1"], None, Some(60)),
            ([NONE, NONE], &[], Some("it has no address"), None),
            ([found("10.0.0.1", 60), NONE], &["10.0.0.1"], None, Some(60)),
            ([NO_NAME, NO_NAME], &[], Some("there is no such name"), None),
        ]);
    }

    #[tokio::test]
    async fn a_name_is_followed_until_it_is_unwanted() {
        // That name is known without a server (RFC 6761 §6.3).
        let (mut names, mut answers) = Names::new(&["127.0.0.1:1".parse().unwrap()]);
        let name = DnsName::from("localhost");
        let wanted = || NameChanges { wanted: vec![name.clone()], unwanted: Vec::new() };
        names.change(wanted());
        let (told, answer) = futures::StreamExt::next(&mut answers).await.unwrap();
        assert_eq!(told, name);
        assert!(answer.fault.is_none(), "{answer:?}");
        assert!(answer.addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{answer:?}");
        let running = |names: &Names| names.followed.len();
        names.change(wanted());
        assert_eq!(running(&names), 1, "it goes on");
        names.change(NameChanges { wanted: Vec::new(), unwanted: vec![name] });
        assert_eq!(running(&names), 0);
    }
}
