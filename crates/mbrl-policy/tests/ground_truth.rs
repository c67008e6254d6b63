//! Planning with the simulator itself: nothing is learned, and the loop records, evaluates and resumes it all the same.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Point, metrics};
use mbrl_env::{Env, Info, Transition};
use mbrl_model::{Propagation, SimulatorModel};
use mbrl_plan::{IcemConfig, Mpc, Replan};
use mbrl_policy::{
    AgentError, Device, Goal, Moment, MpcAgent, Observer, Outcome, RunFiles, TrainConfig, World, evaluate, start_seeds,
};

fn agent(env: &World, goal: Goal) -> MpcAgent<SimulatorModel> {
    let actions = env.spec().actions.clone();
    let model = SimulatorModel::new(env.require_simulator().unwrap().boxed_clone(), &Device::flex());
    let planner = IcemConfig { horizon: 6, ..IcemConfig::default() }.init(&actions, Propagation::MEAN).unwrap();
    let mpc = Mpc::new(Box::new(planner), Replan::EveryStep).unwrap();
    MpcAgent::new(model, goal, actions, mpc)
}

/// The best return of `steps` steps from `x`: straight to 0, by at most 0.1 a step.
fn best(x: f32, steps: u32) -> f64 {
    let mut x = f64::from(x.abs());
    (0..steps)
        .map(|_| {
            x = (x - 0.1).max(0.0);
            -x * x
        })
        .sum()
}

#[test]
fn the_truth_is_planned_with_up_to_the_time_limit_and_over_it() {
    // Twelve steps are not enough to come to rest from everywhere, and half of the plans look beyond the limit. A fine on
    // every step after the end must not change anything: the limit is the same for all candidates.
    for after_termination in [0.0, -500.0] {
        let mut env = World::from_simulator(Point::limited(12));
        let mut agent = agent(&env, Goal { after_termination, ..Goal::of_model() });
        let found = evaluate(&mut env, &mut agent, &start_seeds(0, 5)).unwrap();
        for episode in &found.episodes {
            let x = episode.transitions[0].obs[0];
            let (summary, best) = (&episode.summary, best(x, 12));
            assert_eq!((summary.length, summary.truncated), (12, true));
            // Standing still earns −12 x²: planning loses at most a tenth of what there is to win, and a little at rest.
            let to_win = best + 12.0 * f64::from(x * x);
            let lost = best - summary.total_reward;
            assert!(to_win > 0.4 && lost < 0.05 + 0.1 * to_win, "{lost} of {to_win} from {x}");
            assert!(summary.total_reward <= best + 1e-5);
        }
    }
}

/// Stops after a number of steps.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn on_step(&mut self, at: Moment, _: &Transition, _: &Info) -> Result<(), AgentError> {
        self.1.store(at.env_step >= self.0, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_stopped_run_goes_on_as_if_nothing_had_happened_and_tells_what_plans_cost() {
    let config = TrainConfig { eval_every: 10, eval_episodes: 2, ..Default::default() };
    let run = |folder: &std::path::Path, stop_at: u64| {
        let stop = AtomicBool::new(false);
        let mut env = World::from_simulator(Point::limited(4));
        let mut learner = agent(&env, Goal::of_model());
        let mut training = config.init(14, 3).unwrap();
        let (mut files, _) = RunFiles::open(folder, &mut training, &mut learner).unwrap();
        training.run(&mut env, &mut learner, Some(&mut files), &mut StopAt(stop_at, &stop), &stop).unwrap()
    };
    let whole = tempfile::tempdir().unwrap();
    assert_eq!(run(whole.path(), u64::MAX), Outcome::Finished);
    let expected = metrics(whole.path());
    let count = |event: &str| expected.iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("episode"), count("plan"), count("fit"), count("eval")), (4, 4, 0, 2));
    let plan = expected.iter().find(|line| line["event"] == "plan").unwrap();
    assert_eq!(plan["plan/iterations"], 3.0);
    for stop_at in [2, 6, 9, 13] {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run(folder.path(), stop_at), Outcome::Stopped);
        assert_eq!(run(folder.path(), u64::MAX), Outcome::Finished);
        assert_eq!(metrics(folder.path()), expected, "stopped at {stop_at}");
    }
}
