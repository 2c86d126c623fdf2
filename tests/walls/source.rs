//! Reads a source file as tokens and tells which paths it names.

/// The path of a file's module: `routing/table.rs` is `[routing, table]`; the roots have none.
pub(crate) fn module_of(file: &str) -> Vec<String> {
    let parts = file.trim_end_matches(".rs").split('/');
    let mut module: Vec<String> = parts.map(str::to_owned).collect();
    let last = module.last().map(String::as_str);
    if last == Some("mod") || module.len() == 1 && matches!(last, Some("lib" | "main")) {
        module.pop();
    }
    module
}

/// A path that a source names.
pub(crate) struct Name {
    pub(crate) target: Target,
    pub(crate) line: usize,
    /// Whether a `use` or `extern crate` names it.
    pub(crate) import: bool,
    /// Whether it stands in a module called `tests`.
    pub(crate) in_tests: bool,
}

pub(crate) enum Target {
    /// From the root of this crate.
    Ours(Vec<String>),
    /// Of another crate, or relative to a name that is in scope.
    Theirs(Vec<String>),
}

/// All paths of two parts or more, and all imports. `file` is the module that the source is.
pub(crate) fn names(tokens: &[Token], file: &[String]) -> Vec<Name> {
    let mut names = Vec::new();
    // One entry for each open brace: the module that it opened, if it did.
    let mut braces: Vec<Option<String>> = Vec::new();
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
    let mut at = 0;
    while at < tokens.len() {
        let start = at;
        let mut paths = Vec::new();
        let mut import = true;
        match text(at) {
            "{" => {
                let opens = start >= 2 && text(start - 2) == "mod";
                braces.push(opens.then(|| text(start - 1).to_owned()));
                at += 1;
            }
            "}" => {
                braces.pop();
                at += 1;
            }
            // `use<'a>` is a bound, not an import.
            "use" if text(at + 1) != "<" => at = use_tree(tokens, at + 1, &[], &mut paths),
            "extern" if text(at + 1) == "crate" => {
                paths.push(vec![text(at + 2).to_owned()]);
                at += 3;
            }
            _ if tokens[at].is_word() => {
                import = false;
                let mut path = vec![text(at).to_owned()];
                while text(at + 1) == "::" && tokens.get(at + 2).is_some_and(Token::is_word) {
                    path.push(text(at + 2).to_owned());
                    at += 2;
                }
                at += 1;
                // `Vec::<T>::new` and `<T as Trait>::new` go on with a name that is not a start.
                let goes_on = start >= 2 && text(start - 1) == "::" && text(start - 2) == ">";
                if path.len() > 1 && !goes_on {
                    paths.push(path);
                }
            }
            _ => at += 1,
        }
        let module: Vec<String> =
            file.iter().cloned().chain(braces.iter().flatten().cloned()).collect();
        names.extend(paths.into_iter().map(|path| Name {
            target: resolve(path, &module),
            line: tokens[start].line,
            import,
            in_tests: module.iter().any(|name| name == "tests"),
        }));
    }
    names
}

/// Reads one tree of a `use` and returns where it ends.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    paths: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = prefix.to_vec();
    let text = |index: usize| tokens.get(index).map_or(";", |token| token.text.as_str());
    loop {
        match text(at) {
            "::" => at += 1,
            "{" => {
                at += 1;
                while !matches!(text(at), "}" | ";") {
                    at = use_tree(tokens, at, &path, paths);
                    at += usize::from(text(at) == ",");
                }
                return at + 1;
            }
            "as" => at += 2,
            "," | "}" | ";" => {
                paths.push(path);
                return at;
            }
            // `{self}` is the module itself; at the start, `self` is a place like `super`.
            "self" if !path.is_empty() => at += 1,
            word => {
                path.push(word.to_owned());
                at += 1;
            }
        }
    }
}

fn resolve(path: Vec<String>, module: &[String]) -> Target {
    let mut rest = path.as_slice();
    let mut from = module.to_vec();
    match rest.first().map(String::as_str) {
        Some("crate") => {
            from.clear();
            rest = &rest[1..];
        }
        Some("self") => rest = &rest[1..],
        Some("super") => {}
        _ => return Target::Theirs(path),
    }
    while let Some((first, after)) = rest.split_first()
        && first == "super"
    {
        from.pop();
        rest = after;
    }
    from.extend_from_slice(rest);
    Target::Ours(from)
}

/// A word or a sign.
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// Words, `::` and single signs; neither comments nor the contents of strings and characters.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let line = source[..source.len() - rest.len()].matches('\n').count() + 1;
        let length = literal_or_comment(rest);
        if length > 0 {
            rest = &rest[length..];
            continue;
        }
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = match c {
            _ if word > 0 => word,
            ':' if rest.starts_with("::") => 2,
            _ => c.len_utf8(),
        };
        if !c.is_whitespace() {
            tokens.push(Token { text: rest[..length].to_owned(), line });
        }
        rest = &rest[length..];
    }
    tokens
}

/// The length of the comment, string, character or lifetime sign at the start; 0 if there is none.
fn literal_or_comment(text: &str) -> usize {
    let end = |from: usize, mark: &str| {
        text[from..].find(mark).map_or(text.len(), |found| from + found + mark.len())
    };
    if text.starts_with("//") {
        return end(0, "\n");
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    let prefix = ["br", "cr", "r", "b", "c", ""]
        .into_iter()
        .find(|prefix| text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '#'])))
        .unwrap_or_default();
    let body = &text[prefix.len()..];
    let hashes = body.len() - body.trim_start_matches('#').len();
    if prefix.ends_with('r') && body[hashes..].starts_with('"') {
        return end(prefix.len() + hashes + 1, &format!("\"{}", "#".repeat(hashes)));
    }
    if prefix == "r" && hashes == 1 {
        return 2; // the mark of a raw identifier
    }
    if body.starts_with('"') {
        return prefix.len() + quoted(body, '"');
    }
    let mut after = text.chars().skip(1);
    match (text.starts_with('\''), after.next(), after.next()) {
        (true, Some('\\'), _) | (true, _, Some('\'')) => quoted(text, '\''),
        (true, _, _) => 1,
        _ => 0,
    }
}

/// The length of a literal with escapes, both marks counted.
fn quoted(text: &str, mark: char) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        if c == mark && !escaped {
            return index + mark.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// The length of a block comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        let mark = rest.starts_with(b"/*") || rest.starts_with(b"*/");
        match (rest.starts_with(b"/*"), mark) {
            (true, _) => depth += 1,
            (false, true) => depth -= 1,
            (false, false) => {}
        }
        at += if mark { 2 } else { 1 };
        if depth == 0 {
            return at;
        }
    }
    text.len()
}
