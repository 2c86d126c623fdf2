//! Files that are read while somebody writes them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use super::good;
use super::watched::{TOLD, Watched, temporary, write};
use crate::control::files::pace::Pace;

#[tokio::test]
async fn a_file_counts_when_it_is_whole() {
    let folder = temporary();
    let file = folder.path().join("a.yaml");
    write(&file, &format!("{}---\n{}", good("a"), good("b")));
    let pace = Pace { longest: Duration::from_secs(3600), ..TOLD };
    let mut watched = Watched::new(pace, &[folder.path()]).await;
    assert_eq!(watched.routes(), ["a", "b"]);
    // Truncated, then half of it, which on its own is a good file.
    let mut writer = fs::File::create(&file).expect("a file");
    writer.write_all(good("c").as_bytes()).expect("written");
    watched.stays(Duration::from_millis(400)).await;
    write!(writer, "---\n{}", good("d")).expect("written");
    drop(writer);
    watched.until(&["c", "d"], 0).await;
}

#[tokio::test]
async fn a_file_that_is_written_slowly_keeps_its_routes_and_holds_nobody_up() {
    let folder = temporary();
    let file = |name: &str| folder.path().join(name);
    write(&file("a.yaml"), &good("a"));
    // Reached by a link: the kernel tells of files by their real paths.
    let link = file("link");
    symlink(".", &link).expect("a link");
    let mut watched = Watched::new(TOLD, &[&link]).await;
    watched.calm().await;
    let mut slow = fs::File::create(file("a.yaml")).expect("truncated");
    let mut new = fs::File::create(file("new.yaml")).expect("a file");
    new.write_all(good("half").as_bytes()).expect("written");
    // Longer than anything is waited for.
    watched.stays(Duration::from_millis(1200)).await;
    for round in ["b", "c"] {
        // Whoever waited for the slow ones would wait for an hour.
        write(&file("b.yaml"), &good(round));
        watched.until(&["a", round], 0).await;
    }
    slow.write_all(good("one").as_bytes()).expect("written");
    drop(slow);
    watched.until(&["c", "one"], 0).await;
    drop(new);
    watched.until(&["c", "half", "one"], 0).await;
}

#[tokio::test]
async fn a_route_that_moves_to_a_file_that_is_still_written_is_served_all_the_time() {
    let folder = temporary();
    let file = |name: &str| folder.path().join(name);
    write(&file("a.yaml"), &format!("{}---\n{}", good("a"), good("moves")));
    let pace = Pace { longest: Duration::from_secs(3600), ..TOLD };
    let mut watched = Watched::new(pace, &[folder.path()]).await;
    watched.calm().await;
    let mut open = fs::File::create(file("b.yaml")).expect("a file");
    open.write_all(good("moves").as_bytes()).expect("written");
    write(&file("a.yaml"), &good("a"));
    watched.stays(Duration::from_millis(400)).await;
    write!(open, "---\n{}", good("new")).expect("written");
    drop(open);
    // The first update has both halves of the change.
    watched.next().await;
    assert_eq!(watched.routes(), ["a", "moves", "new"]);
}

/// As a disk that is busy makes it look for as long: the file is cut, and nobody says so.
#[tokio::test]
async fn a_file_that_was_just_cut_keeps_its_routes_and_holds_nobody_up() {
    let folder = temporary();
    let file = |name: &str| folder.path().join(name);
    write(&file("a.yaml"), &good("a"));
    let pace = Pace { notify: false, poll: Duration::from_millis(20), ..TOLD };
    let mut watched = Watched::new(pace, &[folder.path()]).await;
    let mut writer = fs::File::create(file("a.yaml")).expect("truncated");
    write(&file("b.yaml"), &good("b"));
    watched.until(&["a", "b"], 0).await;
    writer.write_all(good("c").as_bytes()).expect("written");
    watched.until(&["b", "c"], 0).await;
}

#[tokio::test]
async fn a_file_that_stays_empty_counts_as_empty() {
    let folder = temporary();
    let file = folder.path().join("a.yaml");
    write(&file, &good("a"));
    let mut watched = Watched::new(TOLD, &[folder.path()]).await;
    watched.calm().await;
    write(&file, "");
    watched.until(&[], 0).await;
}

#[tokio::test]
async fn a_writer_that_never_closes_is_not_waited_for() {
    let folder = temporary();
    let file = folder.path().join("a.yaml");
    let pace = Pace { silence: Duration::from_millis(1500), ..TOLD };
    let mut watched = Watched::new(pace, &[folder.path()]).await;
    watched.calm().await;
    let begun = Instant::now();
    let mut writer = fs::File::create(&file).expect("a file");
    writer.write_all(good("a").as_bytes()).expect("written");
    watched.until(&["a"], 0).await;
    assert!(begun.elapsed() >= pace.silence, "{:?}", begun.elapsed());
    drop(writer);
}
