//! Every link to a file or a heading of the repository leads there.

use std::path::{Path, PathBuf};

use super::markdown::{anchor, headings, prose};
use super::{pages, read, root};

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    let mut count = 0;
    for page in pages() {
        for (line, text) in prose(&read(&page)) {
            for target in targets(&text) {
                count += 1;
                if let Err(why) = follow(&page, target) {
                    faults.push(format!("{}:{line}: {target}: {why}", page.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 30, "only {count} links were found");
}

/// What the links of a line lead to.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
}

fn follow(page: &Path, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, heading) = match target.split_once('#') {
        Some((path, heading)) => (path, Some(heading)),
        None => (target, None),
    };
    let file = match path {
        "" => page.to_owned(),
        path => page.parent().unwrap_or(Path::new("")).join(path),
    };
    let file = normal(&file).ok_or("it is outside of the repository")?;
    if !root().join(&file).exists() {
        return Err("there is no such file".to_owned());
    }
    match heading {
        Some(wanted) if !headings(&read(&file)).iter().any(|h| anchor(h) == wanted) => {
            Err(format!("{} has no such heading", file.display()))
        }
        _ => Ok(()),
    }
}

/// Without `..`.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part.as_os_str().to_str()? {
            ".." => normal.pop().then_some(())?,
            part => normal.push(part),
        }
    }
    Some(normal)
}

#[test]
fn a_link_that_leads_nowhere_is_seen() {
    let page = Path::new("docs/routes.md");
    for (target, ok) in [
        ("https://example.com/x", true),
        ("../README.md", true),
        ("../README.md#routes", true),
        ("#status", true),
        ("../README.md#rutes", false),
        ("nowhere.md", false),
        ("../../README.md", false),
    ] {
        assert_eq!(follow(page, target).is_ok(), ok, "{target}");
    }
}
