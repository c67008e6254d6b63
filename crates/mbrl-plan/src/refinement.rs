//! Gradient steps on the candidates that sampling found.

use serde::{Deserialize, Serialize};

#[cfg(feature = "gradient")]
use crate::{PlanError, error::require};

/// Gradient steps on the best candidates of a sampling planner, set by
/// [`Shooting::with_refinement`](crate::Shooting::with_refinement) or
/// [`PlannerConfig::init`](crate::PlannerConfig::init). Planning with a refinement needs the crate feature `gradient`.
///
/// ```
/// use mbrl_plan::Refinement;
///
/// assert!(Refinement::default().is_on());
/// assert_eq!(Refinement::off().iterations, 0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Refinement {
    /// How many of the best candidates of the last iteration climb, besides the sampler's solution (default: 4: sampling has
    /// already found a maximum, and most of the best candidates lie near the same one).
    pub candidates: usize,
    /// Gradient steps (default: 10); 0 turns the refinement off.
    pub iterations: usize,
    /// Length of the first steps in each dimension, in half ranges; the steps shrink evenly to nothing (default: 0.05, a
    /// tenth of the deviation that CEM samples with: ten of them move a sequence by half of it).
    pub learning_rate: f32,
}

impl Default for Refinement {
    fn default() -> Self {
        Self { candidates: 4, iterations: 10, learning_rate: 0.05 }
    }
}

impl Refinement {
    /// No refinement: 0 iterations.
    #[must_use]
    pub fn off() -> Self {
        Self { iterations: 0, ..Self::default() }
    }

    /// Whether there is any refinement.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.iterations > 0
    }

    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule.
    #[cfg(feature = "gradient")]
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        let rate = self.learning_rate;
        require(rate.is_finite() && rate > 0.0, "refinement.learning_rate", rate, "a finite number above 0")
    }
}
