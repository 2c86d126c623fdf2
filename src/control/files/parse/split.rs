//! From a file to its documents.

/// The documents of a file that hold anything, each with the line, from 1, on which it begins.
///
/// A line that begins with `---` and goes on with white space, or not at all, begins a document
/// wherever it stands (YAML 1.2 §9.1.2); no scalar can hold one. A document that cannot be parsed
/// so leaves the others alone.
pub(super) fn documents(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut starts = vec![(1, 0)];
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if offset > 0 && is_marker(line) {
            starts.push((index + 1, offset));
        }
        offset += line.len();
    }
    let ends: Vec<usize> =
        starts.iter().skip(1).map(|&(_, start)| start).chain([text.len()]).collect();
    starts
        .into_iter()
        .zip(ends)
        .filter_map(move |((line, start), end)| Some((line, text.get(start..end)?)))
        .filter(|(_, document)| holds_anything(document))
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether there is more than comments and the marks around documents.
fn holds_anything(document: &str) -> bool {
    document.lines().any(|line| {
        let line = match is_marker(line) {
            true => line.get(3..).unwrap_or_default().trim(),
            false => line.trim(),
        };
        !line.is_empty() && !line.starts_with('#') && line != "..."
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(usize, &str)> {
        documents(text).collect()
    }

    #[test]
    fn documents_begin_where_their_marker_is() {
        assert_eq!(split("a: 1\n---\nb: 2\n"), [(1, "a: 1\n"), (2, "---\nb: 2\n")]);
        assert_eq!(
            split("---\na: 1\n--- # two\r\nb: 2"),
            [(1, "---\na: 1\n"), (3, "--- # two\r\nb: 2")]
        );
        assert_eq!(split("--- {a: 1}\n---\t{b: 2}"), [(1, "--- {a: 1}\n"), (2, "---\t{b: 2}")]);
    }

    #[test]
    fn what_only_looks_like_a_marker_is_none() {
        for text in ["a: |\n  ---\n  b\n", "---a: 1\n", "a: 1\n ---\n", "a: '--- '\n----\n"] {
            assert_eq!(split(text), [(1, text)], "{text:?}");
        }
    }

    #[test]
    fn documents_without_content_are_none() {
        for text in ["", "\n\n", "---\n", "# nothing\n---\n\n--- # nothing\n...\n", "--- \n...\n"] {
            assert_eq!(split(text), [], "{text:?}");
        }
        assert_eq!(split("# head\n---\na: 1\n---\n# tail\n"), [(2, "---\na: 1\n")]);
    }
}
