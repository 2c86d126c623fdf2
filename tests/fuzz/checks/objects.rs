//! A list of objects → its items → the builder → the table, each item taken for each kind.

use sluice::control::api::READ_KINDS;
use sluice::control::kubernetes::Objects;
use sluice::control::objects::read_list;
use sluice::control::translate::Installation;
use sluice::routing::{ObjectKey, channel};

/// Whatever comes, nothing panics; in whatever pieces it comes, it is the same; and when all objects
/// are gone, nothing is left of them. Returns whether there was a route.
pub(crate) fn check(list: &[u8]) -> bool {
    let Ok(items) = read_list(list, list.len().max(1)) else { return false };
    assert_eq!(read_list(list, 7).as_ref(), Ok(&items));
    let installation = Installation {
        listeners: vec!["https".to_owned()],
        machine: vec![[192, 0, 2, 9].into()],
        own_services: vec![ObjectKey::new("ns", "own")],
        ..Installation::default()
    };
    let (mut writer, table) = channel();
    let mut objects = Objects::new(installation);
    for kind in READ_KINDS {
        items.iter().for_each(|item| objects.put(kind, item));
    }
    writer.update(objects.settle().changes);
    let served = table.table().len();
    let faulty: usize = objects.faults().iter().map(|(_, faults)| faults).sum();
    assert!(faulty <= items.len() * READ_KINDS.len());
    for kind in READ_KINDS {
        items.iter().for_each(|item| objects.remove(kind, &item.head().key()));
    }
    writer.update(objects.settle().changes);
    assert!(table.table().is_empty());
    assert!(objects.faults().iter().all(|(_, faults)| *faults == 0));
    served > 0
}
