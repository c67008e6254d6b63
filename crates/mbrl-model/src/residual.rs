//! The errors of a model, learned by an ensemble.

use burn::tensor::Tensor;

#[cfg(feature = "train")]
use burn::tensor::TensorData;

#[cfg(feature = "train")]
use crate::{
    Dataset, EnsembleExamples, EnsembleStatistics, Fit, FitBatch, FitConfig, LearnedModel, Network, Stepper,
    ensemble::to_vec,
};
use crate::{Draw, Dynamics, DynamicsSpec, Ensemble, Imagined, ModelError, Prediction, dynamics::check_size};

/// A model and an ensemble of its errors, as one model: `s' = base(s, a) + residual(s, a)`.
///
/// Equations that are nearly right leave little to learn: a friction that was left out, a motor that saturates. The base stays as it is; the
/// [trainer](crate::fit()) fits the ensemble to the differences between the data and the base's predictions. Noise and disagreement of the members are
/// the ensemble's.
///
/// ```
/// use mbrl_model::{
///     Dataset, Device, Dynamics, EnsembleConfig, FitConfig, Pendulum, PhysicsModel, Residual, Rng, Tensor, fit,
/// };
///
/// // A pendulum whose friction was overlooked.
/// let (device, mut rng) = (Device::flex(), Rng::new(0));
/// let truth = PhysicsModel::new(Pendulum::default(), 0.05, &device)?.with_known("friction", 0.5)?;
/// let overlooked = truth.clone().with_known("friction", 0.0)?;
/// let draw = |rng: &mut Rng, count: usize| (0..count).map(|_| rng.uniform(-2.0, 2.0)).collect::<Vec<f32>>();
/// let (obs, actions) = (draw(&mut rng, 1000), draw(&mut rng, 500));
/// let tensor = |values: &[f32], width| Tensor::<1>::from_floats(values, &device).reshape([500, width]);
/// let next: Vec<f32> = truth.predict(tensor(&obs, 2), tensor(&actions, 1))?.mean.into_data().iter().collect();
///
/// let config = EnsembleConfig { hidden: vec![16], members: 3, ..EnsembleConfig::default() };
/// let mut model = Residual::new(overlooked, config.init(2, 1, &device, &mut rng)?)?;
/// let settings = FitConfig { max_epochs: 30, batch_size: 32, ..FitConfig::default() };
/// fit(&mut model, &Dataset::new(obs, actions, next, 2, 1)?, &settings, &mut rng)?;
///
/// // At 1 rad/s the friction takes 0.025 rad/s in a step.
/// let at = [Tensor::from_floats([[0.0, 1.0]], &device), Tensor::zeros([1, 1], &device)];
/// let speed = |model: &dyn Dynamics| {
///     let [state, action] = at.clone();
///     model.predict(state, action).map(|next| next.mean.into_data().iter::<f32>().last().unwrap())
/// };
/// assert!((speed(&model)? - speed(&truth)?).abs() < 0.01);
/// # Ok::<(), mbrl_model::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Residual<B> {
    base: B,
    ensemble: Ensemble,
    spec: DynamicsSpec,
}

impl<B: Dynamics> Residual<B> {
    /// A base and an ensemble of its errors. Before a fit the ensemble's predictions are those of random weights.
    ///
    /// # Errors
    /// [`ModelError::Width`] where their columns differ; [`ModelError::Unsupported`] for a base that has noise, members or a memory,
    /// needs snapshots, or whose state is not the observation; and for an ensemble that looks at past steps, does not predict changes, has
    /// symmetries or is fitted to states that it predicts itself.
    pub fn new(base: B, ensemble: Ensemble) -> Result<Self, ModelError> {
        let (of_base, own) = (base.spec(), ensemble.spec());
        check_size("columns of the ensemble's observation", of_base.obs, own.obs)?;
        check_size("columns of the ensemble's action", of_base.action, own.action)?;
        let unsupported = |model: &DynamicsSpec, what| Err(ModelError::Unsupported { model: model.name.clone(), what });
        if of_base.stochastic || of_base.members != 1 {
            return unsupported(of_base, "be the base of a residual: it has noise or members");
        }
        if of_base.belief > 0 || of_base.needs_snapshot || of_base.state != of_base.obs || of_base.view != of_base.obs {
            return unsupported(of_base, "be the base of a residual: its state is not the observation");
        }
        if own.state != own.obs || !ensemble.config().no_delta.is_empty() || !own.known.is_empty() {
            return unsupported(own, "be a residual: it must predict the changes of all columns from one observation");
        }
        if ensemble.config().hallucinated_steps > 0 {
            return unsupported(
                own,
                "be a residual: its steps lead nowhere without those of the base (hallucinated_steps)",
            );
        }
        if ensemble.symmetries().is_some() {
            return unsupported(
                own,
                "be a residual: its symmetries would turn the base's errors, which need not have them",
            );
        }
        let spec = spec(&base, &ensemble);
        Ok(Self { base, ensemble, spec })
    }

    /// The base.
    #[must_use]
    pub fn base(&self) -> &B {
        &self.base
    }

    /// The ensemble of the base's errors.
    #[must_use]
    pub fn ensemble(&self) -> &Ensemble {
        &self.ensemble
    }

    /// The base's next states plus the change that the ensemble makes to `states`.
    fn join(&self, base: Tensor<2>, moved: Tensor<2>, states: Tensor<2>) -> Tensor<2> {
        let mut off = moved - states;
        // The ensemble has put angles that jump where the data have them.
        for angle in self.spec.angles.iter().filter(|angle| angle.wraps) {
            let width = off.dims()[1];
            let column = off.clone().narrow(1, angle.column, 1);
            let turns = (column.clone().detach() / angle.turn).round();
            let rest = column - turns * angle.turn;
            off = off.slice_assign([0..rest.dims()[0], angle.column..(angle.column + 1).min(width)], rest);
        }
        base + off
    }
}

fn spec<B: Dynamics>(base: &B, ensemble: &Ensemble) -> DynamicsSpec {
    let (of_base, own) = (base.spec(), ensemble.spec());
    let name = format!("{} with a residual", of_base.name);
    DynamicsSpec::new(name, own.obs, own.action, &own.device)
        .with_members(own.members)
        .with_stochastic(own.stochastic)
        .with_differentiable(of_base.differentiable && own.differentiable)
        .with_angles(if own.angles.is_empty() { of_base.angles.clone() } else { own.angles.clone() })
}

impl<B: Dynamics> Dynamics for Residual<B> {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        let base = self.base.predict(states.clone(), actions.clone())?.mean;
        let mut prediction = self.ensemble.predict(states.clone(), actions)?;
        prediction.mean = self.join(base, prediction.mean, states);
        Ok(prediction)
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let base = self.base.predict(states.clone(), actions.clone())?.mean;
        let mut imagined = self.ensemble.sample(states.clone(), actions, draw)?;
        imagined.next = self.join(base, imagined.next, states);
        Ok(imagined)
    }

    fn chunk_size(&self, horizon: usize, particles: usize) -> Option<usize> {
        self.ensemble.chunk_size(horizon, particles)
    }
}

#[cfg(feature = "train")]
impl<B: Dynamics> Residual<B> {
    /// Data whose changes are those that the base leaves unexplained.
    fn rest(&self, data: &Dataset) -> Result<Dataset, ModelError> {
        check_size("columns of obs", self.spec.obs, data.obs_width())?;
        check_size("columns of actions", self.spec.action, data.action_width())?;
        if data.offset().iter().any(|offset| *offset != 0.0) {
            let (value, rule) = ("data with an offset".into(), "data in the base's own units".into());
            return Err(ModelError::Config { field: "data", value, rule });
        }
        let table = |values: &[f32], width| {
            Tensor::from_data(TensorData::new(values.to_vec(), [data.len(), width]), &self.spec.device)
        };
        let base = self.base.predict(table(data.obs(), self.spec.obs), table(data.actions(), self.spec.action))?.mean;
        let turns: Vec<Option<f32>> = (0..self.spec.obs)
            .map(|c| self.spec.angles.iter().find(|angle| angle.column == c).map(|angle| angle.turn))
            .collect();
        let rows = data.obs().iter().zip(data.next_obs()).zip(to_vec(base)).zip(turns.iter().cycle());
        let rest = rows.map(|(((obs, next), base), turn)| {
            let off = next - base;
            obs + turn.map_or(off, |turn| off - turn * (off / turn).round())
        });
        data.clone().with_next_obs(rest.collect())
    }
}

/// The ensemble is fitted; the base stays.
#[cfg(feature = "train")]
impl<B: Dynamics> Fit for Residual<B> {
    type Data = Dataset;
    type Examples = EnsembleExamples;
    type Parameters = Network;
    type Statistics = EnsembleStatistics;

    fn name(&self) -> &str {
        &self.spec.name
    }

    fn members(&self) -> usize {
        self.ensemble.members()
    }

    fn prepare(&self, data: &Dataset) -> Result<(EnsembleExamples, EnsembleStatistics), ModelError> {
        self.ensemble.prepare(&self.rest(data)?)
    }

    fn parameters(&self) -> Network {
        self.ensemble.parameters()
    }

    fn loss(&self, network: &Network, examples: &EnsembleExamples, batch: &FitBatch<'_>) -> Tensor<1> {
        self.ensemble.loss(network, examples, batch)
    }

    fn error(&self, network: &Network, examples: &EnsembleExamples, rows: &[usize]) -> Tensor<2> {
        self.ensemble.error(network, examples, rows)
    }

    fn choose(old: Network, new: Network, take: &[bool]) -> Network {
        Ensemble::choose(old, new, take)
    }

    fn stepper(&self, examples: &EnsembleExamples, config: &FitConfig) -> Option<Box<dyn Stepper<Network>>> {
        self.ensemble.stepper(examples, config)
    }

    fn finish(&mut self, network: Network, statistics: EnsembleStatistics, errors: &[f32]) {
        self.ensemble.finish(network, statistics, errors);
        self.spec = spec(&self.base, &self.ensemble);
    }
}

#[cfg(feature = "train")]
impl<B: Dynamics + Clone> LearnedModel for Residual<B> {
    fn reinitialize(&mut self, rng: &mut mbrl_env::Rng) {
        self.ensemble.reinitialize(rng);
        self.spec = spec(&self.base, &self.ensemble);
    }

    fn save(&self) -> Result<Vec<u8>, ModelError> {
        self.ensemble.save()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        self.ensemble.load(bytes)?;
        self.spec = spec(&self.base, &self.ensemble);
        Ok(())
    }

    fn learns_reward(&self) -> bool {
        self.ensemble.config().reward
    }

    fn learns_termination(&self) -> bool {
        self.ensemble.config().termination
    }
}
