//! Every setting of an experiment changes something: one of its runs.

use std::{collections::BTreeSet, fs, path::Path, sync::atomic::AtomicBool};

use mbrl_env::{
    ActionSpace, Augment, BoxSpace, Env, EnvError, EnvSpec, Features, Knowledge, Known, KnownAt, KnownGrads, Lanes,
    Rng, Step, Tensor, TimeLimit, World, check_action, reward_fn,
    tasks::{self, Task, TaskEntry},
};
use mbrl_policy::{
    Device, RunFiles, WALL_TIME_KEYS, WhichCheckpoint,
    experiment::{Experiment, Registry},
};
use serde_json::{Map, Value};

/// Short episodes that terminate, every part in use.
const SMALL: &str = r#"
    name = "small"
    task = "cartpole"
    steps = 90

    [agent]
    random_steps = 30

    [model]
    members = 3
    hidden = [12, 12]

    [fit]
    batch_size = 16
    max_epochs = 6
    patience = 2

    [planner]
    kind = "cem"
    horizon = 6
    population = 24
    elites = 4
    iterations = 2

    [propagation]
    rule = "ts-inf"
    noise = true
    particles = 3

    [train]
    eval_every = 60
    eval_episodes = 2
"#;

/// The same for learners without a model.
const SAC: &str = r#"
    name = "sac"
    task = "cartpole"
    steps = 90

    [agent]
    kind = "sac"
    random_steps = 30
    batch_size = 16

    [policy]
    hidden = [12, 12]

    [critics]
    hidden = [12, 12]
    dropout = 0.1

    [train]
    eval_every = 60
    eval_episodes = 2
"#;

/// The same for a learner that forgets what it has learned from.
const NPG: &str = r#"
    name = "npg"
    task = "cartpole"
    steps = 150

    [agent]
    kind = "npg"
    batch_steps = 30

    [policy]
    hidden = [12, 12]

    [baseline]
    hidden = [12, 12]
    batch_size = 16

    [train]
    eval_every = 60
    eval_episodes = 2
"#;

/// The same for a policy in a learned model.
const MBPO: &str = r#"
    name = "mbpo"
    task = "cartpole"
    steps = 90

    [agent]
    kind = "mbpo"
    random_steps = 30
    fit_every = 20
    batch_size = 16
    real_share = 0.2
    training_rollout = 2

    [model]
    members = 3
    hidden = [12, 12]
    reward = true
    termination = true

    [fit]
    batch_size = 16
    max_epochs = 6
    patience = 2

    [rollout]
    length = 3
    every = 5
    count = 8
    keep = 3
    stop_at = 50.0

    [policy]
    hidden = [12, 12]

    [critics]
    hidden = [12, 12]
    dropout = 0.1

    [train]
    eval_every = 60
    eval_episodes = 2
"#;

/// The same for a model of images; fits in the middle of an episode.
const LATENT: &str = r#"
    name = "latent"
    task = "pendulum-pixels"
    steps = 50

    [task_options]
    width = 16
    height = 16

    # Episodes of ten steps: they are held out as wholes.
    [wrappers]
    action_repeat = 20

    [agent]
    kind = "latent"
    random_steps = 30
    fit_every = 15

    [model]
    channels = [4, 4]
    encoder = [12]
    latent = 8
    hidden = [12, 12]
    decoder = [12]
    window = 3

    [fit]
    batch_size = 16
    max_epochs = 6
    patience = 2
    holdout = 0.7

    [planner]
    kind = "cem"
    horizon = 4
    population = 12
    elites = 3
    iterations = 2

    [train]
    eval_every = 0
"#;

/// What is not tried of the planner and of how plans are executed is the same as with other agents.
const LATENT_CHANGES: &[(&str, &[&str])] = &[
    ("task_options.width=32", &[]),
    ("task_options.height=32", &[]),
    ("agent.random_steps=35", &[]),
    ("agent.random_sigma=0.3", &[]),
    ("agent.random_beta=0.5", &["agent.random_sigma=0.3"]),
    ("agent.fit_every=18", &[]),
    ("agent.reinitialize=true", &[]),
    ("agent.replay_capacity=20", &[]),
    ("goal.discount=0.5", &[]),
    ("model.frames=1", &[]),
    ("model.patch=2", &[]),
    ("model.channels=[4, 5]", &[]),
    ("model.encoder=[10]", &[]),
    ("model.latent=16", &[]),
    ("model.norm=simplex", &[]),
    ("model.hidden=[10, 12]", &[]),
    ("model.decoder=[10]", &[]),
    ("model.activation=relu", &[]),
    ("model.window=4", &[]),
    ("model.consistency=3", &[]),
    ("model.reward=3", &[]),
    ("model.reconstruction=3", &[]),
    ("model.fading=0.5", &[]),
];

fn registry() -> Registry {
    let orbit = TaskEntry::new("orbit", "of which everything is known that can be", |_| {
        let env = World::from_env(TimeLimit::new(Orbit::new(), 25)?);
        let reward = reward_fn(|_, _, next: Tensor<2>| -next.narrow(1, 0, 1).square().squeeze_dim::<1>(1));
        let knowledge = Knowledge::none().with_features(Product).with_augment(Mirror).with_known(Clock);
        Ok(Task::new(env).with_reward(std::sync::Arc::new(reward)).with_knowledge(knowledge))
    });
    let td3 = SAC.replace("\"sac\"", "\"td3\"");
    let all = [("small", SMALL), ("sac", SAC), ("td3", &td3[..]), ("mbpo", MBPO), ("npg", NPG), ("latent", LATENT)];
    Registry::new().tasks(tasks::entries()).tasks([orbit]).experiments(&all)
}

/// A position that a push moves, and a clock.
struct Orbit {
    spec: EnvSpec,
    state: [f32; 2],
}

impl Orbit {
    fn new() -> Self {
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
        Self { spec: EnvSpec::new("orbit", BoxSpace::unbounded(2), actions, 0.1), state: [0.0; 2] }
    }
}

impl Env for Orbit {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        let mut rng = Rng::new(seed.unwrap_or(0));
        self.state = [rng.uniform(-1.0, 1.0), rng.uniform(-1.0, 1.0)];
        Ok(self.state.to_vec())
    }
    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        check_action(&self.spec, action)?;
        let [x, clock] = self.state;
        self.state = [x + 0.1 * action[0], clock + 0.05];
        Ok(Step::new(self.state, -f64::from(self.state[0]).powi(2)))
    }
}

struct Product;

impl Features for Product {
    fn name(&self) -> &str {
        "product-1"
    }
    fn width(&self) -> usize {
        1
    }
    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>) -> Tensor<2> {
        obs.narrow(1, 0, 1) * actions
    }
    fn tile(&self, obs: &[Lanes], actions: &[Lanes], out: &mut [Lanes]) {
        out[0] = std::array::from_fn(|r| obs[0][r] * actions[0][r]);
    }
    fn pullback(&self, _: &[Lanes], _: &[Lanes], _: &[Lanes], _: &mut [Lanes], _: &mut [Lanes]) {
        unreachable!("no policy is learned")
    }
}

struct Mirror;

impl Augment for Mirror {
    fn name(&self) -> &str {
        "mirror-1"
    }
    fn copies(&self) -> usize {
        2
    }
    fn observation(&self, copy: usize, obs: &mut [f32]) {
        obs[0] *= if copy == 1 { -1.0 } else { 1.0 };
    }
    fn action(&self, copy: usize, action: &mut [f32]) {
        action[0] *= if copy == 1 { -1.0 } else { 1.0 };
    }
}

struct Clock;

impl Known for Clock {
    fn name(&self) -> &str {
        "clock-1"
    }
    fn columns(&self) -> &[usize] {
        &[1]
    }
    fn tensor(&self, obs: Tensor<2>, _: Tensor<2>, _: Tensor<2>) -> Tensor<2> {
        obs.narrow(1, 1, 1) + 0.05
    }
    fn tile(&self, obs: &[Lanes], _: &[Lanes], _: &[Lanes], out: &mut [Lanes]) {
        out[0] = obs[1].map(|clock| clock + 0.05);
    }
    fn pullback(&self, _: KnownAt<'_>, _: &[Lanes], _: KnownGrads<'_>) {
        unreachable!("no policy is learned")
    }
}

/// What a run leaves: its metrics without wall times, which checkpoints there are, and the error that it ends with, if any.
type Left = (Vec<Map<String, Value>>, BTreeSet<String>, String);

fn left_behind(experiment: &Experiment) -> Left {
    let folder = tempfile::tempdir().unwrap();
    left_in(folder.path(), experiment)
}

/// As [`left_behind`], in a folder that stays.
fn left_in(folder: &Path, experiment: &Experiment) -> Left {
    let mut parts = experiment.build_on(&registry(), &Device::flex()).unwrap();
    let (mut files, _) = RunFiles::open(folder, &mut parts.training, &mut *parts.agent).unwrap();
    let stop = AtomicBool::new(false);
    let mut worlds = vec![parts.task.env];
    worlds.extend(parts.more);
    let ended = parts.training.run_together(&mut worlds, &mut *parts.agent, Some(&mut files), &mut (), &stop);
    let error = ended.err().map(|error| error.to_string()).unwrap_or_default();
    (metrics(folder), names(&folder.join("checkpoints")), error)
}

fn metrics(folder: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Map<String, Value>>(line).unwrap());
    lines.map(|line| line.into_iter().filter(|(key, _)| !WALL_TIME_KEYS.contains(&key.as_str())).collect()).collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Two environments of three are the task's own.
const PRACTICE: &[&str] =
    &["task=cliff", "train.environments=3", "practice.environments=1", "practice.task_options={slope=0.5}"];

/// Each key with another value, and what has to be set in both runs for it to matter.
const CHANGES: &[(&str, &[&str])] = &[
    ("task=cartpole-swingup", &["steps=250"]),
    ("steps=120", &[]),
    ("seed=1", &[]),
    ("precision=bf16", &["steps=300"]),
    ("wrappers.action_limits=[-0.5, 0.5]", &[]),
    ("wrappers.action_repeat=2", &[]),
    ("wrappers.observation_noise=0.01", &[]),
    ("wrappers.action_noise=0.1", &[]),
    ("wrappers.observation_delay=1", &[]),
    ("wrappers.action_delay=1", &[]),
    ("practice.environments=2", PRACTICE),
    ("practice.task_options={slope=0.7}", PRACTICE),
    ("knowledge.features=false", &["task=orbit"]),
    ("knowledge.symmetries=false", &["task=orbit"]),
    ("knowledge.known=false", &["task=orbit"]),
    ("train.environments=2", &[]),
    ("train.eval_every=30", &[]),
    ("train.eval_episodes=3", &[]),
    ("train.eval_seed=1", &[]),
    ("train.checkpoint_episodes=3", &["train.eval_every=0"]),
    // So much noise is beyond `f32` now and then.
    ("train.max_breakdowns=1", &["wrappers.observation_noise=1.2e38", "agent.random_steps=1000", "steps=250"]),
    ("agent.kind=ground-truth", &[]),
    ("agent.random_steps=60", &[]),
    ("agent.random_sigma=0.3", &[]),
    ("agent.random_beta=0.5", &["agent.random_sigma=0.3"]),
    ("agent.fit_every=20", &[]),
    ("agent.reinitialize=true", &[]),
    ("agent.replay_capacity=30", &[]),
    ("goal.discount=0.5", &["goal.cost=[1, 0, 1, 0]"]),
    ("goal.after_termination=-5", &["planner.horizon=20", "goal.cost=[9, 0, 9, 0]"]),
    ("goal.reward=model", &["model.reward=true"]),
    ("goal.reward=-next.angle^2 - next.position^2", &[]),
    ("goal.termination=next.angle > 0.01", &["planner.horizon=20", "goal.after_termination=-5"]),
    ("goal.termination=none", &["planner.horizon=20", "goal.after_termination=-5"]),
    ("goal.aggregate=worst", &["goal.cost=[1, 0, 1, 0]"]),
    ("goal.cost=[1, 0, 1, 0]", &[]),
    ("goal.shaping=-next[0]^2", &["goal.cost=[0, 0, 1, 0]"]),
    ("goal.disagreement={ weight = 1, scale = [1, 1, 1, 1] }", &[]),
    ("goal.action_rate={ weight = 0.5 }", &[]),
    ("goal.action_rate={ limit = 0.2 }", &[]),
    (
        "goal.disagreement={ weight = 2, scale = [1, 1, 1, 1] }",
        &["goal.disagreement={ weight = 1, scale = [1, 1, 1, 1] }", "goal.cost=[1, 0, 0, 0]"],
    ),
    (
        "goal.disagreement={ weight = 1, scale = [1, 1, 9, 1] }",
        &["goal.disagreement={ weight = 1, scale = [1, 1, 1, 1] }"],
    ),
    ("model.members=2", &["propagation.particles=6"]),
    ("model.elites=1", &[]),
    ("model.hidden=[10, 12]", &[]),
    ("model.activation=relu", &[]),
    ("model.head=deterministic", &[]),
    ("model.variance=column", &[]),
    ("model.weight_decay=[0.1, 0.1, 0.1]", &[]),
    ("model.angles=[2]", &[]),
    ("model.no_delta=[0]", &[]),
    ("model.emphasis={columns=[0], weight=4.0}", &[]),
    ("model.normalize_targets=true", &[]),
    ("model.max_log_var=0.1", &[]),
    ("model.min_log_var=-2", &[]),
    ("model.learn_bounds=false", &[]),
    ("model.bounds_weight=1", &[]),
    ("model.nll_beta=0.5", &[]),
    ("model.reward=true", &[]),
    ("model.termination=true", &[]),
    ("model.past=1", &[]),
    ("model.hallucinated_steps=3", &[]),
    ("fit.learning_rate=0.01", &[]),
    ("fit.batch_size=8", &[]),
    ("fit.max_epochs=3", &[]),
    ("fit.max_steps=4", &[]),
    ("fit.holdout=0.4", &[]),
    ("fit.max_holdout=3", &[]),
    ("fit.patience=1", &["fit.max_epochs=40", "fit.improvement=0.2"]),
    ("fit.improvement=0.5", &["fit.max_epochs=40"]),
    ("fit.bootstrap=false", &[]),
    ("fit.grad_clip=0.01", &[]),
    ("fit.final_rate=0.1", &[]),
    ("planner.kind=icem", &[]),
    ("planner.horizon=5", &[]),
    ("planner.population=20", &[]),
    ("planner.elites=5", &[]),
    ("planner.iterations=3", &[]),
    ("planner.alpha=0.5", &["goal.cost=[1, 0, 1, 0]"]),
    ("planner.initial_std=0.3", &[]),
    ("planner.variance_stop=0.2", &[]),
    ("planner.truncation=1", &["goal.cost=[1, 0, 1, 0]"]),
    ("planner.constrain_variance=false", &["planner.initial_std=1", "goal.cost=[1, 0, 1, 0]"]),
    ("planner.execute=best", &["goal.cost=[1, 0, 1, 0]"]),
    ("planner.tail=last", &["goal.cost=[1, 0, 1, 0]"]),
    ("refinement.iterations=2", &["goal.cost=[1, 0, 1, 0]"]),
    ("refinement.candidates=1", &["refinement.iterations=2", "goal.cost=[1, 0, 1, 0]"]),
    ("refinement.learning_rate=0.2", &["refinement.iterations=2", "goal.cost=[1, 0, 1, 0]"]),
    ("propagation.rule=ts1", &["goal.cost=[1, 0, 1, 0]"]),
    ("propagation.noise=false", &["goal.cost=[1, 0, 1, 0]"]),
    ("propagation.particles=6", &[]),
    ("mpc.replan={ every = 3 }", &[]),
];

/// What changes no number of a run, and why.
const SILENT: &[(&str, &str)] = &[
    ("name", "what folders are called"),
    ("summary", "a word to the reader"),
    ("device", "the same numbers up to rounding, elsewhere"),
];

/// Of learners without a model, whichever it is.
const FREE_CHANGES: &[(&str, &[&str])] = &[
    ("agent.random_steps=50", &[]),
    ("agent.update_every=3", &[]),
    ("agent.updates=2", &[]),
    ("agent.batch_size=8", &[]),
    ("agent.replay_capacity=20", &[]),
    ("policy.hidden=[10, 12]", &[]),
    ("policy.activation=silu", &[]),
    ("policy.layer_norm=true", &[]),
    ("policy.learning_rate=0.01", &[]),
    ("policy.averaging=0.1", &[]),
    ("policy.angles=false", &["task=cartpole-swingup"]),
    ("policy.normalize=true", &[]),
    ("critics.count=3", &[]),
    ("critics.hidden=[10, 12]", &[]),
    ("critics.activation=silu", &[]),
    ("critics.layer_norm=true", &[]),
    ("critics.dropout=0", &[]),
    ("critics.learning_rate=0.01", &[]),
    ("critics.tracking=0.1", &[]),
    ("critics.target=mean", &[]),
    ("critics.actor=mean", &[]),
    ("critics.scaled=true", &[]),
    ("critics.keep_values=true", &["critics.scaled=true"]),
];
const SAC_CHANGES: &[(&str, &[&str])] = &[
    ("agent.kind=td3", &[]),
    ("sac.discount=0.5", &[]),
    ("sac.initial_temperature=0.1", &[]),
    ("sac.learn_temperature=false", &[]),
    ("sac.temperature_learning_rate=0.01", &[]),
    ("sac.target_entropy=1", &[]),
    ("sac.log_std=[-1, -1]", &[]),
    ("sac.actor_every=2", &[]),
];
const TD3_CHANGES: &[(&str, &[&str])] = &[
    ("agent.kind=sac", &[]),
    ("td3.discount=0.5", &[]),
    ("td3.exploration_noise=0.5", &[]),
    ("td3.target_noise=0.5", &[]),
    ("td3.noise_clip=0.05", &[]),
    ("td3.actor_every=1", &[]),
];

const NPG_CHANGES: &[(&str, &[&str])] = &[
    ("agent.batch_steps=90", &[]),
    ("agent.discount=0.5", &[]),
    ("agent.lambda=0.5", &[]),
    ("agent.step_size=0.1", &[]),
    ("agent.damping=0.1", &[]),
    ("agent.iterations=2", &[]),
    ("policy.hidden=[10, 12]", &[]),
    ("policy.activation=silu", &[]),
    ("policy.initial_log_std=-1", &[]),
    ("policy.min_log_std=-0.0001", &["agent.step_size=1"]),
    ("policy.angles=false", &["task=cartpole-swingup", "steps=450"]),
    ("policy.normalize=true", &[]),
    ("baseline.hidden=[10, 12]", &[]),
    ("baseline.activation=silu", &[]),
    ("baseline.learning_rate=0.01", &[]),
    ("baseline.batch_size=8", &[]),
    ("baseline.epochs=2", &[]),
];

/// Of a policy in a learned model, beside those of its parts that others have too.
const MBPO_CHANGES: &[(&str, &[&str])] = &[
    ("agent.kind=sac", &[]),
    ("agent.random_steps=50", &[]),
    ("agent.fit_every=30", &[]),
    ("agent.reinitialize=true", &[]),
    ("agent.replay_capacity=20", &[]),
    ("agent.updates=2", &[]),
    ("agent.catch_up=false", &[]),
    ("agent.batch_size=8", &[]),
    ("agent.real_share=0.7", &[]),
    ("agent.real_targets=true", &[]),
    ("agent.imagined_targets=true", &[]),
    ("agent.training_rollout=0", &[]),
    ("goal.reward=model", &[]),
    ("goal.termination=model", &[]),
    ("model.members=2", &[]),
    // Of a single one, disagreement would be refused.
    ("model.elites=2", &[]),
    ("model.reward=false", &[]),
    ("model.termination=false", &[]),
    ("rollout.starts=initial", &[]),
    ("rollout.length=1", &[]),
    ("rollout.every=10", &[]),
    ("rollout.count=16", &[]),
    ("rollout.keep=1", &[]),
    ("rollout.penalty=5", &["agent.training_rollout=0"]),
    ("rollout.stop_at=0.01", &[]),
    ("propagation.rule=expectation", &[]),
    ("propagation.noise=false", &[]),
];
/// Refused but for one value.
const MBPO_SILENT: &[&str] = &["model.past", "propagation.particles"];

/// Whether a key is of what goes around a planning agent.
fn is_guide(key: &str) -> bool {
    ["value.", "distil.", "policy.", "critics.", "sac."].iter().any(|section| key.starts_with(section))
}

/// Values of real episodes, of imagined ones, of a critic; a policy that is distilled and proposes, or acts.
const EPISODES: &[&str] = &[
    "value.source=episodes",
    "value.hidden=[12]",
    "value.optimizer_steps=20",
    "value.rounds=2",
    "value.batch_size=8",
    "goal.cost=[1, 0, 1, 0]",
    // So small a model sees an end in every plan, and behind that no value.
    "goal.termination=none",
];
const IMAGINED: &[&str] = &[
    "value.source=imagined",
    "value.hidden=[12]",
    "value.optimizer_steps=20",
    "value.rounds=2",
    "value.batch_size=8",
    "value.count=8",
    "value.length=4",
    "distil.role=propose",
    "policy.hidden=[12, 12]",
];
const CRITIC: &[&str] = &[
    "value.source=critic",
    "value.batch_size=8",
    "policy.hidden=[12, 12]",
    "critics.hidden=[12, 12]",
    "critics.dropout=0.1",
];
const PROPOSE: &[&str] = &["distil.role=propose", "policy.hidden=[12, 12]"];
const ACT: &[&str] = &["distil.role=act", "policy.hidden=[12, 12]", "steps=120"];

/// A run by soft actor-critic in a folder, for others to take its value.
fn sac_run(folder: &Path, words: &[&str]) {
    let experiment = registry().load("sac", &[words, &["train.checkpoint_episodes=1"]].concat()).unwrap();
    assert_eq!(left_in(folder, &experiment).2, "");
    fs::write(folder.join("experiment.toml"), experiment.to_toml().unwrap()).unwrap();
}

/// What goes around a planning agent: each key with another value, where it counts, and what has to be set there besides.
const GUIDE_CHANGES: &[(&[&str], &str, &[&str])] = &[
    (&[], "value.source=episodes", &[]),
    (EPISODES, "value.warm_up=75", &[]),
    (EPISODES, "value.warm_up_horizon=9", &["value.warm_up=75"]),
    (CRITIC, "value.warm_up_by=policy", &["value.warm_up=75"]),
    (EPISODES, "value.every=13", &[]),
    (EPISODES, "value.discount=0.5", &[]),
    (EPISODES, "value.lambda=0.3", &[]),
    (EPISODES, "value.members=3", &[]),
    (EPISODES, "value.reduction=min", &[]),
    (EPISODES, "value.hidden=[10]", &[]),
    (EPISODES, "value.activation=relu", &[]),
    (EPISODES, "value.learning_rate=0.01", &[]),
    (EPISODES, "value.batch_size=16", &[]),
    (EPISODES, "value.optimizer_steps=30", &[]),
    (EPISODES, "value.rounds=5", &[]),
    (IMAGINED, "value.count=16", &[]),
    (IMAGINED, "value.length=2", &[]),
    (CRITIC, "value.updates=2", &[]),
    (CRITIC, "value.proposals=0", &["goal.cost=[1, 0, 1, 0]"]),
    (ACT, "value.replay_capacity=20", &[]),
    (&[], "distil.role=propose", &[]),
    (PROPOSE, "distil.every=13", &[]),
    (PROPOSE, "distil.warm_up=70", &[]),
    (ACT, "distil.expert_share=1", &[]),
    (PROPOSE, "distil.max_epochs=2", &[]),
    (PROPOSE, "distil.batch_size=8", &[]),
    (PROPOSE, "distil.holdout=0.5", &[]),
    (PROPOSE, "distil.patience=1", &["policy.learning_rate=0.05"]),
    (PROPOSE, "distil.noise=0.9", &["goal.cost=[1, 0, 1, 0]"]),
    (PROPOSE, "distil.proposals=1", &["goal.cost=[1, 0, 1, 0]"]),
    (CRITIC, "policy.hidden=[10, 12]", &[]),
    (CRITIC, "policy.activation=silu", &[]),
    (CRITIC, "policy.layer_norm=true", &[]),
    (CRITIC, "policy.learning_rate=0.01", &[]),
    (CRITIC, "policy.averaging=0.1", &["goal.cost=[1, 0, 1, 0]"]),
    (CRITIC, "policy.angles=false", &["task=cartpole-swingup", "steps=220", "train.eval_every=0"]),
    (CRITIC, "policy.normalize=true", &[]),
    (CRITIC, "critics.count=3", &[]),
    (CRITIC, "critics.hidden=[10, 12]", &[]),
    (CRITIC, "critics.activation=silu", &[]),
    (CRITIC, "critics.layer_norm=true", &[]),
    (CRITIC, "critics.dropout=0", &[]),
    (CRITIC, "critics.learning_rate=0.01", &[]),
    (CRITIC, "critics.tracking=0.1", &[]),
    (CRITIC, "critics.target=mean", &[]),
    (CRITIC, "critics.actor=mean", &[]),
    (CRITIC, "critics.scaled=true", &[]),
    (CRITIC, "critics.keep_values=true", &["critics.scaled=true"]),
    (CRITIC, "sac.discount=0.5", &[]),
    (CRITIC, "sac.initial_temperature=0.1", &[]),
    (CRITIC, "sac.learn_temperature=false", &[]),
    (CRITIC, "sac.temperature_learning_rate=0.01", &[]),
    (CRITIC, "sac.target_entropy=1", &[]),
    (CRITIC, "sac.log_std=[-1, -1]", &[]),
    (CRITIC, "sac.actor_every=2", &[]),
];

#[test]
fn every_setting_of_what_goes_around_a_planner_changes_a_run() {
    for kind in ["model-based", "ground-truth"] {
        let words: &[&str] = if kind == "ground-truth" { &["agent.kind=ground-truth"] } else { &[] };
        let experiment = registry().load("small", words).unwrap();
        let keys = experiment.flat().unwrap().into_iter().map(|(key, _)| key).filter(|key| is_guide(key));
        let mut tried: BTreeSet<String> = GUIDE_CHANGES.iter().map(|(_, word, _)| key_of(word)).collect();
        // Tried in `the_value_of_another_run_is_taken_over_or_refused_by_name`.
        tried.extend(["value.run", "value.checkpoint"].map(str::to_owned));
        assert_eq!(tried, keys.collect(), "each key is tried, {kind}");
    }
    let mut runs: Vec<(Vec<&str>, Left)> = Vec::new();
    let mut run = |words: &[&'static str]| {
        if let Some((_, left)) = runs.iter().find(|(known, _)| known == words) {
            return Clone::clone(left);
        }
        let left = left_behind(&registry().load("small", words).unwrap());
        assert!(left.2.is_empty(), "{words:?}: {}", left.2);
        runs.push((words.to_vec(), left.clone()));
        left
    };
    for (base, name) in
        [(EPISODES, "value/loss"), (IMAGINED, "value/loss"), (CRITIC, "critic/loss"), (ACT, "distil/loss")]
    {
        let left = run(base);
        assert!(left.0.iter().any(|line| line.contains_key(name)), "{base:?} is in use: {left:?}");
    }
    let silent: Vec<&str> = GUIDE_CHANGES
        .iter()
        .filter(|(base, word, with)| {
            let before = [*base, *with].concat();
            run(&before) == run(&[&before[..], &[*word]].concat())
        })
        .map(|(_, word, _)| *word)
        .collect();
    assert_eq!(silent, [""; 0], "change nothing");
}

#[test]
fn the_value_of_another_run_is_taken_over_or_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let place = folder.path().join(name);
        fs::create_dir(&place).unwrap();
        place
    };
    let (one, other) = (place("one"), place("other"));
    sac_run(&one, &[]);
    sac_run(&other, &["seed=1"]);
    let of = |run: &Path| format!("value.run={:?}", run.to_str().unwrap());
    let load = |words: &[&str]| registry().load("small", &[&["value.source=run"], words].concat());
    let left = |words: &[&str]| {
        let left = left_behind(&load(words).unwrap());
        assert_eq!(left.2, "", "{words:?}");
        left
    };
    let steps: Vec<u64> = names(&one.join("checkpoints")).iter().filter_map(|name| name.parse().ok()).collect();
    let (first, last) = (steps.iter().min().unwrap(), steps.iter().max().unwrap());
    assert!(first < last, "{steps:?}");
    // So small a model sees an end in every plan, and behind that no value.
    for kind in ["goal.termination=none", "agent.kind=ground-truth"] {
        let with = left(&[kind, &of(&one)]);
        let without = left_behind(&registry().load("small", &[kind]).unwrap());
        assert!(with != without, "{kind}: plans end in the value");
        assert!(with != left(&[kind, &of(&other)]), "{kind}: value.run");
        assert!(with != left(&[kind, &of(&one), &format!("value.checkpoint={first}")]), "{kind}: value.checkpoint");
        assert!(
            with == left(&[kind, &of(&one), &format!("value.checkpoint={last}")]),
            "{kind}: the last is the default"
        );
    }
    let proposals = |count: &str| left(&["agent.kind=ground-truth", &of(&one), count]);
    assert!(proposals("value.proposals=0") != proposals("value.proposals=4"), "its policy proposes");

    // A copy of a checkpoint serves as the run does.
    let copy = place("copy");
    fs::copy(one.join("experiment.toml"), copy.join("experiment.toml")).unwrap();
    assert_eq!(RunFiles::copy_checkpoint(&one, WhichCheckpoint::Step(*first), &copy).unwrap(), Some(*first));
    let of_copy = format!("value.checkpoint={first}");
    assert_eq!(left(&[&of(&copy), &of_copy]), left(&[&of(&one), &of_copy]));

    // Nobody goes on with the value of another state of that run.
    let experiment = load(&["agent.kind=ground-truth", &of(&one)]).unwrap();
    let mine = place("mine");
    assert_eq!(left_in(&mine, &experiment).2, "");
    let again = || {
        let mut parts = experiment.build_on(&registry(), &Device::flex()).unwrap();
        RunFiles::open(&mine, &mut parts.training, &mut *parts.agent).map(drop)
    };
    again().unwrap();
    fs::remove_dir_all(one.join("checkpoints").join(last.to_string())).unwrap();
    let error = again().unwrap_err().to_string();
    assert!(error.contains(&format!("step {last}")) && error.contains("in the value of sac, seed 0, step"), "{error}");
    // Where it lies does not matter.
    let elsewhere = experiment.clone().with_value_run("elsewhere", WhichCheckpoint::Step(3));
    assert_eq!(elsewhere.value_run(), Some((Path::new("elsewhere"), WhichCheckpoint::Step(3))));
    assert_eq!(elsewhere.settings().unwrap(), experiment.settings().unwrap());
    assert_eq!(registry().load("small", &[]).unwrap().value_run(), None);

    let (masses, npg, chained) = (place("masses"), place("npg"), place("chained"));
    sac_run(&masses, &["wrappers.action_repeat=2"]);
    let npg_experiment = registry().load("npg", &[]).unwrap();
    assert_eq!(left_in(&npg, &npg_experiment).2, "");
    fs::write(npg.join("experiment.toml"), npg_experiment.to_toml().unwrap()).unwrap();
    fs::write(chained.join("experiment.toml"), experiment.to_toml().unwrap()).unwrap();
    let (empty, young) = (place("empty"), place("young"));
    sac_run(&young, &["agent.random_steps=5000", "steps=12"]);
    fs::write(empty.join("experiment.toml"), registry().load("sac", &[]).unwrap().to_toml().unwrap()).unwrap();
    let refused = |words: &[&str]| {
        let experiment = load(words).unwrap();
        let error = experiment.build_on(&registry(), &Device::flex()).unwrap_err();
        let cause = std::error::Error::source(&error).map(|cause| cause.to_string()).unwrap_or_default();
        format!("{error}: {cause}")
    };
    let nowhere = folder.path().join("nowhere");
    for (words, told) in [
        (vec![], "value.run = \"\": expected the folder of a run"),
        (vec![of(&nowhere)], "expected the folder of a run, which holds experiment.toml"),
        (vec![of(&empty)], "expected a run with a checkpoint"),
        (vec![of(&masses)], "wrappers.action_repeat is 2 there and 1 here"),
        (vec![of(&npg)], "that of \"npg\" has none"),
        (vec![of(&chained)], "expected a run whose agent learned its value itself"),
        (
            vec![of(&other), "goal.reward=-next.angle^2".into()],
            "expected a run with the same goal.reward, but that one has",
        ),
        (vec![of(&other), "goal.termination=next.angle > 1".into()], "expected a run with the same goal.termination"),
        (vec![of(&other), "goal.cost=[1, 0, 0, 0]".into()], "expected a run with the same goal.cost"),
        (vec![of(&young)], "after 12 steps that one has taken random actions alone, as it does for 5000"),
        (vec![of(&other), "value.warm_up_horizon=9".into()], "value.warm_up_horizon = 9: expected 0 with value.source"),
        (
            vec![of(&other), "value.checkpoint=7".into()],
            "value.checkpoint = 7: expected an intact checkpoint of that run, but ",
        ),
        (vec![of(&other), "value.checkpoint=7".into()], "no checkpoint of step 7"),
        (vec![of(&other), "value.warm_up=10".into()], "value.warm_up = 10: expected 0 with value.source"),
        (vec![of(&other), "distil.role=propose".into()], "value.proposals = 4: expected 0"),
        (vec![of(&other), "value.source=episodes".into()], "expected none, or value.source = \"run\""),
        (
            vec!["value.source=off".into(), "value.checkpoint=best".into(), "distil.role=act".into()],
            "value.checkpoint = \"best\": expected \"last\"",
        ),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let error = refused(&words);
        assert!(error.contains(told), "{words:?}: {error}");
    }
}

fn key_of(word: &str) -> String {
    word.split_once('=').unwrap().0.to_owned()
}

#[test]
fn every_setting_of_learners_without_a_model_changes_a_run() {
    for (name, free, own) in
        [("sac", FREE_CHANGES, SAC_CHANGES), ("td3", FREE_CHANGES, TD3_CHANGES), ("npg", &[], NPG_CHANGES)]
    {
        let experiment = registry().load(name, &[]).unwrap();
        // What is the run's own is tried with the other agent.
        let common =
            ["name", "summary", "task", "steps", "seed", "device", "wrappers", "train", "knowledge", "practice"];
        // Another kind than NPG has other sections.
        let is_own =
            |key: &String| !common.contains(&key.split('.').next().unwrap()) && (name != "npg" || key != "agent.kind");
        let keys: BTreeSet<String> =
            experiment.flat().unwrap().into_iter().map(|(key, _)| key).filter(is_own).collect();
        let changes = || free.iter().chain(own);
        assert_eq!(changes().map(|(word, _)| key_of(word)).collect::<BTreeSet<_>>(), keys, "each key is tried");
        let mut runs: Vec<(Vec<&str>, Left)> = Vec::new();
        let mut run = |words: &[&'static str]| {
            if let Some((_, left)) = runs.iter().find(|(known, _)| known == words) {
                return Clone::clone(left);
            }
            let left = left_behind(&registry().load(name, words).unwrap());
            assert!(left.2.is_empty(), "{words:?}: {}", left.2);
            runs.push((words.to_vec(), left.clone()));
            left
        };
        let told = |event: &str, left: &Left| left.0.iter().filter(|line| line["event"] == event).count();
        let base = run(&[]);
        assert!(told("policy", &base) > 0 && told("eval", &base) > 0, "every part is in use: {base:?}");
        let silent: Vec<&str> = changes()
            .filter(|(word, with)| run(with) == run(&[*with, &[*word]].concat()))
            .map(|(word, _)| *word)
            .collect();
        assert_eq!(silent, [""; 0], "change nothing");
    }
}

#[test]
fn every_setting_of_a_policy_in_a_learned_model_changes_a_run() {
    let experiment = registry().load("mbpo", &[]).unwrap();
    let common = ["name", "summary", "task", "steps", "seed", "device", "wrappers", "train", "knowledge", "practice"];
    let is_own =
        |key: &String| !common.contains(&key.split('.').next().unwrap()) && !MBPO_SILENT.contains(&key.as_str());
    let keys: BTreeSet<String> = experiment.flat().unwrap().into_iter().map(|(key, _)| key).filter(is_own).collect();
    let part_of = |word: &str, parts: &[&str]| parts.iter().any(|part| word.starts_with(part));
    let own: BTreeSet<String> = MBPO_CHANGES.iter().map(|(word, _)| key_of(word)).collect();
    let of_model = CHANGES.iter().filter(|(word, _)| part_of(word, &["model.", "fit."]));
    let of_policy =
        FREE_CHANGES.iter().chain(SAC_CHANGES).filter(|(word, _)| part_of(word, &["policy.", "critics.", "sac."]));
    let others = of_model
        .chain(of_policy)
        .filter(|(word, _)| !own.contains(&key_of(word)) && !MBPO_SILENT.contains(&key_of(word).as_str()));
    let changes: Vec<_> = MBPO_CHANGES.iter().chain(others).collect();
    assert_eq!(changes.iter().map(|(word, _)| key_of(word)).collect::<BTreeSet<_>>(), keys, "each key is tried");
    let run = |words: &[&'static str]| {
        let left = left_behind(&registry().load("mbpo", words).unwrap());
        assert!(left.2.is_empty(), "{words:?}: {}", left.2);
        left
    };
    let base = run(&[]);
    assert!(base.0.iter().any(|line| line["event"] == "policy" && line.contains_key("imagined/steps")), "{base:?}");
    let before = |with: &[&'static str]| if with.is_empty() { base.clone() } else { run(with) };
    let silent: Vec<&str> = changes
        .iter()
        .filter(|(word, with)| before(with) == run(&[*with, &[*word]].concat()))
        .map(|(word, _)| *word)
        .collect();
    assert_eq!(silent, [""; 0], "change nothing");
}

#[test]
fn every_setting_of_a_model_of_images_changes_a_run() {
    let experiment = registry().load("latent", &[]).unwrap();
    let common = ["name", "summary", "task", "steps", "seed", "device", "wrappers", "train", "knowledge", "practice"];
    // Another kind of agent has other sections.
    let is_own = |key: &String| !common.contains(&key.split('.').next().unwrap()) && key != "agent.kind";
    let keys: BTreeSet<String> = experiment.flat().unwrap().into_iter().map(|(key, _)| key).filter(is_own).collect();
    let part_of = |word: &str, parts: &[&str]| parts.iter().any(|part| word.starts_with(part));
    let others = CHANGES.iter().filter(|(word, _)| part_of(word, &["fit.", "planner.", "refinement.", "mpc."]));
    // Their costs are of columns that nobody sees here; the model's rewards tell plans apart.
    let others: Vec<(&str, Vec<&str>)> = others
        .map(|(word, with)| (*word, with.iter().copied().filter(|word| !word.starts_with("goal.")).collect()))
        .collect();
    let own = LATENT_CHANGES.iter().map(|(word, with)| (*word, with.to_vec()));
    let changes: Vec<(&str, Vec<&str>)> = own.chain(others).collect();
    assert_eq!(changes.iter().map(|(word, _)| key_of(word)).collect::<BTreeSet<_>>(), keys, "each key is tried");
    let mut runs: Vec<(Vec<&str>, Left)> = Vec::new();
    let mut run = |words: &[&'static str]| {
        if let Some((_, left)) = runs.iter().find(|(known, _)| known == words) {
            return Clone::clone(left);
        }
        let left = left_behind(&registry().load("latent", words).unwrap());
        assert!(left.2.is_empty(), "{words:?}: {}", left.2);
        runs.push((words.to_vec(), left.clone()));
        left
    };
    let base = run(&[]);
    let told = |event: &str| base.0.iter().filter(|line| line["event"] == event).count();
    assert!(told("fit") > 1 && told("plan") > 0, "every part is in use: {base:?}");
    assert!(base.0.iter().any(|line| line.contains_key("model/mse_reward")), "{base:?}");
    let silent: Vec<&str> = changes
        .iter()
        .filter(|(word, with)| run(with) == run(&[&with[..], &[*word]].concat()))
        .map(|(word, _)| *word)
        .collect();
    assert_eq!(silent, [""; 0], "change nothing");
}

#[test]
fn every_setting_changes_a_run() {
    let small = registry().load("small", &[]).unwrap();
    let keys: BTreeSet<String> =
        small.flat().unwrap().into_iter().map(|(key, _)| key).filter(|key| !is_guide(key)).collect();
    let tried: BTreeSet<String> =
        CHANGES.iter().map(|(word, _)| key_of(word)).chain(SILENT.iter().map(|(key, _)| (*key).to_owned())).collect();
    assert_eq!(tried, keys, "each key is tried or argued about");

    // Runs with the same words are made once.
    let mut runs: Vec<(Vec<&str>, _)> = Vec::new();
    let mut run = |words: &[&'static str]| {
        if let Some((_, left)) = runs.iter().find(|(known, _)| known == words) {
            return Clone::clone(left);
        }
        let left = left_behind(&registry().load("small", words).unwrap());
        runs.push((words.to_vec(), left.clone()));
        left
    };
    let base = run(&[]);
    assert_eq!(base, left_behind(&small), "a run is its experiment's alone");
    let told = |event: &str| base.0.iter().filter(|line| line["event"] == event).count();
    assert!(
        base.2.is_empty() && told("fit") > 0 && told("plan") > 0 && told("eval") > 0,
        "every part is in use: {base:?}"
    );
    // An error is what one setting is about; others must not be told apart by one.
    let mut run_on = |words: &[&'static str]| {
        let left = run(words);
        let may_end = words.iter().any(|word| word.starts_with("train.max_breakdowns"));
        assert!(left.2.is_empty() || may_end, "{words:?}: {}", left.2);
        left
    };
    let silent: Vec<&str> = CHANGES
        .iter()
        .filter(|(word, with)| run_on(with) == run_on(&[*with, &[*word]].concat()))
        .map(|(word, _)| *word)
        .collect();
    assert_eq!(silent, [""; 0], "change nothing");
}

#[test]
fn known_columns_are_those_of_a_step_without_wrappers() {
    let check = |words: &[&str]| {
        let small = registry().load("small", words)?;
        small.build_on(&registry(), &Device::flex()).map(drop)
    };
    check(&["task=orbit", "wrappers.action_limits=[-0.5, 0.5]"]).unwrap();
    check(&["task=orbit", "wrappers.action_repeat=2", "knowledge.known=false"]).unwrap();
    let told = check(&["task=orbit", "wrappers.action_repeat=2"]).unwrap_err().to_string();
    assert!(told.starts_with("knowledge.known = true: expected false, since with [wrappers]"), "{told}");
}

#[test]
fn known_columns_count_in_no_error_that_a_run_reports() {
    let words = &["task=orbit", "model.reward=true", "steps=60"];
    let (lines, _, error) = left_behind(&registry().load("small", words).unwrap());
    assert_eq!(error, "");
    let fit = lines.iter().find(|line| line["event"] == "fit").unwrap();
    let [reward, all] = ["model/mse_reward", "model/mse"].map(|name| fit[name].as_f64().unwrap());
    // Of the position and of the reward, and of nothing else.
    assert!(reward > 0.0 && reward < 2.0 * all, "{fit:?}");
    assert!(fit["model/unchanged_ratio"].as_f64().unwrap() > 0.0, "{fit:?}");
}

#[test]
fn models_read_the_angles_of_the_task() {
    let run = |word: &[&str]| {
        let words = [&["task=cartpole-swingup", "steps=220", "train.eval_every=0"], word].concat();
        left_behind(&registry().load("small", &words).unwrap())
    };
    let by_task = run(&[]);
    assert_eq!(by_task, run(&["model.angles=[1]"]));
    assert_ne!(by_task, run(&["model.angles=[]"]));
}
