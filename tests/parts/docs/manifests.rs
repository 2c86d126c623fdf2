//! Every route in the documentation is one that sluice takes.

use std::fs;

use sluice::control::files;
use sluice::control::translate::{Installation, OwnPlace};
use sluice::policy::Layers;
use sluice::reach::Reach;
use sluice::routing::HostnamesBelow;
use sluice::termination::TicketKeys;

use super::markdown::blocks;
use super::{pages, read};

#[test]
fn every_route_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let mut faults = Vec::new();
    let mut count = 0;
    for page in pages() {
        for block in blocks(&read(&page)) {
            if block.language != "yaml" || !block.text.contains("kind: SniRoute") {
                continue;
            }
            count += 1;
            let path = folder.path().join(format!("{count}.yaml"));
            fs::write(&path, &block.text).unwrap();
            for fault in files::check(&[path], &installation()) {
                // Services are the reader's.
                let elsewhere = fault.message.starts_with("there is no Service")
                    || fault.message.ends_with(" does not exist");
                if !elsewhere {
                    faults.push(format!("{}:{}: {fault}", page.display(), block.line));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 15, "only {count} blocks were found");
}

/// One that has every listener.
fn installation() -> Installation {
    Installation {
        class: "sluice".to_owned(),
        require_class: false,
        layers: Layers::default(),
        listeners: Vec::new(),
        reach: Reach { local_addresses: true, ..Reach::default() },
        machine: vec![],
        place: OwnPlace::default(),
        own_services: vec![],
        tcp_listeners: vec![],
        hostnames_below: HostnamesBelow::Anyone,
        termination: Some(TicketKeys::default()),
    }
}
