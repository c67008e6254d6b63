//! A simulation that breaks down under a candidate costs that candidate, not the plan.

use mbrl_env::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, History, Info, Simulator, Situation, Snapshot, Step, Tensor,
};
use mbrl_model::{Device, Draw, Dynamics, ModelError, Propagation, SimulatorModel, Start};

/// Counts its steps; an action above 1 breaks it, one below -1 is refused.
#[derive(Debug, Clone)]
struct Fragile {
    spec: EnvSpec,
    steps: u8,
}

impl Fragile {
    fn new() -> Self {
        let spec = EnvSpec {
            name: "fragile".into(),
            obs: BoxSpace::unbounded(1),
            actions: ActionSpace::Box(BoxSpace::symmetric(1, 2.0).unwrap()),
            control_period: 1.0,
        };
        Self { spec, steps: 0 }
    }
}

impl Env for Fragile {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, _: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.steps = 0;
        Ok(vec![0.0])
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        if action[0] < -1.0 {
            return Err(EnvError::NeedsReset { env: "fragile".into(), why: "the episode is over" });
        }
        if action[0] > 1.0 {
            return Err(EnvError::Simulation { time: f64::from(self.steps), reason: "broken".into() });
        }
        self.steps += 1;
        Ok(Step {
            obs: vec![f32::from(self.steps)],
            reward: 1.0,
            terminated: false,
            truncated: false,
            info: Info::new(),
        })
    }
}

impl Simulator for Fragile {
    fn save(&self) -> Snapshot {
        Snapshot::new(self.clone())
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        self.clone_from(snapshot.get().unwrap());
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Simulator> {
        Box::new(self.clone())
    }
}

/// Observations `[H + 1][K]` and rewards `[H][K]` of actions `[H][K]`.
fn rollout<const H: usize, const K: usize>(actions: [[f32; K]; H]) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
    let env = Fragile::new();
    let snapshot = env.save();
    let situation = Situation { obs: &[0.0], past: &History::default(), snapshot: Some(&snapshot) };
    let actions = Tensor::<2>::from_floats(actions, &Device::flex()).unsqueeze_dim::<3>(2);
    let model = SimulatorModel::new(env.boxed_clone(), &Device::flex());
    let out = model.rollout(Start::Situation(situation), actions, Draw::new(Propagation::MEAN, 0))?;
    Ok((out.obs.try_into_vec_as::<f32>().unwrap(), out.reward.unwrap().try_into_vec_as::<f32>().unwrap()))
}

#[test]
fn a_breakdown_is_worth_nan_from_its_step_on_and_leaves_the_others() {
    let (obs, rewards) = rollout([[0.0, 0.0, 2.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]).unwrap();
    assert_eq!(obs, [[0.0; 3], [1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [3.0, 1.0, 0.0]].concat());
    let broken: Vec<bool> = rewards.iter().map(|reward| reward.is_nan()).collect();
    assert_eq!(broken, [[false, false, true], [false, true, true], [false, true, true]].concat());
    assert!(rewards.iter().all(|reward| reward.is_nan() || *reward == 1.0));
}

#[test]
fn another_error_is_the_roll_outs() {
    assert!(matches!(rollout([[0.0, -2.0]]), Err(ModelError::Env(EnvError::NeedsReset { .. }))));
}
