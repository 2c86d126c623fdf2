//! Reads a source file as tokens and tells which paths it names.

use proc_macro2::{Delimiter, Punct, Spacing, Span, TokenStream, TokenTree};

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
    let stream: TokenStream = source.parse().expect("a source file that can be read as tokens");
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
    tokens
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    let mut stream = stream.into_iter().peekable();
    while let Some(tree) = stream.next() {
        let mut push = |text: String, span: Span| {
            tokens.push(Token { text, line: span.start().line });
        };
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                push(open.to_owned(), group.span_open());
                flatten(group.stream(), tokens);
                tokens
                    .push(Token { text: close.to_owned(), line: group.span_close().start().line });
            }
            TokenTree::Ident(ident) => {
                let text = ident.to_string();
                push(text.trim_start_matches("r#").to_owned(), ident.span());
            }
            // `::` comes as two signs, of which the first says that the second belongs to it.
            TokenTree::Punct(punct) if is_colon(&punct) && punct.spacing() == Spacing::Joint => {
                let doubled =
                    stream.next_if(|next| matches!(next, TokenTree::Punct(next) if is_colon(next)));
                push(if doubled.is_some() { "::" } else { ":" }.to_owned(), punct.span());
            }
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {}
            TokenTree::Punct(punct) => push(punct.as_char().to_string(), punct.span()),
            TokenTree::Literal(_) => {}
        }
    }
}

fn is_colon(punct: &Punct) -> bool {
    punct.as_char() == ':'
}
