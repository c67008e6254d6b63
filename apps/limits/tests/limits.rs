//! Both pictures are drawn.

use std::process::Command;

#[test]
fn both_pictures_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mbrl-limits")).args(["--quick", "--out"]).arg(folder.path()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (picture, word) in [("optimizers.svg", "Rosenbrock"), ("planners.svg", "random shooting")] {
        assert!(std::fs::read_to_string(folder.path().join(picture)).unwrap().contains(word), "{picture}");
    }
}
