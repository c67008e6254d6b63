//! Which checkpoints of a run there are, and which of them is the best.

use std::{fmt, fs, path::Path, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    STATE, State,
    run_files::{CHECKPOINTS, checkpoints_of},
};
use crate::Evaluation;

/// The best evaluation of a run: its checkpoint is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Best {
    /// Real steps at that evaluation, which name the checkpoint.
    pub env_step: u64,
    /// Its mean return.
    #[serde(with = "exact")]
    pub return_mean: f64,
    /// How many of its episodes broke down.
    pub breakdowns: usize,
}

/// A number as text: JSON's reader may miss its last bit, and of equal evaluations the first would then no longer be the best.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        /// Of runs from before.
        Number(f64),
    }

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => text.parse().map_err(D::Error::custom),
            Written::Number(number) => Ok(number),
        }
    }
}

impl Best {
    /// The best evaluation of a run, as recorded in its newest readable checkpoint; `None` before the first evaluation.
    #[must_use]
    pub fn of_run(folder: &Path) -> Option<Self> {
        let steps = checkpoints_of(folder).steps().unwrap_or_default();
        let state = |step: &u64| {
            let bytes = fs::read(folder.join(CHECKPOINTS).join(step.to_string()).join(STATE)).ok()?;
            serde_json::from_slice::<State>(&bytes).ok()
        };
        steps.iter().rev().find_map(state)?.best
    }

    /// Whether an evaluation is better than the best so far: fewer of its episodes broke down, or, if equally many did, the mean
    /// return is higher. Of equal ones the first is the best.
    pub(super) fn is_beaten_by(best: Option<&Self>, evaluation: &Evaluation) -> bool {
        let (breakdowns, mean) = (evaluation.breakdowns(), evaluation.return_mean());
        let better =
            |best: &Self| breakdowns < best.breakdowns || (breakdowns == best.breakdowns && mean > best.return_mean);
        mean.is_finite() && best.is_none_or(better)
    }
}

/// Which checkpoint of a run. Written `last`, `best`, or its real steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhichCheckpoint {
    /// The newest whole one.
    #[default]
    Last,
    /// That of the best evaluation.
    Best,
    /// The one after this many real steps, if it still exists.
    Step(u64),
}

impl fmt::Display for WhichCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Best => f.write_str("best"),
            Self::Step(step) => step.fmt(f),
        }
    }
}

impl Serialize for WhichCheckpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Step(step) => step.serialize(serializer),
            word => serializer.collect_str(word),
        }
    }
}

impl<'de> Deserialize<'de> for WhichCheckpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "\"last\", \"best\" or a number of steps")]
        enum Written {
            Step(u64),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Step(step) => Ok(Self::Step(step)),
            Written::Word(word) => {
                word.parse().map_err(|_| D::Error::custom("\"last\", \"best\" or a number of steps"))
            }
        }
    }
}

impl FromStr for WhichCheckpoint {
    type Err = String;

    /// ```
    /// use mbrl_policy::WhichCheckpoint;
    /// assert_eq!("best".parse(), Ok(WhichCheckpoint::Best));
    /// assert_eq!("400".parse(), Ok(WhichCheckpoint::Step(400)));
    /// assert!("newest".parse::<WhichCheckpoint>().is_err());
    /// ```
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "last" => Ok(Self::Last),
            "best" => Ok(Self::Best),
            _ => word.parse().map(Self::Step).map_err(|_| "expected best, last or a number of steps".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::Rng;

    use super::*;

    #[test]
    fn the_best_return_comes_back_to_the_bit() {
        let mut rng = Rng::new(0);
        for _ in 0..2000 {
            let return_mean = f64::from(rng.normal()) * 1e3 / 7.0;
            let best = Best { env_step: 5, return_mean, breakdowns: 0 };
            let back: Best = serde_json::from_str(&serde_json::to_string(&best).unwrap()).unwrap();
            assert_eq!(back.return_mean.to_bits(), return_mean.to_bits());
        }
        // As in earlier runs.
        let old: Best = serde_json::from_str(r#"{"env_step":5,"return_mean":-1.5,"breakdowns":0}"#).unwrap();
        assert_eq!(old.return_mean, -1.5);
    }
}
