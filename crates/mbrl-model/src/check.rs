//! Checks that a model keeps its contract: for your own models, and for those of this crate.

use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::{
    Draw, Dynamics, Imagined, MemberRule, ModelError, Prediction, Propagation, Start, Trajectories, ensemble::to_vec,
    rollout_by_steps,
};

/// Largest difference allowed, relative to the largest magnitude of a column: sums of a few hundred products of `f32` in
/// another order differ by about a tenth of it.
pub const TOLERANCE: f32 = 1e-5;
/// The same where one step's difference is handed on to the next.
const TOLERANCE_OF_STEPS: f32 = 100.0 * TOLERANCE;

/// Checks the contract of [`Dynamics`] on `states` `[N, S]` and `actions` `[N, A]`, at least two rows in the range that
/// matters:
/// widths, finiteness, rows one by one, rows in another order, equal draws, and `rollout` against the loop over `sample`.
///
/// ```
/// use mbrl_model::{Device, Tensor, check::check_dynamics, dynamics_fn};
/// let device = Device::flex();
/// let model = dynamics_fn(2, 1, &device, |s, a| s * 0.9 + a);
/// let states = Tensor::from_floats([[1.0, 2.0], [-3.0, 0.5]], &device);
/// check_dynamics(&model, states, Tensor::from_floats([[0.1], [-0.2]], &device))?;
/// # Ok::<(), mbrl_model::ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::Check`] saying what was expected and what came, or the model's own error.
pub fn check_dynamics(model: &dyn Dynamics, states: Tensor<2>, actions: Tensor<2>) -> Result<(), ModelError> {
    let check = Check { model };
    let [rows, width] = states.dims();
    check.that(rows >= 2, || format!("{rows} rows to check on, at least 2 are needed"))?;

    let whole = model.predict(states.clone(), actions.clone())?;
    check.shape("predicted mean", [rows, model.spec().state], whole.mean.dims())?;
    for r in 0..rows {
        let one = model.predict(states.clone().narrow(0, r, 1), actions.clone().narrow(0, r, 1))?;
        check.predictions("row by row", &whole, r, &one, 0)?;
    }
    let device = states.device();
    let order: Vec<i32> = (0..rows as i32).rev().collect();
    let order = Tensor::<1, Int>::from_data(TensorData::new(order, [rows]), &device);
    let reversed = model.predict(states.clone().select(0, order.clone()), actions.clone().select(0, order))?;
    for r in 0..rows {
        check.predictions("in another order", &whole, r, &reversed, rows - 1 - r)?;
    }

    let members = model.spec().members;
    for (rule, particles) in [
        (MemberRule::Expectation, 1),
        (MemberRule::Ts1, 2 * members),
        (MemberRule::TsInf, 2 * members),
        (MemberRule::Ts1, 1),
        (MemberRule::Ds, 2),
    ] {
        for noise in [false, true] {
            let draw = Draw::new(Propagation { rule, noise, particles }, 42);
            let s = states.clone().repeat_dim(0, particles);
            let a = actions.clone().repeat_dim(0, particles);
            let Imagined { next, reward, terminated } = model.sample(s.clone(), a.clone(), draw)?;
            check.shape("imagined states", [rows * particles, width], next.dims())?;
            for dims in [reward.map(|reward| reward.dims()), terminated.map(|ends| ends.dims())].into_iter().flatten() {
                check.shape("imagined rewards and ends", [rows * particles], dims)?;
            }
            let next = to_vec(next);
            check
                .that(next.iter().all(|v| v.is_finite()), || format!("{draw:?} imagined a state that is not finite"))?;
            let again = to_vec(model.sample(s, a, draw)?.next);
            check.that(next == again, || format!("{draw:?} gave other bits the second time"))?;

            check.rollouts(&states, &actions, draw)?;
        }
    }
    Ok(())
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
    let check = Check { model };
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
}

impl Check<'_> {
    fn that(&self, ok: bool, reason: impl FnOnce() -> String) -> Result<(), ModelError> {
        if ok { Ok(()) } else { Err(ModelError::Check { model: self.model.spec().name.clone(), reason: reason() }) }
    }

    /// `rollout` over three steps against the loop over `sample`. Where the state is what is observed, each step goes on from
    /// where `rollout` itself had come to, so that differences do not grow. Actions differ from step to step: a roll-out that
    /// mixes steps up is found.
    fn rollouts(&self, states: &Tensor<2>, actions: &Tensor<2>, draw: Draw) -> Result<(), ModelError> {
        let (model, rows) = (self.model, states.dims()[0]);
        let plan = Tensor::stack::<3>(vec![actions.clone(), actions.clone() * -0.5, actions.clone().flip([0])], 0);
        let Trajectories { obs: whole, reward, terminated } =
            model.rollout(Start::States(states.clone()), plan.clone(), draw)?;
        let particles = draw.propagation.particles;
        self.shape("rolled-out observations", [4, rows * particles, model.spec().obs], whole.dims())?;
        let again = model.rollout(Start::States(states.clone()), plan.clone(), draw)?.obs;
        self.that(to_vec(whole.clone()) == to_vec(again), || format!("rollout, {draw:?}: other bits the second time"))?;
        let observed = model.spec().state == model.spec().obs;
        let mut from = states.clone().repeat_dim(0, particles);
        for t in 0..3 {
            let now = plan.clone().narrow(0, t, 1).squeeze_dim::<2>(0).repeat_dim(0, particles);
            let step = model.sample(from, now, draw.later(t))?;
            let exact = observed || t == 0;
            let near = if exact { TOLERANCE } else { TOLERANCE_OF_STEPS };
            let how = |what| format!("{what} of step {t} of rollout against sample, {draw:?}");
            let reached = whole.clone().narrow(0, t + 1, 1).squeeze_dim::<2>(0);
            let (want, got) = (to_vec(model.observe(step.next.clone())), to_vec(reached.clone()));
            self.columns(&how("observations"), [&want, &got], model.spec().obs, near)?;
            from = if observed { reached } else { step.next };
            self.that(step.reward.is_some() == reward.is_some(), || how("rewards"))?;
            if let (Some(want), Some(got)) = (step.reward, &reward) {
                self.columns(&how("rewards"), [&to_vec(want), &to_vec(got.clone().narrow(0, t, 1))], 1, near)?;
            }
            let ends = |ends: Tensor<1, Bool>| to_vec(ends.float());
            let got = terminated.clone().map(|all| ends(all.narrow(0, t, 1).squeeze_dim(0)));
            let want = step.terminated.map(ends);
            // A difference handed on may tip an end.
            let agree = if exact { want == got } else { want.is_some() == got.is_some() };
            self.that(agree, || how("ends"))?;
        }
        let looped = rollout_by_steps(model, Start::States(states.clone()), plan, draw)?.obs;
        self.shape("observations of the loop over sample", whole.dims(), looped.dims())
    }

    fn shape<const D: usize>(&self, what: &str, expected: [usize; D], actual: [usize; D]) -> Result<(), ModelError> {
        self.that(expected == actual, || format!("{what} have shape {actual:?}, expected {expected:?}"))
    }

    fn predictions(&self, how: &str, a: &Prediction, i: usize, b: &Prediction, j: usize) -> Result<(), ModelError> {
        let pairs = [
            ("mean", Some(&a.mean), Some(&b.mean)),
            ("aleatoric_std", a.aleatoric_std.as_ref(), b.aleatoric_std.as_ref()),
            ("epistemic_std", a.epistemic_std.as_ref(), b.epistemic_std.as_ref()),
        ];
        for (what, a, b) in pairs {
            self.that(a.is_some() == b.is_some(), || format!("{what} is there only sometimes"))?;
            let (Some(a), Some(b)) = (a, b) else { continue };
            let width = a.dims()[1];
            let whole = to_vec(a.clone());
            let scale = column_magnitudes(&whole, width);
            let b = to_vec(b.clone());
            for d in 0..width {
                let (x, y) = (whole[i * width + d], b[j * width + d]);
                self.that((x - y).abs() <= TOLERANCE * scale[d].max(f32::MIN_POSITIVE), || {
                    format!("{what} of row {i}, column {d}: {x} in the batch, {y} {how}")
                })?;
            }
        }
        Ok(())
    }

    fn columns(
        &self,
        how: &str,
        [expected, actual]: [&[f32]; 2],
        width: usize,
        tolerance: f32,
    ) -> Result<(), ModelError> {
        self.that(expected.len() == actual.len(), || {
            format!("{how}: {} values, expected {}", actual.len(), expected.len())
        })?;
        let scale = column_magnitudes(expected, width);
        let off = |(i, (x, y)): (usize, (&f32, &f32))| {
            // Written so that a NaN is off.
            let near = (x - y).abs() <= tolerance * scale[i % width].max(f32::MIN_POSITIVE);
            (!near).then_some((i, *x, *y))
        };
        match expected.iter().zip(actual).enumerate().find_map(off) {
            None => Ok(()),
            Some((i, x, y)) => self.that(false, || {
                format!(
                    "{how}: entry {i} (column {}) is {y}, expected {x} within {}",
                    i % width,
                    tolerance * scale[i % width]
                )
            }),
        }
    }
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
