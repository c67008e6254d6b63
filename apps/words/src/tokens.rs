//! A token model: the probability of each character after those before it, from counts in a text.

use std::collections::HashMap;

/// Number of characters: a to z, blank, full stop, comma. All others in a text become blanks, and successive blanks become one.
pub(crate) const TOKENS: usize = 29;
/// Number of characters of the longest context.
pub(crate) const CONTEXT: usize = 5;

/// The tokens of a text.
pub(crate) fn tokens(text: &str) -> Vec<u8> {
    let mut tokens: Vec<u8> = Vec::with_capacity(text.len());
    for character in text.chars() {
        let token = match character.to_ascii_lowercase() {
            letter @ 'a'..='z' => letter as u8 - b'a',
            '.' => 27,
            ',' => 28,
            _ => 26,
        };
        if !(token == 26 && tokens.last() == Some(&26)) {
            tokens.push(token);
        }
    }
    tokens
}

/// The text of tokens.
pub(crate) fn text(tokens: &[u8]) -> String {
    let character = |&token: &u8| match token {
        letter @ 0..=25 => char::from(b'a' + letter),
        27 => '.',
        28 => ',',
        _ => ' ',
    };
    tokens.iter().map(character).collect()
}

/// Counts of the tokens that follow each context of limited length, mixed by Witten and Bell's rule: the more kinds of tokens have followed
/// a context, the more weight the shorter one gets.
#[derive(Debug, Clone)]
pub(crate) struct Ngrams {
    order: usize,
    counts: HashMap<(u8, u32), [u32; TOKENS]>,
}

/// A context as one number.
fn key(context: &[u8]) -> (u8, u32) {
    (context.len() as u8, context.iter().fold(0, |key, token| key * 32 + u32::from(*token)))
}

impl Ngrams {
    /// For contexts of up to `order` tokens, at most [`CONTEXT`].
    pub(crate) fn of(text: &[u8], order: usize) -> Self {
        let mut counts: HashMap<(u8, u32), [u32; TOKENS]> = HashMap::new();
        for end in 0..text.len() {
            for length in 0..=order.min(end) {
                counts.entry(key(&text[end - length..end])).or_insert([0; TOKENS])[text[end] as usize] += 1;
            }
        }
        Self { order, counts }
    }

    /// Probabilities of the next token after a context, whose last tokens count.
    pub(crate) fn next(&self, context: &[u8]) -> [f64; TOKENS] {
        let mut next = [1.0 / TOKENS as f64; TOKENS];
        for length in 0..=self.order.min(context.len()) {
            let Some(counts) = self.counts.get(&key(&context[context.len() - length..])) else { break };
            let all: u32 = counts.iter().sum();
            let kinds = counts.iter().filter(|count| **count > 0).count();
            let (all, kinds) = (f64::from(all), kinds as f64);
            for (next, count) in next.iter_mut().zip(counts) {
                *next = (f64::from(*count) + kinds * *next) / (all + kinds);
            }
        }
        next
    }

    /// e to the power of the mean surprise per token of a text.
    pub(crate) fn perplexity(&self, text: &[u8]) -> f64 {
        let surprise = |end: usize| -self.next(&text[end.saturating_sub(CONTEXT)..end])[text[end] as usize].ln();
        ((0..text.len()).map(surprise).sum::<f64>() / text.len() as f64).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_by_hand_and_add_up() {
        assert_eq!(text(&tokens("Aha! -- 42 b.")), "aha b.");
        assert_eq!((text(&tokens("A, b.")), tokens(",.")), ("a, b.".to_owned(), vec![28, 27]));
        let ngrams = Ngrams::of(&tokens("abababac"), 1);
        let next = ngrams.next(&tokens("a"));
        assert!((next.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        // Of 8 tokens 3 are b, of 3 kinds; after a, 3 of 4 are b, of 2 kinds.
        let alone = (3.0 + 3.0 / 29.0) / 11.0;
        assert!((next[1] - (3.0 + 2.0 * alone) / 6.0).abs() < 1e-12, "{}", next[1]);
        // A text in which each token follows from the one before holds no surprise for a model that has seen enough of it.
        let long = tokens(&"abc".repeat(1000));
        assert!(Ngrams::of(&long, 2).perplexity(&long) < 1.05);
        assert!((Ngrams::of(&long, 0).perplexity(&long) - 3.0).abs() < 0.05);
    }
}
