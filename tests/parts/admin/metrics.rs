//! `/metrics`, as promtool and a scraper see it.

use super::*;

#[test]
fn counts_of_routes_are_read_when_they_are_asked_for() {
    let mut server = Server::start();
    server.writer.apply(snapshot());
    let table = Arc::clone(&server.state.table.table());
    let any = table.lookup(None, "https", []).expect("any");
    any.route.stats.ended(Outcome::Completed).store(3, Ordering::Relaxed);
    any.route.stats.ended(Outcome::IdleTimeout).store(2, Ordering::Relaxed);
    any.route.stats.bytes_up.store(100, Ordering::Relaxed);
    any.route.stats.bytes_down.store(5, Ordering::Relaxed);
    // For longer than the test takes.
    let failed = Moment::now() + Duration::from_secs(600);
    any.route.backends[0].backend.endpoints()[1].failed(failed);
    let unrouted = &server.state.metrics.unrouted;
    unrouted.ended(Outcome::NotTls).store(7, Ordering::Relaxed);

    let connections = |lines: &[String]| {
        lines.iter().filter(|line| line.starts_with("sluice_connections_total{")).count()
    };
    let lines = scrape(&server);
    for line in [
        r#"sluice_connections_total{kind="SniRoute",namespace="web",route="any",outcome="completed"} 3"#,
        r#"sluice_connections_total{kind="SniRoute",namespace="web",route="any",outcome="idle_timeout"} 2"#,
        r#"sluice_connections_total{kind="SniRoute",namespace="data",route="kafka",outcome="completed"} 0"#,
        r#"sluice_connections_total{kind="",namespace="",route="",outcome="not_tls"} 7"#,
        r#"sluice_connections_total{kind="",namespace="",route="",outcome="no_route"} 0"#,
        r#"sluice_bytes_total{kind="SniRoute",namespace="web",route="any",direction="upstream"} 100"#,
        r#"sluice_bytes_total{kind="SniRoute",namespace="web",route="any",direction="downstream"} 5"#,
        r#"sluice_bytes_total{kind="SniRoute",namespace="data",route="kafka",direction="upstream"} 0"#,
        r#"sluice_endpoints{state="serving"} 2"#,
        r#"sluice_endpoints{state="resting"} 1"#,
        "sluice_routes 2",
        "sluice_hostnames 3",
        "sluice_table_generation 1",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line} is not in\n{}", lines.join("\n"));
    }
    assert_eq!(connections(&lines), 5);

    // A route that is gone keeps what it counted, and shows no zeros.
    server.writer.apply(Snapshot::default());
    let lines = scrape(&server);
    let kept = r#"sluice_connections_total{kind="SniRoute",namespace="web",route="any",outcome="completed"} 3"#;
    assert!(lines.iter().any(|line| line == kept));
    assert!(!lines.iter().any(|line| line.contains("kafka")), "{}", lines.join("\n"));
    assert_eq!(connections(&lines), 4);
}

#[test]
fn an_endpoint_of_several_routes_counts_once_and_ejected_if_one_has_ejected_it() {
    let mut server = Server::start();
    let mut all = snapshot();
    let never = json!({ "health": { "passive": { "failures": 0 } } });
    let other = all.routes.iter_mut().find(|route| route.key.name() == "kafka").expect("kafka");
    other.policy = TrafficPolicy::of(&serde_json::from_value(never).expect("a policy"));
    server.writer.apply(all);
    let table = Arc::clone(&server.state.table.table());
    let any = table.lookup(None, "https", []).expect("any").route;
    let endpoint = Arc::clone(&any.backends[0].backend.endpoints()[0]);
    let ejections =
        (0..3).filter_map(|_| endpoint.count_failure(Moment::now(), any.spec.policy.ejection()));
    assert_eq!(ejections.count(), 1);
    let lines = scrape(&server);
    for line in [
        r#"sluice_endpoints{state="serving"} 2"#,
        r#"sluice_endpoints{state="resting"} 0"#,
        r#"sluice_endpoints{state="ejected"} 1"#,
        r#"sluice_endpoint_ejections_total{reason="connect"} 0"#,
        r#"sluice_endpoint_ejections_total{reason="early_close"} 0"#,
    ] {
        assert!(lines.iter().any(|l| l == line), "{line} is not in\n{}", lines.join("\n"));
    }
    let routes = server.routes();
    let state =
        |route: usize| routes["routes"][route]["backends"][0]["endpoints"][0]["state"].clone();
    assert_eq!((state(0), state(1)), (json!("resting"), json!("ejected")));
}

/// Metrics are of objects, rules are a matter inside them.
#[test]
fn counts_of_an_objects_rules_are_summed() {
    let mut server = Server::start();
    let rule = |rule| RouteKey::of_rule(key("web", "two").object().clone(), rule);
    let routes = vec![plain(rule(0), "one.example"), plain(rule(1), "two.example")];
    server.writer.apply(Snapshot { routes, ..Snapshot::default() });
    let table = Arc::clone(&server.state.table.table());
    for (count, name) in [(3, "one.example"), (4, "two.example")] {
        let stats = &table.lookup(Some(name), "https", []).expect("a route").route.stats;
        stats.ended(Outcome::Completed).store(count, Ordering::Relaxed);
        stats.bytes_up.store(10 * count, Ordering::Relaxed);
    }
    let expected = [
        r#"sluice_connections_total{kind="SniRoute",namespace="web",route="two",outcome="completed"} 7"#,
        r#"sluice_bytes_total{kind="SniRoute",namespace="web",route="two",direction="upstream"} 70"#,
    ];
    let summed = |server: &Server| {
        let lines = scrape(server);
        expected.iter().all(|line| lines.iter().any(|other| other == line))
    };
    assert!(summed(&server));
    // One rule of an object that stays.
    let routes = vec![plain(rule(0), "one.example")];
    server.writer.apply(Snapshot { routes, ..Snapshot::default() });
    assert!(summed(&server));
}

#[test]
fn every_metric_is_there_and_promtool_finds_no_fault() {
    let mut server = Server::start();
    let mut snapshot = snapshot();
    snapshot.routes.push(plain(key("odd\"\\\n", "a{b=\"c\"}"), "odd.example"));
    // Nothing makes two routes of one name, but if it happened, the rest must still be scraped.
    snapshot.routes.push(plain(key("web", "any"), "twice.example"));
    server.writer.apply(snapshot);
    let metrics = &server.state.metrics;
    for histogram in [
        &metrics.durations.hello,
        &metrics.durations.connect,
        &metrics.durations.connection,
        &metrics.table.swap_duration,
    ] {
        histogram.observe(0.004);
    }
    metrics.connections.of(1).add(3);
    metrics.pipes.idle.set(4);
    metrics.pipes.busy.set(2);
    let lines = scrape(&server);
    for start in [
        "sluice_connections_active 3",
        "sluice_worker_connections{worker=\"0\"} 0",
        "sluice_worker_connections{worker=\"1\"} 3",
        "sluice_splice_pipes{state=\"idle\"} 4",
        "sluice_splice_pipes{state=\"busy\"} 2",
        "sluice_accept_errors_total{error=\"emfile\"} 0",
        "sluice_endpoints_refused_total{reason=\"denied\"} 0",
        "sluice_endpoints_refused_total{reason=\"own_port\"} 0",
        "sluice_access_log_dropped_total 0",
        "sluice_log_dropped_total 0",
        "sluice_panics_total 0",
        "sluice_stalled_threads 0",
        "sluice_workers_lost_total 0",
        "sluice_hello_duration_seconds_bucket{le=\"0.0025\"} 0",
        "sluice_hello_duration_seconds_bucket{le=\"0.005\"} 1",
        "sluice_connect_duration_seconds_count 1",
        "sluice_connection_duration_seconds_sum 0.004",
        "sluice_table_swap_duration_seconds_count 1",
        "sluice_source_errors_total 0",
        "sluice_source_up 0",
        "sluice_table_from_saved 0",
        "sluice_table_saved_timestamp_seconds 0",
        "sluice_table_save_errors_total 0",
        "sluice_manifest_faults{kind=\"EndpointSlice\"} 0",
        "sluice_manifest_faults{kind=\"File\"} 0",
        "sluice_leader 0",
        "sluice_hostname_owner_changes_total 0",
        "sluice_status_writes_total{result=\"ok\"} 0",
        "sluice_status_writes_total{result=\"error\"} 0",
        "sluice_events_dropped_total 0",
        concat!("sluice_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "process_open_fds ",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_start_time_seconds ",
    ] {
        let found = lines.iter().any(|line| line.starts_with(start));
        assert!(found, "{start} is not in\n{}", lines.join("\n"));
    }
    let mut samples: Vec<&str> = lines
        .iter()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .collect();
    let all = samples.len();
    samples.sort_unstable();
    samples.dedup();
    assert_eq!(samples.len(), all, "a series is there twice");
}

/// The lines of `/metrics`, which promtool has found good.
pub(super) fn scrape(server: &Server) -> Vec<String> {
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (package prometheus)");
    promtool.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("written");
    let output = promtool.wait_with_output().expect("promtool");
    let findings = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && findings.is_empty(),
        "{}\n{text}",
        String::from_utf8_lossy(&findings)
    );
    text.lines().map(str::to_owned).collect()
}
