//! The samplers, one a file.

pub(crate) mod cem;
pub(crate) mod pddm;
