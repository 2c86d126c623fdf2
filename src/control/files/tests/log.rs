//! What is logged of files that change.

use std::fs;

use super::good;
use super::watched::{TOLD, Watched, temporary, write};
use crate::control::log_capture::LogCapture;

#[tokio::test]
async fn a_folder_of_nothing_but_folders_is_named_once() {
    let log = LogCapture::default();
    let _guard = log.listen();
    let folder = temporary();
    let deeper = folder.path().join("data");
    fs::create_dir(&deeper).expect("a folder");
    fs::create_dir(folder.path().join(".git")).expect("a folder");
    write(&deeper.join("a.yaml"), &good("a"));
    let mut watched = Watched::new(TOLD, &[folder.path()]).await;
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["level"], "WARN");
    assert_eq!(lines[0]["fields"]["folder"], folder.path().display().to_string());
    let message = "no manifests are in this folder; the folders in it are not read";
    assert_eq!(lines[0]["fields"]["message"], message);

    let file = folder.path().join("b.yaml");
    write(&file, &good("b"));
    watched.until(&["b"], 0).await;
    fs::remove_file(&file).expect("removed");
    watched.until(&[], 0).await;
    assert_eq!(log.take().len(), 0);

    // Neither a folder without anything nor one with manifests is worth a word.
    fs::remove_dir_all(&deeper).expect("removed");
    let _empty = Watched::new(TOLD, &[folder.path()]).await;
    write(&file, &good("b"));
    fs::create_dir(&deeper).expect("a folder");
    let _mixed = Watched::new(TOLD, &[folder.path()]).await;
    assert_eq!(log.take().len(), 0);
}

#[tokio::test]
async fn a_fault_is_said_once_per_change() {
    let log = LogCapture::default();
    let _guard = log.listen();

    let folder = temporary();
    let file = folder.path().join("a.yaml");
    write(&file, &good("a"));
    let mut watched = Watched::new(TOLD, &[folder.path()]).await;
    assert_eq!(log.take().len(), 0);

    let broken = good("a").replace("a.com", "a:1");
    write(&file, &broken);
    watched.until(&["a"], 1).await;
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["level"], "WARN");
    let fields = &lines[0]["fields"];
    assert_eq!(fields["file"], file.display().to_string());
    assert_eq!(fields["line"], 5);
    assert_eq!(fields["object"], "SniRoute data/a");
    assert_eq!(fields["field"], "spec.hostnames[0]");

    // Another file changes, and this one is written with the same content.
    write(&file, &broken);
    write(&folder.path().join("b.yaml"), &good("b"));
    watched.until(&["a", "b"], 1).await;
    assert_eq!(log.take().len(), 0);
    // The same fault in other content is a change.
    write(&file, &format!("{broken}\n"));
    watched.next().await;
    assert_eq!(log.take().len(), 1);
    write(&file, &good("a"));
    watched.until(&["a", "b"], 0).await;
    assert_eq!(log.take()[0]["level"], "INFO");
}
