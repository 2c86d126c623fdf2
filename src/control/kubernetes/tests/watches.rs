//! Lists and watches, and what their ends say of the server.

use super::super::health::Notice;
use super::*;

#[test]
fn a_watch_goes_on_where_it_was_and_is_listed_anew_where_it_cannot() {
    let object = |name: &str| json!({ "metadata": { "name": name, "resourceVersion": "7" } });
    let error = |code: u16, message: &str| {
        event("ERROR", &json!({ "kind": "Status", "code": code, "message": message }))
    };
    let watches = vec![
        vec![event("ADDED", &object("b")), event("DELETED", &object("a"))],
        vec![event("ADDED", &object("c")), error(410, "old")],
        vec![event("ADDED", &object("d")), "no event".to_owned()],
        vec![String::new(), event("ADDED", &object("e")), "break".to_owned()],
        vec![event("ADDED", &object("f")), error(429, "busy")],
        vec![event("ADDED", &object("g")), error(500, "odd")],
    ];
    let taken = take(|| server(vec![object("a")], watches, health()), 24);
    let failed = |why: &str| format!("failed: {why}");
    assert_eq!(
        shown(&taken),
        [
            "init",
            "listed a",
            "done",
            "put b",
            "gone a",
            "put c",
            &failed("the server has ended a watch: old: "),
            "init",
            "listed a",
            "done",
            "put d",
            &failed("a watch has brought what is no event"),
            "init",
            "listed a",
            "done",
            "put e",
            &failed("a watch has broken off: ServiceError: ServiceError: broken off"),
            "put f",
            &failed("the server has ended a watch: busy: "),
            "put g",
            &failed("the server has ended a watch: odd: "),
            "init",
            "listed a",
            "done",
        ]
    );
}

/// What was told while three watches ended like this, and then one brought something.
fn told_of(lines: &[&str]) -> Vec<Notice> {
    told_of_all(&[lines; 3])
}

/// What was told while watches ended like these, and then one brought something.
fn told_of_all(watches: &[&[&str]]) -> Vec<Notice> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let health = SourceHealth::new(move |notice| kept.lock().unwrap().push(notice));
    let object = json!({ "metadata": { "name": "a", "resourceVersion": "7" } });
    let lines = |lines: &&[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    let mut watches: Vec<Lines> = watches.iter().map(lines).collect();
    watches.push(vec![event("ADDED", &object)]);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let health = health.watch("as", None);
        let mut events = server(Vec::new(), watches, health.clone());
        loop {
            match events.next().await.unwrap() {
                Ok(WatchEvent::Apply(_)) => break,
                Ok(_) => {}
                Err(failure) => health.failed(&failure),
            }
        }
    });
    let told = told.lock().unwrap();
    told.iter().filter(|notice| **notice != Notice::Failed).cloned().collect()
}

#[test]
fn watches_that_bring_nothing_are_an_outage_until_one_brings_something() {
    let error = |code: u16| {
        let status = json!({ "kind": "Status", "code": code, "reason": "Odd", "message": "odd" });
        event("ERROR", &status)
    };
    for (lines, what) in [
        (&[error(500).as_str()] as &[&str], "500 Odd"),
        (&[error(429).as_str()], "429 Odd"),
        (&["wait 3", "no event"], "a watch has brought what is no event"),
        (&[], "a watch has ended at once"),
        (&["break"], "broken off"),
        (&["wait 3600"], "a watch has fallen silent"),
    ] {
        assert_eq!(told_of(lines), [Notice::Up, down(what), Notice::Up], "{lines:?}");
    }
}

fn down(what: &str) -> Notice {
    Notice::Down { what: format!("as: {what}") }
}

#[test]
fn a_refusal_explains_the_watch_that_ended_before_it_and_no_other() {
    let (brief, refused): (&[&str], &[&str]) = (&[], &["refuse 503"]);
    let told = told_of_all(&[brief, brief, refused, brief, brief, refused]);
    let [up, busy, odd] = [Notice::Up, down("503"), down("a watch has ended at once")];
    assert_eq!(told, [&up, &busy, &up, &odd, &busy, &up].map(Clone::clone));
}

#[test]
fn a_cut_in_each_of_several_outages_is_explained_by_it() {
    let (cut, refused): (&[&str], &[&str]) = (&["break"], &["refuse 503"]);
    let told = told_of_all(&[cut, refused, cut, refused, refused, cut, refused]);
    let [up, busy] = [Notice::Up, down("503")];
    assert_eq!(told, [&up, &busy, &up, &busy, &up, &busy, &up].map(Clone::clone));
}

#[test]
fn watches_that_are_quiet_are_no_outage() {
    let bookmark = event("BOOKMARK", &json!({ "metadata": { "resourceVersion": "9" } }));
    for lines in [
        &["wait 40"] as &[&str],
        &["wait 20"],
        &["wait 20", "break"],
        &[bookmark.as_str()],
        &[bookmark.as_str(), "break"],
    ] {
        assert_eq!(told_of(lines), [Notice::Up], "{lines:?}");
    }
}

#[test]
fn a_list_that_breaks_off_is_asked_for_again() {
    let bodies = Arc::new(Mutex::new(
        ["{\"items\": [{\"metadata\": {\"name\": \"a\"}}, {", "<html>", "{\"items\": []}"]
            .into_iter(),
    ));
    let answer = move |_: Request<Body>| {
        let body = bodies.lock().unwrap().next().unwrap_or_default();
        async move { kube::Result::<_>::Ok(Response::new(Body::from(body.as_bytes().to_vec()))) }
    };
    let start = || {
        let client = Client::new(service_fn(answer), "default");
        events(client, "/as".to_owned(), Extent::Whole, health())
    };
    let taken = take(start, 7);
    assert_eq!(
        shown(&taken),
        [
            "init",
            "listed a",
            "failed: cannot list: ServiceError: the list breaks off",
            "init",
            "failed: cannot list: ServiceError: the answer is no list of objects",
            "init",
            "failed: the list has no resourceVersion",
        ]
    );
}
