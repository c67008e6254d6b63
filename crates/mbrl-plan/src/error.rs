//! What can go wrong in planning.

use std::borrow::Cow;

use mbrl_model::ModelError;

/// An error of this crate. Every variant carries what was expected and what was given; values and sizes that break a rule read
/// `{field} = {value}: expected {rule}`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A value of a configuration breaks a rule.
    #[error("{field} = {value}: expected {rule}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// The value that was given, as text.
        value: String,
        /// What is expected.
        rule: Cow<'static, str>,
    },
    /// An array has the wrong size.
    #[error("{what} = {actual}: expected {expected}")]
    Width {
        /// What was measured.
        what: &'static str,
        /// The expected size.
        expected: usize,
        /// The size that was given.
        actual: usize,
    },
    /// The planner cannot plan in this action space.
    #[error("actions = {space}: expected {expected} for the planner {planner}")]
    ActionSpace {
        /// The planner.
        planner: &'static str,
        /// The spaces that it supports.
        expected: &'static str,
        /// The space that was given.
        space: String,
    },
    /// Neither the problem nor the model gives a reward.
    #[error("the problem has no reward, and the model {model} gives none")]
    NoReward {
        /// Name of the model.
        model: String,
    },
    /// The planner follows gradients, and the model has none.
    #[error("{planner} needs a differentiable model, {model} is not")]
    NotDifferentiable {
        /// The planner.
        planner: &'static str,
        /// Name of the model.
        model: String,
    },
    /// Every candidate of an iteration has a return that is NaN or infinite.
    #[error("none of the {population} candidates of iteration {iteration} has a finite return")]
    NoFiniteReturn {
        /// Number of candidates.
        population: usize,
        /// Iteration, from 0.
        iteration: usize,
    },
    /// An array that was passed in holds NaN or an infinity.
    #[error("{what}[{index}] = {value}: expected a finite number")]
    NonFinite {
        /// What holds it.
        what: &'static str,
        /// Index of the first such entry, in row-major order.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A planner breaks the contract of [`Planner`](crate::Planner) (module [`check`](crate::check)).
    #[error("check of {what} failed: {reason}")]
    Check {
        /// The rule that was checked.
        what: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// An error of the model underneath.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl PlanError {
    /// Whether only this plan failed, while a later one may succeed: no candidate has a finite return, because the model or the
    /// simulator diverges from here. From another state, or once the model is fitted again, planning may succeed.
    #[must_use]
    pub fn is_breakdown(&self) -> bool {
        match self {
            Self::NoFiniteReturn { .. } | Self::NonFinite { .. } => true,
            Self::Model(error) => error.is_breakdown(),
            _ => false,
        }
    }
}

/// Refuses a value of a configuration that breaks a rule.
pub(crate) fn require(
    holds: bool,
    field: &'static str,
    value: impl ToString,
    rule: &'static str,
) -> Result<(), PlanError> {
    if holds { Ok(()) } else { Err(refused(field, value, rule)) }
}

/// The error about a value that breaks a rule, for rules with numbers in them.
pub(crate) fn refused(field: &'static str, value: impl ToString, rule: impl Into<Cow<'static, str>>) -> PlanError {
    PlanError::Config { field, value: value.to_string(), rule: rule.into() }
}

/// Refuses an array of the wrong size.
pub(crate) fn check_size(what: &'static str, expected: usize, actual: usize) -> Result<(), PlanError> {
    if expected == actual { Ok(()) } else { Err(PlanError::Width { what, expected, actual }) }
}
