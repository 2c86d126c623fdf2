//! Files that change while sluice runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use super::watched::{PATIENCE, TOLD, Watched, temporary, write};
use super::{cpu_time, good, installation};
use crate::control::dns::DnsFollower;
use crate::control::files::pace::Pace;
use crate::control::files::watch::watch_at;

#[tokio::test]
async fn a_change_is_live_within_a_second() {
    let folder = temporary();
    let a = folder.path().join("a.yaml");
    write(&a, &good("a"));
    let mut watched = Watched::new(Pace::default(), &[folder.path()]).await;
    assert_eq!(watched.routes(), ["a"]);
    assert!(watched.last.complete);
    let mut took = Vec::new();
    for round in ["one", "two", "three"] {
        let start = Instant::now();
        write(&a, &good(round));
        watched.until(&[round], 0).await;
        took.push(start.elapsed().max(watched.last.noticed.elapsed()));
    }
    // Not each of them, for a busy machine may hold up any.
    assert!(took.iter().any(|took| *took < Duration::from_secs(1)), "{took:?}");
}

#[tokio::test]
async fn files_are_added_broken_mended_and_deleted() {
    let folder = temporary();
    let file = |name: &str| folder.path().join(name);
    let mut watched = Watched::new(TOLD, &[folder.path()]).await;
    assert!(watched.routes().is_empty() && watched.last.complete);
    write(&file("a.yaml"), &good("a"));
    watched.until(&["a"], 0).await;
    write(&file("b.yaml"), "rubbish");
    watched.until(&["a"], 1).await;
    write(&file("b.yaml"), &good("b"));
    watched.until(&["a", "b"], 0).await;
    write(&file("b.yaml"), &good("b")[..50]);
    watched.until(&["a", "b"], 1).await;
    fs::remove_file(file("b.yaml")).expect("removed");
    watched.until(&["a"], 0).await;
    // What is not ours makes no update, and neither does the same content again.
    write(&file("notes.txt"), "x");
    write(&file("a.yaml"), &good("a"));
    watched.stays(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn an_update_tells_of_what_changed_and_of_nothing_else() {
    let folder = temporary();
    let file = |name: &str| folder.path().join(name);
    write(&file("a.yaml"), &[good("one"), good("two")].join("---\n"));
    write(&file("b.yaml"), &good("three"));
    let mut watched = Watched::new(TOLD, &[folder.path()]).await;
    let told = |watched: &Watched| {
        let delta = &watched.last.delta;
        let mut names: Vec<String> =
            delta.statuses.iter().map(|status| status.object.name().to_owned()).collect();
        names.sort();
        assert!(delta.changes.routes.len() >= names.len());
        names
    };
    assert_eq!(told(&watched), ["one", "three", "two"]);
    let other = good("two").replace("two.com", "other.com");
    write(&file("a.yaml"), &[good("new"), good("one"), other].join("---\n"));
    watched.until(&["new", "one", "three", "two"], 0).await;
    assert_eq!(told(&watched), ["new", "two"], "one is only further down than before");
    // From one file to another, and nothing else, be it read before both are written or after.
    write(&file("b.yaml"), &[good("three"), good("one")].join("---\n"));
    write(&file("a.yaml"), &good("new"));
    watched.until(&["new", "one", "three"], 0).await;
    assert_eq!(told(&watched), [""; 0]);
}

#[tokio::test]
async fn editors_replace_files() {
    let folder = temporary();
    let file = |name: &str| folder.path().join(name);
    write(&file("a.yaml"), &good("a"));
    // The file alone is named: its folder is watched all the same.
    let mut watched = Watched::new(TOLD, &[&file("a.yaml")]).await;
    watched.calm().await;
    write(&file(".a.yaml.tmp"), &good("one"));
    fs::rename(file(".a.yaml.tmp"), file("a.yaml")).expect("renamed over");
    watched.until(&["one"], 0).await;
    watched.calm().await;
    fs::rename(file("a.yaml"), file("a.yaml~")).expect("renamed away");
    write(&file("a.yaml"), &good("two"));
    watched.until(&["two"], 0).await;
    fs::remove_file(file("a.yaml")).expect("removed");
    write(&file("a.yaml"), &good("three"));
    watched.until(&["three"], 0).await;
    // What was asked for by its name stays in force while it is not there.
    fs::remove_file(file("a.yaml")).expect("removed");
    watched.until(&["three"], 1).await;
    watched.calm().await;
    write(&file("a.yaml"), &good("four"));
    watched.until(&["four"], 0).await;
}

/// Writes a ConfigMap volume as kubelet's AtomicWriter does.
fn project(volume: &Path, version: &str, files: &[(&str, String)]) {
    let former = fs::read_link(volume.join("..data"));
    fs::create_dir(volume.join(version)).expect("a folder");
    for (name, content) in files {
        write(&volume.join(version).join(name), content);
    }
    symlink(version, volume.join("..data_tmp")).expect("a link");
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("swapped");
    for (name, _) in files {
        if !volume.join(name).is_symlink() {
            symlink(Path::new("..data").join(name), volume.join(name)).expect("a link");
        }
    }
    if let Ok(former) = former {
        fs::remove_dir_all(volume.join(former)).expect("removed");
    }
}

#[tokio::test]
async fn a_config_map_is_swapped_whole() {
    let volume = temporary();
    let both = |one: &str, other: &str| [("a.yaml", one.to_owned()), ("b.yaml", other.to_owned())];
    project(volume.path(), "..0", &both(&good("x"), &good("fix")));
    let mut watched = Watched::new(TOLD, &[volume.path()]).await;
    assert_eq!(watched.routes(), ["fix", "x"]);
    // A route goes from one file to the other and back: no update is without it.
    for round in 1..12 {
        let (one, other) = (good("x"), good(&format!("fix{round}")));
        let files = if round % 2 == 0 { both(&one, &other) } else { both(&other, &one) };
        project(volume.path(), &format!("..{round}"), &files);
        let fix = format!("fix{round}");
        while watched.routes() != [fix.as_str(), "x"] {
            watched.next().await;
            assert!(watched.routes().contains(&"x"), "{:?}", watched.routes());
            assert_eq!(watched.faults(), 0);
        }
    }
}

#[tokio::test]
async fn one_file_of_a_config_map_is_followed_too() {
    let volume = temporary();
    project(volume.path(), "..0", &[("a.yaml", good("zero"))]);
    let mut watched = Watched::new(TOLD, &[&volume.path().join("a.yaml")]).await;
    for (version, route) in [("..1", "one"), ("..2", "two"), ("..3", "three")] {
        watched.calm().await;
        project(volume.path(), version, &[("a.yaml", good(route))]);
        watched.until(&[route], 0).await;
    }
}

#[tokio::test]
async fn links_are_followed_to_where_the_files_are() {
    let folder = temporary();
    let at = |path: &str| folder.path().join(path);
    for made in ["v1", "v2", "far", "routes"] {
        fs::create_dir(at(made)).expect("a folder");
    }
    write(&at("v1/a.yaml"), &good("v1"));
    write(&at("v2/a.yaml"), &good("v2"));
    write(&at("far/b.yaml"), &good("far"));
    symlink("v1", at("current")).expect("a link");
    symlink("../far/b.yaml", at("routes/b.yaml")).expect("a link");

    let mut watched = Watched::new(TOLD, &[&at("current"), &at("routes")]).await;
    assert_eq!(watched.routes(), ["far", "v1"]);
    watched.calm().await;
    write(&at("far/b.yaml"), &good("far2"));
    watched.until(&["far2", "v1"], 0).await;
    watched.calm().await;
    symlink("v2", at("next")).expect("a link");
    fs::rename(at("next"), at("current")).expect("swapped");
    watched.until(&["far2", "v2"], 0).await;
    // Where the link leads now is watched, too.
    watched.calm().await;
    write(&at("v2/a.yaml"), &good("v3"));
    watched.until(&["far2", "v3"], 0).await;
}

#[tokio::test]
async fn a_path_may_come_later_go_and_come_back() {
    let folder = temporary();
    let routes = folder.path().join("deep/er/routes");
    let mut watched = Watched::new(TOLD, &[&routes]).await;
    assert!(!watched.last.complete);
    assert_eq!(watched.faults(), 1);
    assert!(watched.failures() > 0, "what cannot be read is counted");
    watched.calm().await;
    fs::create_dir_all(&routes).expect("folders");
    watched.until(&[], 0).await;
    assert!(watched.last.complete);
    write(&routes.join("a.yaml"), &good("a"));
    watched.until(&["a"], 0).await;
    for round in ["one", "two"] {
        watched.calm().await;
        fs::remove_dir_all(folder.path().join("deep")).expect("removed");
        let before = if round == "one" { "a" } else { "one" };
        watched.until(&[before], 1).await;
        watched.calm().await;
        fs::create_dir_all(&routes).expect("folders");
        write(&routes.join("a.yaml"), &good(round));
        watched.until(&[round], 0).await;
    }
}

#[tokio::test]
async fn a_folder_may_be_replaced_by_another() {
    let folder = temporary();
    let at = |path: &str| folder.path().join(path);
    fs::create_dir_all(at("deep/routes")).expect("folders");
    write(&at("deep/routes/a.yaml"), &good("one"));
    let mut watched = Watched::new(TOLD, &[&at("deep/routes")]).await;
    fs::create_dir(at("new")).expect("a folder");
    write(&at("new/a.yaml"), &good("two"));
    watched.calm().await;
    fs::rename(at("deep/routes"), at("old")).expect("renamed");
    fs::rename(at("new"), at("deep/routes")).expect("renamed");
    watched.until(&["two"], 0).await;
    // It is the other folder that is watched now.
    watched.calm().await;
    write(&at("deep/routes/a.yaml"), &good("three"));
    watched.until(&["three"], 0).await;
    // The folder around it, too.
    watched.calm().await;
    fs::rename(at("deep"), at("away")).expect("renamed");
    watched.until(&["three"], 1).await;
}

#[tokio::test]
async fn without_the_kernels_help_files_are_polled() {
    let folder = temporary();
    let pace = Pace { notify: false, poll: Duration::from_millis(20), ..TOLD };
    let mut watched = Watched::new(pace, &[folder.path()]).await;
    for round in ["one", "two"] {
        write(&folder.path().join("a.yaml"), &good(round));
        watched.until(&[round], 0).await;
    }
    assert!(watched.failures() > 2, "each time that nothing could be watched is counted");
}

#[tokio::test]
async fn what_nothing_tells_of_is_read_when_somebody_asks() {
    let folder = temporary();
    write(&folder.path().join("a.yaml"), &good("a"));
    let mut watched = Watched::new(Pace { notify: false, ..TOLD }, &[folder.path()]).await;
    for name in ["b", "c"] {
        write(&folder.path().join("a.yaml"), &good(name));
        watched.reread.notify_one();
        watched.until(&[name], 0).await;
    }
}

#[tokio::test]
async fn a_large_change_does_not_hold_up_the_runtime() {
    let folder = temporary();
    let file = folder.path().join("a.yaml");
    let routes = |many: usize, name: &str| {
        let routes: Vec<String> = (0..many).map(|n| good(&format!("{name}{n}"))).collect();
        routes.join("---\n")
    };
    write(&file, &routes(800, "a"));
    let (sender, mut updates) = unbounded_channel();
    let publish = move |update| sender.send(update).unwrap_or_default();
    let paths = vec![folder.path().to_owned()];
    let (names, reread) = (DnsFollower::new(&[]), Arc::default());
    let mut watching = pin!(watch_at(TOLD, paths, installation(), names, reread, publish, || {}));
    for name in ["b", "c"] {
        let mut longest = Duration::ZERO;
        let start = Instant::now();
        let update = std::future::poll_fn(|context| {
            let start = cpu_time();
            let _ = watching.as_mut().poll(context);
            longest = longest.max(cpu_time() - start);
            updates.poll_recv(context)
        });
        let update = timeout(PATIENCE, update).await.expect("in time");
        let changes = update.expect("an update").delta.changes.routes;
        assert_eq!(changes.iter().filter(|(_, route)| route.is_some()).count(), 800);
        assert!(longest * 3 < start.elapsed(), "{longest:?} of {:?} in one go", start.elapsed());
        write(&file, &routes(800, name));
    }
}

#[tokio::test]
async fn a_polled_file_counts_when_it_no_longer_changes() {
    const CONTENTS: usize = 10;
    let folder = temporary();
    let file = folder.path().join("a.yaml");
    let pace = Pace {
        notify: false,
        poll: Duration::from_millis(20),
        quiet: Duration::from_millis(600),
        ..TOLD
    };
    let mut watched =
        Watched::new(Pace { longest: Duration::from_secs(3600), ..pace }, &[folder.path()]).await;
    // It changes more often than it may to count, as long as nothing holds this test up.
    let (mut began, mut ended) = (Vec::new(), Vec::new());
    for number in 0..CONTENTS {
        began.push(Instant::now());
        write(&file, &good(&format!("a{number}")));
        ended.push(Instant::now());
        if let Ok(update) = timeout(pace.quiet / 6, watched.updates.recv()).await {
            watched.take(update.expect("an update"));
            let taken = (0..number).find(|taken| watched.routes() == [format!("a{taken}")]);
            let stood = taken.map(|taken| ended[taken + 1] - began[taken]);
            assert!(stood.is_none_or(|stood| stood >= pace.quiet), "{taken:?} after {stood:?}");
        }
    }
    watched.until(&[&format!("a{}", CONTENTS - 1)], 0).await;
}
