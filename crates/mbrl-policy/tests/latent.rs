//! An agent that sees images alone: it collects, fits and plans as every other, resumes to the same bits, and refuses what it cannot do.

mod common;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::metrics;
use mbrl_env::{Env, Info, Transition, tasks};
use mbrl_model::{Device, Dynamics, FitConfig, LatentConfig, LatentModel, MemberRule, Propagation, Rng};
use mbrl_plan::{Aggregate, Mpc, PlannerConfig, Refinement, Replan};
use mbrl_policy::{
    Agent, AgentError, FitSchedule, Goal, Learner, ModelBased, ModelBasedConfig, Moment, Observer, Outcome, RunFiles,
    TrainConfig, World, experiment::Registry,
};

/// The pendulum in 16 × 16 pixels, in short episodes.
fn world() -> World {
    let options = serde_json::json!({ "width": 16, "height": 16 });
    let env = tasks::make_with("pendulum-pixels", options).unwrap().env;
    World::from_simulator(mbrl_env::TimeLimit::new(env.into_simulator().unwrap(), 12).unwrap())
}

fn config() -> LatentConfig {
    LatentConfig {
        channels: vec![4, 4],
        encoder: vec![16],
        latent: 8,
        hidden: vec![16],
        decoder: vec![16],
        window: 3,
        ..LatentConfig::default()
    }
}

fn agent(planner: &PlannerConfig, propagation: Propagation, rng: &mut Rng, slots: usize) -> ModelBased<LatentModel> {
    let spec = world().spec().clone();
    let model = config().init_for(&spec, &Device::flex(), rng).unwrap();
    let fit = FitConfig { batch_size: 8, max_epochs: 4, holdout: 0.0, ..FitConfig::default() };
    let mpc = || {
        let planner = planner.init(&spec.actions, propagation, Aggregate::Mean, &Refinement::off()).unwrap();
        Mpc::new(planner, Replan::EveryStep).unwrap()
    };
    let agent_config = ModelBasedConfig { random_steps: 20, fit_every: FitSchedule::Steps(10), ..Default::default() };
    let agent = agent_config.init(&spec, model, fit, Goal::of_model(), mpc()).unwrap();
    if slots > 1 { agent.with_more((1..slots).map(|_| mpc()).collect()) } else { agent }
}

fn planner(text: &str) -> PlannerConfig {
    toml::from_str(text).unwrap()
}

const CEM: &str = "kind = \"cem\"\nhorizon = 4\npopulation = 10\nelites = 3\niterations = 2";

struct StopAt(Option<u64>, Arc<AtomicBool>);

impl Observer for StopAt {
    fn on_step(&mut self, moment: Moment, _: &Transition, _: &Info) -> Result<(), AgentError> {
        if self.0.is_some_and(|step| moment.env_step >= step) {
            self.1.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[test]
fn stopped_and_resumed_it_goes_on_to_the_same_bits_in_one_environment_and_several() {
    for slots in [1, 2] {
        let go = |folder: &Path, stop_at: Option<u64>| {
            let train = TrainConfig { eval_every: 30, eval_episodes: 2, environments: slots, ..Default::default() };
            let mut training = train.init(60, 7).unwrap();
            let mut agent = agent(&planner(CEM), Propagation::MEAN, &mut training.split_rng(), slots);
            let (mut files, _) = RunFiles::open(folder, &mut training, &mut agent).unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let mut observer = StopAt(stop_at, stop.clone());
            let mut worlds: Vec<World> = (0..slots).map(|_| world()).collect();
            let outcome =
                training.run_together(&mut worlds, &mut agent, Some(&mut files), &mut observer, &stop).unwrap();
            (agent, outcome)
        };
        let whole = tempfile::tempdir().unwrap();
        let (expected, _) = go(whole.path(), None);
        assert!(expected.is_fitted() && expected.replay().is_in_bytes());
        for stop_at in [5, 27, 45] {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(go(folder.path(), Some(stop_at)).1, Outcome::Stopped);
            let (resumed, _) = go(folder.path(), None);
            assert_eq!(metrics(folder.path()), metrics(whole.path()), "{slots} slots, stopped at {stop_at}");
            assert_eq!(resumed.model().save().unwrap(), expected.model().save().unwrap());
            assert_eq!(resumed.replay().columns(), expected.replay().columns());
        }
    }
}

#[test]
fn every_planner_plans_in_the_latent_space() {
    let small = "horizon = 4\npopulation = 12\n";
    let planners = [
        CEM.to_owned(),
        format!("kind = \"icem\"\nelites = 3\niterations = 2\n{small}"),
        format!("kind = \"mppi\"\n{small}"),
        format!("kind = \"pddm\"\n{small}"),
        format!("kind = \"random-shooting\"\n{small}"),
        "kind = \"gradient\"\nhorizon = 4\niterations = 2".to_owned(),
    ];
    for text in planners {
        for propagation in [Propagation::MEAN, Propagation { rule: MemberRule::TsInf, noise: false, particles: 3 }] {
            let mut training = TrainConfig::default().init(36, 1).unwrap();
            let mut agent = agent(&planner(&text), propagation, &mut training.split_rng(), 1);
            let stop = AtomicBool::new(false);
            training.run(&mut world(), &mut agent, None, &mut (), &stop).unwrap();
            assert!(agent.is_fitted(), "{text}");
            assert!(agent.take_plan_failure().is_none(), "{text}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let registry = || {
        let text = "task = \"pendulum-pixels\"\nsteps = 400\n[agent]\nkind = \"latent\"\n[planner]\nkind = \"cem\"\n";
        Registry::new().tasks(tasks::entries()).experiments(&[("images", text)])
    };
    let told = |words: &[&str]| {
        let loaded = registry()
            .load("images", words)
            .and_then(|experiment| experiment.build_on(&registry(), &Device::flex()).map(drop));
        loaded.unwrap_err().to_string()
    };
    let chain = |words: &[&str]| {
        let loaded = registry()
            .load("images", words)
            .and_then(|experiment| experiment.build_on(&registry(), &Device::flex()).map(drop));
        let error = loaded.unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    };
    let size = chain(&["task_options.width=30"]);
    assert!(size.contains("image = 30 × 32: expected sides that are multiples of 8 pixels"), "{size}");
    let numbers = chain(&["task=pendulum"]);
    assert!(numbers.contains("expected one field of pixels"), "{numbers}");
    let ends = told(&["task=cartpole"]);
    assert!(ends.starts_with("task = cartpole: expected a task that never terminates"), "{ends}");
    assert!(told(&["goal.discount=0"]).starts_with("goal.discount = 0: expected a number in (0, 1]"));
    assert!(chain(&["model.window=0"]).contains("window = 0: expected 1 to 64 steps"));
    assert!(told(&["model.hidden=[4000000000]"]).starts_with("model.hidden"));
    // Data of another size.
    let mut training = TrainConfig::default().init(36, 1).unwrap();
    let mut agent = agent(&planner(CEM), Propagation::MEAN, &mut training.split_rng(), 1);
    let mut frames = Transition {
        obs: vec![0.0; 100],
        action: vec![0.0],
        reward: 0.0,
        next_obs: vec![0.0; 256],
        terminated: false,
        truncated: false,
    };
    assert!(agent.observe(&frames).unwrap_err().to_string().contains("observation"), "width");
    frames.obs = vec![0.5; 256];
    let error = agent.observe(&frames).unwrap_err().to_string();
    assert!(error.contains("whole numbers from 0 to 255"), "{error}");
    assert_eq!(agent.model().spec().obs, 256);
}
