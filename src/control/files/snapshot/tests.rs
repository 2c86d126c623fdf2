use std::time::Instant;

use super::*;

fn read(path: &Path, known: &DirSnapshot) -> (DirSnapshot, FileBytes) {
    let snapshot = DirSnapshot::of(&[path.to_owned()], known);
    let content = snapshot.files(path).unwrap().get(path).unwrap().content.clone().unwrap();
    (snapshot, content)
}

#[test]
fn what_rests_is_read_once() {
    // Older than any build of this.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let (snapshot, once) = read(&file, &DirSnapshot::default());
    let (_, again) = read(&file, &snapshot);
    assert!(Arc::ptr_eq(&once, &again));
}

#[test]
fn a_stamp_is_of_one_file_as_it_is_and_of_none_that_changed_just_now() {
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        fs::metadata(file).unwrap()
    };
    let file = written("a.yaml", "one");
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(file.ctime() as u64);
    // Where a time stands for two seconds, more may follow in them.
    assert_eq!(Stamp::of(&file, changed + Duration::from_secs(2)), None);
    let later = changed + Duration::from_secs(3600);
    let stamp = |file: &Metadata| Stamp::of(file, later).unwrap();
    let one = stamp(&file);

    let deadline = Instant::now() + Duration::from_secs(60);
    while stamp(&written("a.yaml", "two")) == one {
        assert!(Instant::now() < deadline, "another content has the same stamp");
    }
    // As if they had been written in the same moment.
    let other = stamp(&written("b.yaml", "one"));
    assert_ne!(Stamp { changed: one.changed, ..other }, one, "another file");
    let longer = stamp(&written("b.yaml", "longer"));
    assert_ne!(Stamp { changed: other.changed, ..longer }, other, "another size");
    let elsewhere = stamp(&fs::metadata("/proc/version").unwrap());
    assert_ne!(Stamp { device: elsewhere.device, ..one }, one, "another file system");
}

#[test]
fn no_change_is_missed_however_soon_it_follows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let mut known = DirSnapshot::default();
    for round in 100..300 {
        let text = format!("# {round}");
        fs::write(&file, &text).unwrap();
        let (snapshot, content) = read(&file, &known);
        assert_eq!(content.as_slice(), text.as_bytes());
        known = snapshot;
    }
}
