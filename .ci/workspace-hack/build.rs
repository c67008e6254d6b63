//! Nothing: only with a build script does Cargo look at the build dependencies.

fn main() {}
