//! What the networks see of a state and an action.

use std::{fmt, sync::Arc};

use mbrl_env::Features;
#[cfg(feature = "train")]
use mbrl_env::{Lanes, TILE};

use super::EnsembleConfig;

/// Columns as they are, angles as sine and cosine, the action, and the features of a task.
#[derive(Clone)]
pub(crate) struct Inputs {
    /// Columns of the state that are fed as they are.
    pub(crate) plain: Vec<usize>,
    /// Those fed as sine and cosine, with the factors that convert them to radians.
    pub(crate) angles: Vec<(usize, f32)>,
    pub(crate) features: Option<Arc<dyn Features>>,
    action: usize,
    /// Whether the plain ones are the whole state, in order.
    pub(crate) all_plain: bool,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs")
            .field("plain", &self.plain)
            .field("angles", &self.angles)
            .field("features", &self.features.as_ref().map(|features| features.name()))
            .finish_non_exhaustive()
    }
}

impl Inputs {
    pub(crate) fn new(config: &EnsembleConfig, obs: usize, action: usize, features: Option<Arc<dyn Features>>) -> Self {
        // Those of the present alone: features know no past.
        let replaced = |column: usize| {
            column < obs && features.as_ref().is_some_and(|features| features.replaces().contains(&column))
        };
        let mut angles = config.state_angles(obs, action);
        let is_angle = |column: usize| angles.iter().any(|(angle, _)| *angle == column);
        let plain: Vec<usize> = (0..config.state(obs, action)).filter(|c| !is_angle(*c) && !replaced(*c)).collect();
        angles.retain(|(column, _)| !replaced(*column));
        let all_plain = plain.len() == config.state(obs, action);
        Self { plain, angles, features, action, all_plain }
    }

    /// Columns of the networks' input.
    pub(crate) fn width(&self) -> usize {
        let features = self.features.as_ref().map_or(0, |features| features.width());
        self.plain.len() + 2 * self.angles.len() + self.action + features
    }

    /// The features of rows `obs` `[N, O]` and `actions` `[N, A]`, `[N, F]`; nothing without any.
    #[cfg(feature = "train")]
    pub(crate) fn features_of(&self, obs: &[f32], actions: &[f32], o: usize) -> Vec<f32> {
        let Some(features) = &self.features else { return Vec::new() };
        let (rows, a, width) = (obs.len() / o, self.action, features.width());
        let (mut seen, mut done) = (vec![[0.0; TILE]; o], vec![[0.0; TILE]; a]);
        let mut out: Vec<Lanes> = vec![[0.0; TILE]; width];
        let mut all = vec![0.0; rows * width];
        for first in (0..rows).step_by(TILE) {
            let count = TILE.min(rows - first);
            // The last tile repeats its last row.
            for lane in 0..TILE {
                let row = first + lane.min(count - 1);
                for (column, value) in seen.iter_mut().zip(&obs[row * o..][..o]) {
                    column[lane] = *value;
                }
                for (column, value) in done.iter_mut().zip(&actions[row * a..][..a]) {
                    column[lane] = *value;
                }
            }
            features.tile(&seen, &done, &mut out);
            for lane in 0..count {
                for (value, column) in all[(first + lane) * width..][..width].iter_mut().zip(&out) {
                    *value = column[lane];
                }
            }
        }
        all
    }
}
