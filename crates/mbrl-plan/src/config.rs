//! Any planner, chosen by its configuration.

use mbrl_env::ActionSpace;
use mbrl_model::Propagation;
use serde::{Deserialize, Serialize};

#[cfg(feature = "gradient")]
use crate::GradientConfig;
use crate::{
    Aggregate, CemConfig, IcemConfig, MppiConfig, PddmConfig, PlanError, Planner, RandomShootingConfig, Refinement,
    SequenceSampler, Shooting, error::refused,
};

/// Which planner, and its settings: for programs that choose one at run time.
///
/// The serialised form is the planner's settings with a tag `kind`; in TOML:
///
/// ```toml
/// [planner]
/// kind = "icem"
/// horizon = 20
/// population = 100
/// ```
///
/// Settings that are left out have the defaults of that planner; unknown ones are refused.
///
/// ```
/// use mbrl_plan::{
///     ActionSpace, Aggregate, BoxSpace, CemConfig, Planner, PlannerConfig, Propagation, Refinement,
/// };
///
/// let config: PlannerConfig = serde_json::from_str(r#"{"kind": "icem", "horizon": 20, "population": 100}"#)?;
/// assert_eq!((config.kind(), config.horizon()), ("icem", 20));
/// let actions = ActionSpace::Box(BoxSpace::symmetric(2, 1.0)?);
/// let mut planner = config.init(&actions, Propagation::MEAN, Aggregate::Mean, &Refinement::off())?;
/// planner.reset();
///
/// let misspelt = serde_json::from_str::<PlannerConfig>(r#"{"kind": "icem", "horizn": 20}"#);
/// assert!(misspelt.unwrap_err().to_string().contains("unknown field `horizn`"));
/// assert_eq!(PlannerConfig::default(), CemConfig::default().into());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PlannerConfig {
    /// `"cem"` (default).
    Cem(CemConfig),
    /// `"pddm"`.
    Pddm(PddmConfig),
    /// `"icem"`.
    Icem(IcemConfig),
    /// `"mppi"`.
    Mppi(MppiConfig),
    /// `"random-shooting"`.
    RandomShooting(RandomShootingConfig),
    /// `"gradient"`.
    #[cfg(feature = "gradient")]
    Gradient(GradientConfig),
}

impl Default for PlannerConfig {
    fn default() -> Self {
        Self::Cem(CemConfig::default())
    }
}

impl PlannerConfig {
    /// A planner for an action space. It propagates uncertainty as `propagation` says, scores candidates by `aggregate` over
    /// their particles, and refines its candidates where the refinement [is on](Refinement::is_on).
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule, and for a refinement of a planner that already follows gradients;
    /// [`PlanError::Width`] where MPPI has neither one sigma nor one per action dimension;
    /// [`PlanError::ActionSpace`] for a space that the planner cannot plan in.
    pub fn init(
        &self,
        actions: &ActionSpace,
        propagation: Propagation,
        aggregate: Aggregate,
        refinement: &Refinement,
    ) -> Result<Box<dyn Planner>, PlanError> {
        match self {
            Self::Cem(config) => sampling(config.init(actions, propagation)?, aggregate, refinement),
            Self::Pddm(config) => sampling(config.init(actions, propagation)?, aggregate, refinement),
            Self::Icem(config) => sampling(config.init(actions, propagation)?, aggregate, refinement),
            Self::Mppi(config) => sampling(config.init(actions, propagation)?, aggregate, refinement),
            Self::RandomShooting(config) => sampling(config.init(actions, propagation)?, aggregate, refinement),
            #[cfg(feature = "gradient")]
            Self::Gradient(_) if refinement.is_on() => {
                let rule = "0 with the planner gradient, which climbs already";
                Err(refused("refinement.iterations", refinement.iterations, rule))
            }
            #[cfg(feature = "gradient")]
            Self::Gradient(config) => {
                aggregate.check()?;
                Ok(Box::new(config.init(actions, propagation)?.with_aggregate(aggregate)))
            }
        }
    }

    /// The tag of its kind, as written in files.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cem(_) => "cem",
            Self::Pddm(_) => "pddm",
            Self::Icem(_) => "icem",
            Self::Mppi(_) => "mppi",
            Self::RandomShooting(_) => "random-shooting",
            #[cfg(feature = "gradient")]
            Self::Gradient(_) => "gradient",
        }
    }

    /// Horizon in steps, `H`.
    #[must_use]
    pub fn horizon(&self) -> usize {
        match self {
            Self::Cem(config) => config.horizon,
            Self::Pddm(config) => config.horizon,
            Self::Icem(config) => config.horizon,
            Self::Mppi(config) => config.horizon,
            Self::RandomShooting(config) => config.horizon,
            #[cfg(feature = "gradient")]
            Self::Gradient(config) => config.horizon,
        }
    }

    /// The same planner with a horizon of `H` steps.
    ///
    /// ```
    /// use mbrl_plan::{IcemConfig, PlannerConfig};
    ///
    /// let planner: PlannerConfig = IcemConfig { horizon: 5, ..IcemConfig::default() }.into();
    /// assert_eq!(planner.with_horizon(25), IcemConfig { horizon: 25, ..IcemConfig::default() }.into());
    /// ```
    #[must_use]
    pub fn with_horizon(mut self, horizon: usize) -> Self {
        match &mut self {
            Self::Cem(config) => config.horizon = horizon,
            Self::Pddm(config) => config.horizon = horizon,
            Self::Icem(config) => config.horizon = horizon,
            Self::Mppi(config) => config.horizon = horizon,
            Self::RandomShooting(config) => config.horizon = horizon,
            #[cfg(feature = "gradient")]
            Self::Gradient(config) => config.horizon = horizon,
        }
        self
    }

    /// The most sequences that one iteration scores at once, `K`; the problem's proposals come on top. It determines the memory
    /// that a roll-out needs.
    #[must_use]
    pub fn candidates(&self) -> usize {
        match self {
            Self::Cem(config) => config.population,
            Self::Pddm(config) => config.population,
            // Kept elites are scored again along with the population.
            Self::Icem(config) => config.population.saturating_add(config.elites),
            Self::Mppi(config) => config.population,
            Self::RandomShooting(config) => config.population,
            #[cfg(feature = "gradient")]
            Self::Gradient(config) => config.starts,
        }
    }

    /// Whether it needs a differentiable model.
    #[must_use]
    pub fn needs_gradients(&self) -> bool {
        match self {
            #[cfg(feature = "gradient")]
            Self::Gradient(_) => true,
            _ => false,
        }
    }
}

fn sampling<S: SequenceSampler + 'static>(
    planner: Shooting<S>,
    aggregate: Aggregate,
    refinement: &Refinement,
) -> Result<Box<dyn Planner>, PlanError> {
    aggregate.check()?;
    let planner = planner.with_aggregate(aggregate);
    if !refinement.is_on() {
        return Ok(Box::new(planner));
    }
    #[cfg(feature = "gradient")]
    return Ok(Box::new(planner.with_refinement(refinement.clone())?));
    #[cfg(not(feature = "gradient"))]
    Err(refused("refinement.iterations", refinement.iterations, "0 without the crate feature `gradient`"))
}

/// Wraps the configuration of a single planner.
macro_rules! from {
    ($($kind:ident($config:ident)),*) => {$(
        impl From<$config> for PlannerConfig {
            fn from(config: $config) -> Self {
                Self::$kind(config)
            }
        }
    )*};
}

from!(Cem(CemConfig), Pddm(PddmConfig), Icem(IcemConfig), Mppi(MppiConfig), RandomShooting(RandomShootingConfig));
#[cfg(feature = "gradient")]
from!(Gradient(GradientConfig));
