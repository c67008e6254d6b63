//! The arguments of `mbrl compare`: run folders, patterns of them, names for them, and figures.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use super::{Baseline, Method};
use crate::{
    console, folder,
    report::{Group, Run, tell_apart},
    run::EXPERIMENT,
};

/// One word of the command line.
#[derive(Debug, PartialEq)]
enum Word {
    /// Run folders under the name of a method, or under the names of their experiments.
    Runs(Option<String>, Vec<PathBuf>),
    Figure(Baseline),
}

/// Methods and figures, in the order in which they were named.
///
/// # Errors
/// Folders that are no runs, patterns that match no run, names with two meanings.
pub(super) fn read(words: &[String]) -> Result<(Vec<Method>, Vec<Baseline>)> {
    let mut runs: Vec<(Option<String>, Run)> = Vec::new();
    let mut figures: Vec<Baseline> = Vec::new();
    let mut places = Vec::new();
    for word in words {
        match understood(word)? {
            Word::Figure(figure) => {
                if figures.iter().any(|other| other.name == figure.name && other.task == figure.task) {
                    bail!("{word}: {} has a figure already; NAME@TASK=NUMBER gives one for each task", figure.name);
                }
                figures.push(figure);
            }
            Word::Runs(name, folders) => {
                for folder in folders {
                    let place = folder::real(&folder);
                    if places.contains(&place) {
                        console::note(format_args!("note: {} is named twice", folder.display()));
                        continue;
                    }
                    places.push(place);
                    runs.push((name.clone(), Run::read(&folder)?));
                }
            }
        }
    }
    let methods = grouped(runs);
    if let Some(figure) = figures.iter().find(|figure| methods.iter().any(|method| method.name == figure.name)) {
        bail!("{0} = {1}: {0} is the name of runs already", figure.name, figure.value);
    }
    Ok((methods, figures))
}

/// The whole word as a path or pattern if it matches; otherwise the part after the first `=`, because folders of runs may have a `=` in
/// their names too.
fn understood(word: &str) -> Result<Word> {
    if let Some(folders) = folders(Path::new(word))? {
        return Ok(Word::Runs(None, folders));
    }
    let Some((name, rest)) = word.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains('/')) else {
        // The error says that it is no run, and what may have been meant.
        Run::read(Path::new(word))?;
        bail!("{word}: no run folder");
    };
    if let Ok(value) = rest.parse::<f64>() {
        let (name, task) = name.split_once('@').map_or((name, None), |(name, task)| (name, Some(task.to_owned())));
        if !value.is_finite() || name.is_empty() {
            bail!("{word}: expected NAME=NUMBER or NAME@TASK=NUMBER with a finite number");
        }
        return Ok(Word::Figure(Baseline { name: name.to_owned(), task, value, outcomes: Vec::new() }));
    }
    match folders(Path::new(rest))? {
        Some(folders) => Ok(Word::Runs(Some(name.to_owned()), folders)),
        None => {
            bail!("{word}: expected a run folder, a pattern of them or a number after `{name}=`; there is no {rest}")
        }
    }
}

/// The folder at this path, or those that match the pattern with `*` and `?` in its last part, in natural order; `None` if nothing has
/// that name.
fn folders(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    if path.exists() {
        return Ok(Some(vec![path.to_owned()]));
    }
    let pattern = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(parent.unwrap_or(Path::new("."))) else { return Ok(None) };
    if !pattern.contains(['*', '?']) {
        return Ok(None);
    }
    let characters: Vec<char> = pattern.chars().collect();
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let place = parent.map_or_else(|| PathBuf::from(&name), |parent| parent.join(&name));
        if matches(&characters, &name.chars().collect::<Vec<_>>()) && place.join(EXPERIMENT).exists() {
            found.push(place);
        }
    }
    found.sort();
    Ok((!found.is_empty()).then_some(found))
}

/// Whether a name matches a pattern: `*` stands for any characters, `?` for one.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => matches(rest, name) || (!name.is_empty() && matches(pattern, &name[1..])),
        (['?', rest @ ..], [_, others @ ..]) => matches(rest, others),
        ([one, rest @ ..], [other, others @ ..]) => one == other && matches(rest, others),
        _ => false,
    }
}

/// Groups runs into methods: runs with one given name, or of one experiment if no name was given, however long they are. The runs of a
/// method are grouped by task.
fn grouped(runs: Vec<(Option<String>, Run)>) -> Vec<Method> {
    let alike = |run: &Run| {
        let mut experiment = run.experiment().with_seed(0);
        experiment.steps = 0;
        // The summary of a refit names its original run.
        experiment.summary.clear();
        experiment
    };
    let mut groups: Vec<(bool, Group)> = Vec::new();
    for (name, run) in runs {
        let task = Group::new(String::new(), vec![run.clone()], 0).task();
        let same = |(named, group): &&mut (bool, Group)| match &name {
            Some(name) => *named && group.name == *name && group.task() == task,
            None => !*named && alike(&group.runs[0]) == alike(&run),
        };
        match groups.iter_mut().find(same) {
            Some((_, group)) => group.runs.push(run),
            None => {
                let called = name.clone().unwrap_or_else(|| run.experiment().name.clone());
                groups.push((name.is_some(), Group::new(called, vec![run], 0)));
            }
        }
    }
    let mut tasks: Vec<String> = groups.iter().map(|(_, group)| group.task()).collect();
    tasks.sort();
    tasks.dedup();
    for task in &tasks {
        // An experiment's name may end in its task: with several tasks, the rest is the name of the method.
        let mut own: Vec<&mut Group> = groups
            .iter_mut()
            .filter(|(named, group)| !named && group.task() == *task)
            .map(|(_, group)| group)
            .collect();
        let mut apart: Vec<Group> = own.iter().map(|group| (**group).clone()).collect();
        if tasks.len() > 1 {
            for group in &mut apart {
                let suffix = format!("-{}", group.experiment().task);
                if let Some(method) = group.name.strip_suffix(&suffix).filter(|method| !method.is_empty()) {
                    group.name = method.to_owned();
                }
            }
        }
        tell_apart(&mut apart);
        for (group, apart) in own.iter_mut().zip(apart) {
            **group = apart;
        }
    }
    let mut methods: Vec<Method> = Vec::new();
    for (_, mut group) in groups {
        group.runs.sort_by_key(|run| run.experiment().seed);
        once(&mut group.runs);
        match methods.iter_mut().find(|method| method.name == group.name) {
            Some(method) => match method.groups.iter_mut().find(|other| other.task() == group.task()) {
                // A given name is also the name of an experiment.
                Some(other) => {
                    other.runs.append(&mut group.runs);
                    other.runs.sort_by_key(|run| run.experiment().seed);
                    once(&mut other.runs);
                }
                None => method.groups.push(group),
            },
            None => methods.push(Method { name: group.name.clone(), groups: vec![group] }),
        }
    }
    for (i, method) in methods.iter_mut().enumerate() {
        method.groups.iter_mut().for_each(|group| group.colour = i);
    }
    methods
}

/// Keeps one run of each experiment and seed, the longest: the same seed gives the same bits, so a second run is not another
/// sample. Runs are in the order of their seeds.
pub(crate) fn once(runs: &mut Vec<Run>) {
    let mut left: Vec<Run> = Vec::new();
    for run in runs.drain(..) {
        let settings = |run: &Run| run.experiment().settings().ok();
        match left.iter_mut().find(|other| settings(other).is_some_and(|own| Some(own) == settings(&run))) {
            Some(other) => {
                let (first, second) = (other.folder.path.display().to_string(), run.folder.path.display().to_string());
                if run.env_step() > other.env_step() {
                    *other = run;
                }
                console::note(format_args!(
                    "note: {first} and {second} are the same experiment and seed: the longer one counts, once"
                ));
            }
            None => left.push(run),
        }
    }
    *runs = left;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let is = |pattern: &str, name: &str| {
            matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
        };
        assert!(is("smoke-*", "smoke-0") && is("smoke-?", "smoke-1") && is("*", "") && is("a*b*c", "axxbc"));
        assert!(!is("smoke-?", "smoke-10") && !is("smoke", "smoke-0") && !is("a*b", "abc"));
    }

    #[test]
    fn words_are_folders_names_of_folders_or_figures() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        for name in ["x-10", "x-2", "x,planner.horizon=5-0"] {
            fs::create_dir(place(name)).unwrap();
            fs::write(place(name).join(EXPERIMENT), "").unwrap();
        }
        fs::create_dir(place("x-empty")).unwrap();
        let word = |text: &str| understood(text).unwrap();
        let path = |name: &str| place(name).display().to_string();
        // A `=` in a folder's own name does not name a group.
        let own = "x,planner.horizon=5-0";
        assert_eq!(word(&path(own)), Word::Runs(None, vec![place(own)]));
        assert_eq!(word(&path("x,planner*")), Word::Runs(None, vec![place(own)]));
        // Matching folders that are no runs are skipped.
        let both = vec![place("x-10"), place("x-2")];
        assert_eq!(word(&format!("mine={}", path("x-*"))), Word::Runs(Some("mine".into()), both));
        let figure = |name: &str, task: Option<&str>, value| {
            Word::Figure(Baseline { name: name.into(), task: task.map(str::to_owned), value, outcomes: Vec::new() })
        };
        assert_eq!(word("random=-1127.5"), figure("random", None, -1127.5));
        assert_eq!(word("random@pendulum=3"), figure("random", Some("pendulum"), 3.0));
        for wrong in ["nowhere", "a=nowhere", "a=nan", "=3", "a/b=3", &path("y-*")] {
            assert!(understood(wrong).is_err(), "{wrong}");
        }
    }
}
