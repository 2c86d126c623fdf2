//! Where faults are said to be, and how many.

use super::*;

#[test]
fn a_document_of_faults_is_told_in_few_lines() {
    let unknown: String = (0..1500).map(|n| format!("nope{n}: 1\n")).collect();
    let faults = faults_of(&format!("---\n{}---\n{}{unknown}", good("a"), good("b")));
    assert_eq!(faults.len(), 21);
    for (index, fault) in faults.iter().take(20).enumerate() {
        let start = format!("a.yaml:{}: SniRoute data/b: nope{index}: unknown field", 15 + index);
        assert!(fault.starts_with(&start), "{fault}");
    }
    assert_eq!(faults[20], "a.yaml:8: and 1480 more in the document that begins here");
    // The cap is each document's own.
    let three: String = unknown.lines().take(3).map(|line| format!("{line}\n")).collect();
    let text = format!("{}{three}---\n{}{three}", good("a"), good("b"));
    assert_eq!(faults_of(&text).len(), 6);
}

#[test]
fn all_findings_of_a_list_are_placed_in_one_go() {
    let routes = 150;
    let mut list = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
    for n in 0..routes {
        let spec = format!(
            "hostnames: [r{n}.com]\nlisteners: [nope]\nbackends: [{{address: '192.0.2.1:1'}}]"
        );
        list += &format!("- {}", route(&format!("r{n}"), &spec).replace('\n', "\n  "));
        list.truncate(list.trim_end_matches(' ').len());
    }
    let folder = folder(&[("a.yaml", &list)]);
    let paths = [folder.path().to_owned()];
    let start = cpu_time();
    assert_eq!(load(&paths).resources.routes.len(), routes);
    let once = cpu_time() - start;
    let start = cpu_time();
    let faults = check(&paths, &installation());
    let took = cpu_time() - start;
    // Far less than to parse the list again for each of them.
    assert!(took < once * 10, "{took:?} against {once:?}");
    let lines: Vec<_> = faults.iter().filter_map(|fault| fault.line).collect();
    assert_eq!(lines, (0..routes).map(|n| 9 + 7 * n).collect::<Vec<_>>());
}

#[test]
fn a_fault_is_one_line_whatever_it_quotes() {
    let evil = r#""x\n\e[31mb.yaml:1: \u2028\r""#;
    for content in [
        good("a").replace("name: a,", &format!("name: {evil},")),
        good("a").replace("namespace: data", &format!("namespace: {evil}")),
        format!("{}{evil}: 1\n", good("a")),
        format!("apiVersion: v1\nkind: {evil}\n"),
        format!("apiVersion: v1\nkind: List\n{evil}: 1\n"),
        format!("{evil}: 1\n{evil}: 2\n"),
        good("a")
            .replace("hostnames:", &format!("loadBalancing: {{policy: {evil}}}\n  hostnames:")),
    ] {
        let faults = faults_of(&content);
        assert!(!faults.is_empty(), "{content}");
        for fault in faults {
            assert!(!fault.contains(|c: char| c.is_control() || c == '\u{2028}'), "{fault:?}");
        }
    }
    let fault = ManifestFault {
        file: "a\n.yaml".into(),
        line: None,
        object: Some("é\u{1b}".into()),
        field: Some("b\t".into()),
        message: "two\nlines".into(),
    };
    assert_eq!(fault.to_string(), r"a\n.yaml: é\u{1b}: b\t: two lines");
}
