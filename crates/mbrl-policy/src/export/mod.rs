//! Policies in files of their own: trained here, run anywhere. Agents that plan in files of their own: trained here, run by this program.
//!
//! A file is one of [safetensors](https://github.com/huggingface/safetensors): a JSON header, then the numbers, little-endian `f32`.
//! `docs/policies.md` describes the layout; `examples/run_policy.py` reads it with NumPy alone.

mod agent;
mod safetensors;

use std::{collections::BTreeMap, fs, path::Path, str::FromStr};

use mbrl_env::{ActionSpace, AngleColumn, BoxSpace, EnvSpec, Field, Rng};
use mbrl_model::{
    Activation,
    mlp::{HostMlp, MlpConfig},
};

pub use self::agent::ExportedAgent;
use self::safetensors::{Array, File};
use crate::{
    ActMode, ActionScale, Actor, ActorHead, AgentError, Inputs, Policy, PolicyDraw, StochasticPolicy, files::io_error,
    write_atomically,
};

/// The extension of such files.
pub const POLICY_EXTENSION: &str = "safetensors";

/// What the files say that they are.
const FORMAT: &str = "mbrl-policy";
const VERSION: &str = "1";
const CHECKSUM: &str = "crc32";

/// What a policy was learned for: what a user who runs it must know about its observations and actions.
///
/// ```
/// use mbrl_env::{Env, tasks};
/// use mbrl_policy::PolicyInfo;
///
/// let info = PolicyInfo::of(tasks::make("pendulum")?.env.spec());
/// assert_eq!((info.obs_names[2].as_str(), info.action_units[0].as_str()), ("angular_velocity", "N m"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PolicyInfo {
    /// The task.
    pub task: String,
    /// What learned it, `sac` for example; empty where it is not known.
    pub agent: String,
    /// Real environment steps that it was learned from.
    pub env_step: u64,
    /// Time between two actions (s).
    pub control_period: f64,
    /// Names of the columns of an observation, `[O]`.
    pub obs_names: Vec<String>,
    /// Units of the columns of an observation, `[O]`; empty for a number without.
    pub obs_units: Vec<String>,
    /// Names of the columns of an action, `[A]`.
    pub action_names: Vec<String>,
    /// Units of the columns of an action, `[A]`.
    pub action_units: Vec<String>,
}

impl PolicyInfo {
    /// For an environment. Which agent learned it, and for how long, is left open.
    #[must_use]
    pub fn of(spec: &EnvSpec) -> Self {
        let units = |fields: &[Field]| -> Vec<String> {
            fields.iter().flat_map(|field| std::iter::repeat_n(field.unit.to_string(), field.width())).collect()
        };
        Self {
            task: spec.name.clone(),
            agent: String::new(),
            env_step: 0,
            control_period: spec.control_period,
            obs_names: spec.column_names(),
            obs_units: units(&spec.fields),
            action_names: spec.action_names(),
            action_units: units(&spec.action_fields),
        }
    }

    /// Learned by `agent` from this many real steps.
    #[must_use]
    pub fn learned_by(mut self, agent: impl Into<String>, env_step: u64) -> Self {
        (self.agent, self.env_step) = (agent.into(), env_step);
        self
    }

    /// For a task with a name other than its environment's.
    #[must_use]
    pub fn for_task(mut self, task: impl Into<String>) -> Self {
        self.task = task.into();
        self
    }
}

/// A policy that can be exported: what a learner has to give.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PolicyNetwork {
    /// Of SAC, TD3, learners in a model, behaviour cloning.
    Actor(Actor),
    /// Of natural policy gradients.
    Stochastic(StochasticPolicy),
}

impl From<Actor> for PolicyNetwork {
    fn from(actor: Actor) -> Self {
        Self::Actor(actor)
    }
}

impl From<StochasticPolicy> for PolicyNetwork {
    fn from(policy: StochasticPolicy) -> Self {
        Self::Stochastic(policy)
    }
}

impl PolicyNetwork {
    fn policy(&self) -> &dyn Policy {
        match self {
            Self::Actor(actor) => actor,
            Self::Stochastic(policy) => policy,
        }
    }
}

/// A policy with what it was learned for, as a file holds it. It acts as the policy that it was made from, bit for bit.
///
/// ```
/// use mbrl_env::{Env, Rng, tasks};
/// use mbrl_policy::{ActorConfig, ActorHead, ExportedPolicy, PolicyInfo};
///
/// let task = tasks::make("pendulum")?;
/// let head = ActorHead::Gaussian { log_std: [-20.0, 2.0] };
/// let actor = ActorConfig::default().init(task.env.spec(), head, &mut Rng::new(0))?; // … and learn
/// let exported = ExportedPolicy::new(PolicyInfo::of(task.env.spec()), actor)?;
///
/// let folder = std::env::temp_dir().join(format!("exported-policy-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let path = folder.join("policy.safetensors");
/// exported.save(&path)?;
/// let loaded = ExportedPolicy::load(&path)?;
/// # std::fs::remove_dir_all(&folder)?;
/// assert_eq!(loaded.action(&[1.0, 0.0, 0.0])?, exported.action(&[1.0, 0.0, 0.0])?);
/// assert_eq!(loaded.info().task, "pendulum");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ExportedPolicy {
    info: PolicyInfo,
    network: PolicyNetwork,
}

impl ExportedPolicy {
    /// A policy that was learned for `info`.
    ///
    /// # Errors
    /// [`AgentError::Env`] where the two have observations or actions of different widths.
    pub fn new(info: PolicyInfo, network: impl Into<PolicyNetwork>) -> Result<Self, AgentError> {
        let network = network.into();
        let (obs, action) = (network.policy().obs_width(), network.policy().action_width());
        for (what, expected, actual) in [
            ("names of an observation", obs, info.obs_names.len()),
            ("units of an observation", obs, info.obs_units.len()),
            ("names of an action", action, info.action_names.len()),
            ("units of an action", action, info.action_units.len()),
        ] {
            mbrl_env::check_width(what, expected, actual)?;
        }
        Ok(Self { info, network })
    }

    /// What it was learned for.
    #[must_use]
    pub fn info(&self) -> &PolicyInfo {
        &self.info
    }

    /// The policy's best action `[A]` for one observation `[O]`, in the environment's units.
    ///
    /// # Errors
    /// [`AgentError::Env`] for an observation of another width, or with a NaN or an infinity.
    pub fn action(&self, obs: &[f32]) -> Result<Vec<f32>, AgentError> {
        let what = format!("observation of {}", self.info.task);
        mbrl_env::check_width(&what, self.obs_width(), obs.len())?;
        mbrl_env::check_finite(&what, obs)?;
        Ok(self.act(obs, ActMode::Evaluate, PolicyDraw::new(0)))
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// [`AgentError::PolicyFile`] where there is something already; [`AgentError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), AgentError> {
        if path.symlink_metadata().is_ok() {
            return Err(refused(path, "exists; choose another name, or remove it first".into()));
        }
        write_atomically(path, &self.to_bytes())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`AgentError::PolicyFile`] for a file that is cut, damaged, of another program or of another version of the format, naming what was
    /// found; [`AgentError::Io`] for one that cannot be read.
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        Self::parse(&fs::read(path).map_err(io_error(path))?).map_err(|reason| refused(path, reason))
    }

    /// As [`load`](Self::load), from the content of a file, for example one that is part of the program.
    ///
    /// # Errors
    /// [`AgentError::PolicyFile`].
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, AgentError> {
        Self::parse(bytes).map_err(|reason| refused(Path::new("bytes of a policy"), reason))
    }

    /// The content of a file. Equal policies give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let info = &self.info;
        let mut file = File::default();
        let list = |words: &[String]| serde_json::to_string(words).expect("texts are JSON");
        let columns = |angles: &[AngleColumn]| -> String {
            let columns: Vec<String> = angles.iter().map(|angle| angle.column.to_string()).collect();
            format!("[{}]", columns.join(","))
        };
        let (network, inputs, head) = match &self.network {
            PolicyNetwork::Actor(actor) => (actor.evaluated(), actor.inputs(), Head::of_actor(actor)),
            PolicyNetwork::Stochastic(policy) => (policy.network(), policy.inputs(), Head::of_stochastic(policy)),
        };
        let activation = serde_json::to_value(network.config().activation).expect("an activation is a word");
        for (key, word) in [
            ("format", FORMAT.to_owned()),
            ("format_version", VERSION.to_owned()),
            ("program", format!("mbrl {}", env!("CARGO_PKG_VERSION"))),
            ("task", info.task.clone()),
            ("agent", info.agent.clone()),
            ("env_step", info.env_step.to_string()),
            ("control_period", info.control_period.to_string()),
            ("obs_names", list(&info.obs_names)),
            ("obs_units", list(&info.obs_units)),
            ("action_names", list(&info.action_names)),
            ("action_units", list(&info.action_units)),
            ("activation", activation.as_str().unwrap_or_default().to_owned()),
            ("head", head.word().to_owned()),
            ("angles", columns(inputs.angles())),
        ] {
            file.words.insert(key.to_owned(), word);
        }
        let mut put = |name: &str, values: &[f32]| file.arrays.insert(name.to_owned(), Array::of(values));
        if !inputs.angles().is_empty() {
            put("angles.turn", &inputs.angles().iter().map(|angle| angle.turn).collect::<Vec<_>>());
        }
        if let Some([shift, scale]) = inputs.statistics() {
            put("inputs.shift", shift);
            put("inputs.scale", scale);
        }
        match &head {
            Head::SquashedGaussian { log_std_range, .. } => put("head.log_std_range", log_std_range),
            Head::Deterministic { exploration_std, .. } => put("head.exploration_std", &[*exploration_std]),
            Head::Gaussian { log_std, .. } => put("head.log_std", log_std),
            Head::Categorical => None,
        };
        if let Some(scale) = head.scale() {
            put("action.low", scale.space().low());
            put("action.high", scale.space().high());
        }
        put_network(network, &mut file.arrays);
        let sum = file.checksum(CHECKSUM);
        file.words.insert(CHECKSUM.to_owned(), format!("{sum:08x}"));
        file.to_bytes()
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file = File::of_bytes(bytes)?;
        file.check(FORMAT, VERSION, CHECKSUM)?;
        if let Some(stranger) = file.bytes.keys().next() {
            return Err(format!("tensor {stranger}: dtype = U8: expected F32"));
        }
        Fields(file).policy()
    }
}

impl Policy for ExportedPolicy {
    fn obs_width(&self) -> usize {
        self.network.policy().obs_width()
    }

    fn action_width(&self) -> usize {
        self.network.policy().action_width()
    }

    fn act(&self, obs: &[f32], mode: ActMode, draw: PolicyDraw) -> Vec<f32> {
        self.network.policy().act(obs, mode, draw)
    }
}

fn refused(path: &Path, reason: String) -> AgentError {
    AgentError::PolicyFile { path: path.to_owned(), reason }
}

/// How a network's outputs become actions.
enum Head<'a> {
    /// `[μ, log σ]`, and `tanh(μ)` is the best action.
    SquashedGaussian { log_std_range: [f32; 2], scale: &'a ActionScale },
    /// `[μ]`, and `tanh(μ)` is the action.
    Deterministic { exploration_std: f32, scale: &'a ActionScale },
    /// `[μ]`, and μ clipped at ±1 is the best action.
    Gaussian { log_std: &'a [f32], scale: &'a ActionScale },
    /// Logits, and the first of the largest is the best choice.
    Categorical,
}

const SQUASHED_GAUSSIAN: &str = "squashed-gaussian";
const DETERMINISTIC: &str = "deterministic";
const GAUSSIAN: &str = "gaussian";
const CATEGORICAL: &str = "categorical";

impl<'a> Head<'a> {
    fn of_actor(actor: &'a Actor) -> Self {
        let scale = actor.scale();
        match actor.head() {
            ActorHead::Gaussian { log_std } => Self::SquashedGaussian { log_std_range: log_std, scale },
            ActorHead::Deterministic { exploration } => Self::Deterministic { exploration_std: exploration, scale },
        }
    }

    fn of_stochastic(policy: &'a StochasticPolicy) -> Self {
        match policy.scale() {
            Some(scale) => Self::Gaussian { log_std: policy.log_std(), scale },
            None => Self::Categorical,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::SquashedGaussian { .. } => SQUASHED_GAUSSIAN,
            Self::Deterministic { .. } => DETERMINISTIC,
            Self::Gaussian { .. } => GAUSSIAN,
            Self::Categorical => CATEGORICAL,
        }
    }

    fn scale(&self) -> Option<&'a ActionScale> {
        match self {
            Self::SquashedGaussian { scale, .. } | Self::Deterministic { scale, .. } | Self::Gaussian { scale, .. } => {
                Some(scale)
            }
            Self::Categorical => None,
        }
    }
}

fn layer(l: usize) -> [String; 2] {
    ["weight", "bias"].map(|part| format!("layers.{l}.{part}"))
}

fn norm(l: usize) -> [String; 2] {
    ["weight", "bias"].map(|part| format!("norms.{l}.{part}"))
}

/// `[rows, columns]` turned.
fn turned(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// Layers as PyTorch has them: weights `[out, in]`.
fn put_network(network: &HostMlp, arrays: &mut BTreeMap<String, Array>) {
    let config = network.config();
    let parameters = network.parameters();
    let mut rest = &parameters[..];
    let mut take = |len: usize| {
        let (front, back) = rest.split_at(len);
        rest = back;
        front
    };
    let mut inputs = config.inputs;
    for (l, outputs) in config.hidden.iter().copied().chain([config.outputs]).enumerate() {
        let [weight, bias] = layer(l);
        let values = turned(take(inputs * outputs), [inputs, outputs]);
        arrays.insert(weight, Array { shape: vec![outputs, inputs], values });
        arrays.insert(bias, Array::of(take(outputs)));
        if config.layer_norm && l < config.hidden.len() {
            for name in norm(l) {
                arrays.insert(name, Array::of(take(outputs)));
            }
        }
        inputs = outputs;
    }
}

/// A file whose arrays are taken one by one, so that unexpected ones are found.
struct Fields(File);

impl Fields {
    fn policy(mut self) -> Result<ExportedPolicy, String> {
        let info = PolicyInfo {
            task: self.word("task")?.to_owned(),
            agent: self.word("agent")?.to_owned(),
            env_step: self.parsed("env_step")?,
            control_period: self.parsed("control_period")?,
            obs_names: self.list("obs_names")?,
            obs_units: self.list("obs_units")?,
            action_names: self.list("action_names")?,
            action_units: self.list("action_units")?,
        };
        let head = self.word("head")?.to_owned();
        let inputs = self.inputs(info.obs_names.len())?;
        let network = self.network()?;
        if network.config().inputs != inputs.width() {
            let (expected, found) = (inputs.width(), network.config().inputs);
            return Err(format!("layers.0.weight takes {found} inputs: expected {expected}"));
        }
        let per_entry = if head == SQUASHED_GAUSSIAN { 2 } else { 1 };
        let outputs = network.config().outputs;
        let network = match head.as_str() {
            CATEGORICAL => PolicyNetwork::Stochastic(StochasticPolicy::of_choices(network, inputs)),
            SQUASHED_GAUSSIAN | DETERMINISTIC | GAUSSIAN => {
                let scale = self.scale()?;
                if outputs != per_entry * scale.width() {
                    let (expected, width) = (per_entry * scale.width(), scale.width());
                    return Err(format!("{outputs} outputs: expected {expected} for {width} entries of an action"));
                }
                match head.as_str() {
                    SQUASHED_GAUSSIAN => {
                        let log_std = self.array("head.log_std_range", Some(2))?;
                        if log_std[0] > log_std[1] {
                            return Err(format!("tensor head.log_std_range: {log_std:?}: expected rising numbers"));
                        }
                        let head = ActorHead::Gaussian { log_std: [log_std[0], log_std[1]] };
                        PolicyNetwork::Actor(Actor::of_parts(network, head, scale, inputs))
                    }
                    DETERMINISTIC => {
                        let exploration = self.array("head.exploration_std", Some(1))?[0];
                        let head = ActorHead::Deterministic { exploration };
                        PolicyNetwork::Actor(Actor::of_parts(network, head, scale, inputs))
                    }
                    _ => {
                        let log_std = self.array("head.log_std", Some(scale.width()))?;
                        PolicyNetwork::Stochastic(StochasticPolicy::of_gaussian(network, inputs, scale, log_std))
                    }
                }
            }
            other => {
                let known = [SQUASHED_GAUSSIAN, DETERMINISTIC, GAUSSIAN, CATEGORICAL].join(", ");
                return Err(format!("head = {other}: expected one of {known}"));
            }
        };
        if let Some(stranger) = self.0.arrays.keys().next() {
            return Err(format!("tensor {stranger}: expected none of this name with head = {head}"));
        }
        ExportedPolicy::new(info, network).map_err(|error| error.to_string())
    }

    fn word(&self, key: &str) -> Result<&str, String> {
        self.0.words.get(key).map(String::as_str).ok_or_else(|| format!("{key}: expected in the metadata, found none"))
    }

    fn parsed<T: FromStr>(&self, key: &str) -> Result<T, String> {
        let word = self.word(key)?;
        word.parse().map_err(|_| format!("{key} = {word}: expected a number"))
    }

    fn list<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, String> {
        let word = self.word(key)?;
        serde_json::from_str(word).map_err(|_| format!("{key} = {word}: expected a list in JSON"))
    }

    /// An array of one column, of `width` finite numbers where that is known.
    fn array(&mut self, name: &str, width: Option<usize>) -> Result<Vec<f32>, String> {
        let array = self.0.arrays.remove(name).ok_or_else(|| format!("tensor {name}: expected, found none"))?;
        let expected = width.unwrap_or(array.values.len());
        if array.shape != [expected] {
            return Err(format!("tensor {name}: shape = {:?}: expected [{expected}]", array.shape));
        }
        finite(name, array.values)
    }

    fn inputs(&mut self, obs: usize) -> Result<Inputs, String> {
        let columns: Vec<usize> = self.list("angles")?;
        let turns = match columns.is_empty() {
            true => Vec::new(),
            false => self.array("angles.turn", Some(columns.len()))?,
        };
        let mut angles = Vec::new();
        for (column, turn) in columns.into_iter().zip(turns) {
            let again = angles.iter().any(|angle: &AngleColumn| angle.column == column);
            if column >= obs || turn <= 0.0 || again {
                return Err(format!(
                    "angles: column {column} with a turn of {turn}: expected columns below {obs}, each once"
                ));
            }
            angles.push(AngleColumn { turn, ..AngleColumn::radians(column) });
        }
        let width = obs + angles.len();
        let statistics = match self.0.arrays.contains_key("inputs.shift") {
            true => Some([self.array("inputs.shift", Some(width))?, self.array("inputs.scale", Some(width))?]),
            false => None,
        };
        Ok(Inputs::of_parts(obs, angles, statistics))
    }

    fn scale(&mut self) -> Result<ActionScale, String> {
        let low = self.array("action.low", None)?;
        let high = self.array("action.high", Some(low.len()))?;
        let space = BoxSpace::new(low, high).map_err(|error| error.to_string())?;
        ActionScale::new(&ActionSpace::Box(space)).map_err(|error| error.to_string())
    }

    fn network(&mut self) -> Result<HostMlp, String> {
        let word = self.word("activation")?;
        let activation: Activation = serde_json::from_value(word.into())
            .map_err(|_| format!("activation = {word}: expected silu, relu, tanh, elu or mish"))?;
        let mut widths = Vec::new();
        let mut parameters = Vec::new();
        let layer_norm = self.0.arrays.contains_key(&norm(0)[0]);
        for l in 0.. {
            let [weight, bias] = layer(l);
            let Some(array) = self.0.arrays.remove(&weight) else { break };
            let &[outputs, inputs] = &array.shape[..] else {
                return Err(format!("tensor {weight}: shape = {:?}: expected [out, in]", array.shape));
            };
            let before = *widths.last().unwrap_or(&inputs);
            if inputs != before || inputs == 0 || outputs == 0 {
                return Err(format!("tensor {weight}: shape = [{outputs}, {inputs}]: expected {before} inputs"));
            }
            if widths.is_empty() {
                widths.push(inputs);
            }
            widths.push(outputs);
            parameters.extend(turned(&finite(&weight, array.values)?, [outputs, inputs]));
            parameters.extend(self.array(&bias, Some(outputs))?);
            if layer_norm && self.0.arrays.contains_key(&layer(l + 1)[0]) {
                for name in norm(l) {
                    parameters.extend(self.array(&name, Some(outputs))?);
                }
            }
        }
        let [inputs, hidden @ .., outputs] = &widths[..] else {
            return Err("tensor layers.0.weight: expected, found none".into());
        };
        let config = MlpConfig { activation, layer_norm, ..MlpConfig::new(*inputs, hidden.to_vec(), *outputs) };
        let mut network = config.init_host(&mut Rng::new(0)).map_err(|error| error.to_string())?;
        network.set_parameters(&parameters);
        Ok(network)
    }
}

fn finite(name: &str, values: Vec<f32>) -> Result<Vec<f32>, String> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(place) => Err(format!("tensor {name}: {} at place {place}: expected finite numbers", values[place])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ActorConfig;

    fn file() -> File {
        let actions = ActionSpace::Box(BoxSpace::new([-1.0, 0.0], [1.0, 3.0]).unwrap());
        let spec = EnvSpec::new("plane", BoxSpace::unbounded(3), actions, 0.1)
            .with_fields([Field::angle("turn"), Field::linear("x", "m"), Field::linear("y", "m")])
            .unwrap();
        let config = ActorConfig { hidden: vec![4], layer_norm: true, normalize: true, ..ActorConfig::default() };
        let head = ActorHead::Gaussian { log_std: [-5.0, 2.0] };
        let actor = config.init(&spec, head, &mut Rng::new(0)).unwrap();
        File::of_bytes(&ExportedPolicy::new(PolicyInfo::of(&spec), actor).unwrap().to_bytes()).unwrap()
    }

    /// What a file is refused for, whose checksum is right.
    fn told(change: impl FnOnce(&mut File)) -> String {
        let mut file = file();
        change(&mut file);
        let sum = file.checksum(CHECKSUM);
        file.words.insert(CHECKSUM.to_owned(), format!("{sum:08x}"));
        ExportedPolicy::of_bytes(&file.to_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_no_policy_has_is_refused_by_name() {
        assert!(ExportedPolicy::of_bytes(&file().to_bytes()).is_ok());
        let put = |name: &'static str, shape: &[usize], values: &[f32]| {
            let array = Array { shape: shape.to_vec(), values: values.to_vec() };
            told(|file| drop(file.arrays.insert(name.to_owned(), array)))
        };
        let word = |key: &'static str, word: &str| told(|file| drop(file.words.insert(key.into(), word.into())));
        let without = |name: &'static str| told(|file| drop(file.arrays.remove(name)));
        for (told, said) in [
            (put("action.low", &[2], &[2.0, 0.0]), "low"),
            (put("action.low", &[3], &[0.0; 3]), "action.high: shape = [2]: expected [3]"),
            (put("head.log_std_range", &[2], &[1.0, -1.0]), "head.log_std_range: [1.0, -1.0]"),
            (put("layers.1.weight", &[4, 3], &[0.0; 12]), "layers.1.weight: shape = [4, 3]: expected 4 inputs"),
            (put("layers.1.weight", &[3, 4], &[0.0; 12]), "layers.1.bias: shape = [4]: expected [3]"),
            (put("layers.0.bias", &[4], &[0.0, f32::NAN, 0.0, 0.0]), "layers.0.bias: NaN at place 1"),
            (put("norms.0.weight", &[2], &[0.0; 2]), "norms.0.weight: shape = [2]: expected [4]"),
            (put("inputs.scale", &[3], &[1.0; 3]), "inputs.scale: shape = [3]: expected [4]"),
            (put("angles.turn", &[1], &[0.0]), "angles: column 0 with a turn of 0"),
            (put("extra", &[1], &[0.0]), "tensor extra"),
            (without("layers.0.weight"), "layers.0.weight: expected, found none"),
            (without("layers.1.bias"), "layers.1.bias: expected, found none"),
            (without("head.log_std_range"), "head.log_std_range: expected, found none"),
            (word("head", "softmax"), "head = softmax: expected one of squashed-gaussian"),
            (word("head", "gaussian"), "4 outputs: expected 2"),
            (word("activation", "gelu"), "activation = gelu: expected silu"),
            (word("angles", "[7]"), "angles: column 7"),
            (word("angles", "none"), "angles = none: expected a list"),
            (put("layers.0.weight", &[4, 5], &[0.0; 20]), "layers.0.weight takes 5 inputs: expected 4"),
            (word("obs_names", "[\"x\"]"), "inputs.shift: shape = [4]: expected [2]"),
            (word("obs_units", "[]"), "units of an observation"),
            (word("env_step", "many"), "env_step = many: expected a number"),
            (told(|file| drop(file.words.remove("task"))), "task: expected in the metadata"),
        ] {
            assert!(told.contains(said), "{told}: expected {said}");
        }
    }
}
