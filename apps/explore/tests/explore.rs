//! A model that was learned without reward reaches goals that it was never told of.

use std::process::Command;

#[test]
#[ignore = "a minute: two explorations, two models, and sixty episodes planned in them"]
fn goals_are_reached_that_exploration_knew_nothing_of() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("explore.svg");
    let run = Command::new(env!("CARGO_BIN_EXE_mbrl-explore"))
        .args(["--world", "reacher", "--updates", "50", "--out"])
        .arg(&picture)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let printed = String::from_utf8(run.stdout).unwrap();
    for explored in ["where members disagree", "at random"] {
        let line = printed.lines().find(|line| line.contains(explored)).unwrap();
        let list = line.split("planned [").nth(1).unwrap().split(']').next().unwrap();
        let reached: u64 = list.split(", ").map(|count| count.parse::<u64>().unwrap()).sum();
        assert!(reached >= 27, "of 30: {printed}");
    }
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert!(svg.contains("reacher, at random") && svg.contains("goals, told afterwards"));
}
