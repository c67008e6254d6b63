//! What a learner needs from a model that it fits repeatedly.

use mbrl_env::Rng;

use crate::{Dataset, Dynamics, Ensemble, Fit, LatentModel, ModelError};

/// A model that is learned from an agent's own data: fitted whenever there is more of it, reinitialised, stored and restored.
///
/// Learners are written against this trait, so that an ensemble, a physics model with unknown parameters and a latent model are interchangeable.
pub trait LearnedModel: Dynamics + Fit<Data = Dataset> + Clone {
    /// Draws new parameters and forgets what was fitted.
    fn reinitialize(&mut self, rng: &mut Rng);

    /// Everything that [`load`](Self::load) needs to predict with the same bits.
    ///
    /// # Errors
    /// What keeps the model from being written.
    fn save(&self) -> Result<Vec<u8>, ModelError>;

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`ModelError`] for bytes that are damaged or belong to another model.
    fn load(&mut self, bytes: &[u8]) -> Result<(), ModelError>;

    /// Number of steps before each transition that it looks at (default: 0).
    fn past(&self) -> usize {
        0
    }

    /// Whether it observes only pixels, whole numbers from 0 to 255, which data keep as bytes (default: no).
    fn sees_pixels(&self) -> bool {
        false
    }

    /// Whether it learns rewards (default: no).
    fn learns_reward(&self) -> bool {
        false
    }

    /// Whether it learns terminations (default: no).
    fn learns_termination(&self) -> bool {
        false
    }
}

impl LearnedModel for Ensemble {
    fn reinitialize(&mut self, rng: &mut Rng) {
        Self::reinitialize(self, rng);
    }

    fn save(&self) -> Result<Vec<u8>, ModelError> {
        Self::save(self)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        Self::load(self, bytes)
    }

    fn past(&self) -> usize {
        self.config().past
    }

    fn learns_reward(&self) -> bool {
        self.config().reward
    }

    fn learns_termination(&self) -> bool {
        self.config().termination
    }
}

impl LearnedModel for LatentModel {
    fn reinitialize(&mut self, rng: &mut Rng) {
        Self::reinitialize(self, rng);
    }

    fn save(&self) -> Result<Vec<u8>, ModelError> {
        Self::save(self)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        Self::load(self, bytes)
    }

    fn sees_pixels(&self) -> bool {
        true
    }

    fn learns_reward(&self) -> bool {
        true
    }
}
