//! Scores of episodes, by their observations: PDDM's, and what tells a success from a stall.

use std::fmt;

use crate::task::{BaodingScore, ReorientScore, ValveScore, WriteScore};

/// What an episode of one of the tasks came to.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Score {
    /// `valve`.
    Valve(ValveScore),
    /// `baoding`.
    Baoding(BaodingScore),
    /// `reorient`.
    Reorient(ReorientScore),
    /// `write`.
    Write(WriteScore),
}

impl Score {
    /// The score of an episode of a task of this crate, by all its observations, the first one included. `None` for a task that has no
    /// score here, or an episode without a step.
    ///
    /// ```
    /// use mbrl_hand::Score;
    ///
    /// // The valve stands at its goal: columns 18 and 20.
    /// let observations = vec![vec![0.0; 21]; 41];
    /// assert_eq!(Score::of("valve", &observations).unwrap().to_string(), "0.000 rad from the goal, reached after 1 steps");
    /// ```
    #[must_use]
    pub fn of(task: &str, observations: &[Vec<f32>]) -> Option<Self> {
        let (_, after) = observations.split_first().filter(|(_, after)| !after.is_empty())?;
        Some(match task {
            "valve" => Self::Valve(ValveScore::of(after)),
            "baoding" => Self::Baoding(BaodingScore::of(observations, crate::task::FALLEN)),
            "baoding-adroit" => Self::Baoding(BaodingScore::of(observations, crate::task::FALLEN_ADROIT)),
            "reorient" | "reorient-adroit" => Self::Reorient(ReorientScore::of(after)),
            "write" => Self::Write(WriteScore::of(after)),
            _ => return None,
        })
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hit = |hit: Option<usize>| match hit {
            Some(steps) => format!("reached after {steps} steps"),
            None => "never reached".into(),
        };
        match self {
            Self::Valve(ValveScore { final_angle, hit: at }) => {
                write!(f, "{final_angle:.3} rad from the goal, {}", hit(*at))
            }
            Self::Baoding(BaodingScore { rotation, dropped, distance, final_distance }) => {
                let fate = if *dropped { "dropped" } else { "kept" };
                let (distance, last) = (distance * 1e3, final_distance * 1e3);
                write!(
                    f,
                    "{rotation:.0}°, {fate}, {distance:.1} mm from the targets, the first {last:.1} mm at the end"
                )
            }
            Self::Reorient(ReorientScore { final_angle, kept_angle, hit: at, dropped }) => {
                let fate = if *dropped { "dropped" } else { "kept" };
                write!(f, "{final_angle:.3} rad from the goal (at most {kept_angle:.3}), {fate}, {}", hit(*at))
            }
            Self::Write(WriteScore { error, height, lost }) => {
                let (error, height, fate) = (error * 1e3, height * 1e3, if *lost { "lost" } else { "kept" });
                write!(f, "tip {error:.2} mm from the path, {height:.2} mm high, {fate}")
            }
        }
    }
}
