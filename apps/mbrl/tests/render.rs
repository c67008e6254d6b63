//! `mbrl render`, and the pictures of a report, from outside.

mod util;

use util::Dir;

#[test]
fn what_cannot_be_drawn_is_told() {
    let dir = Dir::new();
    dir.train(&["--set", "train.eval_every=0"]).ok();
    dir.run(&["render", "runs/smoke-0"])
        .fails(1, &["no evaluation was recorded", "mbrl report runs/smoke-0", "train.eval_every"]);
    dir.train(&["--set", "train.eval_every=300"]).ok();
    dir.run(&["render", "runs/smoke-0-2"]).fails(1, &["pendulum draws no pictures", "mbrl report runs/smoke-0-2"]);
    dir.run(&["render", "runs/smoke-0-2", "--episode", "99"]).fails(1, &["no episode 99", "has 1, "]);
    for size in ["0x5", "640", "5000x10", "axb"] {
        dir.run(&["render", "runs/smoke-0-2", "--size", size]).fails(2, &["--size"]);
    }
    dir.run(&["render", "runs"]).fails(1, &["not a run folder"]);
}

#[cfg(all(feature = "mujoco", target_os = "linux"))]
mod mujoco {
    use std::{fs, process::Output};

    use super::*;

    /// Number of frames that an animated PNG declares; 0 for a still one.
    fn frames(bytes: &[u8]) -> usize {
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
        let control = bytes.windows(4).position(|word| word == b"acTL");
        control.map_or(0, |at| u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize)
    }

    #[test]
    fn an_evaluation_on_mujoco_is_drawn() {
        let dir = Dir::new();
        let words =
            ["--set", "task=InvertedPendulum-v5", "--set", "train.eval_every=300", "--set", "train.eval_episodes=2"];
        dir.train(&words).ok();
        let run = dir.path("runs/smoke-0");
        let newest = |suffix: &str| {
            let names =
                fs::read_dir(run.join("episodes")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            let step = |name: &String| name.split('-').next().unwrap().parse::<u64>().unwrap();
            run.join("episodes").join(names.filter(|name| name.ends_with(suffix)).max_by_key(step).unwrap())
        };
        let recorded = newest("-2.csv");
        let text = fs::read_to_string(&recorded).unwrap();
        // A header and one row per step; the last row has the final observation.
        let steps = text.lines().count() - 2;
        let said = dir.run(&["render", "runs/smoke-0", "--episode", "2", "--size", "64x48"]).ok();
        let picture = newest("-2.png");
        assert!(picture.ends_with(said.out.trim()), "{}", said.out);
        assert_eq!(frames(&fs::read(&picture).unwrap()), steps + 1, "a frame a step of 0.04 s");
        dir.run(&["render", "runs/smoke-0", "--size", "64x48", "--out", "one.png"]).ok();
        assert!(frames(&fs::read(dir.path("one.png")).unwrap()) > 1);

        dir.run(&["report", "runs/smoke-0"]).ok();
        let page = fs::read_to_string(run.join("report.html")).unwrap();
        assert!(page.contains("<canvas class=\"scene\"") && page.contains("drag to turn it"));

        // An action other than the recorded one leads elsewhere: nothing is drawn, and the report says why.
        let (head, row) = text.split_once('\n').unwrap();
        let cells: Vec<&str> = row.split('\n').next().unwrap().split(',').collect();
        let changed = cells.iter().enumerate().map(|(i, cell)| if i == 5 { "2.5" } else { cell }).collect::<Vec<_>>();
        for number in [1, 2] {
            let path = newest(&format!("-{number}.csv"));
            fs::write(path, format!("{head}\n{}", row.replacen(&cells.join(","), &changed.join(","), 1))).unwrap();
        }
        fs::remove_file(&picture).unwrap();
        dir.run(&["render", "runs/smoke-0", "--episode", "2"]).fails(1, &["replay of episode 2", "step 1"]);
        assert!(!picture.exists());
        dir.run(&["report", "runs/smoke-0"]).ok();
        let page = fs::read_to_string(run.join("report.html")).unwrap();
        assert!(page.contains("Without pictures: ") && !page.contains("class=\"scene\""));
    }

    #[test]
    fn without_a_driver_the_packages_are_named() {
        let dir = Dir::new();
        let words = ["--set", "task=InvertedPendulum-v5", "--set", "train.eval_every=300"];
        dir.train(&words).ok();
        // A folder without drivers, and an engine that is directed elsewhere.
        for (variable, value, expected) in [
            ("__EGL_VENDOR_LIBRARY_DIRS", "/nowhere", "libegl1 and libgl1-mesa-dri"),
            ("MUJOCO_GL", "osmesa", "MUJOCO_GL is \"osmesa\""),
        ] {
            let mut command = dir.command(&["render", "runs/smoke-0"]);
            let Output { status, stderr, .. } = command.env(variable, value).output().unwrap();
            let told = String::from_utf8(stderr).unwrap();
            assert!(status.code() == Some(1) && told.contains(expected), "{variable}: {status} {told}");
        }
    }
}
