//! Section `[goal]`: how plans are judged.

use std::{fmt, sync::Arc};

use mbrl_env::{
    ActionSpace, ColumnNames, Env, Expression, ExpressionError, Reward, Termination, nearest::nearest, reward_fn,
    tasks::Task, termination_fn,
};
use mbrl_model::{Bool, EnsembleConfig};
use mbrl_plan::{ActionRate, Aggregate, Disagreement};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use super::ExperimentError;
use crate::{Goal, Tensor};

/// How plans are judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct GoalConfig {
    /// Discount per step, in (0, 1] (default 1, PETS and PDDM).
    pub discount: f32,
    /// Reward of each planned step after the terminal one (default 0; PDDM's tasks: −500).
    pub after_termination: f32,
    /// The source of the reward: `"task"`, `"model"`, or an [`Expression`] over named columns, such as `"-next.angle^2"`. Default: the task's where
    /// the model is learned, the model's where it is the simulator.
    pub reward: Option<RewardSource>,
    /// The source of terminations: `"task"`, `"model"`, `"none"`, or an expression such as `"abs(next.angle) > 0.2"`, with the same default.
    pub termination: Option<TerminationSource>,
    /// How the particles of a candidate count: `"mean"` (default), `"worst"` or `{ mean-minus-std = k }`.
    pub aggregate: Aggregate,
    /// Cost of a planned step per column of the observation that it leads to: this times the column's square, `[O]`, subtracted from the
    /// reward. It distinguishes plans that the task's reward does not; evaluations count only the task's reward. Empty (default): none.
    pub cost: Vec<f32>,
    /// Added to the reward of a planned step: an [`Expression`] over named columns, for tasks whose reward misleads plans, or does not guide
    /// them; evaluations do not count it. Empty (default): nothing.
    pub shaping: String,
    /// What a planned step earns where the members of a learned model disagree (default: nothing).
    pub disagreement: DisagreementConfig,
    /// What changes of the action cost in plans, and how large they may be (default: nothing, and any size).
    pub action_rate: ActionRateConfig,
}

/// Changes of the action from step to step, in half ranges of each action: [`ActionRate`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActionRateConfig {
    /// Cost of a planned step: this times the sum of the squared changes; 0 (default) for none.
    pub weight: f32,
    /// Largest change per step, above 0; 2 (default), from one bound to the other, is no limit.
    pub limit: f32,
}

impl Default for ActionRateConfig {
    fn default() -> Self {
        Self { weight: 0.0, limit: 2.0 }
    }
}

/// A bonus for planned steps on whose outcome the members disagree: [`Disagreement`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DisagreementConfig {
    /// Reward per unit of variance, only in training: evaluations never explore. Negative to avoid what is not known, in evaluations
    /// too; 0 (default) for none.
    pub weight: f32,
    /// The unit of disagreement in each column of the observation, above 0, `[O]`, such as a standard deviation of the data.
    pub scale: Vec<f32>,
}

/// What defines the reward of a planned step. As text: `"task"`, `"model"`; anything else is an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RewardSource {
    /// The task, by its equation.
    Task,
    /// The model, which has learned it (`model.reward`) or is the simulator.
    Model,
    /// A text: an [`Expression`] that is a number.
    Expression(String),
}

/// What defines where a planned episode terminates. As text: `"task"`, `"model"`, `"none"`; anything else is an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminationSource {
    /// The task, by its rule.
    Task,
    /// The model, which has learned it (`model.termination`) or is the simulator.
    Model,
    /// Nothing: plans continue past terminations.
    None,
    /// A text: an [`Expression`] that is a comparison.
    Expression(String),
}

/// A source as one word, or as any other text.
macro_rules! written_as_text {
    ($Source:ident { $($word:literal => $Variant:ident),+ }) => {
        impl From<String> for $Source {
            fn from(text: String) -> Self {
                match text.trim() {
                    $($word => Self::$Variant,)+
                    _ => Self::Expression(text),
                }
            }
        }

        impl Serialize for $Source {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(match self {
                    $(Self::$Variant => $word,)+
                    Self::Expression(text) => text,
                })
            }
        }

        impl<'de> Deserialize<'de> for $Source {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Text).map(Self::from)
            }
        }

        impl $Source {
            /// What is wrong with a text; a word may have been meant as one of those that are not expressions.
            fn refused(key: &str, text: &str, error: &ExpressionError) -> ExperimentError {
                let near = nearest(text.trim(), [$($word),+]);
                let hint = near.first().map_or(String::new(), |word| format!("; or was \"{word}\" meant?"));
                ExperimentError::Refused { key: key.to_owned(), reason: format!("{error}{hint}") }
            }
        }
    };
}

written_as_text!(RewardSource { "task" => Task, "model" => Model });
written_as_text!(TerminationSource { "task" => Task, "model" => Model, "none" => None });

/// Any plain value as text: a number is an expression too.
struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"task\", \"model\" or an expression as text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<String, E> {
        Ok(truth.to_string())
    }
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
            shaping: String::new(),
            disagreement: DisagreementConfig::default(),
            action_rate: ActionRateConfig::default(),
        }
    }
}

impl GoalConfig {
    /// The goal on `task`, for plans with a learned `model`, or with the simulator (`None`).
    ///
    /// # Errors
    /// [`ExperimentError::Value`] for a value that breaks a rule, and for a source that defines nothing.
    pub fn init(&self, task: &Task, model: Option<&EnsembleConfig>) -> Result<Goal, ExperimentError> {
        if !(self.discount > 0.0 && self.discount <= 1.0) {
            return Err(ExperimentError::rule("goal.discount", self.discount, "a number in (0, 1]"));
        }
        if let Aggregate::MeanMinusStd(factor) = self.aggregate
            && !factor.is_finite()
        {
            let value = format!("{{ mean-minus-std = {factor} }}");
            return Err(ExperimentError::rule("goal.aggregate", value, "a finite factor"));
        }
        if !self.after_termination.is_finite() {
            return Err(ExperimentError::rule("goal.after_termination", self.after_termination, "a finite number"));
        }
        Ok(Goal {
            reward: self.reward(task, model)?,
            termination: self.termination(task, model)?,
            discount: self.discount,
            after_termination: self.after_termination,
            shaping: self.shaping(task)?,
            disagreement: self.disagreement(task, model)?,
            action_rate: self.action_rate(task)?,
            ..Goal::of_model()
        })
    }

    fn reward(&self, task: &Task, model: Option<&EnsembleConfig>) -> Result<Option<Arc<dyn Reward>>, ExperimentError> {
        match &self.reward {
            Some(RewardSource::Expression(text)) => {
                let read = Expression::reward(text, &ColumnNames::of(&task.env));
                let reward = read.map_err(|error| RewardSource::refused("goal.reward", text, &error))?;
                Ok(Some(Arc::new(reward)))
            }
            Some(RewardSource::Model) if model.is_some_and(|model| !model.reward) => Err(ExperimentError::rule(
                "goal.reward",
                "\"model\"",
                "\"task\", or a model that learns the reward: model.reward = true",
            )),
            Some(RewardSource::Model) => Ok(None),
            Some(RewardSource::Task) | None => match (&task.reward, model) {
                (Some(reward), _) => Ok(Some(reward.clone())),
                (None, model) => {
                    let way_out = if model.is_some() {
                        "a model can learn it (model.reward = true with goal.reward = \"model\"), or an expression can say it \
                         (goal.reward = \"-next.NAME^2\", with the names of columns)"
                    } else {
                        "the simulator knows it: goal.reward = \"model\""
                    };
                    let told = format!(
                        "\"model\", because {} gives planners no reward function; {way_out}",
                        task.env.spec().name
                    );
                    Err(ExperimentError::rule("goal.reward", "\"task\"", told))
                }
            },
        }
    }

    fn termination(
        &self,
        task: &Task,
        model: Option<&EnsembleConfig>,
    ) -> Result<Option<Arc<dyn Termination>>, ExperimentError> {
        match (&self.termination, model) {
            // A simulator does not step past terminations, and only the simulator knows where its time limit cuts an episode.
            (Some(TerminationSource::Model), None) => Ok(None),
            (Some(source), None) => Err(ExperimentError::rule(
                "goal.termination",
                match source {
                    TerminationSource::Task => "\"task\"".to_owned(),
                    TerminationSource::None => "\"none\"".to_owned(),
                    TerminationSource::Model => "\"model\"".to_owned(),
                    TerminationSource::Expression(text) => format!("{text:?}"),
                },
                "\"model\" where the simulator is the model",
            )),
            (None, None) => Ok(None),
            (Some(TerminationSource::Model), Some(model)) if !model.termination => Err(ExperimentError::rule(
                "goal.termination",
                "\"model\"",
                "\"task\", \"none\", or a model that learns terminations: model.termination = true",
            )),
            (Some(TerminationSource::Model), Some(_)) => Ok(None),
            (Some(TerminationSource::Task) | None, Some(model)) => {
                Ok(task.termination.clone().or_else(|| never(model)))
            }
            (Some(TerminationSource::None), Some(model)) => Ok(never(model)),
            (Some(TerminationSource::Expression(text)), Some(_)) => {
                let read = Expression::termination(text, &ColumnNames::of(&task.env));
                let rule = read.map_err(|error| TerminationSource::refused("goal.termination", text, &error))?;
                Ok(Some(Arc::new(rule)))
            }
        }
    }

    /// What is added to the reward of a planned step.
    fn shaping(&self, task: &Task) -> Result<Option<Arc<dyn Reward>>, ExperimentError> {
        let cost = self.costs(task)?;
        if self.shaping.trim().is_empty() {
            return Ok(cost);
        }
        let read = Expression::reward(&self.shaping, &ColumnNames::of(&task.env));
        let bonus = read
            .map_err(|error| ExperimentError::Refused { key: "goal.shaping".to_owned(), reason: error.to_string() })?;
        let Some(cost) = cost else { return Ok(Some(Arc::new(bonus))) };
        Ok(Some(Arc::new(reward_fn(move |obs: Tensor<2>, actions: Tensor<2>, next: Tensor<2>| {
            cost.reward(obs.clone(), actions.clone(), next.clone()) + bonus.reward(obs, actions, next)
        }))))
    }

    /// The cost of a planned step, as what is added to its reward.
    fn costs(&self, task: &Task) -> Result<Option<Arc<dyn Reward>>, ExperimentError> {
        if self.cost.is_empty() {
            return Ok(None);
        }
        check_columns("goal.cost", &self.cost, task)?;
        if !self.cost.iter().all(|weight| weight.is_finite()) {
            return Err(ExperimentError::rule("goal.cost", format!("{:?}", self.cost), "finite numbers"));
        }
        // Columns without a weight are ignored: one that diverges costs nothing.
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

    fn action_rate(&self, task: &Task) -> Result<Option<ActionRate>, ExperimentError> {
        let ActionRateConfig { weight, limit } = self.action_rate;
        if weight == 0.0 && limit == 2.0 {
            return Ok(None);
        }
        if !(weight >= 0.0 && weight.is_finite()) {
            return Err(ExperimentError::rule("goal.action_rate.weight", weight, "a finite number of at least 0"));
        }
        if !(limit > 0.0 && limit <= 2.0) {
            return Err(ExperimentError::rule("goal.action_rate.limit", limit, "a number in (0, 2]; 2 is no limit"));
        }
        if !matches!(&task.env.spec().actions, ActionSpace::Box(_)) {
            let told = "0 and 2 where actions are choices: a choice does not change by degrees";
            return Err(ExperimentError::rule("goal.action_rate", format!("{weight} and {limit}"), told));
        }
        Ok(Some(ActionRate::new(weight, limit)))
    }

    fn disagreement(
        &self,
        task: &Task,
        model: Option<&EnsembleConfig>,
    ) -> Result<Option<Disagreement>, ExperimentError> {
        let DisagreementConfig { weight, scale } = &self.disagreement;
        if *weight == 0.0 {
            return Ok(None);
        }
        if model.is_none() {
            let told = "0 where the simulator is the model: it has no members that could disagree";
            return Err(ExperimentError::rule("goal.disagreement.weight", weight, told));
        }
        if !weight.is_finite() {
            return Err(ExperimentError::rule("goal.disagreement.weight", weight, "a finite number"));
        }
        check_columns("goal.disagreement.scale", scale, task)?;
        if !scale.iter().all(|scale| scale.is_finite() && *scale > 0.0) {
            let told = "finite numbers above 0";
            return Err(ExperimentError::rule("goal.disagreement.scale", format!("{scale:?}"), told));
        }
        Ok(Some(Disagreement { weight: *weight, scale: scale.clone() }))
    }
}

/// Refuses a list that is not as long as the task's observation is wide.
fn check_columns(key: &str, list: &[f32], task: &Task) -> Result<(), ExperimentError> {
    let columns = task.env.spec().obs.width();
    if list.len() == columns {
        return Ok(());
    }
    let told = format!("{columns} numbers, one per column of the observation ({} came)", list.len());
    Err(ExperimentError::rule(key, format!("{list:?}"), told))
}

/// A goal without a termination leaves it to a model that has learned one; this rule does not.
fn never(model: &EnsembleConfig) -> Option<Arc<dyn Termination>> {
    let rule = |obs: Tensor<2>, _, _| Tensor::<1, Bool>::zeros([obs.dims()[0]], &obs.device());
    model.termination.then(|| Arc::new(termination_fn(rule)) as Arc<dyn Termination>)
}
