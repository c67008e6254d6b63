//! Where a plan leads.

use burn::tensor::Tensor;
use mbrl_env::Situation;
use mbrl_model::{Draw, Propagation, Start};

use crate::{
    Plan, PlanError, Problem,
    error::{check_size, require},
};

/// Observations that a model expects under a sequence of actions.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Trajectory {
    /// Observations, `[H + 1, V]` in row-major order; the first is where the trajectory starts. V is the width of what the model shows
    /// ([`DynamicsSpec::view`](crate::DynamicsSpec::view)).
    pub obs: Vec<f32>,
    /// Instants and width, `[H + 1, V]`.
    pub shape: [usize; 2],
}

impl Trajectory {
    /// Where a sequence of actions `[H, A]`, in environment units and row-major order, leads from a situation, as predicted by the mean
    /// over the members of the model, without noise.
    ///
    /// # Errors
    /// [`PlanError::Width`] for a sequence of another width, [`PlanError::Config`] for one without steps, an error of the model.
    pub fn of(problem: &Problem<'_>, situation: &Situation<'_>, actions: &[f32]) -> Result<Self, PlanError> {
        let spec = problem.dynamics.spec();
        require(!actions.is_empty(), "horizon", 0, "at least one step")?;
        let horizon = actions.len() / spec.action.max(1);
        check_size("entries of the sequence", horizon * spec.action, actions.len())?;
        let sequence = Tensor::<1>::from_floats(actions, &spec.device).reshape([horizon, 1, spec.action]);
        let draw = Draw::new(Propagation::MEAN, 0);
        let obs = problem.dynamics.rollout(Start::Situation(*situation), sequence, draw)?.obs;
        let obs: Vec<f32> = obs.into_data().iter().collect();
        let shape = [horizon + 1, spec.view];
        check_size("entries of the roll-out", shape[0] * shape[1], obs.len())?;
        Ok(Self { obs, shape })
    }

    /// The observation after `t` steps, `[V]`.
    ///
    /// # Panics
    /// For a step beyond the horizon.
    #[must_use]
    pub fn at(&self, t: usize) -> &[f32] {
        let width = self.shape[1];
        &self.obs[t * width..(t + 1) * width]
    }
}

impl Plan {
    /// Where the plan leads from the situation that it was made for, by the problem's model: one roll-out of one sequence.
    ///
    /// ```
    /// use mbrl_plan::{
    ///     ActionSpace, BoxSpace, CemConfig, Device, Planner, Problem, Propagation, Rng, Situation, Tensor, dynamics_fn,
    ///     reward_fn,
    /// };
    ///
    /// let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.5);
    /// let reward = reward_fn(|_, _, next: Tensor<2>| -next.abs().squeeze_dim(1));
    /// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?);
    /// let problem = Problem::new(&model, &actions).with_reward(&reward);
    /// let here = Situation::of(&[1.0]);
    /// let mut planner = CemConfig { horizon: 4, ..CemConfig::default() }.init(&actions, Propagation::MEAN)?.with_candidates(3);
    /// let plan = planner.plan(&here, &problem, &mut Rng::new(0))?;
    ///
    /// let ahead = plan.trajectory(&problem, &here)?;
    /// assert_eq!((ahead.shape, ahead.at(0)), ([5, 1], &[1.0][..]));
    /// assert!(ahead.at(4)[0].abs() < 0.1);
    /// // What else was tried, best first.
    /// assert_eq!(plan.candidates.len(), 3);
    /// assert!(plan.candidates[0].value >= plan.candidates[1].value);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trajectory::of`].
    pub fn trajectory(&self, problem: &Problem<'_>, situation: &Situation<'_>) -> Result<Trajectory, PlanError> {
        self.check()?;
        Trajectory::of(problem, situation, &self.actions)
    }
}
