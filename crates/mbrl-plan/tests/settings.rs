//! Every setting of every planner changes plans or what they cost: a setting that is read and then forgotten shows here.
#![cfg(feature = "gradient")]

mod common;

use common::bits;
use mbrl_plan::{
    ActionSpace, Aggregate, BoxSpace, Device, Planner, PlannerConfig, Problem, Propagation, Refinement, Rng, Situation,
    Tensor, dynamics_fn, reward_fn,
};
use serde_json::{Map, Value, json};

/// Kind, settings that all of its rows start from, and rows of a setting, another value for it, and what must be set for it to
/// have an effect.
type Table = [(&'static str, Value, Vec<(&'static str, Value, Value)>); 6];

fn table() -> Table {
    let none = || json!({});
    let iterated = || json!({"iterations": 3});
    [
        (
            "cem",
            json!({"horizon": 6, "population": 40, "elites": 6, "iterations": 3}),
            vec![
                ("horizon", json!(7), none()),
                ("population", json!(41), none()),
                ("elites", json!(7), none()),
                ("iterations", json!(4), none()),
                ("alpha", json!(0.5), none()),
                ("initial_std", json!(0.4), none()),
                ("variance_stop", json!(1.0), none()),
                ("truncation", json!(1.0), none()),
                ("constrain_variance", json!(false), none()),
                ("execute", json!("best"), none()),
                ("tail", json!("last"), none()),
            ],
        ),
        (
            "pddm",
            json!({"horizon": 6, "population": 40}),
            vec![
                ("horizon", json!(7), none()),
                ("population", json!(41), none()),
                ("iterations", json!(2), none()),
                ("kappa", json!(1.0), none()),
                ("sigma", json!(0.5), none()),
                ("beta", json!(1.0), none()),
                ("code_compat", json!(true), none()),
                ("keep_mean", json!(true), none()),
                ("quiet_share", json!(0.5), none()),
                ("quiet_scale", json!(0.1), json!({"quiet_share": 0.5})),
                ("noise_decay", json!(0.5), json!({"iterations": 3})),
            ],
        ),
        (
            "icem",
            json!({"horizon": 6, "population": 40, "elites": 6}),
            vec![
                ("horizon", json!(7), none()),
                ("population", json!(41), none()),
                ("population_decay", json!(2.0), none()),
                ("elites", json!(7), none()),
                ("iterations", json!(2), none()),
                ("alpha", json!(0.5), none()),
                ("initial_std", json!(0.4), none()),
                ("noise_exponent", json!(0.5), none()),
                ("keep_elites", json!(0.8), none()),
                ("shift_elites", json!(false), none()),
                ("mean_in_last", json!(false), none()),
                ("execute", json!("mean"), none()),
            ],
        ),
        (
            "mppi",
            json!({"horizon": 6, "population": 40}),
            vec![
                ("horizon", json!(7), none()),
                ("population", json!(41), none()),
                ("iterations", json!(2), none()),
                ("kappa", json!(5.0), none()),
                ("sigma", json!([0.3]), none()),
                // Charged against the plan, which is 0 in the first iteration.
                ("control_cost", json!(0.5), none()),
                ("elites", json!(0.5), none()),
                // One iteration alone draws with the first deviation.
                ("adapt_std", json!(true), iterated()),
                ("std_range", json!([0.6, 2.0]), json!({"iterations": 3, "adapt_std": true})),
                ("normalize_returns", json!(true), none()),
                ("tail", json!("last"), none()),
            ],
        ),
        (
            "random-shooting",
            json!({"horizon": 6, "population": 40}),
            vec![
                ("horizon", json!(7), none()),
                ("population", json!(41), none()),
                ("iterations", json!(2), none()),
                ("proposal", json!({"hold": {"steps": 2}}), none()),
                ("proposal", json!({"hold": {"steps": 3}}), json!({"proposal": {"hold": {"steps": 2}}})),
                ("proposal", json!({"normal": {"std": 0.5}}), none()),
                ("proposal", json!({"normal": {"std": 0.4}}), json!({"proposal": {"normal": {"std": 0.5}}})),
                (
                    "proposal",
                    json!({"coloured": {"std": 0.5, "exponent": 2.0}}),
                    json!({"proposal": {"coloured": {"std": 0.5, "exponent": 1.0}}}),
                ),
                (
                    "proposal",
                    json!({"coloured": {"std": 0.4, "exponent": 1.0}}),
                    json!({"proposal": {"coloured": {"std": 0.5, "exponent": 1.0}}}),
                ),
            ],
        ),
        (
            "gradient",
            json!({"horizon": 6, "starts": 3, "iterations": 4}),
            vec![
                ("horizon", json!(7), none()),
                ("starts", json!(4), none()),
                ("iterations", json!(5), none()),
                ("learning_rate", json!(0.2), none()),
                // Only starts from the last plan have noise; the plan must come from one of them.
                ("initial_std", json!(0.3), json!({"starts": 2})),
                ("tail", json!("last"), json!({"starts": 1})),
            ],
        ),
    ]
}

/// Three plans of one episode: warm starts count.
fn episode(config: &PlannerConfig) -> Vec<u32> {
    // A pendulum that hangs beside its rest; what is far off costs, and so does effort.
    let model = dynamics_fn(2, 1, &Device::flex(), |s, a| {
        let (angle, speed) = (s.clone().narrow(1, 0, 1), s.narrow(1, 1, 1));
        let speed = speed + (a * 2.0 - angle.clone().sin()) * 0.2;
        Tensor::cat(vec![angle + speed.clone() * 0.2, speed], 1)
    });
    let reward = reward_fn(|_, a: Tensor<2>, next: Tensor<2>| {
        -((next.narrow(1, 0, 1) - 0.9).square() + a.square() * 0.05).squeeze_dim::<1>(1)
    });
    // Lopsided, and near enough that plans meet a bound.
    let actions = ActionSpace::Box(BoxSpace::new([-1.0], [1.5]).unwrap());
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let mut planner = config.init(&actions, Propagation::MEAN, Aggregate::Mean, &Refinement::off()).unwrap();
    let mut rng = Rng::new(4);
    let mut all = Vec::new();
    for obs in [[0.3, 0.0], [0.33, 0.15], [0.4, 0.3]] {
        all.extend(bits(&planner.plan(&Situation::of(&obs), &problem, &mut rng).unwrap()));
        planner.advance(1);
    }
    all
}

fn with(mut settings: Map<String, Value>, more: &Value) -> Map<String, Value> {
    settings.extend(more.as_object().unwrap().clone());
    settings
}

fn made(settings: &Map<String, Value>) -> PlannerConfig {
    serde_json::from_value(Value::Object(settings.clone())).unwrap()
}

#[test]
fn every_setting_changes_something() {
    let mut idle = Vec::new();
    for (kind, base, rows) in table() {
        let base = with(Map::from_iter([("kind".to_owned(), json!(kind))]), &base);
        // A setting that is added must be added here.
        let written = serde_json::to_value(made(&base)).unwrap();
        for key in written.as_object().unwrap().keys().filter(|key| *key != "kind") {
            assert!(rows.iter().any(|(setting, ..)| setting == key), "{kind}: no row for {key}");
        }
        for (setting, value, needs) in rows {
            let before = with(base.clone(), &needs);
            let after = with(before.clone(), &json!({setting: value}));
            assert_eq!(episode(&made(&before)), episode(&made(&before)), "{kind} repeats itself");
            assert_ne!(made(&before), made(&after), "{kind}: the row of {setting} changes nothing");
            if episode(&made(&before)) == episode(&made(&after)) {
                idle.push(format!("{kind}: {setting} = {value} has no effect"));
            }
        }
    }
    assert_eq!(idle, [""; 0]);
}
