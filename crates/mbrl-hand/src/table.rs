//! Tables for a program's registry.

use mbrl_env::tasks::TaskEntry;

/// A task by its configuration; builds without MuJoCo know only its name.
#[cfg(feature = "mujoco")]
macro_rules! entry {
    ($name:literal, $summary:literal, $Config:ident) => {
        TaskEntry::new($name, $summary, |options| options.read::<crate::task::$Config>($name)?.task($name))
            .needing("mujoco")
    };
}
#[cfg(not(feature = "mujoco"))]
macro_rules! entry {
    ($name:literal, $summary:literal, $Config:ident) => {
        TaskEntry::missing($name, $summary, "mujoco")
    };
}

/// The tasks of this crate, by name; without the feature `mujoco` their names are known, and the error from making one says what it needs.
///
/// ```
/// let names: Vec<String> = mbrl_hand::tasks().iter().map(|entry| entry.name().to_owned()).collect();
/// assert_eq!(names[..4], ["valve", "baoding", "reorient", "write"]);
/// ```
#[must_use]
pub fn tasks() -> Vec<TaskEntry> {
    vec![
        entry!("valve", "turn a valve to an angle with a claw of three fingers (PDDM's task)", ValveConfig),
        entry!("baoding", "turn two balls round each other in a five-fingered hand (PDDM's task)", BaodingConfig),
        entry!("reorient", "turn a cube in the palm of a hand, and keep it (PDDM's task)", ReorientConfig),
        entry!("write", "lead a pencil along a path on paper with a hand (PDDM's task)", WriteConfig),
        entry!("baoding-adroit", "turn two balls round each other in PDDM's own hand", BaodingAdroitConfig),
        entry!("reorient-adroit", "turn a cube in the palm of PDDM's own hand", ReorientAdroitConfig),
        entry!(
            "AdroitHandPen",
            "turn a pen in the hand to an orientation (Gymnasium-Robotics' AdroitHandPen-v1)",
            AdroitPenConfig
        ),
    ]
}

/// The experiments of this crate: name and text.
pub const EXPERIMENTS: &[(&str, &str)] = &[
    ("ground-truth-valve", include_str!("../experiments/ground-truth-valve.toml")),
    ("ground-truth-baoding", include_str!("../experiments/ground-truth-baoding.toml")),
    ("ground-truth-baoding-clockwise", include_str!("../experiments/ground-truth-baoding-clockwise.toml")),
    ("ground-truth-baoding-place", include_str!("../experiments/ground-truth-baoding-place.toml")),
    ("ground-truth-reorient", include_str!("../experiments/ground-truth-reorient.toml")),
    ("ground-truth-baoding-adroit", include_str!("../experiments/ground-truth-baoding-adroit.toml")),
    ("ground-truth-reorient-adroit", include_str!("../experiments/ground-truth-reorient-adroit.toml")),
    ("ground-truth-write", include_str!("../experiments/ground-truth-write.toml")),
    ("ground-truth-write-eight", include_str!("../experiments/ground-truth-write-eight.toml")),
    ("ground-truth-write-unseen", include_str!("../experiments/ground-truth-write-unseen.toml")),
    ("pddm-valve", include_str!("../experiments/pddm-valve.toml")),
    ("pddm-valve-paper", include_str!("../experiments/pddm-valve-paper.toml")),
    ("pddm-baoding", include_str!("../experiments/pddm-baoding.toml")),
    ("pddm-baoding-paper", include_str!("../experiments/pddm-baoding-paper.toml")),
    ("pddm-baoding-adroit", include_str!("../experiments/pddm-baoding-adroit.toml")),
    ("pddm-reorient", include_str!("../experiments/pddm-reorient.toml")),
    ("pddm-reorient-paper", include_str!("../experiments/pddm-reorient-paper.toml")),
    ("pddm-reorient-adroit", include_str!("../experiments/pddm-reorient-adroit.toml")),
    ("pddm-write", include_str!("../experiments/pddm-write.toml")),
];

/// The studies of this crate, comparisons and ablations on one task each: name and text.
pub const STUDIES: &[(&str, &str)] =
    &[("valve", include_str!("../studies/valve.toml")), ("baoding", include_str!("../studies/baoding.toml"))];
