//! The output of a reader: the columns of a plan, as numbers.

use std::{borrow::Cow, collections::HashMap, path::PathBuf};

use super::{
    DataError, Place,
    layout::{Part, Plan, Use},
};

pub(super) const NUMBER: &str = "a finite number";
pub(super) const FLAG: &str = "0, 1, true or false";

/// A value that cannot be used; the reader knows its position.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) found: String,
    pub(super) expected: Cow<'static, str>,
}

impl Fault {
    pub(super) fn new(found: impl Into<String>, expected: impl Into<Cow<'static, str>>) -> Self {
        Self { found: found.into(), expected: expected.into() }
    }
}

/// A file's columns.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) path: PathBuf,
    pub(super) plan: Plan,
    /// One for each use of the plan.
    pub(super) columns: Vec<Column>,
    pub(super) rows: usize,
    /// Line of each row of a text; empty if rows are counted.
    pub(super) lines: Vec<u64>,
    /// Rows before which the file itself has a break (a blank line, a new array), in rising order.
    pub(super) breaks: Vec<usize>,
    /// Notes about how the file was read.
    pub(super) notes: Vec<String>,
}

/// One column.
#[derive(Debug, Default)]
pub(super) struct Column {
    /// `[rows, width]`, row by row; NaN stands for nothing.
    pub(super) values: Vec<f64>,
    /// The names that the numbers stand for, if the column holds names.
    names: Vec<String>,
    known: HashMap<String, usize>,
    /// The first cell of a guessed column that is not a number, with its row, and the number of such cells.
    pub(super) unreadable: Option<(usize, String)>,
    pub(super) unreadable_count: usize,
}

impl Column {
    pub(super) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// Appends a name.
    fn push_name(&mut self, name: &str) {
        let number = match self.known.get(name) {
            Some(number) => *number,
            None => {
                self.known.insert(name.to_owned(), self.names.len());
                self.names.push(name.to_owned());
                self.names.len() - 1
            }
        };
        self.values.push(number as f64);
    }

    /// The value of a row for a message.
    pub(super) fn shown(&self, row: usize) -> String {
        let value = self.values[row];
        match self.names.get(value as usize) {
            Some(name) if value >= 0.0 => format!("`{}`", shortened(name)),
            _ => value.to_string(),
        }
    }
}

impl Table {
    pub(super) fn new(path: impl Into<PathBuf>, plan: Plan) -> Self {
        let columns = plan.uses.iter().map(|_| Column::default()).collect();
        let (lines, breaks, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { path: path.into(), plan, columns, rows: 0, lines, breaks, notes }
    }

    /// The position of a row in the file.
    pub(super) fn place(&self, row: usize) -> Place {
        self.lines.get(row).map_or(Place::Row(row as u64), |line| Place::Line(*line))
    }

    pub(super) fn fault(&self, row: usize, index: usize, fault: Fault) -> DataError {
        let Use { name, part, guessed, .. } = &self.plan.uses[index];
        DataError::Value {
            path: self.path.clone(),
            at: self.place(row),
            column: name.clone(),
            found: fault.found,
            expected: fault.expected.into_owned(),
            part: part.name(),
            guessed: *guessed,
        }
    }

    /// Appends a cell of text to column `index` of the plan.
    pub(super) fn text(&mut self, index: usize, bytes: &[u8]) -> Result<(), Fault> {
        let Use { part, guessed, .. } = self.plan.uses[index];
        let column = &mut self.columns[index];
        let bytes = bytes.trim_ascii();
        if part == Part::Episode {
            match std::str::from_utf8(bytes) {
                Ok("") => column.push(f64::NAN),
                Ok(name) => column.push_name(name),
                Err(_) => return Err(Fault::new(quoted(bytes), "text in UTF-8")),
            }
            return Ok(());
        }
        let value = match parsed(bytes, part) {
            Some(value) => value,
            None if guessed && matches!(part, Part::Time | Part::Start) => {
                let row = column.values.len();
                column.unreadable.get_or_insert_with(|| (row, quoted(bytes)));
                column.unreadable_count += 1;
                f64::NAN
            }
            None => return Err(Fault::new(quoted(bytes), if part.is_flag() { FLAG } else { NUMBER })),
        };
        column.push(value);
        Ok(())
    }
}

/// A cell's number; NaN for nothing.
fn parsed(bytes: &[u8], part: Part) -> Option<f64> {
    let text = std::str::from_utf8(bytes).ok()?;
    if is_nothing(text) {
        return Some(f64::NAN);
    }
    if part == Part::Time {
        return number(text).or_else(|| calendar(text));
    }
    number(text)
}

/// Whether a cell stands for nothing.
pub(super) fn is_nothing(text: &str) -> bool {
    const WORDS: [&str; 9] = ["nan", "na", "n/a", "#n/a", "null", "none", "-nan", "nil", "<na>"];
    text.is_empty() || WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// A number as programs write it, with a decimal point or comma; `true` and `false` are 1 and 0.
pub(super) fn number(text: &str) -> Option<f64> {
    if let Ok(value) = text.parse::<f64>() {
        // By way of 64 bits it would be rounded twice, and a digit lost.
        let narrow = text.parse::<f32>().ok()?;
        return Some(match (value as f32).total_cmp(&narrow) {
            _ if !narrow.is_finite() || value.is_nan() => value,
            std::cmp::Ordering::Less => value.next_up(),
            std::cmp::Ordering::Greater => value.next_down(),
            std::cmp::Ordering::Equal => value,
        });
    }
    if text.eq_ignore_ascii_case("true") {
        return Some(1.0);
    }
    if text.eq_ignore_ascii_case("false") {
        return Some(0.0);
    }
    // `1,234,567` and `1,234.5` are ambiguous.
    let (whole, fraction) = text.split_once(',')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (digits_behind, exponent) = match fraction.split_once(['e', 'E']) {
        Some((digits, _)) => (digits, true),
        None => (fraction, false),
    };
    let before = whole.trim_start_matches(['+', '-']);
    (digits(digits_behind) && (digits(before) || before.is_empty() && !exponent))
        .then(|| format!("{whole}.{fraction}"))
        .and_then(|text| number(&text))
}

/// Seconds from `2024-05-01T10:00:00.02+02:00`, `2024-05-01 10:00:00` or `10:00:00.02`: since 1970, or since midnight.
pub(super) fn calendar(text: &str) -> Option<f64> {
    let whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok()).flatten();
    let (day, clock) = match text.split_once(['T', ' ']) {
        Some((date, clock)) => {
            let mut parts = date.splitn(3, ['-', '/']).map(whole);
            let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
            if year < 1000 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
                return None;
            }
            // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March.
            let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
            let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
            let day_of_year = (153 * month + 2) / 5 + day - 1;
            let days = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
            (era * 146_097 + days - 719_468, clock.trim())
        }
        None => (0, text),
    };
    let clock = clock.trim_end_matches(['Z', 'z']).trim_end();
    // An offset from UTC.
    let (clock, shift) = match clock.rfind(['+', '-']) {
        Some(at) => {
            let zone = clock[at + 1..].replace(':', "");
            let (hours, minutes) = zone.split_at_checked(2)?;
            let seconds = 3600 * whole(hours)? + 60 * if minutes.is_empty() { 0 } else { whole(minutes)? };
            (&clock[..at], if clock[at..].starts_with('+') { -seconds } else { seconds })
        }
        None => (clock, 0),
    };
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (whole(parts.next()?)?, whole(parts.next()?)?);
    let second = parts.next().map_or(Some(0.0), |text| text.replace(',', ".").parse::<f64>().ok())?;
    if hour > 24 || minute > 59 || !(0.0..62.0).contains(&second) {
        return None;
    }
    Some((day * 86_400 + hour * 3600 + minute * 60 + shift) as f64 + second)
}

/// A number for a message: large ones with their power of ten.
pub(super) fn shown(value: f64) -> String {
    if value.abs() < 1e15 { value.to_string() } else { format!("{value:?}") }
}

/// A cell for a message.
pub(super) fn quoted(bytes: &[u8]) -> String {
    match bytes {
        [] => "nothing".into(),
        _ => format!("`{}`", shortened(&String::from_utf8_lossy(bytes))),
    }
}

/// At most 40 characters, without those that move a cursor.
fn shortened(text: &str) -> String {
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", clean(&text[..end])),
        None => clean(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_the_ways_of_programs() {
        for (text, expected) in [
            ("1.5", 1.5),
            ("-1e3", -1000.0),
            ("+3", 3.0),
            (".5", 0.5),
            ("0,1257", 0.1257),
            ("-0,5e-3", -0.0005),
            (",5", 0.5),
            ("True", 1.0),
            ("FALSE", 0.0),
            // Read once as a double, and once more as the nearest float.
            ("1e300", 1e300),
        ] {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for text in ["1,234,567", "1,234.5", "abc", "1 2", "0x10", "12 m", ",", "1,"] {
            assert_eq!(number(text), None, "{text}");
        }
        assert!(["", "NaN", "n/a", "NULL", "<NA>"].into_iter().all(is_nothing) && !is_nothing("0"));
    }

    #[test]
    fn times_of_the_calendar_are_seconds() {
        for (text, expected) in [
            ("1970-01-01T00:00:00", 0.0),
            ("2024-05-01T10:00:00.25", 1_714_557_600.25),
            ("2024-05-01 12:00:00+02:00", 1_714_557_600.0),
            ("2024/02/29 00:00:00Z", 1_709_164_800.0),
            ("1969-12-31T23:59:59", -1.0),
            ("10:00:01.5", 36_001.5),
            ("10:30", 37_800.0),
        ] {
            assert_eq!(calendar(text), Some(expected), "{text}");
        }
        for text in ["noon", "2024-13-01T00:00:00", "05/01/2024 10:00", "1:99:00", "12", "1.5"] {
            assert_eq!(calendar(text), None, "{text}");
        }
    }

    #[test]
    fn a_long_cell_is_cut() {
        assert_eq!(quoted(&[b'x'; 1000]).chars().count(), 43);
        assert_eq!(quoted(b"\x1b[2J"), "`\u{fffd}[2J`");
    }
}
