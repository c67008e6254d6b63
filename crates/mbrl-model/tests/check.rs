//! Every rule of `check_dynamics` against a model that breaks just that rule.

#[path = "common/latent.rs"]
mod latent;

use latent::Latent;
use mbrl_env::Situation;
use mbrl_model::{
    Device, Draw, Dynamics, DynamicsSpec, Imagined, MemberRule, ModelError, Prediction, Start, Tensor, Trajectories,
    belief_of,
    check::{check_dynamics, check_gradients},
    rollout_by_steps,
};

/// What is wrong with a model.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    ObserveShape,
    ObserveMixesRows,
    PredictShape,
    PredictNan,
    PredictNegativeSpread,
    PredictMixesRows,
    PredictGoesByPlace,
    SpreadSometimes,
    SampleShape,
    SampleNan,
    SampleMixesRows,
    SampleIsUnrelated,
    RewardShape,
    RewardNan,
    RewardMixesRows,
    RewardSometimes,
    TerminatedShape,
    TerminatedMixesRows,
    OtherBitsEachTime,
    AlwaysNoisy,
    NoisyExpectation,
    HiddenNoise,
    NoNoise,
    IgnoresKey,
    IgnoresStep,
    IgnoresParticle,
    EncodeShape,
    EncodeNan,
    EncodeForgetsSituation,
    RolloutShape,
    RolloutStart,
    RolloutMixesSteps,
    RolloutRewards,
    RolloutTerminations,
    RolloutForgets,
    ChunkIgnored,
    SituationIgnoresPast,
    NeedsSnapshot,
    EncodeBatchShape,
    EncodeBatchIsOther,
    /// None: the same model with a filter instead of a look at the past.
    Filters,
    FilterMissing,
    BeginShape,
    FollowNan,
    FollowMixesRows,
    BeliefIgnored,
    /// None: rewards see the speed too.
    ShowsMore,
    ShowsLess,
}

use Fault::*;

/// The latent model with one fault.
struct Broken {
    model: Latent,
    spec: DynamicsSpec,
    fault: Fault,
    calls: std::sync::atomic::AtomicU32,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        let model = Latent::new(&Device::flex());
        let mut spec = model.spec().clone();
        spec.stochastic = fault != HiddenNoise;
        spec.needs_snapshot = fault == NeedsSnapshot;
        let filters = [Filters, FilterMissing, BeginShape, FollowNan, FollowMixesRows, BeliefIgnored];
        spec.belief = if filters.contains(&fault) { 2 } else { 0 };
        spec.view = if [ShowsMore, ShowsLess].contains(&fault) { 2 } else { 1 };
        Self { model, spec, fault, calls: Default::default() }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}

fn mixed(x: Tensor<2>) -> Tensor<2> {
    let mean = x.clone().mean_dim(0);
    x + mean * 1e-3
}

fn nan(x: Tensor<2>) -> Tensor<2> {
    let shape = x.dims();
    let mask = Tensor::<2>::zeros(shape, &x.device()).slice_fill([0..1, 0..1], f32::NAN);
    x + mask
}

impl Dynamics for Broken {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        let mut said = self.model.predict(states, actions)?;
        let rows = said.mean.dims()[0];
        said.mean = match self.fault {
            PredictShape => said.mean.narrow(1, 0, 2),
            PredictNan => nan(said.mean),
            PredictMixesRows => mixed(said.mean),
            PredictGoesByPlace => {
                let places: Vec<f32> = (0..rows).map(|r| if r + 1 == rows { 0.0 } else { 1e-3 }).collect();
                said.mean + Tensor::<1>::from_floats(&places[..], &self.spec.device).unsqueeze_dim(1)
            }
            _ => said.mean,
        };
        said.aleatoric_std = match self.fault {
            PredictNegativeSpread => said.aleatoric_std.map(|std| -std),
            SpreadSometimes if rows == 1 => None,
            _ => said.aleatoric_std,
        };
        Ok(said)
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let mut draw = draw;
        match self.fault {
            AlwaysNoisy => draw.propagation.noise = true,
            NoNoise => draw.propagation.noise = false,
            IgnoresKey => draw.key = 0,
            IgnoresStep => draw.step = 0,
            ChunkIgnored => draw.chunk = None,
            NoisyExpectation if draw.propagation.noise => draw.propagation.rule = MemberRule::Ts1,
            _ => {}
        }
        let [rows, width] = states.dims();
        let mut step = if self.is(IgnoresParticle) {
            // The noise of the first particle for all.
            let particles = draw.propagation.particles;
            let one =
                Draw::new(mbrl_model::Propagation { particles: 1, ..draw.propagation }, draw.key).at_step(draw.step);
            let of = |x: &Tensor<2>, p: usize| x.clone().narrow(0, p * rows / particles, rows / particles);
            let steps = (0..particles).map(|p| self.model.sample(of(&states, p), of(&actions, p), one));
            let steps = steps.collect::<Result<Vec<_>, _>>()?;
            let cat = |f: &dyn Fn(&Imagined) -> Tensor<1>| Tensor::cat(steps.iter().map(f).collect(), 0);
            Imagined::new(Tensor::cat(steps.iter().map(|s| s.next.clone()).collect(), 0))
                .with_reward(cat(&|s| s.reward.clone().unwrap()))
                .with_terminated(cat(&|s| s.terminated.clone().unwrap().float()).greater_elem(0.5))
        } else {
            self.model.sample(states.clone(), actions, draw)?
        };
        step.next = match self.fault {
            SampleShape => step.next.narrow(1, 0, width - 1),
            SampleNan => nan(step.next),
            SampleMixesRows => mixed(step.next),
            SampleIsUnrelated => step.next - states * 3.0 + 7.0,
            OtherBitsEachTime => {
                let call = self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                step.next + call as f32 * 1e-6
            }
            _ => step.next,
        };
        step.reward = match (self.fault, step.reward) {
            (RewardShape, Some(reward)) => Some(reward.narrow(0, 0, rows - 1)),
            (RewardNan, Some(reward)) => Some(reward * f32::NAN),
            (RewardMixesRows, Some(reward)) => Some(mixed(reward.unsqueeze_dim(1)).squeeze_dim(1)),
            (RewardSometimes, reward) => reward.filter(|_| draw.propagation.noise),
            (_, reward) => reward,
        };
        step.terminated = match (self.fault, step.terminated) {
            (TerminatedShape, Some(ends)) => Some(ends.narrow(0, 0, rows - 1)),
            (TerminatedMixesRows, Some(ends)) => Some(if rows == 1 { ends.bool_not() } else { ends }),
            (_, ends) => ends,
        };
        Ok(step)
    }

    fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
        let state = match self.spec.belief {
            0 => self.model.encode(situation)?,
            // It must make do without a filter where that is not there at all.
            _ if self.is(FilterMissing) => self.model.encode(situation)?,
            _ => {
                let belief = belief_of(self, situation)?;
                let [x, v] = [0, 1].map(|c| belief.clone().narrow(1, c, 1));
                let v = if self.is(BeliefIgnored) { v * 0.0 } else { v };
                let zero = x.zeros_like();
                Tensor::cat(vec![x.clone() * 0.8 + v.clone() * 0.6, v * 0.8 - x * 0.6, zero], 1)
            }
        };
        Ok(match self.fault {
            EncodeShape => state.repeat_dim(0, 2),
            EncodeNan => nan(state),
            EncodeForgetsSituation => state + self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as f32,
            _ => state,
        })
    }

    fn encode_batch(&self, situations: &[Situation<'_>]) -> Result<Tensor<2>, ModelError> {
        let states = situations.iter().map(|here| self.encode(here)).collect::<Result<Vec<_>, _>>()?;
        let states = Tensor::cat(states, 0);
        Ok(match self.fault {
            EncodeBatchShape => states.narrow(1, 0, 2),
            EncodeBatchIsOther => states.flip([0]),
            _ => states,
        })
    }

    fn begin(&self, obs: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        if self.is(FilterMissing) {
            return Err(ModelError::Unsupported { model: "broken".into(), what: "begin" });
        }
        let x = obs / 2.0;
        let begun = Tensor::cat(vec![x.clone(), x.zeros_like()], 1);
        Ok(if self.is(BeginShape) { Tensor::cat(vec![begun.clone(), begun], 1) } else { begun })
    }

    fn follow(&self, beliefs: Tensor<2>, actions: Tensor<2>, obs: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let (x, before) = (obs / 2.0, beliefs.narrow(1, 0, 1));
        let v = (x.clone() - before) / 0.1 + actions * 0.0;
        let followed = Tensor::cat(vec![x, v], 1);
        Ok(match self.fault {
            FollowNan => nan(followed),
            FollowMixesRows => mixed(followed),
            _ => followed,
        })
    }

    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        match self.fault {
            ShowsMore => {
                let speed = states.clone().narrow(1, 0, 1) * 0.6 + states.clone().narrow(1, 1, 1) * 0.8;
                Tensor::cat(vec![self.model.observe(states), speed], 1)
            }
            ObserveShape => states,
            ObserveMixesRows => mixed(self.model.observe(states)),
            _ => self.model.observe(states),
        }
    }

    fn chunk_size(&self, horizon: usize, particles: usize) -> Option<usize> {
        self.model.chunk_size(horizon, particles)
    }

    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        let from = match from {
            Start::Situation(here) if self.is(SituationIgnoresPast) => Start::Situation(Situation::of(here.obs)),
            from => from,
        };
        let actions = match self.is(RolloutMixesSteps) {
            true => actions.clone().narrow(0, 0, 1).repeat_dim(0, actions.dims()[0]),
            false => actions,
        };
        let mut all = rollout_by_steps(self, from, actions, draw)?;
        let horizon = all.obs.dims()[0] - 1;
        match self.fault {
            RolloutShape => all.obs = all.obs.narrow(0, 1, horizon),
            RolloutStart => {
                let next = all.obs.clone().narrow(0, 1, 1);
                all.obs = Tensor::cat(vec![next, all.obs.narrow(0, 1, horizon)], 0);
            }
            RolloutRewards => all.reward = all.reward.map(|reward| reward.flip([0])),
            RolloutTerminations => all.terminated = all.terminated.map(Tensor::bool_not),
            RolloutForgets => {
                let second = all.obs.clone().narrow(0, 2, 1);
                all.obs = Tensor::cat(vec![all.obs.narrow(0, 0, horizon), second], 0);
            }
            _ => {}
        }
        Ok(all)
    }
}

fn rows() -> [Tensor<2>; 2] {
    let device = Device::flex();
    let states = [[0.3, -0.5, 0.01], [1.1, 0.4, -0.02], [-0.7, 0.9, 0.0], [0.2, 0.1, 0.03]];
    [Tensor::from_floats(states, &device), Tensor::from_floats([[0.5], [-1.0], [0.2], [0.9]], &device)]
}

#[test]
fn a_latent_model_with_memory_keeps_the_contract() {
    let model = Latent::new(&Device::flex());
    let [states, actions] = rows();
    check_dynamics(&model, states.clone(), actions.clone()).unwrap();
    // Behind a pointer it is the same model.
    let shared: std::sync::Arc<dyn Dynamics> = std::sync::Arc::new(model);
    check_dynamics(&shared, states.clone(), actions.clone()).unwrap();
    check_dynamics(&Box::new(&shared), states.clone(), actions.clone()).unwrap();
    check_gradients(&shared, states.clone(), actions.clone(), 1e-2).unwrap();
    // So does the one with a filter, and the one that shows rewards more than is observed.
    for sound in [Filters, ShowsMore] {
        check_dynamics(&Broken::new(sound), states.clone(), actions.clone()).unwrap();
    }
    assert_eq!(shared.chunk_size(5, 1), Some(32), "a pointer forwards what has a default too");
}

#[test]
fn each_rule_refuses_the_model_that_breaks_it() {
    let rules = [
        (ObserveShape, "shapes: observations"),
        (ObserveMixesRows, "rows of observe"),
        (PredictShape, "shapes: predicted mean"),
        (PredictNan, "finite: predicted mean"),
        (PredictNegativeSpread, "finite: a negative aleatoric_std"),
        (PredictMixesRows, "rows of predict: mean of row 0 alone"),
        (PredictGoesByPlace, "rows of predict: mean of row 0"),
        (SpreadSometimes, "shapes: aleatoric_std comes only sometimes"),
        (SampleShape, "shapes: imagined states"),
        (SampleNan, "finite: imagined states"),
        (SampleMixesRows, "rows of sample: row 0 alone"),
        (SampleIsUnrelated, "mean: `sample` without noise against `predict`"),
        (RewardShape, "shapes: imagined rewards"),
        (RewardNan, "finite: imagined rewards"),
        (RewardMixesRows, "rows of sample: row 0 alone"),
        (RewardSometimes, "shapes: rewards and terminations come only sometimes"),
        (TerminatedShape, "shapes: imagined terminations"),
        (TerminatedMixesRows, "other terminations"),
        (OtherBitsEachTime, "same draw: a second"),
        (AlwaysNoisy, "no noise: without noise another key"),
        (NoisyExpectation, "no noise: the rule `expectation`"),
        (HiddenNoise, "no noise: spec().stochastic is false"),
        (NoNoise, "noise: spec().stochastic is true"),
        (IgnoresKey, "noise: two keys"),
        (IgnoresStep, "noise: two steps"),
        (IgnoresParticle, "noise: two particles"),
        (EncodeShape, "encode: shape [2, 3]"),
        (EncodeNan, "encode: [NaN"),
        (EncodeForgetsSituation, "the second time without a past"),
        (RolloutShape, "shapes: rolled-out observations"),
        (RolloutStart, "roll-out: its start"),
        (RolloutMixesSteps, "roll-out: observations of step 1"),
        (RolloutRewards, "roll-out: rewards of step 0"),
        (RolloutTerminations, "roll-out: terminations of step 0"),
        (RolloutForgets, "roll-out: observations of step 2"),
        (ChunkIgnored, "chunks: Draw"),
        (SituationIgnoresPast, "situation: with a past"),
        (NeedsSnapshot, "needs a simulator's snapshot"),
        (EncodeBatchShape, "encode_batch: shape [4, 2], expected [4, 3]"),
        (EncodeBatchIsOther, "encode_batch: row 0 against `encode`"),
        (FilterMissing, "broken cannot begin"),
        (BeginShape, "filter: `begin` gives shape [4, 4], expected [4, 2]"),
        (FollowNan, "NaN"),
        (FollowMixesRows, "filter: `follow` of row 0 alone"),
        (BeliefIgnored, "filter: `encode` does not go by the belief"),
        (ShowsLess, "shapes: observations"),
    ];
    for (fault, rule) in rules {
        let [states, actions] = rows();
        let told = check_dynamics(&Broken::new(fault), states, actions).expect_err(&format!("{fault:?}")).to_string();
        assert!(told.contains(rule), "{fault:?}: {told}");
    }
}

#[test]
fn one_row_cannot_show_that_rows_are_independent() {
    let [states, actions] = rows().map(|x| x.narrow(0, 0, 1));
    let told = check_dynamics(&Latent::new(&Device::flex()), states, actions).unwrap_err().to_string();
    assert!(told.contains("at least 2"), "{told}");
}
