//! When plans are made, what is handed out, and what the planner is told.

mod lq;

use std::sync::{Arc, Mutex};

use burn::tensor::{Device, Tensor};
use lq::Lq;
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn};
use mbrl_model::{Propagation, dynamics_fn};
use mbrl_plan::{CemConfig, Mpc, Plan, PlanError, PlanStats, Planner, Problem, Replan};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    Plan,
    Advance(usize),
    Reset,
}

/// Writes down its calls; its n-th plan is 10 n, 10 n + 1, 10 n + 2. Fails where told to.
#[derive(Default)]
struct Scripted {
    calls: Arc<Mutex<Vec<Call>>>,
    plans: usize,
    fails: &'static [usize],
}

impl Planner for Scripted {
    fn plan(&mut self, _: &Situation<'_>, _: &Problem<'_>, _: &mut Rng) -> Result<Plan, PlanError> {
        self.calls.lock().unwrap().push(Call::Plan);
        self.plans += 1;
        if self.fails.contains(&self.plans) {
            return Err(PlanError::NoFiniteReturn { population: 1, iteration: 0 });
        }
        let first = 10.0 * self.plans as f32;
        Plan::new(vec![first, first + 1.0, first + 2.0], [3, 1], first, PlanStats::default())
    }
    fn advance(&mut self, executed: usize) {
        self.calls.lock().unwrap().push(Call::Advance(executed));
    }
    fn reset(&mut self) {
        self.calls.lock().unwrap().push(Call::Reset);
    }
}

/// Actions of `steps` steps; NaN where planning failed.
fn run(mpc: &mut Mpc, steps: usize) -> Vec<f32> {
    let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
    let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
    let problem = Problem::new(&model, &actions);
    (0..steps)
        .map(|_| match mpc.act(&Situation::of(&[0.0]), &problem, &mut Rng::new(0)) {
            Ok(step) => {
                // A summary comes with the first action of each plan, and with no other.
                assert_eq!(step.plan.map(|p| p.best_return), (step.action[0] % 10.0 == 0.0).then_some(step.action[0]));
                step.action[0]
            }
            Err(_) => f32::NAN,
        })
        .collect()
}

#[test]
fn each_rule_plans_when_it_says() {
    use Call::{Advance, Plan};
    let cases: [(Replan, &[f32], &[Call]); 4] = [
        (Replan::EveryStep, &[10.0, 20.0, 30.0], &[Plan, Advance(1), Plan, Advance(1), Plan]),
        (Replan::Every(2), &[10.0, 11.0, 20.0, 21.0, 30.0], &[Plan, Advance(2), Plan, Advance(2), Plan]),
        // Longer than the horizon: the plan is used up first.
        (Replan::Every(7), &[10.0, 11.0, 12.0, 20.0], &[Plan, Advance(3), Plan]),
        (Replan::OpenLoop, &[10.0, 11.0, 12.0, 20.0, 21.0], &[Plan, Advance(3), Plan]),
    ];
    for (replan, actions, calls) in cases {
        let planner = Scripted::default();
        let seen = Arc::clone(&planner.calls);
        let mut mpc = Mpc::new(Box::new(planner), replan).unwrap();
        assert_eq!(run(&mut mpc, actions.len()), actions, "{replan:?}");
        assert_eq!(*seen.lock().unwrap(), calls, "{replan:?}");
    }
}

#[test]
fn a_new_episode_begins_with_a_new_plan_that_is_not_advanced() {
    let planner = Scripted::default();
    let seen = Arc::clone(&planner.calls);
    let mut mpc = Mpc::new(Box::new(planner), Replan::OpenLoop).unwrap();
    run(&mut mpc, 2);
    mpc.reset();
    assert_eq!(run(&mut mpc, 1), [20.0]);
    assert_eq!(*seen.lock().unwrap(), [Call::Plan, Call::Reset, Call::Plan]);
}

#[test]
fn after_an_error_the_planner_is_not_advanced_twice() {
    let planner = Scripted { fails: &[2], ..Scripted::default() };
    let seen = Arc::clone(&planner.calls);
    let mut mpc = Mpc::new(Box::new(planner), Replan::EveryStep).unwrap();
    let actions = run(&mut mpc, 3);
    assert!(actions[1].is_nan());
    assert_eq!((actions[0], actions[2]), (10.0, 30.0));
    assert_eq!(*seen.lock().unwrap(), [Call::Plan, Call::Advance(1), Call::Plan, Call::Plan]);
}

#[test]
fn where_a_plan_fails_the_rest_of_the_last_one_is_left() {
    use Call::{Advance, Plan};
    let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
    let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
    let problem = Problem::new(&model, &actions);
    let failing = |replan, fails: &'static [usize]| {
        let planner = Scripted { fails, ..Scripted::default() };
        let seen = Arc::clone(&planner.calls);
        (Mpc::new(Box::new(planner), replan).unwrap(), seen)
    };
    let step = |mpc: &mut Mpc| match mpc.act(&Situation::of(&[0.0]), &problem, &mut Rng::new(0)) {
        Ok(step) => Some(step.action[0]),
        Err(_) => mpc.fall_back().map(|action| action[0]),
    };

    let (mut mpc, seen) = failing(Replan::EveryStep, &[2, 3, 4]);
    let taken: Vec<_> = (0..5).map(|_| step(&mut mpc)).collect();
    // The plan of three actions is used up when the fourth plan fails.
    assert_eq!(taken, [Some(10.0), Some(11.0), Some(12.0), None, Some(50.0)]);
    // The planner is told of every step, whatever was done in it.
    let told: usize = seen.lock().unwrap().iter().map(|call| if let Advance(n) = call { *n } else { 0 }).sum();
    assert_eq!(told, 4);

    let (mut mpc, seen) = failing(Replan::Every(2), &[2]);
    let taken: Vec<_> = (0..5).map(|_| step(&mut mpc)).collect();
    assert_eq!(taken, [Some(10.0), Some(11.0), Some(12.0), Some(30.0), Some(31.0)]);
    assert_eq!(*seen.lock().unwrap(), [Plan, Advance(2), Plan, Advance(1), Plan]);

    // Of another episode nothing is left.
    let (mut mpc, _) = failing(Replan::EveryStep, &[2]);
    assert_eq!(step(&mut mpc), Some(10.0));
    mpc.reset();
    assert_eq!(step(&mut mpc), None);
}

#[test]
fn steps_without_a_question_are_skipped_in_the_plan_and_told_to_the_planner() {
    use Call::{Advance, Plan};
    for (replan, actions, calls) in [
        (Replan::EveryStep, [10.0, 20.0], &[Plan, Advance(2), Plan][..]),
        // The plan's second action was taken meanwhile.
        (Replan::Every(3), [10.0, 12.0], &[Plan]),
        (Replan::Every(2), [10.0, 20.0], &[Plan, Advance(2), Plan]),
    ] {
        let planner = Scripted::default();
        let seen = Arc::clone(&planner.calls);
        let mut mpc = Mpc::new(Box::new(planner), replan).unwrap();
        let mut taken = run(&mut mpc, 1);
        mpc.skip(1);
        assert_eq!(mpc.ahead(), [12.0]);
        taken.extend(run(&mut mpc, 1));
        assert_eq!((taken.as_slice(), seen.lock().unwrap().as_slice()), (&actions[..], calls), "{replan:?}");
        // Beyond the plan's end nothing is left of it.
        mpc.skip(9);
        assert!(mpc.ahead().is_empty() && mpc.fall_back().is_none());
        run(&mut mpc, 1);
        // Of all steps before the newest one.
        let told: usize = seen.lock().unwrap().iter().map(|call| if let Advance(n) = call { *n } else { 0 }).sum();
        assert_eq!(told, 13, "{replan:?}");
    }
}

#[test]
fn replanning_every_zero_steps_is_refused() {
    let error = Mpc::new(Box::new(Scripted::default()), Replan::Every(0)).unwrap_err().to_string();
    assert_eq!(error, "replan = every 0 steps: expected at least 1 step");
}

#[test]
fn the_goal_may_change_in_the_middle_of_an_episode() {
    let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.2);
    let towards = |goal: f32| reward_fn(move |_, _, next: Tensor<2>| -(next - goal).abs().squeeze_dim::<1>(1));
    let (left, right) = (towards(-1.0), towards(1.0));
    let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
    let config = CemConfig { horizon: 6, population: 100, elites: 10, ..CemConfig::default() };
    let mut mpc = Mpc::new(Box::new(config.init(&actions, Propagation::MEAN).unwrap()), Replan::EveryStep).unwrap();
    let mut rng = Rng::new(0);
    let mut x = 0.0f32;
    for (reward, goal) in [(&left as &dyn mbrl_env::Reward, -1.0), (&right, 1.0)] {
        let problem = Problem::new(&model, &actions).with_reward(reward);
        for _ in 0..20 {
            x += 0.2 * mpc.act(&Situation::of(&[x]), &problem, &mut rng).unwrap().action[0];
        }
        assert!((x - goal).abs() < 0.05, "at {x}, the goal was {goal}");
    }
}

/// The cost of 12 steps in a world where a constant force of 1 acts that the model does not know of.
fn cost_against_wind(replan: Replan) -> f64 {
    let lq = Lq::double_integrator();
    let (model, reward, actions) = (lq.model(&Device::flex()), lq.reward(), lq.actions());
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let config = CemConfig { horizon: lq.horizon, iterations: 10, ..CemConfig::default() };
    let mut mpc = Mpc::new(Box::new(config.init(&actions, Propagation::MEAN).unwrap()), replan).unwrap();
    let mut rng = Rng::new(0);
    let (mut world, mut total) = (lq.clone(), 0.0);
    for _ in 0..lq.horizon {
        let force = f64::from(mpc.act(&Situation::of(&world.observation()), &problem, &mut rng).unwrap().action[0]);
        world.start = world.step(&world.start, &[force + 1.0]);
        total += world.start.iter().map(|v| v * v).sum::<f64>() + lq.r * force * force;
    }
    total
}

#[test]
fn replanning_corrects_a_wrong_model() {
    let [open, every_four, every] = [Replan::OpenLoop, Replan::Every(4), Replan::EveryStep].map(cost_against_wind);
    assert!(every < every_four && every_four < open, "costs: {every}, {every_four}, open loop {open}");
    assert!(every < 0.7 * open, "costs: {every}, open loop {open}");
}
