//! From tables to transitions.

use std::collections::{BTreeMap, HashMap};

use super::{
    DataError, DataReport, Log, Missing, ReadOptions,
    clock::{self, Clock, Cut},
    input::Files,
    layout::{Part, Use, counts_rows},
    report::{self, EndCause, RESOLUTION, Taken},
    table::{FLAG, Fault, NUMBER, Table, shown},
    turns,
};
use crate::{AngleColumn, Replay, Transition};

/// A guess that ends an episode at more than this share of the rows is dropped.
const MOST_CUTS: f64 = 0.5;
const RANGE: &str = "a number within the range of 32-bit floats";
/// Fewer changes than this do not show which are typical.
const FEW: usize = 10;

/// What a row can be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Full,
    /// The last observation of an episode.
    LastOnly,
    /// A value is missing, in this column of its table.
    Missing(usize),
}

/// The rows of all files, part by part.
struct Rows {
    obs: Vec<f64>,
    actions: Vec<f64>,
    next_obs: Vec<f64>,
    rewards: Vec<f64>,
    terminated: Vec<f64>,
    truncated: Vec<f64>,
    done: Vec<f64>,
    start: Vec<f64>,
    classes: Vec<Class>,
    /// First row of each table.
    starts: Vec<usize>,
    obs_width: usize,
    action_width: usize,
}

impl Rows {
    fn obs(&self, row: usize) -> &[f64] {
        &self.obs[row * self.obs_width..][..self.obs_width]
    }

    fn action(&self, row: usize) -> &[f64] {
        &self.actions[row * self.action_width..][..self.action_width]
    }

    fn is_over(&self, row: usize) -> bool {
        self.cause(row).is_some()
    }

    /// What the flags of a row say about its end.
    fn cause(&self, row: usize) -> Option<EndCause> {
        let set = |flags: &[f64]| flags.get(row) == Some(&1.0);
        [
            (set(&self.terminated), EndCause::Terminated),
            (set(&self.truncated), EndCause::Truncated),
            (set(&self.done), EndCause::Done),
        ]
        .into_iter()
        .find_map(|(is_set, cause)| is_set.then_some(cause))
    }
}

/// Rows in the order of their episodes, with the cause that ends an episode before each.
struct Order {
    rows: Vec<usize>,
    begins: Vec<Option<EndCause>>,
}

/// Findings for the report.
#[derive(Default)]
struct Found {
    notes: Vec<String>,
    taken: Vec<Taken>,
    clock: Option<Clock>,
    repeated: u64,
}

/// Makes one log from the tables of all files.
pub(super) fn assemble(mut tables: Vec<Table>, files: &Files, options: &ReadOptions) -> Result<Log, DataError> {
    if options.max_gap.is_nan() || options.max_gap < 1.0 {
        let (value, rule) = (options.max_gap.to_string(), "a number of at least 1, in periods");
        return Err(DataError::Option { field: "max_gap", value, rule });
    }
    name_entries(&mut tables, files);
    same_columns(&tables)?;
    let mut rows = joined(&mut tables)?;
    let count = rows.classes.len();
    let first = &tables[0];
    if count == 0 {
        return Err(DataError::Empty { path: first.path.clone() });
    }
    let mut found = Found { notes: files.notes.clone(), ..Found::default() };
    for table in &tables {
        for note in &table.notes {
            let note = if tables.len() == 1 { note.clone() } else { format!("{}: {note}", table.path.display()) };
            // For many similar files, the first notes are enough.
            if found.notes.len() < 8 {
                found.notes.push(note);
            }
        }
    }

    let mut order = ordered(&tables, &mut rows, options, &mut found)?;
    if !tables.iter().any(|table| table.plan.has(Part::NextObs)) {
        regular_jumps(&rows, &mut order, &tables, &mut found);
    }
    classes_allowed(&tables, &rows, options.missing)?;
    let mut columns = column_reports(&tables, &rows, &changes(&rows, &order), options)?;
    let unwrapped = multi_turn(&mut tables, &mut rows, &order, &columns, options, &mut found)?;
    if !unwrapped.is_empty() {
        let wraps: Vec<(usize, u64, f64)> =
            unwrapped.iter().map(|column| (*column, columns[*column].wraps, columns[*column].turn)).collect();
        columns = column_reports(&tables, &rows, &changes(&rows, &order), options)?;
        // The wraps that the file holds.
        wraps.into_iter().for_each(|(column, wraps, turn)| {
            (columns[column].wraps, columns[column].turn) = (wraps, turn);
        });
    }
    let offsets: Vec<f64> = columns.iter().take(rows.obs_width).map(|column| column.offset).collect();
    let named = angles(&tables[0], &columns)?;
    let angles: Vec<AngleColumn> = named.iter().filter(|angle| !unwrapped.contains(&angle.column)).copied().collect();
    let mut built = build(&tables, &rows, &order, &offsets)?;
    let plan = &tables[0].plan;
    let taken_of = |part: Part| plan.of(part).next().map(|(_, u)| Taken::new(part.name(), &u.name, u.guessed));
    let others = [Part::NextObs, Part::Reward, Part::Terminated, Part::Truncated, Part::Done, Part::Start];
    found.taken.extend(others.into_iter().filter_map(taken_of));

    let lengths: Vec<u64> = built.replay.episodes().map(|episode| episode.len() as u64).collect();
    let mut report = DataReport {
        files: tables.iter().map(|table| table.path.display().to_string()).collect(),
        rows: count as u64,
        transitions: built.replay.len() as u64,
        episodes: lengths.len() as u64,
        lengths: [lengths.iter().copied().min().unwrap_or(0), lengths.iter().copied().max().unwrap_or(0)],
        dropped: built.dropped,
        dropped_ends: built.dropped_ends,
        ends: built.replay.columns().terminated.iter().filter(|end| **end).count() as u64,
        missing_rows: built.missing,
        repeated_rows: found.repeated,
        equal_rows: if found.clock.is_some() { 0 } else { equal_rows(&rows, &order) },
        notes: found.notes,
        causes: std::mem::take(&mut built.causes),
        taken: found.taken,
        clock: found.clock.as_ref().map(Into::into),
        columns,
    };
    named.iter().for_each(|angle| report.columns[angle.column].is_angle = true);
    if built.replay.is_empty() {
        let sources = report.sources();
        return Err(DataError::NoTransition { path: tables[0].path.clone(), rows: count as u64, sources });
    }
    for of in &files.described {
        let found =
            tables.iter().filter(|table| table.path.starts_with(&of.folder)).map(|table| table.rows as u64).sum();
        if let Some(expected) = of.rows.filter(|expected| *expected != found) {
            return Err(DataError::Incomplete { path: of.description.clone(), expected, found });
        }
    }
    let mut layout = plan.layout.clone();
    for taken in report.taken.iter().filter(|taken| !taken.guessed) {
        match taken.part.as_str() {
            "episode" => layout.episode = Some(taken.column.clone()),
            "time" => layout.time = Some(taken.column.clone()),
            _ => {}
        }
    }
    // A row counter shows the order of rows, but not how long they take.
    let counted = report.taken.iter().any(|taken| taken.part == "time" && counts_rows(&taken.column));
    let clock = found.clock.filter(|clock| clock.period > 0.0 && !counted);
    Ok(Log {
        layout,
        obs_names: plan.entries(Part::Obs),
        obs_units: plan.units(Part::Obs),
        action_names: plan.entries(Part::Action),
        action_units: plan.units(Part::Action),
        has_rewards: plan.has(Part::Reward),
        rows: report.rows,
        dropped: report.dropped,
        obs_offset: offsets,
        angles,
        period: clock.map(|clock| clock.period).or(files.period()),
        replay: built.replay,
        report,
    })
}

/// Names of the entries of vectors, from the description of a data set.
fn name_entries(tables: &mut [Table], files: &Files) {
    for used in tables.iter_mut().flat_map(|table| &mut table.plan.uses) {
        if let Some((_, names)) =
            files.entries.iter().find(|(name, names)| *name == used.name && names.len() == used.width)
        {
            used.entries.clone_from(names);
        }
    }
}

fn same_columns(tables: &[Table]) -> Result<(), DataError> {
    for table in &tables[1..] {
        for part in [Part::Obs, Part::Action, Part::NextObs, Part::Reward] {
            let (expected, found) = (tables[0].plan.entries(part), table.plan.entries(part));
            if expected != found {
                return Err(DataError::Differs { path: table.path.clone(), what: part.name(), expected, found });
            }
        }
    }
    Ok(())
}

/// Puts the columns of all files together and decides what each row can be used for.
fn joined(tables: &mut [Table]) -> Result<Rows, DataError> {
    let mut starts = Vec::with_capacity(tables.len());
    let mut count = 0;
    for table in tables.iter() {
        starts.push(count);
        count += table.rows;
    }
    let mut part = |part: Part| -> Vec<f64> {
        let width = tables[0].plan.width(part);
        let is_flag = part.is_flag();
        if width == 0 && !(is_flag && tables.iter().any(|table| table.plan.has(part))) {
            return Vec::new();
        }
        let mut all = Vec::with_capacity(count * width.max(1));
        for table in tables.iter_mut() {
            let indices: Vec<usize> = table.plan.of(part).map(|(i, _)| i).collect();
            match indices.as_slice() {
                // A flag that this file lacks is not set.
                [] => all.resize(all.len() + table.rows, 0.0),
                [one] if all.is_empty() => all = std::mem::take(&mut table.columns[*one].values),
                [one] => all.append(&mut table.columns[*one].values),
                several => {
                    for row in 0..table.rows {
                        for &index in several {
                            let width = table.plan.uses[index].width;
                            all.extend_from_slice(&table.columns[index].values[row * width..][..width]);
                        }
                    }
                    several.iter().for_each(|index| table.columns[*index].values = Vec::new());
                }
            }
        }
        all
    };
    let mut rows = Rows {
        obs: part(Part::Obs),
        actions: part(Part::Action),
        next_obs: part(Part::NextObs),
        rewards: part(Part::Reward),
        terminated: part(Part::Terminated),
        truncated: part(Part::Truncated),
        done: part(Part::Done),
        start: part(Part::Start),
        classes: Vec::with_capacity(count),
        starts,
        obs_width: tables[0].plan.width(Part::Obs),
        action_width: tables[0].plan.width(Part::Action),
    };
    for (start, table) in rows.starts.iter().zip(tables.iter()) {
        for row in 0..table.rows {
            for (what, flags) in [
                (Part::Terminated, &rows.terminated),
                (Part::Truncated, &rows.truncated),
                (Part::Done, &rows.done),
                (Part::Start, &rows.start),
            ] {
                let Some(&flag) = flags.get(start + row) else { continue };
                if !(flag == 0.0 || flag == 1.0 || flag.is_nan()) {
                    let index = table.plan.of(what).next().map_or(0, |(index, _)| index);
                    return Err(table.fault(row, index, Fault::new(shown(flag), FLAG)));
                }
            }
            for (what, values, width) in [
                (Part::Obs, &rows.obs, rows.obs_width),
                (Part::Action, &rows.actions, rows.action_width),
                (Part::NextObs, &rows.next_obs, rows.obs_width),
            ] {
                let own = values.get((start + row) * width..).unwrap_or_default();
                let too_large = |value: &f64| value.is_finite() && !(*value as f32).is_finite();
                if let Some(entry) = own.iter().take(width).position(too_large) {
                    let fault = Fault::new(shown(own[entry]), RANGE);
                    return Err(table.fault(row, index_of(table, what, entry), fault));
                }
            }
            let class = class(&rows, start + row, table);
            rows.classes.push(class);
        }
    }
    Ok(rows)
}

/// The column of the plan that holds entry number `entry` of a part.
fn index_of(table: &Table, part: Part, entry: usize) -> usize {
    let of = |(_, u): &(usize, &Use)| (u.offset..u.offset + u.width).contains(&entry);
    table.plan.of(part).find(of).map_or(0, |(index, _)| index)
}

fn class(rows: &Rows, row: usize, table: &Table) -> Class {
    let index = |part, entry| index_of(table, part, entry);
    let lacks = |values: &[f64]| values.iter().position(|value| !value.is_finite());
    if let Some(entry) = lacks(rows.obs(row)) {
        return Class::Missing(index(Part::Obs, entry));
    }
    let width = rows.obs_width;
    let next: &[f64] = if rows.next_obs.is_empty() { &[] } else { &rows.next_obs[row * width..][..width] };
    let reward = rows.rewards.get(row..=row).unwrap_or_default();
    let steps = [(Part::Action, rows.action(row)), (Part::NextObs, next), (Part::Reward, reward)];
    if steps.iter().all(|(_, values)| values.iter().all(|value| value.is_nan())) {
        return Class::LastOnly;
    }
    for (part, values) in steps {
        if let Some(entry) = lacks(values) {
            return Class::Missing(index(part, entry));
        }
    }
    for (part, flags) in
        [(Part::Terminated, &rows.terminated), (Part::Truncated, &rows.truncated), (Part::Done, &rows.done)]
    {
        if flags.get(row).is_some_and(|flag| flag.is_nan()) {
            return Class::Missing(index(part, 0));
        }
    }
    Class::Full
}

/// Refuses rows that lack a value, unless they are to be left out.
fn classes_allowed(tables: &[Table], rows: &Rows, missing: Missing) -> Result<(), DataError> {
    if missing == Missing::Drop {
        return Ok(());
    }
    let is_missing = |class: &&Class| matches!(class, Class::Missing(_));
    let Some(row) = rows.classes.iter().position(|class| is_missing(&class)) else { return Ok(()) };
    let Class::Missing(index) = rows.classes[row] else { return Ok(()) };
    let (table, inner) = located(tables, rows, row);
    let bad = rows.classes.iter().filter(is_missing).count();
    let part = table.plan.uses[index].part;
    let found = match value(rows, row, &table.plan.uses[index]) {
        value if value.is_nan() => "nothing".to_owned(),
        value => shown(value),
    };
    let expected = match part {
        Part::Obs | Part::Time => NUMBER,
        Part::Episode => "the name of an episode",
        _ => "a value: only a row of nothing but the last observation of an episode leaves out the step",
    };
    let share = match bad {
        1 => String::new(),
        // Topics with different rates in one table.
        bad if 2 * bad > rows.classes.len() => format!(
            " ({bad} of {} rows lack a value; where sensors have rates of their own, bring them onto one clock first, for \
             example by pandas: df.ffill().dropna())",
            rows.classes.len()
        ),
        bad => format!(" ({bad} of {} rows lack a value)", rows.classes.len()),
    };
    Err(table.fault(inner, index, Fault::new(found, format!("{expected}{share}"))))
}

/// The first number of a use that is not finite.
fn value(rows: &Rows, row: usize, used: &Use) -> f64 {
    let of = |values: &[f64], width: usize| {
        let own = values.get(row * width + used.offset..).unwrap_or_default();
        own.iter().take(used.width).copied().find(|value| !value.is_finite()).unwrap_or(f64::NAN)
    };
    match used.part {
        Part::Obs => of(&rows.obs, rows.obs_width),
        Part::NextObs => of(&rows.next_obs, rows.obs_width),
        Part::Action => of(&rows.actions, rows.action_width),
        Part::Reward => of(&rows.rewards, 1),
        _ => f64::NAN,
    }
}

/// The table of a row, and the row's number there.
fn located<'a>(tables: &'a [Table], rows: &Rows, row: usize) -> (&'a Table, usize) {
    let table = rows.starts.partition_point(|start| *start <= row) - 1;
    // Tables without rows share their start with the next one.
    (&tables[table], row - rows.starts[table])
}

/// Columns of a candidate for the episode or the time in all tables; `None` if one of them lacks it.
fn candidate<'a>(tables: &'a [Table], name: &str, part: Part) -> Option<Vec<(&'a Table, usize)>> {
    let index = |table: &'a Table| Some((table, table.plan.of(part).find(|(_, u)| u.name == name)?.0));
    tables.iter().map(index).collect()
}

/// Puts rows into the order of their episodes, and determines where these begin.
fn ordered(tables: &[Table], rows: &mut Rows, options: &ReadOptions, found: &mut Found) -> Result<Order, DataError> {
    let count = rows.classes.len();
    // Breaks in the files themselves.
    let mut form: Vec<Option<EndCause>> = vec![None; count];
    for (start, table) in rows.starts.iter().zip(tables) {
        table.breaks.iter().for_each(|row| form[start + row] = Some(EndCause::Break));
        if table.rows > 0 && *start > 0 {
            form[*start] = Some(EndCause::File);
        }
    }
    let times: Vec<(&Use, Vec<f64>)> = tables[0]
        .plan
        .of(Part::Time)
        .filter_map(|(_, used)| {
            let columns = candidate(tables, &used.name, Part::Time)?;
            let values = columns.iter().flat_map(|(table, index)| table.columns[*index].values.iter().copied());
            Some((used, values.collect::<Vec<f64>>()))
        })
        .collect();

    let mut order: Vec<usize> = (0..count).collect();
    let mut cause_of = form.clone();
    // Episodes by a column.
    let mut by_column = false;
    for (_, used) in tables[0].plan.of(Part::Episode) {
        let Some(columns) = candidate(tables, &used.name, Part::Episode) else {
            found.notes.push(format!("`{}` is not in all files, so it is not used as the episode column", used.name));
            continue;
        };
        // Names are valid within a file, up to a break.
        let mut numbers: HashMap<(usize, u64), usize> = HashMap::new();
        let (mut ids, mut block) = (Vec::with_capacity(count), 0);
        for ((table, index), start) in columns.iter().zip(&rows.starts) {
            for row in 0..table.rows {
                block += usize::from(form[start + row].is_some());
                let value = table.columns[*index].values[row];
                if value.is_nan() {
                    if rows.classes[start + row] == Class::Full || rows.classes[start + row] == Class::LastOnly {
                        rows.classes[start + row] = Class::Missing(*index);
                    }
                    ids.push(usize::MAX);
                    continue;
                }
                let fresh = numbers.len();
                // Adding 0 makes −0 the same episode as 0.
                ids.push(*numbers.entry((block, (value + 0.0).to_bits())).or_insert(fresh));
            }
        }
        let changes = (1..count).filter(|i| form[*i].is_none() && ids[*i] != ids[i - 1]).count();
        let most = MOST_CUTS * (count - 1) as f64;
        let is_many = changes as f64 > most && !tables[0].plan.has(Part::NextObs);
        if used.guessed && is_many && 2 * numbers.len() > count {
            found
                .notes
                .push(format!("`{}` is not an episode column: it changes in {changes} of {count} rows", used.name));
            continue;
        }
        // Does an episode appear again after another one?
        let mut seen = vec![false; numbers.len()];
        let again = (0..count).find(|i| {
            let id = ids[*i];
            let is_new = *i == 0 || ids[i - 1] != id;
            id != usize::MAX && is_new && std::mem::replace(&mut seen[id], true)
        });
        if let Some(row) = again {
            let (table, inner) = located(tables, rows, row);
            if times.is_empty() {
                let index = table.plan.of(Part::Episode).find(|(_, u)| u.name == used.name).map_or(0, |(i, _)| i);
                let episode = table.columns[index].shown(inner);
                return Err(DataError::EpisodeAgain { path: table.path.clone(), at: table.place(inner), episode });
            }
            // Rows of parallel episodes, or reused names: the time shows where each begins.
            order.sort_by_key(|row| ids[*row]);
            found.notes.push(format!("rows of the episodes of `{}` were interleaved and have been sorted", used.name));
        }
        for pair in order.windows(2) {
            let is_other = ids[pair[0]] != ids[pair[1]];
            // Breaks of the file do not apply to regrouped rows.
            if again.is_some() {
                cause_of[pair[1]] = None;
            }
            if is_other {
                cause_of[pair[1]].get_or_insert(EndCause::EpisodeColumn);
            }
        }
        found.taken.push(Taken::new("episode", &used.name, used.guessed));
        by_column = true;
        break;
    }
    // Parallel episodes without a column that names them.
    if !by_column && tables.iter().all(|table| table.breaks.is_empty()) {
        for (used, times) in &times {
            let mut parallel = Vec::new();
            for (i, start) in rows.starts.iter().enumerate() {
                let own = *start..start + tables[i].rows;
                let obs = &rows.obs[own.start * rows.obs_width..own.end * rows.obs_width];
                parallel.push(clock::interleaved(&times[own.clone()], obs, rows.obs_width).map(|k| (own, k)));
            }
            if parallel.iter().all(Option::is_none) {
                continue;
            }
            for (own, k) in parallel.into_iter().flatten() {
                let start = own.start;
                order[own].sort_by_key(|row| (row - start) % k);
                (1..k).for_each(|episode| cause_of[start + episode] = Some(EndCause::Interleaved));
                found
                    .notes
                    .push(format!("each `{}` comes {k} times: rows of {k} parallel episodes, put in order", used.name));
            }
            break;
        }
    }

    let mut begins: Vec<Option<EndCause>> = order.iter().map(|row| cause_of[*row]).collect();
    let mut run = 0;
    for i in 1..count {
        let (row, before) = (order[i], order[i - 1]);
        run = if begins[i].is_some() { 0 } else { run + 1 };
        if rows.start.get(row) == Some(&1.0) {
            begins[i].get_or_insert(EndCause::Start);
        }
        if options.episode_rows.is_some_and(|rows| rows > 0 && run >= rows) {
            begins[i].get_or_insert(EndCause::Rows);
            run = 0;
        }
        // A row that holds only the last observation belongs to the step before it.
        let ended = rows.cause(before).filter(|_| rows.classes[row] != Class::LastOnly);
        if rows.classes[before] == Class::LastOnly {
            begins[i] = Some(EndCause::LastObservation);
        } else if let Some(cause) = ended {
            begins[i] = Some(cause);
        }
    }
    let mut order = Order { rows: order, begins };
    by_time(tables, rows, &mut order, &times, options, found)?;
    Ok(order)
}

/// Takes the first column that is a clock, and cuts episodes where it says so.
fn by_time(
    tables: &[Table],
    rows: &mut Rows,
    order: &mut Order,
    times: &[(&Use, Vec<f64>)],
    options: &ReadOptions,
    found: &mut Found,
) -> Result<(), DataError> {
    for (used, times) in times {
        let columns = candidate(tables, &used.name, Part::Time).unwrap_or_default();
        let unreadable: usize = columns.iter().map(|(table, index)| table.columns[*index].unreadable_count).sum();
        if let Some((table, index)) = columns.iter().find(|(t, i)| t.columns[*i].unreadable.is_some()) {
            let (row, cell) = table.columns[*index].unreadable.clone().unwrap_or_default();
            if 2 * unreadable > times.len() {
                found.notes.push(format!("`{}` is not used as the time: {cell} is no number", used.name));
                continue;
            }
            return Err(table.fault(row, *index, Fault::new(cell, "a number, or a time such as 2026-01-31T12:00:00")));
        }
        // A row without a time lacks a value.
        for (row, _) in times.iter().enumerate().filter(|(_, time)| time.is_nan()) {
            let index = located(tables, rows, row).0.plan.of(Part::Time).find(|(_, u)| u.name == used.name);
            if !matches!(rows.classes[row], Class::Missing(_)) {
                rows.classes[row] = Class::Missing(index.map_or(0, |(index, _)| index));
            }
        }
        // A row that is repeated, with its time, counts once.
        let is_repeated = |i: usize| {
            let (row, before) = (order.rows[i], order.rows[i - 1]);
            let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            order.begins[i].is_none()
                && times[row] == times[before]
                && same(rows.obs(row), rows.obs(before))
                && same(rows.action(row), rows.action(before))
        };
        let kept: Vec<usize> = (0..order.rows.len()).filter(|i| *i == 0 || !is_repeated(*i)).collect();
        let own: Vec<f64> = kept.iter().map(|i| times[order.rows[*i]]).collect();
        let begins = |i: usize| i == 0 || order.begins[kept[i]].is_some();
        let clock = match clock::read(&own, &begins, options.max_gap) {
            Ok(clock) => clock,
            Err(reason) if used.guessed => {
                found.notes.push(format!("`{}` is not used as the time: {reason}", used.name));
                continue;
            }
            Err(reason) => {
                let (path, column) = (tables[0].path.clone(), used.name.clone());
                return Err(DataError::Clock { path, column, reason });
            }
        };
        let cuts = clock.cuts.len();
        if used.guessed && cuts as f64 > MOST_CUTS * clock.steps as f64 && rows.next_obs.is_empty() {
            found.notes.push(format!(
                "`{}` is not used as the time: it would end an episode in {cuts} of {} rows",
                used.name,
                own.len()
            ));
            continue;
        }
        found.repeated = (order.rows.len() - kept.len()) as u64;
        let (old_rows, old_begins) = (&order.rows, &order.begins);
        let mut next = Order {
            rows: kept.iter().map(|i| old_rows[*i]).collect(),
            begins: kept.iter().map(|i| old_begins[*i]).collect(),
        };
        for (i, cut) in &clock.cuts {
            next.begins[*i] = Some(match cut {
                Cut::Back => EndCause::TimeBack,
                Cut::Gap => EndCause::TimeGap,
            });
        }
        *order = next;
        found.taken.push(Taken::new("time", &used.name, used.guessed));
        found.clock = Some(clock);
        return Ok(());
    }
    Ok(())
}

/// If nothing marks episodes: they end at jumps of the observation that are the same number of rows apart.
fn regular_jumps(rows: &Rows, order: &mut Order, tables: &[Table], found: &mut Found) {
    const SHORTEST: usize = 5;
    let count = order.rows.len();
    let told = found.taken.iter().any(|taken| taken.part == "episode" || taken.part == "time")
        || order.begins.iter().flatten().any(|cause| *cause != EndCause::Terminated)
        || tables.len() > 1;
    if told || count < 4 * SHORTEST {
        return;
    }
    // Changes in units of the value below which 9 of 10 of them lie.
    let mut largest = vec![0.0_f64; count];
    for column in 0..rows.obs_width {
        let size = |i: usize| (rows.obs(order.rows[i])[column] - rows.obs(order.rows[i - 1])[column]).abs();
        let mut sizes: Vec<f64> = (1..count).map(size).filter(|size| size.is_finite()).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        let usual = sizes.get(sizes.len() * 9 / 10).copied().unwrap_or(0.0);
        if usual > 0.0 {
            (1..count).for_each(|i| largest[i] = largest[i].max(size(i) / usual));
        }
    }
    let jumps: Vec<usize> = (1..count).filter(|i| largest[*i] > 5.0 && order.begins[*i].is_none()).collect();
    if jumps.is_empty() {
        return;
    }
    let gcd = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let distance = jumps.iter().fold(0, |distance, jump| gcd(distance, *jump));
    let expected = count.div_ceil(distance.max(1)) - 1;
    if distance >= SHORTEST && jumps.len() >= 2 && 10 * jumps.len() >= 6 * expected {
        for i in (distance..count).step_by(distance) {
            order.begins[i].get_or_insert(EndCause::Jump);
        }
        found.notes.push(format!(
            "nothing tells of episodes, but the observation jumps every {distance} rows: taken for their ends"
        ));
    } else {
        let shown: Vec<String> = jumps.iter().take(5).map(ToString::to_string).collect();
        let more = if jumps.len() > 5 { ", …" } else { "" };
        found.notes.push(format!(
            "nothing tells of episodes, and the observation jumps {} times (rows {}{more}): name the episode or the time \
             where rows do not follow one another",
            jumps.len(),
            shown.join(", ")
        ));
    }
}

/// Pairs of successive rows within an episode: index of the first, and index of the second, whose observation follows.
struct Changes<'a> {
    rows: &'a Rows,
    pairs: Vec<(usize, usize)>,
    has_next: bool,
}

fn changes<'a>(rows: &'a Rows, order: &Order) -> Changes<'a> {
    let follows = |i: &usize| order.begins[*i].is_none();
    let pairs = (1..order.rows.len()).filter(follows).map(|i| (order.rows[i - 1], order.rows[i])).collect();
    Changes { rows, pairs, has_next: !rows.next_obs.is_empty() }
}

impl Changes<'_> {
    /// Changes of a column of the observation, with the row that each leads to.
    fn obs(&self, column: usize) -> Vec<(usize, f64)> {
        let Rows { obs, next_obs, obs_width: width, .. } = self.rows;
        let at = |row: usize| row * width + column;
        let changes: Vec<(usize, f64)> = match self.has_next {
            true => (0..self.rows.classes.len()).map(|row| (row, next_obs[at(row)] - obs[at(row)])).collect(),
            false => self.pairs.iter().map(|(a, b)| (*b, obs[at(*b)] - obs[at(*a)])).collect(),
        };
        changes.into_iter().filter(|(_, change)| change.is_finite()).collect()
    }

    fn actions(&self, column: usize) -> Vec<(usize, f64)> {
        let Rows { actions, action_width: width, .. } = self.rows;
        let change = |(a, b): &(usize, usize)| (*b, actions[b * width + column] - actions[a * width + column]);
        self.pairs.iter().map(change).filter(|(_, change)| change.is_finite()).collect()
    }
}

fn column_reports(
    tables: &[Table],
    rows: &Rows,
    changes: &Changes<'_>,
    options: &ReadOptions,
) -> Result<Vec<report::ColumnReport>, DataError> {
    let plan = &tables[0].plan;
    let (obs_width, action_width) = (rows.obs_width, rows.action_width);
    if let Some(given) = options.obs_offset.as_ref().filter(|given| given.len() != obs_width) {
        let (expected, actual) = (obs_width, given.len());
        return Err(crate::EnvError::Width { what: "offset of the observation".into(), expected, actual }.into());
    }
    let mut reports = Vec::new();
    let of = |values: &[f64], column: usize, width: usize| -> Vec<f64> {
        values.iter().skip(column).step_by(width).copied().collect()
    };
    let angles: Vec<(String, f64)> = angle_names(tables);
    for (column, (name, unit)) in plan.entries(Part::Obs).iter().zip(plan.units(Part::Obs)).enumerate() {
        let values = of(&rows.obs, column, obs_width);
        let turn = angles.iter().find(|(angle, _)| angle == name).map(|(_, turn)| *turn);
        let changes = changes.obs(column);
        let mut report = report::column([name, &unit, "observation"], &values, &changes, turn);
        let offset = match &options.obs_offset {
            Some(given) => given[column],
            None if turn.is_some() || changes.len() < FEW => 0.0,
            None => offset(&report),
        };
        report.offset = offset;
        report.too_fine = is_too_fine(&report, offset);
        reports.push(report);
    }
    for (column, (name, unit)) in plan.entries(Part::Action).iter().zip(plan.units(Part::Action)).enumerate() {
        let values = of(&rows.actions, column, action_width);
        let mut report = report::column([name, &unit, "action"], &values, &changes.actions(column), None);
        report.too_fine = is_too_fine(&report, 0.0);
        // A last observation has no action.
        let alone = rows.classes.iter().filter(|class| **class == Class::LastOnly).count() as u64;
        report.missing = report.missing.saturating_sub(alone);
        reports.push(report);
    }
    if let Some((_, used)) = plan.of(Part::Reward).next() {
        let mut report = report::column([&used.name, &used.unit, "reward"], &rows.rewards, &[], None);
        let alone = rows.classes.iter().filter(|class| **class == Class::LastOnly).count() as u64;
        report.missing = report.missing.saturating_sub(alone);
        reports.push(report);
    }
    Ok(reports)
}

/// Whether `f32` cannot hold a column's changes even after `offset` is subtracted.
fn is_too_fine(report: &report::ColumnReport, offset: f64) -> bool {
    let largest = (report.low - offset).abs().max((report.high - offset).abs());
    report.typical_change > 0.0 && report.typical_change < RESOLUTION * largest * f64::from(f32::EPSILON)
}

/// The offset to subtract from a column so that `f32` holds its changes: about its mean, with few digits.
fn offset(report: &report::ColumnReport) -> f64 {
    if !is_too_fine(report, 0.0) {
        return 0.0;
    }
    let unit = 10f64.powf((report.high - report.low).max(f64::MIN_POSITIVE).log10().floor());
    let offset = (report.mean / unit).round() * unit;
    // Nothing is gained if the column itself spans many orders of magnitude.
    let largest = |offset: f64| (report.low - offset).abs().max((report.high - offset).abs());
    if offset.is_finite() && 2.0 * largest(offset) < largest(0.0) { offset } else { 0.0 }
}

/// Names of angle columns, with one turn in their unit.
fn angle_names(tables: &[Table]) -> Vec<(String, f64)> {
    let layout = &tables[0].plan.layout;
    let radians = layout.angles.iter().map(|name| (name.clone(), std::f64::consts::TAU));
    radians.chain(layout.angles_deg.iter().map(|name| (name.clone(), 360.0))).collect()
}

fn angles(table: &Table, columns: &[report::ColumnReport]) -> Result<Vec<AngleColumn>, DataError> {
    let names = table.plan.entries(Part::Obs);
    let mut angles = Vec::new();
    for (name, turn) in angle_names(std::slice::from_ref(table)) {
        let Some(column) = names.iter().position(|entry| *entry == name) else {
            return Err(DataError::Missing {
                path: table.path.clone(),
                missing: vec![name],
                near: Vec::new(),
                present: names,
            });
        };
        angles.push(AngleColumn { column, turn: turn as f32, wraps: columns[column].wraps > 0 });
    }
    angles.sort_by_key(|angle| angle.column);
    angles.dedup_by_key(|angle| angle.column);
    Ok(angles)
}

/// Unwraps the angles whose turns count, along each episode; returns their columns.
fn multi_turn(
    tables: &mut [Table],
    rows: &mut Rows,
    order: &Order,
    columns: &[report::ColumnReport],
    options: &ReadOptions,
    found: &mut Found,
) -> Result<Vec<usize>, DataError> {
    let named = angles(&tables[0], columns)?;
    let names = tables[0].plan.entries(Part::Obs);
    let told = tables[0].plan.layout.multi_turn.clone();
    if let Some(name) = told.iter().find(|name| !named.iter().any(|angle| names[angle.column] == **name)) {
        let rule = "angles, which `angles` or `angles_deg` name";
        return Err(DataError::Option { field: "multi_turn", value: name.clone(), rule });
    }
    let mut chosen = Vec::new();
    for angle in &named {
        let (column, name) = (angle.column, &names[angle.column]);
        let turn = turn_of(angle);
        let path = unwrapped_column(rows, order, column, turn);
        if !told.contains(name) {
            // A log that is read like another one is not tested.
            if columns[column].wraps == 0 || options.stored.is_some() || rows.obs_width + rows.action_width > 60 {
                continue;
            }
            if !turns::count(&steps(rows, order, &named, &path)) {
                continue;
            }
            found.notes.push(format!(
                "the turns of `{name}` count: what follows depends on them, so it is unwrapped along each episode"
            ));
            tables.iter_mut().for_each(|table| table.plan.layout.multi_turn.push(name.clone()));
        }
        chosen.push((column, turn, path));
    }
    for (column, turn, path) in &chosen {
        let width = rows.obs_width;
        for (row, value) in path.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            rows.obs[row * width + column] = *value;
            if let Some(next) = rows.next_obs.get_mut(row * width + column) {
                *next = turns::unwrapped(*value, *next, *turn);
            }
        }
    }
    Ok(chosen.into_iter().map(|(column, ..)| column).collect())
}

/// One turn in double precision.
fn turn_of(angle: &AngleColumn) -> f64 {
    if (f64::from(angle.turn) - std::f64::consts::TAU).abs() < 1e-3 { std::f64::consts::TAU } else { angle.turn.into() }
}

/// A column, unwrapped along each episode; NaN where it has no value.
fn unwrapped_column(rows: &Rows, order: &Order, column: usize, turn: f64) -> Vec<f64> {
    let mut path = vec![f64::NAN; rows.classes.len()];
    let mut before = f64::NAN;
    for (&row, begins) in order.rows.iter().zip(&order.begins) {
        let value = rows.obs(row)[column];
        path[row] = if begins.is_some() || before.is_nan() { value } else { turns::unwrapped(before, value, turn) };
        before = path[row];
    }
    path
}

/// Steps within episodes, for testing whether the turns of an angle count.
fn steps(rows: &Rows, order: &Order, angles: &[AngleColumn], path: &[f64]) -> Vec<turns::Step> {
    let turn = |entry: usize| angles.iter().find(|angle| angle.column == entry).map(turn_of);
    let mut steps = Vec::new();
    for i in 1..order.rows.len() {
        let (row, after) = (order.rows[i - 1], order.rows[i]);
        if order.begins[i].is_some() || rows.classes[row] != Class::Full {
            continue;
        }
        let mut seen = rows.action(row).to_vec();
        let mut changes = Vec::with_capacity(rows.obs_width);
        for (entry, (now, next)) in rows.obs(row).iter().zip(rows.obs(after)).enumerate() {
            match turn(entry) {
                Some(turn) => {
                    let phase = std::f64::consts::TAU * now / turn;
                    seen.extend([phase.sin(), phase.cos()]);
                    changes.push(turns::unwrapped(*now, *next, turn) - now);
                }
                None => {
                    seen.push(*now);
                    changes.push(next - now);
                }
            }
        }
        steps.push(turns::Step { seen, angle: path[row], changes });
    }
    steps.retain(|step| step.changes.iter().chain(&step.seen).chain([&step.angle]).all(|value| value.is_finite()));
    steps
}

/// Rows that equal the one before in observation and action.
fn equal_rows(rows: &Rows, order: &Order) -> u64 {
    let equal = |i: &usize| {
        let (row, before) = (order.rows[*i], order.rows[i - 1]);
        order.begins[*i].is_none() && rows.obs(row) == rows.obs(before) && rows.action(row) == rows.action(before)
    };
    (1..order.rows.len()).filter(equal).count() as u64
}

struct Built {
    replay: Replay,
    causes: BTreeMap<EndCause, u64>,
    dropped: u64,
    dropped_ends: u64,
    missing: u64,
}

/// Makes the transitions.
fn build(tables: &[Table], rows: &Rows, order: &Order, offsets: &[f64]) -> Result<Built, DataError> {
    let replay = Replay::new(rows.obs_width, rows.action_width, usize::MAX)?;
    let mut built = Built { replay, causes: BTreeMap::new(), dropped: 0, dropped_ends: 0, missing: 0 };
    let has_next = !rows.next_obs.is_empty();
    // A row that waits for the observation after it.
    let mut waiting: Option<usize> = None;
    let mut step = Transition {
        obs: vec![0.0; rows.obs_width],
        action: vec![0.0; rows.action_width],
        reward: 0.0,
        next_obs: vec![0.0; rows.obs_width],
        terminated: false,
        truncated: false,
    };
    let narrow = |row: usize, part: Part, entry: usize, value: f64| -> Result<f32, DataError> {
        let narrow = value as f32;
        if narrow.is_finite() {
            return Ok(narrow);
        }
        let (table, inner) = located(tables, rows, row);
        Err(table.fault(inner, index_of(table, part, entry), Fault::new(shown(value), RANGE)))
    };
    // `end`: the row of the last observation, whose flags say how the episode ended.
    let mut push = |built: &mut Built, row: usize, after: (usize, &[f64], Part), end: Option<usize>| {
        let flag = |flags: &[f64], row: Option<usize>| row.and_then(|row| flags.get(row)) == Some(&1.0);
        let set = |flags: &[f64]| flag(flags, Some(row)) || flag(flags, end);
        for (entry, value) in rows.obs(row).iter().enumerate() {
            step.obs[entry] = narrow(row, Part::Obs, entry, value - offsets[entry])?;
        }
        for (entry, value) in rows.action(row).iter().enumerate() {
            step.action[entry] = narrow(row, Part::Action, entry, *value)?;
        }
        for (entry, value) in after.1.iter().enumerate() {
            step.next_obs[entry] = narrow(after.0, after.2, entry, value - offsets[entry])?;
        }
        step.reward = rows.rewards.get(row).copied().unwrap_or(0.0);
        step.terminated = set(&rows.terminated);
        step.truncated = set(&rows.truncated) || set(&rows.done) && !step.terminated;
        built.replay.push(&step)?;
        Ok::<(), DataError>(())
    };
    let lose = |built: &mut Built, row: usize| {
        built.dropped += 1;
        built.dropped_ends += u64::from(rows.terminated.get(row) == Some(&1.0));
        built.replay.end_episode();
    };
    // The end flag of the last observation, or of the step before it.
    let mut last_cause = None;
    for (i, &row) in order.rows.iter().enumerate() {
        let class = rows.classes[row];
        let begins = order.begins[i];
        if let Some(cause) = begins {
            let cause = last_cause.filter(|_| cause == EndCause::LastObservation).unwrap_or(cause);
            *built.causes.entry(cause).or_default() += 1;
        }
        let obs_there = rows.obs(row).iter().all(|value| value.is_finite());
        if let Some(before) = waiting.take() {
            let is_last = class == Class::LastOnly;
            if begins.is_none() && obs_there && (is_last || !rows.is_over(before)) {
                last_cause = is_last.then(|| rows.cause(before).or(rows.cause(row))).flatten();
                push(&mut built, before, (row, rows.obs(row), Part::Obs), is_last.then_some(row))?;
            } else {
                lose(&mut built, before);
            }
        } else if begins.is_some() {
            built.replay.end_episode();
        }
        match class {
            Class::Full if has_next => {
                let next = &rows.next_obs[row * rows.obs_width..][..rows.obs_width];
                push(&mut built, row, (row, next, Part::NextObs), None)?;
            }
            Class::Full => waiting = Some(row),
            Class::LastOnly => built.replay.end_episode(),
            Class::Missing(_) => {
                built.missing += 1;
                built.replay.end_episode();
                // Successive rows with missing values count once.
                let goes_on = order.rows.get(i + 1).is_some_and(|next| {
                    order.begins[i + 1].is_none() && !matches!(rows.classes[*next], Class::Missing(_))
                });
                if goes_on {
                    *built.causes.entry(EndCause::MissingValue).or_default() += 1;
                }
            }
        }
    }
    // How the log itself ends.
    let last = order.rows[order.rows.len() - 1];
    let cause = match rows.classes[last] {
        Class::LastOnly => last_cause.unwrap_or(EndCause::LastObservation),
        _ => rows.cause(last).unwrap_or(EndCause::File),
    };
    *built.causes.entry(cause).or_default() += 1;
    if let Some(row) = waiting {
        lose(&mut built, row);
    }
    built.replay.end_episode();
    Ok(built)
}
