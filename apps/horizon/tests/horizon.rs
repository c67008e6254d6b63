//! Policies act faster than planners, and long plans take more time than short ones.

use std::process::Command;

#[test]
#[ignore = "a minute: a policy, its model and a distilled policy are learned, and eleven agents judged"]
fn what_looking_ahead_costs_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("horizon.svg");
    let run = Command::new(env!("CARGO_BIN_EXE_mbrl-horizon"))
        .args(["--steps", "420", "--distil", "800", "--episodes", "1", "--out"])
        .arg(&picture)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let printed = String::from_utf8(run.stdout).unwrap();
    let ms = |what: &str| -> f64 {
        let line = printed
            .lines()
            .find(|line| line.starts_with(&format!("{what}: ")))
            .unwrap_or_else(|| panic!("{what}: {printed}"));
        let words: Vec<&str> = line[what.len() + 2..].split_whitespace().collect();
        assert!(words[5].parse::<f64>().unwrap().is_finite(), "{line}");
        words[0].parse().unwrap()
    };
    let longest = ms("25 steps ahead");
    assert!(longest > 2.0 * ms("3 steps ahead"), "{printed}");
    // A hundredth on an idle machine.
    for policy in ["policy learned in the model", "policy distilled from 25 steps"] {
        assert!(ms(policy) < longest / 20.0, "{printed}");
    }
    assert!(ms("25 steps ahead and the value") > ms("3 steps ahead and the value"), "{printed}");
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert!(svg.contains("return against time per action") && svg.contains("plans that end in a value"));
}
