//! Models of dynamics.

pub use burn::tensor::{Bool, Device, Tensor};

pub mod check;
mod closure;
mod dataset;
mod dynamics;
mod ensemble;
mod error;
#[cfg(feature = "train")]
mod fit;
mod noise;
mod normalizer;
mod simulated;
mod vmath;

pub use closure::{DynamicsFn, dynamics_fn};
pub use dataset::Dataset;
pub use dynamics::{
    Draw, Dynamics, DynamicsSpec, Imagined, MemberRule, Prediction, Propagation, Start, Trajectories, rollout_by_steps,
};
pub use ensemble::{Activation, Ensemble, EnsembleConfig, Head, Network};
pub use error::ModelError;
#[cfg(feature = "train")]
pub use ensemble::EnsembleStatistics;
#[cfg(feature = "train")]
pub use fit::{Examples, Fit, FitConfig, FitReport, fit};
pub use noise::fill_normal;
pub use normalizer::Normalizer;
pub use simulated::SimulatorModel;
