//! Transitions to fit a model to.

use crate::{ModelError, dynamics::check_size};

/// N transitions in columns on the host: what a fit reads.
#[derive(Debug, Clone)]
pub struct Dataset {
    obs: Vec<f32>,
    actions: Vec<f32>,
    next_obs: Vec<f32>,
    obs_width: usize,
    action_width: usize,
}

impl Dataset {
    /// Transitions from columns: `obs` `[N, O]`, `actions` `[N, A]`, `next_obs` `[N, O]`, row by row.
    ///
    /// # Errors
    /// [`ModelError::Width`] where the columns differ in length; [`ModelError::NonFinite`] where a row holds a NaN or an
    /// infinity; [`ModelError::TooLittleData`] where there is none.
    pub fn new(
        obs: impl Into<Vec<f32>>,
        actions: impl Into<Vec<f32>>,
        next_obs: impl Into<Vec<f32>>,
        obs_width: usize,
        action_width: usize,
    ) -> Result<Self, ModelError> {
        let (obs, actions, next_obs) = (obs.into(), actions.into(), next_obs.into());
        let rows = obs.len() / obs_width.max(1);
        if rows == 0 {
            return Err(ModelError::TooLittleData { actual: 0, needed: 1 });
        }
        check_size("values of obs", rows * obs_width, obs.len())?;
        check_size("values of actions", rows * action_width, actions.len())?;
        check_size("values of next_obs", rows * obs_width, next_obs.len())?;
        for (what, column, width) in
            [("obs", &obs, obs_width), ("actions", &actions, action_width), ("next_obs", &next_obs, obs_width)]
        {
            let bad = |row: &[f32]| row.iter().any(|v| !v.is_finite());
            if let Some(first) = column.chunks_exact(width.max(1)).position(bad) {
                let count = column.chunks_exact(width.max(1)).filter(|row| bad(row)).count();
                return Err(ModelError::NonFinite { what, rows: count, total: rows, first });
            }
        }
        Ok(Self { obs, actions, next_obs, obs_width, action_width })
    }

    /// Number of transitions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.obs.len() / self.obs_width
    }

    /// Never: an empty data set cannot be made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.obs.is_empty()
    }

    /// Observations, `[N, O]`.
    #[must_use]
    pub fn obs(&self) -> &[f32] {
        &self.obs
    }

    /// Actions, `[N, A]`.
    #[must_use]
    pub fn actions(&self) -> &[f32] {
        &self.actions
    }

    /// Next observations, `[N, O]`.
    #[must_use]
    pub fn next_obs(&self) -> &[f32] {
        &self.next_obs
    }

    /// Width of an observation.
    #[must_use]
    pub fn obs_width(&self) -> usize {
        self.obs_width
    }

    /// Width of an action.
    #[must_use]
    pub fn action_width(&self) -> usize {
        self.action_width
    }
}
