//! The tasks of all crates, and the experiments that come with this program.

use std::sync::LazyLock;

use anyhow::Result;
use mbrl_env::tasks;
use mbrl_policy::experiment::{Experiment, Registry};

/// The experiments that come with this program: name and text.
const EMBEDDED: &[(&str, &str)] = &[
    ("smoke", include_str!("../experiments/smoke.toml")),
    ("pets-cartpole-swingup", include_str!("../experiments/pets-cartpole-swingup.toml")),
    ("pets-cartpole-swingup-paper", include_str!("../experiments/pets-cartpole-swingup-paper.toml")),
    ("icem-cartpole-swingup", include_str!("../experiments/icem-cartpole-swingup.toml")),
    ("pets-cartpole", include_str!("../experiments/pets-cartpole.toml")),
    ("pddm-cartpole", include_str!("../experiments/pddm-cartpole.toml")),
    ("pets-pendulum", include_str!("../experiments/pets-pendulum.toml")),
    ("pddm-pendulum", include_str!("../experiments/pddm-pendulum.toml")),
    ("cem-reacher", include_str!("../experiments/cem-reacher.toml")),
    ("pddm-point-mass", include_str!("../experiments/pddm-point-mass.toml")),
    ("learned-reward-pendulum", include_str!("../experiments/learned-reward-pendulum.toml")),
    ("learned-end-cartpole", include_str!("../experiments/learned-end-cartpole.toml")),
    ("gradient-pendulum", include_str!("../experiments/gradient-pendulum.toml")),
    ("gradient-reacher", include_str!("../experiments/gradient-reacher.toml")),
    ("icem-reacher", include_str!("../experiments/icem-reacher.toml")),
    ("gymnasium", include_str!("../experiments/gymnasium.toml")),
    ("process-pendulum", include_str!("../experiments/process-pendulum.toml")),
    ("ground-truth-cartpole-swingup", include_str!("../experiments/ground-truth-cartpole-swingup.toml")),
    ("sac-pendulum", include_str!("../experiments/sac-pendulum.toml")),
    ("sac-cartpole-swingup", include_str!("../experiments/sac-cartpole-swingup.toml")),
    ("sac-reacher", include_str!("../experiments/sac-reacher.toml")),
    ("td3-pendulum", include_str!("../experiments/td3-pendulum.toml")),
    ("latent-cartpole-swingup", include_str!("../experiments/latent-cartpole-swingup.toml")),
    ("latent-pendulum", include_str!("../experiments/latent-pendulum.toml")),
    ("mbpo-pendulum", include_str!("../experiments/mbpo-pendulum.toml")),
    ("mbpo-cartpole-swingup", include_str!("../experiments/mbpo-cartpole-swingup.toml")),
    ("dhmbpo-pendulum", include_str!("../experiments/dhmbpo-pendulum.toml")),
    ("dhmbpo-cartpole-swingup", include_str!("../experiments/dhmbpo-cartpole-swingup.toml")),
    ("npg-cartpole", include_str!("../experiments/npg-cartpole.toml")),
    ("npg-point-mass", include_str!("../experiments/npg-point-mass.toml")),
    ("td3-cartpole-swingup", include_str!("../experiments/td3-cartpole-swingup.toml")),
    ("pets-inverted-pendulum", include_str!("../experiments/pets-inverted-pendulum.toml")),
    ("pets-inverted-pendulum-paper", include_str!("../experiments/pets-inverted-pendulum-paper.toml")),
    ("pets-halfcheetah", include_str!("../experiments/pets-halfcheetah.toml")),
    ("pets-halfcheetah-paper", include_str!("../experiments/pets-halfcheetah-paper.toml")),
    ("pets-pusher", include_str!("../experiments/pets-pusher.toml")),
    ("pets-pusher-paper", include_str!("../experiments/pets-pusher-paper.toml")),
    ("pets-reacher", include_str!("../experiments/pets-reacher.toml")),
    ("pets-reacher-paper", include_str!("../experiments/pets-reacher-paper.toml")),
    ("pddm-halfcheetah", include_str!("../experiments/pddm-halfcheetah.toml")),
    ("pddm-halfcheetah-paper", include_str!("../experiments/pddm-halfcheetah-paper.toml")),
    ("ground-truth-halfcheetah", include_str!("../experiments/ground-truth-halfcheetah.toml")),
    ("ground-truth-hopper", include_str!("../experiments/ground-truth-hopper.toml")),
    ("sac-hopper", include_str!("../experiments/sac-hopper.toml")),
    ("dhmbpo-hopper", include_str!("../experiments/dhmbpo-hopper.toml")),
    ("dhmbpo-walker2d", include_str!("../experiments/dhmbpo-walker2d.toml")),
    ("dhmbpo-halfcheetah", include_str!("../experiments/dhmbpo-halfcheetah.toml")),
    ("value-cartpole-swingup", include_str!("../experiments/value-cartpole-swingup.toml")),
    ("value-icem-cartpole-swingup", include_str!("../experiments/value-icem-cartpole-swingup.toml")),
    ("value-point-mass-sparse", include_str!("../experiments/value-point-mass-sparse.toml")),
    ("value-hopper", include_str!("../experiments/value-hopper.toml")),
    ("distil-cartpole-swingup", include_str!("../experiments/distil-cartpole-swingup.toml")),
    ("distil-reacher", include_str!("../experiments/distil-reacher.toml")),
    ("explore-reacher", include_str!("../experiments/explore-reacher.toml")),
    ("explore-point-mass", include_str!("../experiments/explore-point-mass.toml")),
];

/// All tasks and experiments.
pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
        let own = Registry::new().tasks(tasks::entries()).experiments(EMBEDDED);
        own.tasks(mbrl_hand::tasks()).experiments(mbrl_hand::EXPERIMENTS).studies(mbrl_hand::STUDIES)
    });
    &REGISTRY
}

/// The outcome of an episode of a task, from all its observations, including the first one: figures with their names, the most informative
/// one first. Empty if a task is judged by its return alone.
pub(crate) fn outcomes(task: &str, observations: &[Vec<f32>]) -> Vec<(&'static str, f64)> {
    mbrl_hand::Score::of(task, observations).map_or(Vec::new(), |score| score.figures())
}

/// The experiments that come with this program, in the order in which they are listed.
pub(crate) fn embedded() -> impl Iterator<Item = Result<Experiment>> {
    registry().experiment_names().map(|name| Ok(registry().load(name, &[])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_experiment_is_whole_and_survives_writing() {
        let mut found = 0;
        for (experiment, name) in embedded().zip(registry().experiment_names()) {
            let experiment = experiment.unwrap();
            assert_eq!(experiment.name, name);
            assert!(!experiment.summary.is_empty(), "{name}");
            let text = experiment.to_toml().unwrap();
            assert_eq!(Experiment::from_toml(&text).unwrap(), experiment);
            found += 1;
        }
        assert_eq!(found, EMBEDDED.len() + mbrl_hand::EXPERIMENTS.len());
    }

    #[test]
    fn every_embedded_study_can_be_planned_and_its_pddm_has_pddms_planner() {
        let names: Vec<&str> = registry().study_names().collect();
        assert_eq!(names.len(), mbrl_hand::STUDIES.len());
        for name in names {
            let study = registry().load_study(name).unwrap();
            let plan = study.plan(registry()).unwrap();
            assert!(plan.experiments.len() >= study.methods.len(), "{name}");
            // The method of that name, whatever the experiment itself plans with.
            let (_, pddm) = plan.groups[0].methods.iter().find(|(method, _)| method == "PDDM").unwrap();
            let text = plan.experiments[*pddm].to_toml().unwrap();
            assert!(text.contains("kind = \"pddm\""), "{name}: {text}");
        }
    }
}
