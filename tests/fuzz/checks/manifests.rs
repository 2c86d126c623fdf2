//! The text of a file of manifests → its objects or its faults → the table.

use std::path::Path;

use sluice::control::files::read_text;
use sluice::control::translate::{Installation, build};
use sluice::reach::Reach;
use sluice::routing::channel;

/// Whatever a file holds, nothing panics; it is taken whole or not at all; and each fault is a line.
/// Returns whether it is taken.
pub(crate) fn check(text: &[u8]) -> bool {
    let loaded = read_text(Path::new("fuzzed.yaml"), text);
    let resources = &loaded.resources;
    if loaded.faults.is_empty() {
        let installation = Installation {
            reach: Reach { local_addresses: true, ..Reach::default() },
            ..Installation::default()
        };
        let (mut writer, _table) = channel();
        writer.apply(build(resources, &installation).snapshot);
    } else {
        assert!(resources.routes.is_empty() && resources.services.is_empty());
        for fault in &loaded.faults {
            assert!(!fault.to_string().contains(['\n', '\r']), "{fault}");
        }
    }
    loaded.faults.is_empty()
}
