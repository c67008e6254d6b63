//! From transcripts to dialogues that go as well as those with the true user's probabilities.

use std::process::Command;

#[test]
fn a_user_learned_from_transcripts_is_as_good_to_plan_with_as_the_true_one() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("dialog.svg");
    let output = Command::new(env!("CARGO_BIN_EXE_mbrl-dialog"))
        .args(["--transcripts", "2000", "--dialogues", "60", "--out"])
        .arg(&picture)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let number = |name: &str, word: &str| -> f64 {
        let line = printed.lines().find(|line| line.starts_with(name)).unwrap();
        let after = line.split(word).nth(1).unwrap();
        after.trim_start().split(',').next().unwrap().parse().unwrap()
    };
    let [truth, learned] = ["planned with the true user", "planned after 2000"]
        .map(|name| (number(name, "success"), number(name, "turns"), number(name, "return")));
    assert!(truth.0 > 0.85 && truth.0 >= number("written by hand", "success"), "{printed}");
    assert!(learned.0 >= 0.95 * truth.0 && learned.1 <= 1.1 * truth.1, "{printed}");
    assert!(truth.2 > number("random acts", "return") + 15.0, "{printed}");
    assert!(std::fs::read_to_string(&picture).unwrap().contains("planned with the learned user"));
}
