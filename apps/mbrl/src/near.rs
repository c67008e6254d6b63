//! "Did you mean": names close to a mistyped one.

/// Up to three of `known` within a third of the word's length in edits, the closest first.
pub(crate) fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let limit = word.chars().count().div_ceil(3).max(2);
    let mut found: Vec<(usize, &str)> =
        known.into_iter().map(|k| (edits(word, k), k)).filter(|(d, _)| *d <= limit).collect();
    found.sort();
    found.into_iter().take(3).map(|(_, k)| k).collect()
}

/// `did you mean a, b?`, or nothing.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let found = near(word, known);
    if found.is_empty() { String::new() } else { format!("; did you mean `{}`?", found.join("`, `")) }
}

/// Levenshtein's distance.
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
        assert_eq!(near("planner.popluation", known), ["planner.population"]);
        assert!(near("zzz", known).is_empty());
    }
}
