//! A model with an observation, a reward and a start: an environment.

use std::{borrow::Cow, fmt, sync::Arc};

use mujoco_rs::prelude::{MjData, MjModel};

use super::{Camera, InitialState, Model, Renderer, Sim, View, fields::parts, sim::State};
use crate::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Field, Frame, Info, LimitsConfig, Rng, Scene, Simulator, Snapshot,
    Step, check_action, field::with_unique_names, tasks::Phase, wrappers::narrowed,
};

/// The outcome of a step.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct StepOutcome {
    /// Reward.
    pub reward: f64,
    /// Whether the task reached a terminal state.
    pub terminated: bool,
    /// Named numbers for logs; the same names at every step.
    pub info: Info,
}

impl StepOutcome {
    /// A step after which the episode continues, without info.
    #[must_use]
    pub fn new(reward: f64) -> Self {
        Self { reward, terminated: false, info: Info::new() }
    }

    /// Sets whether the task reached a terminal state.
    #[must_use]
    pub fn with_terminated(mut self, terminated: bool) -> Self {
        self.terminated = terminated;
        self
    }

    /// With a number for logs.
    #[must_use]
    pub fn with_info(mut self, name: impl Into<Cow<'static, str>>, value: f64) -> Self {
        self.info.insert(name.into(), value);
        self
    }
}

/// The rules that make an environment from a simulation. Closures are enough with [`MujocoEnv::builder`]; a task with settings
/// uses its own type.
pub trait Rules: Send + Sync {
    /// Appends the observation; it is rounded to `f32` afterwards.
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>);

    /// As [`observe`](Self::observe), with what [`measure`](Self::measure) appended for the state before the step (at a start: for
    /// the start itself): for observations of change.
    fn observe_change(&self, before: &[f64], sim: &Sim, obs: &mut Vec<f64>) {
        let _ = before;
        self.observe(sim, obs);
    }

    /// The columns of the observation, for example from [`Model::position_fields`] and its siblings; `None` (the
    /// default) numbers them.
    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let _ = model;
        None
    }

    /// The state that [`start`](Self::start) moves away from: the model's own (the default), or a
    /// [keyframe](Model::keyframe).
    ///
    /// # Errors
    /// Those of the source of the state.
    fn initial_state(&self, model: &Model) -> Result<InitialState, EnvError> {
        Ok(model.initial_state())
    }

    /// Changes the initial state at an episode's start: positions and velocities, a mocap body that shows the goal.
    fn start(&self, state: &mut InitialState, rng: &mut Rng);

    /// Lets a start come to rest before the first observation: steps the simulation, and draws the episode's task (a
    /// goal, a path), which [`Sim::userdata_mut`] keeps. By default nothing happens. [`MujocoEnv::begin`] does not call it.
    ///
    /// # Errors
    /// Any that keep the episode from starting.
    fn settle(&self, sim: &mut Sim, rng: &mut Rng) -> Result<(), EnvError> {
        let _ = (sim, rng);
        Ok(())
    }

    /// The actions, if they are not the model's controls (`None`, the default): their space and their columns.
    /// [`apply`](Self::apply) then puts them into effect.
    fn actions(&self, model: &Model) -> Option<(BoxSpace, Vec<Field>)> {
        let _ = model;
        None
    }

    /// Puts an action into effect before the engine steps. By default it is written to the controls.
    fn apply(&self, action: &[f32], controls: &mut Controls<'_>) {
        controls.set_ctrl(action);
    }

    /// Appends the quantities of the state before the step that the reward needs, a position for example.
    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        let _ = (sim, measured);
    }

    /// Judges a step from the measurements before it, the simulation after it, and the action as given.
    fn judge(&self, before: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome;

    /// Whether observation or reward read forces on bodies (`cfrc_ext` and the like), which cost time.
    fn reads_body_forces(&self) -> bool {
        false
    }

    /// The camera for pictures.
    fn camera(&self, model: &Model) -> Camera {
        Camera::Free(View::of(model))
    }
}

/// What an action can act on ([`Rules::apply`]). Every part keeps its value until it is set again; an episode starts with the
/// controls of its [`InitialState`] and without forces.
pub struct Controls<'a> {
    data: &'a mut MjData<Arc<MjModel>>,
}

impl fmt::Debug for Controls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controls").field("ctrl", &self.data.ctrl()).finish_non_exhaustive()
    }
}

impl Controls<'_> {
    /// Writes an action to the controls, as [`Rules::apply`] does by default.
    fn set_ctrl(&mut self, action: &[f32]) {
        for (control, action) in self.ctrl_mut().iter_mut().zip(action) {
            *control = f64::from(*action);
        }
    }

    /// Time since the start (s).
    #[must_use]
    pub fn time(&self) -> f64 {
        self.data.time()
    }

    /// Positions, `[nq]`, as servos measure them.
    #[must_use]
    pub fn qpos(&self) -> &[f64] {
        self.data.qpos()
    }

    /// The memory of the episode ([`Sim::userdata`]).
    #[must_use]
    pub fn userdata(&self) -> &[f64] {
        self.data.userdata()
    }

    /// The same, mutable: for a goal that changes during an episode.
    pub fn userdata_mut(&mut self) -> &mut [f64] {
        self.data.userdata_mut()
    }

    /// Controls of the actuators, `[nu]`.
    pub fn ctrl_mut(&mut self) -> &mut [f64] {
        self.data.ctrl_mut()
    }

    /// Positions of mocap bodies (m), `[nmocap]`; [`Model::mocap`] gives a body's index.
    pub fn mocap_pos_mut(&mut self) -> &mut [[f64; 3]] {
        self.data.mocap_pos_mut()
    }

    /// Orientations of mocap bodies (unit quaternions, real part first), `[nmocap]`.
    pub fn mocap_quat_mut(&mut self) -> &mut [[f64; 4]] {
        self.data.mocap_quat_mut()
    }

    /// Forces and torques on the degrees of freedom in addition to those of the actuators, `[nv]`.
    pub fn qfrc_applied_mut(&mut self) -> &mut [f64] {
        self.data.qfrc_applied_mut()
    }
}

/// An environment on MuJoCo: a [`Model`] under [`Rules`].
///
/// Actions are the model's controls in their order, with their limits ([`Model::control_limits`]; infinite where it gives none),
/// or those that the rules define. A step holds them for `frame_skip` steps of the engine. A state that diverges is
/// [`EnvError::Simulation`], and the episode is over.
///
/// Your own robot:
///
/// ```
/// use mbrl_env::{Env, TimeLimit, check, mujoco::{Model, MujocoEnv}};
///
/// let model = Model::from_xml(
///     r#"<mujoco>
///          <worldbody>
///            <body name="mass"><joint name="slide" type="slide" axis="1 0 0" damping="1"/><geom size="0.1" mass="1"/></body>
///          </worldbody>
///          <actuator><motor joint="slide" ctrlrange="-1 1"/></actuator>
///        </mujoco>"#,
/// )?;
/// let mass = model.body("mass")?;
/// let env = MujocoEnv::builder(model)
///     .name("push")
///     .frame_skip(10)
///     .observe(|sim, obs| obs.extend(sim.qpos().iter().chain(sim.qvel())))
///     .start(|qpos, _qvel, rng| qpos[0] += rng.uniform_f64(-0.1, 0.1))
///     .reward(move |sim, action| -(sim.xpos(mass)[0] - 1.0).abs() - 0.01 * f64::from(action[0]).powi(2))
///     .build()?;
/// let mut env = TimeLimit::new(env, 100)?;
/// check::check_env(&mut env)?;
/// check::check_simulator(&mut env)?;
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
pub struct MujocoEnv {
    spec: Arc<EnvSpec>,
    rules: Arc<dyn Rules>,
    initial: Arc<InitialState>,
    /// Limits that the engine does not know.
    clipped_to: Option<BoxSpace>,
    sim: Sim,
    frame_skip: u32,
    rng: Rng,
    phase: Phase,
    /// The last output of [`Rules::measure`].
    measured: Vec<f64>,
    /// Buffer.
    observed: Vec<f64>,
    /// The renderer of the last picture; not shared with clones.
    renderer: Option<Renderer>,
}

impl fmt::Debug for MujocoEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MujocoEnv").field("spec", &self.spec).field("sim", &self.sim).finish_non_exhaustive()
    }
}

impl Clone for MujocoEnv {
    fn clone(&self) -> Self {
        Self {
            spec: self.spec.clone(),
            rules: self.rules.clone(),
            initial: self.initial.clone(),
            clipped_to: self.clipped_to.clone(),
            sim: self.sim.clone(),
            rng: self.rng.clone(),
            measured: self.measured.clone(),
            observed: Vec::with_capacity(self.observed.capacity()),
            renderer: None,
            ..*self
        }
    }
}

impl MujocoEnv {
    /// An environment from closures.
    pub fn builder(model: Model) -> MujocoEnvBuilder {
        MujocoEnvBuilder { model, name: "mujoco".into(), frame_skip: 1, limits: None, rules: Closures::default() }
    }

    /// An environment from rules. `frame_skip` is the number of engine steps per environment step.
    ///
    /// # Errors
    /// [`EnvError::Config`] for a `frame_skip` of 0, [`EnvError::Engine`] for rules without an action (those that leave the
    /// actions to a model without controls) or that observe nothing, [`EnvError::Fields`] for fields that do not describe
    /// observation or action, those of [`Rules::initial_state`] and of [`Sim::set_initial_state`].
    pub fn new(name: &str, model: &Model, frame_skip: u32, rules: Arc<dyn Rules>) -> Result<Self, EnvError> {
        if frame_skip == 0 {
            return Err(EnvError::Config { field: "frame_skip", value: "0".into(), rule: "at least 1" });
        }
        let mut sim = Sim::new(model)?;
        let initial = rules.initial_state(model)?;
        sim.set_initial_state(&initial)?;
        let (mut measured, mut observed) = (Vec::new(), Vec::new());
        rules.measure(&sim, &mut measured);
        rules.observe_change(&measured, &sim, &mut observed);
        let refuse = |reason: String| Err(EnvError::Engine { reason });
        if observed.is_empty() {
            return refuse(format!("{name} observes nothing"));
        }
        let (actions, action_fields) = match rules.actions(model) {
            Some(actions) => actions,
            None if model.nu() == 0 => {
                return refuse(format!(
                    "{name}: {} has no actuator: expected an `<actuator>` section in the model, or actions that move mocap \
                     bodies or apply forces (`MujocoEnvBuilder::actions`, `mocap_actions`)",
                    model.origin()
                ));
            }
            None => (model.control_limits()?, model.control_fields()),
        };
        if actions.width() == 0 {
            return refuse(format!("{name} takes no action"));
        }
        let (obs, actions) = (BoxSpace::unbounded(observed.len()), ActionSpace::Box(actions));
        let mut spec = EnvSpec::new(name, obs, actions, model.timestep() * f64::from(frame_skip))
            .with_action_fields(action_fields)?;
        if let Some(fields) = rules.fields(model) {
            spec = spec.with_fields(fields)?;
        }
        Ok(Self {
            spec: Arc::new(spec),
            rules,
            initial: Arc::new(initial),
            clipped_to: None,
            sim,
            frame_skip,
            rng: Rng::new(0),
            phase: Phase::Unbegun,
            measured,
            observed,
            renderer: None,
        })
    }

    /// The simulation. After a restore, `qpos` and `qvel` are the restored ones; quantities computed from them follow with the next
    /// step.
    #[must_use]
    pub fn sim(&self) -> &Sim {
        &self.sim
    }

    /// Begins an episode at positions `[nq]` and velocities `[nv]`, with everything else from [`Rules::initial_state`], and returns
    /// the observation there.
    ///
    /// # Errors
    /// As [`Sim::set_initial_state`].
    pub fn set_state(&mut self, qpos: &[f64], qvel: &[f64]) -> Result<Vec<f32>, EnvError> {
        let (qpos, qvel) = (qpos.to_vec(), qvel.to_vec());
        self.begin(&InitialState { qpos, qvel, ..(*self.initial).clone() })
    }

    /// Begins an episode at a state, and returns the observation there.
    ///
    /// # Errors
    /// As [`Sim::set_initial_state`].
    pub fn begin(&mut self, state: &InitialState) -> Result<Vec<f32>, EnvError> {
        self.begin_with(state, |_, _, _| Ok(()))
    }

    /// Begins an episode at a state, which `settle` may change before the first observation.
    fn begin_with(
        &mut self,
        state: &InitialState,
        settle: impl FnOnce(&dyn Rules, &mut Sim, &mut Rng) -> Result<(), EnvError>,
    ) -> Result<Vec<f32>, EnvError> {
        self.phase = Phase::Unbegun;
        self.sim.set_initial_state(state)?;
        settle(&*self.rules, &mut self.sim, &mut self.rng)?;
        self.remember();
        let obs = self.observation()?;
        self.phase = Phase::Running;
        Ok(obs)
    }

    fn remember(&mut self) {
        self.measured.clear();
        self.rules.measure(&self.sim, &mut self.measured);
    }

    fn observation(&mut self) -> Result<Vec<f32>, EnvError> {
        self.observed.clear();
        self.rules.observe_change(&self.measured, &self.sim, &mut self.observed);
        crate::check_width("observation", self.spec.obs.width(), self.observed.len())?;
        let obs: Vec<f32> = self.observed.iter().map(|x| *x as f32).collect();
        if let Some(index) = obs.iter().position(|x| !x.is_finite()) {
            let reason = format!("entry {index} of the observation is {}", obs[index]);
            return Err(EnvError::Simulation { time: self.sim.time(), reason });
        }
        Ok(obs)
    }

    fn advance(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.rules.apply(action, &mut Controls { data: self.sim.data_mut() });
        self.sim.advance(self.frame_skip)?;
        if self.rules.reads_body_forces() {
            self.sim.compute_body_forces()?;
        }
        let StepOutcome { reward, terminated, info } = self.rules.judge(&self.measured, &self.sim, action);
        let obs = self.observation()?;
        if !reward.is_finite() {
            return Err(EnvError::Simulation { time: self.sim.time(), reason: format!("the reward is {reward}") });
        }
        self.remember();
        if !terminated {
            self.phase = Phase::Running;
        }
        let mut step = Step::new(obs, reward).with_terminated(terminated);
        step.info = info;
        Ok(step)
    }
}

impl Env for MujocoEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        let mut state = (*self.initial).clone();
        self.rules.start(&mut state, &mut self.rng);
        self.begin_with(&state, |rules, sim, rng| rules.settle(sim, rng))
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.phase.require_running(&self.spec.name)?;
        check_action(&self.spec, action)?;
        // Set until the step succeeds: after an error, or a panic of the rules, the simulation's state is undefined.
        self.phase = Phase::Over;
        match &self.clipped_to {
            Some(limits) => self.advance(&limits.clipped(action)),
            None => self.advance(action),
        }
    }

    fn render(&mut self, width: u32, height: u32) -> Result<Frame, EnvError> {
        let kept = self.renderer.take().filter(|kept| (kept.width(), kept.height()) == (width, height));
        let renderer = match kept {
            Some(kept) => kept,
            None => {
                let model = self.sim.model();
                Renderer::new(model, width, height, &self.rules.camera(model))?
            }
        };
        self.renderer.insert(renderer).draw(&self.sim)
    }

    fn scene(&mut self) -> Option<Scene> {
        let camera = self.rules.camera(self.sim.model());
        Some(self.sim.scene(&camera))
    }
}

/// The engine's complete state and the environment's own.
#[derive(Debug)]
struct Saved {
    /// Shared by the environment and its clones, and by no other.
    spec: Arc<EnvSpec>,
    state: State,
    measured: Vec<f64>,
    rng: Rng,
    phase: Phase,
}

impl Simulator for MujocoEnv {
    fn save(&self) -> Snapshot {
        Snapshot::new(Saved {
            spec: self.spec.clone(),
            state: self.sim.state(),
            measured: self.measured.clone(),
            rng: self.rng.clone(),
            phase: self.phase,
        })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        let foreign = || EnvError::ForeignSnapshot { env: self.spec.name.clone() };
        let saved = snapshot.get::<Saved>().ok_or_else(foreign)?;
        // Other rules would mistake these measurements for their own.
        if !Arc::ptr_eq(&saved.spec, &self.spec) {
            return Err(foreign());
        }
        self.sim.set_whole_state(&saved.state)?;
        self.measured.clone_from(&saved.measured);
        self.rng.clone_from(&saved.rng);
        self.phase = saved.phase;
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Simulator> {
        Box::new(self.clone())
    }
}

type Observe = Box<dyn Fn(&Sim, &mut Vec<f64>) + Send + Sync>;
type Start = Box<dyn Fn(&mut InitialState, &mut Rng) + Send + Sync>;
type Apply = Box<dyn Fn(&[f32], &mut Controls<'_>) + Send + Sync>;
type Pay = Box<dyn Fn(&[f64], &Sim, &[f32]) -> f64 + Send + Sync>;
type End = Box<dyn Fn(&Sim) -> bool + Send + Sync>;

/// Rules from closures.
#[derive(Default)]
struct Closures {
    observe: Option<Observe>,
    fields: Option<Vec<Field>>,
    measure: Option<Observe>,
    keyframe: Option<String>,
    start: Option<Start>,
    actions: Option<(BoxSpace, Vec<Field>, Apply)>,
    reward: Option<Pay>,
    terminated: Option<End>,
    body_forces: bool,
    camera: Option<Camera>,
}

impl Rules for Closures {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        match &self.observe {
            Some(observe) => observe(sim, obs),
            None => obs.extend(sim.qpos().iter().chain(sim.qvel())),
        }
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let joints = || with_unique_names([model.position_fields(), model.velocity_fields()].concat());
        self.fields.clone().or_else(|| self.observe.is_none().then(joints))
    }

    fn initial_state(&self, model: &Model) -> Result<InitialState, EnvError> {
        self.keyframe.as_deref().map_or_else(|| Ok(model.initial_state()), |name| model.keyframe(name))
    }

    fn start(&self, state: &mut InitialState, rng: &mut Rng) {
        if let Some(start) = &self.start {
            start(state, rng);
        }
    }

    fn actions(&self, _: &Model) -> Option<(BoxSpace, Vec<Field>)> {
        self.actions.as_ref().map(|(space, fields, _)| (space.clone(), fields.clone()))
    }

    fn apply(&self, action: &[f32], controls: &mut Controls<'_>) {
        match &self.actions {
            Some((_, _, apply)) => apply(action, controls),
            None => controls.set_ctrl(action),
        }
    }

    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        if let Some(measure) = &self.measure {
            measure(sim, measured);
        }
    }

    fn judge(&self, before: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome {
        StepOutcome::new(self.reward.as_ref().map_or(0.0, |reward| reward(before, sim, action)))
            .with_terminated(self.terminated.as_ref().is_some_and(|terminated| terminated(sim)))
    }

    fn reads_body_forces(&self) -> bool {
        self.body_forces
    }

    fn camera(&self, model: &Model) -> Camera {
        self.camera.clone().unwrap_or_else(|| Camera::Free(View::of(model)))
    }
}

/// Builds a [`MujocoEnv`] from closures. Defaults: the observation is positions and velocities, the start is the model's
/// own, the reward is 0, episodes never terminate.
#[must_use]
pub struct MujocoEnvBuilder {
    model: Model,
    name: String,
    frame_skip: u32,
    limits: Option<LimitsConfig>,
    rules: Closures,
}

impl fmt::Debug for MujocoEnvBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MujocoEnvBuilder").field("name", &self.name).field("model", &self.model).finish_non_exhaustive()
    }
}

impl MujocoEnvBuilder {
    /// The name of the environment.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Steps of the engine per step of the environment (default: 1).
    pub fn frame_skip(mut self, count: u32) -> Self {
        self.frame_skip = count;
        self
    }

    /// The columns of the observation (default: numbered; if no other observation is given, positions and velocities named after
    /// their joints).
    pub fn fields(mut self, fields: impl Into<Vec<Field>>) -> Self {
        self.rules.fields = Some(fields.into());
        self
    }

    /// Appends the observation.
    pub fn observe(mut self, observe: impl Fn(&Sim, &mut Vec<f64>) + Send + Sync + 'static) -> Self {
        self.rules.observe = Some(Box::new(observe));
        self
    }

    /// Begins episodes at a keyframe of the model, instead of its own initial state.
    pub fn keyframe(mut self, name: impl Into<String>) -> Self {
        self.rules.keyframe = Some(name.into());
        self
    }

    /// Changes the initial `qpos` and `qvel` at an episode's start.
    pub fn start(self, start: impl Fn(&mut [f64], &mut [f64], &mut Rng) + Send + Sync + 'static) -> Self {
        self.start_state(move |state, rng| start(&mut state.qpos, &mut state.qvel, rng))
    }

    /// Changes the initial state at an episode's start: a goal that is a mocap body, activations, positions and
    /// velocities.
    ///
    /// ```
    /// # use mbrl_env::{Env, mujoco::{Model, MujocoEnv}};
    /// # let model = Model::from_xml(
    /// #     r#"<mujoco>
    /// #          <worldbody>
    /// #            <body name="goal" mocap="true"><geom size="0.05" contype="0" conaffinity="0"/></body>
    /// #            <body><joint name="x" type="slide" axis="1 0 0"/><geom size="0.1"/></body>
    /// #          </worldbody>
    /// #          <actuator><motor joint="x" ctrlrange="-1 1"/></actuator>
    /// #        </mujoco>"#,
    /// # )?;
    /// let goal = model.mocap("goal")?;
    /// let mut env = MujocoEnv::builder(model)
    ///     .observe(move |sim, obs| obs.extend([sim.qpos()[0], sim.qvel()[0], sim.data().mocap_pos()[goal][0]]))
    ///     .start_state(move |state, rng| state.mocap_pos[goal][0] = rng.uniform_f64(-1.0, 1.0))
    ///     .build()?;
    /// let (first, second) = (env.reset(Some(0))?, env.reset(None)?);
    /// assert_ne!(first[2], second[2]);
    /// # Ok::<(), mbrl_env::EnvError>(())
    /// ```
    pub fn start_state(mut self, start: impl Fn(&mut InitialState, &mut Rng) + Send + Sync + 'static) -> Self {
        self.rules.start = Some(Box::new(start));
        self
    }

    /// Limits of the actions, if the model gives none or they should be narrower: `[-1, 1]` for all, or by name
    /// ([`LimitsConfig`]). Actions are clipped to them.
    pub fn control_limits(mut self, limits: LimitsConfig) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Your own actions instead of the model's controls: their space, their columns, and what they act on.
    pub fn actions(
        mut self,
        space: BoxSpace,
        fields: impl Into<Vec<Field>>,
        apply: impl Fn(&[f32], &mut Controls<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.rules.actions = Some((space, fields.into(), Box::new(apply)));
        self
    }

    /// Actions that move a mocap body by at most `step` (m) per step along each axis: for robots that are welded to one, such as
    /// Gymnasium-Robotics' Fetch.
    ///
    /// # Errors
    /// [`EnvError::UnknownName`] for a name that belongs to no mocap body, [`EnvError::Bounds`] for a negative `step`.
    pub fn mocap_actions(self, body: &str, step: f32) -> Result<Self, EnvError> {
        let mocap = self.model.mocap(body)?;
        let fields = parts(body, &["dx", "dy", "dz"], "m");
        Ok(self.actions(BoxSpace::symmetric(3, step)?, fields, move |action, controls| {
            for (to, by) in controls.mocap_pos_mut()[mocap].iter_mut().zip(action) {
                *to += f64::from(by.clamp(-step, step));
            }
        }))
    }

    /// The reward, from the state after a step and the action.
    pub fn reward(mut self, reward: impl Fn(&Sim, &[f32]) -> f64 + Send + Sync + 'static) -> Self {
        self.rules.reward = Some(Box::new(move |_, sim, action| reward(sim, action)));
        self
    }

    /// A reward that compares with the state before the step: `measure` appends what it needs from a state, `reward` gets
    /// the measurements before the step, the simulation after it, and the action.
    pub fn reward_of_change(
        mut self,
        measure: impl Fn(&Sim, &mut Vec<f64>) + Send + Sync + 'static,
        reward: impl Fn(&[f64], &Sim, &[f32]) -> f64 + Send + Sync + 'static,
    ) -> Self {
        self.rules.measure = Some(Box::new(measure));
        self.rules.reward = Some(Box::new(reward));
        self
    }

    /// When the task terminates.
    pub fn terminated(mut self, terminated: impl Fn(&Sim) -> bool + Send + Sync + 'static) -> Self {
        self.rules.terminated = Some(Box::new(terminated));
        self
    }

    /// Computes forces on bodies (`cfrc_ext` and the like) after each step.
    pub fn body_forces(mut self) -> Self {
        self.rules.body_forces = true;
        self
    }

    /// The camera for pictures (default: [`View::of`] the model).
    pub fn camera(mut self, camera: Camera) -> Self {
        self.rules.camera = Some(camera);
        self
    }

    /// The environment, without a time limit: wrap it in a [`TimeLimit`](crate::TimeLimit).
    ///
    /// # Errors
    /// As [`MujocoEnv::new`], [`LimitsConfig::resolve`] and [`ActionLimits::clip`](crate::ActionLimits::clip).
    pub fn build(self) -> Result<MujocoEnv, EnvError> {
        let mut env = MujocoEnv::new(&self.name, &self.model, self.frame_skip, Arc::new(self.rules))?;
        if let Some(limits) = &self.limits {
            let limits = limits.resolve(&env.spec)?;
            let spec = narrowed(&env.spec, limits.clone())?;
            (env.spec, env.clipped_to) = (Arc::new(spec), Some(limits));
        }
        Ok(env)
    }
}
