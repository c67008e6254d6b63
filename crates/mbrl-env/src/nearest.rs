//! Names close to a mistyped one.

/// Up to three names of `known` that are within a third of the word's length in edits, or two, and about as close as the closest,
/// which comes first.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let name = word.rsplit('.').next().unwrap_or(word);
    let limit = name.chars().count().div_ceil(3).max(2);
    let mut found: Vec<(usize, &str)> =
        known.into_iter().map(|k| (edits(word, k), k)).filter(|(d, _)| *d <= limit).collect();
    found.sort();
    let closest = found.first().map_or(0, |(d, _)| *d);
    found.into_iter().take_while(|(d, _)| *d <= closest + 1).take(3).map(|(_, k)| k).collect()
}

/// `; did you mean `a`, `b`?`, with the names [`nearest`] to a word; nothing where none is near.
#[must_use]
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    did_you_mean(&nearest(word, known))
}

/// `; did you mean `a`, `b`?`, nothing without names.
pub(crate) fn did_you_mean(names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { String::new() } else { format!("; did you mean `{}`?", names.join("`, `")) }
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_insertions_deletions_and_substitutions() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", ""), 3);
        assert_eq!(edits("same", "same"), 0);
    }

    #[test]
    fn finds_the_closest_first_and_nothing_far() {
        let known = ["planner.population", "planner.horizon", "model.hidden"];
        assert_eq!(nearest("planner.popluation", known), ["planner.population"]);
        assert!(nearest("zzz", known).is_empty());
    }
}
