//! Names that people miss by a little.

/// How alike two names are that may be meant for one another, from 0 to 1.
const ALIKE: f64 = 0.7;

/// The one of the `known` names that was probably meant by a wrong one. Case, hyphens, underscores and
/// dots make no difference.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.replace(['-', '_', '.'], "").to_lowercase();
    let wrong = plain(wrong);
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&plain(known), &wrong);
    let scored = known.into_iter().map(|known| (likeness(known), known));
    let (likeness, best) = scored.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (likeness >= ALIKE).then_some(best)
}
