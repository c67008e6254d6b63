//! A value that another agent has learned, for plans to end in.

use std::{fmt, sync::Arc};

use crate::{LearnedValue, Policy};

/// The value that another agent assigns to states, with the policy that earns it: plans of a [`Guided`](crate::Guided) agent may end in the
/// one and begin from the other.
#[derive(Clone)]
#[non_exhaustive]
pub struct GivenValue {
    /// The value.
    pub value: LearnedValue,
    /// The policy that proposes sequences of actions to each plan; `None` where none does.
    pub policy: Option<Arc<dyn Policy>>,
    /// Where it comes from, in words. An agent continues from a checkpoint only with the same value, which it recognises by these words.
    pub origin: String,
}

impl GivenValue {
    /// A value without a policy, from where `origin` says.
    #[must_use]
    pub fn new(value: LearnedValue, origin: impl Into<String>) -> Self {
        Self { value, policy: None, origin: origin.into() }
    }

    /// With a policy that proposes sequences.
    #[must_use]
    pub fn with_policy(self, policy: Arc<dyn Policy>) -> Self {
        Self { policy: Some(policy), ..self }
    }
}

impl fmt::Debug for GivenValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("GivenValue");
        f.field("value", &self.value).field("policy", &self.policy.is_some()).field("origin", &self.origin);
        f.finish()
    }
}
