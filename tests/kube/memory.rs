//! What large objects cost: nothing of them is used, so nothing of them is kept.

use std::fs;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;

use crate::controlled::Sluice;
use crate::objects::{Objects, account, route, servers, service, slice};
use crate::support::{ApiServer, slow, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![slow!(large_objects_take_little_memory)]
}

/// As many as a page may have.
const SMALL: usize = 500;
const LARGE: usize = 250;
/// Of each object in bytes. An API server takes no more than 1.5 MiB.
const SIZE: usize = 1400 << 10;
/// The most that sluice may have held until it is ready, in MiB.
const MOST: u64 = 75;
/// An unoptimised sluice takes its time for 350 MiB of JSON.
const READING: Duration = Duration::from_secs(300);

fn large_objects_take_little_memory() {
    let api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("memory");
    let objects = Objects::of(api.admin(), namespace);
    let servers = servers(["198.18.8.1", "198.18.8.2"]);
    // Those that are small come first, so that pages have grown by then.
    objects.put_all((0..SMALL).map(|number| service(&format!("a-small-{number}"))));
    let bulk = json!({ "metadata": { "managedFields": [{
        "manager": "bulk", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": { format!("f:{}", "x".repeat(SIZE)): {} },
    }] } });
    let large: Vec<_> = (0..LARGE).map(|number| service(&format!("large-{number}"))).collect();
    objects.put_all(large.iter().cloned());
    objects.merge_all(&large, &bulk, |text| assert!(text.len() > SIZE, "it has the bulk"));
    objects.put(&slice("large-7", &servers[..1]));
    objects.put(&route("app", "memory", "app.test", "large-7"));

    let sluice = Sluice::start(&account(&api, namespace), "memory", &[]);
    within(READING, "sluice is ready", || (sluice.get("/readyz").0 == 200).then_some(()));
    let most = peak(&sluice);
    eprintln!("{LARGE} objects of {SIZE} bytes: at most {most} MiB");
    let route = sluice.routes().remove(0);
    assert_eq!(route["backends"][0]["endpoints"][0]["address"], servers[0].to_string());
    assert!(most <= MOST, "{most} MiB");
}

/// The most that a process has had in memory, in MiB.
pub(crate) fn peak(sluice: &Sluice) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sluice.pid().as_raw_nonzero()));
    let status = status.expect("the state of a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes / 1024
}
