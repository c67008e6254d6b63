//! A physics as a model.

use std::{fmt, sync::Arc};

use burn::tensor::{Device, Tensor, TensorData};
use mbrl_env::{
    AngleColumn, Field, FieldKind,
    lanes::{Lanes, TILE},
};
use rayon::prelude::*;
use tracing::trace_span;

use super::{
    Named, Num, Parameter, Physics,
    formula::{Formula, Program},
};
use crate::{
    Draw, Dynamics, DynamicsSpec, Imagined, ModelError, Prediction, Start, Trajectories,
    dynamics::{check_particles, check_size, host_chunk, host_start, is_cpu, is_tracked, rollout_by_steps},
    ensemble::to_vec,
};

/// A [`Physics`] with values for its parameters, as a model: it has gradients, and no noise of its own.
///
/// Its state is the observation. (A physics whose observation shows only part of the state, such as positions without speeds, can be
/// [identified](super::identify()), but does not predict.)
///
/// ```
/// use mbrl_model::{Device, Dynamics, Pendulum, PhysicsModel, Tensor, check::check_dynamics};
///
/// let device = Device::flex();
/// let model = PhysicsModel::new(Pendulum::default(), 0.05, &device)?;
/// let model = model.with_known("length", 0.5)?.with_unknown("friction", 0.02)?;
/// assert_eq!(model.value("length")?, 0.5);
///
/// let (hanging, no_torque) = (Tensor::from_floats([[0.0, 0.0], [0.3, -1.0]], &device), Tensor::zeros([2, 1], &device));
/// let next: Vec<f32> = model.predict(hanging.clone(), no_torque.clone())?.mean.into_data().iter().collect();
/// assert_eq!(next[..2], [0.0, 0.0], "it hangs on");
/// check_dynamics(&model, hanging, no_torque)?;
/// # Ok::<(), mbrl_model::ModelError>(())
/// ```
#[derive(Clone)]
pub struct PhysicsModel {
    spec: DynamicsSpec,
    parameters: Vec<Parameter>,
    /// Values before any fit, `[P]`.
    #[cfg_attr(not(feature = "train"), allow(dead_code, reason = "fits alone go back to them"))]
    begun: Vec<f64>,
    period: f64,
    /// Steps of the windows that the trainer's loss looks at.
    #[cfg_attr(not(feature = "train"), allow(dead_code, reason = "fits alone look at it"))]
    pub(super) window: usize,
    equations: Arc<Equations>,
    /// One step with the values substituted.
    bound: Arc<(Formula, Program)>,
}

/// What does not depend on values.
pub(super) struct Equations {
    pub(super) states: usize,
    /// Columns of what is observed.
    pub(super) fields: Vec<Field>,
    pub(super) actions: Vec<Field>,
    pub(super) angles: Vec<AngleColumn>,
    /// Parameters, state, action → next state.
    pub(super) step: Formula,
    /// State → observation.
    pub(super) observe: Formula,
    /// Observation → state.
    pub(super) state_of: Formula,
    /// Parameters, observation, action → next observation.
    pub(super) moved: Formula,
}

impl fmt::Debug for PhysicsModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhysicsModel")
            .field("spec", &self.spec)
            .field("parameters", &self.parameters)
            .field("period", &self.period)
            .finish_non_exhaustive()
    }
}

fn config(field: &'static str, value: impl fmt::Display, rule: impl Into<String>) -> ModelError {
    ModelError::Config { field, value: value.to_string(), rule: rule.into().into() }
}

/// Names of columns, each of one number and none twice.
fn names(what: &'static str, fields: &[Field]) -> Result<Arc<[String]>, ModelError> {
    for (i, field) in fields.iter().enumerate() {
        if !field.shape.is_empty() {
            return Err(config(what, format_args!("`{}` of shape {:?}", field.name, field.shape), "single numbers"));
        }
        if fields[..i].iter().any(|other| other.name == field.name) {
            return Err(config(what, format_args!("`{}` twice", field.name), "a name for each"));
        }
    }
    Ok(fields.iter().map(|field| field.name.to_string()).collect())
}

fn angles(fields: &[Field]) -> Vec<AngleColumn> {
    let angle = |(column, field): (usize, &Field)| match field.kind {
        FieldKind::Angle { turn, wraps } => Some(AngleColumn { column, turn, wraps }),
        _ => None,
    };
    fields.iter().enumerate().filter_map(angle).collect()
}

impl PhysicsModel {
    /// A model of a physics, acted on every `period` seconds, with the initial values of its parameters. Tensors live on `device`.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a period or a value that is not positive, names that are not unique, or equations whose
    /// number of values differs from the number of names.
    ///
    /// # Panics
    /// Where the equations ask for a name that does not exist.
    pub fn new(physics: impl Physics, period: f64, device: &Device) -> Result<Self, ModelError> {
        if !(period > 0.0 && period.is_finite()) {
            return Err(config("period", period, "a positive finite number of seconds"));
        }
        let guesses = physics.parameters();
        let mut known: Vec<String> = Vec::new();
        for parameter in &guesses {
            check_value(parameter)?;
            if known.contains(&parameter.name) {
                return Err(config("parameters", format_args!("`{}` twice", parameter.name), "a name for each"));
            }
            known.push(parameter.name.clone());
        }
        let (state, fields, acts) = (physics.state(), physics.observations(), physics.actions());
        let of_parameters: Arc<[String]> = known.into();
        let [of_state, of_obs, of_actions] =
            [names("state", &state)?, names("observations", &fields)?, names("actions", &acts)?];
        let (p, s, o, a) = (of_parameters.len(), state.len(), fields.len(), acts.len());
        if s == 0 || o == 0 {
            return Err(config("state", 0, "at least one number, and one that is observed"));
        }
        let step = Formula::record(p + s + a, p, |n| {
            let x = Named::new(&of_state, &n[p..p + s]);
            let u = Named::new(&of_actions, &n[p + s..]);
            physics.step(&Named::new(&of_parameters, &n[..p]), &x, &u, period)
        });
        check_size("numbers that the equations give for the state", s, step.outputs())?;
        let observe = Formula::record(s, 0, |n| physics.observe(&Named::new(&of_state, n)));
        check_size("numbers that the equations give for the observation", o, observe.outputs())?;
        let state_of = Formula::record(o, 0, |n| physics.state_of(&Named::new(&of_obs, n)));
        check_size("numbers that the equations give for the state of an observation", s, state_of.outputs())?;
        let moved = Formula::record(p + o + a, p, |n| {
            let state = state_of.replay(&n[p..p + o]);
            let inputs: Vec<Num> = n[..p].iter().chain(&state).chain(&n[p + o..]).copied().collect();
            observe.replay(&step.replay(&inputs))
        });
        let angles = angles(&fields);
        let spec =
            DynamicsSpec::new(physics.name(), o, a, device).with_differentiable(true).with_angles(angles.clone());
        let begun = guesses.iter().map(|parameter| parameter.value).collect();
        let equations = Equations { states: s, fields, actions: acts, angles, step, observe, state_of, moved };
        let bound = bound(&equations, &guesses);
        Ok(Self { spec, parameters: guesses, begun, period, window: 5, equations: Arc::new(equations), bound })
    }

    /// The parameters with their present values.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a name that is not there.
    pub fn value(&self, name: &str) -> Result<f64, ModelError> {
        Ok(self.parameters[self.index(name)?].value)
    }

    /// With a parameter whose value is known: fits do not change it.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a name that is not there, [`ModelError::Config`] for a value that is negative or not finite.
    pub fn with_known(self, name: &str, value: f64) -> Result<Self, ModelError> {
        self.with(name, value, false)
    }

    /// With a parameter that is to be fitted, starting from a guess.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] for a name that is not there, [`ModelError::Config`] for a guess that is not positive and finite.
    pub fn with_unknown(self, name: &str, guess: f64) -> Result<Self, ModelError> {
        self.with(name, guess, true)
    }

    fn with(mut self, name: &str, value: f64, fitted: bool) -> Result<Self, ModelError> {
        let index = self.index(name)?;
        let parameter = Parameter { value, fitted, ..self.parameters[index].clone() };
        check_value(&parameter)?;
        self.parameters[index] = parameter;
        self.begun[index] = value;
        self.bound = bound(&self.equations, &self.parameters);
        Ok(self)
    }

    /// With values for all parameters, `[P]`; known ones stay known, unknown ones unknown.
    ///
    /// # Errors
    /// [`ModelError::Width`] for another number of them; [`ModelError::Config`] for values that parameters cannot have.
    pub fn with_values(mut self, values: &[f64]) -> Result<Self, ModelError> {
        self.set_values(values)?;
        Ok(self)
    }

    pub(super) fn set_values(&mut self, values: &[f64]) -> Result<(), ModelError> {
        check_size("values of parameters", self.parameters.len(), values.len())?;
        let mut parameters = self.parameters.clone();
        for (parameter, value) in parameters.iter_mut().zip(values) {
            parameter.value = *value;
            check_value(parameter)?;
        }
        self.parameters = parameters;
        self.bound = bound(&self.equations, &self.parameters);
        Ok(())
    }

    /// Back to the values before any fit.
    #[cfg(feature = "train")]
    pub(super) fn begin_again(&mut self) {
        for (parameter, value) in self.parameters.iter_mut().zip(&self.begun) {
            parameter.value = *value;
        }
        self.bound = bound(&self.equations, &self.parameters);
    }

    /// Sets the number of steps of the windows that the [trainer](crate::fit()) fits to (default 5), at least 1.
    #[must_use]
    pub fn with_window(self, steps: usize) -> Self {
        Self { window: steps.max(1), ..self }
    }

    /// The values of all parameters, `[P]`.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        self.parameters.iter().map(|parameter| parameter.value).collect()
    }

    fn index(&self, name: &str) -> Result<usize, ModelError> {
        let names = || self.parameters.iter().map(|parameter| parameter.name.clone());
        let found = names().position(|known| known == name);
        found.ok_or_else(|| ModelError::Parameter { name: name.to_owned(), known: names().collect() })
    }

    /// Seconds per step.
    #[must_use]
    pub fn period(&self) -> f64 {
        self.period
    }

    /// The columns of the observation, `[O]`.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.equations.fields
    }

    /// The columns of the action, `[A]`.
    #[must_use]
    pub fn action_fields(&self) -> &[Field] {
        &self.equations.actions
    }

    pub(super) fn equations(&self) -> &Equations {
        &self.equations
    }

    /// Indices of the parameters that are to be fitted.
    pub(super) fn unknown(&self) -> Vec<usize> {
        (0..self.parameters.len()).filter(|&i| self.parameters[i].fitted).collect()
    }

    fn check(&self, states: &Tensor<2>, actions: &Tensor<2>) -> Result<(), ModelError> {
        let [rows, width] = states.dims();
        check_size("columns of states", self.spec.state, width)?;
        check_size("columns of actions", self.spec.action, actions.dims()[1])?;
        check_size("rows of actions", rows, actions.dims()[0])
    }

    fn on_the_host(&self, tracked: bool) -> bool {
        !tracked && is_cpu(&self.spec.device)
    }

    fn next(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        self.check(&states, &actions)?;
        if self.on_the_host(states.is_autodiff() || actions.is_autodiff()) {
            let rows = states.dims()[0];
            let all = self.rolled(&to_vec(states), &to_vec(actions), [1, rows], 1);
            let next = all[rows * self.spec.obs..].to_vec();
            return Ok(Tensor::from_data(TensorData::new(next, [rows, self.spec.obs]), &self.spec.device));
        }
        let columns =
            |table: &Tensor<2>| (0..table.dims()[1]).map(|c| table.clone().narrow(1, c, 1)).collect::<Vec<_>>();
        let inputs: Vec<Tensor<2>> = columns(&states).into_iter().chain(columns(&actions)).collect();
        Ok(Tensor::cat(self.bound.0.tensors(&inputs), 1))
    }

    /// Observations `[H+1, P·K, O]` from `start` (`[K, O]` or, for all, `[1, O]`; or `[P·K, O]`) under actions `[H, K, A]`.
    fn rolled(&self, start: &[f32], actions: &[f32], [horizon, rows]: [usize; 2], particles: usize) -> Vec<f32> {
        let (o, a) = (self.spec.obs, self.spec.action);
        let program = &self.bound.1;
        // Each tile writes all its steps; they are put in order afterwards.
        let tiles: Vec<Vec<f32>> = (0..rows.div_ceil(TILE))
            .into_par_iter()
            .map(|tile| {
                let first = tile * TILE;
                let count = TILE.min(rows - first);
                let mut inputs = vec![[0.0; TILE]; o + a];
                let mut next: Vec<Lanes> = vec![[0.0; TILE]; o];
                let mut room = program.room();
                let mut out = Vec::with_capacity((horizon + 1) * count * o);
                for c in 0..o {
                    for (r, lane) in inputs[c].iter_mut().enumerate() {
                        // Lanes without a row repeat the last one.
                        let row = if start.len() == o { 0 } else { first + r.min(count - 1) };
                        *lane = start[row * o + c];
                    }
                }
                let write = |columns: &[Lanes], out: &mut Vec<f32>| {
                    for r in 0..count {
                        out.extend(columns[..o].iter().map(|column| column[r]));
                    }
                };
                write(&inputs, &mut out);
                for t in 0..horizon {
                    for c in 0..a {
                        for (r, lane) in inputs[o + c].iter_mut().enumerate() {
                            *lane = actions[(t * rows + first + r.min(count - 1)) * a + c];
                        }
                    }
                    program.run(&inputs, &mut room, &mut next);
                    inputs[..o].copy_from_slice(&next);
                    write(&next, &mut out);
                }
                out
            })
            .collect();
        let mut all = Vec::with_capacity((horizon + 1) * particles * rows * o);
        for t in 0..=horizon {
            let begin = all.len();
            for out in &tiles {
                let width = out.len() / (horizon + 1);
                all.extend_from_slice(&out[t * width..(t + 1) * width]);
            }
            // Without noise all particles are the same.
            let end = all.len();
            (1..particles).for_each(|_| all.extend_from_within(begin..end));
        }
        all
    }
}

fn bound(equations: &Equations, parameters: &[Parameter]) -> Arc<(Formula, Program)> {
    let values: Vec<f64> = parameters.iter().map(|parameter| parameter.value).collect();
    let formula = equations.moved.bind(&values);
    let program = Program::new(&formula);
    Arc::new((formula, program))
}

fn check_value(parameter: &Parameter) -> Result<(), ModelError> {
    let &Parameter { value, fitted, .. } = parameter;
    let ok = value.is_finite() && (value > 0.0 || value == 0.0 && !fitted);
    let rule = match fitted {
        true => "a positive finite number to begin with",
        false => "a finite number of at least 0",
    };
    if ok { Ok(()) } else { Err(config("parameter", format_args!("{} of {value}", parameter.name), rule)) }
}

impl Dynamics for PhysicsModel {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        self.next(states, actions).map(Prediction::new)
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        check_particles(draw.propagation.particles, states.dims()[0])?;
        self.next(states, actions).map(Imagined::new)
    }

    fn chunk_size(&self, horizon: usize, particles: usize) -> Option<usize> {
        is_cpu(&self.spec.device).then(|| host_chunk(horizon, particles, self.spec.obs))
    }

    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        if !self.on_the_host(is_tracked(&from, &actions)) {
            return rollout_by_steps(self, from, actions, draw);
        }
        let _span = trace_span!("imagine", model = %self.spec.name).entered();
        let [horizon, candidates, _] = actions.dims();
        let start = host_start(self, from, &actions)?;
        let particles = draw.propagation.particles;
        check_particles(particles, particles * candidates)?;
        let all = self.rolled(&start, &to_vec(actions), [horizon, candidates], particles);
        let shape = [horizon + 1, particles * candidates, self.spec.obs];
        Ok(Trajectories::new(Tensor::from_data(TensorData::new(all, shape), &self.spec.device)))
    }
}
