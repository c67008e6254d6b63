//! Single values replaced: `key=value`, as `--set` of the command line takes them.

use mbrl_env::nearest::suggest;
use mbrl_plan::PlannerConfig;
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use super::{
    Experiment, ExperimentError,
    agent::{AGENT, sections_of},
    read::read,
    shown,
    translate::DYNAMICS,
};

const AGENT_KIND: &str = "agent.kind";
const PLANNER: &str = "planner";
const PLANNER_KIND: &str = "planner.kind";
/// The table whose keys are the task's own.
const TASK_OPTIONS: &str = "task_options";

/// `settings` with one value replaced, `key=value`: a TOML value, or a bare word for a string.
///
/// Keys are dotted names, as in `fit.learning_rate=1e-3`.
///
/// ```
/// use mbrl_model::FitConfig;
/// use mbrl_policy::experiment::override_setting;
///
/// let fit = override_setting(&FitConfig::default(), "max_epochs=7")?;
/// assert_eq!(fit.max_epochs, 7);
/// let error = override_setting(&fit, "max_epochs=many").unwrap_err().to_string();
/// assert_eq!(error, "max_epochs = \"many\": expected a whole number, at least 0 (now 7)");
/// # Ok::<(), mbrl_policy::experiment::ExperimentError>(())
/// ```
///
/// # Errors
/// [`ExperimentError::Word`] for a word without `=`; [`ExperimentError::UnknownKey`] for a key that is not there, with the
/// nearest one; [`ExperimentError::Value`] for a value of the wrong type.
pub fn override_setting<T: Serialize + DeserializeOwned>(settings: &T, word: &str) -> Result<T, ExperimentError> {
    let (key, value) = split(word)?;
    let mut table = Table::try_from(settings).map_err(ExperimentError::Unwritable)?;
    replace(&mut table, key, value, |table| read(table, ""))
}

/// An experiment with values replaced in order, those of kinds first: the other keys depend on them. `notes` collects what
/// became of settings that another kind does not have.
pub(super) fn apply(
    experiment: Experiment,
    words: &[&str],
    notes: &mut Vec<String>,
) -> Result<Experiment, ExperimentError> {
    let kind_of = |word: &&&str| [AGENT_KIND, PLANNER_KIND].contains(&key_of(word));
    let (kinds, rest): (Vec<&str>, Vec<&str>) = words.iter().partition(kind_of);
    kinds.into_iter().chain(rest).try_fold(experiment, |experiment, word| applied(&experiment, word, notes))
}

fn applied(experiment: &Experiment, word: &str, notes: &mut Vec<String>) -> Result<Experiment, ExperimentError> {
    let (key, value) = split(word)?;
    let mut table = experiment.to_table()?;
    match key {
        AGENT_KIND => choose_agent(table, experiment.agent.kind(), value, notes),
        PLANNER_KIND if table.contains_key(PLANNER) => {
            choose_planner(&mut table, value, notes)?;
            Experiment::from_table(table)
        }
        DYNAMICS => {
            let hint = "; today's key is agent.kind = \"model-based\" or \"ground-truth\"".to_owned();
            Err(ExperimentError::UnknownKey { key: DYNAMICS.into(), hint })
        }
        _ => replace(&mut table, key, value, Experiment::from_table),
    }
}

/// The key of an override; empty for a word that is none.
pub(super) fn key_of(word: &str) -> &str {
    word.split_once('=').map_or("", |(key, _)| key.trim())
}

fn split(word: &str) -> Result<(&str, &str), ExperimentError> {
    let (key, value) = word.split_once('=').ok_or_else(|| ExperimentError::Word { word: word.to_owned() })?;
    Ok((key.trim(), value.trim()))
}

/// Replaces a value and reads the whole again.
fn replace<T>(
    table: &mut Table,
    key: &str,
    value: &str,
    read: impl FnOnce(Table) -> Result<T, ExperimentError>,
) -> Result<T, ExperimentError> {
    let present = get(table, key).cloned();
    // The task determines which keys exist.
    let of_practice = key.strip_prefix("practice.").unwrap_or(key);
    let is_option = of_practice.split_once('.').is_some_and(|(head, rest)| head == TASK_OPTIONS && !rest.is_empty());
    let is_section = !key.contains('.') && present.as_ref().is_some_and(Value::is_table);
    if is_section {
        let first = entries(table).into_iter().map(|(name, _)| name).find(|name| name.starts_with(&format!("{key}.")));
        let example = first.map_or(String::new(), |name| format!(", e.g. {name}=…"));
        let hint = format!("; `{key}` is a section: set one of its keys{example}");
        return Err(ExperimentError::UnknownKey { key: key.to_owned(), hint });
    }
    if present.is_none() && !(is_option && table.contains_key(TASK_OPTIONS)) {
        let known: Vec<String> = entries(table).into_iter().map(|(key, _)| key).collect();
        let hint = suggest(key, known.iter().map(String::as_str));
        return Err(ExperimentError::UnknownKey { key: key.to_owned(), hint });
    }
    let new = parse_value(value, present.as_ref());
    set(table, key, new.clone());
    let now = present.map_or(String::new(), |present| format!(" (now {})", shown(&present)));
    read(std::mem::take(table)).map_err(|error| match error {
        ExperimentError::Value { key: at, value, rule } if concerns(&at, key) => {
            ExperimentError::Value { key: at, value, rule: rule + &now }
        }
        // The reader knew the section, this knows the key.
        ExperimentError::ValueIn { section, rule, .. } if concerns(&section, key) => {
            ExperimentError::Value { key: key.to_owned(), value: new.to_string(), rule: rule + &now }
        }
        ExperimentError::Refused { key: at, reason } if concerns(&at, key) => {
            ExperimentError::Value { key: key.to_owned(), value: new.to_string(), rule: reason + &now }
        }
        other => other,
    })
}

/// Whether one of two dotted names is within the other.
fn concerns(at: &str, key: &str) -> bool {
    let within =
        |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|r| r.is_empty() || r.starts_with('.'));
    within(at, key) || within(key, at)
}

/// Another kind of agent keeps the sections that both have. The kind determines whose rewards and terminations plans use.
fn choose_agent(
    mut table: Table,
    present: &str,
    value: &str,
    notes: &mut Vec<String>,
) -> Result<Experiment, ExperimentError> {
    let kind = word(value);
    if kind == present {
        return Experiment::from_table(table);
    }
    let (old, new) = (sections_of(present)?, sections_of(&kind)?);
    let dropped: Vec<&str> = old.iter().copied().filter(|section| !new.contains(section)).collect();
    for section in &dropped {
        table.remove(*section);
    }
    table.insert(AGENT.into(), Value::Table(Table::from_iter([("kind".to_owned(), Value::String(kind.clone()))])));
    if let Some(goal) = table.get_mut("goal").and_then(Value::as_table_mut) {
        // A reward in words holds for any kind.
        let is_word = |value: &Value| matches!(value.as_str(), Some("task" | "model"));
        if goal.get("reward").is_some_and(is_word) {
            goal.remove("reward");
        }
        goal.remove("termination");
    }
    if !dropped.is_empty() {
        let dropped = dropped.join(", ");
        notes.push(format!("agent.kind = \"{kind}\": {dropped} of \"{present}\" do not apply and are left out"));
    }
    Experiment::from_table(table)
}

/// Another planner keeps the values of the keys that both have and starts with its defaults for the others. A word that was the
/// default of the one, as `execute` may be, was not chosen: it becomes the default of the other.
fn choose_planner(table: &mut Table, value: &str, notes: &mut Vec<String>) -> Result<(), ExperimentError> {
    let Some(old) = table.get(PLANNER).and_then(Value::as_table).cloned() else { return Ok(()) };
    let kind = word(value);
    let before = old.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == before {
        return Ok(());
    }
    let defaults = |kind: &str| -> Result<Table, ExperimentError> {
        let chosen = Table::from_iter([("kind".to_owned(), Value::String(kind.to_owned()))]);
        let defaults: PlannerConfig = read(chosen, PLANNER).map_err(|error| match error {
            ExperimentError::ValueIn { value, rule, .. } => ExperimentError::rule(PLANNER_KIND, value, rule),
            other => other,
        })?;
        Table::try_from(&defaults).map_err(ExperimentError::Unwritable)
    };
    let mut new = defaults(&kind)?;
    let before_defaults = defaults(&before)?;
    let was_chosen = |key: &str, value: &Value| !value.is_str() || before_defaults.get(key) != Some(value);
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    for (key, value) in &old {
        match new.get(key) {
            _ if key == "kind" => {}
            Some(default) if default.same_type(value) && was_chosen(key, value) => {
                kept.push(format!("{key} = {}", shown(value)));
                new.insert(key.clone(), value.clone());
            }
            // Reported among the defaults.
            Some(default) if default.same_type(value) => {}
            _ => dropped.push(key.as_str()),
        }
    }
    let fresh = new.iter().filter(|(key, value)| {
        *key != "kind" && old.get(*key).is_none_or(|old| old.is_str() && !was_chosen(key, old) && old.same_type(value))
    });
    let fresh: Vec<String> = fresh.map(|(key, value)| format!("{key} = {}", shown(value))).collect();
    let list = |list: Vec<String>| if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
    notes.push(format!(
        "planner.kind = \"{kind}\": keeps {} of \"{before}\"; leaves out {}; defaults: {}",
        list(kept),
        list(dropped.into_iter().map(str::to_owned).collect()),
        list(fresh)
    ));
    table.insert(PLANNER.into(), Value::Table(new));
    Ok(())
}

/// A word with or without quotes.
fn word(value: &str) -> String {
    match parse_value(value, None) {
        Value::String(word) => word,
        other => other.to_string(),
    }
}

/// A TOML value; a bare word is a string, and an integer does for a number.
fn parse_value(text: &str, present: Option<&Value>) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    match (parsed, present) {
        (Value::Integer(n), Some(Value::Float(_))) => Value::Float(n as f64),
        (parsed, _) => parsed,
    }
}

/// The values of a table and of its sections, with their dotted keys. What is a table within a section is a value.
pub(super) fn entries(table: &Table) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(section) => {
                found.extend(section.iter().map(|(inner, value)| (format!("{key}.{inner}"), value)));
            }
            value => found.push((key.clone(), value)),
        }
    }
    found
}

fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((head, rest)) => get(table.get(head)?.as_table()?, rest),
    }
}

/// Sets a value. Tables on the way that are not there are made: a task's options may have tables of their own.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Some(inner) = inner.as_table_mut() {
                set(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_concerns_what_was_set_where_one_name_is_within_the_other() {
        for (at, key, expected) in [
            ("planner", "planner.horizon", true),
            ("planner.horizon", "planner", true),
            ("planner.horizon", "planner.horizon", true),
            ("plan", "planner.horizon", false),
            ("model.members", "planner.horizon", false),
        ] {
            assert_eq!(concerns(at, key), expected, "{at} and {key}");
        }
    }
}
