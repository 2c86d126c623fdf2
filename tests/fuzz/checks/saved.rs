//! A saved table, as it is and with a first line that fits, → the table → saved again.

use std::fs;

use aws_lc_rs::digest::{SHA256, digest};
use sluice::control::saved::{SavedIdentity, load, path, save};
use sluice::routing::channel;

/// Whatever the file holds, nothing panics; what is taken is served, and saved again as it was.
/// Returns whether it is taken.
pub(crate) fn check(text: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let identity =
        SavedIdentity { class: "sluice".to_owned(), require_class: false, namespaces: Vec::new() };
    fs::write(path(folder), text).expect("room for it");
    // Nobody guesses a checksum.
    let layers = sluice::policy::Layers::default();
    let _ = load(folder, &identity, &layers);

    let checksum: String =
        digest(&SHA256, text).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let header = format!("sluice-table 4 {:020} {checksum}\n", text.len());
    fs::write(path(folder), [header.as_bytes(), text].concat()).expect("room for it");
    let Ok(saved) = load(folder, &identity, &layers) else { return false };
    let saved = saved.expect("there is a file");
    let (mut writer, table) = channel();
    writer.apply(saved.snapshot);
    let served = table.table().len();
    save(folder, &table.table(), &identity, saved.saved_at).expect("it can be saved");
    let again = load(folder, &identity, &layers).expect("it can be read").expect("it is there");
    assert_eq!(again.snapshot.routes.len(), served);
    true
}
