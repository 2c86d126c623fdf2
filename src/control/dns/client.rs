//! Sends lookups to DNS servers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::DnsResponse;
use hickory_resolver::proto::rr::RecordType;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::known_addresses::{Family, KnownAddresses, LookupResult};
use crate::control::translate::DnsAnswer;

/// The maximum duration of a lookup, including all retries.
const LONGEST: Duration = Duration::from_secs(6);

/// A client of the configured DNS servers.
#[derive(Debug)]
pub(super) struct DnsClient {
    servers: Vec<SocketAddr>,
    /// Created on first use. If that fails, the next lookup tries again, because the system's configuration
    /// may have been corrected.
    resolver: OnceCell<TokioResolver>,
}

impl DnsClient {
    /// A client of these servers; without any, of the system's servers.
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        DnsClient { servers: servers.to_vec(), resolver: OnceCell::new() }
    }

    /// Looks up the addresses of one family.
    pub(super) async fn ask(&self, name: &str, family: Family) -> LookupResult {
        let resolver = match self.resolver.get_or_try_init(|| async { self.resolver() }).await {
            Ok(resolver) => resolver,
            Err(error) => return LookupResult::Failed(format!("no DNS server is known: {error}")),
        };
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        // The trailing dot prevents a search in the search domains.
        match timeout(LONGEST, resolver.lookup(format!("{name}."), kind)).await {
            Ok(answer) => result(answer),
            Err(_) => LookupResult::Failed(format!("no answer within {} s", LONGEST.as_secs())),
        }
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
        // No cache: a name is looked up exactly when its records have expired.
        builder.options_mut().cache_size = 0;
        builder.build()
    }
}

/// The answer in the message of a DNS server, for a name of which nothing else is known. `None` if the
/// message is no response. It takes the same path as any response, without the sockets. For fuzzing.
pub fn read_answer(message: &[u8]) -> Option<DnsAnswer> {
    let response = DnsResponse::from_buffer(message.to_vec()).ok()?;
    let query = response.queries.first()?.clone();
    let answer = match DnsError::from_response(response) {
        Ok(response) => {
            let answers = response.into_message().answers;
            let lookup = hickory_resolver::lookup::Lookup::new_with_deadline;
            Ok(lookup(query, answers, Instant::now()))
        }
        Err(error) => Err(NetError::Dns(error)),
    };
    let mut known = KnownAddresses::default();
    known.take(Family::V4, result(answer));
    known.take(Family::V6, LookupResult::Nothing { no_such_name: false });
    known.answer()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let with_port = |mut config: ConnectionConfig| {
        config.port = address.port();
        config
    };
    let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

fn result(answer: Result<hickory_resolver::lookup::Lookup, NetError>) -> LookupResult {
    match answer {
        Ok(lookup) => {
            let ips = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
            let addresses: Vec<_> = ips.collect();
            if addresses.is_empty() {
                return LookupResult::Nothing { no_such_name: false };
            }
            let holds = lookup.valid_until().saturating_duration_since(Instant::now());
            LookupResult::Found(addresses, holds)
        }
        Err(error) if error.is_nx_domain() => LookupResult::Nothing { no_such_name: true },
        Err(NetError::Dns(DnsError::NoRecordsFound(_))) => {
            LookupResult::Nothing { no_such_name: false }
        }
        Err(error) => LookupResult::Failed(error.to_string()),
    }
}
