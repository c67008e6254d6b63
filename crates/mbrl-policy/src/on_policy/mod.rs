//! Learning a policy from its own episodes: each batch of whole episodes serves one update and is then discarded.

mod advantages;
mod baseline;
mod conjugate;
mod npg;
mod stochastic;

pub use advantages::advantages;
pub use baseline::{Baseline, BaselineConfig};
pub use conjugate::conjugate_gradients;
pub use npg::{Npg, NpgConfig};
pub use stochastic::{PolicyBatch, StochasticConfig, StochasticPolicy};
