//! placeholder until the planners compile
fn main() {}
