//! Planner and policy together: values that plans end in, policies that are distilled from plans, and what becomes of both when the goal
//! changes.

mod common;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use common::{Point, metrics};
use mbrl_env::{Env, Replay, Rng, Simulator, Situation, Transition, Value, World, reward_fn};
use mbrl_model::{Draw, Dynamics, EnsembleConfig, FitConfig, MemberRule, Propagation, SimulatorModel, dynamics_fn};
use mbrl_plan::{CemConfig, Mpc, PlanError, Propose, Replan};
use mbrl_policy::{
    ActMode, Acted, ActorConfig, Agent, AgentError, CheckpointReader, CheckpointWriter, Checkpoints, CriticsConfig,
    Device, DistilConfig, DistilRole, FitSchedule, GivenValue, Goal, Guided, GuidedConfig, Learned, LearnedValue,
    Learner, ModelBasedConfig, Moment, MpcAgent, Observer, OffPolicy, Outcome, PlanningAgent, Policy, PolicyDraw,
    PolicyProposals, Reduction, Report, ReportKind, RunFiles, SacConfig, Tensor, TrainConfig, Turn, ValueConfig,
    ValueSource, WarmUpBy, evaluate, start_seeds,
};

const STEPS: u32 = 10;

fn mpc(horizon: usize, propagation: Propagation) -> Mpc {
    let config = CemConfig { horizon, population: 30, elites: 4, iterations: 3, ..Default::default() };
    let planner = config.init(&Point::new().spec().actions, propagation).unwrap();
    Mpc::new(Box::new(planner), Replan::EveryStep).unwrap()
}

/// Plans in the point itself.
fn in_simulator(horizon: usize) -> MpcAgent<SimulatorModel> {
    let model = SimulatorModel::new(Box::new(Point::limited(STEPS)), &Device::flex());
    MpcAgent::new(model, Goal::of_model(), Point::new().spec().actions.clone(), mpc(horizon, Propagation::MEAN))
}

/// Learns a model of the point.
fn in_model(rng: &mut Rng) -> mbrl_policy::ModelBased {
    let spec = Point::new().spec().clone();
    let model = EnsembleConfig { members: 2, hidden: vec![16], ..Default::default() };
    let model = model.init(1, 1, &Device::flex(), rng).unwrap();
    let fit = FitConfig { learning_rate: 1e-2, max_epochs: 30, batch_size: 16, holdout: 0.0, ..Default::default() };
    let goal = Goal::new(Arc::new(reward_fn(|_, _, next: Tensor<2>| -next.powi_scalar(2).squeeze_dim::<1>(1))));
    let config = ModelBasedConfig { random_steps: 25, ..Default::default() };
    let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: 2 };
    config.init(&spec, model, fit, goal, mpc(5, propagation)).unwrap()
}

fn value(source: ValueSource) -> ValueConfig {
    ValueConfig {
        source,
        hidden: vec![16],
        optimizer_steps: 200,
        rounds: 4,
        learning_rate: 1e-2,
        batch_size: 16,
        discount: 0.9,
        count: 16,
        length: 5,
        ..ValueConfig::default()
    }
}

fn distil(role: DistilRole) -> DistilConfig {
    DistilConfig { role, warm_up: 30, ..DistilConfig::default() }
}

fn guide(value: ValueConfig, distil: DistilConfig) -> GuidedConfig {
    let policy = ActorConfig { hidden: vec![16, 16], learning_rate: 3e-3, normalize: true, ..ActorConfig::default() };
    let critics = CriticsConfig { hidden: vec![16, 16], scaled: true, ..CriticsConfig::default() };
    GuidedConfig { value, distil, policy, critics, sac: SacConfig::default() }
}

fn point() -> World {
    World::from_simulator(Point::limited(STEPS))
}

fn train(config: &GuidedConfig, agent: impl PlanningAgent + 'static, steps: u64) -> Guided {
    let mut training = TrainConfig::default().init(steps, 3).unwrap();
    let spec = Point::limited(STEPS).spec().clone();
    let mut guided = config.init(&spec, Box::new(agent), Vec::new(), &mut training.split_rng()).unwrap();
    training.run(&mut point(), &mut guided, None, &mut (), &AtomicBool::new(false)).unwrap();
    guided
}

struct Silent;

impl Report for Silent {
    fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
}

fn worth(value: &dyn Value, at: &[f32]) -> Vec<f32> {
    let obs = Tensor::<1>::from_floats(at, &Device::flex()).reshape([at.len(), 1]);
    value.value(obs).into_data().iter().collect()
}

#[test]
fn values_are_learned_anew_for_another_goal_and_never_stale() {
    let config = guide(value(ValueSource::Episodes), DistilConfig::default());
    let mut agent = train(&config, in_simulator(2), 100);
    let [left, middle, right] = worth(&*agent.value().unwrap(), &[-0.8, 0.0, 0.8])[..] else { unreachable!() };
    assert!(middle > left + 0.3 && middle > right + 0.3, "the point is paid for being at 0: {left} {middle} {right}");
    assert!(agent.goal().terminal_value.is_some());

    // Paid by where it is from now on: no word of the old value any more, in no plan either.
    agent.goal_mut().reward = Some(Arc::new(reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim::<1>(1))));
    assert!(agent.value().is_none());
    let mut rng = Rng::new(1);
    let point = Point::limited(STEPS);
    let mut running = point;
    let obs = running.reset(Some(0)).unwrap();
    let snapshot = running.save();
    let here = Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) };
    agent.begin_episode();
    agent.act(&here, ActMode::Evaluate, &mut rng).unwrap();
    assert!(agent.goal().terminal_value.is_none() && agent.value().is_none());
    // With the next update it is learned of the data that there are.
    let before = agent.replay().len();
    agent.update(&mut rng, &mut Silent).unwrap();
    let [left, middle, right] = worth(&*agent.value().unwrap(), &[-0.8, 0.0, 0.8])[..] else { unreachable!() };
    assert!(left < middle - 0.3 && middle < right - 0.3, "paid by where it is: {left} {middle} {right}");
    assert!(agent.goal().terminal_value.is_some() && agent.replay().len() == before);
}

#[test]
fn a_given_value_counts_at_once_and_for_its_goal_alone() {
    // Worth most on the left; the reward is highest in the middle, to the right of the start.
    let left: Arc<dyn Value> =
        Arc::new(mbrl_env::value_fn(|obs: Tensor<2>| obs.mul_scalar(-100.0).squeeze_dim::<1>(1)));
    let given = GivenValue::new(LearnedValue::new(left, 0.9), "a test");
    let mut rng = Rng::new(1);
    let spec = Point::limited(STEPS).spec().clone();
    let new = |rng: &mut Rng| GuidedConfig::default().init(&spec, Box::new(in_simulator(2)), Vec::new(), rng).unwrap();
    let mut running = Point::limited(STEPS);
    let obs = running.reset(Some(0)).unwrap();
    let snapshot = running.save();
    let here = Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) };
    let act = |agent: &mut Guided| {
        agent.begin_episode();
        agent.act(&here, ActMode::Evaluate, &mut Rng::new(2)).unwrap()[0]
    };
    let (mut without, mut with) = (new(&mut rng), new(&mut rng).with_value(given.clone()));
    let plain = act(&mut without);
    let guided = act(&mut with);
    assert!(obs[0] < -0.1 && plain > 0.2 && guided < -0.2, "from {obs:?}: {plain} without, {guided} with");
    assert_eq!(Learner::value(&with).unwrap().discount, 0.9);
    // Another goal: it counts no more, and nothing takes its place.
    with.goal_mut().reward =
        Some(Arc::new(reward_fn(|_, _, next: Tensor<2>| -next.powi_scalar(2).squeeze_dim::<1>(1))));
    for _ in 0..2 {
        assert_eq!(act(&mut with), plain);
        with.update(&mut rng, &mut Silent).unwrap();
        assert!(with.value().is_none() && with.goal().terminal_value.is_none());
    }
    // Nor after a checkpoint of then.
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::in_folder(folder.path().join("checkpoints"));
    let stored = checkpoints.write(1, None, None, |into| with.save(into)).unwrap();
    let reader = CheckpointReader::open(&stored).unwrap();
    let mut again = new(&mut rng).with_value(given);
    assert!(again.goal().terminal_value.is_some());
    again.load(&reader).unwrap();
    assert!(again.value().is_none() && again.goal().terminal_value.is_none() && again.goal().proposals.is_none());
    assert_eq!(act(&mut again), plain);
}

#[test]
fn an_agent_that_waits_for_the_value_of_a_run_does_not_act_without_it() {
    let value = ValueConfig { source: ValueSource::Run, run: "somewhere".into(), ..ValueConfig::default() };
    let config = guide(value, DistilConfig::default());
    let (spec, mut rng) = (Point::limited(STEPS).spec().clone(), Rng::new(1));
    let mut agent = config.init(&spec, Box::new(in_simulator(2)), Vec::new(), &mut rng).unwrap();
    let mut running = Point::limited(STEPS);
    let obs = running.reset(Some(0)).unwrap();
    let snapshot = running.save();
    let situation = Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) };
    agent.begin_episode();
    let told =
        "value.source = \"run\": expected a value that was handed over before the first action (Guided::with_value)";
    let alone = agent.act(&situation, ActMode::Evaluate, &mut rng).unwrap_err();
    assert_eq!(alone.to_string(), told);
    let turn = Turn { slot: 0, situation, rng: &mut Rng::new(2) };
    assert_eq!(agent.act_batch(vec![turn], ActMode::Evaluate).unwrap_err().to_string(), told);
    let worth: Arc<dyn Value> = Arc::new(mbrl_env::value_fn(|obs: Tensor<2>| obs.squeeze_dim::<1>(1)));
    let mut agent = agent.with_value(GivenValue::new(LearnedValue::new(worth, 0.9), "a test"));
    agent.act(&situation, ActMode::Evaluate, &mut rng).unwrap();
}

/// Counts the updates of critics.
struct Updates(usize);

impl Report for Updates {
    fn scalar(&mut self, _: ReportKind, name: &str, _: f64) {
        self.0 += usize::from(name == "critic/loss");
    }
}

#[test]
fn a_critic_begins_anew_for_another_goal() {
    let config = guide(value(ValueSource::Critic), DistilConfig::default());
    let mut agent = train(&config, in_simulator(2), 100);
    let mut rng = Rng::new(1);
    let mut updates = Updates(0);
    agent.update(&mut rng, &mut updates).unwrap();
    assert!(updates.0 == 0 && agent.value().is_some(), "nothing is left to learn of these steps");
    let inputs =
        |agent: &Guided| agent.critic().unwrap().parts().actor.inputs().statistics().map(|of| of.map(<[f32]>::to_vec));
    let before = inputs(&agent);
    agent.goal_mut().reward = Some(Arc::new(reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim::<1>(1))));
    assert!(agent.value().is_none());
    // As many updates as there were steps, of the same data: one alone would leave the old goal's values in place.
    agent.update(&mut rng, &mut updates).unwrap();
    assert!(updates.0 == 100 && agent.value().is_some(), "{} updates", updates.0);
    // What observations are like is no matter of the goal.
    assert!(inputs(&agent) == before && before.is_some());
}

/// A step of the point that stays where it is.
fn step(at: f32, truncated: bool) -> Transition {
    let (obs, next_obs) = (vec![at], vec![at]);
    Transition { obs, action: vec![0.0], reward: f64::from(-at * at), next_obs, terminated: false, truncated }
}

#[test]
fn in_lockstep_too_plans_of_an_episode_see_one_critic() {
    let config = guide(value(ValueSource::Critic), DistilConfig::default());
    let mut rng = Rng::new(1);
    let two = in_simulator(2).with_more(vec![mpc(2, Propagation::MEAN)]);
    let spec = Point::limited(STEPS).spec().clone();
    let mut agent = config.init(&spec, Box::new(two), Vec::new(), &mut rng).unwrap();
    // Steps of each environment, and whether its episode ends with them.
    let mut go = |agent: &mut Guided, steps: [usize; 2], last: [bool; 2]| {
        for t in 0..steps[0].max(steps[1]) {
            for slot in (0..2).filter(|slot| t < steps[*slot]) {
                agent.observe_in(slot, &step(0.1 * t as f32, last[slot] && t + 1 == steps[slot])).unwrap();
            }
            agent.update(&mut rng, &mut Silent).unwrap();
        }
        let planned = agent.goal().terminal_value.as_ref().map(|value| worth(&**value.value(), &[0.3, -0.2]));
        (planned, worth(&*agent.value().unwrap(), &[0.3, -0.2]))
    };
    // Twenty steps come into the data with their episodes' ends, and with them the first updates.
    let (planned, learned) = go(&mut agent, [10, 10], [true; 2]);
    assert_eq!(planned.as_ref(), Some(&learned));
    let (within, newer) = go(&mut agent, [5, 5], [false; 2]);
    assert!(within == planned && newer != learned, "{within:?} {planned:?} {newer:?}");
    // One episode ends; the other still goes by the critic that it began with.
    let (within, newest) = go(&mut agent, [2, 5], [true, false]);
    assert!(within == planned && newest != newer, "{within:?} {planned:?}");
    let (after, newest) = go(&mut agent, [0, 3], [false, true]);
    assert_eq!(after, Some(newest));
}

#[test]
fn a_value_that_is_due_before_there_are_data_is_learned_when_there_are() {
    let every = ValueConfig { every: FitSchedule::Steps(16), ..value(ValueSource::Episodes) };
    let config = guide(every, DistilConfig::default());
    let mut rng = Rng::new(1);
    let two = in_simulator(2).with_more(vec![mpc(2, Propagation::MEAN)]);
    let spec = Point::limited(STEPS).spec().clone();
    let mut agent = config.init(&spec, Box::new(two), Vec::new(), &mut rng).unwrap();
    for t in 0..10 {
        for slot in 0..2 {
            agent.observe_in(slot, &step(0.1 * t as f32, t == 9)).unwrap();
        }
        agent.update(&mut rng, &mut Silent).unwrap();
        // Step 16 comes in the eighth round, the data in the tenth.
        assert_eq!(agent.value().is_some(), t == 9, "{t}");
    }
}

#[test]
fn an_agent_without_a_guide_refuses_a_value_of_another_goal() {
    let mut agent = in_simulator(2);
    let zero = Arc::new(mbrl_env::value_fn(|obs: Tensor<2>| obs.squeeze_dim::<1>(1)));
    *agent.goal_mut() = Goal::of_model().with_terminal_value(zero);
    let mut running = Point::limited(STEPS);
    let obs = running.reset(Some(0)).unwrap();
    let snapshot = running.save();
    let here = Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) };
    agent.act(&here, ActMode::Evaluate, &mut Rng::new(0)).unwrap();
    agent.goal_mut().reward = Some(Arc::new(reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim::<1>(1))));
    let error = agent.act(&here, ActMode::Evaluate, &mut Rng::new(0)).unwrap_err().to_string();
    assert!(error.starts_with("terminal_value = one learned for another goal"), "{error}");
}

/// Stops a run at a step.
struct StopAt(u64, Arc<AtomicBool>);

impl Observer for StopAt {
    fn on_step(&mut self, at: Moment, _: &Transition, _: &mbrl_env::Info) -> Result<(), AgentError> {
        self.1.store(at.env_step >= self.0, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn resumed_runs_are_the_same_bit_for_bit() {
    let critic = ValueConfig { warm_up: 45, warm_up_by: WarmUpBy::Policy, ..value(ValueSource::Critic) };
    let warm = ValueConfig { warm_up: 45, warm_up_horizon: 4, ..value(ValueSource::Episodes) };
    let shared = DistilConfig { expert_share: 0.5, every: FitSchedule::Steps(7), ..distil(DistilRole::Act) };
    let cases = [
        (guide(warm, shared), true),
        (guide(critic, DistilConfig::default()), true),
        (guide(value(ValueSource::Imagined), distil(DistilRole::Propose)), false),
    ];
    for (config, simulated) in cases {
        let run = |folder: &Path, stop_at: Option<u64>| {
            let train = TrainConfig { eval_every: 40, eval_episodes: 2, ..Default::default() };
            let mut training = train.init(92, 7).unwrap();
            let agent: Box<dyn PlanningAgent> = match simulated {
                true => Box::new(in_simulator(4)),
                false => Box::new(in_model(&mut training.split_rng())),
            };
            let later = if config.value.warm_up > 0 { vec![mpc(2, Propagation::MEAN)] } else { Vec::new() };
            let spec = Point::limited(STEPS).spec().clone();
            let mut agent = config.init(&spec, agent, later, &mut training.split_rng()).unwrap();
            let (mut files, _) = RunFiles::open(folder, &mut training, &mut agent).unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let mut diary = StopAt(stop_at.unwrap_or(u64::MAX), stop.clone());
            training.run(&mut point(), &mut agent, Some(&mut files), &mut diary, &stop).unwrap()
        };
        let whole = tempfile::tempdir().unwrap();
        run(whole.path(), None);
        let fits =
            metrics(whole.path()).iter().filter(|line| line["event"] == "fit" || line["event"] == "policy").count();
        assert!(fits > 3, "something is learned");
        for stop_at in [35, 58, 77] {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(run(folder.path(), Some(stop_at)), Outcome::Stopped);
            run(folder.path(), None);
            let source = config.value.source;
            assert_eq!(metrics(folder.path()), metrics(whole.path()), "{source:?}, stopped at {stop_at}");
        }
    }
}

#[test]
fn values_of_imagined_episodes_are_those_of_the_policy() {
    // Starts are those of the data, in which the point is near 0 most of the time.
    let value = ValueConfig { count: 256, optimizer_steps: 400, ..value(ValueSource::Imagined) };
    let config = guide(value, distil(DistilRole::Propose));
    let mut rng = Rng::new(5);
    let agent = train(&config, in_model(&mut rng), 150);
    let said = worth(&*agent.value().unwrap(), &[-0.6, -0.3, 0.0, 0.3]);
    // The policy goes to 0 at 0.1 per step and stays there; γ = 0.9.
    let exact = |start: f64| -> f64 {
        (1..60).map(|t| -0.9f64.powi(t - 1) * (start.abs() - 0.1 * f64::from(t)).max(0.0).powi(2)).sum()
    };
    for (said, start) in said.iter().zip([-0.6, -0.3, 0.0, 0.3]) {
        let off = (f64::from(*said) - exact(start)).abs();
        assert!(off < 0.35 * exact(0.8).abs(), "at {start}: {said} for {}", exact(start));
    }
    assert!(said[0] < said[1] && said[1] < said[2] + 0.05, "{said:?}");
}

/// A planning agent that counts how often it is asked.
struct Counted<A>(A, Arc<AtomicUsize>);

impl<A: PlanningAgent> Agent for Counted<A> {
    fn begin_episode(&mut self) {
        self.0.begin_episode();
    }
    fn act(&mut self, here: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.act(here, mode, rng)
    }
    fn act_batch(&mut self, turns: Vec<Turn<'_>>, mode: ActMode) -> Result<Vec<Acted>, AgentError> {
        self.1.fetch_add(turns.len(), Ordering::Relaxed);
        self.0.act_batch(turns, mode)
    }
    fn take_plan_failure(&mut self) -> Option<PlanError> {
        self.0.take_plan_failure()
    }
    fn needs_snapshot(&self) -> bool {
        self.0.needs_snapshot()
    }
    fn slots(&self) -> usize {
        self.0.slots()
    }
    fn begin_episode_in(&mut self, slot: usize) {
        self.0.begin_episode_in(slot);
    }
}

impl<A: PlanningAgent> Learner for Counted<A> {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.0.observe(transition)
    }
    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        self.0.truncate_episode()
    }
    fn observe_in(&mut self, slot: usize, transition: &Transition) -> Result<(), AgentError> {
        self.0.observe_in(slot, transition)
    }
    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        self.0.update(rng, report)
    }
    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        self.0.save(into)
    }
    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        self.0.load(from)
    }
    fn learned(&self) -> Option<Learned<'_>> {
        self.0.learned()
    }
}

impl<A: PlanningAgent> PlanningAgent for Counted<A> {
    fn goal(&self) -> &Goal {
        self.0.goal()
    }
    fn goal_mut(&mut self) -> &mut Goal {
        self.0.goal_mut()
    }
    fn planned_in(&self) -> &dyn Dynamics {
        self.0.planned_in()
    }
    fn is_planning(&self) -> bool {
        self.0.is_planning()
    }
    fn replace_controllers(&mut self, mpcs: Vec<Mpc>) {
        self.0.replace_controllers(mpcs);
    }
}

#[test]
fn a_distilled_policy_keeps_its_planners_return_and_asks_it_no_more() {
    let asked = Arc::new(AtomicUsize::new(0));
    let config = guide(ValueConfig::default(), distil(DistilRole::Act));
    let mut agent = train(&config, Counted(in_simulator(5), asked.clone()), 300);
    assert_eq!(asked.load(Ordering::Relaxed), 300, "each step is labelled, whoever acts");
    let seeds = start_seeds(0, 20);
    let distilled = evaluate(&mut point(), &mut agent, &seeds).unwrap().return_mean();
    assert_eq!(asked.load(Ordering::Relaxed), 300, "evaluations are the policy's");
    let planned = evaluate(&mut point(), &mut in_simulator(5), &seeds).unwrap().return_mean();
    assert!(distilled > 1.1 * planned, "{distilled} of {planned}");

    // Labels are the planner's, at states where the policy led to: in the last episodes they say where 0 lies.
    let policy = agent.policy().unwrap();
    let acted = policy.act(&[-0.5, 0.5], ActMode::Evaluate, PolicyDraw::new(0));
    assert!(acted[0] > 0.7 && acted[1] < -0.7, "{acted:?}");

    // Another goal: the planner acts again, until there is a policy of that goal.
    agent.goal_mut().reward = Some(Arc::new(reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim::<1>(1))));
    assert!(agent.policy().is_none());
    evaluate(&mut point(), &mut agent, &seeds[..1]).unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 310);
}

#[test]
fn plans_for_a_goal_that_was_replaced_are_in_no_later_checkpoint() {
    let config = guide(ValueConfig::default(), distil(DistilRole::Propose));
    let mut agent = train(&config, in_simulator(3), 60);
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::in_folder(folder.path());
    let stored = |agent: &Guided, step: u64, after: Option<u64>| {
        let written = checkpoints.write(step, None, after, |writer| agent.save(writer)).unwrap();
        CheckpointReader::open(&written).unwrap().get_replay("labels").unwrap()
    };
    let first = stored(&agent, 1, None);
    agent.goal_mut().reward = Some(Arc::new(reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim::<1>(1))));
    // More plans than before: their places on the disk are not those of the first ones.
    let mut training = TrainConfig::default().init(80, 9).unwrap();
    training.run(&mut point(), &mut agent, None, &mut (), &AtomicBool::new(false)).unwrap();
    let second = stored(&agent, 2, Some(1));
    assert_eq!((first.len(), second.len()), (60, 80));
    assert_ne!(first.columns().obs[..60], second.columns().obs[..60]);
}

#[test]
fn an_episode_that_breaks_down_is_truncated_in_the_data() {
    let spec = Point::limited(STEPS).spec().clone();
    let step = |obs: f32| Transition {
        obs: vec![obs],
        action: vec![0.5],
        reward: 0.0,
        next_obs: vec![obs + 0.05],
        terminated: false,
        truncated: false,
    };
    for slots in [1, 2] {
        let more = (1..slots).map(|_| mpc(4, Propagation::MEAN)).collect();
        let agent = Box::new(in_simulator(4).with_more(more));
        let config = guide(value(ValueSource::Episodes), DistilConfig::default());
        let mut guided = config.init(&spec, agent, Vec::new(), &mut Rng::new(1)).unwrap();
        for obs in [0.0, 0.05] {
            guided.observe_in(slots - 1, &step(obs)).unwrap();
        }
        guided.truncate_episode_in(slots - 1).unwrap();
        let cut: Vec<bool> = guided.replay().columns().truncated.to_vec();
        assert_eq!(cut, [false, true], "{slots} environments");
    }
}

#[test]
fn several_environments_feed_one_value_and_one_policy() {
    let agent = || in_simulator(4).with_more(vec![mpc(4, Propagation::MEAN)]);
    let mut training = TrainConfig { environments: 2, ..TrainConfig::default() }.init(120, 3).unwrap();
    let config = guide(value(ValueSource::Episodes), distil(DistilRole::Act));
    let spec = Point::limited(STEPS).spec().clone();
    let mut guided = config.init(&spec, Box::new(agent()), Vec::new(), &mut training.split_rng()).unwrap();
    let mut worlds = vec![point(), point()];
    training.run_together(&mut worlds, &mut guided, None, &mut (), &AtomicBool::new(false)).unwrap();
    let replay = guided.replay();
    assert_eq!(replay.len(), 120);
    for episode in replay.episodes() {
        assert_eq!(episode.len(), STEPS as usize);
        // Whole episodes: each step begins where the one before ended.
        for t in episode.start + 1..episode.end {
            assert_eq!(replay.get(t).unwrap().obs, replay.get(t - 1).unwrap().next_obs);
        }
    }
    let found = evaluate(&mut point(), &mut guided, &start_seeds(0, 10)).unwrap().return_mean();
    let planned = evaluate(&mut point(), &mut in_simulator(4), &start_seeds(0, 10)).unwrap().return_mean();
    assert!(found > 1.3 * planned, "{found} of {planned}");
}

/// Goes back to 0 by its place.
struct Back;

impl Policy for Back {
    fn obs_width(&self) -> usize {
        1
    }
    fn action_width(&self) -> usize {
        1
    }
    fn act(&self, obs: &[f32], mode: ActMode, draw: PolicyDraw) -> Vec<f32> {
        let off = if mode == ActMode::Explore { 0.001 * (1 + draw.step) as f32 } else { 0.0 };
        obs.iter().map(|x| (-x + off).clamp(-1.0, 1.0)).collect()
    }
}

#[test]
fn a_policy_proposes_what_it_would_do_in_the_planners_model() {
    let mut running = Point::limited(STEPS);
    running.reset(Some(1)).unwrap();
    let obs = running.step(&[0.0]).unwrap().obs;
    let snapshot = running.save();
    let here = Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) };
    let simulator = SimulatorModel::new(Box::new(Point::limited(STEPS)), &Device::flex());
    let written = dynamics_fn(1, 1, &Device::flex(), |s, a: Tensor<2>| s + a * 0.1);
    let models: [&dyn Dynamics; 3] = [&simulator, &written, &Box::new(&simulator as &dyn Dynamics)];
    // The episode ends after 10 steps, one of which is done: the simulator's rows then stand still.
    let horizon = 9;
    let mut expected = [Vec::new(), Vec::new()];
    for (row, expected) in expected.iter_mut().enumerate() {
        let mut x = obs[0];
        for t in 0..horizon {
            let action = -x + if row == 1 { 0.001 * (1 + t) as f32 } else { 0.0 };
            expected.push(action);
            x += 0.1 * action;
        }
    }
    for model in models {
        let made = PolicyProposals::new(Arc::new(Back), 2).propose(&here, model, horizon, 0).unwrap();
        assert_eq!(made.dims(), [2, horizon, 1]);
        let made: Vec<f32> = made.into_data().iter().collect();
        for (made, expected) in made.iter().zip(expected.concat()) {
            assert!((made - expected).abs() < 1e-5, "{made} for {expected}");
        }
    }
    let bare = simulator.rollout_policy(
        &Situation::of(&obs),
        [1, 2],
        &mut |obs, _| obs.to_vec(),
        Draw::new(Propagation::MEAN, 0),
    );
    assert!(bare.unwrap_err().to_string().contains("snapshot"));
}

#[test]
fn values_of_critics_have_the_gradient_of_what_they_say() {
    let spec = mbrl_env::tasks::make("cartpole-swingup").unwrap().env.spec().clone();
    for normalize in [false, true] {
        let mut rng = Rng::new(2);
        let policy = ActorConfig { hidden: vec![16], normalize, ..ActorConfig::default() };
        let critics = CriticsConfig { hidden: vec![16], layer_norm: true, scaled: true, ..CriticsConfig::default() };
        let mut sac = SacConfig::default().init(&spec, &policy, &critics, &mut rng).unwrap();
        let mut replay = Replay::new(4, 1, 100).unwrap();
        for _ in 0..50 {
            let row = |rng: &mut Rng| (0..4).map(|_| rng.normal()).collect::<Vec<f32>>();
            let (obs, next_obs, reward) = (row(&mut rng), row(&mut rng), f64::from(rng.normal()));
            sac.observe(&obs);
            let step = Transition { obs, action: vec![0.2], reward, next_obs, terminated: false, truncated: false };
            replay.push(&step).unwrap();
        }
        for _ in 0..20 {
            sac.improve(&replay.sample_batch(16, &mut rng).unwrap(), None, &mut rng, &mut Silent).unwrap();
        }
        let value = sac.value();
        // Far out, where actions come near their bounds.
        let obs = [3.0f32, 2.0, -14.0, 17.0, -8.0, -1.0, 15.0, 11.0];
        let rows = |obs: &[f32], device: &Device| Tensor::<1>::from_floats(obs, device).reshape([2, 4]);
        let said = |obs: &[f32]| -> Vec<f32> { value.value(rows(obs, &Device::flex())).into_data().iter().collect() };
        let tracked = rows(&obs, &Device::flex().autodiff()).require_grad();
        let values = value.value(tracked.clone());
        let numbers: Vec<f32> = values.clone().into_data().iter().collect();
        for (tracked, plain) in numbers.iter().zip(said(&obs)) {
            assert!((tracked - plain).abs() < 1e-3 * plain.abs().max(1.0), "{tracked} and {plain}");
        }
        let gradients: Vec<f32> = tracked.grad(&values.sum().backward()).unwrap().into_data().iter().collect();
        for i in 0..obs.len() {
            let moved = |by: f32| {
                let mut obs = obs;
                obs[i] += by;
                said(&obs).iter().map(|v| f64::from(*v)).sum::<f64>()
            };
            let difference = (moved(5e-3) - moved(-5e-3)) / 1e-2;
            let got = f64::from(gradients[i]);
            assert!((got - difference).abs() < 3e-2 * difference.abs().max(1.0), "{i}: {got} and {difference}");
        }
    }
}

#[test]
fn each_rule_is_checked_before_anything_is_learned() {
    let refused = |config: GuidedConfig| {
        let spec = Point::limited(STEPS).spec().clone();
        config.init(&spec, Box::new(in_simulator(2)), Vec::new(), &mut Rng::new(0)).unwrap_err().to_string()
    };
    let plain = || guide(value(ValueSource::Episodes), DistilConfig::default());
    for (start, config) in [
        (
            "value.lambda = 1.5",
            guide(ValueConfig { lambda: 1.5, ..value(ValueSource::Episodes) }, DistilConfig::default()),
        ),
        (
            "value.discount = 0",
            guide(ValueConfig { discount: 0.0, ..value(ValueSource::Episodes) }, DistilConfig::default()),
        ),
        (
            "value.reduction = \"pair\"",
            guide(ValueConfig { reduction: Reduction::Pair, ..value(ValueSource::Episodes) }, DistilConfig::default()),
        ),
        ("value.rounds = 0", guide(ValueConfig { rounds: 0, ..value(ValueSource::Episodes) }, DistilConfig::default())),
        (
            "value.every = 0",
            guide(
                ValueConfig { every: FitSchedule::Steps(0), ..value(ValueSource::Episodes) },
                DistilConfig::default(),
            ),
        ),
        (
            "distil.role = \"off\": expected \"propose\" or \"act\"",
            guide(value(ValueSource::Imagined), DistilConfig::default()),
        ),
        ("past = more", guide(value(ValueSource::Imagined), distil(DistilRole::Act))),
        (
            "value.warm_up_by = \"policy\"",
            guide(ValueConfig { warm_up_by: WarmUpBy::Policy, ..plain().value }, DistilConfig::default()),
        ),
        ("distil.role = \"propose\"", guide(value(ValueSource::Critic), distil(DistilRole::Propose))),
        (
            "distil.expert_share = 2",
            guide(plain().value, DistilConfig { expert_share: 2.0, ..distil(DistilRole::Act) }),
        ),
        ("distil.noise = NaN", guide(plain().value, DistilConfig { noise: f32::NAN, ..distil(DistilRole::Act) })),
        ("policy.averaging = 0.01", {
            let mut averaging = guide(plain().value, distil(DistilRole::Act));
            averaging.policy.averaging = 0.01;
            averaging
        }),
        (
            "value.count = 4294967296, value.length = 5",
            guide(ValueConfig { count: 1 << 32, ..value(ValueSource::Imagined) }, distil(DistilRole::Act)),
        ),
        ("value.proposals = 70000", guide(ValueConfig { proposals: 70_000, ..plain().value }, DistilConfig::default())),
        (
            "distil.proposals = 70000",
            guide(plain().value, DistilConfig { proposals: 70_000, ..distil(DistilRole::Act) }),
        ),
        ("distil.patience = 0", guide(plain().value, DistilConfig { patience: 0, ..distil(DistilRole::Act) })),
    ] {
        let error = refused(config);
        assert!(error.starts_with(start), "{error}");
    }
}
