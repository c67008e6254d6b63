use mbrl_env::{Env, tasks};
use mbrl_model::{Angles, EnsembleConfig, Precision};
use mbrl_plan::{Aggregate, CemConfig, Execute, PddmConfig, PlannerConfig, Proposal, RandomShootingConfig, Refinement};

use super::*;
use crate::{FitSchedule, Goal, Tensor};

pub(super) const SMOKE: &str = r#"
    summary = "small"
    task = "pendulum"
    steps = 600

    [agent]
    random_steps = 200

    [model]
    members = 3
    hidden = [32, 32]

    [fit]
    batch_size = 64
    max_epochs = 10

    [planner]
    kind = "cem"
    horizon = 8
    population = 40
    elites = 5
    iterations = 2

    [propagation]
    rule = "ts-inf"
    noise = true
    particles = 3

    [train]
    eval_every = 400
    eval_episodes = 2
"#;

const TRUTH: &str = r#"
    summary = "the simulator as the model"
    task = "cartpole-swingup"
    steps = 2000

    [agent]
    kind = "ground-truth"

    [goal]
    after_termination = -5.0

    [planner]
    kind = "icem"
    horizon = 25
    population = 40
    elites = 5
"#;

fn registry() -> Registry {
    Registry::new().tasks(tasks::entries()).experiments(&[("smoke", SMOKE), ("truth", TRUTH)])
}

fn loaded(words: &[&str]) -> Result<Experiment, ExperimentError> {
    registry().load("smoke", words)
}

/// An error with its causes.
fn told(error: &ExperimentError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn sections(experiment: &Experiment) -> &ModelBasedSections {
    experiment.agent.model_based().unwrap()
}

fn edited(words: &[&str], edit: impl FnOnce(&mut ModelBasedSections)) -> Experiment {
    let mut experiment = loaded(words).unwrap();
    let AgentConfig::ModelBased(sections) = &mut experiment.agent else { panic!("nothing is learned") };
    edit(sections);
    experiment
}

#[test]
fn the_resolved_text_holds_every_default_and_reads_back() {
    for name in ["smoke", "truth"] {
        let experiment = registry().load(name, &[]).unwrap();
        assert_eq!(experiment.name, name);
        let text = experiment.to_toml().unwrap();
        assert_eq!(Experiment::from_toml(&text).unwrap(), experiment);
        assert_eq!(toml::from_str::<Experiment>(&text).unwrap(), experiment);
        for key in ["kind = ", "bounds_weight", "after_termination", "checkpoint_episodes", "replan", "device"] {
            assert!(text.contains(key) || name == "truth" && key == "bounds_weight", "{key} is missing in\n{text}");
        }
    }
    let mut common: Vec<String> = Table::try_from(loaded(&[]).unwrap()).unwrap().into_iter().map(|(k, _)| k).collect();
    common.retain(|key| !agent::sections_of("model-based").unwrap().contains(&key.as_str()));
    let mut listed = COMMON.to_vec();
    listed.sort_unstable();
    assert_eq!(common, listed);
}

#[test]
fn one_value_is_overridden_and_nothing_else() {
    let mut expected = edited(&[], |sections| {
        sections.fit.learning_rate = 2.0;
        sections.model.hidden = vec![8, 8];
        sections.agent.fit_every = FitSchedule::Steps(10);
    });
    expected.device = "ndarray".into();
    let words = ["fit.learning_rate=2", "model.hidden=[8,8]", "agent.fit_every=10", "device=ndarray"];
    assert_eq!(loaded(&words).unwrap(), expected);
}

#[test]
fn flat_settings_rebuild_the_experiment() {
    let experiment = loaded(&["fit.learning_rate=0.1", "model.hidden=[8,8]", "mpc.replan={every=2}"]).unwrap();
    let flat = experiment.flat().unwrap();
    assert!(flat.contains(&("fit.learning_rate".into(), "0.1".into())), "{flat:?}");
    assert!(flat.contains(&("mpc.replan".into(), "{ every = 2 }".into())), "{flat:?}");
    let words: Vec<String> = flat.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(loaded(&words).unwrap(), experiment);
}

#[test]
fn another_planner_keeps_what_both_have_and_tells_the_rest() {
    let words = ["planner.initial_std=0.7", "planner.kind=pddm", "planner.kappa=3"];
    // The kind comes first, wherever it stands.
    let (experiment, notes) = registry().load_with_notes("smoke", &words[1..]).unwrap();
    let kept = PddmConfig { horizon: 8, population: 40, iterations: 2, kappa: 3.0, ..PddmConfig::default() };
    assert_eq!(sections(&experiment).planner, PlannerConfig::Pddm(kept));
    let [note] = &notes[..] else { panic!("{notes:?}") };
    for part in
        ["\"pddm\": keeps ", "horizon = 8", "population = 40", "of \"cem\"; leaves out ", "elites", "kappa = 10.0"]
    {
        assert!(note.contains(part), "{part}: {note}");
    }
    // A word that CEM executes by default was not chosen, and iCEM has another default; one that was chosen is kept. Numbers
    // are as wide as they are.
    let (experiment, notes) = registry().load_with_notes("smoke", &["planner.kind=icem"]).unwrap();
    let PlannerConfig::Icem(icem) = &sections(&experiment).planner else { panic!("another planner") };
    assert_eq!((icem.execute, icem.horizon), (Execute::Best, 8));
    assert!(notes[0].contains("execute = \"best\"") && !notes[0].contains("00000"), "{notes:?}");
    let left_out = notes[0].split("; leaves out ").nth(1).unwrap().split(';').next().unwrap();
    assert!(!left_out.contains("execute"), "iCEM has it too: {notes:?}");
    let chosen = registry().experiments(&[("mine", &SMOKE.replace("elites =", "execute = \"best\"\nelites ="))]);
    let (experiment, notes) = chosen.load_with_notes("mine", &["planner.kind=icem"]).unwrap();
    let PlannerConfig::Icem(icem) = &sections(&experiment).planner else { panic!("another planner") };
    let kept = notes[0].split("; leaves out").next().unwrap();
    assert!(icem.execute == Execute::Best && kept.contains("execute = \"best\""), "{notes:?}");
    // What the new planner does not have is refused like any unknown key.
    assert!(loaded(&words).unwrap_err().to_string().contains("`planner.initial_std`"));
    // The same kind again says and changes nothing.
    let (same, notes) = registry().load_with_notes("smoke", &["planner.kind=cem"]).unwrap();
    assert_eq!((same, notes.len()), (loaded(&[]).unwrap(), 0));
    assert_ne!(sections(&loaded(&[]).unwrap()).planner, PlannerConfig::Cem(CemConfig::default()));
    let before = loaded(&["planner.kappa=3", "planner.kind = pddm"]).unwrap();
    assert_eq!(before, loaded(&["planner.kind=pddm", "planner.kappa=3"]).unwrap());
}

#[test]
fn every_planner_can_be_chosen_and_survives_writing() {
    for words in [
        &["planner.kind=icem", "planner.noise_exponent=2"][..],
        &["planner.kind=mppi", "planner.sigma=[0.2]"],
        &["planner.kind=gradient", "planner.starts=2"],
        &["planner.kind=random-shooting", "planner.proposal={ hold = { steps = 3 } }"],
        &["planner.kind=random-shooting", "planner.proposal={ hold = { steps = 3 } }", "planner.proposal=uniform"],
    ] {
        let experiment = loaded(words).unwrap();
        assert_eq!(Experiment::from_toml(&experiment.to_toml().unwrap()).unwrap(), experiment);
        assert_eq!(sections(&experiment).planner.horizon(), 8);
    }
    let hold = ["planner.kind=random-shooting", "planner.proposal={ hold = { steps = 3 } }", "planner.population=7"];
    let proposal = Proposal::Hold { steps: 3 };
    let expected = RandomShootingConfig { horizon: 8, population: 7, iterations: 2, proposal };
    assert_eq!(sections(&loaded(&hold).unwrap()).planner, PlannerConfig::RandomShooting(expected));
}

#[test]
fn the_aggregate_over_particles_can_be_chosen() {
    assert_eq!(sections(&loaded(&[]).unwrap()).goal.aggregate, Aggregate::Mean);
    for (word, aggregate) in [
        ("goal.aggregate=worst", Aggregate::Worst),
        ("goal.aggregate={ mean-minus-std = 2.0 }", Aggregate::MeanMinusStd(2.0)),
        ("goal.aggregate={ mean-minus-std = 2 }", Aggregate::MeanMinusStd(2.0)),
    ] {
        let experiment = loaded(&[word, "goal.discount=0.9"]).unwrap();
        assert_eq!(sections(&experiment).goal.aggregate, aggregate);
        assert_eq!(Experiment::from_toml(&experiment.to_toml().unwrap()).unwrap(), experiment);
    }
}

#[test]
fn the_precision_is_f32_until_another_is_chosen() {
    assert_eq!(sections(&loaded(&[]).unwrap()).precision, Precision::F32);
    let chosen = loaded(&["precision=bf16"]).unwrap();
    assert_eq!(chosen, edited(&[], |sections| sections.precision = Precision::Bf16));
    assert_eq!(Experiment::from_toml(&chosen.to_toml().unwrap()).unwrap(), chosen);
    assert_ne!(chosen.settings().unwrap(), loaded(&[]).unwrap().settings().unwrap());
}

#[test]
fn a_refinement_is_off_until_it_has_iterations() {
    assert_eq!(sections(&loaded(&[]).unwrap()).refinement.iterations, 0);
    let on = loaded(&["refinement.iterations=5"]).unwrap();
    assert_eq!(sections(&on).refinement, Refinement { iterations: 5, ..Refinement::default() });
    on.build_on(&registry(), &Device::flex()).unwrap();
    let both = loaded(&["refinement.iterations=5", "planner.kind=gradient"]).unwrap();
    let error = told(&both.build_on(&registry(), &Device::flex()).unwrap_err());
    assert!(error.contains("refinement.iterations = 5: expected 0"), "{error}");
    loaded(&["planner.kind=gradient"]).unwrap().build_on(&registry(), &Device::flex()).unwrap();
}

#[test]
fn a_word_that_is_wrong_is_named_with_what_is_right() {
    for (word, expected) in [
        ("planner.popluation=3", "unknown key `planner.popluation`; did you mean `planner.population`?"),
        ("model.depth=3", "unknown key `model.depth`"),
        ("planner", "--set planner: expected key=value"),
        ("train=3", "`train` is a section: set one of its keys, e.g. train.checkpoint_episodes=…"),
        ("dynamics=simulator", "unknown key `dynamics`; today's key is agent.kind"),
        ("options.edge=1", "unknown key `options.edge`"),
        ("task_options.=1", "unknown key `task_options.`"),
        ("planner.population=many", "planner.population = \"many\": expected a whole number, at least 0 (now 40)"),
        ("planner.population=-1", "planner.population = -1: expected a whole number, at least 0 (now 40)"),
        ("train.eval_every=1.5", "train.eval_every = 1.5: expected a whole number, at least 0 (now 400)"),
        ("agent.fit_every=sometimes", "agent.fit_every = \"sometimes\": expected \"episode\" or a number of steps"),
        ("mpc.replan=every", "mpc.replan = \"every\": expected { every = … } (now \"every-step\")"),
        ("mpc.replan=never", "mpc.replan = \"never\": expected one of every-step, every, open-loop"),
        ("goal.aggregate=mean-minus-std", "goal.aggregate = \"mean-minus-std\": expected { mean-minus-std = … }"),
        ("goal.aggregate=median", "goal.aggregate = \"median\": expected one of mean, "),
        ("planner.kind=annealing", "planner.kind = \"annealing\": expected one of cem, "),
        ("planner.kind=icm", "did you mean `icem`"),
        ("propagation.rule=ts-2", "propagation.rule = \"ts-2\": expected one of "),
        ("precision=0", "precision = 0: expected one of f32, bf16"),
        ("precision=f16", "precision = \"f16\": expected one of f32, bf16"),
        ("agent.kind=physics", "agent.kind = \"physics\": expected one of \"model-based\", \"ground-truth\""),
        ("goal.disagreement.wait=1", "unknown key `goal.disagreement.wait`"),
        ("fit.batch_size=true", "fit.batch_size = true: expected a whole number, at least 0 (now 64)"),
        ("model.hidden=3", "model.hidden = 3: expected a list (now [32, 32])"),
    ] {
        let error = told(&loaded(&[word]).unwrap_err());
        assert!(error.contains(expected), "{word}:\n{error}");
    }
}

#[test]
fn what_is_wrong_in_a_text_is_named_with_its_key() {
    for (change, expected) in [
        (("random_steps", "randm_steps"), "unknown key `agent.randm_steps`; did you mean `agent.random_steps`?"),
        (("horizon", "horizont"), "unknown key `planner.horizont`; did you mean `planner.horizon`?"),
        (("steps = 600", "stpes = 600"), "unknown key `stpes`; did you mean `steps`?"),
        (("steps = 600", ""), "missing key `steps`"),
        (("[model]", "[modle]"), "unknown key `modle`; did you mean `model`?"),
        (("[propagation]", "[zzzzzzzz]"), "unknown key `zzzzzzzz`"),
        (("members = 3", "members = \"3\""), "model.members = \"3\": expected a whole number, at least 0"),
        (("horizon = 8", "horizon = \"far\""), "section [planner]: found \"far\", expected a whole number, at least 0"),
        (("kind = \"cem\"", "kind = \"cme\""), "expected one of cem"),
        (("steps = 600", "steps = 600\ndynamics = \"physics\""), "dynamics = \"physics\": expected \"ensemble\""),
        (("steps = 600", "steps = = 600"), "not a TOML document"),
    ] {
        let text = SMOKE.replacen(change.0, change.1, 1);
        assert_ne!(text, SMOKE);
        let error = told(&registry().experiments(&[("mine", &text)]).load("mine", &[]).unwrap_err());
        assert!(error.starts_with("experiment mine: ") && error.contains(expected), "{change:?}:\n{error}");
    }
    let cut = SMOKE.split("[propagation]").next().unwrap();
    let error = Experiment::from_toml(cut).unwrap_err().to_string();
    assert_eq!(error, "missing section [propagation], which agent.kind = \"model-based\" needs");
    // Of two forms at once neither is chosen.
    let error = loaded(&["mpc.replan={every = 2, open-loop = 3}"]).unwrap_err().to_string();
    assert!(error.starts_with("mpc.replan = {") && error.contains("expected one of"), "{error}");
    let error = registry().load("smkoe", &[]).unwrap_err().to_string();
    assert!(error.contains("unknown experiment `smkoe`") && error.contains("`smoke`"), "{error}");
    let error = told(&registry().load("missing.toml", &[]).unwrap_err());
    assert!(error.contains("missing.toml"), "{error}");
    let error = told(&loaded(&["task=pendulun"]).unwrap().make_task(&registry()).unwrap_err());
    assert!(error.contains("unknown task `pendulun`; did you mean `pendulum`?"), "{error}");
}

#[test]
fn a_section_of_another_kind_is_refused_and_left_out_where_the_kind_is_overridden() {
    let learning = ["fit", "model", "precision", "propagation"];
    let keys = |experiment: &Experiment| -> Vec<String> {
        Table::try_from(experiment).unwrap().into_iter().map(|(key, _)| key).collect()
    };
    let has = |experiment: &Experiment| learning.map(|key| keys(experiment).contains(&key.to_owned()));
    let truth = registry().load("truth", &[]).unwrap();
    assert_eq!((has(&truth), has(&loaded(&[]).unwrap())), ([false; 4], [true; 4]));
    let error = Experiment::from_toml(&(TRUTH.to_owned() + "\n[model]\nmembers = 3\n")).unwrap_err().to_string();
    let owner = "unknown key `model`; it belongs to agent.kind = \"model-based\" or \"mbpo\" or \"latent\", and this \
                 experiment has \"ground-truth\"";
    assert_eq!(error, owner);
    let error = Experiment::from_toml(&TRUTH.replace("[goal]", "random_steps = 3\n[goal]")).unwrap_err().to_string();
    assert_eq!(error, "unknown key `agent.random_steps`");

    let (changed, notes) = registry().load_with_notes("smoke", &["agent.kind=ground-truth"]).unwrap();
    assert_eq!(has(&changed), [false; 4]);
    assert_eq!(changed.agent.planner(), loaded(&[]).unwrap().agent.planner());
    assert!(notes[0].contains("model") && notes[0].contains("propagation"), "{notes:?}");
    let error = loaded(&["model.members=4", "agent.kind=ground-truth"]).unwrap_err().to_string();
    assert!(error.contains("`model.members`"), "the kind comes first: {error}");
    let error = registry().load("truth", &["agent.kind=model-based"]).unwrap_err().to_string();
    assert!(error.contains("[model]") && error.contains("model-based"), "{error}");
    // The same kind again changes nothing.
    assert_eq!(loaded(&["agent.kind=model-based"]).unwrap(), loaded(&[]).unwrap());
}

#[test]
fn experiments_of_the_version_before_read_as_today() {
    // What its runs wrote, whole.
    for (text, kind) in
        [(include_str!("tests/smoke-0.1.toml"), "model-based"), (include_str!("tests/truth-0.1.toml"), "ground-truth")]
    {
        let experiment = Experiment::from_toml(text).unwrap();
        assert_eq!(experiment.agent.kind(), kind);
        let today = experiment.to_toml().unwrap();
        assert!(!today.contains("dynamics") && today.contains(&format!("kind = \"{kind}\"")), "{today}");
        assert_eq!(Experiment::from_toml(&today).unwrap(), experiment);
        // Checkpoints hold the settings in the old form.
        let old = text.replace("steps = 600", "steps = 0").replace("steps = 2000", "steps = 0");
        assert_eq!(Experiment::settings_today(&old).unwrap(), experiment.settings().unwrap());
        let other = old.replace("population = 40", "population = 41");
        assert_ne!(Experiment::settings_today(&other).unwrap(), experiment.settings().unwrap());
        experiment.build_on(&registry(), &Device::flex()).unwrap();
    }
    // What learning there was beside a simulator said nothing.
    let beside = include_str!("tests/truth-0.1.toml").to_owned() + "\n[model]\nmembers = 1000000000000\n";
    assert_eq!(
        Experiment::from_toml(&beside).unwrap(),
        Experiment::from_toml(include_str!("tests/truth-0.1.toml")).unwrap()
    );
    let both = include_str!("tests/smoke-0.1.toml").replace("[agent]", "[agent]\nkind = \"model-based\"");
    assert!(
        Experiment::from_toml(&both)
            .unwrap_err()
            .to_string()
            .contains("dynamics = \"ensemble\": expected no such key together with")
    );
    assert!(Experiment::settings_today("population = 17").is_none());
}

#[test]
fn words_about_a_run_are_no_settings() {
    let named =
        |name: &str, summary: &str| Experiment { name: name.into(), summary: summary.into(), ..loaded(&[]).unwrap() };
    assert_eq!(named("a", "b").settings().unwrap(), named("c", "d").settings().unwrap());
    assert_ne!(loaded(&["seed=1"]).unwrap().settings().unwrap(), loaded(&[]).unwrap().settings().unwrap());
    for name in ["", "a/b", "..", "/a", "a\nb"] {
        let error = named(name, "").check(&registry()).unwrap_err().to_string();
        assert!(error.starts_with("name = "), "{error}");
    }
}

#[test]
fn the_simulators_rewards_and_terminations_are_its_own_and_the_tasks_reward_can_be_chosen() {
    let goal_of = |experiment: &Experiment| match &experiment.agent {
        AgentConfig::ModelBased(sections) => sections.goal.clone(),
        AgentConfig::GroundTruth(sections) => sections.goal.clone(),
        other => panic!("{} has no goal", other.kind()),
    };
    let sources = |words: &[&str]| {
        let goal = goal_of(&loaded(words).unwrap());
        (goal.reward.unwrap(), goal.termination.unwrap())
    };
    let (task, model) = (|| RewardSource::Task, || RewardSource::Model);
    assert_eq!(sources(&[]), (task(), TerminationSource::Task));
    assert_eq!(sources(&["agent.kind=ground-truth"]), (model(), TerminationSource::Model));
    assert_eq!(sources(&["goal.reward=model", "agent.kind=model-based"]), (model(), TerminationSource::Task));
    assert_eq!(sources(&["goal.reward=task", "agent.kind=ground-truth"]), (task(), TerminationSource::Model));

    let mut cartpole = tasks::make("cartpole").unwrap();
    let goal = |task: &Task, words: &[&str]| {
        goal_of(&loaded(&[&["agent.kind=ground-truth"], words].concat()).unwrap()).init(task, None)
    };
    let has = |goal: Goal| (goal.reward.is_some(), goal.termination.is_some());
    assert_eq!(has(goal(&cartpole, &[]).unwrap()), (false, false));
    assert_eq!(has(goal(&cartpole, &["goal.reward=task"]).unwrap()), (true, false));
    assert_eq!(has(goal(&cartpole, &["goal.reward=-next.angle^2"]).unwrap()), (true, false));
    for word in ["goal.termination=task", "goal.termination=none", "goal.termination=next.angle > 1"] {
        let error = goal(&cartpole, &[word]).unwrap_err().to_string();
        assert!(error.contains("goal.termination = ") && error.contains("simulator"), "{error}");
    }

    // A task whose observation leaves out what its reward needs.
    cartpole.reward = None;
    assert_eq!(has(goal(&cartpole, &[]).unwrap()), (false, false));
    let error = goal(&cartpole, &["goal.reward=task"]).unwrap_err().to_string();
    assert!(error.contains("cartpole") && error.contains("goal.reward = \"model\""), "{error}");
    let smoke = loaded(&[]).unwrap();
    let error = sections(&smoke).goal.init(&cartpole, Some(&sections(&smoke).model)).unwrap_err().to_string();
    assert!(error.contains("model.reward = true") && error.contains("goal.reward = \"model\""), "{error}");
    let heads = loaded(&["model.reward=true", "goal.reward=model"]).unwrap();
    let goal = sections(&heads).goal.init(&cartpole, Some(&sections(&heads).model)).unwrap();
    assert_eq!(has(goal), (false, true));
}

#[test]
fn planners_that_climb_are_refused_beside_a_simulator() {
    let build = |word: &str| {
        let experiment = loaded(&["agent.kind=ground-truth", word]).unwrap();
        experiment.build_on(&registry(), &Device::flex()).map(drop)
    };
    build("planner.kind=icem").unwrap();
    for (word, key) in [("planner.kind=gradient", "planner.kind"), ("refinement.iterations=2", "refinement.iterations")]
    {
        let error = build(word).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("gradients"), "{error}");
    }
}

#[test]
fn a_policy_that_acts_learns_from_a_plan_for_each_state_alone() {
    let build = |words: &[&str]| {
        let experiment = loaded(&[&["distil.role=act"], words].concat()).unwrap();
        experiment.build_on(&registry(), &Device::flex()).map(drop).map_err(|error| error.to_string())
    };
    build(&[]).unwrap();
    let curious = "goal.disagreement={weight=1.0, scale=[1.0, 1.0, 1.0]}";
    for (word, told) in [
        ("mpc.replan=open-loop", "mpc.replan = \"open-loop\": expected \"every-step\""),
        ("mpc.replan={every=5}", "mpc.replan = { every = 5 }: expected \"every-step\""),
        (curious, "goal.disagreement.weight = 1: expected at most 0"),
    ] {
        let error = build(&[word]).unwrap_err();
        assert!(error.starts_with(told), "{error}");
        let proposing = loaded(&["distil.role=propose", word]).unwrap();
        proposing.build_on(&registry(), &Device::flex()).map(drop).unwrap();
    }
}

#[test]
fn options_are_the_tasks_own() {
    let words = ["task=cliff", "task_options.edge=3", "task_options.drop=5.5"];
    let experiment = loaded(&words).unwrap();
    let registry = registry();
    assert_eq!(experiment.make_task(&registry).unwrap().env.spec().obs.high()[0], 3.1);
    let text = experiment.to_toml().unwrap();
    assert!(text.contains("edge = 3") && text.contains("drop = 5.5"), "{text}");
    assert_eq!(Experiment::from_toml(&text).unwrap(), experiment);
    assert!(experiment.flat().unwrap().contains(&("task_options.drop".into(), "5.5".into())));
    // One that is there is changed; words need no quotes.
    let again = loaded(&[&words[..], &["task_options.edge=2"]].concat()).unwrap();
    assert_eq!(again.task_options.get("edge"), Some(&2_i64.into()));
    let again = loaded(&["task=cliff", "task_options.edge=far"]).unwrap();
    let error = again.make_task(&registry).unwrap_err().to_string();
    assert!(error.contains("cliff") && error.contains("far"), "{error}");
    let error = loaded(&["task_options.gravity=1"]).unwrap().make_task(&registry).unwrap_err().to_string();
    assert!(error.contains("pendulum") && error.contains("`gravity`"), "{error}");
    // Tables of options need not be there before one of them is set, one after the other.
    for section in ["task_options", "practice.task_options"] {
        let word = |rest: &str| format!("{section}.physics.{rest}");
        let words = [word("timestep=0.005"), word("solver.iterations=5"), word("solver.iterations=6")];
        let experiment = loaded(&words.each_ref().map(String::as_str)).unwrap();
        let text = experiment.to_toml().unwrap();
        let expected = format!("[{section}.physics]\ntimestep = 0.005\n\n[{section}.physics.solver]\niterations = 6\n");
        assert!(text.contains(&expected), "{text}");
    }
    // Nor are they taken where a number belongs.
    let error =
        loaded(&["task=cliff", "task_options.edge.far=1"]).unwrap().make_task(&registry).unwrap_err().to_string();
    assert!(error.contains("cliff") && error.contains("edge: "), "{error}");
}

#[test]
fn practice_is_of_other_options_and_evaluations_are_not() {
    let words = ["task=cliff", "train.environments=3", "practice.environments=2", "practice.task_options={drop=9.0}"];
    let registry = registry();
    let build = |words: &[&str]| loaded(words).unwrap().build_on(&registry, &Device::flex());
    let mut parts = build(&words).unwrap();
    // Over the edge in each.
    let mut fallen = |world: &mut World| {
        world.reset(Some(0)).unwrap();
        (0..200).map(|_| world.step(&[1.0]).unwrap()).find(|step| step.terminated).unwrap().reward
    };
    let [task, first, second] =
        [&mut parts.task.env, &mut parts.more.remove(0), &mut parts.more.remove(0)].map(&mut fallen);
    assert!(task > first && first == second, "{task} {first} {second}");

    // Evaluations are of the task itself alone.
    let evaluated = |words: &[&str]| {
        let training = format!("{:?}", build(words).unwrap().training);
        training.split("evaluated: ").nth(1).unwrap().split([',', ' ']).next().unwrap().to_owned()
    };
    assert_eq!((&*evaluated(&words), &*evaluated(&words[..2])), ("1", "3"));

    // An option by itself.
    let dotted = [&words[..3], &["practice.task_options.drop=9.0"]].concat();
    assert_eq!(loaded(&dotted).unwrap(), loaded(&words).unwrap());

    let told = |words: &[&str]| build(words).unwrap_err().to_string();
    let error = told(&["task=cliff", "practice.task_options={drop=9.0}"]);
    assert!(error.starts_with("practice.environments = 0: expected at least 1"), "{error}");
    let error = told(&["task=cliff", "practice.environments=1", "practice.task_options={drop=9.0}"]);
    assert!(error.starts_with("practice.environments = 1: expected less than train.environments = 1"), "{error}");
    let edge = [&words[..3], &["practice.task_options={edge=3.0, drop=9.0}"]].concat();
    assert!(told(&edge).starts_with("practice.task_options = "), "{}", told(&edge));
}

/// The goal of an experiment on a task, as its agent plans by it.
fn goal(task: &str, words: &[&str]) -> Result<Goal, ExperimentError> {
    let experiment = loaded(words)?;
    let sections = sections(&experiment);
    sections.goal.init(&tasks::make(task).unwrap(), Some(&sections.model))
}

#[test]
fn a_goal_goes_by_what_it_is_told() {
    let has = |goal: Goal| (goal.reward.is_some(), goal.termination.is_some());
    assert_eq!(has(goal("cartpole", &[]).unwrap()), (true, true));
    assert_eq!(has(goal("pendulum", &[]).unwrap()), (true, false));
    assert_eq!(has(goal("cartpole", &["goal.termination=none"]).unwrap()), (true, false));
    let heads = ["model.reward=true", "model.termination=true"];
    let with = |word: &'static str| [&heads[..], &[word]].concat();
    // The task's and nobody's terminations overrule those that the model has learned.
    assert_eq!(has(goal("pendulum", &heads).unwrap()), (true, true));
    assert_eq!(has(goal("cartpole", &with("goal.termination=none")).unwrap()), (true, true));
    assert_eq!(has(goal("cartpole", &with("goal.termination=model")).unwrap()), (true, false));
    assert_eq!(has(goal("cartpole", &with("goal.reward=model")).unwrap()), (false, true));
    for (word, head) in [("goal.reward=model", "model.reward"), ("goal.termination=model", "model.termination")] {
        let error = goal("cartpole", &[word]).unwrap_err().to_string();
        assert!(error.contains("\"model\"") && error.contains(head), "{error}");
    }
}

#[test]
fn a_goal_in_words_is_read_by_the_names_of_columns() {
    let device = Device::flex();
    let row = |numbers: &[f32]| Tensor::<1>::from_data(numbers, &device).reshape([1, -1]);
    let words = ["goal.reward=2 - next.angle^2 + action.force", "goal.termination=next.position > 1 or angle > 5"];
    let found = goal("cartpole", &words).unwrap();
    let rows = |position| (row(&[0.0; 4]), row(&[0.5]), row(&[position, 0.0, 3.0, 0.0]));
    let (obs, action, next) = rows(0.0);
    assert_eq!(found.reward.unwrap().reward(obs, action, next).into_scalar::<f32>(), 2.0 - 9.0 + 0.5);
    for (position, over) in [(0.9, false), (1.1, true)] {
        let (obs, action, next) = rows(position);
        let found = found.termination.as_ref().unwrap().terminated(obs, action, next);
        assert_eq!(found.into_data().iter::<bool>().collect::<Vec<_>>(), [over]);
    }
    // A number is one too, and a text that was written is read back.
    let experiment = loaded(&[&words[..], &["goal.reward=1"]].concat()).unwrap();
    assert_eq!(sections(&experiment).goal.reward, Some(RewardSource::Expression("1".into())));
    assert_eq!(Experiment::from_toml(&experiment.to_toml().unwrap()).unwrap(), experiment);

    for (word, told) in [
        (
            "goal.reward=next.angel",
            "goal.reward: `next.angel`, letter 6: the observation has no column `angel`; did you mean `angle`?",
        ),
        ("goal.reward=modle", "or was \"model\" meant?"),
        ("goal.reward=angle > 1", "found a comparison, expected a number"),
        ("goal.termination=angle", "goal.termination: `angle`, letter 1: found a number, expected a comparison"),
        ("goal.termination=nome", "or was \"none\" meant?"),
    ] {
        let error = goal("cartpole", &[word]).unwrap_err().to_string();
        assert!(error.contains(told), "{word}: {error}");
    }
    assert!(loaded(&["goal.reward=[1]"]).is_err());

    // A goal in words is nobody's own: it stays when the agent's kind changes.
    let reward = |words: &[&str]| {
        let text = "-next.angular_velocity^2";
        let experiment = format!("{SMOKE}\n[goal]\nreward = \"{text}\"");
        let registry = Registry::new().tasks(tasks::entries()).experiments(&[("worded", &experiment)]);
        match registry.load("worded", words).unwrap().agent {
            AgentConfig::ModelBased(sections) => sections.goal.reward,
            AgentConfig::GroundTruth(sections) => sections.goal.reward,
            other => panic!("{} has no goal", other.kind()),
        }
    };
    assert_eq!(reward(&[]), reward(&["agent.kind=ground-truth"]));
}

#[test]
fn how_long_a_process_is_waited_for_is_no_setting() {
    let settings = |words: &[&str]| {
        let task = ["task=process", "task_options.command=[\"python3\", \"a.py\"]"];
        loaded(&[&task[..], words].concat()).unwrap().settings().unwrap()
    };
    let plain = settings(&[]);
    for word in ["timeout=5", "start_timeout=7", "stop_timeout=1", "show_stderr=true"] {
        assert_eq!(settings(&[&format!("task_options.{word}")]), plain);
    }
    assert_ne!(settings(&["task_options.max_steps=3"]), plain);
    let other = |words: &[&str]| loaded(words).unwrap().settings().unwrap();
    assert_ne!(other(&["task_options.timeout=3"]), other(&[]));
}

#[test]
fn names_of_gymnasium_are_told_where_they_belong() {
    let registry = registry().experiments(&[("any", "task = \"process\"\nsteps = 1\n[task_options]\nid = \"A-v0\"")]);
    for (name, words) in [
        ("Foo-v3", &["looks like an environment of Gymnasium", "`any` with --set task_options.id=Foo-v3"][..]),
        ("my_module:Foo-v0", &["task_options.id=my_module:Foo-v0"]),
        ("Pendulum-v1", &["task_options.id=Pendulum-v1", "task `pendulum`", "smoke"]),
        ("pendulum", &["`pendulum` is a task", "smoke"]),
        ("HalfCheetah-v5", &["`HalfCheetah-v5` is a task", "task = \"HalfCheetah-v5\""]),
    ] {
        let told = registry.load(name, &[]).unwrap_err().to_string();
        assert!(told.starts_with(&format!("unknown experiment `{name}`")), "{told}");
        for word in words {
            assert!(told.contains(word), "`{word}` is missing in: {told}");
        }
    }
    let told = loaded(&["task=Foo-v3"]).unwrap().make_task(&registry).unwrap_err().to_string();
    assert!(told.contains("unknown task `Foo-v3`") && told.contains("task_options.id=Foo-v3"), "{told}");
}

#[test]
fn numbers_of_a_goal_reach_it_or_are_refused() {
    let plain = goal("cartpole", &[]).unwrap();
    assert_eq!((plain.discount, plain.after_termination), (1.0, 0.0));
    assert!(plain.disagreement.is_none() && plain.terminal_value.is_none());
    let set = goal("cartpole", &["goal.discount=0.9", "goal.after_termination=-500"]).unwrap();
    assert_eq!((set.discount, set.after_termination), (0.9, -500.0));
    let both = ["goal.disagreement.weight=2", "goal.disagreement.scale=[1, 2, 0.5, 1]"];
    let found = goal("cartpole", &both).unwrap().disagreement.unwrap();
    assert_eq!((found.weight, found.scale), (2.0, vec![1.0, 2.0, 0.5, 1.0]));
    let inline = goal("cartpole", &["goal.disagreement={ weight = -1.0, scale = [1, 1, 1, 1] }"]).unwrap();
    assert_eq!(inline.disagreement.unwrap().weight, -1.0);
    assert_eq!(plain.action_rate, None);
    let smooth = goal("cartpole", &["goal.action_rate={ weight = 0.5, limit = 0.25 }"]).unwrap();
    assert_eq!(smooth.action_rate, Some(mbrl_plan::ActionRate::new(0.5, 0.25)));
    for (words, expected) in [
        (&["goal.discount=0"][..], "goal.discount = 0: expected a number in (0, 1]"),
        (&["goal.discount=1.5"], "goal.discount = 1.5"),
        (&["goal.after_termination=inf"], "goal.after_termination = inf: expected a finite number"),
        (&["goal.aggregate={ mean-minus-std = nan }"], "goal.aggregate = { mean-minus-std = NaN }"),
        (&["goal.disagreement.weight=1"], "goal.disagreement.scale = []: expected 4 numbers"),
        (&["goal.disagreement.weight=1", "goal.disagreement.scale=[1, 1, 1, 0]"], "expected finite numbers above 0"),
        (&["goal.disagreement.weight=nan"], "goal.disagreement.weight = NaN"),
        (&["goal.action_rate.weight=-1"], "goal.action_rate.weight = -1: expected a finite number of at least 0"),
        (&["goal.action_rate.limit=0"], "goal.action_rate.limit = 0: expected a number in (0, 2]"),
        (&["goal.action_rate.limit=inf"], "goal.action_rate.limit = inf"),
    ] {
        let error = goal("cartpole", words).unwrap_err().to_string();
        assert!(error.contains(expected), "{words:?}: {error}");
    }
    let truth = registry().load("truth", &["goal.disagreement.weight=1"]).unwrap();
    let error = truth.build_on(&registry(), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("goal.disagreement.weight = 1: expected 0"), "{error}");
}

#[test]
fn a_cost_is_paid_by_plans_for_each_column() {
    assert!(goal("cartpole", &[]).unwrap().shaping.is_none());
    let shaping = goal("cartpole", &["goal.cost=[1.0, 0.0, 0.5, 0.0]"]).unwrap().shaping.unwrap();
    let rows = |rows: [[f32; 4]; 2]| Tensor::<2>::from_floats(rows, &Device::flex());
    let next = rows([[3.0, f32::INFINITY, 2.0, 9.0], [0.0, 9.0, -4.0, 9.0]]);
    let paid = shaping.reward(rows([[9.0; 4]; 2]), rows([[9.0; 4]; 2]), next).into_data();
    assert_eq!(paid.try_to_vec::<f32>().unwrap(), [-9.0 - 2.0, -8.0]);
    for (word, part) in [("goal.cost=[1.0]", "4 numbers"), ("goal.cost=[1.0, inf, 0.0, 0.0]", "inf")] {
        let error = goal("cartpole", &[word]).unwrap_err().to_string();
        assert!(error.contains("goal.cost = [") && error.contains(part), "{error}");
    }
}

#[test]
fn a_run_of_random_actions_alone_is_told() {
    let told = |name: &str, steps: u64| registry().load(name, &[&format!("steps={steps}")]).unwrap().learns_nothing();
    assert!(told("smoke", 200).unwrap().starts_with("agent.random_steps = 200: expected less than steps = 200"));
    assert_eq!((told("smoke", 201), told("truth", 1)), (None, None));
}

#[test]
fn noise_on_pictures_is_refused_with_its_key() {
    let set = ["wrappers.observation_noise=0.01", "task=pendulum-pixels"];
    let error = registry().load("smoke", &set).unwrap().make_task(&registry()).unwrap_err().to_string();
    assert!(error.starts_with("wrappers.observation_noise = 0.01: expected 0 for a picture"), "{error}");
}

#[test]
fn shaping_in_words_is_paid_on_top_of_costs() {
    let paid = |words: &[&str]| {
        let shaping = goal("cartpole", words).unwrap().shaping.unwrap();
        let row = |x: [f32; 4]| Tensor::<2>::from_floats([x], &Device::flex());
        let action = Tensor::<2>::from_floats([[0.5]], &Device::flex());
        shaping.reward(row([2.0; 4]), action, row([3.0; 4])).into_scalar::<f32>()
    };
    assert_eq!(paid(&["goal.shaping=10 * obs[0] * next[1] + action[0]"]), 60.5);
    assert_eq!(paid(&["goal.shaping=10 * obs[0] * next[1]", "goal.cost=[0, 0, 2, 0]"]), 60.0 - 18.0);
    for (text, said) in [
        ("1/0", "the expression that begins here is inf"),
        ("obs[0] + log(0)", "letter 10"),
        ("1e300", "a finite number"),
    ] {
        let error = goal("cartpole", &[&format!("goal.shaping={text:?}")]).unwrap_err().to_string();
        assert!(error.starts_with("goal.shaping: ") && error.contains(said), "{error}");
    }
    let error = goal("cartpole", &["goal.shaping=inf"]).unwrap_err().to_string();
    assert!(error.starts_with("goal.shaping"), "{error}");
    let error = goal("cartpole", &["goal.shaping=next.nowhere"]).unwrap_err().to_string();
    assert!(error.starts_with("goal.shaping: ") && error.contains("nowhere"), "{error}");
}

#[test]
fn sizes_that_no_machine_has_room_for_are_refused() {
    for word in ["planner.population=100000000000", "planner.horizon=100000000000", "model.members=100000000000"] {
        let experiment = loaded(&[word]).unwrap();
        let error = experiment.build_on(&registry(), &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("100000000000") && error.contains("expected"), "{error}");
    }
    let wide = EnsembleConfig { hidden: vec![1 << 30, 1 << 30], ..EnsembleConfig::default() };
    assert!(check_weights(&wide, 3, 1).is_err());
    assert!(check_weights(&EnsembleConfig::default(), 3, 1).is_ok());
}

#[test]
fn angles_are_the_tasks_unless_they_are_overruled() {
    assert_eq!(sections(&loaded(&[]).unwrap()).model.angles, Angles::Task);
    let with = |angles: &str, task: &str| {
        SMOKE.replace("members = 3", &format!("members = 3\nangles = {angles}")).replace("pendulum", task)
    };
    let load = |text: &str, words: &[&str]| registry().experiments(&[("mine", text)]).load("mine", words);
    // The swing-up's pole turns, the pendulum's angle is a sine and a cosine already.
    load(&with("[1]", "cartpole-swingup"), &[]).unwrap();
    load(&with("\"task\"", "cartpole-swingup"), &[]).unwrap();
    load(&with("[]", "pendulum"), &[]).unwrap();
    for (angles, task, found) in
        [("[1]", "pendulum", "[]"), ("[]", "cartpole-swingup", "[1]"), ("[0]", "reacher", "[0, 1]")]
    {
        let error = load(&with(angles, task), &[]).unwrap_err().to_string();
        let expected = format!("model.angles = {angles}: expected \"task\", which are {found} of {task}");
        assert!(error.starts_with(&expected) && error.contains(&format!("--set model.angles={angles}")), "{error}");
        let overruled = load(&with(angles, task), &[&format!("model.angles={angles}")]).unwrap();
        assert_eq!(overruled, Experiment::from_toml(&overruled.to_toml().unwrap()).unwrap());
    }
    // What another task makes wrong is told.
    assert!(load(&with("[1]", "cartpole-swingup"), &["task=reacher"]).is_err());
}
