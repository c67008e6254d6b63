//! Symmetries: maps of observations and actions under which a task stays the same.

use mbrl_env::Augment;

/// A map of one row: the column from which each entry comes, and its sign.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Permutation(Vec<(usize, f32)>);

impl Permutation {
    /// The identity.
    pub(crate) fn identity(width: usize) -> Self {
        Self((0..width).map(|column| (column, 1.0)).collect())
    }

    /// The entry `to` is the one at `from`, times `sign`.
    pub(crate) fn set(&mut self, to: usize, from: usize, sign: f32) {
        self.0[to] = (from, sign);
    }

    fn apply(&self, row: &mut [f32]) {
        let before = row.to_vec();
        for (to, (from, sign)) in row.iter_mut().zip(&self.0) {
            // Exact: only signs change.
            *to = before[*from] * sign;
        }
    }
}

/// Symmetries that permute columns and flip signs.
#[derive(Debug, Clone)]
pub(crate) struct Permutations {
    pub(crate) name: &'static str,
    /// Maps of observation and action, the first of which changes nothing.
    pub(crate) copies: Vec<(Permutation, Permutation)>,
}

impl Augment for Permutations {
    fn name(&self) -> &str {
        self.name
    }

    fn copies(&self) -> usize {
        self.copies.len()
    }

    fn observation(&self, copy: usize, obs: &mut [f32]) {
        self.copies[copy].0.apply(obs);
    }

    fn action(&self, copy: usize, action: &mut [f32]) {
        self.copies[copy].1.apply(action);
    }
}
