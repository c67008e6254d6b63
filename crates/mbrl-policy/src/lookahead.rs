//! Gradients through the model into the policy: short roll-outs of an actor that are recorded for backpropagation.
//!
//! From each of N observations the actor goes T steps through the model, with its noise held fixed (reparametrised). Its objective,
//!
//! ```text
//! J = 1/N Σₙ [ Σ_{t<T} γᵗ mₜ (rₜ − α log πₜ) + γᵀ m_T (Q(s_T, a_T) − α log π_T) ],   mₜ = 1 while row n has not terminated
//! ```
//!
//! is maximised along its gradient, which goes back step by step through actions, rewards and states: a stochastic value
//! gradient \[1\]. The critics learn from the same roll-out: the value of the first observation and action, with all that follows as the target
//! (model-based value expansion \[2\]). Both together are the training roll-out of DHMBPO \[3\]. From transitions of the world, or from ones that
//! were imagined earlier, the critics may learn the recorded outcome instead ([`ModelLookahead::with_transitions`]).
//!
//! ## References
//! \[1\] Heess et al. (2015), *Learning Continuous Control Policies by Stochastic Value Gradients*, NeurIPS; Amos et al. (2021), *On the
//! model-based stochastic value gradient for continuous reinforcement learning*, L4DC.
//! \[2\] Feinberg et al. (2018), *Model-Based Value Expansion for Efficient Model-Free Reinforcement Learning*, arXiv 1803.00101.
//! \[3\] Kubo et al. (2025), *Double Horizon Model-Based Policy Optimization*, arXiv 2512.15439.

use std::{
    borrow::Cow,
    fmt,
    sync::{Mutex, PoisonError},
};

use mbrl_env::{Batch, Rng};
use mbrl_model::{Draw, Dynamics, Pullback};

use crate::{
    Actor, ActorCritic, ActorGradient, ActorPass, AgentError, CriticPass, Goal, Lookahead, PolicyDraw, Tensor,
    imagine::check_markov, off_policy::bootstrapped,
};

/// A roll-out of an actor through a model, made before an update and used in it twice: [`Lookahead::targets`] reads it, and
/// [`Lookahead::actor_loss`] goes back through it.
///
/// The update must be on [`batch`](Self::batch), by the learner whose parts it was made with.
pub struct ModelLookahead {
    batch: Batch,
    /// How many rows, the last ones, are transitions as they came.
    came: usize,
    rollout: Mutex<Option<Rollout>>,
}

impl fmt::Debug for ModelLookahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelLookahead").field("rows", &self.batch.len()).finish_non_exhaustive()
    }
}

impl ModelLookahead {
    /// Rolls the actor out through `model` for `steps` steps from observations `obs` `[N, O]`. Rewards and ends are the goal's, or the
    /// model's where it leaves them open.
    ///
    /// # Errors
    /// [`AgentError::Config`] for no step, and a model whose state is more than an observation; as [`Dynamics::sample_taped`].
    pub fn new(
        model: &dyn Dynamics,
        goal: &Goal,
        of: ActorCritic<'_>,
        obs: &[f32],
        steps: usize,
        draw: Draw,
    ) -> Result<Self, AgentError> {
        if steps == 0 {
            return Err(AgentError::Config { field: "training_rollout", value: "0".into(), rule: "at least 1 step" });
        }
        let rollout = Rollout::new(model, goal, of.actor, obs, steps, draw)?;
        let mut actions = rollout.passes[0].actions().to_vec();
        of.actor.scale().to_env(&mut actions);
        let batch = Batch {
            obs_width: model.spec().obs,
            action_width: model.spec().action,
            obs: obs.to_vec().into(),
            actions: actions.into(),
            rewards: rollout.steps[0].rewards.iter().map(|reward| f64::from(*reward)).collect(),
            next_obs: rollout.obs[1].clone().into(),
            terminated: rollout.alive[1].iter().zip(&rollout.steps[0].sound).map(|(on, sound)| *sound && !on).collect(),
            truncated: Cow::Owned(vec![false; rollout.rows()]),
        };
        Ok(Self { batch, came: 0, rollout: Mutex::new(Some(rollout)) })
    }

    /// With the last rows of the update as recorded, in the world or in earlier roll-outs: for those observations critics learn what
    /// followed the recorded actions, by `r + γ (1 − terminated) V(s')` without the model. The actor goes through the model from them as
    /// from all others.
    ///
    /// # Errors
    /// [`AgentError::Config`] for transitions that do not start at the last observations of the roll-out, [`AgentError::Env`] for actions
    /// of another width.
    pub fn with_transitions(mut self, came: &Batch) -> Result<Self, AgentError> {
        let (o, a) = (self.batch.obs_width, self.batch.action_width);
        mbrl_env::check_width("action of transitions", a, came.action_width)?;
        let first = self.batch.len().checked_sub(came.len());
        let Some(first) = first.filter(|first| came.obs_width == o && self.batch.obs[first * o..] == *came.obs) else {
            let rule = "transitions that start at the last observations of the roll-out";
            return Err(AgentError::Config { field: "came", value: format!("{} transitions", came.len()), rule });
        };
        self.batch.actions.to_mut()[first * a..].copy_from_slice(&came.actions);
        self.batch.rewards.to_mut()[first..].copy_from_slice(&came.rewards);
        self.batch.next_obs.to_mut()[first * o..].copy_from_slice(&came.next_obs);
        self.batch.terminated.to_mut()[first..].copy_from_slice(&came.terminated);
        self.came = came.len();
        Ok(self)
    }

    /// The first step of each row: what the update is on.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }
}

impl Lookahead for ModelLookahead {
    fn targets(&self, _: &Batch, of: ActorCritic<'_>, rng: &mut Rng) -> Result<Option<Vec<f32>>, AgentError> {
        let rollout = self.rollout.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rollout) = &*rollout else { return Ok(None) };
        let (inputs, last) = rollout.last();
        let mut pass = CriticPass::default();
        let values = of.critics.target_values(inputs, last.actions(), rng.key(), &mut pass);
        let mut targets = rollout.targets(&values, of.temperature, of.discount);
        rollout.go_on_after_breaks(&mut targets, &values, of.temperature, of.discount);
        if self.came > 0 {
            let first = targets.len() - self.came;
            let mut inputs = Vec::new();
            of.actor.inputs().prepare(&self.batch.next_obs[first * self.batch.obs_width..], &mut inputs);
            let values = of.next_values(&inputs, [rng.key(), rng.key()], &mut ActorPass::default(), &mut pass);
            let (rewards, ends) = (&self.batch.rewards[first..], &self.batch.terminated[first..]);
            targets[first..].copy_from_slice(&bootstrapped(rewards, ends, of.discount, &values));
        }
        Ok(Some(targets))
    }

    fn actor_loss(&self, _: &Batch, of: ActorCritic<'_>, _: &mut Rng) -> Result<Option<ActorGradient>, AgentError> {
        let Some(rollout) = self.rollout.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(None);
        };
        let mut pass = CriticPass::default();
        let (inputs, last) = rollout.last();
        of.critics.values(inputs, last.actions(), true, &mut pass);
        let (values, by_inputs, by_actions) = of.critics.actor_gradient(&pass, 1.0);
        let loss = -rollout.objective(&values, of.temperature, of.discount);
        let log_probs = rollout.passes[0].log_probs().to_vec();
        let (inputs, grad_out) = rollout.way_back(of.actor, [&by_inputs, &by_actions], of.temperature, of.discount)?;
        Ok(Some(ActorGradient { inputs, grad_out, log_probs, loss }))
    }
}

/// A roll-out of an actor, recorded for backpropagation.
struct Rollout {
    /// Observations `[N, O]`, and the actor's inputs `[N, I]`, before each step and at the end, T + 1 in all.
    obs: Vec<Vec<f32>>,
    inputs: Vec<Vec<f32>>,
    /// What the actor chose there.
    passes: Vec<ActorPass>,
    /// T of them.
    steps: Vec<Step>,
    /// Whether a row takes part in each step, and in the value at the end, `[N]`, T + 1 in all.
    alive: Vec<Vec<bool>>,
    /// Where the model's tensors live.
    device: crate::Device,
}

struct Step {
    /// `[N]`.
    rewards: Vec<f32>,
    /// Whether the model gave numbers, `[N]`.
    sound: Vec<bool>,
    /// Gradients of a known reward with respect to observations, actions and next observations, row by row.
    known: Option<[Vec<f32>; 3]>,
    pullback: Box<dyn Pullback>,
}

fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

/// The goal's own rewards `[N]`, and the gradients of their sum with respect to observations, actions and next observations.
fn known_rewards(goal: &Goal, at: [Tensor<2>; 3]) -> Result<(Vec<f32>, [Vec<f32>; 3]), AgentError> {
    let tracked = at.map(|x| x.autodiff().require_grad());
    let rewards = goal.rewards(tracked.clone(), None)?;
    // A reward that depends on none of them has no graph to go back through; this sum has one.
    let none = tracked.clone().map(|x| x.sum() * 0.0).into_iter().reduce(|sum, more| sum + more);
    let of_rewards = if rewards.is_autodiff() { Some(rewards.clone().sum()) } else { None };
    let sum = none.into_iter().chain(of_rewards).reduce(|sum, more| sum + more);
    let gradients = sum.map(|sum| sum.backward());
    let of = |x: Tensor<2>| match gradients.as_ref().and_then(|all| x.grad(all)) {
        Some(gradient) => to_vec(gradient),
        None => vec![0.0; x.dims().iter().product()],
    };
    Ok((to_vec(rewards), tracked.map(of)))
}

impl Rollout {
    fn new(
        model: &dyn Dynamics,
        goal: &Goal,
        actor: &Actor,
        obs: &[f32],
        horizon: usize,
        draw: Draw,
    ) -> Result<Self, AgentError> {
        check_markov(model)?;
        let spec = model.spec();
        let (o, a) = (spec.obs, spec.action);
        let n = obs.len() / o;
        let tensor = |values: &[f32], width| Tensor::<1>::from_floats(values, &spec.device).reshape([n, width]);
        let mut all = Self {
            obs: vec![obs.to_vec()],
            inputs: Vec::new(),
            passes: Vec::new(),
            steps: Vec::new(),
            alive: vec![vec![true; n]],
            device: spec.device.clone(),
        };
        for t in 0..=horizon {
            let mut inputs = Vec::new();
            actor.inputs().prepare(&all.obs[t], &mut inputs);
            let mut pass = ActorPass::default();
            // From another stream than the model's noise.
            let chosen = PolicyDraw::new(draw.key ^ ACTOR).at_step(draw.step + t as u32);
            actor.sample(&inputs, chosen, true, &mut pass);
            all.inputs.push(inputs);
            all.passes.push(pass);
            if t == horizon {
                break;
            }
            let mut actions = all.passes[t].actions().to_vec();
            actor.scale().to_env(&mut actions);
            let (s, u) = (tensor(&all.obs[t], o), tensor(&actions, a));
            let taped = model.sample_taped(s.clone(), u.clone(), draw.later(t))?;
            let next = model.observe(taped.imagined.next);
            let at = [s, u, next.clone()];
            let (mut rewards, known) = match goal.reward.is_some() {
                true => known_rewards(goal, at.clone()).map(|(rewards, gradients)| (rewards, Some(gradients)))?,
                // The way back through those of the model is its own.
                false => (to_vec(goal.rewards(at.clone(), taped.imagined.reward)?), None),
            };
            let ends = goal.ends(at, taped.imagined.terminated);
            let mut next = to_vec(next);
            let (mut alive, mut sound) = (all.alive[t].clone(), vec![true; n]);
            for row in 0..n {
                let next = &mut next[row * o..][..o];
                sound[row] = rewards[row].is_finite() && next.iter().all(|value| value.is_finite());
                if !sound[row] {
                    rewards[row] = 0.0;
                }
                alive[row] &= sound[row] && !ends[row];
                if !alive[row] {
                    // Whoever is over stays where it was, so that all numbers are finite.
                    next.copy_from_slice(&all.obs[t][row * o..][..o]);
                }
            }
            all.alive.push(alive);
            all.obs.push(next);
            all.steps.push(Step { rewards, sound, known, pullback: taped.pullback });
        }
        Ok(all)
    }

    fn rows(&self) -> usize {
        self.alive[0].len()
    }

    fn horizon(&self) -> usize {
        self.steps.len()
    }

    /// The end: inputs, and what the actor chose.
    fn last(&self) -> (&[f32], &ActorPass) {
        (&self.inputs[self.horizon()], &self.passes[self.horizon()])
    }

    /// Log-probability of a row's action at a step; 0 of actors that have none.
    fn log_prob(&self, t: usize, row: usize) -> f32 {
        self.passes[t].log_probs().get(row).copied().unwrap_or(0.0)
    }

    /// Targets `[N]` of Q at the first step: discounted rewards and, from the second step on, entropies, then the value `[N]` of the last
    /// state and action.
    fn targets(&self, values: &[f32], alpha: f32, discount: f32) -> Vec<f32> {
        let mut targets = vec![0.0; self.rows()];
        let mut factor = 1.0;
        for t in 0..=self.horizon() {
            for (row, target) in targets.iter_mut().enumerate() {
                // Selected, not multiplied: what comes after an end may be anything.
                if self.alive[t][row] {
                    let earned = self.steps.get(t).map_or(values[row], |step| step.rewards[row]);
                    let paid = if t > 0 { alpha * self.log_prob(t, row) } else { 0.0 };
                    *target += factor * (earned - paid);
                }
            }
            factor *= discount;
        }
        targets
    }

    /// A row that the model lost has not ended: in targets the value of its last state stands for what would have followed.
    fn go_on_after_breaks(&self, targets: &mut [f32], values: &[f32], alpha: f32, discount: f32) {
        for (t, step) in self.steps.iter().enumerate() {
            for (row, target) in targets.iter_mut().enumerate() {
                if self.alive[t][row] && !step.sound[row] {
                    let factor = discount.powi(t as i32);
                    // The value counts the entropy of the lost step, for which the targets have paid from the second step on.
                    let paid = if t > 0 { alpha * self.log_prob(t, row) } else { 0.0 };
                    *target += factor * (values[row] - alpha * self.log_prob(self.horizon(), row) + paid);
                }
            }
        }
    }

    /// J.
    fn objective(&self, values: &[f32], alpha: f32, discount: f32) -> f64 {
        let first = (0..self.rows()).map(|row| f64::from(alpha * self.log_prob(0, row)));
        let targets = self.targets(values, alpha, discount);
        targets.iter().zip(first).map(|(target, paid)| f64::from(*target) - paid).sum::<f64>() / self.rows() as f64
    }

    /// Gradients of −J with respect to the outputs of the actor's network at all steps, with its inputs there. `last`: gradients of the values
    /// at the end with respect to inputs `[N, I]` and actions `[N, A]` in [−1, 1], row by row.
    fn way_back(
        mut self,
        actor: &Actor,
        last: [&[f32]; 2],
        alpha: f32,
        discount: f32,
    ) -> Result<(Vec<f32>, Vec<f32>), AgentError> {
        let n = self.rows();
        let half = actor.scale().half().to_vec();
        let o = self.obs[0].len() / n;
        let mut outputs = vec![Vec::new(); self.passes.len()];
        // With respect to the observations before the step that was looked at last.
        let mut by_obs = vec![0.0; n * o];
        for t in (0..self.passes.len()).rev() {
            // What a row's reward, entropy or value of this step counts.
            let weight = -discount.powi(t as i32) / n as f32;
            let weights: Vec<f32> = self.alive[t].iter().map(|alive| if *alive { weight } else { 0.0 }).collect();
            let is_last = t + 1 == self.passes.len();
            let step = if is_last { None } else { self.steps.pop() };
            let (by_action, mut by_state, mut by_input) = if let Some(Step { known, sound, pullback, .. }) = step {
                let of_reward: Vec<f32> =
                    weights.iter().zip(&sound).map(|(w, sound)| if *sound { *w } else { 0.0 }).collect();
                let mut by_next = std::mem::take(&mut by_obs);
                if let Some([_, _, next]) = &known {
                    add(&mut by_next, &weighed(next, &of_reward));
                }
                let next = Tensor::<1>::from_floats(&by_next[..], &self.device).reshape([n, o]);
                let reward = known.is_none().then(|| Tensor::<1>::from_floats(&of_reward[..], &self.device));
                let [states, actions] = pullback.pull(next, reward)?;
                let (mut by_state, mut by_action) = (to_vec(states), to_vec(actions));
                if let Some([now, done, _]) = &known {
                    add(&mut by_state, &weighed(now, &of_reward));
                    add(&mut by_action, &weighed(done, &of_reward));
                }
                let a = half.len();
                by_action.iter_mut().enumerate().for_each(|(i, gradient)| *gradient *= half[i % a]);
                for row in (0..n).filter(|row| !sound[*row] || !self.alive[t][*row]) {
                    by_state[row * o..][..o].fill(0.0);
                    by_action[row * a..][..a].fill(0.0);
                }
                (by_action, by_state, Vec::new())
            } else {
                (weighed(last[1], &weights), vec![0.0; n * o], weighed(last[0], &weights))
            };
            let by_log_prob: Vec<f32> = weights.iter().map(|weight| -alpha * weight).collect();
            let by_output = actor.pull(&self.passes[t], &by_action, &by_log_prob);
            if t > 0 {
                let through = actor.input_grad(&self.passes[t], &by_output);
                if by_input.is_empty() {
                    by_input = through;
                } else {
                    add(&mut by_input, &through);
                }
                add(&mut by_state, &actor.inputs().pullback(&self.obs[t], &by_input));
                for row in (0..n).filter(|row| !self.alive[t][*row]) {
                    by_state[row * o..][..o].fill(0.0);
                }
                by_obs = by_state;
            }
            outputs[t] = by_output;
        }
        Ok((self.inputs.concat(), outputs.concat()))
    }
}

/// Makes the actor's noise another than the model's.
const ACTOR: u64 = 0x6163_746f_7273;

fn add(sums: &mut [f32], more: &[f32]) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// Rows of gradients times their weights; a weight of 0 selects nothing, whatever stands there.
fn weighed(gradients: &[f32], weights: &[f32]) -> Vec<f32> {
    let width = gradients.len() / weights.len().max(1);
    let of = |(i, gradient): (usize, &f32)| match weights[i / width.max(1)] {
        0.0 => 0.0,
        weight => weight * gradient,
    };
    gradients.iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mbrl_env::{ActionSpace, BoxSpace, EnvSpec, reward_fn, termination_fn};
    use mbrl_model::{
        Dataset, Device, Ensemble, EnsembleConfig, FitConfig, MemberRule, Propagation, dynamics_fn, fit,
        mlp::{Pass, Rows, Tape},
    };

    use super::*;
    use crate::{ActorConfig, ActorHead, Critics, CriticsConfig};

    const N: usize = 7;

    fn spec() -> EnvSpec {
        let actions = ActionSpace::Box(BoxSpace::new([-1.0, -3.0], [2.0, 3.0]).unwrap());
        EnvSpec::new("plane", BoxSpace::unbounded(3), actions, 0.1)
    }

    fn actor(head: ActorHead) -> Actor {
        let config = ActorConfig {
            hidden: vec![16, 16],
            activation: mbrl_model::Activation::Tanh,
            normalize: true,
            ..ActorConfig::default()
        };
        let mut actor = config.init(&spec(), head, &mut Rng::new(3)).unwrap();
        let mut rng = Rng::new(4);
        let seen: Vec<f32> = (0..300).map(|i| 0.5 * (i % 3) as f32 + rng.normal()).collect();
        actor.observe(&seen);
        actor
    }

    fn critics() -> Critics {
        let config = CriticsConfig {
            count: 3,
            hidden: vec![16],
            activation: mbrl_model::Activation::Silu,
            actor: crate::Reduction::Mean,
            ..CriticsConfig::default()
        };
        config.init(3, 2, &mut Rng::new(5)).unwrap()
    }

    /// An ensemble with a reward of its own that was fitted a little.
    fn ensemble() -> Ensemble {
        let mut rng = Rng::new(1);
        let config = EnsembleConfig {
            members: 3,
            hidden: vec![16, 16],
            reward: true,
            normalize_targets: true,
            ..EnsembleConfig::default()
        };
        let mut model = config.init(3, 2, &Device::flex(), &mut rng).unwrap();
        let rows = 200;
        let mut column = |width: usize| -> Vec<f32> { (0..rows * width).map(|_| rng.normal()).collect() };
        let (obs, actions, noise) = (column(3), column(2), column(3));
        let next: Vec<f32> = obs.iter().zip(&noise).map(|(s, e)| 0.9 * s + 0.1 * e).collect();
        let rewards: Vec<f32> = obs.chunks(3).map(|row| row[0] - row[1] * row[1]).collect();
        let data = Dataset::new(obs, actions, next, 3, 2).and_then(|data| data.with_rewards(rewards)).unwrap();
        fit(&mut model, &data, &FitConfig { max_epochs: 5, ..FitConfig::default() }, &mut rng).unwrap();
        model
    }

    fn starts() -> Vec<f32> {
        let mut rng = Rng::new(9);
        (0..N * 3).map(|_| rng.normal()).collect()
    }

    fn known() -> Goal {
        let reward = |obs: Tensor<2>, actions: Tensor<2>, next: Tensor<2>| {
            let sum = |x: Tensor<2>| x.sum_dim(1).squeeze_dim::<1>(1);
            sum(next.clone().square()) * -0.3 + sum(obs.clone() * next) * 0.1 - sum(actions.square()) * 0.2 + sum(obs)
        };
        Goal::new(Arc::new(reward_fn(reward)))
    }

    /// J, and the gradient of −J with respect to the actor's parameters.
    fn judged(model: &dyn Dynamics, goal: &Goal, actor: &Actor, steps: usize) -> (f64, Vec<f32>, Vec<Vec<bool>>) {
        let draw = Draw::new(Propagation { rule: MemberRule::Ts1, noise: true, particles: 1 }, 11);
        let (alpha, discount, critics) = (0.3, 0.9, critics());
        let rollout = Rollout::new(model, goal, actor, &starts(), steps, draw).unwrap();
        let mut pass = CriticPass::default();
        let (inputs, last) = rollout.last();
        critics.values(inputs, last.actions(), true, &mut pass);
        let (values, by_inputs, by_actions) = critics.actor_gradient(&pass, 1.0);
        let worth = rollout.objective(&values, alpha, discount);
        let alive = rollout.alive.clone();
        let (inputs, grad_out) = rollout.way_back(actor, [&by_inputs, &by_actions], alpha, discount).unwrap();
        let mut tape = Tape::new();
        let _ = actor.network().forward(Rows::Shared(&inputs), Pass::Infer, Some(&mut tape));
        (worth, actor.network().grads(&tape, &grad_out), alive)
    }

    #[test]
    fn the_gradient_is_that_of_central_differences_through_all_steps() {
        let ensemble = ensemble();
        let equations = dynamics_fn(3, 2, &Device::flex(), |s: Tensor<2>, a: Tensor<2>| {
            let push = a.clone().narrow(1, 0, 1);
            s.clone() + s.tanh() * 0.2 + Tensor::cat(vec![a * 0.1, push], 1)
        });
        // A third of the rows ends on the way.
        let mut ending = known();
        ending.termination = Some(Arc::new(termination_fn(|_, _, next: Tensor<2>| {
            next.narrow(1, 2, 1).squeeze_dim::<1>(1).greater_elem(0.9)
        })));
        let mut endings = 0;
        let models: [(&dyn Dynamics, Goal); 4] =
            [(&ensemble, Goal::of_model()), (&ensemble, known()), (&equations, known()), (&equations, ending)];
        for (case, (model, goal)) in models.into_iter().enumerate() {
            for head in [ActorHead::Gaussian { log_std: [-5.0, 2.0] }, ActorHead::Deterministic { exploration: 0.0 }] {
                let (actor, mut rng) = (actor(head), Rng::new(case as u64));
                for steps in [1, 4] {
                    let (_, gradient, alive) = judged(model, &goal, &actor, steps);
                    endings += alive.iter().flatten().filter(|alive| !**alive).count();
                    let at = actor.network().parameters();
                    for _ in 0..3 {
                        let way: Vec<f32> = at.iter().map(|_| rng.normal()).collect();
                        let moved = |by: f32| {
                            let mut actor = actor.clone();
                            let moved: Vec<f32> = at.iter().zip(&way).map(|(x, way)| x + by * way).collect();
                            actor.network_mut().set_parameters(&moved);
                            judged(model, &goal, &actor, steps).0
                        };
                        let wanted = -(moved(3e-3) - moved(-3e-3)) / 6e-3;
                        let found: f64 = gradient.iter().zip(&way).map(|(g, way)| f64::from(g * way)).sum();
                        let scale = gradient.iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt();
                        assert!(
                            (found - wanted).abs() <= 0.02 * scale.max(0.05),
                            "case {case}, {head:?}, {steps} steps: {found}, expected {wanted}, magnitude {scale}"
                        );
                    }
                }
            }
        }
        assert!(endings > 4, "no row ended");
    }

    #[test]
    fn targets_are_discounted_sums_until_the_end() {
        // From s, actions of about 0 do nothing; each step earns the next state, and s + 1 > 2.5 ends.
        let model = dynamics_fn(3, 2, &Device::flex(), |s, _| s + 1.0);
        let first = |x: Tensor<2>| x.narrow(1, 0, 1).squeeze_dim::<1>(1);
        let mut goal = Goal::new(Arc::new(reward_fn(move |_, _, next| first(next))));
        goal.termination = Some(Arc::new(termination_fn(move |_, _, next: Tensor<2>| first(next).greater_elem(2.5))));
        let actor = actor(ActorHead::Gaussian { log_std: [-5.0, 2.0] });
        let obs = [[0.0; 3], [1.0; 3], [2.0; 3]].concat();
        let rollout = Rollout::new(&model, &goal, &actor, &obs, 2, Draw::new(Propagation::MEAN, 0)).unwrap();
        let [first, second] = [1, 2].map(|t| rollout.passes[t].log_probs().to_vec());
        let targets = rollout.targets(&[100.0; 3], 0.5, 0.9);
        let wanted = [
            1.0 + 0.9 * (2.0 - 0.5 * first[0]) + 0.81 * (100.0 - 0.5 * second[0]),
            2.0 + 0.9 * (3.0 - 0.5 * first[1]),
            3.0,
        ];
        for (found, wanted) in targets.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-4, "{targets:?}, expected {wanted}");
        }
    }

    #[test]
    fn of_real_transitions_critics_learn_what_came_of_them() {
        let (model, goal) = (dynamics_fn(3, 2, &Device::flex(), |s, _| s + 1.0), known());
        let (actor, critics) = (actor(ActorHead::Gaussian { log_std: [-5.0, 2.0] }), critics());
        let of = ActorCritic { actor: &actor, critics: &critics, temperature: 0.3, discount: 0.9 };
        let draw = Draw::new(Propagation::MEAN, 5);
        let imagined = || ModelLookahead::new(&model, &goal, of, &starts(), 2, draw).unwrap();
        // The last two rows were real; behind the second one the world ended, in what is no number.
        let real = Batch {
            obs_width: 3,
            action_width: 2,
            obs: starts()[(N - 2) * 3..].to_vec().into(),
            actions: vec![0.5, -1.0, 1.0, 2.0].into(),
            rewards: vec![7.0, -8.0].into(),
            next_obs: vec![0.1, 0.2, 0.3, f32::NAN, 0.0, 0.0].into(),
            terminated: vec![false, true].into(),
            truncated: vec![false; 2].into(),
        };
        let look = imagined().with_transitions(&real).unwrap();
        assert_eq!(look.batch().actions[(N - 2) * 2..], *real.actions);
        assert_eq!(look.batch().obs, imagined().batch().obs);
        let targets = |look: &ModelLookahead| look.targets(look.batch(), of, &mut Rng::new(2)).unwrap().unwrap();
        let (found, without) = (targets(&look), targets(&imagined()));
        assert_eq!(found[..N - 2], without[..N - 2], "the others go on as the model says");
        assert_eq!(found[N - 1], -8.0, "nothing behind an end");

        // Keys of the slow critics' dropout, of the action, in the order of the draws.
        let mut rng = Rng::new(2);
        let [_, key, _] = [rng.key(), rng.key(), rng.key()];
        let mut inputs = Vec::new();
        actor.inputs().prepare(&real.next_obs[..3], &mut inputs);
        let mut pass = ActorPass::default();
        actor.sample(&inputs, PolicyDraw::new(key), false, &mut pass);
        let value = critics.target_values(&inputs, pass.actions(), 0, &mut CriticPass::default())[0];
        let wanted = 7.0 + 0.9 * (value - 0.3 * pass.log_probs()[0]);
        assert!((found[N - 2] - wanted).abs() < 1e-4, "{}, expected {wanted}", found[N - 2]);

        // The actor climbs the same roll-out either way.
        let loss = |look: &ModelLookahead| look.actor_loss(look.batch(), of, &mut Rng::new(2)).unwrap().unwrap();
        assert_eq!(loss(&look).grad_out, loss(&imagined()).grad_out);

        let wide = Batch { action_width: 1, actions: vec![0.0; 2].into(), ..real.clone() };
        let error = imagined().with_transitions(&wide).unwrap_err().to_string();
        assert!(error.contains("action of transitions"), "{error}");
        let elsewhere = Batch { obs: vec![0.0; 6].into(), ..real };
        let error = imagined().with_transitions(&elsewhere).unwrap_err().to_string();
        assert!(error.contains("came = 2 transitions: expected transitions that start at"), "{error}");
    }

    #[test]
    fn a_row_that_leaves_what_is_finite_ends_and_harms_nobody() {
        let model =
            dynamics_fn(3, 2, &Device::flex(), |s: Tensor<2>, a: Tensor<2>| (s - 1.0).recip() + a.sum_dim(1) * 0.0);
        let actor = actor(ActorHead::Gaussian { log_std: [-5.0, 2.0] });
        // Lost in the first step, never, and in the second one.
        let obs = [[1.0; 3], [0.0; 3], [2.0; 3]].concat();
        let rollout = Rollout::new(&model, &known(), &actor, &obs, 3, Draw::new(Propagation::MEAN, 0)).unwrap();
        assert_eq!([&rollout.alive[1], &rollout.alive[2]], [&[false, true, true], &[false, true, false]]);
        let rows = rollout.rows();
        let (_, gradients) = rollout.way_back(&actor, [&vec![1.0; rows * 3], &vec![1.0; rows * 2]], 0.1, 0.9).unwrap();
        assert!(gradients.iter().all(|g| g.is_finite()), "{gradients:?}");

        // It has not ended: its target is the value of where it stood.
        let critics = critics();
        let of = ActorCritic { actor: &actor, critics: &critics, temperature: 0.3, discount: 0.9 };
        let look = ModelLookahead::new(&model, &known(), of, &obs, 3, Draw::new(Propagation::MEAN, 0)).unwrap();
        assert!(!look.batch().terminated[0]);
        let targets = look.targets(look.batch(), of, &mut Rng::new(2)).unwrap().unwrap();
        let rollout = look.rollout.lock().unwrap();
        let (inputs, last) = rollout.as_ref().unwrap().last();
        let mut pass = CriticPass::default();
        let values = critics.target_values(inputs, last.actions(), Rng::new(2).key(), &mut pass);
        let soft = |row: usize| values[row] - 0.3 * last.log_probs()[row];
        let reward = rollout.as_ref().unwrap().steps[0].rewards[2];
        for (row, wanted) in [(0, soft(0)), (2, reward + 0.9 * soft(2))] {
            assert!((targets[row] - wanted).abs() < 1e-5 && wanted != 0.0, "{}, expected {wanted}", targets[row]);
        }
    }
}
