//! The samplers, one per file.

pub(crate) mod cem;
pub(crate) mod icem;
pub(crate) mod mppi;
pub(crate) mod pddm;
pub(crate) mod random;
