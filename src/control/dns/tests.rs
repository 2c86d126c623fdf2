//! Tests with a real DNS server, whose answers depend on the name.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::*;
use crate::control::translate::{Rank, WantedName};
use crate::routing::RouteKey;

/// A server that answers nothing for names that begin with `silent`, and no AAAA query for those that begin
/// with `four`. It fails for A queries of names that begin with `six`. All other names have an address of
/// each family, with a TTL of an hour.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<HashMap<String, usize>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let count = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query).await {
                let (name, v6) = question(&query[..length]);
                *count.lock().unwrap().entry(name.clone()).or_insert(0) += 1;
                if let Some(answer) = answer(&query[..length], &name, v6) {
                    socket.send_to(&answer, client).await.unwrap();
                }
            }
        });
        Server { address, asked, task }
    }

    /// How many different names with this prefix were queried.
    fn asked(&self, prefix: &str) -> usize {
        self.asked.lock().unwrap().keys().filter(|name| name.starts_with(prefix)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The first label of the query (RFC 1035 §4.1.2), and whether it asks for AAAA.
fn question(query: &[u8]) -> (String, bool) {
    let mut at = 12;
    let first = String::from_utf8_lossy(&query[13..13 + usize::from(query[12])]).into_owned();
    while query[at] != 0 {
        at += usize::from(query[at]) + 1;
    }
    (first, query[at + 2] == 28)
}

fn answer(query: &[u8], name: &str, v6: bool) -> Option<Vec<u8>> {
    if name.starts_with("silent") || name.starts_with("four") && v6 {
        return None;
    }
    let fails = name.starts_with("six") && !v6;
    let end = query[12..].iter().position(|byte| *byte == 0).unwrap() + 12 + 5;
    let mut answer = query[..end].to_vec();
    answer[2] = 0x81;
    answer[3] = if fails { 0x82 } else { 0x80 };
    let records = u8::from(!fails);
    answer[4..12].copy_from_slice(&[0, 1, 0, records, 0, 0, 0, 0]);
    if !fails {
        let ip: &[u8] =
            if v6 { &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] } else { &[10, 0, 0, 1] };
        answer.extend([
            0xc0,
            12,
            0,
            if v6 { 28 } else { 1 },
            0,
            1,
            0,
            0,
            14,
            16,
            0,
            ip.len() as u8,
        ]);
        answer.extend(ip);
    }
    Some(answer)
}

fn wanted(namespace: &str, names: impl Iterator<Item = String>) -> NameChanges {
    let wanted = names.map(|name| {
        let rank = Rank { created: 0, route: RouteKey::sni_route(namespace, &name) };
        WantedName {
            name: format!("{name}.test").into(),
            namespaces: BTreeMap::from([(namespace.into(), rank)]),
        }
    });
    NameChanges { wanted: wanted.collect(), unwanted: Vec::new() }
}

/// The next answer about a name, within `limit`.
async fn told(answers: &mut DnsAnswers, name: &str, limit: Duration) -> DnsAnswer {
    let next = async {
        loop {
            let (told, answer) = answers.next().await.unwrap();
            if *told == *name {
                return answer;
            }
        }
    };
    tokio::time::timeout(limit, next).await.unwrap_or_else(|_| panic!("{name}: not in {limit:?}"))
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A short time, on a machine with other work to do.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test]
async fn silent_servers_for_one_namespace_do_not_delay_another() {
    let server = Server::start().await;
    let (mut names, mut answers) = DnsFollower::new(&[server.address]);
    names.change(wanted("bad", (0..1600).map(|n| format!("silent{n}"))));
    while server.asked("silent") < 6 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    names.change(wanted("good", std::iter::once("db".to_owned())));
    let answer = told(&mut answers, "db.test", SOON).await;
    assert_eq!(answer.fault, None);
    assert!(server.asked("silent") < 100);
}

#[tokio::test]
async fn addresses_of_one_family_are_used_while_the_other_is_silent() {
    let server = Server::start().await;
    let (mut names, mut answers) = DnsFollower::new(&[server.address]);
    names.change(wanted("ns", ["four", "six"].map(str::to_owned).into_iter()));
    let answer = told(&mut answers, "four.test", SOON).await;
    assert_eq!(answer, DnsAnswer { addresses: ips(&["10.0.0.1"]), fault: None });
    let (mut names, mut answers) = DnsFollower::new(&[server.address]);
    names.change(wanted("ns", std::iter::once("six".to_owned())));
    let answer = told(&mut answers, "six.test", SOON).await;
    assert_eq!(answer, DnsAnswer { addresses: ips(&["fd00::1"]), fault: None });
}

#[tokio::test]
#[ignore = "slow: waits until a server that is silent is given up, six seconds"]
async fn a_name_without_an_answer_is_reported_and_other_names_are_still_looked_up() {
    let server = Server::start().await;
    let (mut names, mut answers) = DnsFollower::new(&[server.address]);
    names.change(wanted("bad", (0..60).map(|n| format!("silent{n}"))));
    let answer = told(&mut answers, "silent0.test", Duration::from_secs(20)).await;
    let fault = format!("{:?}", answer.fault);
    assert!(answer.addresses.is_empty() && fault.contains("NotResolved"), "{fault}");
    for n in 0..20 {
        names.change(wanted(&format!("good{n}"), std::iter::once(format!("db{n}"))));
        assert_eq!(told(&mut answers, &format!("db{n}.test"), SOON).await.fault, None);
    }
}

#[tokio::test]
async fn a_panic_of_the_task_reaches_the_reader() {
    let (tell, told) = mpsc::unbounded_channel();
    let mut answers: DnsAnswers = TaskStream::new(told, tokio::spawn(async { panic!("a fault") }));
    drop(tell);
    let read = AssertUnwindSafe(answers.next()).catch_unwind().await;
    assert!(read.is_err());
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn localhost_is_resolved_without_a_server() {
    // RFC 6761 §6.3.
    let (mut names, mut answers) = DnsFollower::new(&["127.0.0.1:1".parse().unwrap()]);
    let localhost = NameChanges {
        wanted: vec![WantedName {
            name: "localhost".into(),
            namespaces: BTreeMap::from([(
                "ns".into(),
                Rank { created: 0, route: RouteKey::sni_route("ns", "r") },
            )]),
        }],
        unwanted: Vec::new(),
    };
    names.change(localhost);
    let answer = told(&mut answers, "localhost", SOON).await;
    assert!(answer.fault.is_none(), "{answer:?}");
    drop(names);
    // When the task ends, so does the stream.
    let ended = async { while answers.next().await.is_some() {} };
    tokio::time::timeout(SOON, ended).await.unwrap();
}
