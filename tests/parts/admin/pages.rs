//! What the port answers, and what it refuses to.

use super::*;

#[test]
fn probes_say_what_is_missing() {
    let server = Server::start();
    assert_eq!(server.get("/livez"), (200, "ok\n".into()));
    assert_eq!(
        server.get("/readyz"),
        (
            503,
            "the listeners are not bound yet\nthe first complete table is not built yet\n".into()
        )
    );
    server.state.readiness.set_listeners_bound();
    server.state.readiness.set_table_complete();
    assert_eq!(server.get("/readyz"), (200, "ok\n".into()));
    server.state.readiness.set_draining();
    assert_eq!(server.get("/readyz"), (503, "draining\n".into()));
    assert_eq!(server.get("/livez"), (200, "ok\n".into()));
    server.state.readiness.set_worker_lost();
    assert_eq!(server.get("/livez").0, 503);
}

#[test]
fn other_paths_and_methods_are_refused() {
    let server = Server::start();
    let (status, body) = server.get("/");
    assert_eq!(status, 404);
    for page in ["/metrics", "/livez", "/readyz", "/routes", "/limits"] {
        assert!(body.contains(page), "{body}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
            let answer = server.connect().ask(&format!("{method} {page} HTTP/1.1\r\n\r\n"));
            assert_eq!(answer.status, 405, "{method} {page}");
            assert_eq!(field(&answer.head, "allow"), Some("GET, HEAD"));
        }
    }
    for path in ["/livez/", "/routes/x", "//livez", "/%6civez", "/favicon.ico"] {
        assert_eq!(server.get(path).0, 404, "{path}");
    }
    assert_eq!(server.get("/livez?verbose=1").0, 200);
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start();
    for (path, status) in
        [("/livez", 200), ("/readyz", 503), ("/routes", 200), ("/metrics", 200), ("/x", 404)]
    {
        let mut client = server.connect();
        let head = {
            client.send(&format!("HEAD {path} HTTP/1.1\r\n\r\n"));
            client.head()
        };
        assert_eq!(head[9..12], status.to_string(), "{path}");
        let length: usize = field(&head, "content-length").expect("length").parse().expect("n");
        assert!(length > 0, "{path}");
        // What follows is the next answer at once.
        assert_eq!(client.ask("GET /livez HTTP/1.1\r\n\r\n").body, "ok\n");
    }
}

#[test]
fn curl_reads_every_page() {
    let server = Server::start();
    for (path, media_type) in [
        ("/livez", "text/plain; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/routes", "application/json"),
    ] {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "10", "-o", "/dev/null"])
            .args(["-w", "%{http_code} %{content_type}", &server.url(path)])
            .output()
            .expect("curl (package curl)");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("200 {media_type}"));
    }
}

#[test]
fn requests_may_be_pipelined_and_connections_kept() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(&"GET /livez HTTP/1.1\r\n\r\nGET /routes HTTP/1.1\r\n\r\n".repeat(20));
    for _ in 0..20 {
        assert_eq!(client.answer().body, "ok\n");
        assert!(client.answer().body.starts_with("{\"generation\":0"));
    }
    let answer = client.ask("GET /livez HTTP/1.0\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert!(client.closed_within(PATIENCE), "HTTP/1.0 keeps no connection");
}

#[test]
fn a_body_is_refused_unread() {
    let server = Server::start();
    for header in ["content-length: 1", "transfer-encoding: chunked", "content-length: 1073741824"]
    {
        let mut client = server.connect();
        let answer = client.ask(&format!("GET /livez HTTP/1.1\r\n{header}\r\n\r\n"));
        assert_eq!(answer.status, 413, "{header}");
        assert_eq!(field(&answer.head, "connection"), Some("close"));
        assert!(client.closed_within(PATIENCE), "{header}");
    }
    let mut client = server.connect();
    let answer = client.ask("POST /livez HTTP/1.1\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(answer.status, 405);
    assert!(client.closed_within(PATIENCE));
    let answer = server
        .connect()
        .ask("GET /livez HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 9999\r\n\r\n");
    assert_eq!(answer.status, 413, "not 100");
    let answer = server.connect().ask("GET /livez HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(answer.status, 200);
}

#[test]
fn what_is_not_http_is_refused() {
    let server = Server::start();
    for bytes in ["\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "hello\r\n\r\n", "GET\r\n\r\n"] {
        let mut client = server.connect();
        assert_eq!(client.ask(bytes).status, 400, "{bytes:?}");
        assert!(client.closed_within(PATIENCE));
    }
    assert_eq!(server.get("/livez").0, 200);
}

#[test]
fn a_client_that_leaves_early_harms_nothing() {
    let server = Server::start();
    for _ in 0..20 {
        let mut client = server.connect();
        client.send("GET /metrics HTTP/1.1\r\n\r\n");
        client.0.shutdown(Shutdown::Both).expect("gone");
    }
    assert_eq!(server.get("/metrics").0, 200);
}
