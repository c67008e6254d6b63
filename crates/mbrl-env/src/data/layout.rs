//! Which column of a file is what.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::DataError;

/// Which columns hold what. What is left out is looked for under usual names (see [the module](super)), among the columns
/// that are no part of observation and action; of the optional ones, an empty name says that there is none, whatever the
/// file holds.
///
/// A column of vectors stands for all of its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layout {
    /// Columns of the observation.
    pub obs: Vec<String>,
    /// Columns of the action.
    pub actions: Vec<String>,
    /// Columns of the observation after the action, as many numbers as those of the observation.
    pub next_obs: Vec<String>,
    /// Column of the reward.
    pub reward: Option<String>,
    /// Column that says whether the task reached an end state: 0, 1, true or false.
    pub terminated: Option<String>,
    /// Column that says whether the episode was cut from outside.
    pub truncated: Option<String>,
    /// Column that says whether the episode ended, but not why.
    pub done: Option<String>,
    /// Column of the episode's number or name.
    pub episode: Option<String>,
    /// Column of the time, in any unit: where it goes back, a new episode begins.
    pub time: Option<String>,
    /// Names of the columns of a file without names (a 2-D `.npy` file), from the left.
    pub names: Vec<String>,
}

/// A column of a file.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// So many numbers a row.
    Numbers(usize),
    /// Text, good for nothing but the name of an episode.
    Text,
    /// Something that cannot be used.
    Other(String),
}

/// A part of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Obs,
    Action,
    NextObs,
    Reward,
    Terminated,
    Truncated,
    Done,
    Episode,
    Time,
}

/// A column that is read.
#[derive(Debug, Clone)]
pub(super) struct Use {
    /// Index of the column.
    pub(super) field: usize,
    pub(super) name: String,
    pub(super) part: Part,
    /// Where its first number goes within the part.
    pub(super) offset: usize,
    /// Numbers a row.
    pub(super) width: usize,
}

/// All columns that are read, in the order of the parts.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) uses: Vec<Use>,
    /// The layout with the columns of observation and action that were found.
    pub(super) layout: Layout,
}

impl Plan {
    /// Numbers of a part.
    pub(super) fn width(&self, part: Part) -> usize {
        self.of(part).map(|u| u.width).sum()
    }

    pub(super) fn has(&self, part: Part) -> bool {
        self.of(part).next().is_some()
    }

    /// Names of the numbers of a part.
    pub(super) fn entries(&self, part: Part) -> Vec<String> {
        let entry = |u: &Use| match u.width {
            1 => vec![u.name.clone()],
            width => (0..width).map(|i| format!("{}[{i}]", u.name)).collect(),
        };
        self.of(part).flat_map(entry).collect()
    }

    fn of(&self, part: Part) -> impl Iterator<Item = &Use> {
        self.uses.iter().filter(move |u| u.part == part)
    }
}

impl Layout {
    /// Finds the columns among those of a file.
    pub(super) fn plan(&self, path: &Path, fields: &[Field]) -> Result<Plan, DataError> {
        let columns = Columns { path, fields };
        let obs = columns.vector(&self.obs, &["obs", "observation", "observations"])?;
        let actions = columns.vector(&self.actions, &["action", "actions"])?;
        let following: Vec<String> = obs.iter().map(|name| format!("next_{name}")).collect();
        let next_obs = if !self.next_obs.is_empty() {
            self.next_obs.iter().filter(|name| !name.is_empty()).cloned().collect()
        } else if following.iter().any(|name| columns.has(name)) {
            following
        } else {
            Vec::new()
        };

        let mut plan =
            Plan { uses: Vec::new(), layout: Self { obs: obs.clone(), actions: actions.clone(), ..self.clone() } };
        for (part, names) in [(Part::Obs, obs), (Part::Action, actions), (Part::NextObs, next_obs)] {
            columns.add(&mut plan, part, names)?;
        }
        let (expected, actual) = (plan.width(Part::Obs), plan.width(Part::NextObs));
        if actual != 0 && actual != expected {
            return Err(crate::EnvError::Width { what: "next observation".into(), expected, actual }.into());
        }
        for (part, named, usual) in [
            (Part::Reward, &self.reward, &["reward", "rewards"][..]),
            (Part::Terminated, &self.terminated, &["terminated", "terminations", "terminals"]),
            (Part::Truncated, &self.truncated, &["truncated", "truncations", "timeouts"]),
            (Part::Done, &self.done, &["done", "dones"]),
            (Part::Episode, &self.episode, &["episode", "episode_id", "episode_index"]),
            (Part::Time, &self.time, &["time", "t", "timestamp", "step"]),
        ] {
            let name = match named.as_deref() {
                Some("") => None,
                Some(name) => Some(name),
                None => {
                    usual.iter().copied().find(|name| columns.has(name) && !plan.uses.iter().any(|u| u.name == *name))
                }
            };
            columns.add(&mut plan, part, name.map(str::to_owned).into_iter().collect())?;
        }
        Ok(plan)
    }
}

struct Columns<'a> {
    path: &'a Path,
    fields: &'a [Field],
}

impl Columns<'_> {
    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name == name)
    }

    /// The columns that were named, or else the usual ones.
    fn vector(&self, named: &[String], usual: &[&str]) -> Result<Vec<String>, DataError> {
        if !named.is_empty() {
            return Ok(named.to_owned());
        }
        for base in usual {
            if self.has(base) {
                return Ok(vec![(*base).to_owned()]);
            }
            let number = |field: &Field| field.name.strip_prefix(base)?.strip_prefix('_')?.parse::<usize>().ok();
            if let Some(last) = self.fields.iter().filter_map(number).max() {
                // A gap among them comes out as a missing column; no more are looked for than there can be.
                return Ok((0..=last.min(self.fields.len())).map(|i| format!("{base}_{i}")).collect());
            }
        }
        Err(self.missing(vec![format!("{}_0", usual[0])]))
    }

    /// Adds the columns of a part to the plan.
    fn add(&self, plan: &mut Plan, part: Part, names: Vec<String>) -> Result<(), DataError> {
        let missing: Vec<String> = names.iter().filter(|name| !self.has(name)).cloned().collect();
        if !missing.is_empty() {
            return Err(self.missing(missing));
        }
        let mut offset = 0;
        for name in names {
            let mut found = self.fields.iter().enumerate().filter(|(_, field)| field.name == name);
            let Some((field, Field { kind, .. })) = found.next() else { continue };
            if found.next().is_some() {
                return Err(DataError::Duplicate { path: self.path.to_owned(), column: name });
            }
            let vector = matches!(part, Part::Obs | Part::Action | Part::NextObs);
            let width = match kind {
                Kind::Numbers(width) if vector && *width > 0 => *width,
                Kind::Numbers(1) => 1,
                Kind::Text if part == Part::Episode => 1,
                _ => {
                    let found = match kind {
                        Kind::Numbers(width) => format!("{width} numbers a row"),
                        Kind::Text => "text".into(),
                        Kind::Other(what) => what.clone(),
                    };
                    let expected = if vector { "numbers" } else { "one number a row" };
                    return Err(DataError::Column { path: self.path.to_owned(), column: name, found, expected });
                }
            };
            plan.uses.push(Use { field, name, part, offset, width });
            offset += width;
        }
        Ok(())
    }

    fn missing(&self, missing: Vec<String>) -> DataError {
        // Names that differ in case and punctuation alone, or hold each other.
        let letters = |name: &str| name.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
        let alike = |present: &str| {
            let present = letters(present);
            missing.iter().map(|name| letters(name)).any(|name| {
                let (short, long) = if name.len() < present.len() { (&name, &present) } else { (&present, &name) };
                present == name || short.len() >= 3 && long.contains(short.as_str())
            })
        };
        let present: Vec<String> = self.fields.iter().map(|field| field.name.clone()).collect();
        let near = present.iter().filter(|name| alike(name)).take(3).cloned().collect();
        DataError::Missing { path: self.path.to_owned(), missing, near, present }
    }
}
