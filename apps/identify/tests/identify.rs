//! From 200 noisy transitions to plans that are as good as those with the true constants.

use std::process::Command;

#[test]
fn plans_with_the_identified_constants_are_worth_what_those_with_the_true_ones_are() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("identify.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_mbrl-identify"))
        .args(["--physics-alone", "--transitions", "200", "--episodes", "3", "--out"])
        .arg(&picture)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let number = |line: &str| -> f64 {
        let line = printed.lines().find(|found| found.trim_start().starts_with(line)).unwrap();
        line.rsplit("return ").next().unwrap().parse().unwrap()
    };
    let (best, found) = (number("the true constants"), number("constants identified"));
    assert!(best > 100.0 && (found / best - 1.0).abs() < 0.02, "{printed}");
    let svg = std::fs::read_to_string(&picture).unwrap();
    for words in ["hinge_friction", "plans with the true constants", "plans: constants identified"] {
        assert!(svg.contains(words), "{words}");
    }
}
