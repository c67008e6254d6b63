//! From rows to transitions.

use std::{borrow::Cow, collections::HashSet, fmt, path::Path};

use super::{
    DataError, Log, Place,
    layout::{Part, Plan, Use},
};
use crate::{Replay, Transition};

pub(super) const NUMBER: &str = "a finite number";
const FLAG: &str = "0, 1, true or false";

/// A value that cannot be used; the reader knows where it stands.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) found: String,
    pub(super) expected: Cow<'static, str>,
}

impl Fault {
    pub(super) fn new(found: impl Into<String>, expected: impl Into<Cow<'static, str>>) -> Self {
        Self { found: found.into(), expected: expected.into() }
    }

    pub(super) fn at(self, path: &Path, at: Place, column: &Use) -> DataError {
        let (column, expected) = (column.name.clone(), self.expected.into_owned());
        DataError::Value { path: path.to_owned(), at, column, found: self.found, expected }
    }
}

/// Name of an episode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Episode {
    /// Bits of a number.
    Number(u64),
    Text(String),
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(bits) => write!(f, "{}", f64::from_bits(*bits)),
            Self::Text(text) => write!(f, "`{text}`"),
        }
    }
}

/// One row of a file, filled by a reader.
#[derive(Debug)]
pub(super) struct Row {
    /// What was read of it, save for the flag `truncated`, which `done` has a say in.
    step: Transition,
    truncated: bool,
    done: bool,
    episode: Episode,
    time: f64,
    /// Whether something of the step that follows the observation was given.
    given: bool,
    /// Index among the plan's columns of the first one of the step that was not.
    missing: Option<usize>,
}

impl Row {
    pub(super) fn new(plan: &Plan) -> Self {
        let obs = plan.width(Part::Obs);
        Self {
            step: Transition {
                obs: vec![0.0; obs],
                action: vec![0.0; plan.width(Part::Action)],
                reward: 0.0,
                next_obs: vec![0.0; obs],
                terminated: false,
                truncated: false,
            },
            truncated: false,
            done: false,
            episode: Episode::Number(0),
            time: 0.0,
            given: false,
            missing: None,
        }
    }

    /// Begins another row.
    pub(super) fn clear(&mut self) {
        self.given = false;
        self.missing = None;
    }

    /// Puts number `i` of a column.
    pub(super) fn number(&mut self, column: &Use, i: usize, value: f64) -> Result<(), Fault> {
        if !value.is_finite() {
            return Err(Fault::new(value.to_string(), NUMBER));
        }
        let slot = match column.part {
            Part::Obs => &mut self.step.obs,
            Part::Action => &mut self.step.action,
            Part::NextObs => &mut self.step.next_obs,
            _ => return self.single(column.part, value),
        };
        let narrow = value as f32;
        if !narrow.is_finite() {
            return Err(Fault::new(value.to_string(), "a number within the range of 32-bit floats"));
        }
        slot[column.offset + i] = narrow;
        self.given |= column.part != Part::Obs;
        Ok(())
    }

    fn single(&mut self, part: Part, value: f64) -> Result<(), Fault> {
        match part {
            Part::Time => self.time = value,
            // Adding 0 makes −0 the same episode as 0.
            Part::Episode => self.episode = Episode::Number((value + 0.0).to_bits()),
            Part::Reward => {
                self.step.reward = value;
                self.given = true;
            }
            _ => {
                let flag = match value {
                    0.0 => false,
                    1.0 => true,
                    _ => return Err(Fault::new(value.to_string(), FLAG)),
                };
                self.flag(part, flag);
            }
        }
        Ok(())
    }

    fn flag(&mut self, part: Part, flag: bool) {
        match part {
            Part::Terminated => self.step.terminated = flag,
            Part::Truncated => self.truncated = flag,
            _ => self.done = flag,
        }
        self.given = true;
    }

    /// Puts a column of one value that came as text.
    pub(super) fn text(&mut self, column: &Use, bytes: &[u8], index: usize) -> Result<(), Fault> {
        let bytes = bytes.trim_ascii();
        if bytes.is_empty() {
            return self.nothing(column, index);
        }
        let found = || format!("`{}`", String::from_utf8_lossy(bytes));
        let text = std::str::from_utf8(bytes);
        let parsed = match column.part {
            Part::Episode => {
                let text = text.map_err(|_| Fault::new(found(), "text in UTF-8"))?;
                if !matches!(&self.episode, Episode::Text(known) if known == text) {
                    self.episode = Episode::Text(text.to_owned());
                }
                return Ok(());
            }
            Part::Terminated | Part::Truncated | Part::Done => match text {
                Ok(word) if word.eq_ignore_ascii_case("true") => Some(1.0),
                Ok(word) if word.eq_ignore_ascii_case("false") => Some(0.0),
                word => word.ok().and_then(|word| word.parse().ok()),
            },
            Part::Reward | Part::Time => text.ok().and_then(|text| text.parse().ok()),
            // Directly: by way of 64 bits it would be rounded twice.
            Part::Obs | Part::Action | Part::NextObs => {
                match text.ok().and_then(|text| text.parse::<f32>().ok()) {
                    // Perhaps only too large.
                    Some(value) if value.is_infinite() => text.ok().and_then(|text| text.parse().ok()),
                    value => value.map(f64::from),
                }
            }
        };
        let expected = match column.part {
            Part::Terminated | Part::Truncated | Part::Done => FLAG,
            _ => NUMBER,
        };
        let value = parsed.ok_or_else(|| Fault::new(found(), expected))?;
        self.number(column, 0, value).map_err(|fault| Fault { found: found(), ..fault })
    }

    /// Says that a column (number `index` of the plan) holds nothing in this row.
    pub(super) fn nothing(&mut self, column: &Use, index: usize) -> Result<(), Fault> {
        match column.part {
            Part::Obs | Part::Time => Err(Fault::new("nothing", NUMBER)),
            Part::Episode => Err(Fault::new("nothing", "the name of an episode")),
            _ => {
                self.missing.get_or_insert(index);
                Ok(())
            }
        }
    }
}

/// Makes transitions of rows that come one after another.
#[derive(Debug)]
pub(super) struct Assembler<'a> {
    path: &'a Path,
    plan: &'a Plan,
    replay: Replay,
    /// The last row, where it waits for the observation after it.
    waiting: Option<Transition>,
    /// A transition to swap with, so that none is allocated for each row.
    spare: Option<Transition>,
    /// Of the last row.
    time: f64,
    episode: Option<Episode>,
    /// All that began.
    episodes: HashSet<Episode>,
    rows: u64,
    dropped: u64,
}

impl<'a> Assembler<'a> {
    pub(super) fn new(path: &'a Path, plan: &'a Plan) -> Result<Self, DataError> {
        Ok(Self {
            path,
            plan,
            replay: Replay::new(plan.width(Part::Obs), plan.width(Part::Action), usize::MAX)?,
            waiting: None,
            spare: Some(Row::new(plan).step),
            time: f64::NEG_INFINITY,
            episode: None,
            episodes: HashSet::new(),
            rows: 0,
            dropped: 0,
        })
    }

    /// Takes the next row; `at` says where it stands, for an error.
    pub(super) fn push(&mut self, row: &mut Row, at: &dyn Fn() -> Place) -> Result<(), DataError> {
        if let (true, Some(index)) = (row.given, row.missing) {
            let rule = "a value: only a row of nothing but the last observation of an episode leaves out the step";
            return Err(Fault::new("nothing", rule).at(self.path, at(), &self.plan.uses[index]));
        }
        let last_obs_only = row.missing.is_some();
        let cut = self.begins_episode(row, at)?;
        self.rows += 1;

        if let Some(mut step) = self.waiting.take() {
            // After an end, the last observation alone belongs to the same episode.
            if !cut && (last_obs_only || !step.episode_over()) {
                step.next_obs.copy_from_slice(&row.step.obs);
                self.replay.push(&step)?;
            } else {
                self.dropped += 1;
                self.replay.end_episode();
            }
            self.spare = Some(step);
        } else if cut {
            self.replay.end_episode();
        }
        if last_obs_only {
            self.replay.end_episode();
            return Ok(());
        }

        let by_done = row.done && !row.step.terminated;
        row.step.truncated = row.truncated || by_done;
        if self.plan.has(Part::NextObs) {
            self.replay.push(&row.step)?;
        } else if let Some(mut step) = self.spare.take() {
            // The next row overwrites what comes back: every row fills the same columns.
            std::mem::swap(&mut step, &mut row.step);
            self.waiting = Some(step);
        }
        Ok(())
    }

    /// Whether episode column or time say that this row does not follow the last one.
    fn begins_episode(&mut self, row: &Row, at: &dyn Fn() -> Place) -> Result<bool, DataError> {
        let mut cut = false;
        if self.plan.has(Part::Episode) && self.episode.as_ref() != Some(&row.episode) {
            if !self.episodes.insert(row.episode.clone()) {
                let (path, episode) = (self.path.to_owned(), row.episode.to_string());
                return Err(DataError::EpisodeAgain { path, at: at(), episode });
            }
            self.episode = Some(row.episode.clone());
            cut = true;
        }
        if self.plan.has(Part::Time) {
            cut |= row.time < self.time;
            self.time = row.time;
        }
        Ok(cut)
    }

    pub(super) fn finish(mut self) -> Result<Log, DataError> {
        self.dropped += u64::from(self.waiting.is_some());
        self.replay.end_episode();
        if self.rows == 0 {
            return Err(DataError::Empty { path: self.path.to_owned() });
        }
        if self.replay.is_empty() {
            return Err(DataError::NoTransition { path: self.path.to_owned(), rows: self.rows });
        }
        Ok(Log {
            replay: self.replay,
            layout: self.plan.layout.clone(),
            obs_names: self.plan.entries(Part::Obs),
            action_names: self.plan.entries(Part::Action),
            has_rewards: self.plan.has(Part::Reward),
            rows: self.rows,
            dropped: self.dropped,
        })
    }
}
