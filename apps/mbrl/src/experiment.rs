//! Experiments: TOML files, embedded or the user's own, with single values overridden.

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use mbrl_model::{EnsembleConfig, FitConfig, Propagation};
use mbrl_plan::{CemConfig, PddmConfig, Planner, Replan};
use mbrl_policy::{ModelBasedConfig, TrainConfig};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::near::did_you_mean;

/// The embedded experiments: name and text.
const EMBEDDED: [(&str, &str); 9] = [
    ("smoke", include_str!("../experiments/smoke.toml")),
    ("pets-cartpole-swingup", include_str!("../experiments/pets-cartpole-swingup.toml")),
    ("pets-cartpole-swingup-paper", include_str!("../experiments/pets-cartpole-swingup-paper.toml")),
    ("pets-cartpole", include_str!("../experiments/pets-cartpole.toml")),
    ("pddm-cartpole", include_str!("../experiments/pddm-cartpole.toml")),
    ("pets-pendulum", include_str!("../experiments/pets-pendulum.toml")),
    ("pddm-pendulum", include_str!("../experiments/pddm-pendulum.toml")),
    ("cem-reacher", include_str!("../experiments/cem-reacher.toml")),
    ("pddm-point-mass", include_str!("../experiments/pddm-point-mass.toml")),
];

/// Everything that says what a run does. Its text, with every value written out, reproduces the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Experiment {
    /// Name, for folders; that of the file where left out.
    #[serde(default)]
    pub(crate) name: String,
    /// One line about it.
    #[serde(default)]
    pub(crate) summary: String,
    /// A task of the registry.
    pub(crate) task: String,
    /// Real environment steps, random ones included.
    pub(crate) steps: u64,
    /// Seed of everything that is drawn.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Where tensors live.
    #[serde(default = "default_device")]
    pub(crate) device: String,
    #[serde(default)]
    pub(crate) agent: ModelBasedConfig,
    #[serde(default)]
    pub(crate) goal: GoalConfig,
    pub(crate) model: EnsembleConfig,
    #[serde(default)]
    pub(crate) fit: FitConfig,
    pub(crate) planner: PlannerConfig,
    pub(crate) propagation: Propagation,
    #[serde(default)]
    pub(crate) mpc: MpcConfig,
    #[serde(default)]
    pub(crate) train: TrainConfig,
}

const PLANNER_KIND: &str = "planner.kind";

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

/// How plans are judged, besides the task's reward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GoalConfig {
    /// Discount a step.
    pub(crate) discount: f32,
    /// Reward of each planned step after an end state.
    pub(crate) after_termination: f32,
}

impl Default for GoalConfig {
    fn default() -> Self {
        Self { discount: 1.0, after_termination: 0.0 }
    }
}

/// How plans are executed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MpcConfig {
    /// `"every-step"`, `{ every = n }` or `"open-loop"`.
    pub(crate) replan: Replan,
}

/// Which planner, and its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum PlannerConfig {
    Cem(CemConfig),
    Pddm(PddmConfig),
}

impl PlannerConfig {
    pub(crate) fn init(&self, actions: &mbrl_env::ActionSpace, propagation: Propagation) -> Result<Box<dyn Planner>> {
        Ok(match self {
            Self::Cem(config) => Box::new(config.init(actions, propagation)?),
            Self::Pddm(config) => Box::new(config.init(actions, propagation)?),
        })
    }
}

/// Names and summaries of the embedded experiments.
pub(crate) fn embedded() -> impl Iterator<Item = Result<Experiment>> {
    EMBEDDED.iter().map(|(name, _)| Experiment::load(name, &[]))
}

impl Experiment {
    /// An embedded experiment by name, or the user's by path (it ends in `.toml`), with overrides `key=value` in order,
    /// those of the kind of planner first: the other keys depend on it.
    pub(crate) fn load(name_or_path: &str, overrides: &[String]) -> Result<Self> {
        let (name, text) = if name_or_path.ends_with(".toml") {
            let path = Path::new(name_or_path);
            let text = fs::read_to_string(path).with_context(|| format!("experiment {name_or_path}"))?;
            (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text)
        } else {
            let Some((name, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_path) else {
                let names = EMBEDDED.iter().map(|(name, _)| *name);
                bail!(
                    "unknown experiment `{name_or_path}`{}; `mbrl list` shows all, a path to a file ends in .toml",
                    did_you_mean(name_or_path, names)
                );
            };
            ((*name).to_owned(), (*text).to_owned())
        };
        let mut experiment: Self = toml::from_str(&text).with_context(|| format!("experiment {name_or_path}"))?;
        if experiment.name.is_empty() {
            experiment.name = name;
        }
        let chooses_planner = |word: &&String| word.split_once('=').is_some_and(|(key, _)| key.trim() == PLANNER_KIND);
        let (first, rest): (Vec<_>, Vec<_>) = overrides.iter().partition(chooses_planner);
        first.into_iter().chain(rest).try_fold(experiment, |experiment, word| experiment.overridden(word))
    }

    /// A resolved experiment, as a run folder holds it.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
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

    /// Refuses sizes that no machine has the memory for, before anything asks for it.
    pub(crate) fn check_sizes(&self, obs: usize, action: usize) -> Result<()> {
        let (population, horizon) = match &self.planner {
            PlannerConfig::Cem(config) => (config.population, config.horizon),
            PlannerConfig::Pddm(config) => (config.population, config.horizon),
        };
        let particles = self.propagation.particles;
        let rollout = [population, horizon, particles, obs.saturating_add(action)];
        if product(&rollout).is_none_or(|numbers| numbers > LARGEST) {
            bail!(
                "population {population} · horizon {horizon} · particles {particles}: \
                 trajectories of at most {LARGEST} numbers"
            );
        }
        let EnsembleConfig { members, hidden, angles, .. } = &self.model;
        // Twice the width of the observation: means and log-variances.
        let widths = [&[obs + angles.len() + action][..], hidden, &[2 * obs]].concat();
        let weights = widths
            .windows(2)
            .try_fold(0_u64, |sum, layer| sum.checked_add(product(&[*members, layer[0].saturating_add(1), layer[1]])?));
        if weights.is_none_or(|numbers| numbers > LARGEST) {
            bail!("members {members} · hidden {hidden:?}: at most {LARGEST} weights");
        }
        Ok(())
    }

    fn overridden(&self, word: &str) -> Result<Self> {
        let Some((key, value)) = word.split_once('=') else {
            bail!("--set {word}: expected key=value, for example planner.population=500");
        };
        let (key, value) = (key.trim(), value.trim());
        let mut table = Table::try_from(self)?;
        let known = dotted_keys(&table);
        if !known.iter().any(|k| k == key) {
            bail!("unknown key `{key}`{}", did_you_mean(key, known.iter().map(String::as_str)));
        }
        let present = Present(get(&table, key));
        let new = parse_value(value, present.0);
        let text = new.to_string();
        if key == PLANNER_KIND {
            if present.0 == Some(&new) {
                return Ok(self.clone());
            }
            // Another planner has other settings: these start from its defaults.
            table.insert("planner".into(), Value::Table(Table::from_iter([("kind".to_owned(), new)])));
        } else {
            set(&mut table, key, new).ok_or_else(|| anyhow!("unknown key `{key}`"))?;
        }
        table.try_into().map_err(|error: toml::de::Error| {
            anyhow!(
                "{key} = {text}: {}; the experiment has {key} = {}",
                error.message(),
                Present(get_from(self, key).as_ref())
            )
        })
    }
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
            Value::Table(inner) if key != "replan" => {
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

fn get_from(experiment: &Experiment, key: &str) -> Option<Value> {
    get(&Table::try_from(experiment).ok()?, key).cloned()
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
    use super::*;

    fn overridden(words: &[&str]) -> Result<Experiment> {
        Experiment::load("smoke", &words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn every_embedded_experiment_is_whole_and_survives_writing() {
        for (name, _) in EMBEDDED {
            let experiment = Experiment::load(name, &[]).unwrap();
            assert_eq!(experiment.name, name);
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
        let mut expected = overridden(&[]).unwrap();
        expected.fit.learning_rate = 2.0;
        expected.model.hidden = vec![8, 8];
        expected.agent.fit_every = mbrl_policy::FitSchedule::Steps(10);
        expected.device = "ndarray".into();
        let words = ["fit.learning_rate=2", "model.hidden=[8,8]", "agent.fit_every=10", "device=ndarray"];
        assert_eq!(overridden(&words).unwrap(), expected);
    }

    #[test]
    fn flat_settings_rebuild_the_experiment() {
        let experiment = overridden(&["fit.learning_rate=0.1", "model.hidden=[8,8]", "mpc.replan={every=2}"]).unwrap();
        let flat = experiment.flat().unwrap();
        assert!(flat.contains(&("fit.learning_rate".into(), "0.1".into())), "{flat:?}");
        let words: Vec<String> = flat.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(Experiment::load("smoke", &words).unwrap(), experiment);
    }

    #[test]
    fn another_planner_starts_from_its_defaults() {
        let experiment = overridden(&["planner.kind=pddm", "planner.kappa=3"]).unwrap();
        assert_eq!(experiment.planner, PlannerConfig::Pddm(PddmConfig { kappa: 3.0, ..PddmConfig::default() }));
    }

    #[test]
    fn the_planner_is_chosen_before_its_settings_and_choosing_the_same_changes_nothing() {
        let same = overridden(&["planner.kind=cem"]).unwrap();
        assert_eq!(same, overridden(&[]).unwrap());
        assert_ne!(same.planner, PlannerConfig::Cem(CemConfig::default()));
        let before = overridden(&["planner.kappa=3", "planner.kind = pddm"]).unwrap();
        assert_eq!(before, overridden(&["planner.kind=pddm", "planner.kappa=3"]).unwrap());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_neighbours() {
        let error = overridden(&["planner.popluation=3"]).unwrap_err().to_string();
        assert!(error.contains("`planner.popluation`") && error.contains("`planner.population`"), "{error}");
        assert!(overridden(&["model.depth=3"]).unwrap_err().to_string().contains("`model.depth`"));
        assert!(overridden(&["planner"]).unwrap_err().to_string().contains("key=value"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_key() {
        for (word, offending) in [
            ("planner.population=many", "many"),
            ("planner.population=-1", "-1"),
            ("train.eval_every=1.5", "1.5"),
            ("agent.fit_every=sometimes", "sometimes"),
            ("planner.kind=mppi", "mppi"),
            ("propagation.members=ts-2", "ts-2"),
        ] {
            let error = overridden(&[word]).unwrap_err().to_string();
            let key = word.split('=').next().unwrap();
            assert!(error.contains(key) && error.contains(offending), "{word}: {error}");
        }
    }
}
