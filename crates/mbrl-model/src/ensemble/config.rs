//! Configuration of an ensemble.

use std::{borrow::Cow, f32::consts::TAU, ops::Range};

use burn::tensor::Device;
use mbrl_env::{AngleColumn, EnvSpec, Knowledge, MAX_PAST, Rng};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Activation, Ensemble, ModelError, mlp::MlpConfig};

/// What the last layer predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// Mean and log-variance of each dimension, fitted by likelihood (PETS's probabilistic ensemble, "PE").
    Gaussian,
    /// The mean alone, fitted by squared error (PDDM, PETS's "DE").
    Deterministic,
}

/// What the variance of a [Gaussian head](Head::Gaussian) depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variance {
    /// On observation and action (default, PETS and MBPO): the world is noisier in some places than in others.
    #[default]
    Input,
    /// On nothing: each member has one variance per predicted column, that of its errors (DHMBPO). Means are then fitted as by squared
    /// errors, with more weight on columns with small errors, and imagined steps are as noisy everywhere as the model is wrong on average.
    Column,
}

/// Which columns of an observation are angles that turn all the way round.
///
/// The network sees sine and cosine of `2π x / turn`, so that nothing special happens after a turn. Where an angle
/// [wraps](AngleColumn::wraps), its value jumps by a turn in the data (from π to −π, from 359° to 0°): the change that the
/// model learns is then the short way round, within ± half a turn, and predictions stay in the range of the data: from 0 on if
/// none of its values was negative, otherwise within ± half a turn.
///
/// In an experiment: `angles = "task"`, or columns such as `angles = [0, 3]` (rad, no jumps) and
/// `angles = [{ column = 2, turn = 360.0, wraps = true }]`.
///
/// ```
/// use mbrl_env::AngleColumn;
/// use mbrl_model::{Angles, EnsembleConfig};
///
/// let compass = AngleColumn { column: 2, turn: 360.0, wraps: true };
/// let config = EnsembleConfig { angles: Angles::Columns(vec![AngleColumn::radians(0), compass]), ..Default::default() };
/// assert_eq!(config.angles.columns().len(), 2);
/// assert!(EnsembleConfig::default().angles.columns().is_empty()); // until a task is known
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Angles {
    /// Those that the task's [`EnvSpec`] names (default): [`EnsembleConfig::init_for`] reads them there. Without a spec
    /// ([`EnsembleConfig::init`]) none.
    #[default]
    Task,
    /// These, in rising order.
    Columns(Vec<AngleColumn>),
}

impl Angles {
    /// No angles, whatever the task says.
    pub const NONE: Self = Self::Columns(Vec::new());

    /// Columns in radians that do not jump.
    #[must_use]
    pub fn radians(columns: impl IntoIterator<Item = usize>) -> Self {
        Self::Columns(columns.into_iter().map(AngleColumn::radians).collect())
    }

    /// The columns, where they are known: none for [`Task`](Self::Task).
    #[must_use]
    pub fn columns(&self) -> &[AngleColumn] {
        match self {
            Self::Task => &[],
            Self::Columns(columns) => columns,
        }
    }
}

/// An entry as it is written: plain numbers are radians without jumps, as in files of earlier versions.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a column of the observation, such as 1 or { column = 1, turn = 360.0, wraps = true }")]
enum WrittenAngle {
    Radians(usize),
    Column(AngleColumn),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "\"task\", or columns of the observation, such as [1] or [{ column = 1, turn = 360.0, wraps = true }]"
)]
enum WrittenAngles {
    Task(TaskWord),
    Columns(Vec<WrittenAngle>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum TaskWord {
    Task,
}

impl Serialize for Angles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Task => TaskWord::Task.serialize(serializer),
            Self::Columns(columns) => serializer.collect_seq(columns.iter().map(|&angle| {
                let plain = angle == AngleColumn::radians(angle.column);
                if plain { WrittenAngle::Radians(angle.column) } else { WrittenAngle::Column(angle) }
            })),
        }
    }
}

impl<'de> Deserialize<'de> for Angles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match WrittenAngles::deserialize(deserializer)? {
            WrittenAngles::Task(TaskWord::Task) => Self::Task,
            WrittenAngles::Columns(columns) => {
                let column = |written| match written {
                    WrittenAngle::Radians(column) => AngleColumn::radians(column),
                    WrittenAngle::Column(angle) => angle,
                };
                Self::Columns(columns.into_iter().map(column).collect())
            }
        })
    }
}

/// The precision in which the fused CPU engine multiplies, in roll-outs without gradients. Fits, [`predict`](crate::Dynamics::predict),
/// gradients and roll-outs as Burn tensors are in `f32` whatever is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// In `f32` (default).
    #[default]
    F32,
    /// Between hidden layers, weights and inputs are rounded to bfloat16 (8 bits of significand, ties to even) and their
    /// products summed in `f32`. The first and the last layer, biases, activations, heads and noise stay `f32`: these layers
    /// are small, and rounding them makes the error two to three times as large. A network of fewer than two hidden layers
    /// has nothing to round.
    ///
    /// Roll-outs are 1.5 to 1.7 times as fast where the processor has AVX512-BF16 (AMD's from Zen 4 on, Intel's from
    /// Sapphire Rapids on; docs/benchmarks.md). Elsewhere plain arithmetic computes the same, without a gain.
    Bf16,
}

/// Columns whose errors count more in the loss: where a task depends on few of many columns, such as an object in a hand of 48 joint
/// angles and velocities, a network of limited width should make its errors in the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Emphasis {
    /// Observation columns, in rising order (default none).
    pub columns: Vec<usize>,
    /// How much an error in these columns counts, against 1 for every other column (default 1).
    pub weight: f32,
}

impl Default for Emphasis {
    fn default() -> Self {
        Self { columns: Vec::new(), weight: 1.0 }
    }
}

/// An ensemble of multilayer perceptrons: `(s, a) → s'`.
///
/// Defaults are those of PETS's half-cheetah (`dmbrl/config/halfcheetah.py`), weight decay aside: five members of four
/// layers of 200 SiLU units with a Gaussian head.
///
/// ```
/// use mbrl_model::{Activation, Device, Dynamics, EnsembleConfig};
/// let config = EnsembleConfig { hidden: vec![64, 64], activation: Activation::Relu, ..Default::default() };
/// let model = config.init(3, 1, &Device::flex(), &mut mbrl_env::Rng::new(0))?;
/// assert_eq!(model.spec().members, 5);
/// # Ok::<(), mbrl_model::ModelError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnsembleConfig {
    /// Networks that are fitted, `E` (default 5, PETS).
    pub members: usize,
    /// How many of them roll-outs draw from: those of the lowest holdout error (MBPO: 5 of 7). 0 means all (default).
    pub elites: usize,
    /// Widths of the hidden layers (default four of 200).
    pub hidden: Vec<usize>,
    /// Activation between layers (default SiLU).
    pub activation: Activation,
    /// What the last layer predicts (default Gaussian).
    pub head: Head,
    /// What the variance of a Gaussian head depends on (default: observation and action).
    pub variance: Variance,
    /// Weight decay of each layer's weights, added to the loss as `decay · ½‖W‖²`; one for each layer, the last one
    /// included, or none (default none; PETS has a table for each task, see [`pets_half_cheetah`](Self::pets_half_cheetah)).
    pub weight_decay: Vec<f32>,
    /// Observation columns that are angles (default: those that the task names): the network sees their sine and cosine.
    pub angles: Angles,
    /// Observation columns predicted directly instead of as a change (default none).
    pub no_delta: Vec<usize>,
    /// Observation columns whose errors count more than those of the others (default none).
    pub emphasis: Emphasis,
    /// Whether targets are standardised too (PDDM does, PETS and MBPO do not; default false).
    pub normalize_targets: bool,
    /// Initial upper bound of the log-variance (default 0.5, PETS).
    pub max_log_var: f32,
    /// Initial lower bound of the log-variance (default −10, PETS).
    pub min_log_var: f32,
    /// Whether these bounds are learned (PETS, MBPO: true; mbrl-lib: false; default true). If not, they stay where they
    /// start and `bounds_weight` has no effect.
    pub learn_bounds: bool,
    /// Weight of the loss term that pulls the bounds together (default 0.01, PETS).
    pub bounds_weight: f32,
    /// β of the β-likelihood (Seitzer et al. 2022, *On the Pitfalls of Heteroscedastic Uncertainty Estimation with Probabilistic Neural
    /// Networks*): each number's share of the loss is multiplied by its predicted variance to the power β, which is held fixed. In [0, 1]:
    /// 0 is the likelihood itself (default, PETS), 1 fits means as squared errors do. A Gaussian head with β = 0 hardly learns what it
    /// once took for noise, such as the velocities of a leg that touches the ground; β = 0.5 learns it and still says its noise.
    pub nll_beta: f32,
    /// Whether the reward is learned too: one more column of the same head, predicted directly and fitted in the same
    /// likelihood (MBPO predicts `[reward, Δobs]`; default false, PETS and PDDM). Its data needs
    /// [rewards](crate::Dataset::with_rewards).
    pub reward: bool,
    /// Whether termination is learned too: one more output, the logit of its probability, fitted by cross-entropy (default
    /// false; none of the papers does). With a Gaussian head it counts ten times its likelihood, because the dynamics of a
    /// world without much noise would drown it; where there is no noise at all, as in most simulators, and terminations are
    /// rare, take a deterministic head. Its data needs [terminations](crate::Dataset::with_terminated).
    pub termination: bool,
    /// Past steps that the network sees besides the present observation, where one observation does not tell everything
    /// (default 0; PDDM's code has it and uses none). At most [`MAX_PAST`], which is what situations carry.
    pub past: usize,
    /// From how many steps before a transition its state may be predicted in a fit (default 0: from none, as in PETS, MBPO and PDDM). With
    /// `n`, the state of each transition of a batch is the one that the member itself predicts from the real state j steps before, under the
    /// actions taken since; j is drawn from 0 to `n`, at most back to the episode's beginning. The target leads from there to the real next state. So
    /// a member learns to correct its own errors, and long roll-outs stay near the data: hallucinated replay (Talvitie 2014, *Model
    /// Regularization for Stable Sample Rollouts*), data as demonstrator (Venkatraman et al. 2015). Noise is not drawn, and gradients do not
    /// pass through the steps before. The errors that a fit reports are still those of one step from real states. Its data needs
    /// [episodes](crate::Dataset::with_episodes); it cannot be combined with [`past`](Self::past). An optimizer step takes about `1 + n/6` times
    /// as long on a CPU (reckoned); on a GPU each of the steps before waits for the device.
    pub hallucinated_steps: usize,
}

impl Default for EnsembleConfig {
    fn default() -> Self {
        Self {
            members: 5,
            elites: 0,
            hidden: vec![200; 4],
            activation: Activation::Silu,
            head: Head::Gaussian,
            variance: Variance::Input,
            weight_decay: Vec::new(),
            angles: Angles::Task,
            no_delta: Vec::new(),
            emphasis: Emphasis::default(),
            normalize_targets: false,
            max_log_var: 0.5,
            min_log_var: -10.0,
            learn_bounds: true,
            bounds_weight: 0.01,
            nll_beta: 0.0,
            reward: false,
            termination: false,
            past: 0,
            hallucinated_steps: 0,
        }
    }
}

impl EnsembleConfig {
    /// PETS's half-cheetah (`dmbrl/config/halfcheetah.py`), with its weight decay.
    #[must_use]
    pub fn pets_half_cheetah() -> Self {
        Self { weight_decay: vec![2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4], ..Self::default() }
    }

    /// PDDM's model (Nagabandi et al. 2019, table of the paper): three deterministic networks of two hidden layers of 500
    /// ReLU units, targets standardised.
    ///
    /// Differences: weights start from PETS's truncated normal and biases from 0 instead of Xavier normals for both;
    /// standardised actions are not clipped to [−1, 1].
    #[must_use]
    pub fn pddm() -> Self {
        Self {
            members: 3,
            hidden: vec![500; 2],
            activation: Activation::Relu,
            head: Head::Deterministic,
            normalize_targets: true,
            ..Self::default()
        }
    }

    /// Checks every rule; `obs` is the width of an observation.
    ///
    /// # Errors
    /// [`ModelError::Config`], naming the field.
    pub fn validate(&self, obs: usize) -> Result<(), ModelError> {
        fn rule(
            ok: bool,
            field: &'static str,
            value: impl std::fmt::Debug,
            rule: impl Into<Cow<'static, str>>,
        ) -> Result<(), ModelError> {
            if ok { Ok(()) } else { Err(ModelError::Config { field, value: format!("{value:?}"), rule: rule.into() }) }
        }
        let layers = self.hidden.len() + 1;
        rule(self.members > 0, "members", self.members, "at least 1")?;
        rule(
            self.elites <= self.members,
            "elites",
            self.elites,
            format!("at most {} (the members), or 0 for all", self.members),
        )?;
        rule(self.hidden.iter().all(|&w| w > 0), "hidden", &self.hidden, "widths of at least 1")?;
        rule(
            self.weight_decay.is_empty() || self.weight_decay.len() == layers,
            "weight_decay",
            &self.weight_decay,
            format!("{layers} values (one for each hidden layer and the last), or none"),
        )?;
        rule(
            self.weight_decay.iter().all(|d| d.is_finite() && *d >= 0.0),
            "weight_decay",
            &self.weight_decay,
            "finite values of at least 0",
        )?;
        let angles = self.angles.columns();
        let angle_columns: Vec<usize> = angles.iter().map(|angle| angle.column).collect();
        for (field, columns) in
            [("angles", &angle_columns), ("no_delta", &self.no_delta), ("emphasis.columns", &self.emphasis.columns)]
        {
            rule(columns.iter().all(|&c| c < obs), field, columns, format!("columns of the observation, below {obs}"))?;
            rule(columns.windows(2).all(|w| w[0] < w[1]), field, columns, "columns in rising order, each once")?;
        }
        let weight = self.emphasis.weight;
        rule(weight.is_finite() && weight > 0.0, "emphasis.weight", weight, "a finite number above 0")?;
        rule(
            self.emphasis.columns.is_empty() == (weight == 1.0),
            "emphasis",
            &self.emphasis,
            "columns and a weight other than 1, or neither: one without the other changes nothing",
        )?;
        let turns: Vec<f32> = angles.iter().map(|angle| angle.turn).collect();
        rule(
            turns.iter().all(|turn| turn.is_finite() && *turn > 0.0),
            "angles",
            &turns,
            "turns that are positive and finite, such as 6.2831855 (rad) and 360 (degrees)",
        )?;
        rule(
            !angles.iter().any(|angle| angle.wraps && self.no_delta.contains(&angle.column)),
            "no_delta",
            &self.no_delta,
            "no angle that wraps: its value jumps, and only its change can be learned",
        )?;
        rule(self.past <= MAX_PAST, "past", self.past, "at most 16 steps, which is what situations carry")?;
        rule(
            self.past == 0 || self.hallucinated_steps == 0,
            "hallucinated_steps",
            self.hallucinated_steps,
            "0 with past steps, which are not predicted",
        )?;
        rule(
            self.min_log_var.is_finite() && self.max_log_var.is_finite() && self.min_log_var < self.max_log_var,
            "min_log_var",
            self.min_log_var,
            format!("a finite number below max_log_var = {}", self.max_log_var),
        )?;
        rule(
            self.bounds_weight.is_finite() && self.bounds_weight >= 0.0,
            "bounds_weight",
            self.bounds_weight,
            "a finite number of at least 0",
        )?;
        rule(
            self.variance == Variance::Input || self.head == Head::Gaussian,
            "variance",
            self.variance,
            "input with a deterministic head, which has no variance",
        )?;
        rule((0.0..=1.0).contains(&self.nll_beta), "nll_beta", self.nll_beta, "a number in [0, 1]")?;
        rule(
            self.nll_beta == 0.0 || self.head == Head::Gaussian,
            "nll_beta",
            self.nll_beta,
            "0 with a deterministic head, which has no variance to weight by",
        )
    }

    /// An ensemble for the observations and actions of an environment, whose spec says which columns are
    /// [angles](Self::angles) unless this configuration does.
    ///
    /// ```
    /// use mbrl_env::{Env, tasks};
    /// use mbrl_model::{Device, EnsembleConfig};
    ///
    /// let task = tasks::make("pendulum")?;
    /// let model = EnsembleConfig::default().init_for(task.env.spec(), &Device::flex(), &mut mbrl_env::Rng::new(0))?;
    /// assert_eq!(model.config().angles.columns(), task.env.spec().angles());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ModelError::Config`], naming the field that breaks a rule.
    pub fn init_for(&self, env: &EnvSpec, device: &Device, rng: &mut Rng) -> Result<Ensemble, ModelError> {
        self.init_for_task(env, &Knowledge::none(), device, rng)
    }

    /// As [`init_for`](Self::init_for), with what is known about a task.
    ///
    /// # Errors
    /// As [`init_with`](Self::init_with).
    pub fn init_for_task(
        &self,
        env: &EnvSpec,
        knowledge: &Knowledge,
        device: &Device,
        rng: &mut Rng,
    ) -> Result<Ensemble, ModelError> {
        self.for_env(env).init_with(env.obs.width(), env.actions.width(), knowledge, device, rng)
    }

    /// This configuration with the angles of an environment's spec in place of [`Angles::Task`].
    #[must_use]
    pub fn for_env(&self, env: &EnvSpec) -> Self {
        match self.angles {
            Angles::Task => Self { angles: Angles::Columns(env.angles()), ..self.clone() },
            Angles::Columns(_) => self.clone(),
        }
    }

    /// An ensemble with freshly drawn weights on `device`, for observations of width `obs` and actions of width `action`.
    /// [`Angles::Task`] means none here; [`init_for`](Self::init_for) asks an environment's spec.
    ///
    /// # Errors
    /// [`ModelError::Config`], naming the field that breaks a rule.
    pub fn init(&self, obs: usize, action: usize, device: &Device, rng: &mut Rng) -> Result<Ensemble, ModelError> {
        self.init_with(obs, action, &Knowledge::none(), device, rng)
    }

    /// As [`init`](Self::init), with what is known about a task. Leave out of the [`Knowledge`] whatever should not be used.
    ///
    /// Networks see features in every roll-out, on the host and on devices. For each row of a batch, fits draw one of the copies that
    /// symmetries make of its transition. Known columns are not targets: roll-outs fill them in. The names of features and known
    /// columns are stored with the model.
    ///
    /// # Errors
    /// As [`init`](Self::init), for features that replace columns that do not exist, and for known columns that are not some
    /// of the observation's, in rising order.
    pub fn init_with(
        &self,
        obs: usize,
        action: usize,
        knowledge: &Knowledge,
        device: &Device,
        rng: &mut Rng,
    ) -> Result<Ensemble, ModelError> {
        self.validate(obs)?;
        if let Some(column) = knowledge.features.iter().flat_map(|f| f.replaces()).find(|column| **column >= obs) {
            let rule = format!("features that replace columns of the observation, below {obs}");
            return Err(ModelError::Config { field: "features", value: format!("column {column}"), rule: rule.into() });
        }
        if let Some(augment) = knowledge.augment.as_ref().filter(|augment| augment.copies() == 0) {
            let (value, rule) = (format!("0 copies by `{}`", augment.name()), "the transition itself at least".into());
            return Err(ModelError::Config { field: "symmetries", value, rule });
        }
        if let Some(columns) = knowledge.known.as_ref().map(|known| known.columns()) {
            let rising = columns.windows(2).all(|pair| pair[0] < pair[1]);
            if columns.is_empty() || columns.len() >= obs || !rising || columns.iter().any(|column| *column >= obs) {
                let rule = format!("some of the {obs} columns of the observation, not all, in rising order");
                return Err(ModelError::Config { field: "known", value: format!("{columns:?}"), rule: rule.into() });
            }
        }
        let known = knowledge.known.iter().flat_map(|known| known.columns());
        if let Some(column) = known.into_iter().find(|column| self.emphasis.columns.contains(column)) {
            let (value, rule) = (format!("column {column}"), "columns that are predicted: this one is known".into());
            return Err(ModelError::Config { field: "emphasis.columns", value, rule });
        }
        let positive = |field, value: usize| match value {
            0 => Err(ModelError::Config { field, value: "0".into(), rule: "a width of at least 1".into() }),
            _ => Ok(()),
        };
        positive("obs", obs)?;
        positive("action", action)?;
        Ok(Ensemble::new(self.clone(), obs, action, knowledge.clone(), device, rng))
    }

    /// The networks below the heads.
    pub(crate) fn mlp(&self, inputs: usize, outputs: usize) -> MlpConfig {
        MlpConfig {
            members: self.members,
            activation: self.activation,
            ..MlpConfig::new(inputs, self.hidden.clone(), outputs)
        }
    }

    /// Width of the state: the present observation and `past` pairs of an observation and the action taken at it.
    pub(crate) fn state(&self, obs: usize, action: usize) -> usize {
        obs + self.past * (obs + action)
    }

    /// Columns of the state that are angles, those of past observations included, with the factors that convert them to radians.
    pub(crate) fn state_angles(&self, obs: usize, action: usize) -> Vec<(usize, f32)> {
        let starts = std::iter::once(0).chain((0..self.past).map(|i| obs + i * (obs + action)));
        // For a turn of 2π the factor is 1, and changes no bit.
        let angles = self.angles.columns().iter();
        starts.flat_map(|start| angles.clone().map(move |angle| (start + angle.column, TAU / angle.turn))).collect()
    }

    /// Width of the network's input.
    pub(crate) fn inputs(&self, obs: usize, action: usize) -> usize {
        self.state(obs, action) + self.angles.columns().len() * (1 + self.past) + action
    }

    /// Columns that the head describes: those of the observation that are predicted, then the reward.
    pub(crate) fn targets(&self, predicted: usize) -> usize {
        predicted + usize::from(self.reward)
    }

    /// Which outputs of the last layer are log-variances that do not depend on its inputs: their weights stay 0.
    pub(crate) fn constant_outputs(&self, predicted: usize) -> Range<usize> {
        let targets = self.targets(predicted);
        match (self.head, self.variance) {
            (Head::Gaussian, Variance::Column) => targets..2 * targets,
            _ => 0..0,
        }
    }

    /// Width of the network's output: means, log-variances, the logit of a termination.
    pub(crate) fn outputs(&self, predicted: usize) -> usize {
        let moments = match self.head {
            Head::Gaussian => 2,
            Head::Deterministic => 1,
        };
        moments * self.targets(predicted) + usize::from(self.termination)
    }
}
