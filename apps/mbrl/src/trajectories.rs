//! `episodes/`: the trajectories of evaluation episodes as CSV, one file per episode.

use std::{
    fmt::Write as _,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use mbrl_env::{Transition, atomic_file::parent};
use mbrl_policy::{AgentError, Evaluation, Moment, Observer, write_atomically};

const EPISODES: &str = "episodes";

/// Where a run keeps them.
pub(crate) fn folder(run: &Path) -> PathBuf {
    run.join(EPISODES)
}

/// Writes `episodes/<env step>-<episode>.csv` at every evaluation.
#[derive(Debug)]
pub(crate) struct TrajectoryWriter {
    folder: PathBuf,
}

impl TrajectoryWriter {
    pub(crate) fn new(run: &Path) -> Self {
        Self { folder: folder(run) }
    }

    /// Writes the episodes of an evaluation at an environment step.
    fn write(&self, env_step: u64, evaluation: &Evaluation) -> Result<(), AgentError> {
        // A run's folder that was renamed or removed meanwhile is not created again.
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.map_err(|source| AgentError::Io { path: self.folder.clone(), source })?,
        }
        for (number, episode) in evaluation.episodes.iter().enumerate() {
            let path = self.folder.join(format!("{env_step}-{}.csv", number + 1));
            write_atomically(&path, csv(&episode.transitions).as_bytes())?;
        }
        Ok(())
    }
}

impl Observer for TrajectoryWriter {
    fn on_eval(&mut self, at: Moment, evaluation: &Evaluation) -> Result<(), AgentError> {
        self.write(at.env_step, evaluation)
    }
}

/// Refuses a place that [`record`] could not use, before there is anything to write: it must not exist yet, but its parent must.
pub(crate) fn check_record(place: &Path) -> Result<()> {
    let told = |expected: &str| format!("--record {}: expected {expected}", place.display());
    ensure!(place.symlink_metadata().is_err(), told("a folder that is not there yet"));
    ensure!(parent(place).is_dir(), told("a new folder in one that is there; make that first"));
    crate::folder::check(place, false)
}

/// Writes an evaluation into a new folder, completely or not at all, in the layout of a run.
pub(crate) fn record(place: &Path, env_step: u64, evaluation: &Evaluation) -> Result<()> {
    let fill = |partial: &Path| Ok(TrajectoryWriter::new(partial).write(env_step, evaluation)?);
    crate::folder::create(place, false, fill).map(drop)
}

/// One row per step: the observation before it, the action, and its result. A last row holds the last observation.
fn csv(transitions: &[Transition]) -> String {
    let mut text = String::from("step");
    if let Some(first) = transitions.first() {
        (0..first.obs.len()).for_each(|i| text.push_str(&format!(",obs_{i}")));
        (0..first.action.len()).for_each(|i| text.push_str(&format!(",action_{i}")));
    }
    text.push_str(",reward,terminated,truncated\n");
    for (step, t) in transitions.iter().enumerate() {
        text.push_str(&step.to_string());
        t.obs.iter().chain(&t.action).for_each(|x| text.push_str(&format!(",{x}")));
        // Writing into a string cannot fail.
        let _ = writeln!(text, ",{},{},{}", t.reward, t.terminated, t.truncated);
    }
    if let Some(last) = transitions.last() {
        text.push_str(&transitions.len().to_string());
        last.next_obs.iter().for_each(|x| text.push_str(&format!(",{x}")));
        text.push_str(&",".repeat(last.action.len() + 3));
        text.push('\n');
    }
    text
}

/// A recorded episode.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its number within the evaluation, from 1.
    pub(crate) number: usize,
    pub(crate) transitions: Vec<Transition>,
}

impl Stored {
    pub(crate) fn total_reward(&self) -> f64 {
        self.transitions.iter().map(|t| t.reward).sum()
    }

    /// All observations, including the first one.
    pub(crate) fn observations(&self) -> Vec<Vec<f32>> {
        observations(&self.transitions)
    }
}

/// All observations of an episode, including the first one.
pub(crate) fn observations(transitions: &[Transition]) -> Vec<Vec<f32>> {
    let last = transitions.last().map(|t| t.next_obs.clone());
    transitions.iter().map(|t| t.obs.clone()).chain(last).collect()
}

/// The step of a run's evaluation at `step`, or of its newest one, and its episodes in order, each complete or with its
/// error.
pub(crate) fn newest(run: &Path, step: Option<u64>) -> Result<Option<(u64, Vec<Result<Stored>>)>> {
    let folder = folder(run);
    if !folder.exists() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".csv"));
        let numbers = name.and_then(|name| name.split_once('-')).map(|(s, n)| (s.parse::<u64>(), n.parse::<usize>()));
        if let Some((Ok(step), Ok(number))) = numbers {
            found.push((step, number, path));
        }
    }
    let wanted = |(found, ..): &&(u64, usize, PathBuf)| step.is_none_or(|step| step == *found);
    let Some(newest) = found.iter().filter(wanted).map(|(step, ..)| *step).max() else { return Ok(None) };
    found.retain(|(step, ..)| *step == newest);
    found.sort();
    let read = |(_, number, path): (u64, usize, PathBuf)| {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let transitions = parsed(&text).with_context(|| path.display().to_string())?;
        Ok(Stored { number, transitions })
    };
    Ok(Some((newest, found.into_iter().map(read).collect())))
}

/// The transitions that [`csv`] wrote.
fn parsed(text: &str) -> Result<Vec<Transition>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let count = |prefix: &str| header.iter().filter(|name| name.starts_with(prefix)).count();
    let (obs, action) = (count("obs_"), count("action_"));
    let width = 1 + obs + action + 3;
    if header.len() != width {
        bail!("line 1: expected step, obs_i, action_i, reward, terminated and truncated");
    }
    let mut transitions: Vec<Transition> = Vec::new();
    let mut ended = false;
    for (number, line) in lines.enumerate() {
        let at = || format!("line {}", number + 2);
        let cells: Vec<&str> = line.split(',').collect();
        if cells.len() != width || ended {
            bail!("{}: expected {width} fields and nothing after the last observation", at());
        }
        let floats = |cells: &[&str]| cells.iter().map(|cell| cell.parse()).collect::<Result<Vec<f32>, _>>();
        let now = floats(&cells[1..=obs]).with_context(at)?;
        if let Some(before) = transitions.last_mut() {
            before.next_obs.clone_from(&now);
        }
        let rest = &cells[1 + obs..];
        // The last row holds only the last observation.
        ended = rest.iter().all(|cell| cell.is_empty());
        if !ended {
            transitions.push(Transition {
                obs: now,
                action: floats(&rest[..action]).with_context(at)?,
                reward: rest[action].parse().with_context(at)?,
                next_obs: Vec::new(),
                terminated: rest[action + 1].parse().with_context(at)?,
                truncated: rest[action + 2].parse().with_context(at)?,
            });
        }
    }
    if !ended && !transitions.is_empty() {
        bail!("the last observation is missing");
    }
    Ok(transitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episode() -> Vec<Transition> {
        let step = |i: u8, terminated| Transition {
            obs: vec![f32::from(i), 0.1],
            action: vec![-0.3],
            reward: 1.0 / 3.0,
            next_obs: vec![f32::from(i + 1), 0.1],
            terminated,
            truncated: false,
        };
        vec![step(0, false), step(1, false), step(2, true)]
    }

    #[test]
    fn what_was_written_is_read_back_bit_for_bit() {
        assert_eq!(parsed(&csv(&episode())).unwrap(), episode());
        assert!(parsed(&csv(&[])).unwrap().is_empty());
    }

    #[test]
    fn what_is_damaged_is_named_by_line() {
        let whole = csv(&episode());
        let refused = |text: &str| crate::console::chain(&parsed(text).unwrap_err());
        let cut = whole.rsplit_once("\n3,").unwrap().0;
        assert!(refused(cut).contains("the last observation is missing"));
        assert!(refused(&whole.replacen(",-0.3", ",x", 1)).contains("line 2"));
        assert!(refused(&whole.replacen("\n1,", "\n", 1)).contains("line 3: expected 7 fields"));
        assert!(refused("").contains("line 1"));
    }

    #[test]
    fn the_newest_evaluation_is_found_in_order() {
        let run = tempfile::tempdir().unwrap();
        assert!(newest(run.path(), None).unwrap().is_none());
        fs::create_dir(run.path().join(EPISODES)).unwrap();
        for name in ["400-1.csv", "1200-10.csv", "1200-9.csv", "1200-2.csv.partial", "notes.txt"] {
            fs::write(run.path().join(EPISODES).join(name), csv(&episode())).unwrap();
        }
        fs::write(run.path().join(EPISODES).join("1200-3.csv"), "step,obs_0\n").unwrap();
        assert_eq!(newest(run.path(), Some(400)).unwrap().unwrap().0, 400);
        assert!(newest(run.path(), Some(401)).unwrap().is_none());
        let (step, episodes) = newest(run.path(), None).unwrap().unwrap();
        let numbers: Vec<_> = episodes.iter().map(|e| e.as_ref().ok().map(|e| e.number)).collect();
        assert_eq!((step, numbers), (1200, vec![None, Some(9), Some(10)]));
    }

    #[test]
    fn a_row_a_step_under_named_columns_and_one_for_the_last_observation() {
        let step = Transition {
            obs: vec![0.5, -1.0],
            action: vec![2.0],
            reward: 1.25,
            next_obs: vec![0.75, 3.0],
            terminated: true,
            truncated: false,
        };
        let header = "step,obs_0,obs_1,action_0,reward,terminated,truncated\n";
        assert_eq!(csv(&[step]), format!("{header}0,0.5,-1,2,1.25,true,false\n1,0.75,3,,,,\n"));
    }
}
