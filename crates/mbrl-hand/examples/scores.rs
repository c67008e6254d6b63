//! What the episodes of runs came to: `scores TASK RUN...`, by the newest evaluation in each run's folder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use mbrl_hand::Score;

/// The episodes of the newest evaluation, in their order.
fn newest(run: &Path) -> Result<Vec<PathBuf>, String> {
    let folder = run.join("episodes");
    let told = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut found: Vec<(u64, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        let numbers = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".csv"));
        let Some((step, episode)) = numbers.and_then(|name| name.split_once('-')) else { continue };
        if let (Ok(step), Ok(episode)) = (step.parse(), episode.parse()) {
            found.push((step, episode, path));
        }
    }
    let last = found.iter().map(|(step, ..)| *step).max();
    found.retain(|(step, ..)| Some(*step) == last);
    found.sort();
    Ok(found.into_iter().map(|(.., path)| path).collect())
}

/// The observations of an episode's record.
fn observations(path: &Path) -> Result<Vec<Vec<f32>>, String> {
    let told = |reason: String| format!("{}: {reason}", path.display());
    let text = fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let columns: Vec<usize> = (0..names.len()).filter(|column| names[*column].starts_with("obs_")).collect();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let of = |column: &usize| cells.get(*column).and_then(|cell| cell.parse::<f32>().ok());
        columns.iter().map(of).collect::<Option<Vec<f32>>>().ok_or_else(|| told(format!("no numbers in `{line}`")))
    };
    lines.map(row).collect()
}

fn run(task: &str, folder: &Path) -> Result<(), String> {
    let episodes = newest(folder)?;
    if episodes.is_empty() {
        return Err(format!("{}: no evaluation was recorded", folder.display()));
    }
    for (number, path) in episodes.iter().enumerate() {
        let observations = observations(path)?;
        let score = Score::of(task, &observations).ok_or_else(|| format!("{task}: no task with a score"))?;
        println!("{} {:>3}: {} steps, {score}", folder.display(), number + 1, observations.len() - 1);
    }
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let [task, runs @ ..] = &words[..] else {
        eprintln!("usage: scores TASK RUN...");
        return ExitCode::from(2);
    };
    for folder in runs {
        if let Err(reason) = run(task, Path::new(folder)) {
            eprintln!("{reason}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
