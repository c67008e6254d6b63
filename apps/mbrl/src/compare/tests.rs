use super::*;
use crate::report::runs::tests::run as record;

/// A run of `smoke` with a seed and evaluations at these steps; its wall-clock time is a hundredth of its steps.
fn evaluated(seed: u64, words: &[&str], points: &[(u64, f64)]) -> Run {
    evaluated_but(None, seed, words, points)
}

/// The same without the evaluation at one of the steps.
fn evaluated_but(left_out: Option<u64>, seed: u64, words: &[&str], points: &[(u64, f64)]) -> Run {
    let mut lines = Vec::new();
    for (step, value) in points {
        let value = if value.is_finite() { value.to_string() } else { "null".to_owned() };
        lines.push(format!(
            r#"{{"event":"episode","env_step":{step},"wall_s":{0},"episode/return":{value},"episode/length":100,"episode/cut":0}}"#,
            *step as f64 / 100.0
        ));
        if left_out == Some(*step) {
            continue;
        }
        lines.push(format!(
            r#"{{"event":"eval","env_step":{step},"wall_s":{},"eval/return_mean":{value},"eval/return_std":1,"eval/episodes":5}}"#,
            *step as f64 / 100.0
        ));
    }
    let mut run = record(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let last = points.last().map_or(0, |point| point.0);
    let steps = format!("steps={last}");
    let words: Vec<&str> = [words, &[&steps, "train.eval_every=100"]].concat();
    run.folder.experiment = registry().load("smoke", &words).unwrap().with_seed(seed);
    run.label = format!("run-{seed}");
    run
}

/// A method whose seeds have the same steps.
fn method(name: &str, colour: usize, words: &[&str], seeds: &[[f64; 3]]) -> Group {
    let points = |values: &[f64; 3]| [100, 200, 300].into_iter().zip(*values).collect::<Vec<_>>();
    let runs = seeds.iter().zip(0..).map(|(values, seed)| evaluated(seed, words, &points(values))).collect();
    Group::new(name.to_owned(), runs, colour)
}

fn two() -> Vec<Group> {
    vec![
        method("a", 0, &[], &[[0.0, 2.0, 4.0], [0.0, 1.0, 2.0], [0.0, 3.0, 3.0]]),
        method("b", 1, &["planner.horizon=5"], &[[0.0, 9.0, 10.0], [1.0, 2.0, 3.0], [2.0, 2.5, 8.0]]),
    ]
}

#[test]
fn figures_are_those_of_the_scores_at_the_end() {
    let found = compare(&two(), &Question::default()).unwrap();
    assert_eq!(found.notes, [""; 0]);
    let [block] = &found.blocks[..] else { panic!("{found:?}") };
    let [a, b] = &block.rows[..] else { panic!("{block:?}") };
    assert_eq!((a.name.as_str(), a.n, a.median, a.iqm.value), ("a", 3, 3.0, 3.0));
    assert_eq!((b.median, b.iqm.value, b.wall_s), (8.0, 7.0, Some(3.0)));
    assert_eq!(a.iqm.interval, Some((2.0, 4.0)));
    // 10 and 8 beat all three; 3 beats 2, ties with 3: 7.5 of 9.
    assert_eq!((a.improvement, b.improvement.map(|found| found.value)), (None, Some(7.5 / 9.0)));
    // From 0, the lowest first figure, to 7: 90 % are 6.3.
    let (threshold, why) = block.threshold.clone().unwrap();
    assert!((threshold - 6.3).abs() < 1e-12 && why.contains("lowest first figure of a method (0.00)"), "{why}");
    assert_eq!((a.steps, b.steps), (Some((f64::INFINITY, 0)), Some((300.0, 2))));
}

#[test]
fn a_run_without_its_last_evaluation_is_compared_where_it_has_one() {
    let mut groups = two();
    // Stopped in the evaluation at its end: the episode is there, but not its figure.
    groups[1].runs[0] = evaluated_but(Some(300), 0, &["planner.horizon=5"], &[(100, 0.0), (200, 9.0), (300, 10.0)]);
    assert!(!groups[1].runs[0].is_evaluated() && groups[0].runs[0].is_evaluated());
    let found = compare(&groups, &Question::default()).unwrap();
    assert!(found.notes.iter().any(|note| note.contains("compared at step 200")), "{:?}", found.notes);
    assert!(found.notes.iter().any(|note| note.contains("lacks its final evaluation")), "{:?}", found.notes);
    assert_eq!((found.blocks[0].rows[0].median, found.blocks[0].rows[1].median), (2.0, 2.5));
}

#[test]
fn figures_that_are_far_from_the_step_are_told() {
    let mut groups = two();
    let run = evaluated(0, &["planner.horizon=5"], &[(100, 1.0), (300, 2.0)]);
    groups[1] = Group::new("b".to_owned(), vec![run], 1);
    let found = compare(&groups, &Question { at: Some(190), ..Question::default() }).unwrap();
    assert_eq!(
        found.notes[..2],
        [
            "a: its figure nearest to step 190 is from step 200".to_owned(),
            "b: its figure nearest to step 190 is from step 100".to_owned()
        ]
    );
}

#[test]
fn a_step_a_threshold_and_baselines_can_be_given() {
    let mut groups = two();
    groups.push(method("truth", 2, &["planner.horizon=6"], &[[20.0, 20.0, 30.0]]));
    groups[2].is_baseline = true;
    let random = Baseline { name: "random".into(), task: None, value: -3.0, outcomes: Vec::new() };
    let question = Question { baselines: vec![random], at: Some(200), thresholds: vec![(None, 2.0)] };
    let found = compare(&groups, &question).unwrap();
    let block = &found.blocks[0];
    assert!(block.about.contains("step 200"), "{}", block.about);
    let rows: Vec<(&str, bool, usize, f64)> =
        block.rows.iter().map(|row| (row.name.as_str(), row.is_baseline, row.n, row.median)).collect();
    let expected = [("a", false, 3, 2.0), ("b", false, 3, 2.5), ("truth", true, 1, 30.0), ("random", true, 0, -3.0)];
    assert_eq!(rows, expected);
    // Seeds reach the threshold at 200, never, and 200; and at 200, 200, 100.
    assert_eq!((block.rows[0].steps, block.rows[1].steps), (Some((200.0, 2)), Some((200.0, 3))));
    assert_eq!(block.threshold.as_ref().unwrap().1, "as asked for");
    // Without one: from the random figure.
    let question = Question { thresholds: vec![], ..question };
    let (threshold, why) = compare(&groups, &question).unwrap().blocks[0].threshold.clone().unwrap();
    // Of a: 2, of b: 4.5.
    assert!((threshold - (-3.0 + 0.9 * 7.5)).abs() < 1e-12 && why.contains("random actions"), "{threshold}: {why}");
    let error = compare(&groups, &Question { at: Some(400), ..question }).unwrap_err().to_string();
    assert!(error.contains("ends at step 300") && error.contains("up to step 300"), "{error}");
}

#[test]
fn runs_of_other_lengths_are_compared_where_all_are() {
    let mut groups = two();
    groups[1].runs[2] = evaluated(2, &["planner.horizon=5"], &[(100, 2.0), (210, 5.0)]);
    let found = compare(&groups, &Question::default()).unwrap();
    assert!(found.notes.iter().any(|note| note.contains("210 to 300 steps: compared at step 210")), "{found:?}");
    let medians: Vec<f64> = found.blocks[0].rows.iter().map(|row| row.median).collect();
    assert_eq!(medians, [2.0, 5.0]);
    // An unfinished run counts with its present length, and is named.
    groups[1].runs[2].folder.experiment.steps = 300;
    let notes = compare(&groups, &Question::default()).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("stands at step 210 of 300")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("compared at step 210")), "{notes:?}");
}

#[test]
fn what_a_reader_must_know_is_said() {
    let one = [method("a", 0, &[], &[[0.0, 1.0, 2.0]]), method("b", 1, &["planner.horizon=5"], &[[0.0, 1.0, 3.0]])];
    let found = compare(&one, &Question::default()).unwrap();
    assert_eq!(found.notes.iter().filter(|note| note.contains("one seed, so there is no interval")).count(), 2);
    assert_eq!(found.blocks[0].rows[1].improvement, Some(Found { value: 1.0, interval: None }));
    // No evaluations at all: training episodes.
    let mut groups = two();
    groups[0].runs[1] = evaluated(1, &[], &[]);
    groups[0].runs[1].folder.experiment.train.eval_every = 0;
    let found = compare(&groups, &Question::default()).unwrap();
    assert!(found.notes.iter().any(|note| note.contains("compared by whole training episodes")), "{found:?}");
    assert!(found.notes.iter().any(|note| note.contains("run-1: no whole training episode yet, left out")));
    assert_eq!(found.blocks[0].rows[0].n, 2);
    // A return that is not a number.
    let mut groups = two();
    groups[0].runs[1] = evaluated(1, &[], &[(100, 1.0), (300, f64::NAN)]);
    let found = compare(&groups, &Question::default()).unwrap();
    assert!(found.notes.iter().any(|note| note.contains("a: 1 run without a finite return")), "{found:?}");
    assert_eq!((found.blocks[0].rows[0].n, found.blocks[0].rows[0].median), (2, 3.5));
    // Nothing was learned.
    let flat = [method("a", 0, &[], &[[1.0; 3], [1.0; 3]])];
    let found = compare(&flat, &Question::default()).unwrap();
    assert!(found.blocks[0].threshold.is_none() && found.notes[0].contains("give --threshold"), "{found:?}");
    // Different runs under one name.
    let mut mixed = two();
    let other = mixed.pop().unwrap();
    mixed[0].runs.extend(other.runs);
    let notes = compare(&mixed, &Question::default()).unwrap().notes;
    assert!(notes[0].contains("a: its runs differ in planner.horizon"), "{notes:?}");
}

const CARTPOLE: [&str; 2] = ["task=cartpole", "model.angles=[]"];

#[test]
fn several_tasks_are_summed_up_between_random_actions_and_the_best() {
    let mut groups = two();
    let seeds = [[0.0, 50.0, 100.0], [0.0, 50.0, 100.0]];
    groups.push(method("a", 0, &CARTPOLE, &seeds));
    groups.push(method("b", 1, &CARTPOLE, &[[0.0, 10.0, 50.0], [0.0, 10.0, 50.0]]));
    groups.push(method("c", 2, &CARTPOLE, &seeds));
    let figure = |task: &str, value| Baseline {
        name: "random".into(),
        task: Some(task.to_owned()),
        value,
        outcomes: Vec::new(),
    };
    let mut question =
        Question { baselines: vec![figure("pendulum", -3.0), figure("cartpole", 0.0)], ..Question::default() };
    let found = compare(&groups, &question).unwrap();
    assert_eq!(found.blocks.len(), 3);
    let tasks: Vec<&str> = found.blocks.iter().map(|block| block.task.as_str()).collect();
    assert_eq!(tasks, ["pendulum", "cartpole", "all 2 tasks"]);
    assert!(found.notes.iter().any(|note| note.contains("c has no runs on pendulum")), "{found:?}");
    let rows = &found.blocks[2].rows;
    assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    // Pendulum from -3 to 7: a has 0.7, 0.5, 0.6; cartpole from 0 to 100: 1, 1. The middle three of five: 0.6, 0.7, 1.
    assert!((rows[0].iqm.value - 2.3 / 3.0).abs() < 1e-12 && rows[0].n == 5, "{rows:?}");
    // 7.5 of 9 on one task and 0 on the other.
    assert!((rows[1].improvement.unwrap().value - 7.5 / 18.0).abs() < 1e-12);
    // Without random actions, the probabilities remain.
    question.baselines.clear();
    let found = compare(&groups, &question).unwrap();
    assert!(found.blocks[2].rows[0].iqm.value.is_nan() && found.blocks[2].rows[1].improvement.is_some());
    assert!(found.notes.iter().any(|note| note.contains("no common scale")));
    let text = Format::Text.write(&found);
    assert!(!text.contains("NaN"), "{text}");
    let error = compare(&groups, &Question { thresholds: vec![(None, 1.0)], ..question }).unwrap_err().to_string();
    assert!(error.contains("TASK=RETURN") && error.contains("pendulum, cartpole"), "{error}");
    let question = Question { baselines: vec![figure("pendulums", 1.0)], ..Question::default() };
    assert!(compare(&groups, &question).unwrap_err().to_string().contains("no runs on the task pendulums"));
}

#[test]
fn tables_say_the_same_in_every_format() {
    let mut groups = two();
    groups[1].name = "b_1 & |c|".into();
    let random = Baseline { name: "random".into(), task: None, value: -3.0, outcomes: Vec::new() };
    let found = compare(&groups, &Question { baselines: vec![random], ..Question::default() }).unwrap();
    let text = Format::Text.write(&found);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("pendulum: mean return of the evaluation at the end"), "{text}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[1])[..4], ["method", "n", "median", "IQM"]);
    assert_eq!(words(lines[2])[..4], ["a", "3", "3.00", "3.00"]);
    assert!(lines[1].contains("P(> a)") && lines[1].contains("steps to 6.00"), "{text}");
    assert!(lines[3].contains("300 (2 of 3)") && lines[3].ends_with("3.0 s"), "{text}");
    // Columns are as wide as their widest cell.
    let end = |line: &str, word: &str| line.find(word).map(|at| line[..at].chars().count() + word.len()).unwrap();
    assert_eq!(end(lines[1], "median"), end(lines[2], "3.00"), "{text}");
    let markdown = Format::Markdown.write(&found);
    assert!(markdown.contains("| b_1 & \\|c\\| | 3 | 8.00 | 7.00 |") && markdown.contains("|---|---:|"), "{markdown}");
    let latex = Format::Latex.write(&found);
    assert!(latex.contains("b\\_1 \\& |c| & 3 & 8.00 & 7.00 &") && latex.contains("random & -- & $-$3.00"), "{latex}");
    assert_eq!(latex.matches("\\midrule").count(), 2, "baselines stand apart");
    let csv = Format::Csv.write(&found);
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
    let place = rows[0].iter().position(|name| *name == "steps_to_threshold").unwrap();
    assert_eq!((rows[1][place], rows[2][place], rows[3][1]), ("", "300", "random"));
    let html = Tables::of(&found).html();
    assert!(html.contains("b_1 &amp; |c|") && html.contains("P(&gt; a)"), "{html}");
}

/// An episode of the valve that stays this far from its goal, as runs record it.
fn valve_episode(away: f64) -> String {
    let columns: Vec<String> = (0..21).map(|i| format!("obs_{i}")).collect();
    let row = |step: usize, rest: &str| {
        let obs: Vec<String> = (0..21).map(|i| if i == 18 { away.to_string() } else { "0".to_owned() }).collect();
        format!("{step},{},{rest}\n", obs.join(","))
    };
    let mut text = format!("step,{},action_0,reward,terminated,truncated\n", columns.join(","));
    (0..10).for_each(|step| text.push_str(&row(step, "0,1,false,false")));
    text + &row(10, ",,,")
}

/// A task that is judged by more than its return: shares of the episodes of the compared evaluation, means over the runs.
#[test]
fn outcomes_are_means_over_episodes_then_over_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut groups = two();
    for group in &mut groups {
        for run in &mut group.runs {
            run.folder.experiment.task = "valve".to_owned();
        }
    }
    for (run, away) in groups[0].runs.iter_mut().zip([[0.1, 0.5], [0.2, -0.2], [0.3, 0.4]]) {
        run.folder.path = dir.path().join(&run.label);
        let episodes = run.folder.path.join("episodes");
        std::fs::create_dir_all(&episodes).unwrap();
        for (number, away) in (1..).zip(away) {
            std::fs::write(episodes.join(format!("300-{number}.csv")), valve_episode(away)).unwrap();
            // From an earlier evaluation.
            std::fs::write(episodes.join(format!("200-{number}.csv")), valve_episode(0.0)).unwrap();
        }
    }
    let random = Baseline {
        name: "random".into(),
        task: None,
        value: -3.0,
        outcomes: vec![("within 0.25 rad (%)", 5.0), ("angle to the goal (rad)", 1.5)],
    };
    let question = Question { baselines: vec![random], ..Question::default() };
    let found = compare(&groups, &question).unwrap();
    let block = &found.blocks[0];
    assert_eq!(block.outcomes, ["within 0.25 rad (%)", "angle to the goal (rad)"]);
    // 50, 100 and 0 % of two episodes each; for the other method, nothing is left.
    let share = block.rows[0].outcomes[0].unwrap();
    assert_eq!((share.value, share.interval), (50.0, Some((0.0, 100.0))));
    assert!((block.rows[0].outcomes[1].unwrap().value - 1.7 / 6.0).abs() < 1e-6, "{block:?}");
    assert_eq!((block.rows[1].outcomes[0], block.rows[2].outcomes[0].map(|found| found.value)), (None, Some(5.0)));
    let earlier = compare(&groups, &Question { at: Some(200), ..Question::default() }).unwrap();
    assert_eq!(earlier.blocks[0].rows[0].outcomes[0].unwrap().value, 100.0);

    let text = Format::Text.write(&found);
    let table = text.split("what the episodes came to").nth(1).unwrap_or_else(|| panic!("{text}"));
    assert!(table.contains("50.00") && table.contains("random") && !table.contains("\n  b "), "{table}");
    let csv = Format::Csv.write(&found);
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().ends_with("within 0.25 rad (%),within 0.25 rad (%) low,within 0.25 rad (%) high,\
                                             angle to the goal (rad),angle to the goal (rad) low,angle to the goal (rad) high"));
    assert!(lines.next().unwrap().contains(",50,0,100,"), "{csv}");
    // Other tasks have no such columns.
    assert!(
        Format::Csv.write(&compare(&two(), &Question::default()).unwrap()).lines().next().unwrap().ends_with(",wall_s")
    );
}
