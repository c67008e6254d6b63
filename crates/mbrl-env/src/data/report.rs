//! What to know about a log before anything is learned from it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::clock;

/// Number of values from which quantiles are computed.
const SAMPLE: usize = 100_000;
/// A change that is this many times the 99th percentile of the others is a jump.
const JUMP: f64 = 5.0;
/// Share of rows in which a column keeps its value from which on this is reported.
const HELD: f64 = 0.5;
/// Maximum number of levels of a column that counts as quantised, and their minimum distance in typical changes.
const LEVELS: usize = 4096;
/// Changes below this many units in the last place of `f32` are lost in its rounding.
pub(super) const RESOLUTION: f64 = 100.0;

/// Why an episode ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EndCause {
    /// A row that is terminated.
    Terminated,
    /// A row that is truncated.
    Truncated,
    /// A row that is done, for an unknown reason.
    Done,
    /// The next row has another value in the episode column.
    EpisodeColumn,
    /// The next row is marked as the first of an episode.
    Start,
    /// The time goes back or stands still.
    TimeBack,
    /// The time jumps ahead: rows are missing.
    TimeGap,
    /// A row lacks a value.
    MissingValue,
    /// A row that holds only the last observation.
    LastObservation,
    /// A blank line, or the next of several arrays.
    Break,
    /// Rows of several episodes were interleaved.
    Interleaved,
    /// Observations jump, at the same distance each time.
    Jump,
    /// Episodes were said to have this many rows.
    Rows,
    /// A file ends.
    File,
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminated => "terminated",
            Self::Truncated => "truncated",
            Self::Done => "done",
            Self::EpisodeColumn => "by the episode column",
            Self::Start => "at the start of the next one",
            Self::TimeBack => "where the time goes back or stands still",
            Self::TimeGap => "at a gap in the time",
            Self::MissingValue => "at a missing value",
            Self::LastObservation => "with a last observation",
            Self::Break => "at a break in the file",
            Self::Interleaved => "of interleaved rows",
            Self::Jump => "at a jump of the observation",
            Self::Rows => "after the rows of an episode",
            Self::File => "at the end of a file",
        })
    }
}

/// The role of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Taken {
    /// The part of a transition, for example `time`.
    pub part: String,
    /// The column.
    pub column: String,
    /// Whether it was guessed from the name, and not asked for.
    pub guessed: bool,
}

impl Taken {
    pub(super) fn new(part: &str, column: &str, guessed: bool) -> Self {
        Self { part: part.into(), column: column.into(), guessed }
    }
}

/// What the time column says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ClockReport {
    /// Median step, in the column's unit.
    pub period: f64,
    /// Standard deviation of the steps within episodes, in periods.
    pub jitter: f64,
    /// Number of steps out of bounds that the clock makes up for within a few rows: no cut.
    pub jittered: u64,
    /// Longest gap, in periods; 0 without one.
    pub longest_gap: f64,
}

/// One column of observations or actions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ColumnReport {
    /// Its name.
    pub name: String,
    /// Its unit, if the file gives one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// `observation`, `action` or `reward`.
    pub part: String,
    /// Lowest value.
    pub low: f64,
    /// Mean.
    pub mean: f64,
    /// Highest value.
    pub high: f64,
    /// Median of the changes from row to row that are not 0; 0 if nothing changes.
    pub typical_change: f64,
    /// Largest change from row to row.
    pub largest_change: f64,
    /// Number of missing values.
    pub missing: u64,
    /// Share of rows in which it keeps the value of the row before.
    pub held: f64,
    /// Share of rows in which it is exactly at its lowest or highest value: [`share_at_ends`].
    #[serde(default)]
    pub at_ends: f64,
    /// Distance between its levels, if it has few.
    pub quantum: Option<f64>,
    /// Number of changes far beyond all others, without wraps.
    pub jumps: u64,
    /// The first row with such a change.
    pub first_jump: Option<u64>,
    /// Number of changes of about one turn, if the column looks like a wrapped angle.
    pub wraps: u64,
    /// One turn in its unit: 2π or 360. 0 without wraps.
    pub turn: f64,
    /// Whether it was named as an angle.
    pub is_angle: bool,
    /// Offset subtracted before rounding to `f32`.
    pub offset: f64,
    /// Whether its changes are still lost in the rounding to `f32`.
    pub too_fine: bool,
}

impl ColumnReport {
    /// Whether it never changes.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.low == self.high
    }

    /// What is remarkable about it, for readers.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.is_constant() {
            remarks.push("never changes".to_owned());
        }
        if self.missing > 0 {
            remarks.push(format!("{} missing", self.missing));
        }
        if self.wraps > 0 {
            let turn = if self.turn < 7.0 { "2π".to_owned() } else { short(self.turn) };
            let advice = match (self.is_angle, self.turn < 7.0) {
                (true, _) => "",
                (false, true) => "; an angle? --angles",
                (false, false) => "; an angle in degrees? --angles-deg",
            };
            remarks.push(format!("jumps by about {turn} {} times{advice}", self.wraps));
        }
        if self.jumps > 0 {
            let first = self.first_jump.map(|row| format!(", first at row {row}")).unwrap_or_default();
            remarks.push(format!("{} jumps{first}", self.jumps));
        }
        if self.held >= HELD && !self.is_constant() {
            remarks.push(format!("keeps its value in {:.0} % of the rows", 100.0 * self.held));
        }
        if self.part == "observation" && self.at_ends >= CLIPPED {
            let share = 100.0 * self.at_ends;
            remarks.push(format!("at its lowest or highest value in {share:.0} % of the rows: clipped?"));
        }
        if let Some(quantum) = self.quantum {
            remarks.push(format!("in steps of {}", short(quantum)));
        }
        if self.offset != 0.0 {
            remarks.push(format!("minus {}: f32 could not hold its changes", self.offset));
        }
        if self.too_fine {
            remarks
                .push("WARNING: changes are below 100 units in the last place of f32; subtract an offset".to_owned());
        }
        remarks
    }
}

/// What a log holds, the roles of its columns, and what may be wrong with it. `Display` prints it for readers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DataReport {
    /// The files, in their order.
    pub files: Vec<String>,
    /// Number of rows.
    pub rows: u64,
    /// Number of transitions that they make.
    pub transitions: u64,
    /// Number of episodes with at least one transition.
    pub episodes: u64,
    /// Number of transitions of the shortest episode, and of the longest.
    pub lengths: [u64; 2],
    /// Rows with an action that make no transition, because no observation follows them.
    pub dropped: u64,
    /// Those among them that are terminated: terminations from which nothing can be learned.
    pub dropped_ends: u64,
    /// Transitions that are terminated.
    pub ends: u64,
    /// Rows left out for a missing value.
    pub missing_rows: u64,
    /// Rows left out because they repeat the one before, its time included.
    pub repeated_rows: u64,
    /// Rows that equal the one before in observation and action, if there is no time to distinguish them.
    pub equal_rows: u64,
    /// Notes about how it was read.
    pub notes: Vec<String>,
    /// Number of episodes that ended for each reason.
    pub causes: BTreeMap<EndCause, u64>,
    /// The roles of columns, besides observation and action.
    pub taken: Vec<Taken>,
    /// What the time column says.
    pub clock: Option<ClockReport>,
    /// The columns of observation, action and reward.
    pub columns: Vec<ColumnReport>,
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        self.table(f)
    }
}

impl DataReport {
    /// Everything except the columns: rows, episodes and why they end, roles of columns, the time, notes.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.lines(&mut text);
        text
    }

    fn lines(&self, f: &mut String) -> fmt::Result {
        use fmt::Write as _;
        match self.files.as_slice() {
            [one] => write!(f, "{one}")?,
            files => write!(f, "{} files from {} on", files.len(), files.first().map_or("", String::as_str))?,
        }
        let [shortest, longest] = self.lengths;
        writeln!(
            f,
            ": {}, {} in {} of {shortest} to {longest}",
            counted(self.rows, "row"),
            counted(self.transitions, "transition"),
            counted(self.episodes, "episode")
        )?;
        writeln!(f, "  {}", self.sources())?;
        if let Some(clock) = &self.clock {
            let ClockReport { period, jitter, jittered, longest_gap } = clock;
            write!(f, "  period {}, jitter {:.1} %", short(*period), 100.0 * jitter)?;
            if *jittered > 0 {
                write!(f, " ({jittered} steps out of bounds that the clock makes up for)")?;
            }
            if *longest_gap > 0.0 {
                write!(f, ", longest gap {} periods", short(*longest_gap))?;
            }
            writeln!(f)?;
        }
        let causes: Vec<String> = self.causes.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
        writeln!(f, "  episodes end: {}", causes.join(", "))?;
        if self.dropped > 0 {
            let verb = if self.dropped == 1 { "ends" } else { "end" };
            writeln!(f, "  {} {verb} an episode without a next observation, left out", counted(self.dropped, "row"))?;
        }
        if self.dropped_ends > 0 {
            let ends = counted(self.dropped_ends, "end");
            writeln!(f, "  {ends} among them are lost: a row of the last observation alone keeps an end")?;
        }
        for (count, what) in [
            (self.missing_rows, "without a value, left out"),
            (self.repeated_rows, "equal to the one before, its time included, left out"),
            (self.equal_rows, "equal to the one before in every column"),
        ] {
            if count > 0 {
                writeln!(f, "  {} {what}", counted(count, "row"))?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }

    /// The columns, one per line.
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |column: &ColumnReport| match column.unit.is_empty() || column.name.contains(&column.unit) {
            true => column.name.clone(),
            false => format!("{} ({})", column.name, column.unit),
        };
        let width = self.columns.iter().map(|c| name(c).chars().count()).max().unwrap_or(0).max("column".len());
        write!(
            f,
            "  {:<width$}  {:<11}  {:>10}  {:>10}  {:>10}  {:>14}",
            "column", "", "lowest", "mean", "highest", "largest change"
        )?;
        for column in &self.columns {
            let [low, mean, high, change] = [column.low, column.mean, column.high, column.largest_change].map(short);
            let line = format!(
                "  {:<width$}  {:<11}  {low:>10}  {mean:>10}  {high:>10}  {change:>14}  {}",
                name(column),
                column.part,
                column.remarks().join("; ")
            );
            write!(f, "\n{}", line.trim_end())?;
        }
        Ok(())
    }

    /// The roles of columns, in one line: "episodes by `run`, time `t`".
    #[must_use]
    pub fn sources(&self) -> String {
        let column = |part: &str| self.taken.iter().find(|taken| taken.part == part);
        let mut words = vec![match column("episode") {
            Some(taken) => format!("episodes by `{}`", taken.column),
            None => "no episode column".to_owned(),
        }];
        words.push(match column("time") {
            Some(taken) => format!("time `{}`", taken.column),
            None => "no time".to_owned(),
        });
        let others = self.taken.iter().filter(|taken| taken.part != "episode" && taken.part != "time");
        words.extend(others.map(|taken| format!("{} `{}`", taken.part, taken.column)));
        words.join(", ")
    }
}

/// A count with its noun.
fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// A number with as many digits as a table has room for.
pub(super) fn short(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || !value.is_finite() {
        return format!("{value}").replace("-0", "0");
    }
    let text = if !(1e-4..1e7).contains(&magnitude) {
        return format!("{value:.3e}");
    } else {
        let digits = (3 - magnitude.log10().floor() as i32).clamp(0, 8) as usize;
        format!("{value:.digits$}")
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Figures of one column, from its values and its changes within episodes, with the rows to which these lead.
pub(super) fn column(
    [name, unit, part]: [&str; 3],
    values: &[f64],
    changes: &[(usize, f64)],
    turn: Option<f64>,
) -> ColumnReport {
    let (mut low, mut high, mut sum, mut count) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0_u64);
    for value in values.iter().copied().filter(|value| value.is_finite()) {
        (low, high, sum, count) = (low.min(value), high.max(value), sum + value, count + 1);
    }
    let sizes = || changes.iter().map(|(_, change)| change.abs());
    let stride = changes.len().div_ceil(SAMPLE).max(1);
    let mut sample: Vec<f64> = sizes().step_by(stride).filter(|size| *size > 0.0).collect();
    sample.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| sample.get(((sample.len() as f64 - 1.0) * share).max(0.0) as usize).copied();

    // A wrapped angle never leaves its turn, and its changes are either whole turns or far below one.
    let turns = [std::f64::consts::TAU, 360.0];
    let wrap = turns.into_iter().chain(turn).find_map(|turn| {
        let is_wrap = |size: &f64| (0.8 * turn..=1.01 * turn).contains(size);
        let fits = high - low <= 1.01 * turn && high - low > 0.8 * turn;
        let wraps = sizes().filter(is_wrap).count() as u64;
        let others = sizes().filter(|size| !is_wrap(size)).fold(0.0, f64::max);
        (fits && wraps > 0 && others < 0.6 * turn).then_some((turn, wraps))
    });
    let (turn, wraps) = wrap.unwrap_or((0.0, 0));
    let is_wrap = |size: f64| wraps > 0 && size >= 0.8 * turn;
    let limit = quantile(0.99).map_or(f64::INFINITY, |usual| JUMP * usual);
    // With few changes, or only two states, none is far beyond the others.
    let limit = if sample.len() < 50 || sample.first() == sample.last() { f64::INFINITY } else { limit };
    let jumps: Vec<usize> =
        changes.iter().filter(|(_, c)| c.abs() > limit && !is_wrap(c.abs())).map(|(row, _)| *row).collect();
    let held = sizes().filter(|size| *size == 0.0).count() as f64 / changes.len().max(1) as f64;
    ColumnReport {
        name: name.to_owned(),
        unit: unit.to_owned(),
        part: part.to_owned(),
        low: if count == 0 { 0.0 } else { low },
        mean: if count == 0 { 0.0 } else { sum / count as f64 },
        high: if count == 0 { 0.0 } else { high },
        typical_change: quantile(0.5).unwrap_or(0.0),
        largest_change: sizes().fold(0.0, f64::max),
        missing: values.len() as u64 - count,
        held,
        at_ends: share_at_ends(values),
        quantum: quantum(values, quantile(0.5).unwrap_or(0.0)),
        jumps: jumps.len() as u64,
        first_jump: jumps.first().map(|row| *row as u64),
        wraps,
        turn,
        is_angle: false,
        offset: 0.0,
        too_fine: false,
    }
}

/// The share at the ends of a column from which on it is reported.
pub const CLIPPED: f64 = 0.05;

/// Share of a column's finite values that are exactly its lowest or its highest. Few are, unless the signal was clipped there: clipped
/// values do not hold the full state, and a one-step model cannot make up for that. 0 if fewer than 50 other levels occur, as for
/// switches and counters.
///
/// ```
/// use mbrl_env::data::share_at_ends;
///
/// let wave: Vec<f64> = (0..1000).map(|i| (0.1 * f64::from(i)).sin()).collect();
/// assert!(share_at_ends(&wave) < 0.01);
/// let clipped: Vec<f64> = wave.iter().map(|x| x.clamp(-0.5, 0.5)).collect();
/// assert!((share_at_ends(&clipped) - 2.0 / 3.0).abs() < 0.01);
/// assert_eq!(share_at_ends(&[0.0, 1.0, 1.0, 0.0]), 0.0);
/// ```
#[must_use]
pub fn share_at_ends(values: &[f64]) -> f64 {
    const LEVELS: usize = 50;
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let mut inside: Vec<f64> = finite().filter(|value| *value != low && *value != high).collect();
    let count = finite().count();
    let at_ends = (count - inside.len()) as f64 / count.max(1) as f64;
    // Avoids sorting a long log.
    let stride = inside.len().div_ceil(SAMPLE).max(1);
    inside = inside.into_iter().step_by(stride).collect();
    inside.sort_unstable_by(f64::total_cmp);
    inside.dedup();
    if inside.len() < LEVELS { 0.0 } else { at_ends }
}

/// The distance between a column's levels, if its changes are a few of them.
fn quantum(values: &[f64], typical_change: f64) -> Option<f64> {
    let stride = values.len().div_ceil(SAMPLE).max(1);
    let mut levels: Vec<f64> = values.iter().step_by(stride).copied().filter(|value| value.is_finite()).collect();
    let count = levels.len();
    levels.sort_unstable_by(f64::total_cmp);
    let scale = levels.last()?.abs().max(levels.first()?.abs());
    levels.dedup_by(|a, b| (*a - *b).abs() <= 1e-9 * scale);
    // Two states are a switch; as many levels as values are no levels.
    if levels.len() < 3 || levels.len() > LEVELS || 2 * levels.len() > count {
        return None;
    }
    let gaps = levels.windows(2).map(|w| w[1] - w[0]);
    let quantum = gaps.clone().fold(f64::INFINITY, f64::min);
    let is_whole = |gap: f64| (gap / quantum - (gap / quantum).round()).abs() < 0.01;
    (gaps.clone().all(is_whole) && typical_change > 0.0 && typical_change < 10.0 * quantum).then_some(quantum)
}

impl From<&clock::Clock> for ClockReport {
    fn from(clock: &clock::Clock) -> Self {
        let clock::Clock { period, jitter, jittered, longest_gap, .. } = *clock;
        Self { period, jitter, jittered, longest_gap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> ColumnReport {
        let changes: Vec<(usize, f64)> = (1..values.len()).map(|i| (i, values[i] - values[i - 1])).collect();
        column(["x", "", "observation"], values, &changes, None)
    }

    #[test]
    fn wraps_jumps_levels_and_held_values_are_seen() {
        let wrapped = |turn: f64| (0..400).map(|i| (0.01 * turn * f64::from(i)).rem_euclid(turn)).collect::<Vec<_>>();
        for turn in [std::f64::consts::TAU, 360.0] {
            let found = of(&wrapped(turn));
            assert_eq!((found.wraps, found.turn, found.jumps), (3, turn, 0));
        }
        // A swing of half a turn is no wrap, and neither is a large step of another quantity.
        let swing: Vec<f64> = (0..400).map(|i| 1.5 * (0.1 * f64::from(i)).sin()).collect();
        let found = of(&swing);
        assert_eq!((found.wraps, found.jumps, found.quantum), (0, 0, None));
        let mut jump = swing.clone();
        jump[200..].iter_mut().for_each(|x| *x += 20.0);
        assert_eq!((of(&jump).jumps, of(&jump).first_jump), (1, Some(200)));

        let coarse: Vec<f64> = swing.iter().map(|x| (x * 10.0).round() / 10.0).collect();
        assert!((of(&coarse).quantum.unwrap() - 0.1).abs() < 1e-9);
        let held: Vec<f64> = (0..400).map(|i| swing[i / 4 * 4]).collect();
        assert!((of(&held).held - 0.75).abs() < 0.01 && of(&swing).held == 0.0);
        let switch: Vec<f64> = (0..400).map(|i| f64::from(i / 100 % 2)).collect();
        assert_eq!((of(&switch).quantum, of(&switch).jumps), (None, 0));
        assert!(of(&[2.0; 9]).is_constant());
    }

    #[test]
    fn clipped_signals_are_seen() {
        let swing: Vec<f64> = (0..400).map(|i| 1.5 * (0.1 * f64::from(i)).sin()).collect();
        let remark = |values: &[f64]| of(values).remarks().join("; ");
        assert!(of(&swing).at_ends < 0.01 && !remark(&swing).contains("clipped"), "{}", remark(&swing));
        // A sine is below minus half of its amplitude for a third of the time; these are 6.4 of its periods.
        let clipped: Vec<f64> = swing.iter().map(|x| x.clamp(-0.75, f64::INFINITY)).collect();
        let found = remark(&clipped);
        assert!(found.contains("at its lowest or highest value in 32 % of the rows: clipped?"), "{found}");
        // Switches and counters are at their ends by nature, and actions are clipped on purpose.
        assert_eq!(of(&(0..400).map(|i| f64::from(i % 3)).collect::<Vec<_>>()).at_ends, 0.0);
        let action = ColumnReport { part: "action".into(), ..of(&clipped) };
        assert!(action.remarks().is_empty(), "{:?}", action.remarks());
        assert_eq!(share_at_ends(&[]), 0.0);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.02, "0.02"),
            (1.0, "1"),
            (-1234.5678, "-1235"),
            (5_300_000.1, "5300000"),
            (1e-9, "1.000e-9"),
            (0.123_456, "0.1235"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
