//! The roles of a file's columns.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::DataError;

/// The columns that hold each part. Parts that are left out are looked up under usual names (see [the module](super)), among the
/// columns that do not belong to observation or action; for an optional part, an empty name says that there is none, whatever
/// the file holds.
///
/// A vector column stands for all of its entries. A name that contains commas and is not a column stands for several names;
/// quotes protect a comma in a name: `x,"speed (m/s), filtered"`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layout {
    /// Columns of the observation.
    pub obs: Vec<String>,
    /// Columns of the action.
    pub actions: Vec<String>,
    /// Columns of the observation after the action, with as many numbers as those of the observation.
    pub next_obs: Vec<String>,
    /// Column of the reward.
    pub reward: Option<String>,
    /// Column that says whether the task reached a terminal state: 0, 1, true or false.
    pub terminated: Option<String>,
    /// Column that says whether the episode was truncated from outside.
    pub truncated: Option<String>,
    /// Column that says whether the episode ended, but not why.
    pub done: Option<String>,
    /// Column that says whether an episode begins with this row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Column with the episode's number or name.
    pub episode: Option<String>,
    /// Column with the time, in any unit.
    pub time: Option<String>,
    /// Names of the columns, from the left, of a file without names (a CSV file without a header, a 2-D `.npy` file).
    pub names: Vec<String>,
    /// Columns of the observation that are angles in radians and turn all the way round.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub angles: Vec<String>,
    /// The same in degrees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub angles_deg: Vec<String>,
    /// Those of these angles whose turns count, as for a joint with a spring or a cable: they are unwrapped along each
    /// episode, from a first value within one turn. For angles not listed here, the data decide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub multi_turn: Vec<String>,
}

/// A column of a file.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Its unit, if the file gives one.
    pub(super) unit: String,
}

impl Field {
    pub(super) fn new(name: impl Into<String>, kind: Kind) -> Self {
        let name = name.into();
        let unit = unit_of(&name).unwrap_or_default().to_owned();
        Self { name, kind, unit }
    }
}

/// The unit in a name such as `speed (m/s)` or `Position [m]`.
fn unit_of(name: &str) -> Option<&str> {
    let (open, close) = [("(", ")"), ("[", "]")].into_iter().find(|(_, close)| name.ends_with(close))?;
    let inner = name.strip_suffix(close)?;
    let unit = &inner[inner.rfind(open)? + 1..];
    // `obs[0]` is an index.
    (!unit.is_empty() && unit.chars().count() <= 12 && unit.parse::<f64>().is_err()).then_some(unit)
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// This many numbers per row.
    Numbers(usize),
    /// Text: usable as the name of an episode or as a calendar time.
    Text,
    /// Unusable data, with advice.
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
    Start,
    Episode,
    Time,
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Obs => "observation",
            Self::Action => "action",
            Self::NextObs => "next observation",
            Self::Reward => "reward",
            Self::Terminated => "terminated",
            Self::Truncated => "truncated",
            Self::Done => "done",
            Self::Start => "start",
            Self::Episode => "episode",
            Self::Time => "time",
        }
    }

    pub(super) fn is_vector(self) -> bool {
        matches!(self, Self::Obs | Self::Action | Self::NextObs)
    }

    pub(super) fn is_flag(self) -> bool {
        matches!(self, Self::Terminated | Self::Truncated | Self::Done | Self::Start)
    }

    /// Names under which it is looked up.
    fn usual(self) -> &'static [&'static str] {
        match self {
            Self::Obs => &["obs", "observation", "observations", "observation.state", "state", "states"],
            Self::Action => &["action", "actions", "acts"],
            Self::NextObs => &[],
            Self::Reward => &["reward", "rewards", "next.reward"],
            Self::Terminated => {
                &["terminated", "terminations", "terminals", "terminal", "is_terminal", "next.terminated"]
            }
            Self::Truncated => &["truncated", "truncations", "timeouts", "timeout", "next.truncated"],
            Self::Done => &["done", "dones", "next.done", "is_last"],
            Self::Start => &["episode_starts", "episode_start", "is_first"],
            Self::Episode => &["episode", "episode_id", "episode_index"],
            Self::Time => &["time", "t", "timestamp", "timestamps", "step", "frame_index"],
        }
    }
}

/// Whether a time column counts rows, judging by its name.
pub(super) fn counts_rows(name: &str) -> bool {
    ["step", "frame_index"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// A column that is read.
#[derive(Debug, Clone)]
pub(super) struct Use {
    /// Index of the column.
    pub(super) field: usize,
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) part: Part,
    /// Where its first number goes within the part.
    pub(super) offset: usize,
    /// Numbers per row.
    pub(super) width: usize,
    /// Whether it was not named by the user, but found by a usual name.
    pub(super) guessed: bool,
    /// Names of its entries, if the data set gives them.
    pub(super) entries: Vec<String>,
}

/// All columns that are read, in the order of the parts. There may be several guesses for the time and the episode: the
/// values decide which one is right.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) uses: Vec<Use>,
    /// The layout with the columns of observation and action that were found.
    pub(super) layout: Layout,
}

impl Plan {
    /// How many numbers a part has.
    pub(super) fn width(&self, part: Part) -> usize {
        self.of(part).map(|(_, u)| u.width).sum()
    }

    pub(super) fn has(&self, part: Part) -> bool {
        self.of(part).next().is_some()
    }

    /// Names of the numbers of a part.
    pub(super) fn entries(&self, part: Part) -> Vec<String> {
        let entry = |(_, u): (usize, &Use)| match u.width {
            width if u.entries.len() == width => u.entries.clone(),
            1 => vec![u.name.clone()],
            width => (0..width).map(|i| format!("{}[{i}]", u.name)).collect(),
        };
        self.of(part).flat_map(entry).collect()
    }

    /// Units of the numbers of a part; empty where the file gives none.
    pub(super) fn units(&self, part: Part) -> Vec<String> {
        self.of(part).flat_map(|(_, u)| vec![u.unit.clone(); u.width]).collect()
    }

    /// The uses of a part, with their indices.
    pub(super) fn of(&self, part: Part) -> impl Iterator<Item = (usize, &Use)> {
        self.uses.iter().enumerate().filter(move |(_, u)| u.part == part)
    }
}

impl Layout {
    /// Finds the columns among those of a file. Columns that this layout leaves out are taken from `stored` if the file has them.
    pub(super) fn plan(&self, stored: Option<&Self>, path: &Path, fields: &[Field]) -> Result<Plan, DataError> {
        let columns = Columns { path, fields };
        let obs = columns.vector(self.named(stored, |l| &l.obs), Part::Obs)?;
        let actions = columns.vector(self.named(stored, |l| &l.actions), Part::Action)?;
        let next_obs = columns.resolved(&self.next_obs);
        let following = |prefix: &str| obs.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>();
        let next_obs = if !next_obs.is_empty() {
            next_obs.into_iter().filter(|name| !name.is_empty()).collect()
        } else {
            let there = |names: &Vec<String>| names.iter().any(|name| columns.has(name));
            // It is no error if this file lacks the stored ones: the next row has them.
            let stored = stored.map(|l| l.next_obs.clone()).filter(|names| there(names));
            let guesses = [following("next_"), following("next.")];
            stored.into_iter().chain(guesses).find(there).unwrap_or_default()
        };

        let mut layout = Self { obs: obs.clone(), actions: actions.clone(), ..self.clone() };
        layout.angles = columns.resolved(self.named(stored, |l| &l.angles));
        layout.angles_deg = columns.resolved(self.named(stored, |l| &l.angles_deg));
        layout.multi_turn = columns.resolved(self.named(stored, |l| &l.multi_turn));
        let mut plan = Plan { uses: Vec::new(), layout };
        for (part, names) in [(Part::Obs, obs), (Part::Action, actions), (Part::NextObs, next_obs)] {
            let mut offset = 0;
            columns.present(&names)?;
            for name in names {
                let Some(column) = columns.found(part, name, false)? else { continue };
                offset += column.width;
                plan.uses.push(Use { offset: offset - column.width, ..column });
            }
        }
        let (expected, actual) = (plan.width(Part::Obs), plan.width(Part::NextObs));
        if actual != 0 && actual != expected {
            return Err(crate::EnvError::Width { what: "next observation".into(), expected, actual }.into());
        }
        type Single = fn(&Layout) -> &Option<String>;
        let singles: [(Part, Single); 7] = [
            (Part::Reward, |l| &l.reward),
            (Part::Terminated, |l| &l.terminated),
            (Part::Truncated, |l| &l.truncated),
            (Part::Done, |l| &l.done),
            (Part::Start, |l| &l.start),
            (Part::Episode, |l| &l.episode),
            (Part::Time, |l| &l.time),
        ];
        for (part, of) in singles {
            let stored = stored.and_then(|l| of(l).as_deref()).filter(|name| name.is_empty() || columns.has(name));
            match of(self).as_deref().or(stored) {
                Some("") => {}
                Some(name) => {
                    columns.present(&[name.to_owned()])?;
                    plan.uses.extend(columns.found(part, name.to_owned(), false)?);
                }
                None => {
                    let free = |name: &&str| !plan.uses.iter().any(|u| u.name == **name);
                    let names: Vec<&str> = columns.usual(part).filter(free).collect();
                    // If there are several, the values decide which one is the time or the episode.
                    let most = if matches!(part, Part::Time | Part::Episode) { usize::MAX } else { 1 };
                    for name in names.into_iter().take(most) {
                        plan.uses.extend(columns.found(part, name.to_owned(), true)?);
                    }
                }
            }
        }
        Ok(plan)
    }

    /// The columns of the observation among `names`, before anything is known about their content.
    #[cfg(any(feature = "numpy", feature = "parquet"))]
    pub(super) fn obs_columns(&self, stored: Option<&Self>, path: &Path, fields: &[Field]) -> Vec<String> {
        let columns = Columns { path, fields };
        columns.vector(self.named(stored, |l| &l.obs), Part::Obs).unwrap_or_default()
    }

    fn named<'a>(&'a self, stored: Option<&'a Self>, of: fn(&Self) -> &Vec<String>) -> &'a [String] {
        match stored {
            Some(stored) if of(self).is_empty() => of(stored),
            _ => of(self),
        }
    }
}

/// Names separated by commas; quotes keep the comma of a name.
///
/// ```
/// assert_eq!(mbrl_env::data::split_names("x,\"speed (m/s), filtered\""), ["x", "speed (m/s), filtered"]);
/// ```
#[must_use]
pub fn split_names(names: &str) -> Vec<String> {
    let (mut parts, mut quoted) = (vec![String::new()], false);
    for character in names.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => parts.push(String::new()),
            other => parts.last_mut().into_iter().for_each(|part| part.push(other)),
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

struct Columns<'a> {
    path: &'a Path,
    fields: &'a [Field],
}

impl<'a> Columns<'a> {
    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name == name)
    }

    /// Names, with comma-separated lists split up.
    fn resolved(&self, named: &[String]) -> Vec<String> {
        let whole = |name: &String| self.has(name) || !name.contains([',', '"']);
        named.iter().flat_map(|name| if whole(name) { vec![name.clone()] } else { split_names(name) }).collect()
    }

    /// Columns whose names are usual for a part, the most usual first. Case and a unit behind the name do not matter.
    fn usual(&self, part: Part) -> impl Iterator<Item = &'a str> {
        let fields = self.fields;
        let bare = |name: &'a str| match unit_of(name) {
            Some(unit) => name[..name.len() - unit.len() - 2].trim_end(),
            None => name,
        };
        part.usual().iter().flat_map(move |usual| {
            let names = fields.iter().map(|field| field.name.as_str());
            names.filter(move |name| bare(name).eq_ignore_ascii_case(usual))
        })
    }

    /// The columns that were named, or else the usual ones.
    fn vector(&self, named: &[String], part: Part) -> Result<Vec<String>, DataError> {
        if !named.is_empty() {
            return Ok(self.resolved(named));
        }
        for base in part.usual() {
            if self.has(base) {
                return Ok(vec![(*base).to_owned()]);
            }
            let number = |field: &Field| field.name.strip_prefix(base)?.strip_prefix('_')?.parse::<usize>().ok();
            if let Some(last) = self.fields.iter().filter_map(number).max() {
                // A gap in the numbering shows as a missing column; no more are looked for than there can be.
                return Ok((0..=last.min(self.fields.len())).map(|i| format!("{base}_{i}")).collect());
            }
        }
        Err(self.missing(vec![format!("{}_0", part.usual()[0])]))
    }

    fn present(&self, names: &[String]) -> Result<(), DataError> {
        let missing: Vec<String> = names.iter().filter(|name| !self.has(name)).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(self.missing(missing)) }
    }

    /// A column as it is to be read.
    fn found(&self, part: Part, name: String, guessed: bool) -> Result<Option<Use>, DataError> {
        let mut found = self.fields.iter().enumerate().filter(|(_, field)| field.name == name);
        let Some((field, Field { kind, unit, .. })) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(DataError::Duplicate { path: self.path.to_owned(), column: name });
        }
        let width = match kind {
            Kind::Numbers(width) if part.is_vector() && *width > 0 => *width,
            Kind::Numbers(1) => 1,
            Kind::Text if matches!(part, Part::Episode | Part::Time) => 1,
            // A guess: something else of that name.
            _ if guessed && matches!(part, Part::Episode | Part::Time | Part::Start) => return Ok(None),
            _ => {
                let found = match kind {
                    Kind::Numbers(width) => format!("{width} numbers a row"),
                    Kind::Text => "text".into(),
                    Kind::Other(what) => what.clone(),
                };
                let expected = if part.is_vector() { "numbers" } else { "one number a row" };
                return Err(DataError::Column { path: self.path.to_owned(), column: name, found, expected });
            }
        };
        let unit = unit.clone();
        Ok(Some(Use { field, name, unit, part, offset: 0, width, guessed, entries: Vec::new() }))
    }

    fn missing(&self, missing: Vec<String>) -> DataError {
        // Names that differ only in case and punctuation, or where one contains the other.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_a_comma_and_brackets_are_a_unit() {
        assert_eq!(split_names("a, b"), ["a", "b"]);
        assert_eq!(split_names("a,\"b (m/s), filtered\",c"), ["a", "b (m/s), filtered", "c"]);
        assert_eq!(unit_of("speed (m/s)"), Some("m/s"));
        assert_eq!(unit_of("x[m]"), Some("m"));
        assert_eq!((unit_of("obs[0]"), unit_of("x"), unit_of("()")), (None, None, None));
    }
}
