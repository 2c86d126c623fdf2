//! As much of Markdown as the pages use.

/// A fenced block of code.
#[derive(Debug)]
pub(crate) struct Block {
    /// Of its first line, from 1.
    pub(crate) line: usize,
    /// What its fence says that it is, such as `yaml`.
    pub(crate) language: String,
    pub(crate) text: String,
}

/// The fenced blocks of a page.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in page.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let language = language.trim().to_owned();
                open = Some(Block { line: index + 2, language, text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    blocks
}

/// The lines outside of blocks, with their numbers from 1 and without what is `code`.
pub(crate) fn prose(page: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut lines = Vec::new();
    for (index, line) in page.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            let parts = line.split('`').enumerate();
            let kept = parts.filter(|(place, _)| place % 2 == 0).map(|(_, part)| part);
            lines.push((index + 1, kept.collect()));
        }
    }
    lines
}

/// The headings, as they are written after their `#`s.
pub(crate) fn headings(page: &str) -> Vec<String> {
    let mut inside = false;
    let mut headings = Vec::new();
    for line in page.lines() {
        inside ^= line.trim_start().starts_with("```");
        let text = line.trim_start_matches('#');
        if !inside && text.len() < line.len() && text.starts_with(' ') {
            headings.push(text.trim().to_owned());
        }
    }
    headings
}

/// What a link to a heading ends with, as GitHub has it.
pub(crate) fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn blocks_prose_and_headings_are_told_apart() {
    let page = "# A `b` c!\ntext [x](y) `[no](z)`\n```yaml\n# not one\n[no](z)\n```\n## D-e_f\n";
    let blocks = blocks(page);
    assert_eq!((blocks.len(), blocks[0].line), (1, 4));
    assert_eq!((&*blocks[0].language, &*blocks[0].text), ("yaml", "# not one\n[no](z)\n"));
    assert_eq!(prose(page)[1], (2, "text [x](y) ".to_owned()));
    assert_eq!(headings(page), ["A `b` c!", "D-e_f"]);
    assert_eq!(anchor("A `b` c!"), "a-b-c");
    assert_eq!(anchor("`spec.backends[].weight`"), "specbackendsweight");
}
