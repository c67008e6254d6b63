//! Experiments: TOML files, embedded or the user's own, with single values overridden.

use std::{fmt, fs, path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};
use mbrl_env::{
    Env, Reward, Termination, reward_fn,
    tasks::{self, Task},
    termination_fn,
};
use mbrl_model::{Bool, EnsembleConfig, FitConfig, Precision, Propagation};
use mbrl_plan::{Aggregate, PlannerConfig, Refinement, Replan};
use mbrl_policy::{Goal, ModelBasedConfig, Tensor, TrainConfig};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::near::did_you_mean;

/// The embedded experiments: name and text.
const EMBEDDED: &[(&str, &str)] = &[
    ("smoke", include_str!("../experiments/smoke.toml")),
    ("pets-cartpole-swingup", include_str!("../experiments/pets-cartpole-swingup.toml")),
    ("pets-cartpole-swingup-paper", include_str!("../experiments/pets-cartpole-swingup-paper.toml")),
    ("icem-cartpole-swingup", include_str!("../experiments/icem-cartpole-swingup.toml")),
    ("pets-cartpole", include_str!("../experiments/pets-cartpole.toml")),
    ("pddm-cartpole", include_str!("../experiments/pddm-cartpole.toml")),
    ("pets-pendulum", include_str!("../experiments/pets-pendulum.toml")),
    ("pddm-pendulum", include_str!("../experiments/pddm-pendulum.toml")),
    ("cem-reacher", include_str!("../experiments/cem-reacher.toml")),
    ("pddm-point-mass", include_str!("../experiments/pddm-point-mass.toml")),
    ("learned-reward-pendulum", include_str!("../experiments/learned-reward-pendulum.toml")),
    ("learned-end-cartpole", include_str!("../experiments/learned-end-cartpole.toml")),
    ("gradient-pendulum", include_str!("../experiments/gradient-pendulum.toml")),
    ("gradient-reacher", include_str!("../experiments/gradient-reacher.toml")),
    ("icem-reacher", include_str!("../experiments/icem-reacher.toml")),
    ("ground-truth-cartpole-swingup", include_str!("../experiments/ground-truth-cartpole-swingup.toml")),
    ("pets-inverted-pendulum", include_str!("../experiments/pets-inverted-pendulum.toml")),
    ("pets-inverted-pendulum-paper", include_str!("../experiments/pets-inverted-pendulum-paper.toml")),
    ("pets-halfcheetah", include_str!("../experiments/pets-halfcheetah.toml")),
    ("pets-halfcheetah-paper", include_str!("../experiments/pets-halfcheetah-paper.toml")),
    ("pets-pusher", include_str!("../experiments/pets-pusher.toml")),
    ("pets-pusher-paper", include_str!("../experiments/pets-pusher-paper.toml")),
    ("pets-reacher", include_str!("../experiments/pets-reacher.toml")),
    ("pets-reacher-paper", include_str!("../experiments/pets-reacher-paper.toml")),
    ("pddm-halfcheetah", include_str!("../experiments/pddm-halfcheetah.toml")),
    ("pddm-halfcheetah-paper", include_str!("../experiments/pddm-halfcheetah-paper.toml")),
    ("ground-truth-halfcheetah", include_str!("../experiments/ground-truth-halfcheetah.toml")),
    ("ground-truth-hopper", include_str!("../experiments/ground-truth-hopper.toml")),
];

/// Everything that says what a run does. Its text, with every value written out, reproduces the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub(crate) struct Experiment {
    /// Name, for folders; that of the file where left out.
    pub(crate) name: String,
    /// One line about it.
    pub(crate) summary: String,
    /// A task of the registry, and options of its own.
    pub(crate) task: String,
    pub(crate) task_options: Table,
    /// Real environment steps, random ones included.
    pub(crate) steps: u64,
    /// Seed of everything that is drawn.
    pub(crate) seed: u64,
    /// Where tensors live.
    pub(crate) device: String,
    /// How exactly roll-outs of a learned model multiply on a CPU.
    pub(crate) precision: Precision,
    /// What plans go by.
    pub(crate) dynamics: DynamicsConfig,
    pub(crate) goal: GoalConfig,
    pub(crate) planner: PlannerConfig,
    /// Gradient steps after a sampling planner's iterations; none where `iterations` is 0.
    pub(crate) refinement: Refinement,
    pub(crate) mpc: MpcConfig,
    pub(crate) train: TrainConfig,
}

/// The model of the planner.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DynamicsConfig {
    /// An ensemble that is learned.
    Ensemble(Box<LearnedConfig>),
    /// The simulator itself: nothing is learned.
    Simulator,
}

/// The sections about learning a model and planning with it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LearnedConfig {
    pub(crate) agent: ModelBasedConfig,
    pub(crate) model: EnsembleConfig,
    pub(crate) fit: FitConfig,
    pub(crate) propagation: Propagation,
}

/// An experiment as a file holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    name: String,
    #[serde(default)]
    summary: String,
    task: String,
    steps: u64,
    #[serde(default)]
    seed: u64,
    #[serde(default = "default_device")]
    device: String,
    #[serde(default)]
    precision: Precision,
    #[serde(default)]
    dynamics: DynamicsKind,
    #[serde(default)]
    task_options: Table,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<ModelBasedConfig>,
    #[serde(default)]
    goal: GoalConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<EnsembleConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fit: Option<FitConfig>,
    planner: PlannerConfig,
    #[serde(default = "Refinement::off")]
    refinement: Refinement,
    #[serde(skip_serializing_if = "Option::is_none")]
    propagation: Option<Propagation>,
    #[serde(default)]
    mpc: MpcConfig,
    #[serde(default)]
    train: TrainConfig,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DynamicsKind {
    #[default]
    Ensemble,
    Simulator,
}

impl TryFrom<Written> for Experiment {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let missing = |section| format!("missing section [{section}], which dynamics = \"ensemble\" needs");
        let (dynamics, whose) = match written.dynamics {
            DynamicsKind::Ensemble => {
                let learned = LearnedConfig {
                    agent: written.agent.unwrap_or_default(),
                    model: written.model.ok_or_else(|| missing("model"))?,
                    fit: written.fit.unwrap_or_default(),
                    propagation: written.propagation.ok_or_else(|| missing("propagation"))?,
                };
                (DynamicsConfig::Ensemble(Box::new(learned)), (RewardSource::Task, TerminationSource::Task))
            }
            // Sections about learning say nothing here.
            DynamicsKind::Simulator => (DynamicsConfig::Simulator, (RewardSource::Model, TerminationSource::Model)),
        };
        Ok(Self {
            name: written.name,
            summary: written.summary,
            task: written.task,
            task_options: written.task_options,
            steps: written.steps,
            seed: written.seed,
            device: written.device,
            precision: written.precision,
            dynamics,
            goal: GoalConfig {
                reward: written.goal.reward.or(Some(whose.0)),
                termination: written.goal.termination.or(Some(whose.1)),
                ..written.goal
            },
            planner: written.planner,
            refinement: written.refinement,
            mpc: written.mpc,
            train: written.train,
        })
    }
}

impl From<Experiment> for Written {
    fn from(experiment: Experiment) -> Self {
        let (dynamics, learned) = match experiment.dynamics {
            DynamicsConfig::Ensemble(learned) => (DynamicsKind::Ensemble, Some(*learned)),
            DynamicsConfig::Simulator => (DynamicsKind::Simulator, None),
        };
        let (agent, model, fit, propagation) = match learned {
            Some(LearnedConfig { agent, model, fit, propagation }) => {
                (Some(agent), Some(model), Some(fit), Some(propagation))
            }
            None => (None, None, None, None),
        };
        Self {
            name: experiment.name,
            summary: experiment.summary,
            task: experiment.task,
            steps: experiment.steps,
            seed: experiment.seed,
            device: experiment.device,
            precision: experiment.precision,
            dynamics,
            task_options: experiment.task_options,
            agent,
            goal: experiment.goal,
            model,
            fit,
            planner: experiment.planner,
            refinement: experiment.refinement,
            propagation,
            mpc: experiment.mpc,
            train: experiment.train,
        }
    }
}

const PLANNER_KIND: &str = "planner.kind";
const DYNAMICS: &str = "dynamics";
/// The table whose keys are the task's own.
const TASK_OPTIONS: &str = "task_options";

/// Numbers that a model or a roll-out may hold: 8 GiB of them.
const LARGEST: u64 = 1 << 31;

fn product(factors: &[usize]) -> Option<u64> {
    factors.iter().try_fold(1_u64, |product, factor| product.checked_mul(u64::try_from(*factor).ok()?))
}

/// Where tensors live unless an experiment says otherwise.
pub(crate) const DEFAULT_DEVICE: &str = "flex";

fn default_device() -> String {
    DEFAULT_DEVICE.into()
}

/// How plans are judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GoalConfig {
    /// Discount a step.
    pub(crate) discount: f32,
    /// Reward of each planned step after an end state.
    pub(crate) after_termination: f32,
    /// Whose reward: that of the task, or of the model where that is the simulator, unless it is said.
    pub(crate) reward: Option<RewardSource>,
    /// Whose end states, as with the reward.
    pub(crate) termination: Option<TerminationSource>,
    /// How the particles of a candidate count: `"mean"`, `"worst"` or `{ mean-minus-std = k }`.
    pub(crate) aggregate: Aggregate,
    /// What a planned step pays on top, for each column of the observation it leads to: this times its square. Tells plans
    /// apart that the task's reward does not; evaluations count the task's alone. None where it is empty.
    pub(crate) cost: Vec<f32>,
}

/// Who says what a planned step is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RewardSource {
    /// The task, by its equation.
    Task,
    /// The model, which has learned it (`model.reward`) or is the simulator.
    Model,
}

/// Who says where a plan is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TerminationSource {
    /// The task, by its rule.
    Task,
    /// The model, which has learned it (`model.termination`) or is the simulator.
    Model,
    /// Nobody: plans go on over end states.
    None,
}

impl Default for GoalConfig {
    fn default() -> Self {
        Self {
            discount: 1.0,
            after_termination: 0.0,
            reward: None,
            termination: None,
            aggregate: Aggregate::Mean,
            cost: Vec::new(),
        }
    }
}

impl GoalConfig {
    /// The goal on `task`, planned for with a `model` that is learned, or with the simulator.
    pub(crate) fn init(&self, task: &Task, model: Option<&EnsembleConfig>) -> Result<Goal> {
        if !(self.discount > 0.0 && self.discount <= 1.0) {
            bail!("discount = {}: a number in (0, 1]", self.discount);
        }
        if let Aggregate::MeanMinusStd(factor) = self.aggregate
            && !factor.is_finite()
        {
            bail!("aggregate: mean-minus-std = {factor}: a finite number");
        }
        if !self.after_termination.is_finite() {
            bail!("after_termination = {}: a finite number", self.after_termination);
        }
        let reward = match self.reward {
            Some(RewardSource::Model) if model.is_some_and(|model| !model.reward) => {
                bail!("reward = \"model\": a model that learns it, model.reward = true");
            }
            Some(RewardSource::Model) => None,
            Some(RewardSource::Task) | None => match &task.reward {
                Some(reward) => Some(reward.clone()),
                None if model.is_some() => bail!(
                    "reward = \"task\": the observation of {} does not hold what its reward needs; a model can learn it: \
                     model.reward = true with goal.reward = \"model\"",
                    task.env.spec().name
                ),
                None => bail!(
                    "reward = \"task\": the observation of {} does not hold what its reward needs; the simulator knows it: \
                     goal.reward = \"model\"",
                    task.env.spec().name
                ),
            },
        };
        let termination = match (self.termination, model) {
            // A simulator steps over no end, and only itself tells where its time limit cuts an episode.
            (Some(TerminationSource::Model), None) => None,
            (_, None) => bail!("termination: \"model\" where the simulator is the model"),
            (Some(TerminationSource::Model), Some(model)) if !model.termination => {
                bail!("termination = \"model\": a model that learns it, model.termination = true");
            }
            (Some(TerminationSource::Model), Some(_)) => None,
            (Some(TerminationSource::Task) | None, Some(model)) => task.termination.clone().or_else(|| never(model)),
            (Some(TerminationSource::None), Some(model)) => never(model),
        };
        let (discount, after_termination) = (self.discount, self.after_termination);
        let shaping = self.shaping(task)?;
        Ok(Goal { reward, termination, discount, after_termination, shaping, ..Goal::of_model() })
    }
}

impl GoalConfig {
    /// The cost of a planned step, as what is added to its reward.
    fn shaping(&self, task: &Task) -> Result<Option<Arc<dyn Reward>>> {
        if self.cost.is_empty() {
            return Ok(None);
        }
        let columns = task.env.spec().obs.width();
        if self.cost.len() != columns {
            bail!("cost: {} numbers; the observation has {columns} columns", self.cost.len());
        }
        if let Some(weight) = self.cost.iter().find(|weight| !weight.is_finite()) {
            bail!("cost: {weight} among its numbers; finite ones");
        }
        // Columns without a weight are not looked at: one that runs away costs nothing.
        let weights: Vec<(usize, f32)> =
            self.cost.iter().copied().enumerate().filter(|(_, weight)| *weight != 0.0).collect();
        if weights.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(reward_fn(move |_, _, next: Tensor<2>| {
            let cost = |&(column, weight): &(usize, f32)| next.clone().narrow(1, column, 1).square() * -weight;
            let costs = weights.iter().map(cost).reduce(|sum, cost| sum + cost);
            costs.expect("a weight at least").squeeze_dim::<1>(1)
        }))))
    }
}

/// A goal that is silent leaves ends to a model that has learned them; this rule does not.
fn never(model: &EnsembleConfig) -> Option<Arc<dyn Termination>> {
    let rule = |obs: Tensor<2>, _, _| Tensor::<1, Bool>::zeros([obs.dims()[0]], &obs.device());
    model.termination.then(|| Arc::new(termination_fn(rule)) as Arc<dyn Termination>)
}

/// How plans are executed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MpcConfig {
    /// `"every-step"`, `{ every = n }` or `"open-loop"`.
    pub(crate) replan: Replan,
}

/// Names and summaries of the embedded experiments.
pub(crate) fn embedded() -> impl Iterator<Item = Result<Experiment>> {
    EMBEDDED.iter().map(|(name, _)| Experiment::load(name, &[]))
}

impl Experiment {
    /// An embedded experiment by name, or the user's by path (it ends in `.toml`), with overrides `key=value` in order,
    /// those of the kinds of planner and dynamics first: the other keys depend on them.
    pub(crate) fn load(name_or_path: &str, overrides: &[String]) -> Result<Self> {
        let (name, text) = source(name_or_path)?;
        let mut experiment: Self = toml::from_str(&text).with_context(|| format!("experiment {name_or_path}"))?;
        if experiment.name.is_empty() {
            experiment.name = name;
        }
        let chooses_kind = |word: &&String| {
            word.split_once('=').is_some_and(|(key, _)| [PLANNER_KIND, DYNAMICS].contains(&key.trim()))
        };
        let (first, rest): (Vec<_>, Vec<_>) = overrides.iter().partition(chooses_kind);
        first.into_iter().chain(rest).try_fold(experiment, |experiment, word| overridden(&experiment, word))
    }

    /// A resolved experiment, as a run folder holds it.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// The task with its options.
    pub(crate) fn make_task(&self) -> Result<Task> {
        Ok(tasks::make_with(&self.task, self.task_options.clone())?)
    }

    /// The sections about learning; `None` where the simulator is the model.
    pub(crate) fn learned(&self) -> Option<&LearnedConfig> {
        match &self.dynamics {
            DynamicsConfig::Ensemble(learned) => Some(learned),
            DynamicsConfig::Simulator => None,
        }
    }

    /// With every value written out.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    /// Every value with its dotted key, as `--set` takes them.
    pub(crate) fn flat(&self) -> Result<Vec<(String, String)>> {
        let table = Table::try_from(self)?;
        let text = |key: &str| match get(&table, key) {
            // TOML has but one width of floats; the digits beyond the narrower one say nothing.
            Some(Value::Float(wide)) if f64::from(*wide as f32) == *wide => format!("{:?}", *wide as f32),
            value => value.map(ToString::to_string).unwrap_or_default(),
        };
        Ok(dotted_keys(&table).into_iter().map(|key| (key.clone(), text(&key))).collect())
    }

    /// What must not change while a run goes on: all but the number of steps, which may be raised.
    pub(crate) fn settings(&self) -> Result<String> {
        Self { steps: 0, ..self.clone() }.to_toml()
    }

    /// The settings that a checkpoint holds as they would be written today: keys that came since have their defaults.
    pub(crate) fn settings_today(text: &str) -> Option<String> {
        toml::from_str::<Self>(text).ok()?.settings().ok()
    }

    /// Refuses planners that climb, of which a simulator cannot say where up is.
    pub(crate) fn check_no_gradients(&self) -> Result<()> {
        let told = "a model with gradients is needed, and dynamics = \"simulator\" has none";
        if self.planner.needs_gradients() {
            bail!("section [planner]: kind = \"gradient\": {told}");
        }
        if self.refinement.is_on() {
            bail!("section [refinement]: {told}");
        }
        Ok(())
    }

    /// Refuses sizes that no machine has the memory for, before anything asks for it.
    pub(crate) fn check_sizes(&self, obs: usize, action: usize) -> Result<()> {
        let (population, horizon) = (self.planner.candidates(), self.planner.horizon());
        let particles = self.learned().map_or(1, |learned| learned.propagation.particles);
        let rollout = [population, horizon, particles, obs.saturating_add(action)];
        if product(&rollout).is_none_or(|numbers| numbers > LARGEST) {
            bail!(
                "population {population} · horizon {horizon} · particles {particles}: \
                 trajectories of at most {LARGEST} numbers"
            );
        }
        self.learned().map_or(Ok(()), |learned| check_weights(&learned.model, obs, action))
    }
}

/// Name and text of an embedded experiment, or of a file whose path ends in `.toml`.
pub(crate) fn source(name_or_path: &str) -> Result<(String, String)> {
    if name_or_path.ends_with(".toml") {
        let path = Path::new(name_or_path);
        let text = fs::read_to_string(path).with_context(|| format!("experiment {name_or_path}"))?;
        Ok((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text))
    } else {
        let Some((name, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_path) else {
            let names = EMBEDDED.iter().map(|(name, _)| *name);
            bail!(
                "unknown experiment `{name_or_path}`: `mbrl list` shows all, a path to a file ends in .toml{}",
                did_you_mean(name_or_path, names)
            );
        };
        Ok(((*name).to_owned(), (*text).to_owned()))
    }
}

/// Refuses a model that no machine has the memory for.
pub(crate) fn check_weights(model: &EnsembleConfig, obs: usize, action: usize) -> Result<()> {
    let EnsembleConfig { members, hidden, angles, past, .. } = model;
    // Each observation with its angles and each action; out come means and log-variances, reward and end.
    let step = obs.saturating_add(angles.columns().len()).saturating_add(action);
    let widths = [&[step.saturating_mul(past.saturating_add(1))][..], hidden, &[2 * obs + 3]].concat();
    let weights = widths
        .windows(2)
        .try_fold(0_u64, |sum, layer| sum.checked_add(product(&[*members, layer[0].saturating_add(1), layer[1]])?));
    if weights.is_none_or(|numbers| numbers > LARGEST) {
        bail!("members {members} · hidden {hidden:?}: at most {LARGEST} weights");
    }
    Ok(())
}

/// `settings` with one value replaced, `key=value`.
pub(crate) fn overridden<T: Clone + Serialize + DeserializeOwned>(settings: &T, word: &str) -> Result<T> {
    let Some((key, value)) = word.split_once('=') else {
        bail!("--set {word}: expected key=value, for example planner.population=500");
    };
    let (key, value) = (key.trim(), value.trim());
    let mut table = Table::try_from(settings)?;
    let known = dotted_keys(&table);
    // Which keys there are is the task's to say.
    let is_option = key.split_once('.').is_some_and(|(head, rest)| head == TASK_OPTIONS && !rest.is_empty());
    let is_known = known.iter().any(|k| k == key) || is_option && table.contains_key(TASK_OPTIONS);
    if !is_known {
        bail!("unknown key `{key}`{}", did_you_mean(key, known.iter().map(String::as_str)));
    }
    let present = Present(get(&table, key));
    let new = parse_value(value, present.0);
    let text = new.to_string();
    if key == PLANNER_KIND {
        if present.0 == Some(&new) {
            return Ok(settings.clone());
        }
        // Another planner has other settings: these start from its defaults.
        table.insert("planner".into(), Value::Table(Table::from_iter([("kind".to_owned(), new)])));
    } else {
        if key == DYNAMICS && present.0 != Some(&new) {
            // Another model has other rewards and ends: these start from its defaults.
            if let Some(goal) = table.get_mut("goal").and_then(Value::as_table_mut) {
                goal.remove("reward");
                goal.remove("termination");
            }
        }
        set(&mut table, key, new).ok_or_else(|| anyhow!("unknown key `{key}`"))?;
    }
    table.try_into().map_err(|error: toml::de::Error| {
        // What serde says of the forms of these helps nobody.
        let expected = match key {
            "mpc.replan" => "expected every-step, open-loop or {every=n}",
            "goal.aggregate" => "expected mean, worst or {mean-minus-std=k}",
            _ => error.message(),
        };
        anyhow!("{key} = {text}: {expected}; it is {key} = {} now", Present(get_from(settings, key).as_ref()))
    })
}

/// A value as it stands in the experiment.
struct Present<'a>(Option<&'a Value>);

impl fmt::Display for Present<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("nothing"),
        }
    }
}

/// A TOML value; a bare word is a string, and an integer does for a number.
fn parse_value(text: &str, present: Option<&Value>) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    match (parsed, present) {
        (Value::Integer(n), Some(Value::Float(_))) => Value::Float(n as f64),
        (parsed, _) => parsed,
    }
}

fn dotted_keys(table: &Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table {
        match value {
            // The values of these are one word or a table.
            Value::Table(inner) if !["replan", "proposal", "aggregate"].contains(&key.as_str()) => {
                keys.extend(dotted_keys(inner).into_iter().map(|rest| format!("{key}.{rest}")));
            }
            _ => keys.push(key.clone()),
        }
    }
    keys
}

fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((head, rest)) => get(table.get(head)?.as_table()?, rest),
    }
}

fn get_from(settings: &impl Serialize, key: &str) -> Option<Value> {
    get(&Table::try_from(settings).ok()?, key).cloned()
}

fn set(table: &mut Table, key: &str, value: Value) -> Option<()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Some(())
        }
        Some((head, rest)) => set(table.get_mut(head)?.as_table_mut()?, rest, value),
    }
}

#[cfg(test)]
mod tests {
    use mbrl_plan::{CemConfig, PddmConfig, Proposal, RandomShootingConfig};

    use super::*;

    fn loaded(words: &[&str]) -> Result<Experiment> {
        Experiment::load("smoke", &words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn every_embedded_experiment_is_whole_and_survives_writing() {
        for (name, _) in EMBEDDED {
            let experiment = Experiment::load(name, &[]).unwrap();
            assert_eq!(experiment.name, *name);
            assert!(!experiment.summary.is_empty(), "{name}");
            let text = experiment.to_toml().unwrap();
            assert_eq!(toml::from_str::<Experiment>(&text).unwrap(), experiment);
        }
    }

    #[test]
    fn the_resolved_text_holds_every_default() {
        let text = Experiment::load("smoke", &[]).unwrap().to_toml().unwrap();
        for key in
            ["replay_capacity", "bounds_weight", "grad_clip", "after_termination", "checkpoint_episodes", "replan"]
        {
            assert!(text.contains(key), "{key} is missing in\n{text}");
        }
    }

    #[test]
    fn one_value_is_overridden_and_nothing_else() {
        let mut expected = loaded(&[]).unwrap();
        let DynamicsConfig::Ensemble(learned) = &mut expected.dynamics else { panic!("nothing is learned") };
        learned.fit.learning_rate = 2.0;
        learned.model.hidden = vec![8, 8];
        learned.agent.fit_every = mbrl_policy::FitSchedule::Steps(10);
        expected.device = "ndarray".into();
        let words = ["fit.learning_rate=2", "model.hidden=[8,8]", "agent.fit_every=10", "device=ndarray"];
        assert_eq!(loaded(&words).unwrap(), expected);
    }

    #[test]
    fn flat_settings_rebuild_the_experiment() {
        let experiment = loaded(&["fit.learning_rate=0.1", "model.hidden=[8,8]", "mpc.replan={every=2}"]).unwrap();
        let flat = experiment.flat().unwrap();
        assert!(flat.contains(&("fit.learning_rate".into(), "0.1".into())), "{flat:?}");
        let words: Vec<String> = flat.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(Experiment::load("smoke", &words).unwrap(), experiment);
    }

    #[test]
    fn another_planner_starts_from_its_defaults() {
        let experiment = loaded(&["planner.kind=pddm", "planner.kappa=3"]).unwrap();
        assert_eq!(experiment.planner, PlannerConfig::Pddm(PddmConfig { kappa: 3.0, ..PddmConfig::default() }));
    }

    #[test]
    fn every_planner_can_be_chosen_and_survives_writing() {
        for words in [
            &["planner.kind=icem", "planner.noise_exponent=2"][..],
            &["planner.kind=mppi", "planner.sigma=[0.2]"],
            &["planner.kind=random-shooting", "planner.proposal={ hold = { steps = 3 } }"],
            &["planner.kind=random-shooting", "planner.proposal={ hold = { steps = 3 } }", "planner.proposal=uniform"],
        ] {
            let experiment = loaded(words).unwrap();
            assert_eq!(toml::from_str::<Experiment>(&experiment.to_toml().unwrap()).unwrap(), experiment);
        }
        let proposal = Proposal::Hold { steps: 3 };
        assert_eq!(
            loaded(&["planner.kind=random-shooting", "planner.proposal={ hold = { steps = 3 } }"]).unwrap().planner,
            PlannerConfig::RandomShooting(RandomShootingConfig { proposal, ..RandomShootingConfig::default() })
        );
    }

    #[test]
    fn the_aggregate_over_particles_can_be_chosen() {
        assert_eq!(loaded(&[]).unwrap().goal.aggregate, Aggregate::Mean);
        for (word, aggregate) in [
            ("goal.aggregate=worst", Aggregate::Worst),
            ("goal.aggregate={ mean-minus-std = 2.0 }", Aggregate::MeanMinusStd(2.0)),
        ] {
            let experiment = loaded(&[word, "goal.discount=0.9"]).unwrap();
            assert_eq!(experiment.goal.aggregate, aggregate);
            assert_eq!(toml::from_str::<Experiment>(&experiment.to_toml().unwrap()).unwrap(), experiment);
        }
        assert!(loaded(&["goal.aggregate=median"]).is_err());
    }

    #[test]
    fn the_precision_is_f32_until_another_is_chosen() {
        assert_eq!(loaded(&[]).unwrap().precision, Precision::F32);
        let chosen = loaded(&["precision=bf16"]).unwrap();
        assert_eq!(chosen, Experiment { precision: Precision::Bf16, ..loaded(&[]).unwrap() });
        assert_eq!(toml::from_str::<Experiment>(&chosen.to_toml().unwrap()).unwrap(), chosen);
        assert_ne!(chosen.settings().unwrap(), loaded(&[]).unwrap().settings().unwrap());
        let told = loaded(&["precision=f16"]).unwrap_err().to_string();
        assert!(told.contains("precision") && told.contains("bf16"), "{told}");
    }

    #[test]
    fn a_refinement_is_off_until_it_has_iterations() {
        let actions = mbrl_env::ActionSpace::Box(mbrl_env::BoxSpace::symmetric(1, 1.0).unwrap());
        let init = |experiment: &Experiment| {
            experiment.planner.init(&actions, Propagation::MEAN, Aggregate::Mean, &experiment.refinement).map(drop)
        };
        assert_eq!(loaded(&[]).unwrap().refinement.iterations, 0);
        let on = loaded(&["refinement.iterations=5"]).unwrap();
        assert_eq!(on.refinement, Refinement { iterations: 5, ..Refinement::default() });
        init(&on).unwrap();
        let told = init(&loaded(&["refinement.iterations=5", "planner.kind=gradient"]).unwrap()).unwrap_err();
        assert!(told.to_string().contains("refinement.iterations"), "{told}");
        init(&loaded(&["planner.kind=gradient"]).unwrap()).unwrap();
    }

    #[test]
    fn the_planner_is_chosen_before_its_settings_and_choosing_the_same_changes_nothing() {
        let same = loaded(&["planner.kind=cem"]).unwrap();
        assert_eq!(same, loaded(&[]).unwrap());
        assert_ne!(same.planner, PlannerConfig::Cem(CemConfig::default()));
        let before = loaded(&["planner.kappa=3", "planner.kind = pddm"]).unwrap();
        assert_eq!(before, loaded(&["planner.kind=pddm", "planner.kappa=3"]).unwrap());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_neighbours() {
        let error = loaded(&["planner.popluation=3"]).unwrap_err().to_string();
        assert!(error.contains("`planner.popluation`") && error.contains("`planner.population`"), "{error}");
        assert!(loaded(&["model.depth=3"]).unwrap_err().to_string().contains("`model.depth`"));
        assert!(loaded(&["planner"]).unwrap_err().to_string().contains("key=value"));
    }

    const GROUND_TRUTH: &str = "ground-truth-cartpole-swingup";

    /// The sections of an experiment's text.
    fn sections(experiment: &Experiment) -> Vec<String> {
        Table::try_from(experiment).unwrap().into_iter().filter(|(_, v)| v.is_table()).map(|(key, _)| key).collect()
    }

    #[test]
    fn with_the_simulator_the_sections_about_learning_are_neither_needed_nor_looked_at() {
        let learning = ["agent", "model", "fit", "propagation"].map(str::to_owned);
        let truth = Experiment::load(GROUND_TRUTH, &[]).unwrap();
        assert_eq!(truth.dynamics, DynamicsConfig::Simulator);
        assert!(learning.iter().all(|section| !sections(&truth).contains(section)));
        // Sizes that no machine has room for.
        let text = truth.to_toml().unwrap() + "\n[model]\nmembers = 1000000000000\n";
        assert_eq!(toml::from_str::<Experiment>(&text).unwrap(), truth);

        let changed = loaded(&["model.members=4", "dynamics=simulator"]);
        assert!(changed.unwrap_err().to_string().contains("`model.members`"), "the kind comes first");
        let changed = loaded(&["dynamics=simulator"]).unwrap();
        assert!(learning.iter().all(|section| !sections(&changed).contains(section)));
        assert_eq!(changed.planner, loaded(&[]).unwrap().planner);

        // An ensemble needs them.
        assert!(learning.iter().all(|section| sections(&loaded(&[]).unwrap()).contains(section)));
        let told = Experiment::load(GROUND_TRUTH, &["dynamics=ensemble".into()]).unwrap_err().to_string();
        assert!(told.contains("[model]") && told.contains("ensemble"), "{told}");
        assert!(loaded(&["dynamics=physics"]).unwrap_err().to_string().contains("physics"));
    }

    #[test]
    fn the_simulators_rewards_and_ends_are_its_own_and_the_tasks_reward_can_be_chosen() {
        let load = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            Experiment::load("smoke", &words).unwrap()
        };
        let sources = |words: &[&str]| {
            let goal = load(words).goal;
            (goal.reward.unwrap(), goal.termination.unwrap())
        };
        let (task, model) = (RewardSource::Task, RewardSource::Model);
        assert_eq!(sources(&[]), (task, TerminationSource::Task));
        assert_eq!(sources(&["dynamics=simulator"]), (model, TerminationSource::Model));
        // The same again changes nothing, and what is said counts, in any order.
        assert_eq!(sources(&["goal.reward=model", "dynamics=ensemble"]), (model, TerminationSource::Task));
        assert_eq!(sources(&["goal.reward=task", "dynamics=simulator"]), (task, TerminationSource::Model));

        let mut cartpole = tasks::make("cartpole").unwrap();
        let goal = |task: &Task, words: &[&str]| load(&[&["dynamics=simulator"], words].concat()).goal.init(task, None);
        let has = |goal: Goal| (goal.reward.is_some(), goal.termination.is_some());
        assert_eq!(has(goal(&cartpole, &[]).unwrap()), (false, false));
        assert_eq!(has(goal(&cartpole, &["goal.reward=task"]).unwrap()), (true, false));
        for word in ["goal.termination=task", "goal.termination=none"] {
            let told = goal(&cartpole, &[word]).unwrap_err().to_string();
            assert!(told.contains("termination") && told.contains("simulator"), "{told}");
        }

        // A task whose observation leaves out what its reward needs.
        cartpole.reward = None;
        assert_eq!(has(goal(&cartpole, &[]).unwrap()), (false, false));
        let told = goal(&cartpole, &["goal.reward=task"]).unwrap_err().to_string();
        assert!(told.contains("cartpole") && told.contains("goal.reward = \"model\""), "{told}");
        let smoke = loaded(&[]).unwrap();
        let told = smoke.goal.init(&cartpole, Some(&smoke.learned().unwrap().model)).unwrap_err().to_string();
        assert!(told.contains("model.reward = true") && told.contains("goal.reward = \"model\""), "{told}");
        let heads = loaded(&["model.reward=true", "goal.reward=model"]).unwrap();
        let goal = heads.goal.init(&cartpole, Some(&heads.learned().unwrap().model)).unwrap();
        assert_eq!(has(goal), (false, true));
    }

    #[test]
    fn planners_that_climb_are_refused_beside_a_simulator() {
        let told = |word: &str| loaded(&["dynamics=simulator", word]).unwrap().check_no_gradients();
        told("planner.kind=icem").unwrap();
        for (word, section) in [("planner.kind=gradient", "[planner]"), ("refinement.iterations=2", "[refinement]")] {
            let told = told(word).unwrap_err().to_string();
            assert!(told.contains(section) && told.contains("gradients"), "{told}");
        }
    }

    #[test]
    fn options_are_the_tasks_own() {
        let words = ["task=cliff", "task_options.edge=3", "task_options.drop=5.5"];
        let experiment = loaded(&words).unwrap();
        assert_eq!(experiment.make_task().unwrap().env.spec().obs.high()[0], 3.1);
        let text = experiment.to_toml().unwrap();
        assert!(text.contains("edge = 3") && text.contains("drop = 5.5"), "{text}");
        assert_eq!(toml::from_str::<Experiment>(&text).unwrap(), experiment);
        assert!(experiment.flat().unwrap().contains(&("task_options.drop".into(), "5.5".into())));
        // One that is there is changed; words need no quotes.
        let again = overridden(&experiment, "task_options.edge=2").unwrap();
        assert_eq!(again.task_options["edge"].as_integer(), Some(2));
        let again = overridden(&experiment, "task_options.edge=far").unwrap();
        let told = again.make_task().unwrap_err().to_string();
        assert!(told.contains("cliff") && told.contains("far"), "{told}");
        let told = loaded(&["task_options.gravity=1"]).unwrap().make_task().unwrap_err().to_string();
        assert!(told.contains("pendulum") && told.contains("`gravity`"), "{told}");
        for word in ["task_options.=1", "task_options=1", "options.edge=1"] {
            assert!(loaded(&[word]).is_err(), "{word}");
        }
    }

    #[test]
    fn settings_of_an_earlier_version_read_as_those_of_today() {
        let today = loaded(&["planner.population=17"]).unwrap().settings().unwrap();
        let added = ["dynamics = ", "[task_options]", "aggregate = ", "cost = ", "precision = "];
        assert!(added.iter().all(|key| today.contains(key)), "{today}");
        let earlier: String = today
            .lines()
            .filter(|line| !added.iter().any(|key| line.starts_with(key)))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_ne!(earlier, today);
        assert_eq!(Experiment::settings_today(&earlier).unwrap(), today);
        let other = earlier.replace("population = 17", "population = 18");
        assert_ne!(Experiment::settings_today(&other).unwrap(), today);
        assert!(Experiment::settings_today("population = 17").is_none());
    }

    #[test]
    fn a_goal_goes_by_what_it_is_told() {
        let goal = |task: &str, words: &[&str]| {
            let experiment = loaded(words).unwrap();
            let model = experiment.learned().map(|learned| &learned.model);
            experiment.goal.init(&tasks::make(task).unwrap(), model)
        };
        let has = |goal: Goal| (goal.reward.is_some(), goal.termination.is_some());
        assert_eq!(has(goal("cartpole", &[]).unwrap()), (true, true));
        assert_eq!(has(goal("pendulum", &[]).unwrap()), (true, false));
        assert_eq!(has(goal("cartpole", &["goal.termination=none"]).unwrap()), (true, false));
        let heads = ["model.reward=true", "model.termination=true"];
        let with = |word: &'static str| [&heads[..], &[word]].concat();
        // The task's and nobody's ends overrule those that the model has learned.
        assert_eq!(has(goal("pendulum", &heads).unwrap()), (true, true));
        assert_eq!(has(goal("cartpole", &with("goal.termination=none")).unwrap()), (true, true));
        assert_eq!(has(goal("cartpole", &with("goal.termination=model")).unwrap()), (true, false));
        assert_eq!(has(goal("cartpole", &with("goal.reward=model")).unwrap()), (false, true));
        for (word, head) in [("goal.reward=model", "model.reward"), ("goal.termination=model", "model.termination")] {
            let told = goal("cartpole", &[word]).unwrap_err().to_string();
            assert!(told.contains("\"model\"") && told.contains(head), "{told}");
        }
    }

    #[test]
    fn a_cost_is_paid_by_plans_for_each_column() {
        let goal = |words: &[&str]| {
            let experiment = loaded(words).unwrap();
            let model = experiment.learned().map(|learned| &learned.model);
            experiment.goal.init(&tasks::make("cartpole").unwrap(), model)
        };
        assert!(goal(&[]).unwrap().shaping.is_none());
        let shaping = goal(&["goal.cost=[1.0, 0.0, 0.5, 0.0]"]).unwrap().shaping.unwrap();
        let rows = |rows: [[f32; 4]; 2]| Tensor::<2>::from_floats(rows, &mbrl_model::Device::flex());
        let next = rows([[3.0, f32::INFINITY, 2.0, 9.0], [0.0, 9.0, -4.0, 9.0]]);
        let paid = shaping.reward(rows([[9.0; 4]; 2]), rows([[9.0; 4]; 2]), next).into_data();
        assert_eq!(paid.try_to_vec::<f32>().unwrap(), [-9.0 - 2.0, -8.0]);
        for (word, part) in [("goal.cost=[1.0]", "4 columns"), ("goal.cost=[1.0, inf, 0.0, 0.0]", "inf")] {
            let told = goal(&[word]).unwrap_err().to_string();
            assert!(told.contains("cost") && told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_key() {
        for (word, offending) in [
            ("planner.population=many", "many"),
            ("planner.population=-1", "-1"),
            ("train.eval_every=1.5", "1.5"),
            ("agent.fit_every=sometimes", "sometimes"),
            ("mpc.replan=every", "{every=n}"),
            ("goal.aggregate=mean-minus-std", "{mean-minus-std=k}"),
            ("planner.kind=annealing", "annealing"),
            ("propagation.rule=ts-2", "ts-2"),
        ] {
            let error = loaded(&[word]).unwrap_err().to_string();
            let key = word.split('=').next().unwrap();
            assert!(error.contains(key) && error.contains(offending), "{word}: {error}");
        }
    }
}
