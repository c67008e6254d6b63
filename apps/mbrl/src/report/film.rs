//! Predictions of an image model beside the real images: two strips of frames.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use mbrl_env::{EnvSpec, FieldKind, History, MAX_PAST, Situation, Transition};
use mbrl_model::{Draw, Dynamics, Propagation, Start};
use mbrl_policy::Tensor;

use super::html::{escape, figure, number};

/// Number of frames of a strip, and a frame's pixels on the page.
const FRAMES: usize = 11;
const PIXEL: usize = 3;
const GAP: usize = 6;
/// Space for the words beside the strips and the times above them.
const WORDS: usize = 70;
const TIMES: usize = 16;

/// The shape of the observation, `[height, width, channels]`, if it is an image.
pub(super) fn image(spec: &EnvSpec) -> Option<[usize; 3]> {
    let [field] = &spec.fields[..] else { return None };
    match (field.kind, &field.shape[..]) {
        (FieldKind::Pixels, &[height, width]) => Some([height, width, 1]),
        (FieldKind::Pixels, &[height, width, channels @ (1 | 3)]) => Some([height, width, channels]),
        _ => None,
    }
}

/// Frames of an episode and the model's predictions of them, with the actions taken, from a quarter of `steps` on.
pub(super) fn film(
    model: &dyn Dynamics,
    spec: &EnvSpec,
    episode: &[Transition],
    steps: usize,
    of: &str,
) -> Result<String> {
    let Some(image) = image(spec) else { anyhow::bail!("it observes no pictures") };
    let first = (steps / 4).min(episode.len() - 1);
    let followed = &episode[first..episode.len().min(first + steps)];
    let mut past = History::default();
    episode[..first].iter().for_each(|t| past.push(t.obs.clone(), t.action.clone(), MAX_PAST));
    let situation = Situation { past: &past, ..Situation::of(&followed[0].obs) };
    let actions: Vec<f32> = followed.iter().flat_map(|t| t.action.iter().copied()).collect();
    let shape = [followed.len(), 1, model.spec().action];
    let actions = Tensor::<1>::from_floats(&actions[..], &model.spec().device).reshape(shape);
    let from = Start::States(model.encode(&situation)?);
    let states = model.rollout(from, actions, Draw::new(Propagation::MEAN, 0))?.obs.squeeze_dim::<2>(1);
    let foreseen: Vec<f32> =
        model.reconstruct(states)?.try_into_vec_as().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let pixels: usize = image.iter().product();
    ensure!(foreseen.len() == (followed.len() + 1) * pixels, "pictures of another size");
    let last = followed.len();
    let mut shown: Vec<usize> = (0..FRAMES).map(|i| i * last / (FRAMES - 1)).collect();
    shown.dedup();
    let seen = |step: usize| if step < last { &followed[step].obs } else { &followed[last - 1].next_obs };
    let real: Vec<&[f32]> = shown.iter().map(|step| &seen(*step)[..]).collect();
    let imagined: Vec<&[f32]> = shown.iter().map(|step| &foreseen[step * pixels..][..pixels]).collect();
    let times: Vec<String> =
        shown.iter().map(|step| format!("{} s", number(*step as f64 * spec.control_period))).collect();
    let caption = format!(
        "{}: what was seen, and what the model foresees from the first of these frames and the one before it, by the actions that were \
         taken.",
        escape(of)
    );
    Ok(figure(&strips(image, &times, &[("seen", &real), ("foreseen", &imagined)]), "", &caption))
}

/// Rows of frames below their times.
fn strips(image: [usize; 3], times: &[String], rows: &[(&str, &[&[f32]])]) -> String {
    let [height, width, _] = image.map(|side| side * PIXEL);
    let all = [WORDS + times.len() * (width + GAP), TIMES + rows.len() * (height + GAP)];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"frames, seen and foreseen\">",
        all[0], all[1]
    );
    let text = |x: usize, y: usize, word: &str| {
        format!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"12\" font-family=\"sans-serif\" fill=\"gray\">{}</text>",
            escape(word)
        )
    };
    for (i, time) in times.iter().enumerate() {
        svg += &text(WORDS + i * (width + GAP), TIMES - 4, time);
    }
    for (row, (word, frames)) in rows.iter().enumerate() {
        let top = TIMES + row * (height + GAP);
        svg += &text(0, top + height / 2, word);
        for (i, frame) in frames.iter().enumerate() {
            let _ = write!(
                svg,
                "<g transform=\"translate({} {top}) scale({PIXEL})\" shape-rendering=\"crispEdges\">",
                WORDS + i * (width + GAP)
            );
            svg += &picture(image, frame);
            svg += "</g>";
        }
    }
    svg + "</svg>"
}

/// A frame as rectangles: a run of pixels of one colour, of sixteen levels, is one rectangle, and the darkest pixels are the background.
fn picture([height, width, channels]: [usize; 3], frame: &[f32]) -> String {
    let level = |value: &f32| (value.clamp(0.0, 255.0) / 17.0).round() as u8;
    let mut svg = format!("<rect width=\"{width}\" height=\"{height}\" fill=\"#000\"/>");
    for (y, row) in frame.chunks_exact(width * channels).enumerate() {
        let colours: Vec<Vec<u8>> = row.chunks_exact(channels).map(|pixel| pixel.iter().map(level).collect()).collect();
        let mut x = 0;
        for run in colours.chunk_by(|a, b| a == b) {
            if run[0].iter().any(|level| *level > 0) {
                let hex: String = (0..3).map(|c| format!("{:x}", run[0][c.min(channels - 1)])).collect();
                let _ = write!(svg, "<path d=\"M{x} {y}h{}v1h-{}z\" fill=\"#{hex}\"/>", run.len(), run.len());
            }
            x += run.len();
        }
    }
    svg
}

#[cfg(test)]
mod tests {
    use mbrl_env::{Env, Rng, tasks};
    use mbrl_model::{Device, LatentConfig};

    use super::*;

    #[test]
    fn a_picture_shows_its_pixels() {
        let frame = [0.0, 255.0, 255.0, 10.0 * 17.0, 0.0, 3.0];
        let svg = picture([2, 3, 1], &frame);
        assert_eq!(
            svg,
            "<rect width=\"3\" height=\"2\" fill=\"#000\"/><path d=\"M1 0h2v1h-2z\" fill=\"#fff\"/><path d=\"M0 1h1v1h-1z\" fill=\"#aaa\"/>"
        );
        // In colours.
        assert!(picture([1, 1, 3], &[255.0, 0.0, 17.0]).contains("fill=\"#f01\""));
        let frames: [&[f32]; 2] = [&frame, &frame];
        let strip = strips([2, 3, 1], &["0 s".into(), "1 s".into()], &[("seen", &frames), ("foreseen", &frames)]);
        assert_eq!((strip.matches("<g ").count(), strip.matches("#aaa").count()), (4, 4));
        assert!(strip.contains(">foreseen<"), "{strip}");
    }

    #[test]
    fn a_model_of_images_has_a_film() {
        let mut task = tasks::make("pendulum-pixels").unwrap();
        let spec = task.env.spec().clone();
        let small = LatentConfig {
            channels: vec![4, 4],
            encoder: vec![8],
            latent: 8,
            hidden: vec![8],
            decoder: vec![8],
            ..Default::default()
        };
        let model = small.init_for(&spec, &Device::flex(), &mut Rng::new(0)).unwrap();
        let mut obs = task.env.reset(Some(0)).unwrap();
        let mut episode = Vec::new();
        for _ in 0..30 {
            let step = task.env.step(&[1.0]).unwrap();
            let (reward, next_obs) = (step.reward, step.obs);
            let seen = Transition {
                obs,
                action: vec![1.0],
                reward,
                next_obs: next_obs.clone(),
                terminated: false,
                truncated: false,
            };
            episode.push(seen);
            obs = next_obs;
        }
        let shown = film(&model, &spec, &episode, 20, "run").unwrap();
        assert_eq!(shown.matches("<g ").count(), 2 * FRAMES, "{shown}");
        assert!(shown.contains(&format!(">{} s<", number(1.0))) && shown.contains(">seen<"), "{shown}");
        // Shorter than a strip.
        assert!(film(&model, &spec, &episode[..2], 20, "run").is_ok());
        let numbers = tasks::make("pendulum").unwrap();
        assert!(film(&model, numbers.env.spec(), &episode, 20, "run").is_err());
    }
}
