//! Serving TLS, with Secrets of the cluster.

use libtest_mimic::Trial;

use crate::support::{
    Backend, Held, Namespace, Resumer, Served, Sluice, Target, authority, eventually, kubectl,
    kubectl_fails, secret, shared, test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test!(every_pod_serves_a_new_certificate_and_resumes_the_sessions_of_the_others),
        test!(with_roles_alone_it_reads_the_secrets_of_its_namespaces_and_no_others),
    ]
}

const NAME: &str = "own.example.com";

fn every_pod_serves_a_new_certificate_and_resumes_the_sessions_of_the_others() {
    let _cluster = shared();
    let namespace = Namespace::new("terminate");
    let sluice = Sluice::install(&namespace, "terminate: true");
    Backend::new("one").deploy(&namespace);
    let [first, second] = [(); 2].map(|()| authority().issue(NAME));
    namespace.apply(&secret("own", &first));
    sluice.terminate("own", NAME, "one", "own");
    sluice.route("one", "one.example.com", "one");

    let pods = sluice.targets(NAME);
    let [a, b] = pods[..] else { panic!("two replicas by default: {pods:?}") };
    for pod in [a, b, sluice.target(NAME)] {
        until_served(pod, |served| served.certificate == first.chain()[0]);
    }
    // Side by side, on one listener.
    sluice.target("one.example.com").until_says("one");
    for condition in ["Accepted", "ResolvedRefs", "Programmed"] {
        let condition = format!("--for=condition={condition}");
        namespace.kubectl(&["wait", &condition, "--timeout=300s", "sniroute/own"]);
    }

    for (of, at) in [(a, b), (b, a)] {
        eventually("a pod resumes a session of the other", || {
            let client = Resumer::new();
            assert!(!client.get(of).unwrap().resumed, "the client's first session");
            let served = client.get(at).unwrap();
            assert_eq!(served.said, "one");
            served.resumed.then_some(())
        });
    }

    let mut held = Held::open(a).unwrap();
    namespace.apply(&secret("own", &second));
    for pod in [a, b] {
        until_served(pod, |served| served.certificate == second.chain()[0]);
    }
    namespace.kubectl(&["delete", "secret", "own"]);
    namespace.kubectl(&[
        "wait",
        "--for=condition=ResolvedRefs=False",
        "--timeout=300s",
        "sniroute/own",
    ]);
    for pod in [a, b] {
        let served = Resumer::new().get(pod).unwrap();
        assert_eq!(served.certificate, second.chain()[0], "the last good one");
    }
    assert_eq!(held.get().unwrap(), "one", "no connection notices a change of certificates");
}

/// Waits until a client without sessions is served by the backend, and so.
fn until_served(target: Target, wanted: impl Fn(&Served) -> bool) {
    let mut last = None;
    eventually(&format!("{target:?} is served as wanted"), || {
        let served = Resumer::new().get(target);
        if served.as_ref().is_ok_and(|served| served.said == "one" && wanted(served)) {
            return Some(());
        }
        let served = format!("{:?}", served.map(|served| served.said));
        if last.as_ref() != Some(&served) {
            eprintln!("{target:?}: {served}");
            last = Some(served);
        }
        None
    });
}

fn with_roles_alone_it_reads_the_secrets_of_its_namespaces_and_no_others() {
    let _cluster = shared();
    let own = Namespace::new("terminate-here");
    let other = Namespace::new("terminate-not");
    let values = "{ namespaces: [terminate-here], terminate: true, replicas: 1 }";
    let sluice = Sluice::install(&own, values);
    Backend::new("one").deploy(&own);
    let identity = authority().issue(NAME);
    for namespace in [&own, &other] {
        namespace.apply(&secret("own", &identity));
    }
    sluice.terminate("own", NAME, "one", "own");
    until_served(sluice.target(NAME), |served| served.certificate == identity.chain()[0]);

    let user = "--as=system:serviceaccount:terminate-here:sluice";
    for verb in ["get", "watch"] {
        kubectl(&["auth", "can-i", verb, "secrets", "--namespace=terminate-here", user]);
        kubectl_fails(&["auth", "can-i", verb, "secrets", "--namespace=terminate-not", user]);
    }
    for namespace in [&own, &other] {
        let changes = ["auth", "can-i", "delete", "secrets/own", "--namespace", namespace.name()];
        kubectl_fails(&[&changes[..], &[user]].concat());
    }
}
