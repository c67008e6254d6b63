//! Section `[agent]`: its `kind` determines which learner a run trains, and which other sections exist.
//!
//! A kind is a type with serde's derives whose fields are the sections it owns, in a file of its own, that implements
//! [`Kind`] and has a line in the list at the end of [`AgentConfig`]. It knows nothing of the other kinds.

use mbrl_env::nearest::suggest;
use mbrl_env::tasks::Task;
use mbrl_model::{EnsembleConfig, FitConfig};
use mbrl_plan::PlannerConfig;
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use toml::{Table, Value};

use super::{
    Experiment, ExperimentError, GoalConfig,
    ground_truth::GroundTruthSections,
    latent::LatentSections,
    mbpo::MbpoSections,
    model_based::ModelBasedSections,
    model_free::{SacSections, Td3Sections},
    npg::NpgSections,
    read::read,
};
use crate::{Device, Learner, Training, ValueConfig};

/// Key of the section that names the kind.
pub(super) const AGENT: &str = "agent";
const KIND: &str = "kind";

/// What an agent is built from.
pub(super) struct Site<'a> {
    pub(super) task: &'a Task,
    /// The experiment that it is part of.
    pub(super) experiment: &'a Experiment,
    pub(super) device: &'a Device,
    /// The word for it.
    pub(super) device_word: &'a str,
    /// Number of environments that it acts in side by side.
    pub(super) environments: usize,
}

/// What each kind of agent must provide.
pub(super) trait Kind: Serialize + DeserializeOwned {
    /// The value of `agent.kind`.
    const NAME: &'static str;
    /// The keys and sections of its own, `agent` among them.
    const SECTIONS: &'static [&'static str];

    /// Fills in the values that depend on the kind, where they were left open.
    fn complete(&mut self);

    /// The learner, with random numbers of the training's generator.
    fn build(&self, site: &Site<'_>, training: &mut Training) -> Result<Box<dyn Learner>, ExperimentError>;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $Variant:ident($Sections:ty),)+) => {
        /// Which learner, and the sections that it owns.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        #[non_exhaustive]
        pub enum AgentConfig {
            $($(#[$doc])* $Variant(Box<$Sections>),)+
        }

        const KINDS: &[(&str, &[&str])] = &[$((<$Sections>::NAME, <$Sections>::SECTIONS),)+];

        impl AgentConfig {
            /// The value of `agent.kind`.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$Variant(_) => <$Sections>::NAME,)+
                }
            }

            fn read_kind(kind: &str, sections: Table) -> Result<Self, ExperimentError> {
                match kind {
                    $(<$Sections>::NAME => {
                        let mut sections: $Sections = read(sections, "")?;
                        sections.complete();
                        Ok(Self::$Variant(Box::new(sections)))
                    })+
                    _ => Err(unknown_kind(kind)),
                }
            }

            pub(super) fn build(
                &self,
                site: &Site<'_>,
                training: &mut Training,
            ) -> Result<Box<dyn Learner>, ExperimentError> {
                match self {
                    $(Self::$Variant(sections) => sections.build(site, training),)+
                }
            }
        }
    };
}

kinds! {
    /// `kind = "model-based"` (default): learns an ensemble and plans through it (PETS, PDDM). Sections `[agent]`, `[goal]`,
    /// `[model]`, `[fit]`, `[planner]`, `[refinement]`, `[propagation]`, `[mpc]` and the key `precision`; `[value]`, `[distil]`, `[policy]`,
    /// `[critics]` and `[sac]` add a value and a policy to the planner.
    ModelBased(ModelBasedSections),
    /// `kind = "ground-truth"`: plans through the simulator itself and learns no model. Sections `[goal]`, `[planner]`,
    /// `[refinement]` and `[mpc]`; `[value]`, `[distil]`, `[policy]`, `[critics]` and `[sac]` as with `"model-based"`.
    GroundTruth(GroundTruthSections),
    /// `kind = "mbpo"`: learns an ensemble, and a policy in it (MBPO, DHMBPO). Sections `[agent]`, `[goal]`, `[model]`, `[fit]`,
    /// `[rollout]`, `[propagation]`, `[policy]`, `[critics]` and `[sac]`.
    Mbpo(MbpoSections),
    /// `kind = "latent"`: observes images, learns a latent model of them and plans in its latent space. Sections `[agent]`, `[goal]`,
    /// `[model]`, `[fit]`, `[planner]`, `[refinement]` and `[mpc]`.
    Latent(LatentSections),
    /// `kind = "sac"`: learns a policy from real transitions alone, by soft actor-critic. Sections `[agent]`, `[policy]`,
    /// `[critics]` and `[sac]`.
    Sac(SacSections),
    /// `kind = "td3"`: learns a policy from real transitions alone, by twin delayed deep deterministic policy gradients. Sections
    /// `[agent]`, `[policy]`, `[critics]` and `[td3]`.
    Td3(Td3Sections),
    /// `kind = "npg"`: learns a policy from its own whole episodes, by natural policy gradients. Sections `[agent]`, `[policy]`
    /// and `[baseline]`.
    Npg(NpgSections),
}

impl AgentConfig {
    /// A placeholder while the rest of an experiment is read.
    pub(super) fn placeholder() -> Self {
        Self::GroundTruth(Box::default())
    }

    /// The sections of an agent that learns an ensemble and plans through it.
    #[must_use]
    pub fn model_based(&self) -> Option<&ModelBasedSections> {
        match self {
            Self::ModelBased(sections) => Some(sections),
            _ => None,
        }
    }

    /// The sections of an agent that plans through the simulator itself.
    #[must_use]
    pub fn ground_truth(&self) -> Option<&GroundTruthSections> {
        match self {
            Self::GroundTruth(sections) => Some(sections),
            _ => None,
        }
    }

    /// The model that is learned and how it is fitted; `None` where nothing is learned.
    #[must_use]
    pub fn learned_model(&self) -> Option<(&EnsembleConfig, &FitConfig)> {
        match self {
            Self::ModelBased(sections) => Some((&sections.model, &sections.fit)),
            Self::Mbpo(sections) => Some((&sections.model, &sections.fit)),
            _ => None,
        }
    }

    /// Sections `[goal]` and `[value]` of agents whose plans may end in a value; `None` for others.
    pub(super) fn goal_and_value(&self) -> Option<(&GoalConfig, &ValueConfig)> {
        match self {
            Self::ModelBased(sections) => Some((&sections.goal, &sections.value)),
            Self::GroundTruth(sections) => Some((&sections.goal, &sections.value)),
            _ => None,
        }
    }

    /// Section `[value]` of these, mutable.
    pub(super) fn value_mut(&mut self) -> Option<&mut ValueConfig> {
        match self {
            Self::ModelBased(sections) => Some(&mut sections.value),
            Self::GroundTruth(sections) => Some(&mut sections.value),
            _ => None,
        }
    }

    /// Random real steps before the agent chooses its actions itself; an agent that learns a model does so from its first fit on, which may
    /// come later.
    #[must_use]
    pub fn random_steps(&self) -> u64 {
        match self {
            Self::ModelBased(sections) => sections.agent.random_steps,
            Self::Mbpo(sections) => sections.agent.random_steps,
            Self::Latent(sections) => sections.agent.random_steps,
            Self::Sac(sections) => sections.agent.random_steps,
            Self::Td3(sections) => sections.agent.random_steps,
            Self::GroundTruth(_) | Self::Npg(_) => 0,
        }
    }

    /// The planner; `None` for agents that do not plan.
    #[must_use]
    pub fn planner(&self) -> Option<&PlannerConfig> {
        match self {
            Self::ModelBased(sections) => Some(&sections.planner),
            Self::GroundTruth(sections) => Some(&sections.planner),
            Self::Latent(sections) => Some(&sections.planner),
            Self::Mbpo(_) | Self::Sac(_) | Self::Td3(_) | Self::Npg(_) => None,
        }
    }

    /// Takes the sections of the agent out of an experiment's table. What is left is the run's, and `common` are its keys.
    pub(super) fn take(table: &mut Table, common: &[&str]) -> Result<Self, ExperimentError> {
        let mut agent = match table.remove(AGENT) {
            None => Table::new(),
            Some(Value::Table(agent)) => agent,
            Some(other) => return Err(ExperimentError::rule(AGENT, other, "a table, section [agent]")),
        };
        let kind = match agent.remove(KIND) {
            None => ModelBasedSections::NAME.to_owned(),
            Some(Value::String(kind)) => kind,
            Some(other) => return Err(ExperimentError::rule("agent.kind", other, kind_rule(""))),
        };
        let (_, sections) = KINDS.iter().find(|(name, _)| *name == kind).ok_or_else(|| unknown_kind(&kind))?;
        let mut own = Table::from_iter([(AGENT.to_owned(), Value::Table(agent))]);
        for key in *sections {
            if let Some(value) = table.remove(*key) {
                own.insert((*key).to_owned(), value);
            }
        }
        if let Some(stranger) = table.keys().find(|key| !common.contains(&key.as_str())) {
            return Err(unknown_section(stranger, &kind, &[common, sections].concat()));
        }
        Self::read_kind(&kind, own).map_err(|error| match error {
            ExperimentError::Missing { what } if !what.contains('.') => {
                let section = what.trim_start_matches("key ").trim_matches('`').to_owned();
                ExperimentError::Missing { what: format!("section [{section}], which agent.kind = \"{kind}\" needs") }
            }
            other => other,
        })
    }
}

/// The sections of a kind of agent.
pub(super) fn sections_of(kind: &str) -> Result<&'static [&'static str], ExperimentError> {
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, sections)| *sections).ok_or_else(|| unknown_kind(kind))
}

fn kind_rule(hint: &str) -> String {
    let names: Vec<String> = KINDS.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    format!("one of {}{hint}", names.join(", "))
}

fn unknown_kind(kind: &str) -> ExperimentError {
    let hint = suggest(kind, KINDS.iter().map(|(name, _)| *name));
    ExperimentError::rule("agent.kind", format!("{kind:?}"), kind_rule(&hint))
}

fn unknown_section(key: &str, kind: &str, known: &[&str]) -> ExperimentError {
    let owners: Vec<&str> =
        KINDS.iter().filter(|(_, sections)| sections.contains(&key)).map(|(name, _)| *name).collect();
    let hint = if owners.is_empty() {
        suggest(key, known.iter().copied())
    } else {
        format!("; it belongs to agent.kind = \"{}\", and this experiment has \"{kind}\"", owners.join("\" or \""))
    };
    ExperimentError::UnknownKey { key: key.to_owned(), hint }
}

/// A section `[agent]` in its written form: the kind, then its settings.
pub(super) fn with_kind<K: Kind, T: Serialize, S: Serializer>(settings: &T, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Written<'a, T> {
        kind: &'static str,
        #[serde(flatten)]
        settings: &'a T,
    }
    Written { kind: K::NAME, settings }.serialize(serializer)
}

/// A section `[agent]` without settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_owns_the_sections_that_it_writes() {
        let written = |config: &AgentConfig| -> Vec<String> {
            Table::try_from(config).unwrap().into_iter().map(|(key, _)| key).collect()
        };
        let experiment = |text: &str| super::super::Experiment::from_toml(text).unwrap();
        let learned = "task = \"pendulum\"\nsteps = 1\n[model]\n[planner]\nkind = \"cem\"\n[propagation]\n\
                       rule = \"ts-inf\"\nnoise = true\nparticles = 5\n";
        let of_kind = |kind: &str| format!("task = \"pendulum\"\nsteps = 1\n[agent]\nkind = \"{kind}\"\n");
        let free = ["sac", "td3", "npg"].map(|kind| experiment(&of_kind(kind)).agent);
        for config in [experiment(learned).agent, AgentConfig::placeholder()].into_iter().chain(free) {
            let mut owned: Vec<&str> = sections_of(config.kind()).unwrap().to_vec();
            owned.sort_unstable();
            assert_eq!(written(&config), owned, "{}", config.kind());
        }
    }
}
