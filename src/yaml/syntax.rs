//! What is wrong with a text, in words for whoever wrote it.

use serde_yaml::budget::BudgetBreach;
use serde_yaml::granit_parser::ErrorKind;
use serde_yaml::{DefaultMessageFormatter, Error, ExternalMessageSource, MessageFormatter};

use super::parse::MAX_DEPTH;

/// How much of the parser's own words is passed on, in characters: they may quote a value.
const MAX_MESSAGE: usize = 500;

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// The line at fault, from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

impl SyntaxError {
    pub(super) fn of(text: &str, error: &Error) -> Self {
        let place = error.location().map_or(1, |place| place.line());
        // At the end of a text that is cut, the parser is past the last line.
        let last = text.lines().count().max(1);
        let line = usize::try_from(place).map_or(last, |line| line.clamp(1, last));
        if let Some(line) = tab(text, line, error) {
            let message = "is indented by a tab; write spaces".to_owned();
            return SyntaxError { line, message };
        }
        SyntaxError { line, message: message(error).chars().take(MAX_MESSAGE).collect() }
    }
}

fn parser_error(error: &Error) -> Option<&ErrorKind> {
    match error.without_snippet() {
        Error::ExternalMessage { source, .. } => match &**source {
            ExternalMessageSource::Parser(error) => Some(error.kind()),
            _ => None,
        },
        _ => None,
    }
}

/// The line that is indented by a tab, if that is what is wrong.
fn tab(text: &str, line: usize, error: &Error) -> Option<usize> {
    let mut lines = text.lines().enumerate().skip(line - 1).take(match parser_error(error)? {
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedBlockSequenceEntry => 1,
        // The parser says where the value begins that the tab ends.
        ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar => usize::MAX,
        _ => 0,
    });
    let (index, _) = lines.find(|(_, line)| line.trim_start_matches(' ').starts_with('\t'))?;
    Some(index + 1)
}

/// What the library says, but for what it says to programmers.
fn message(error: &Error) -> String {
    let told = match error.without_snippet() {
        Error::AliasError { error, .. } => return message(error),
        Error::UnsupportedTag { tag, .. } => {
            return format!("the tag {tag} means nothing here; leave it out");
        }
        Error::NonFiniteFloat { value, .. } => return format!("{value} is not a finite number"),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. }
        | Error::AliasReplayStackDepthExceeded { .. } => return too_deep(),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => {
            "stands for far more than is written in it, by its aliases (*); write out what they \
             stand for"
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "an alias (*) stands for what it is in"
        }
        Error::UnknownAnchor { .. } => "an alias (*) has no anchor (&) of its name before it",
        Error::InvalidScalar { .. } => "the value is not what its tag (!) says",
        Error::MultipleDocuments { .. } => ANOTHER_DOCUMENT,
        // Only names of fields are asked for as texts.
        Error::NullIntoString { .. } => "a field has no name",
        Error::Unexpected { expected: "string scalar", .. } => {
            "the name of a field is a list or an object; is this a template, not rendered yet?"
        }
        error => {
            return parser_error(error)
                .and_then(parser_message)
                .unwrap_or_else(|| DefaultMessageFormatter.format_message(error).into_owned());
        }
    };
    told.to_owned()
}

const ANOTHER_DOCUMENT: &str = "another document begins here, which needs a line --- above it, or \
                                this is not indented like what it belongs to";

fn too_deep() -> String {
    format!("is nested more than {MAX_DEPTH} levels deep")
}

fn parser_message(kind: &ErrorKind) -> Option<String> {
    let told = match kind {
        ErrorKind::RecursionLimitExceeded => return Some(too_deep()),
        ErrorKind::UnexpectedCharacter { character } => {
            return Some(match character.is_control() {
                true => format!("the character {character:?} is not allowed"),
                false => format!("{character:?} begins no value; write the value in quotes"),
            });
        }
        ErrorKind::ExpectedDocumentStart => ANOTHER_DOCUMENT,
        ErrorKind::SimpleKeyExpected => "did not find expected ':' behind the name of a field",
        ErrorKind::InvalidColonPlacement => {
            "found ':' in the middle of a list; is it closed by a ']'?"
        }
        ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::UnexpectedEofBlockSequence
        | ErrorKind::UnexpectedEofBlockMapping => "did not find expected value",
        ErrorKind::UndeclaredTagHandle => "a tag (!) has a handle that is not declared",
        _ => return None,
    };
    Some(told.to_owned())
}
