//! Secrets in files, and files that they name.

use std::os::unix::fs::symlink;

use rcgen::{CertificateParams, KeyPair};

use super::watched::{TOLD, Watched, temporary, write};
use super::*;
use crate::control::api::SecretData;
use crate::termination::{Identity, NotReady};

/// A certificate for `a.com`, its key, and its serial number.
fn pair() -> [String; 3] {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["a.com".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let key = key.serialize_pem();
    let read = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("a pair");
    let serial = read.facts().serial.to_string();
    [certificate, key, serial]
}

fn secret(fields: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: a, namespace: data}}\n{fields}\n")
}

fn terminating() -> String {
    let tls = "tls: {mode: Terminate, certificates: [{secret: a}]}";
    route("a", &format!("hostnames: [a.com]\nbackends: [{{address: '192.0.2.1:1'}}]\n{tls}"))
}

#[test]
fn entries_are_in_data_in_string_data_or_in_files() {
    let files = folder(&[(
        "a.yaml",
        &secret(
            "type: kubernetes.io/tls\ndata: {tls.crt: YQ==, other: '%'}\nstringData: {tls.key: b}\ndataFiles: {ca.crt: pki/ca.pem}",
        ),
    )]);
    fs::create_dir(files.path().join("pki")).expect("a folder");
    fs::write(files.path().join("pki/ca.pem"), "c").expect("a file");
    let loaded = load_folder(files.path());
    assert_eq!(shown(files.path(), &loaded.faults), [""; 0]);
    let data = &loaded.resources.secrets[0].data;
    assert_eq!(SecretData::KEYS.map(|key| data.get(key)), [&b"a"[..], b"b", b"c"].map(Some));
}

#[test]
fn faults_of_secrets_quote_nothing_of_them() {
    for (fields, part) in [
        ("data: PRIVATE", "data: is not what belongs there"),
        ("data: {tls.key: PRIVATE KEY}", "data"),
        ("data: {tls.key: 5}", "data"),
        ("stringData: [PRIVATE]", "stringData: is not what belongs there"),
        ("stringData: {tls.key: {PRIVATE: x}}", "stringData"),
        ("dataFiles: {tls.key: [PRIVATE]}", "dataFiles"),
        ("dataFiles: {tls.key: no.pem}", "dataFiles.tls.key: no.pem: No such file"),
        ("dataFiles: {tls.crt: a.yaml, key: b}", "dataFiles.key: is not used; there are tls.crt"),
        (
            "stringData: {tls.crt: PRIVATE}\ndataFiles: {tls.crt: a.yaml}",
            "dataFiles.tls.crt: is in data or stringData, too",
        ),
        ("stringData: {tls.key: 'PRIVATE", "is no YAML; the document may hold a Secret"),
        ("string_data: {tls.key: PRIVATE}", "string_data: unknown field"),
    ] {
        let faults = faults_of(&secret(fields));
        assert!(!faults.is_empty(), "{fields}");
        for fault in &faults {
            assert!(fault.contains(part) && !fault.contains("PRIV"), "{fields}: {fault}");
        }
    }
}

/// What a fault, a log line or `Debug` may show of a folder with a key.
#[test]
fn nothing_shows_a_key() {
    let [certificate, key, _] = pair();
    let indented = |text: &str| text.replace('\n', "\n    ");
    let text = secret(&format!(
        "stringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}",
        indented(&certificate),
        indented(&key)
    ));
    let files = folder(&[("a.yaml", &text), ("b.yaml", &terminating())]);
    let loaded = load_folder(files.path());
    let shown = format!("{loaded:?}");
    let secret_line = key.lines().nth(1).expect("a line");
    assert!(loaded.resources.secrets.len() == 1 && !shown.contains(secret_line), "{shown}");
    assert_eq!(check(&[files.path().to_owned()], &installation()), []);
}

#[test]
fn checks_tell_of_certificates_that_cannot_be_used() {
    let [certificate, _, _] = pair();
    let [_, key, _] = pair();
    let line = |file: &str| secret(&format!("dataFiles: {{tls.crt: a.crt, tls.key: {file}}}"));
    let files = folder(&[
        ("a.yaml", &terminating()),
        ("b.yaml", &line("a.key")),
        ("a.crt", &certificate),
        ("a.key", &key),
    ]);
    let told =
        |files: &TempDir| shown(files.path(), &check(&[files.path().to_owned()], &installation()));
    let place = "a.yaml:7: SniRoute data/a: spec.tls.certificates[0].secret: Secret data/a";
    assert_eq!(
        told(&files),
        [format!(
            "{place} cannot be used: tls.key is not the private key of the first certificate in tls.crt"
        )]
    );
    fs::remove_file(files.path().join("b.yaml")).expect("removed");
    assert_eq!(told(&files), [format!("{place} does not exist")]);
}

/// The serial number of the certificate that the route `a` serves, by the updates so far.
fn served(watched: &Watched) -> Option<Result<String, NotReady>> {
    let routes = watched.last.delta.changes.routes.iter();
    let spec = routes.filter(|(key, _)| key.name() == "a").find_map(|(_, spec)| spec.as_ref())?;
    let termination = spec.termination.as_ref()?;
    let serial = || termination.certificates().map(|(_, facts)| facts.serial.to_string()).next();
    Some(termination.server().map(|_| serial().unwrap_or_default()))
}

async fn until_serving(watched: &mut Watched, serial: &str) {
    while served(watched) != Some(Ok(serial.to_owned())) {
        watched.next().await;
    }
}

#[tokio::test]
async fn files_that_secrets_name_are_followed() {
    let (folder, pki) = (temporary(), temporary());
    let [first, second] = [(); 2].map(|()| pair());
    let place = |name: &str| pki.path().join(name);
    write(&place("tls.crt"), &first[0]);
    write(&place("tls.key"), &first[1]);
    let at = |name: &str| place(name).display().to_string();
    let files = format!("dataFiles: {{tls.crt: {}, tls.key: {}}}", at("tls.crt"), at("tls.key"));
    write(&folder.path().join("a.yaml"), &[terminating(), secret(&files)].join("---\n"));
    let mut watched = Watched::new(TOLD, &[folder.path()]).await;
    assert_eq!(served(&watched), Some(Ok(first[2].clone())));

    // One after the other: the pair stays until both fit.
    watched.calm().await;
    write(&place("tls.crt"), &second[0]);
    watched.next().await;
    assert_eq!(served(&watched), Some(Ok(first[2].clone())));
    watched.calm().await;
    write(&place("tls.key"), &second[1]);
    until_serving(&mut watched, &second[2]).await;
    // A file that is gone leaves everything as it was, and is a fault.
    watched.calm().await;
    std::fs::remove_file(place("tls.key")).expect("removed");
    watched.until(&["a"], 1).await;
    write(&place("tls.key"), &first[1]);
    write(&place("tls.crt"), &first[0]);
    until_serving(&mut watched, &first[2]).await;
    assert_eq!(watched.faults(), 0);
}

/// As kubelet does with the volume of a Secret.
#[tokio::test]
async fn files_of_a_volume_are_swapped_together() {
    let (folder, volume) = (temporary(), temporary());
    let pairs = [(); 4].map(|()| pair());
    let project = |version: usize| {
        let (data, next) = (format!("..{version}"), volume.path().join("..next"));
        std::fs::create_dir(volume.path().join(&data)).expect("a folder");
        for (name, text) in [("tls.crt", &pairs[version][0]), ("tls.key", &pairs[version][1])] {
            write(&volume.path().join(&data).join(name), text);
        }
        symlink(&data, &next).expect("a link");
        std::fs::rename(&next, volume.path().join("..data")).expect("swapped");
    };
    project(0);
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), volume.path().join(name)).expect("a link");
    }
    let at = |name: &str| volume.path().join(name).display().to_string();
    let files = format!("dataFiles: {{tls.crt: {}, tls.key: {}}}", at("tls.crt"), at("tls.key"));
    write(&folder.path().join("a.yaml"), &[terminating(), secret(&files)].join("---\n"));
    let mut watched = Watched::new(TOLD, &[folder.path()]).await;
    for (version, [_, _, serial]) in pairs.iter().enumerate().skip(1) {
        watched.calm().await;
        project(version);
        watched.next().await;
        assert_eq!(served(&watched), Some(Ok(serial.clone())), "at once");
    }
}

/// An installation that serves no TLS itself promises that.
#[tokio::test]
async fn without_termination_no_key_is_read_and_secrets_are_checked_for_their_form() {
    let (folder, pki) = (temporary(), temporary());
    // Nobody can read it, and nobody tries.
    let key = pki.path().join("no.key");
    let files = format!("stringData: {{tls.crt: a}}\ndataFiles: {{tls.key: {}}}", key.display());
    write(&folder.path().join("a.yaml"), &[terminating(), secret(&files)].join("---\n"));
    let passing = Installation { termination: None, ..installation() };
    let mut watched = Watched::of(passing, TOLD, &[folder.path()]).await;
    assert_eq!((served(&watched), watched.faults()), (Some(Err(NotReady::Disabled)), 0));
    watched.calm().await;
    write(
        &folder.path().join("a.yaml"),
        &[terminating(), secret("dataFiles: {a: b}")].join("---\n"),
    );
    watched.until(&["a"], 1).await;
}

#[test]
fn a_secret_whose_form_alone_is_read_comes_without_what_it_holds() {
    let text = secret("stringData: {tls.crt: a, tls.key: b}\ndataFiles: {ca.crt: no.pem}");
    let objects = parse::parse(Path::new("a.yaml"), text.as_bytes(), None).expect("a Secret");
    let parse::ManifestObject::Secret(secret) = &objects[0].object else { panic!("{objects:?}") };
    assert_eq!(secret.data, SecretData::default());
}
