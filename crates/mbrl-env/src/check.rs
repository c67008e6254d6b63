//! Tests to run on your own environments: do they keep the contract that the rest of `mbrl` builds on?
//!
//! Each check returns the first broken rule as [`EnvError::Check`], or the environment's own error where it fails to run
//! at all. Put them into a test:
//!
//! ```
//! use mbrl_env::{Device, Rng, check, tasks};
//!
//! let mut task = tasks::make("mountain-car")?;
//! check::check_env(&mut task.env)?;
//! check::check_simulator(task.env.simulator_mut().expect("a simulator"))?;
//! let (reward, termination) = (task.reward.as_deref().expect("it has one"), task.termination.as_deref());
//! check::check_reward_agrees(&mut task.env, reward, termination, 5, &Device::flex(), &mut Rng::new(0))?;
//! # Ok::<(), mbrl_env::EnvError>(())
//! ```
//!
//! The checks use uniformly random actions. Where a box has no limit, they reach one unit from 0 or from its other limit.

use burn::tensor::{Device, Tensor, TensorData};

use crate::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, FieldKind, Info, Replay, Reward, Rng, Simulator, Snapshot, Step,
    Termination, Transition,
};

pub use crate::knowledge::check::{check_augment, check_features, check_known};

/// Steps of each trial run.
const STEPS: usize = 200;
/// After this many steps an episode is assumed never to end.
const LONGEST_EPISODE: usize = 2_000;
/// Relative to max(1, |reward|).
///
/// A batch reward sees observations rounded to `f32` and computes in it; the environment may compute its own from a state in
/// `f64`. One rounding is 6e-8 of a number; a handful of operations, and slopes of the order of ten, raise that to 1e-6. A wrong
/// constant or the wrong side of a step shows at 1e-3 and above.
const REWARD_TOLERANCE: f64 = 1e-5;

/// Checks the contract of [`Env`] on an environment that has not begun an episode:
///
/// - its specification makes sense: a name, at least one entry in observations and actions, a positive period, fields that
///   describe the columns ([`EnvSpec::check_fields`]);
/// - `step` before the first `reset` is [`EnvError::NeedsReset`], and so is one after the end of an episode;
/// - observations have the specification's width, are finite and inside of its space; flags are 0 or 1, and an angle that
///   wraps stays within one turn; rewards are finite;
/// - every step has the same names in its info, and finite numbers;
/// - no episode is longer than [`EnvSpec::max_steps`], where that is given;
/// - the same seed and actions give the same bits, whatever happened before; so do later starts without a
///   seed;
/// - an action of the wrong width or with a NaN is refused with [`EnvError::Width`] or [`EnvError::NonFinite`], and
///   changes nothing;
/// - an action outside of the bounds is accepted.
///
/// It cannot see whether `truncated` comes from a wrapper.
///
/// # Errors
/// [`EnvError::Check`] for a broken rule, or what the environment itself returns.
pub fn check_env(env: &mut (impl Env + ?Sized)) -> Result<(), EnvError> {
    let name = env.spec().name.clone();
    let fail = |reason: String| broken(&name, reason);
    let spec = env.spec().clone();
    if name.is_empty() {
        return Err(fail("its name is empty".into()));
    }
    spec.check().map_err(|error| fail(error.to_string()))?;

    let mut rng = Rng::new(0);
    let actions = trial_actions(&spec.actions);
    let action = actions.sample(&mut rng)?;
    refuses_step(env, &action, "before the first reset")?;

    // Runs with different histories: the second follows the first, the third an interrupted episode.
    let first = run(env, Some(1), &[])?;
    let second = run(env, Some(1), &[])?;
    env.reset(Some(2))?;
    env.step(&action)?;
    let third = run(env, Some(1), &[])?;
    for other in [&second, &third] {
        if let Some(difference) = first.difference(other) {
            return Err(fail(format!("two runs of one seed differ: {difference}")));
        }
    }

    // Starts without a seed continue with the generator that the last seed set.
    let follow_up = |env: &mut _| -> Result<_, EnvError> {
        run(env, Some(3), &[])?;
        run(env, None, &[])
    };
    if let Some(difference) = follow_up(env)?.difference(&follow_up(env)?) {
        return Err(fail(format!("two runs without a seed, after runs of one seed, differ: {difference}")));
    }

    // A run that is disturbed by bad actions goes as if they had not been given.
    let mut nan = action.clone();
    nan[0] = f32::NAN;
    let mut infinite = action.clone();
    infinite[0] = f32::INFINITY;
    let too_wide = [&action[..], &[0.0]].concat();
    let disturbed = run(env, Some(1), &[nan, infinite, too_wide, action[1..].to_vec()])?;
    if let Some(difference) = first.difference(&disturbed) {
        return Err(fail(format!("a refused action changed the episode: {difference}")));
    }

    if let ActionSpace::Box(space) = &actions {
        env.reset(Some(4))?;
        let beyond: Vec<f32> = space.high().iter().zip(space.low()).map(|(high, low)| high + (high - low)).collect();
        let step = env
            .step(&beyond)
            .map_err(|error| fail(format!("it refused an action outside of the bounds, expected clipping: {error}")))?;
        check_step(&spec, &step)?;
    }

    // A whole episode, if it is not too long.
    let mut watch = Watch::new(&spec, &env.reset(Some(5))?)?;
    for _ in 0..LONGEST_EPISODE {
        let action = actions.sample(&mut rng)?;
        let step = env.step(&action)?;
        watch.step(&step)?;
        if step.episode_over() {
            refuses_step(env, &action, "after the end of an episode")?;
            break;
        }
    }
    Ok(())
}

/// Checks the contract of [`Simulator`], beyond [`check_env`]:
///
/// - a restored snapshot continues with the same bits, more than once, also after the end of an episode and after another
///   reset; the generator of starts is part of it;
/// - a snapshot taken at the end of an episode restores an ended episode;
/// - a clone continues with the same bits, and neither changes the other;
/// - a clone accepts snapshots of its original;
/// - a foreign snapshot is [`EnvError::ForeignSnapshot`] and changes nothing.
///
/// # Errors
/// [`EnvError::Check`] for a broken rule, or what the simulator itself returns.
pub fn check_simulator(sim: &mut (impl Simulator + ?Sized)) -> Result<(), EnvError> {
    struct Foreign;

    let name = sim.spec().name.clone();
    let fail = |reason: String| broken(&name, reason);
    let spec = sim.spec().clone();
    let (actions, mut rng) = (trial_actions(&spec.actions), Rng::new(0));

    sim.reset(Some(1))?;
    for _ in 0..3 {
        if sim.step(&actions.sample(&mut rng)?)?.episode_over() {
            sim.reset(None)?;
        }
    }
    let snapshot = sim.save();
    let mut clone = sim.boxed_clone();
    let original = go_on(sim)?;

    sim.reset(Some(2))?;
    for attempt in ["a restored snapshot", "a snapshot restored for the second time"] {
        sim.restore(&snapshot)?;
        if let Some(difference) = original.difference(&go_on(sim)?) {
            return Err(fail(format!("{attempt} does not go on as the original: {difference}")));
        }
    }
    // The clone was made before the original continued, so this also shows that the original did not change it.
    if let Some(difference) = original.difference(&go_on(&mut *clone)?) {
        return Err(fail(format!("a clone does not go on as the original, or not independently of it: {difference}")));
    }
    sim.restore(&snapshot)?;
    let own = |error: EnvError| fail(format!("a clone does not take its original's snapshot: {error}"));
    clone.restore(&snapshot).map_err(own)?;
    if let Some(difference) = original.difference(&go_on(&mut *clone)?) {
        return Err(fail(format!("a clone does not go on from its original's snapshot: {difference}")));
    }
    if let Some(difference) = original.difference(&go_on(sim)?) {
        return Err(fail(format!("what its clone did changed it: {difference}")));
    }

    sim.restore(&snapshot)?;
    match sim.restore(&Snapshot::new(Foreign)) {
        Err(EnvError::ForeignSnapshot { .. }) => {}
        Err(other) => return Err(fail(format!("a foreign snapshot gave `{other}`, expected ForeignSnapshot"))),
        Ok(()) => return Err(fail("it took a foreign snapshot".into())),
    }
    if let Some(difference) = original.difference(&go_on(sim)?) {
        return Err(fail(format!("a foreign snapshot that was refused changed it: {difference}")));
    }

    // Where an episode has ended; without an end there is nothing more to check.
    sim.reset(Some(3))?;
    let mut ended = false;
    for _ in 0..LONGEST_EPISODE {
        ended = sim.step(&actions.sample(&mut rng)?)?.episode_over();
        if ended {
            break;
        }
    }
    if !ended {
        return Ok(());
    }
    let end = sim.save();
    sim.restore(&snapshot)?;
    let stuck = |why: String| fail(format!("a snapshot restored after the end of an episode does not go on: {why}"));
    let gone_on = go_on(sim).map_err(|error| stuck(error.to_string()))?;
    if let Some(difference) = original.difference(&gone_on) {
        return Err(stuck(difference));
    }
    sim.restore(&end)?;
    refuses_step(sim, &actions.sample(&mut rng)?, "after the end of an episode, in a restored snapshot")
}

/// Checks a batch reward and a termination rule against an environment, on random transitions of `episodes` episodes:
///
/// - rewards have one entry per row and agree with the environment's to 1e-5 of max(1, |reward|), at steps that terminate
///   too;
/// - the rule says `terminated` exactly where the environment does; without a rule the environment must never terminate;
/// - rows do not depend on each other: some rows alone, including ones that terminate, give the same values as in the batch.
///
/// A terminal state so close to a threshold that rounding the observation to `f32` moves it across is also reported; this
/// happens in about one step in 10⁷.
///
/// Where planners are to see another reward for the terminating step than the environment gives, use
/// [`check_reward_agrees_until_termination`].
///
/// # Errors
/// [`EnvError::Check`] for a disagreement, or what the environment itself returns.
pub fn check_reward_agrees(
    env: &mut (impl Env + ?Sized),
    reward: &dyn Reward,
    termination: Option<&dyn Termination>,
    episodes: usize,
    device: &Device,
    rng: &mut Rng,
) -> Result<(), EnvError> {
    reward_agrees(env, reward, termination, episodes, device, rng, true)
}

/// As [`check_reward_agrees`], except for the rewards of steps that terminate: for tasks where the two differ there by
/// convention. [`CartPole`](crate::tasks::CartPole) gives 1 for the step that fails, as upstream does, and nothing to planners.
///
/// # Errors
/// As [`check_reward_agrees`].
pub fn check_reward_agrees_until_termination(
    env: &mut (impl Env + ?Sized),
    reward: &dyn Reward,
    termination: Option<&dyn Termination>,
    episodes: usize,
    device: &Device,
    rng: &mut Rng,
) -> Result<(), EnvError> {
    reward_agrees(env, reward, termination, episodes, device, rng, false)
}

fn reward_agrees(
    env: &mut (impl Env + ?Sized),
    reward: &dyn Reward,
    termination: Option<&dyn Termination>,
    episodes: usize,
    device: &Device,
    rng: &mut Rng,
    at_termination: bool,
) -> Result<(), EnvError> {
    let spec = env.spec().clone();
    let fail = |reason: String| broken(&format!("reward and termination of {}", spec.name), reason);
    let actions = trial_actions(&spec.actions);
    let mut seen = Replay::new(spec.obs.width(), spec.actions.width(), usize::MAX)?;
    for _ in 0..episodes {
        let mut obs = env.reset(Some(rng.key()))?;
        for _ in 0..LONGEST_EPISODE {
            let action = actions.sample(rng)?;
            let Step { obs: next_obs, reward, terminated, truncated, .. } = env.step(&action)?;
            let transition = Transition { obs, action, reward, next_obs, terminated, truncated };
            seen.push(&transition)?;
            if transition.episode_over() {
                break;
            }
            obs = transition.next_obs;
        }
        seen.end_episode();
    }
    if seen.is_empty() {
        return Err(EnvError::TooLittleData { what: "a check of the reward", actual: 0, needed: 1 });
    }

    let n = seen.len();
    let judge = |positions: &mut dyn Iterator<Item = usize>| -> Result<(Vec<f32>, Vec<bool>), EnvError> {
        let rows = seen.gather(positions);
        let n = rows.len();
        let tensor =
            |column: &[f32], width: usize| Tensor::<2>::from_data(TensorData::new(column.to_vec(), [n, width]), device);
        let inputs = || {
            (
                tensor(&rows.obs, rows.obs_width),
                tensor(&rows.actions, rows.action_width),
                tensor(&rows.next_obs, rows.obs_width),
            )
        };
        let (obs, actions, next_obs) = inputs();
        let rewards: Vec<f32> = reward.reward(obs, actions, next_obs).into_data().iter::<f32>().collect();
        let ends: Vec<bool> = match termination {
            None => vec![false; n],
            Some(rule) => {
                let (obs, actions, next_obs) = inputs();
                rule.terminated(obs, actions, next_obs).into_data().iter::<bool>().collect()
            }
        };
        if rewards.len() != n || ends.len() != n {
            let (rewards, ends) = (rewards.len(), ends.len());
            return Err(fail(format!("{rewards} rewards and {ends} terminations, expected {n} of each")));
        }
        Ok((rewards, ends))
    };

    let (rewards, ends) = judge(&mut (0..n))?;
    let truth = seen.columns();
    for row in 0..n {
        let (expected, batch) = (truth.rewards[row], f64::from(rewards[row]));
        let context = || {
            format!(
                "obs {:?}, action {:?}, next obs {:?}",
                row_of(&truth.obs, n, row),
                row_of(&truth.actions, n, row),
                row_of(&truth.next_obs, n, row)
            )
        };
        if truth.terminated[row] != ends[row] {
            let (env, rule) = (truth.terminated[row], ends[row]);
            return Err(fail(format!("the environment says terminated = {env}, the rule {rule}, at {}", context())));
        }
        // Written so that NaN fails.
        let agrees = (batch - expected).abs() <= REWARD_TOLERANCE * expected.abs().max(1.0);
        let is_compared = at_termination || !truth.terminated[row];
        if is_compared && !agrees {
            return Err(fail(format!("the environment pays {expected}, the batch reward {batch}, at {}", context())));
        }
    }
    // Rows at random, and some that terminate, since these are rare.
    let terminal = (0..n).filter(|&row| ends[row]).take(3);
    for row in terminal.chain((0..10).map(|_| rng.below(n)).collect::<Vec<_>>()) {
        let (alone, end) = judge(&mut std::iter::once(row))?;
        let agrees = (alone[0] - rewards[row]).abs() <= REWARD_TOLERANCE as f32 * rewards[row].abs().max(1.0);
        if !(agrees && end[0] == ends[row]) {
            let (rewards, ends) = ((alone[0], rewards[row]), (end[0], ends[row]));
            return Err(fail(format!("a row alone and in the batch: rewards {rewards:?}, terminated {ends:?}")));
        }
    }
    Ok(())
}

/// The results of a run, as bits.
#[derive(Debug, Default)]
struct Trace {
    observations: Vec<Vec<u32>>,
    rewards: Vec<u64>,
    flags: Vec<(bool, bool)>,
    infos: Vec<Vec<u64>>,
}

impl Trace {
    fn start(&mut self, obs: &[f32]) {
        self.observations.push(obs.iter().map(|entry| entry.to_bits()).collect());
    }

    fn step(&mut self, step: &Step) {
        self.start(&step.obs);
        self.rewards.push(step.reward.to_bits());
        self.flags.push((step.terminated, step.truncated));
        self.infos.push(step.info.values().map(|value| value.to_bits()).collect());
    }

    /// Where two traces diverge, in words.
    fn difference(&self, other: &Self) -> Option<String> {
        let at = |index: Option<usize>| index.map(|step| format!("at step {step}"));
        let parted = |what: &str, index: Option<usize>| at(index).map(|at| format!("{what} {at}"));
        fn first<T: PartialEq>(a: &[T], b: &[T]) -> Option<usize> {
            let common = a.iter().zip(b).position(|(a, b)| a != b);
            common.or_else(|| (a.len() != b.len()).then_some(a.len().min(b.len())))
        }
        parted("observations", first(&self.observations, &other.observations))
            .or_else(|| parted("rewards", first(&self.rewards, &other.rewards)))
            .or_else(|| parted("flags", first(&self.flags, &other.flags)))
            .or_else(|| parted("infos", first(&self.infos, &other.infos)))
    }
}

/// Actions to try: from the space, within one unit where it has no limit.
pub(crate) fn trial_actions(actions: &ActionSpace) -> ActionSpace {
    let ActionSpace::Box(space) = actions else { return actions.clone() };
    let limits = space.low().iter().zip(space.high()).map(|(&low, &high)| match (low.is_finite(), high.is_finite()) {
        (true, true) => (low, high),
        (true, false) => (low, low + 1.0),
        (false, true) => (high - 1.0, high),
        (false, false) => (-1.0, 1.0),
    });
    let (low, high): (Vec<f32>, Vec<f32>) = limits.unzip();
    BoxSpace::new(low, high).map_or_else(|_| actions.clone(), ActionSpace::Box)
}

/// One episode, or [`STEPS`] steps of it, under actions that depend on the step alone. After the second step each of
/// `refused` is tried.
fn run(env: &mut (impl Env + ?Sized), seed: Option<u64>, refused: &[Vec<f32>]) -> Result<Trace, EnvError> {
    let spec = env.spec().clone();
    let actions = trial_actions(&spec.actions);
    let (mut trace, mut rng) = (Trace::default(), Rng::new(17));
    let obs = env.reset(seed)?;
    let mut watch = Watch::new(&spec, &obs)?;
    trace.start(&obs);
    for index in 0..STEPS {
        if index == 2 {
            for action in refused {
                let expected = if action.len() == spec.actions.width() { "NonFinite" } else { "Width" };
                match env.step(action) {
                    Err(EnvError::Width { .. }) if expected == "Width" => {}
                    Err(EnvError::NonFinite { .. }) if expected == "NonFinite" => {}
                    Err(other) => {
                        return Err(broken(
                            &spec.name,
                            format!("action {action:?} gave `{other}`, expected {expected}"),
                        ));
                    }
                    Ok(_) => {
                        return Err(broken(&spec.name, format!("it took the action {action:?}, expected {expected}")));
                    }
                }
            }
        }
        let step = env.step(&actions.sample(&mut rng)?)?;
        watch.step(&step)?;
        trace.step(&step);
        if step.episode_over() {
            break;
        }
    }
    Ok(trace)
}

/// [`STEPS`] steps from here on, through resets without a seed.
fn go_on(sim: &mut (impl Simulator + ?Sized)) -> Result<Trace, EnvError> {
    let spec = sim.spec().clone();
    let actions = trial_actions(&spec.actions);
    let (mut trace, mut rng) = (Trace::default(), Rng::new(23));
    for _ in 0..STEPS {
        let step = sim.step(&actions.sample(&mut rng)?)?;
        trace.step(&step);
        if step.episode_over() {
            trace.start(&sim.reset(None)?);
        }
    }
    trace.start(&sim.reset(None)?);
    Ok(trace)
}

fn refuses_step(env: &mut (impl Env + ?Sized), action: &[f32], when: &str) -> Result<(), EnvError> {
    let name = env.spec().name.clone();
    match env.step(action) {
        Err(EnvError::NeedsReset { .. }) => Ok(()),
        Err(other) => Err(broken(&name, format!("a step {when} gave `{other}`, expected NeedsReset"))),
        Ok(_) => Err(broken(&name, format!("it took a step {when}, expected NeedsReset"))),
    }
}

/// Watches an episode for faults that show only over several steps.
struct Watch<'a> {
    spec: &'a EnvSpec,
    steps: u32,
    /// The info of the first step.
    first: Option<Info>,
    /// Smallest and largest value of each column.
    range: Vec<[f32; 2]>,
}

impl<'a> Watch<'a> {
    fn new(spec: &'a EnvSpec, start: &[f32]) -> Result<Self, EnvError> {
        check_obs(spec, start)?;
        Ok(Self { spec, steps: 0, first: None, range: start.iter().map(|&x| [x, x]).collect() })
    }

    fn step(&mut self, step: &Step) -> Result<(), EnvError> {
        let fail = |reason: String| Err(broken(&self.spec.name, reason));
        check_step(self.spec, step)?;
        self.steps += 1;
        if let Some(most) = self.spec.max_steps
            && (self.steps > most || self.steps == most && !step.episode_over())
        {
            return fail(format!("an episode goes on after {} steps, expected at most {most}", self.steps));
        }
        let names = |info: &Info| info.keys().map(|name| name.to_string()).collect::<Vec<_>>();
        let (first, now) = (names(self.first.get_or_insert_with(|| step.info.clone())), names(&step.info));
        if first != now {
            return fail(format!("info has the names {now:?} at step {}, expected {first:?} as at first", self.steps));
        }
        for ([low, high], x) in self.range.iter_mut().zip(&step.obs) {
            (*low, *high) = (low.min(*x), high.max(*x));
        }
        for angle in self.spec.angles().iter().filter(|angle| angle.wraps) {
            let [low, high] = self.range[angle.column];
            // A range that exceeds one turn only by rounding is no fault.
            if high - low > angle.turn * (1.0 + 1e-5) {
                let (column, turn) = (angle.column, angle.turn);
                return fail(format!(
                    "column {column} goes from {low} to {high}, expected one turn of {turn} as it wraps"
                ));
            }
        }
        Ok(())
    }
}

fn check_step(spec: &EnvSpec, step: &Step) -> Result<(), EnvError> {
    check_obs(spec, &step.obs)?;
    if let Some((name, value)) = step.info.iter().find(|(_, value)| !value.is_finite()) {
        return Err(broken(&spec.name, format!("info has {name} = {value}, expected a finite number")));
    }
    if step.reward.is_finite() {
        return Ok(());
    }
    Err(broken(&spec.name, format!("reward {}, expected a finite number", step.reward)))
}

fn check_obs(spec: &EnvSpec, obs: &[f32]) -> Result<(), EnvError> {
    if obs.len() != spec.obs.width() {
        return Err(broken(&spec.name, format!("observation of {} entries, expected {}", obs.len(), spec.obs.width())));
    }
    if obs.iter().any(|entry| !entry.is_finite()) {
        return Err(broken(&spec.name, format!("observation {obs:?}, expected finite numbers")));
    }
    if !spec.obs.contains(obs) {
        let (low, high) = (spec.obs.low(), spec.obs.high());
        return Err(broken(&spec.name, format!("observation {obs:?}, expected between {low:?} and {high:?}")));
    }
    let mut start = 0;
    for field in &spec.fields {
        let values = &obs[start..start + field.width()];
        start += field.width();
        if field.kind == FieldKind::Flag && values.iter().any(|flag| *flag != 0.0 && *flag != 1.0) {
            return Err(broken(&spec.name, format!("flag {} is {values:?}, expected 0 or 1", field.name)));
        }
    }
    Ok(())
}

fn row_of(column: &[f32], rows: usize, row: usize) -> &[f32] {
    let width = column.len() / rows;
    &column[row * width..][..width]
}

fn broken(what: &str, reason: String) -> EnvError {
    EnvError::Check { what: what.to_owned(), reason }
}
