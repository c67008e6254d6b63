//! `episodes/`: the trajectories of evaluation episodes as CSV, one file an episode.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use mbrl_env::Transition;
use mbrl_policy::{AgentError, Evaluation, Moment, Observer, write_atomically};

/// Writes `episodes/<env step>-<episode>.csv` at every evaluation.
#[derive(Debug)]
pub(crate) struct TrajectoryWriter {
    folder: PathBuf,
}

impl TrajectoryWriter {
    pub(crate) fn new(run: &Path) -> Self {
        Self { folder: run.join("episodes") }
    }
}

impl Observer for TrajectoryWriter {
    fn on_eval(&mut self, at: Moment, evaluation: &Evaluation) -> Result<(), AgentError> {
        fs::create_dir_all(&self.folder).map_err(|source| AgentError::Io { path: self.folder.clone(), source })?;
        for (number, episode) in evaluation.episodes.iter().enumerate() {
            let path = self.folder.join(format!("{}-{}.csv", at.env_step, number + 1));
            write_atomically(&path, csv(&episode.transitions).as_bytes())?;
        }
        Ok(())
    }
}

/// A row a step: the observation before it, the action, and what came of it. A last row holds the last observation.
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

#[cfg(test)]
mod tests {
    use super::*;

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
