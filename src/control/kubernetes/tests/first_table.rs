//! How long the first table waits.

use super::*;
use crate::termination::TicketKeys;

/// A server with so many routes, each of which names a Secret that is not there, as the server says after so long.
fn cluster_of_terminating(count: usize, delay: Duration) -> Client {
    let routes = (0..count).map(|number| {
        let mut route = good(number);
        let secret = format!("s{number}");
        route["spec"]["tls"] =
            json!({ "mode": "Terminate", "certificates": [{ "secret": secret }] });
        (Kind::SniRoute, route)
    });
    let lists = cluster(routes.collect());
    let answer = move |request: Request<Body>| {
        let lists = lists.clone();
        async move {
            if !request.uri().path().contains("/secrets/") {
                return lists.send(request).await;
            }
            tokio::time::sleep(delay).await;
            let answer = Response::builder().status(404);
            Ok(answer.body(Body::from(b"{\"code\": 404}".to_vec())).unwrap())
        }
    };
    Client::new(service_fn(answer), "default")
}

/// The first table, and how many seconds it took.
async fn first_table(client: Client) -> (Delta, u64) {
    let start = tokio::time::Instant::now();
    let source = KubernetesSource { client, namespaces: Vec::new(), secrets: true };
    let installation = Installation { termination: Some(TicketKeys::default()), ..installation() };
    let names = DnsFollower::new(&["127.0.0.1:9".parse().unwrap()]);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let publish = move |update: KubernetesUpdate| _ = tell.send(update.delta);
    let (_writer, table) = crate::routing::channel();
    let checked = CheckedReferences { table, authorities: Authorities::default() };
    let first = tokio::select! {
        never = watch(source, installation, names, checked, publish, |_| {}) => match never {},
        first = told.recv() => first.unwrap(),
    };
    (first, start.elapsed().as_secs())
}

/// How many routes wait for a Secret that was not read yet.
fn waiting(delta: &Delta) -> usize {
    let statuses = delta.statuses.iter();
    let waits = statuses.filter(|status| {
        status.conditions.iter().any(|condition| condition.message.contains("was not read yet"))
    });
    waits.count()
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_secrets_as_long_as_some_are_read_but_not_for_ever() {
    for (count, delay, waited, left) in [
        // 4 at a time, because they are of one namespace.
        (200, Duration::from_secs(1), 50..55, 0..1),
        (200, Duration::from_secs(60), 10..12, 200..201),
        (800, Duration::from_secs(1), 120..122, 300..340),
    ] {
        let (first, seconds) = first_table(cluster_of_terminating(count, delay)).await;
        assert_eq!(first.statuses.len(), count);
        assert!(waited.contains(&seconds), "{seconds} s for {count}");
        assert!(left.contains(&waiting(&first)), "{} of {count}", waiting(&first));
    }
}
