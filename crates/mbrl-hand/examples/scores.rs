//! What the episodes of runs came to: `scores TASK RUN...`, by the newest evaluation in each run's folder. `scores write RUN... --draw
//! FILE.svg` also draws what the pencil wrote in the first episode of each run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use mbrl_hand::{Score, task::WriteScore};

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

/// Prints the scores of a run's episodes and returns the observations of the first one.
fn run(task: &str, folder: &Path) -> Result<Vec<Vec<f32>>, String> {
    let mut first = None;
    for (number, path) in newest(folder)?.iter().enumerate() {
        let observations = observations(path)?;
        let score = Score::of(task, &observations).ok_or_else(|| format!("{task}: no task with a score"))?;
        println!("{} {:>3}: {} steps, {score}", folder.display(), number + 1, observations.len() - 1);
        first.get_or_insert(observations);
    }
    first.ok_or_else(|| format!("{}: no evaluation was recorded", folder.display()))
}

/// What was written in these episodes, beside the paths.
fn draw(episodes: &[Vec<Vec<f32>>]) -> String {
    // A panel shows 32 mm.
    const SIDE: f64 = 240.0;
    let (mut panels, width) = (String::new(), SIDE * episodes.len() as f64);
    for (number, observations) in episodes.iter().enumerate() {
        let track: Vec<([f64; 3], [f64; 2])> = WriteScore::track(observations).collect();
        let middle = [0, 1].map(|k| track.iter().map(|(_, target)| target[k]).sum::<f64>() / track.len() as f64);
        let line = |colour: &str, wide: f64, points: Vec<[f64; 2]>| {
            let scale = SIDE / 0.032;
            let points = points.iter().map(|[x, y]| {
                format!("{:.1},{:.1}", SIDE / 2.0 + scale * (x - middle[0]), SIDE / 2.0 - scale * (y - middle[1]))
            });
            let points = points.collect::<Vec<String>>().join(" ");
            format!("<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{wide}\"/>\n")
        };
        panels += &format!("<g transform=\"translate({:.0} 0)\">\n", SIDE * number as f64);
        panels += &line("#bbb", 7.0, track.iter().map(|(_, target)| *target).collect());
        panels += &line("#1f5fae", 1.5, track.iter().map(|([x, y, _], _)| [*x, *y]).collect());
        panels += "</g>\n";
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {SIDE}\" width=\"{width}\" height=\"{SIDE}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{panels}</svg>\n"
    )
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let (words, picture) = match &words[..] {
        [words @ .., flag, file] if flag == "--draw" => (words, Some(file)),
        words => (words, None),
    };
    let (task, runs) = match words {
        [task, runs @ ..] if picture.is_none() || (task == "write" && !runs.is_empty()) => (task, runs),
        _ => {
            eprintln!("usage: scores TASK RUN..., or scores write RUN... --draw FILE.svg");
            return ExitCode::from(2);
        }
    };
    let told = || -> Result<(), String> {
        let episodes: Vec<_> = runs.iter().map(|folder| run(task, Path::new(folder))).collect::<Result<_, _>>()?;
        let Some(picture) = picture else { return Ok(()) };
        fs::write(picture, draw(&episodes)).map_err(|error| format!("{picture}: {error}"))
    };
    match told() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}
