//! Gets the routes of a running sluice.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::admin::limits::{LimitsQuery, LimitsReport};
use crate::admin::report::{RoutesReport, UnreadableEntry};

/// The maximum duration of a request, from resolving the name to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);
/// The maximum size of a report in bytes: some hundred thousand routes.
const MAX_REPORT: usize = 64 * 1024 * 1024;

/// The routes of a running sluice, and those that this version cannot read.
pub type Fetched = (RoutesReport, Vec<UnreadableEntry>);

/// Gets the routes from the admin port at `url`, such as `http://127.0.0.1:9901`. Needs a tokio runtime with
/// I/O and time.
///
/// # Errors
/// When there is no valid answer within 5 seconds. The message contains the URL.
pub async fn fetch(url: &str) -> anyhow::Result<Fetched> {
    fetch_within(url, DEADLINE, MAX_REPORT).await
}

/// Asks the admin port at `url` which limits a client would exceed there now. `None` if it does not know: a sluice before
/// this one has no such page, and the route may be gone.
///
/// # Errors
/// As [`fetch`].
pub async fn fetch_limits(url: &str, query: &LimitsQuery) -> anyhow::Result<Option<LimitsReport>> {
    let page = format!("limits?{}", query.text());
    match ask(url, &page, DEADLINE, MAX_REPORT).await? {
        (StatusCode::OK, body) => {
            let report = serde_json::from_slice(&body);
            report.map(Some).context("the answer is no report of sluice")
        }
        _ => Ok(None),
    }
}

async fn fetch_within(url: &str, deadline: Duration, max: usize) -> anyhow::Result<Fetched> {
    let fetched = async {
        let (status, body) = ask(url, "routes", deadline, max).await?;
        ensure!(status == StatusCode::OK, "the answer is {status}; is this sluice's admin port?");
        RoutesReport::read(&body).context("the answer is no report of sluice")
    };
    fetched.await.with_context(|| format!("cannot get the routes from {url:?}"))
}

/// The answer to a request for a page.
async fn ask(
    url: &str,
    page: &str,
    deadline: Duration,
    max: usize,
) -> anyhow::Result<(StatusCode, Bytes)> {
    match tokio::time::timeout(deadline, get(&target(url, page)?, max)).await {
        Ok(answer) => answer,
        Err(_) => bail!("no whole answer within {deadline:?}"),
    }
}

/// The URL of a page of an admin port at `url`.
fn target(url: &str, page: &str) -> anyhow::Result<Uri> {
    let base: Uri = url.parse().context("this is no URL, such as http://127.0.0.1:9901")?;
    match base.scheme_str() {
        Some("http") => {}
        Some("https") => bail!("the admin port speaks plain http://, not https://"),
        _ => bail!("the URL must begin with http://, as in http://127.0.0.1:9901"),
    }
    ensure!(base.query().is_none(), "the URL must not have a query");
    let target = format!("{}/{page}", url.trim_end_matches('/'));
    target.parse().context("this is no URL, such as http://127.0.0.1:9901")
}

async fn get(target: &Uri, max: usize) -> anyhow::Result<(StatusCode, Bytes)> {
    let authority = target.authority().context("the URL has no host")?;
    // In a URL, an IPv6 address has brackets; elsewhere it has none.
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut exchange = pin!(async move {
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(HOST, authority.as_str())
            .header(ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Ok((status, Bytes::new()));
        }
        let body = Limited::new(response.into_body(), max).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed).context("reading the answer")?;
        anyhow::Ok((status, body.to_bytes()))
    });
    tokio::select! {
        answer = &mut exchange => answer,
        // If the server closes the connection first, its answer must still be read.
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::SocketAddr;

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn a_url_is_http_and_may_have_a_path() {
        for (url, expected) in [
            ("http://127.0.0.1:9901", "http://127.0.0.1:9901/routes"),
            ("http://127.0.0.1:9901/", "http://127.0.0.1:9901/routes"),
            ("http://[::1]:9901", "http://[::1]:9901/routes"),
            ("http://proxy/sluice/", "http://proxy/sluice/routes"),
        ] {
            assert_eq!(target(url, "routes").expect(url).to_string(), expected);
        }
        for (url, part) in [
            ("https://127.0.0.1:9901", "not https"),
            ("localhost:9901", "begin with http://"),
            ("127.0.0.1", "begin with http://"),
            ("/routes", "begin with http://"),
            ("", "no URL"),
            ("http://", "no URL"),
            ("http://a b/", "no URL"),
            ("http://a?b", "query"),
        ] {
            let error = format!("{:#}", target(url, "routes").expect_err(url));
            assert!(error.contains(part), "{url:?}: {error}");
        }
    }

    /// The error of `fetch`, with deadline `within`, from a server that sends `answer` and then nothing
    /// more.
    async fn fetched(within: Duration, answer: &str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let answer = answer.to_owned();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            // The client may already be gone; it reports its own error.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
            // Until the client closes the connection.
            let _ = stream.read(&mut [0]);
        });
        let fetched = fetch_within(&url, within, 100).await;
        server.join().expect("the server");
        let error = format!("{:#}", fetched.expect_err("no report"));
        assert!(error.contains(&url), "{error}");
        error
    }

    #[tokio::test]
    async fn an_answer_that_is_no_report_is_an_error() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length:";
        for answer in [String::new(), format!("{head} 10\r\n\r\n{{")] {
            let error = fetched(Duration::from_millis(300), &answer).await;
            assert!(error.contains("no whole answer within 300ms"), "{answer:?}: {error}");
        }
        for (answer, part) in [
            (format!("{head} 2\r\n\r\n[]"), "no report of sluice"),
            (format!("{head} 101\r\n\r\n{}", " ".repeat(101)), "length limit exceeded"),
            ("HTTP/1.1 404 Not Found\r\n\r\n".to_owned(), "404 Not Found"),
            ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), "invalid HTTP"),
        ] {
            let error = fetched(Duration::from_secs(60), &answer).await;
            assert!(error.contains(part), "{answer:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_an_error_with_the_url() {
        // Bound but not listening, so that no other process can listen there.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        let address = socket.local_addr().expect("an address").as_socket();
        let url = format!("http://{}", address.expect("one of IPv4"));
        let error = format!("{:#}", fetch(&url).await.expect_err("nobody"));
        assert!(error.contains(&url) && error.contains("refused"), "{error}");
    }
}
