//! "Did you mean": names close to a mistyped one.

use mbrl_env::nearest::nearest;

/// `; did you mean `a`, `b`?`, with up to three of `known` within a third of the word's length in edits and about as close as
/// the closest, which comes first; nothing where none is close.
pub(super) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let found = nearest(word, known);
    if found.is_empty() { String::new() } else { format!("; did you mean `{}`?", found.join("`, `")) }
}
