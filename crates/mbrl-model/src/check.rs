//! Checks that a model keeps its contract: for your own models, and for those of this crate.

use burn::tensor::{Bool, Int, Tensor, TensorData};
use mbrl_env::{History, Situation};

use crate::{
    Chunk, Draw, Dynamics, Imagined, MemberRule, ModelError, Prediction, Propagation, Start, Trajectories,
    dynamics::is_cpu, ensemble::to_vec,
};

/// Largest difference allowed, relative to the largest magnitude of a column: sums of a few hundred products of `f32` in
/// another order differ by about a tenth of it.
pub const TOLERANCE: f32 = 1e-5;
/// The same where one step's difference is passed on to the next two, and for roll-outs on a GPU, whose compilers choose which
/// products and sums are rounded once.
const TOLERANCE_OF_STEPS: f32 = 10.0 * TOLERANCE;
/// Steps of the roll-outs that are checked.
const HORIZON: usize = 3;

/// Checks the contract of [`Dynamics`] on `states` `[N, S]` and `actions` `[N, A]`: at least two different rows, in the range
/// that matters. An error begins with the name of the rule that is broken:
///
/// | rule | what is asked |
/// |---|---|
/// | `shapes` | every array has the shape that [`Dynamics`] documents; rewards and terminations come always or never |
/// | `finite` | no NaN and no infinity; no negative standard deviation |
/// | `rows of predict`, `rows of observe`, `rows of sample` | a row gives alone, and in another order, what it gives in a batch (`sample` without noise: noise is indexed by rows) |
/// | `mean` | when `sample` follows the expectation without noise, it gives the mean of `predict` |
/// | `no noise` | without [`noise`](Propagation::noise) the key changes nothing; [`MemberRule::Expectation`] draws none; nor does a model that is not [`stochastic`](crate::DynamicsSpec::stochastic) |
/// | `noise` | a stochastic model's draws differ between keys, between steps, and between particles |
/// | `same draw` | equal draws give equal bits |
/// | `roll-out` | `rollout` begins with the start, and is the loop over `sample`, with its noise, rewards and terminations |
/// | `chunks` | where there is a [`chunk_size`](Dynamics::chunk_size): candidates give in a chunk what they give in the whole population, on a CPU to the bit, with noise |
/// | `encode` | a situation, with and without a past, becomes one finite state `[1, S]`, always the same |
/// | `situation` | a roll-out from a situation is the one from the state that `encode` gives |
/// | `encode_batch` | situations encoded together become the same states as one by one |
/// | `filter` | where there is a [`belief`](crate::DynamicsSpec::belief): `begin` and `follow` give finite rows `[N, B]`, each the same as alone, and `encode` uses them |
///
/// ```
/// use mbrl_model::{Device, Tensor, check::check_dynamics, dynamics_fn};
/// let device = Device::flex();
/// let states = || Tensor::from_floats([[1.0, 2.0], [-3.0, 0.5]], &device);
/// let actions = || Tensor::from_floats([[0.1], [-0.2]], &device);
/// let model = dynamics_fn(2, 1, &device, |s, a| s * 0.9 + a);
/// check_dynamics(&model, states(), actions())?;
///
/// // A mean over the batch instead of over columns: what a row gives depends on its neighbours.
/// let mixed = dynamics_fn(2, 1, &device, |s, a| s.clone() - s.mean_dim(0) + a);
/// let told = check_dynamics(&mixed, states(), actions()).unwrap_err();
/// assert!(told.to_string().contains("rows of predict"));
/// # Ok::<(), mbrl_model::ModelError>(())
/// ```
///
/// A model that needs a simulator's snapshot cannot be checked on states; check the simulator
/// ([`mbrl_env::check::check_simulator`]).
///
/// # Errors
/// [`ModelError::Check`] with the rule, what was expected and what was found, or the model's own error.
pub fn check_dynamics(model: &dyn Dynamics, states: Tensor<2>, actions: Tensor<2>) -> Result<(), ModelError> {
    check_within(model, states, actions, TOLERANCE)
}

/// [`check_dynamics`] for a model whose `sample` rounds: its mean may be off that of `predict` by `mean_tolerance`, relative to
/// the largest magnitude of a column.
pub(crate) fn check_within(
    model: &dyn Dynamics,
    states: Tensor<2>,
    actions: Tensor<2>,
    mean_tolerance: f32,
) -> Result<(), ModelError> {
    let check = Check { model, exact: is_cpu(&model.spec().device) };
    check.inputs(&states, &actions)?;
    check.observations(&states)?;
    let prediction = check.predictions(&states, &actions)?;
    check.noise(&states, &actions)?;
    check.samples(&states, &actions)?;
    check.mean(prediction.mean, &states, &actions, mean_tolerance)?;
    for draw in check.draws() {
        check.rollout(&states, &actions, draw)?;
    }
    check.situations(&states, &actions)?;
    check.filter(&states, &actions)
}

/// Checks gradients of the predicted mean with respect to states and actions against central differences. `step` is the size
/// of the differences, in the units of states and actions (1e-2 where these are of order 1: smaller ones drown in `f32`).
///
/// # Errors
/// [`ModelError::Check`] with the worst entry, where it is off by more than 1 % of the largest gradient.
#[cfg(feature = "train")]
pub fn check_gradients(
    model: &dyn Dynamics,
    states: Tensor<2>,
    actions: Tensor<2>,
    step: f32,
) -> Result<(), ModelError> {
    let check = Check { model, exact: false };
    check.that(model.spec().differentiable, || "it says that it is not differentiable".into())?;
    // Weights that differ between columns, so that errors in different outputs cannot cancel.
    let weigh = |mean: Tensor<2>| {
        let width = mean.dims()[1];
        let weights: Vec<f32> = (0..width).map(|d| 1.0 + 0.37 * d as f32).collect();
        let device = mean.device();
        mean * Tensor::<2>::from_data(TensorData::new(weights, [1, width]), &device)
    };
    let s = states.clone().autodiff().require_grad();
    let a = actions.clone().autodiff().require_grad();
    let gradients = weigh(model.predict(s.clone(), a.clone())?.mean).sum().backward();
    let value = |s: Tensor<2>, a: Tensor<2>| -> Result<Vec<f32>, ModelError> {
        Ok(to_vec(weigh(model.predict(s, a)?.mean).sum_dim(1)))
    };
    for (what, tracked, base) in [("states", s, &states), ("actions", a, &actions)] {
        let gradient = tracked.grad(&gradients).ok_or_else(|| ModelError::Check {
            model: model.spec().name.clone(),
            reason: format!("no gradient reached the {what}"),
        })?;
        let gradient = to_vec(gradient);
        let largest = gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
        let [rows, width] = base.dims();
        for d in 0..width {
            let nudge: Vec<f32> = (0..width).map(|i| if i == d { step } else { 0.0 }).collect();
            let nudge = Tensor::<2>::from_data(TensorData::new(nudge, [1, width]), &base.device());
            let moved = |sign: f32| {
                let moved = base.clone() + nudge.clone() * sign;
                if what == "states" { value(moved, actions.clone()) } else { value(states.clone(), moved) }
            };
            let (up, down) = (moved(1.0)?, moved(-1.0)?);
            for r in 0..rows {
                let (want, got) = ((up[r] - down[r]) / (2.0 * step), gradient[r * width + d]);
                check.that((want - got).abs() <= 0.01 * largest.max(1e-3), || {
                    format!("gradient of row {r} to column {d} of {what}: {got}, central difference {want}")
                })?;
            }
        }
    }
    Ok(())
}

struct Check<'a> {
    model: &'a dyn Dynamics,
    /// Whether equal bits can be required: on a GPU sums are taken in any order.
    exact: bool,
}

impl Check<'_> {
    fn that(&self, ok: bool, reason: impl FnOnce() -> String) -> Result<(), ModelError> {
        if ok { Ok(()) } else { Err(ModelError::Check { model: self.model.spec().name.clone(), reason: reason() }) }
    }

    /// What the checks require of their own arguments.
    fn inputs(&self, states: &Tensor<2>, actions: &Tensor<2>) -> Result<(), ModelError> {
        let (spec, rows) = (self.model.spec(), states.dims()[0]);
        self.that(!spec.needs_snapshot, || {
            "it needs a simulator's snapshot and cannot start from states: check the simulator instead".into()
        })?;
        self.that(spec.members > 0, || "shapes: spec().members = 0, expected at least 1".into())?;
        self.that(rows >= 2, || format!("{rows} rows to check on, at least 2 are needed"))?;
        self.shape("the states to check on", [rows, spec.state], states.dims())?;
        self.shape("the actions to check on", [rows, spec.action], actions.dims())
    }

    /// Every way to draw, with and without noise: not starting at the first step, so that a step that is not counted is found.
    fn draws(&self) -> Vec<Draw> {
        let members = self.model.spec().members;
        let rules = [
            (MemberRule::Expectation, 1),
            (MemberRule::Ts1, 2 * members),
            (MemberRule::TsInf, 2 * members),
            (MemberRule::Ts1, 1),
            (MemberRule::Ds, 2),
        ];
        let both = rules.into_iter().flat_map(|(rule, particles)| {
            [false, true].map(|noise| Draw::new(Propagation { rule, noise, particles }, 42).at_step(2))
        });
        both.collect()
    }

    /// Two particles for each member.
    fn particles(&self, noise: bool) -> Draw {
        let particles = 2 * self.model.spec().members;
        Draw::new(Propagation { rule: MemberRule::TsInf, noise, particles }, 42)
    }

    fn observations(&self, states: &Tensor<2>) -> Result<(), ModelError> {
        let [rows, width] = [states.dims()[0], self.model.spec().view];
        let whole = self.model.observe(states.clone());
        self.shape("observations", [rows, width], whole.dims())?;
        self.finite("observations", &to_vec(whole.clone()))?;
        for r in 0..rows {
            let alone = self.model.observe(states.clone().narrow(0, r, 1));
            self.shape("the observation of one row", [1, width], alone.dims())?;
            let same = whole.clone().narrow(0, r, 1);
            self.columns(&format!("rows of observe: row {r} alone"), [same, alone], &whole, TOLERANCE)?;
        }
        Ok(())
    }

    fn predictions(&self, states: &Tensor<2>, actions: &Tensor<2>) -> Result<Prediction, ModelError> {
        let (model, [rows, width]) = (self.model, states.dims());
        let whole = model.predict(states.clone(), actions.clone())?;
        let parts = |p: &Prediction| {
            [
                ("mean", Some(p.mean.clone())),
                ("aleatoric_std", p.aleatoric_std.clone()),
                ("epistemic_std", p.epistemic_std.clone()),
            ]
        };
        for (what, part) in parts(&whole) {
            let Some(part) = part else { continue };
            self.shape(&format!("predicted {what}"), [rows, width], part.dims())?;
            let values = to_vec(part);
            self.finite(&format!("predicted {what}"), &values)?;
            self.that(what == "mean" || values.iter().all(|v| *v >= 0.0), || format!("finite: a negative {what}"))?;
        }
        let device = states.device();
        let order: Vec<i32> = (0..rows as i32).rev().collect();
        let order = Tensor::<1, Int>::from_data(TensorData::new(order, [rows]), &device);
        let reversed = model.predict(states.clone().select(0, order.clone()), actions.clone().select(0, order))?;
        for r in 0..rows {
            let alone = model.predict(states.clone().narrow(0, r, 1), actions.clone().narrow(0, r, 1))?;
            for (how, other, at) in [("alone", &alone, 0), ("in another order", &reversed, rows - 1 - r)] {
                for ((what, whole), (_, other)) in parts(&whole).into_iter().zip(parts(other)) {
                    self.that(whole.is_some() == other.is_some(), || format!("shapes: {what} comes only sometimes"))?;
                    let (Some(whole), Some(other)) = (whole, other) else { continue };
                    let pair = [whole.clone().narrow(0, r, 1), other.narrow(0, at, 1)];
                    self.columns(&format!("rows of predict: {what} of row {r} {how}"), pair, &whole, TOLERANCE)?;
                }
            }
        }
        Ok(whole)
    }

    /// One step of N rows for each particle.
    fn sample(&self, states: &Tensor<2>, actions: &Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let particles = draw.propagation.particles;
        let step = self.model.sample(
            states.clone().repeat_dim(0, particles),
            actions.clone().repeat_dim(0, particles),
            draw,
        )?;
        let rows = states.dims()[0] * particles;
        self.shape("imagined states", [rows, states.dims()[1]], step.next.dims())?;
        self.finite("imagined states", &to_vec(step.next.clone()))?;
        if let Some(reward) = &step.reward {
            self.shape("imagined rewards", [rows], reward.dims())?;
            self.finite("imagined rewards", &to_vec(reward.clone()))?;
        }
        if let Some(terminated) = &step.terminated {
            self.shape("imagined terminations", [rows], terminated.dims())?;
        }
        Ok(step)
    }

    fn samples(&self, states: &Tensor<2>, actions: &Tensor<2>) -> Result<(), ModelError> {
        let rows = states.dims()[0];
        let heads = |step: &Imagined| [step.reward.is_some(), step.terminated.is_some()];
        let mut first = None;
        for draw in self.draws() {
            let Propagation { rule, noise, particles } = draw.propagation;
            let whole = self.sample(states, actions, draw)?;
            let said = heads(&whole);
            self.that(*first.get_or_insert(said) == said, || {
                format!("shapes: rewards and terminations come only sometimes, not with {draw:?}")
            })?;
            let again = self.sample(states, actions, draw)?;
            self.steps_agree(&format!("same draw: a second {draw:?}"), &whole, &again, None)?;
            // What a row gives alone: noise and members that are assigned row by row go by rows of the batch.
            if noise || rule == MemberRule::Ds || (rule == MemberRule::Ts1 && particles == 1) {
                continue;
            }
            for r in 0..rows {
                let alone = self.sample(&states.clone().narrow(0, r, 1), &actions.clone().narrow(0, r, 1), draw)?;
                let same = pick(&whole, r, rows, particles);
                self.steps_agree(&format!("rows of sample: row {r} alone, {draw:?}"), &same, &alone, Some(&whole))?;
            }
        }
        Ok(())
    }

    fn noise(&self, states: &Tensor<2>, actions: &Tensor<2>) -> Result<(), ModelError> {
        let next = |draw| Ok::<_, ModelError>(to_vec(self.sample(states, actions, draw)?.next));
        let silent = self.particles(false);
        let still = next(silent)?;
        self.that(self.same(&still, &next(silent)?), || format!("same draw: a second {silent:?}: other states"))?;
        let of_key = |draw: Draw| Draw { key: 43, ..draw };
        self.that(self.same(&still, &next(of_key(silent))?), || {
            "no noise: without noise another key gives another state".into()
        })?;
        let expected = |noise| Draw::new(Propagation { noise, ..Propagation::MEAN }, 42);
        self.that(self.same(&next(expected(false))?, &next(expected(true))?), || {
            "no noise: the rule `expectation` draws noise".into()
        })?;
        let noisy = self.particles(true);
        let moved = next(noisy)?;
        if !self.model.spec().stochastic {
            return self.that(self.same(&still, &moved), || {
                "no noise: spec().stochastic is false, and yet `sample` draws noise".into()
            });
        }
        self.that(still != moved, || "noise: spec().stochastic is true, and yet `sample` draws none".into())?;
        self.that(moved != next(of_key(noisy))?, || "noise: two keys give the same draw".into())?;
        self.that(moved != next(noisy.at_step(1))?, || "noise: two steps give the same draw".into())?;
        // The first two particles have the same member.
        let particle = moved.len() / noisy.propagation.particles;
        self.that(moved[..particle] != moved[particle..2 * particle], || {
            "noise: two particles of the same member give the same draw".into()
        })
    }

    fn mean(&self, mean: Tensor<2>, states: &Tensor<2>, actions: &Tensor<2>, tolerance: f32) -> Result<(), ModelError> {
        let sampled = self.sample(states, actions, Draw::new(Propagation::MEAN, 42))?.next;
        self.columns("mean: `sample` without noise against `predict`", [mean.clone(), sampled], &mean, tolerance)
    }

    /// A roll-out with actions that differ from step to step, so that a model that mixes up steps is found.
    fn plan(actions: &Tensor<2>) -> Tensor<3> {
        Tensor::stack::<3>(vec![actions.clone(), actions.clone() * -0.5, actions.clone().flip([0])], 0)
    }

    fn roll(&self, from: Start<'_>, plan: &Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        let all = self.model.rollout(from, plan.clone(), draw)?;
        let rows = plan.dims()[1] * draw.propagation.particles;
        self.shape("rolled-out observations", [HORIZON + 1, rows, self.model.spec().view], all.obs.dims())?;
        self.finite("rolled-out observations", &to_vec(all.obs.clone()))?;
        if let Some(reward) = &all.reward {
            self.shape("rolled-out rewards", [HORIZON, rows], reward.dims())?;
            self.finite("rolled-out rewards", &to_vec(reward.clone()))?;
        }
        if let Some(terminated) = &all.terminated {
            self.shape("rolled-out terminations", [HORIZON, rows], terminated.dims())?;
        }
        Ok(all)
    }

    /// `rollout` over three steps against the loop over `sample`. Where the state is what is observed, each step continues from
    /// where `rollout` itself had arrived, so that differences do not grow.
    fn rollout(&self, states: &Tensor<2>, actions: &Tensor<2>, draw: Draw) -> Result<(), ModelError> {
        let (model, [rows, _]) = (self.model, states.dims());
        let (spec, particles, plan) = (model.spec(), draw.propagation.particles, Self::plan(actions));
        let whole = self.roll(Start::States(states.clone()), &plan, draw)?;
        let again = self.roll(Start::States(states.clone()), &plan, draw)?;
        self.trajectories_agree(&format!("same draw: a second roll-out, {draw:?}"), &whole, &again)?;

        let mut from = states.clone().repeat_dim(0, particles);
        let at = |t| whole.obs.clone().narrow(0, t, 1).squeeze_dim::<2>(0);
        let start = [model.observe(from.clone()), at(0)];
        self.columns(&format!("roll-out: its start, {draw:?}"), start, &at(0), TOLERANCE)?;
        for t in 0..HORIZON {
            let now = plan.clone().narrow(0, t, 1).squeeze_dim::<2>(0).repeat_dim(0, particles);
            let step = model.sample(from, now, draw.later(t))?;
            let observed = spec.state == spec.view;
            let exact = observed || t == 0;
            let near = if exact && self.exact { TOLERANCE } else { TOLERANCE_OF_STEPS };
            let how = |what| format!("roll-out: {what} of step {t} against `sample`, {draw:?}");
            let (want, got) = (model.observe(step.next.clone()), at(t + 1));
            self.columns(&how("observations"), [want.clone(), got.clone()], &want, near)?;
            from = if observed { got } else { step.next };
            self.that(step.reward.is_some() == whole.reward.is_some(), || how("rewards"))?;
            if let (Some(want), Some(got)) = (step.reward, &whole.reward) {
                let [want, got] = [want.unsqueeze_dim(1), got.clone().narrow(0, t, 1).swap_dims(0, 1)];
                self.columns(&how("rewards"), [want.clone(), got], &want, near)?;
            }
            let got = whole.terminated.clone().map(|all| flags(all.narrow(0, t, 1)));
            let want = step.terminated.map(flags);
            // A difference handed on may tip a termination.
            let agree = if exact { want == got } else { want.is_some() == got.is_some() };
            self.that(agree, || how("terminations"))?;
        }
        if model.chunk_size(HORIZON, particles).is_none() {
            return Ok(());
        }
        for (first, count) in [(0, 1), (1, rows - 1)] {
            let draw = draw.in_chunk(Chunk { first, population: rows });
            let part = self.roll(
                Start::States(states.clone().narrow(0, first, count)),
                &plan.clone().narrow(1, first, count),
                draw,
            )?;
            self.trajectories_agree(&format!("chunks: {draw:?}"), &candidates(&whole, first, count, particles), &part)?;
        }
        Ok(())
    }

    /// The states that a model makes from a situation, without a past and with one.
    fn situations(&self, states: &Tensor<2>, actions: &Tensor<2>) -> Result<(), ModelError> {
        let (model, rows) = (self.model, states.dims()[0]);
        let spec = model.spec();
        let (obs, acts) = (self.some_obs(states), to_vec(actions.clone()));
        let mut past = History::default();
        for (obs, action) in obs.chunks_exact(spec.obs).zip(acts.chunks_exact(spec.action.max(1))).skip(1) {
            past.push(obs.to_vec(), action.to_vec(), mbrl_env::MAX_PAST);
        }
        let here = Situation::of(&obs[..spec.obs]);
        for (how, here) in [("without a past", here), ("with a past", Situation { past: &past, ..here })] {
            let state = model.encode(&here)?;
            self.that(state.dims() == [1, spec.state], || {
                format!("encode: shape {:?} {how}, expected {:?}", state.dims(), [1, spec.state])
            })?;
            let values = to_vec(state.clone());
            self.that(values.iter().all(|v| v.is_finite()), || {
                format!("encode: {values:?} {how}, expected finite values")
            })?;
            let again = to_vec(model.encode(&here)?);
            self.that(values == again, || format!("encode: {again:?} the second time {how}, {values:?} the first"))?;
            let plan = Self::plan(actions);
            for noise in [false, true] {
                let draw = self.particles(noise);
                let from_state = self.roll(Start::States(state.clone().repeat_dim(0, rows)), &plan, draw)?;
                let from_here = self.roll(Start::Situation(here), &plan, draw)?;
                let how = format!("situation: {how} against the state that `encode` gives, {draw:?}");
                self.trajectories_agree(&how, &from_state, &from_here)?;
            }
        }
        let all: Vec<Situation<'_>> = obs
            .chunks_exact(spec.obs)
            .enumerate()
            .map(|(row, obs)| {
                let here = Situation::of(obs);
                if row == 0 { Situation { past: &past, ..here } } else { here }
            })
            .collect();
        let together = model.encode_batch(&all)?;
        self.that(together.dims() == [rows, spec.state], || {
            format!("encode_batch: shape {:?}, expected {:?}", together.dims(), [rows, spec.state])
        })?;
        for (row, situation) in all.iter().enumerate() {
            let pair = [model.encode(situation)?, together.clone().narrow(0, row, 1)];
            self.columns(&format!("encode_batch: row {row} against `encode`"), pair, &together, TOLERANCE)?;
        }
        Ok(())
    }

    /// Some observations, `[N, O]`: those of the states where that is what rewards see, otherwise any numbers.
    fn some_obs(&self, states: &Tensor<2>) -> Vec<f32> {
        let (spec, rows) = (self.model.spec(), states.dims()[0]);
        if spec.view == spec.obs {
            return to_vec(self.model.observe(states.clone()));
        }
        (0..rows * spec.obs).map(|i| 0.3 * ((i * 7 % 11) as f32 / 5.0 - 1.0)).collect()
    }

    /// The filter of a model with memory.
    fn filter(&self, states: &Tensor<2>, actions: &Tensor<2>) -> Result<(), ModelError> {
        let (model, rows) = (self.model, states.dims()[0]);
        let spec = model.spec();
        if spec.belief == 0 {
            return Ok(());
        }
        let obs = self.some_obs(states);
        let obs = Tensor::<2>::from_data(TensorData::new(obs, [rows, spec.obs]), &spec.device);
        let begun = model.begin(obs.clone())?;
        // All come to one observation, so that what came before shows.
        let (beliefs, later) = (begun.clone(), obs.clone().narrow(0, 0, 1).repeat_dim(0, rows));
        let followed = model.follow(beliefs.clone(), actions.clone(), later.clone())?;
        let at = |x: &Tensor<2>, row: usize| x.clone().narrow(0, row, 1);
        for (what, whole) in [("begin", &begun), ("follow", &followed)] {
            self.that(whole.dims() == [rows, spec.belief], || {
                format!("filter: `{what}` gives shape {:?}, expected {:?}", whole.dims(), [rows, spec.belief])
            })?;
            self.finite(&format!("beliefs by `{what}`"), &to_vec(whole.clone()))?;
            for row in 0..rows {
                let alone = match what {
                    "begin" => model.begin(at(&obs, row))?,
                    _ => model.follow(at(&beliefs, row), at(actions, row), at(&later, row))?,
                };
                let how = format!("filter: `{what}` of row {row} alone");
                self.columns(&how, [at(whole, row), alone], whole, TOLERANCE)?;
            }
        }
        // Of one observation and other beliefs.
        let seen = to_vec(at(&later, 0));
        let state = |belief: Tensor<2>| {
            let belief = to_vec(belief);
            let state = model.encode(&Situation { belief: Some(&belief), ..Situation::of(&seen) })?;
            self.that(state.dims() == [1, spec.state], || format!("filter: `encode` of a belief: {:?}", state.dims()))?;
            let values = to_vec(state);
            self.finite("states of beliefs", &values)?;
            Ok::<_, ModelError>(values)
        };
        let states = (0..rows).map(|row| state(at(&followed, row))).collect::<Result<Vec<_>, _>>()?;
        let same = |beliefs: &Tensor<2>| {
            let first = to_vec(at(beliefs, 0));
            (1..rows).all(|row| to_vec(at(beliefs, row)) == first)
        };
        self.that(same(&followed) || states.iter().any(|state| *state != states[0]), || {
            "filter: `encode` does not go by the belief".into()
        })
    }

    fn shape<const D: usize>(&self, what: &str, expected: [usize; D], actual: [usize; D]) -> Result<(), ModelError> {
        self.that(expected == actual, || format!("shapes: {what} have shape {actual:?}, expected {expected:?}"))
    }

    fn finite(&self, what: &str, values: &[f32]) -> Result<(), ModelError> {
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(i) => self.that(false, || format!("finite: {what} hold {} (entry {i})", values[i])),
        }
    }

    /// The same to the bit; on a GPU nearly.
    fn same(&self, a: &[f32], b: &[f32]) -> bool {
        let scale = a.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        let near = |(x, y): (&f32, &f32)| if self.exact { x == y } else { (x - y).abs() <= TOLERANCE * scale };
        a.len() == b.len() && a.iter().zip(b).all(near)
    }

    /// Two steps of the same rows: within [`TOLERANCE`] of the columns of `scale`, or to the bit where none is given.
    fn steps_agree(&self, how: &str, a: &Imagined, b: &Imagined, scale: Option<&Imagined>) -> Result<(), ModelError> {
        let column = |reward: &Option<Tensor<1>>| reward.clone().map(|r| r.unsqueeze_dim::<2>(1));
        match scale {
            Some(scale) => {
                self.columns(&format!("{how}: states"), [a.next.clone(), b.next.clone()], &scale.next, TOLERANCE)?;
                let rewards = (column(&a.reward), column(&b.reward), column(&scale.reward));
                if let (Some(a), Some(b), Some(scale)) = rewards {
                    self.columns(&format!("{how}: rewards"), [a, b], &scale, TOLERANCE)?;
                }
            }
            None => {
                let same = |a, b| self.same(&to_vec::<2>(a), &to_vec::<2>(b));
                self.that(same(a.next.clone(), b.next.clone()), || format!("{how}: other states"))?;
                if let (Some(a), Some(b)) = (column(&a.reward), column(&b.reward)) {
                    self.that(same(a, b), || format!("{how}: other rewards"))?;
                }
            }
        }
        let ends = |step: &Imagined| step.terminated.clone().map(flags);
        self.that(ends(a) == ends(b), || format!("{how}: other terminations"))
    }

    /// Two roll-outs that have to be the same to the bit.
    fn trajectories_agree(&self, how: &str, a: &Trajectories, b: &Trajectories) -> Result<(), ModelError> {
        let obs = |all: &Trajectories| to_vec(all.obs.clone());
        self.that(self.same(&obs(a), &obs(b)), || format!("{how}: other observations"))?;
        let reward = |all: &Trajectories| all.reward.clone().map(to_vec).unwrap_or_default();
        self.that(self.same(&reward(a), &reward(b)), || format!("{how}: other rewards"))?;
        let ends = |all: &Trajectories| all.terminated.clone().map(flags);
        self.that(ends(a) == ends(b), || format!("{how}: other terminations"))
    }

    /// `[expected, actual]`, within `tolerance` of the largest magnitudes of the columns of `scale`.
    fn columns(
        &self,
        how: &str,
        [expected, actual]: [Tensor<2>; 2],
        scale: &Tensor<2>,
        tolerance: f32,
    ) -> Result<(), ModelError> {
        let width = scale.dims()[1];
        self.shape(how, expected.dims(), actual.dims())?;
        let scale = column_magnitudes(&to_vec(scale.clone()), width);
        for (i, (x, y)) in to_vec(expected).into_iter().zip(to_vec(actual)).enumerate() {
            let bound = tolerance * scale[i % width].max(f32::MIN_POSITIVE);
            // Written so that a NaN is off.
            let near = (x - y).abs() <= bound;
            self.that(near, || {
                format!("{how}: column {} of row {} is {y}, expected {x} within {bound:e}", i % width, i / width)
            })?;
        }
        Ok(())
    }
}

/// Flags on the host.
fn flags<const D: usize>(flags: Tensor<D, Bool>) -> Vec<bool> {
    to_vec(flags.float()).iter().map(|&flag| flag == 1.0).collect()
}

/// The particles of one of `rows` candidates.
fn pick(step: &Imagined, row: usize, rows: usize, particles: usize) -> Imagined {
    let width = step.next.dims()[1];
    let next = step.next.clone().reshape([particles, rows, width]).narrow(1, row, 1).reshape([particles, width]);
    let one = |flat: Tensor<1>| flat.reshape([particles, rows]).narrow(1, row, 1).reshape([particles]);
    let terminated = step.terminated.clone().map(|ends| one(ends.float()).greater_elem(0.5));
    Imagined { next, reward: step.reward.clone().map(one), terminated }
}

/// The particles of `count` candidates from number `first` on.
fn candidates(all: &Trajectories, first: usize, count: usize, particles: usize) -> Trajectories {
    let [instants, rows, width] = all.obs.dims();
    let (population, steps) = (rows / particles, instants - 1);
    let obs = all.obs.clone().reshape([instants, particles, population * width]);
    let obs = obs.narrow(2, first * width, count * width).reshape([instants, particles * count, width]);
    let some = |flat: Tensor<2>| {
        flat.reshape([steps, particles, population]).narrow(2, first, count).reshape([steps, particles * count])
    };
    let flags = |flags: &Option<Tensor<2, Bool>>| flags.clone().map(|flags| some(flags.float()).greater_elem(0.5));
    Trajectories { obs, reward: all.reward.clone().map(some), terminated: flags(&all.terminated), cut: flags(&all.cut) }
}

fn column_magnitudes(rows: &[f32], width: usize) -> Vec<f32> {
    let mut scale = vec![0f32; width];
    for row in rows.chunks_exact(width) {
        for (s, v) in scale.iter_mut().zip(row) {
            *s = s.max(v.abs());
        }
    }
    scale
}
