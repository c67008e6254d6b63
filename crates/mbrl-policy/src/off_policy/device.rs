//! Learners whose networks live on a Burn device, such as a GPU.
//!
//! An update is the host's, written with tensors: the same draws (noise and dropped units are functions of keys, rows and units), the same
//! order of steps, but gradients from Burn's autodiff instead of closed forms. It agrees with the host's up to rounding, and checks it
//! independently. A batch goes to the device and four numbers come back; networks come back when something on the host asks for them: to act,
//! to look ahead in a model, or to be stored. Checkpoints are those of the host's learners.

use std::{
    f32::consts::LN_2,
    sync::{Arc, OnceLock},
};

use burn::{
    module::Param,
    tensor::{Bool, Device, TensorData},
};
use mbrl_env::{Batch, Rng, Value};
use mbrl_model::{
    fill_normal,
    mlp::{Adam, AdamConfig, HostMlp, Mlp, Pass},
};

use super::{
    ActorCritic, Critics, Lookahead, OffPolicy, Prepared, Reduction, Sac, Td3, check_loss, critics::Range,
    critics::pair, mean,
};
use crate::{
    Actor, AgentError, CheckpointReader, CheckpointWriter, Policy, Report, ReportKind, Tensor, policy::HALF_LOG_TAU,
};

/// A learner that can move to a device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum OnHost {
    /// Soft actor-critic.
    Sac(Sac),
    /// Twin delayed deep deterministic policy gradients.
    Td3(Td3),
}

impl From<Sac> for OnHost {
    fn from(sac: Sac) -> Self {
        Self::Sac(sac)
    }
}

impl From<Td3> for OnHost {
    fn from(td3: Td3) -> Self {
        Self::Td3(td3)
    }
}

impl OnHost {
    fn learner(&self) -> &dyn OffPolicy {
        match self {
            Self::Sac(sac) => sac,
            Self::Td3(td3) => td3,
        }
    }

    fn learner_mut(&mut self) -> &mut dyn OffPolicy {
        match self {
            Self::Sac(sac) => sac,
            Self::Td3(td3) => td3,
        }
    }

    fn actor(&self) -> &Actor {
        self.learner().parts().actor
    }

    fn critics(&self) -> &Critics {
        self.learner().parts().critics
    }

    fn parts_mut(&mut self) -> (&mut Actor, &mut Critics, Option<&mut HostMlp>) {
        match self {
            Self::Sac(sac) => (&mut sac.actor, &mut sac.critics, None),
            Self::Td3(td3) => (&mut td3.actor, &mut td3.critics, Some(&mut td3.target)),
        }
    }

    fn updates_mut(&mut self) -> &mut u64 {
        match self {
            Self::Sac(sac) => &mut sac.updates,
            Self::Td3(td3) => &mut td3.updates,
        }
    }
}

/// SAC or TD3 with its networks on a device.
///
/// ```
/// use mbrl_env::{Env, Rng, tasks};
/// use mbrl_policy::{ActorConfig, CriticsConfig, Device, OnDevice, OffPolicy, SacConfig};
///
/// let task = tasks::make("pendulum")?;
/// let sac = SacConfig::default().init(
///     task.env.spec(), &ActorConfig::default(), &CriticsConfig::default(), &mut Rng::new(0))?;
/// let sac = OnDevice::new(sac, &Device::flex())?; // or Device::wgpu(…), Device::cuda(…)
/// assert_eq!((sac.name(), sac.policy().action_width()), ("sac", 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OnDevice {
    /// All but the networks and their optimizers, which may be out of date.
    host: OnHost,
    device: Device,
    networks: Networks,
    /// The host's current one, where it was asked for.
    actor: OnceLock<Actor>,
    mirror: OnceLock<OnHost>,
}

#[derive(Debug)]
struct Networks {
    actor: Learned,
    /// TD3's target network of the actor.
    slow_actor: Option<Mlp>,
    critics: Learned,
    slow_critics: Mlp,
}

/// A network with Adam's moments.
#[derive(Debug)]
struct Learned {
    mlp: Mlp,
    moments: [Mlp; 2],
    steps: usize,
    adam: AdamConfig,
}

fn arrays(mlp: &Mlp) -> impl Iterator<Item = &Param<Tensor<3>>> {
    mlp.weights.iter().chain(&mlp.biases).chain(&mlp.gains).chain(&mlp.shifts)
}

fn arrays_mut(mlp: &mut Mlp) -> impl Iterator<Item = &mut Param<Tensor<3>>> {
    let Mlp { weights, biases, gains, shifts, .. } = mlp;
    weights.iter_mut().chain(biases).chain(gains).chain(shifts)
}

fn set(param: &mut Param<Tensor<3>>, value: Tensor<3>) {
    *param = Param::initialized(param.id, value);
}

impl Learned {
    fn upload(network: &HostMlp, adam: &Adam, device: &Device) -> Self {
        let moments = adam.moments(network).map(|moments| {
            let mut shaped = network.clone();
            shaped.set_parameters(&moments);
            shaped.to_mlp(device)
        });
        Self { mlp: network.to_mlp(device), moments, steps: adam.steps(), adam: adam.config().clone() }
    }

    fn download(&self, network: &mut HostMlp, adam: &mut Adam) {
        *network = HostMlp::of(&self.mlp);
        let moments = self.moments.each_ref().map(|moments| HostMlp::of(moments).parameters());
        adam.set_moments(network, self.steps, &moments);
    }

    /// The network as leaves of a graph.
    fn leaves(&self) -> Mlp {
        let mut leaves = self.mlp.clone();
        arrays_mut(&mut leaves).for_each(|param| set(param, param.val().autodiff().require_grad()));
        leaves
    }

    /// One step of Adam down a loss that was computed with `leaves`.
    fn step(&mut self, leaves: &Mlp, loss: &Tensor<1>) {
        self.steps += 1;
        let gradients = loss.backward();
        let [b1, b2] = self.adam.betas;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let root = (1.0 - b2.powi(steps)).sqrt();
        let (rate, epsilon) = (self.adam.learning_rate * root / (1.0 - b1.powi(steps)), self.adam.epsilon * root);
        let [first, second] = &mut self.moments;
        let moments = arrays_mut(first).zip(arrays_mut(second));
        for ((value, leaf), (first, second)) in arrays_mut(&mut self.mlp).zip(arrays(leaves)).zip(moments) {
            let gradient = leaf.val().grad(&gradients).unwrap_or_else(|| value.val().zeros_like());
            let mean = first.val() * b1 + gradient.clone() * (1.0 - b1);
            let square = second.val() * b2 + gradient.square() * (1.0 - b2);
            set(value, value.val() - mean.clone() * rate / (square.clone().sqrt() + epsilon));
            set(first, mean);
            set(second, square);
        }
    }
}

/// Moves a target network.
fn track(slow: &mut Mlp, of: &Mlp, tau: f32) {
    for (slow, of) in arrays_mut(slow).zip(arrays(of)) {
        set(slow, slow.val() * (1.0 - tau) + of.val() * tau);
    }
}

impl OnDevice {
    /// Moves a learner to a device.
    ///
    /// # Errors
    /// [`AgentError::Config`] for what only the host does: averaged weights, and values that are kept while their units change.
    pub fn new(learner: impl Into<OnHost>, device: &Device) -> Result<Self, AgentError> {
        let mut host = learner.into();
        let refuse = |field, value: &str, rule| Err(AgentError::Config { field, value: value.into(), rule });
        if host.actor().is_averaged() {
            return refuse("policy.averaging", "above 0", "0 on a device: weights are averaged on the host");
        }
        if host.critics().config().keep_values {
            return refuse("critics.keep_values", "true", "false on a device: values are kept on the host");
        }
        let networks = Networks::upload(&mut host, device);
        Ok(Self { host, device: device.clone(), networks, actor: OnceLock::new(), mirror: OnceLock::new() })
    }

    /// The learner on the host, as of now.
    #[must_use]
    pub fn to_host(&self) -> OnHost {
        self.mirror().clone()
    }

    fn mirror(&self) -> &OnHost {
        self.mirror.get_or_init(|| {
            let mut host = self.host.clone();
            self.networks.download(&mut host);
            host
        })
    }

    /// The host's copy of the networks is out of date.
    fn changed(&mut self) {
        (self.actor, self.mirror) = (OnceLock::new(), OnceLock::new());
    }

    fn rows(&self, values: Vec<f32>, width: usize) -> Tensor<2> {
        let rows = values.len() / width;
        Tensor::from_data(TensorData::new(values, [rows, width]), &self.device)
    }

    fn column(&self, values: Vec<f32>) -> Tensor<1> {
        let rows = values.len();
        Tensor::from_data(TensorData::new(values, [rows]), &self.device)
    }

    /// Standard normals `[N, A]` by a key.
    fn noise(&self, key: u64, rows: usize) -> Tensor<2> {
        let width = self.host.actor().action_width();
        let mut noise = vec![0.0; rows * width];
        fill_normal(key, 0, 0, width, &mut noise);
        self.rows(noise, width)
    }

    /// Values `[E, N]` of critics for inputs `[N, I]` and actions `[N, A]`.
    fn values(&self, critics: &Mlp, inputs: Tensor<2>, actions: Tensor<2>, key: u64) -> Tensor<2> {
        let of = self.host.critics();
        let rows = Tensor::cat(vec![inputs, actions], 1).unsqueeze::<3>().repeat_dim(0, of.config().count);
        scaled(critics.forward(rows, Pass::Train { key }).squeeze_dim(2), of.range())
    }

    /// Values `[N]` of the target networks, as targets need them.
    fn slow_values(&self, inputs: Tensor<2>, actions: Tensor<2>, key: u64) -> Tensor<1> {
        let config = self.host.critics().config();
        let values = self.values(&self.networks.slow_critics, inputs, actions, key);
        if config.target == Reduction::Pair {
            let pair = pair(config.count, key).map(|critic| values.clone().narrow(0, critic, 1));
            return reduce(Tensor::cat(pair.to_vec(), 0), Reduction::Min);
        }
        reduce(values, config.target)
    }

    /// `r + γ (1 − terminated) V(s')`, `[N]`.
    fn bootstrapped(&self, batch: &Batch, discount: f32, next_values: Tensor<1>) -> Tensor<1> {
        let rewards = self.column(batch.rewards.iter().map(|reward| *reward as f32).collect());
        let ends = TensorData::new(batch.terminated.to_vec(), [batch.len()]);
        let ends = Tensor::<1, Bool>::from_data(ends, &self.device);
        (next_values * discount).mask_fill(ends, 0.0) + rewards
    }

    /// The critics' step towards targets `[N]`: their loss and their mean value.
    fn step_critics(&mut self, inputs: Tensor<2>, actions: Tensor<2>, targets: Tensor<1>, key: u64) -> [Tensor<1>; 2] {
        let leaves = self.networks.critics.leaves();
        let values = self.values(&leaves, inputs, actions, key);
        let [count, rows] = values.dims();
        let errors = values.clone() - targets.unsqueeze();
        let loss = errors.square().sum() * (0.5 / rows as f32);
        self.networks.critics.step(&leaves, &loss);
        self.changed();
        [loss.inner() / count as f32, values.inner().mean()]
    }

    /// What the actor climbs, the critics' values `[N]` of its actions, whose weights are constants here.
    fn climbed(&self, inputs: Tensor<2>, actions: Tensor<2>, key: u64) -> Tensor<1> {
        let values = self.values(&self.networks.critics.mlp, inputs, actions, key);
        reduce(values, self.host.critics().config().actor)
    }

    /// The actor's step for gradients of its outputs that came from elsewhere.
    fn follow(&mut self, inputs: Vec<f32>, grad_out: Vec<f32>) {
        let leaves = self.networks.actor.leaves();
        let outputs = outputs(&leaves, self.rows(inputs, leaves.config().inputs));
        let gradients = self.rows(grad_out, leaves.config().outputs);
        self.networks.actor.step(&leaves, &(outputs * gradients).sum());
    }
}

impl Networks {
    fn upload(host: &mut OnHost, device: &Device) -> Self {
        let (actor, critics, slow) = host.parts_mut();
        let (network, adam) = actor.learned_mut();
        let actor = Learned::upload(network, adam, device);
        let slow_actor = slow.map(|slow| slow.to_mlp(device));
        let slow_critics = critics.target().to_mlp(device);
        let (network, adam) = critics.learned_mut();
        Self { actor, slow_actor, critics: Learned::upload(network, adam, device), slow_critics }
    }

    fn download(&self, host: &mut OnHost) {
        let (actor, critics, slow) = host.parts_mut();
        let (network, adam) = actor.learned_mut();
        self.actor.download(network, adam);
        if let (Some(slow), Some(mlp)) = (slow, &self.slow_actor) {
            *slow = HostMlp::of(mlp);
        }
        *critics.target_mut() = HostMlp::of(&self.slow_critics);
        let (network, adam) = critics.learned_mut();
        self.critics.download(network, adam);
    }
}

/// Outputs `[N, out]` of an actor's network for inputs `[N, I]`.
fn outputs(actor: &Mlp, inputs: Tensor<2>) -> Tensor<2> {
    actor.forward(inputs.unsqueeze(), Pass::Infer).squeeze_dim(0)
}

/// Actions `[N, A]` in [−1, 1] that a squashed Gaussian draws, and their log-probabilities `[N]`.
fn squashed(outputs: Tensor<2>, noise: Tensor<2>, [low, high]: [f32; 2]) -> (Tensor<2>, Tensor<1>) {
    let width = noise.dims()[1];
    let logs = outputs.clone().narrow(1, width, width).clamp(low, high);
    let z = outputs.narrow(1, 0, width) + logs.clone().exp() * noise.clone();
    let far = z.clone().abs();
    // log(1 − tanh²z), exact for any z.
    let log_slope = ((far.clone() * -2.0).exp().log1p() + far - LN_2) * -2.0;
    let log_probs = noise.square() * -0.5 - logs - HALF_LOG_TAU - log_slope;
    (z.tanh(), log_probs.sum_dim(1).squeeze_dim(1))
}

/// What outputs `[E, N]` of critics mean.
fn scaled(outputs: Tensor<2>, range: Range) -> Tensor<2> {
    match range.is_plain() {
        true => outputs,
        false => outputs * range.half() + range.centre(),
    }
}

/// One value of each column of `[E, N]`.
fn reduce(values: Tensor<2>, reduction: Reduction) -> Tensor<1> {
    match reduction {
        Reduction::Min | Reduction::Pair => values.min_dim(0),
        Reduction::Mean => values.mean_dim(0),
        Reduction::First => values.narrow(0, 0, 1),
    }
    .squeeze_dim(0)
}

/// Numbers of an update, in one wait for the device.
fn fetch(numbers: Vec<Tensor<1>>) -> Vec<f64> {
    Tensor::cat(numbers.into_iter().map(|number| number.reshape([1])).collect(), 0)
        .into_data()
        .iter::<f32>()
        .map(f64::from)
        .collect()
}

/// Inputs, next inputs and actions of a batch.
struct Uploaded {
    inputs: Tensor<2>,
    next_inputs: Tensor<2>,
    actions: Tensor<2>,
}

impl OnDevice {
    fn improve_sac(
        &mut self,
        batch: &Batch,
        up: Uploaded,
        look: Option<&dyn Lookahead>,
        rng: &mut Rng,
        report: &mut dyn Report,
    ) -> Result<(), AgentError> {
        let OnHost::Sac(sac) = &self.host else { unreachable!("asked for by its kind") };
        let (config, alpha, updates) = (sac.config.clone(), sac.temperature(), sac.updates);
        let [next_draw, next_dropout, dropout, draw, actor_dropout] = std::array::from_fn(|_| rng.key());
        let given = look.map(|look| look.targets(batch, self.parts(), rng)).transpose()?;
        let rows = batch.len();
        let targets = match given.flatten() {
            Some(targets) => self.column(targets),
            None => {
                let outputs = outputs(&self.networks.actor.mlp, up.next_inputs.clone());
                let (actions, log_probs) = squashed(outputs, self.noise(next_draw, rows), config.log_std);
                let values = self.slow_values(up.next_inputs, actions, next_dropout);
                self.bootstrapped(batch, config.discount, values - log_probs * alpha)
            }
        };
        let mut told = self.step_critics(up.inputs.clone(), up.actions, targets, dropout).to_vec();
        let learns = updates.is_multiple_of(config.actor_every);
        // For a look-ahead the host has them already.
        let mut ahead = None;
        if learns {
            let given = look.map(|look| look.actor_loss(batch, self.parts(), rng)).transpose()?;
            if let Some(gradient) = given.flatten() {
                ahead = Some((gradient.loss, mean(&gradient.log_probs)));
                self.follow(gradient.inputs, gradient.grad_out);
            } else {
                let leaves = self.networks.actor.leaves();
                let outputs = outputs(&leaves, up.inputs.clone());
                let (actions, log_probs) = squashed(outputs, self.noise(draw, rows), config.log_std);
                let (log_prob, value) = (log_probs.mean(), self.climbed(up.inputs, actions, actor_dropout).mean());
                let loss = log_prob.clone() * alpha - value;
                self.networks.actor.step(&leaves, &loss);
                told.extend([loss.inner(), log_prob.inner()]);
            }
            self.changed();
        }
        let told = fetch(told);
        tell_critics(&told, updates, report)?;
        if learns {
            let (loss, log_prob) = ahead.unwrap_or_else(|| (told[2], told[3]));
            check_loss("actor/loss", loss, updates)?;
            let OnHost::Sac(sac) = &mut self.host else { unreachable!("asked for by its kind") };
            sac.learn_temperature(log_prob);
            report.scalar(ReportKind::Policy, "actor/loss", loss);
            report.scalar(ReportKind::Policy, "actor/entropy", -log_prob);
            report.scalar(ReportKind::Policy, "actor/temperature", f64::from(alpha));
        }
        self.track_critics();
        *self.host.updates_mut() += 1;
        Ok(())
    }

    fn improve_td3(
        &mut self,
        batch: &Batch,
        up: Uploaded,
        look: Option<&dyn Lookahead>,
        rng: &mut Rng,
        report: &mut dyn Report,
    ) -> Result<(), AgentError> {
        let OnHost::Td3(td3) = &self.host else { unreachable!("asked for by its kind") };
        let config = td3.config.clone();
        let [draw, next_dropout, dropout, actor_dropout] = std::array::from_fn(|_| rng.key());
        let given = look.map(|look| look.targets(batch, self.parts(), rng)).transpose()?;
        let targets = match (given.flatten(), &self.networks.slow_actor) {
            (None, Some(slow)) => {
                let noise = self.noise(draw, batch.len()) * config.target_noise;
                let actions = outputs(slow, up.next_inputs.clone()).tanh();
                let actions = (actions + noise.clamp(-config.noise_clip, config.noise_clip)).clamp(-1.0, 1.0);
                let values = self.slow_values(up.next_inputs, actions, next_dropout);
                self.bootstrapped(batch, config.discount, values)
            }
            (targets, _) => self.column(targets.unwrap_or_default()),
        };
        let mut told = self.step_critics(up.inputs.clone(), up.actions, targets, dropout).to_vec();
        let updates = *self.host.updates_mut();
        *self.host.updates_mut() += 1;
        if !(updates + 1).is_multiple_of(config.actor_every) {
            return tell_critics(&fetch(told), updates, report);
        }
        let given = look.map(|look| look.actor_loss(batch, self.parts(), rng)).transpose()?;
        let mut ahead = None;
        if let Some(gradient) = given.flatten() {
            ahead = Some(gradient.loss);
            self.follow(gradient.inputs, gradient.grad_out);
        } else {
            let leaves = self.networks.actor.leaves();
            let actions = outputs(&leaves, up.inputs.clone()).tanh();
            let loss = self.climbed(up.inputs, actions, actor_dropout).mean() * -1.0;
            self.networks.actor.step(&leaves, &loss);
            told.push(loss.inner());
        }
        self.changed();
        let told = fetch(told);
        tell_critics(&told, updates, report)?;
        let loss = ahead.unwrap_or_else(|| told[2]);
        check_loss("actor/loss", loss, updates + 1)?;
        report.scalar(ReportKind::Policy, "actor/loss", loss);
        self.track_critics();
        let Networks { actor, slow_actor, .. } = &mut self.networks;
        if let Some(slow) = slow_actor {
            track(slow, &actor.mlp, self.host.critics().config().tracking);
        }
        Ok(())
    }

    fn track_critics(&mut self) {
        let Networks { critics, slow_critics, .. } = &mut self.networks;
        track(slow_critics, &critics.mlp, self.host.critics().config().tracking);
        self.changed();
    }
}

fn tell_critics(told: &[f64], updates: u64, report: &mut dyn Report) -> Result<(), AgentError> {
    report.scalar(ReportKind::Policy, "critic/loss", told[0]);
    report.scalar(ReportKind::Policy, "critic/value", told[1]);
    check_loss("critic/loss", told[0], updates)
}

impl OffPolicy for OnDevice {
    fn name(&self) -> &str {
        self.host.learner().name()
    }

    fn policy(&self) -> &dyn Policy {
        self.actor.get_or_init(|| {
            let mut actor = self.host.actor().clone();
            *actor.network_mut() = HostMlp::of(&self.networks.actor.mlp);
            actor
        })
    }

    fn parts(&self) -> ActorCritic<'_> {
        self.mirror().learner().parts()
    }

    fn value(&self) -> Arc<dyn Value> {
        self.mirror().learner().value()
    }

    fn observe(&mut self, obs: &[f32]) {
        self.host.learner_mut().observe(obs);
        if self.host.actor().inputs().statistics().is_some() {
            self.changed();
        }
    }

    fn improve(
        &mut self,
        batch: &Batch,
        look: Option<&dyn Lookahead>,
        rng: &mut Rng,
        report: &mut dyn Report,
    ) -> Result<(), AgentError> {
        let discount = self.host.learner().parts().discount;
        let (actor, critics, _) = self.host.parts_mut();
        let mut prepared = Prepared::default();
        prepared.fill(batch, actor)?;
        critics.observe_rewards(&batch.rewards, discount);
        let (width, action) = (actor.inputs().width(), actor.action_width());
        self.changed();
        let Prepared { inputs, next_inputs, actions } = prepared;
        let up = Uploaded {
            inputs: self.rows(inputs, width),
            next_inputs: self.rows(next_inputs, width),
            actions: self.rows(actions, action),
        };
        match self.host {
            OnHost::Sac(_) => self.improve_sac(batch, up, look, rng, report),
            OnHost::Td3(_) => self.improve_td3(batch, up, look, rng, report),
        }
    }

    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        self.mirror().learner().save(into)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        self.host.learner_mut().load(from)?;
        self.networks = Networks::upload(&mut self.host, &self.device);
        self.changed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use mbrl_env::{ActionSpace, BoxSpace, EnvSpec};
    use mbrl_model::Activation;

    use super::*;
    use crate::{ActMode, ActorConfig, ActorGradient, Checkpoints, CriticsConfig, PolicyDraw, SacConfig, Td3Config};

    /// Devices of this build that the learners run on.
    #[allow(deprecated, reason = "a second, independent CPU backend, to compare with")]
    fn devices() -> Vec<Device> {
        vec![
            Device::flex(),
            Device::ndarray(),
            #[cfg(feature = "wgpu")]
            Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        ]
    }

    #[derive(Default)]
    struct Told(Vec<(String, f64)>);

    impl Report for Told {
        fn scalar(&mut self, _: ReportKind, name: &str, value: f64) {
            self.0.push((name.to_owned(), value));
        }
    }

    const ROWS: usize = 37;

    fn spec() -> EnvSpec {
        let actions = ActionSpace::Box(BoxSpace::new([-1.0, -3.0], [2.0, 3.0]).unwrap());
        EnvSpec::new("plane", BoxSpace::unbounded(3), actions, 0.1)
    }

    fn batch(rng: &mut Rng) -> Batch {
        let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.normal()).collect() };
        Batch {
            obs_width: 3,
            action_width: 2,
            obs: numbers(3 * ROWS).into(),
            actions: numbers(2 * ROWS).iter().map(|a| a.tanh()).collect(),
            rewards: numbers(ROWS).into_iter().map(f64::from).collect(),
            next_obs: numbers(3 * ROWS).into(),
            terminated: (0..ROWS).map(|row| row % 5 == 0).collect(),
            truncated: Cow::Owned(vec![false; ROWS]),
        }
    }

    /// Learners of every kind of critics: reductions, layer norm, dropout, values in units of rewards.
    fn learners() -> Vec<(&'static str, OnHost)> {
        let mut all = Vec::new();
        for (name, count, layer_norm, dropout, target, climbs, scaled) in [
            ("as published", 2, false, 0.0, Reduction::Min, Reduction::Min, false),
            ("five normalised", 5, true, 0.05, Reduction::Pair, Reduction::Mean, true),
            ("one", 1, true, 0.0, Reduction::Mean, Reduction::First, false),
        ] {
            let actor = ActorConfig {
                hidden: vec![16, 16],
                layer_norm,
                normalize: true,
                activation: if layer_norm { Activation::Silu } else { Activation::Relu },
                ..ActorConfig::default()
            };
            let critics = CriticsConfig {
                count,
                hidden: vec![16, 12],
                layer_norm,
                dropout,
                target,
                actor: climbs,
                scaled,
                ..CriticsConfig::default()
            };
            let mut rng = Rng::new(4);
            // Bounds that some outputs reach.
            let sac = SacConfig { log_std: [-0.2, 0.2], actor_every: 1 + count as u64 % 2, ..SacConfig::default() };
            let sac = sac.init(&spec(), &actor, &critics, &mut rng).unwrap();
            let td3 = Td3Config { noise_clip: 0.1, ..Td3Config::default() };
            let td3 = td3.init(&spec(), &actor, &critics, &mut rng).unwrap();
            all.extend([(name, OnHost::Sac(sac)), (name, OnHost::Td3(td3))]);
        }
        for (_, learner) in &mut all {
            let seen: Vec<f32> = (0..60).map(|i| (i as f32).sin()).collect();
            learner.learner_mut().observe(&seen);
        }
        all
    }

    /// How far numbers are from others, in units of these.
    fn apart(found: &[f32], wanted: &[f32]) -> f64 {
        assert_eq!(found.len(), wanted.len());
        let norm = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>().sqrt();
        let off = norm(&mut found.iter().zip(wanted).map(|(a, b)| f64::from(a - b)));
        off / norm(&mut wanted.iter().map(|x| f64::from(*x))).max(1e-12)
    }

    /// Networks, target networks and moments.
    fn numbers(mut host: OnHost) -> Vec<(&'static str, Vec<f32>)> {
        let (actor, critics, slow) = host.parts_mut();
        let mut all = vec![("slow critics", critics.target().parameters())];
        all.extend(slow.map(|slow| ("slow actor", slow.parameters())));
        let (network, adam) = actor.learned_mut();
        let [first, second] = adam.moments(network);
        all.extend([("actor", network.parameters()), ("its gradients", first), ("their squares", second)]);
        let (network, adam) = critics.learned_mut();
        let [first, second] = adam.moments(network);
        all.extend([("critics", network.parameters()), ("their gradients", first), ("squares of these", second)]);
        all
    }

    #[test]
    fn updates_on_every_device_are_those_of_the_host() {
        for device in devices() {
            for (name, mut host) in learners() {
                let mut there = OnDevice::new(host.clone(), &device).unwrap();
                let mut data = Rng::new(1);
                let (mut rng, mut other) = (Rng::new(2), Rng::new(2));
                for update in 0..3 {
                    let batch = batch(&mut data);
                    let (mut wanted, mut found) = (Told::default(), Told::default());
                    host.learner_mut().improve(&batch, None, &mut rng, &mut wanted).unwrap();
                    there.improve(&batch, None, &mut other, &mut found).unwrap();
                    let what = format!("{} ({name}) on {device:?}, update {update}", there.name());
                    assert_eq!(wanted.0.len(), found.0.len(), "{what}");
                    for ((name, wanted), (also, found)) in wanted.0.iter().zip(&found.0) {
                        assert_eq!(name, also, "{what}");
                        assert!(
                            (wanted - found).abs() <= 1e-4 * wanted.abs().max(1.0),
                            "{what}, {name}: {found}, {wanted}"
                        );
                    }
                    for ((part, found), (_, wanted)) in numbers(there.to_host()).iter().zip(&numbers(host.clone())) {
                        let apart = apart(found, wanted);
                        assert!(apart <= 1e-4, "{what}, {part}: {apart:e} apart");
                    }
                }
                assert_eq!(rng.key(), other.key(), "as many draws");
                let obs = [0.3, -0.2, 1.0, 0.0, 2.0, -1.0];
                for mode in [ActMode::Evaluate, ActMode::Explore] {
                    let act = |policy: &dyn Policy| policy.act(&obs, mode, PolicyDraw::new(3));
                    let apart = apart(&act(there.policy()), &act(host.learner().policy()));
                    assert!(apart <= 1e-4, "{name}, {mode:?}: actions are {apart:e} apart");
                }
            }
        }
    }

    /// Constant targets, and a gradient of the actor's outputs that is 1 for the first of each row.
    struct Ahead;

    impl Lookahead for Ahead {
        fn targets(&self, batch: &Batch, _: ActorCritic<'_>, _: &mut Rng) -> Result<Option<Vec<f32>>, AgentError> {
            Ok(Some(vec![2.0; batch.len()]))
        }

        fn actor_loss(
            &self,
            batch: &Batch,
            of: ActorCritic<'_>,
            rng: &mut Rng,
        ) -> Result<Option<ActorGradient>, AgentError> {
            let mut inputs = Vec::new();
            of.actor.inputs().prepare(&batch.obs, &mut inputs);
            let width = of.actor.network().config().outputs;
            let grad_out = (0..batch.len() * width).map(|i| if i % width == 0 { 1.0 } else { 0.0 }).collect();
            // Critics after their step.
            let loss = f64::from(of.critics.network().parameters()[0]);
            Ok(Some(ActorGradient { inputs, grad_out, log_probs: vec![rng.normal(); batch.len()], loss }))
        }
    }

    #[test]
    fn what_the_host_alone_does_is_refused() {
        let spec = mbrl_env::Env::spec(&mbrl_env::tasks::make("pendulum").unwrap().env).clone();
        let made = |averaging: f32, keep_values: bool| {
            let actor = ActorConfig { hidden: vec![8], averaging, ..ActorConfig::default() };
            let critics = CriticsConfig { hidden: vec![8], scaled: true, keep_values, ..CriticsConfig::default() };
            let sac = SacConfig::default().init(&spec, &actor, &critics, &mut Rng::new(0)).unwrap();
            OnDevice::new(sac, &Device::flex()).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(made(0.0, false), Ok(()));
        for (found, start) in
            [(made(0.1, false), "policy.averaging = above 0"), (made(0.0, true), "critics.keep_values = true")]
        {
            assert!(found.as_ref().is_err_and(|error| error.starts_with(start)), "{found:?}");
        }
    }

    #[test]
    fn what_a_look_ahead_gives_is_followed_on_a_device_too() {
        for (name, mut host) in learners() {
            let mut there = OnDevice::new(host.clone(), &Device::flex()).unwrap();
            let (mut rng, mut other) = (Rng::new(2), Rng::new(2));
            for _ in 0..2 {
                let batch = batch(&mut Rng::new(1));
                let (mut wanted, mut found) = (Told::default(), Told::default());
                host.learner_mut().improve(&batch, Some(&Ahead), &mut rng, &mut wanted).unwrap();
                there.improve(&batch, Some(&Ahead), &mut other, &mut found).unwrap();
                for ((what, wanted), (_, found)) in wanted.0.iter().zip(&found.0) {
                    assert!(
                        (wanted - found).abs() <= 1e-4 * wanted.abs().max(1.0),
                        "{name}, {what}: {found}, {wanted}"
                    );
                }
                for ((part, found), (_, wanted)) in numbers(there.to_host()).iter().zip(&numbers(host.clone())) {
                    let apart = apart(found, wanted);
                    assert!(apart <= 1e-4, "{name}, {part}: {apart:e} apart");
                }
            }
        }
    }

    #[test]
    fn a_checkpoint_goes_on_on_the_device_and_on_the_host() {
        let folder = tempfile::tempdir().unwrap();
        for (number, (name, host)) in learners().into_iter().enumerate() {
            let device = Device::flex();
            let mut there = OnDevice::new(host.clone(), &device).unwrap();
            let mut told = Told::default();
            there.improve(&batch(&mut Rng::new(1)), None, &mut Rng::new(2), &mut told).unwrap();
            let checkpoints = Checkpoints::in_folder(folder.path().join(number.to_string()));
            checkpoints.write(1, None, None, |into| there.save(into)).unwrap();
            let reader = checkpoints.newest().unwrap().unwrap().reader;
            let mut again = OnDevice::new(host.clone(), &device).unwrap();
            again.load(&reader).unwrap();
            let mut back = host;
            back.learner_mut().load(&reader).unwrap();
            assert_eq!(numbers(back.clone()), numbers(there.to_host()), "{name}");
            for learner in [&mut there, &mut again] {
                learner.improve(&batch(&mut Rng::new(5)), None, &mut Rng::new(6), &mut told).unwrap();
            }
            assert_eq!(numbers(again.to_host()), numbers(there.to_host()), "{name}: the same bits");
            assert_eq!(*again.host.updates_mut(), 2, "{name}");
        }
    }
}
