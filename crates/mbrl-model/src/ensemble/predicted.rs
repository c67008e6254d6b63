//! Which columns of the observation the networks predict; the others are known.

use std::{fmt, sync::Arc};

use mbrl_env::{Known, Lanes, TILE};

/// Columns that are predicted, and what gives the others.
#[derive(Clone)]
pub(crate) struct Predicted {
    /// Columns of the observation that the networks predict, in rising order, `D` of them.
    pub(crate) columns: Vec<usize>,
    pub(crate) known: Option<Arc<dyn Known>>,
}

impl fmt::Debug for Predicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Predicted")
            .field("columns", &self.columns)
            .field("known", &self.known.as_ref().map(|known| known.name()))
            .finish()
    }
}

impl Predicted {
    /// All of `obs` columns that are not known.
    pub(crate) fn new(obs: usize, known: Option<Arc<dyn Known>>) -> Self {
        let is_known = |column: &usize| known.as_ref().is_some_and(|known| known.columns().contains(column));
        Self { columns: (0..obs).filter(|column| !is_known(column)).collect(), known }
    }

    /// How many are predicted.
    pub(crate) fn count(&self) -> usize {
        self.columns.len()
    }

    /// The known columns, in rising order.
    pub(crate) fn known_columns(&self) -> &[usize] {
        self.known.as_ref().map_or(&[], |known| known.columns())
    }

    /// Whether a column is predicted.
    pub(crate) fn contains(&self, column: usize) -> bool {
        !self.known_columns().contains(&column)
    }

    /// Where each column of the observation stands in a row of the predicted ones and, behind them, the known ones.
    pub(crate) fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.columns.len() + self.known_columns().len()];
        let all = self.columns.iter().chain(self.known_columns());
        all.enumerate().for_each(|(place, column)| places[*column] = place);
        places
    }

    /// Puts the known columns of a tile into its `next` observations `[O]`, of which the others are predicted. `values` is scratch.
    pub(crate) fn complete(&self, obs: &[Lanes], actions: &[Lanes], next: &mut [Lanes], values: &mut Vec<Lanes>) {
        let Some(known) = &self.known else { return };
        // What stood there, from an earlier step or another tile, must not be used.
        known.columns().iter().for_each(|column| next[*column] = [0.0; TILE]);
        values.resize(known.columns().len(), [0.0; TILE]);
        known.tile(obs, actions, next, values);
        known.columns().iter().zip(&*values).for_each(|(column, value)| next[*column] = *value);
    }

    /// The same for rows: observations `[N, O]`, actions `[N, A]` and the `next` observations `[N, O]`.
    pub(crate) fn complete_rows(&self, [obs, actions]: [&[f32]; 2], next: &mut [f32], [o, a]: [usize; 2]) {
        if self.known.is_none() {
            return;
        }
        let lanes = |columns: usize| -> Vec<Lanes> { vec![[0.0; TILE]; columns] };
        let (mut s, mut u, mut tile, mut values) = (lanes(o), lanes(a), lanes(o), Vec::new());
        for row in (0..next.len() / o).step_by(TILE) {
            let n = TILE.min(next.len() / o - row);
            fill(&mut s, &obs[row * o..], o, n);
            fill(&mut u, &actions[row * a..], a, n);
            fill(&mut tile, &next[row * o..], o, n);
            self.complete(&s, &u, &mut tile, &mut values);
            for (lane, next) in next[row * o..].chunks_mut(o).take(n).enumerate() {
                self.known_columns().iter().for_each(|column| next[*column] = tile[*column][lane]);
            }
        }
    }
}

/// The first `n` of `rows` of a `width` as a tile; the lanes beyond repeat the last one.
pub(crate) fn fill(tile: &mut [Lanes], rows: &[f32], width: usize, n: usize) {
    for lane in 0..TILE {
        let row = &rows[lane.min(n - 1) * width..];
        tile.iter_mut().zip(row).for_each(|(column, value)| column[lane] = *value);
    }
}
