//! The cost of planned schedules agrees with the closed form, to 2 %.

use std::process::Command;

#[test]
fn planned_schedules_are_within_two_percent_of_the_closed_form() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("execution.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_mbrl-execution"))
        .args(["--days", "50", "--out"])
        .arg(&picture)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut rows = 0;
    for line in printed.lines().filter(|line| line.starts_with("aversion")) {
        let over: f64 = line.split("(+").nth(1).unwrap().split(" %").next().unwrap().parse().unwrap();
        assert!((0.0..2.0).contains(&over), "{line}");
        rows += 1;
    }
    assert!(rows == 5 && std::fs::read_to_string(&picture).unwrap().contains("closed form"), "{printed}");
}
