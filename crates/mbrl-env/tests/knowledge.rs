//! The checks of what is known of a task: what is right passes, each broken rule is refused.

use std::f32::consts::TAU;

use mbrl_env::{
    Augment, BoxSpace, Device, Env, EnvError, EnvSpec, Features, Known, KnownAt, KnownGrads, Lanes, Rng, Step, TILE,
    Tensor, check, reward_fn,
};

/// The tip of an arm of length 1 + 0.1·action at an angle (column 0), which is replaced; a push (column 1) stands beside it.
#[derive(Clone, Copy, Default)]
struct Tip {
    fault: u8,
}

impl Features for Tip {
    fn name(&self) -> &str {
        "tip-1"
    }

    fn width(&self) -> usize {
        2
    }

    fn replaces(&self) -> &[usize] {
        if self.fault == 1 { &[2] } else { &[0] }
    }

    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>) -> Tensor<2> {
        let angle = obs.narrow(1, 0, 1);
        let length = actions * 0.1 + 1.0;
        let tip = Tensor::cat(vec![angle.clone().cos() * length.clone(), angle.sin() * length], 1);
        if self.fault == 2 { tip.narrow(1, 0, 1) } else { tip }
    }

    fn tile(&self, obs: &[Lanes], actions: &[Lanes], out: &mut [Lanes]) {
        for r in 0..TILE {
            let (sin, cos) = obs[0][r].sin_cos();
            let length = 1.0 + 0.1 * actions[0][r];
            (out[0][r], out[1][r]) = (cos * length, sin * length);
        }
        match self.fault {
            3 => out[1][5] += 0.01,
            // Lanes meet where rows differ: the last one sees the first.
            4 => out[0][TILE - 1] += obs[0][0] - obs[0][TILE - 1],
            5 => out[0][0] = f32::NAN,
            _ => {}
        }
    }

    fn pullback(
        &self,
        obs: &[Lanes],
        actions: &[Lanes],
        grad: &[Lanes],
        grad_obs: &mut [Lanes],
        grad_actions: &mut [Lanes],
    ) {
        for r in 0..TILE {
            let (sin, cos) = obs[0][r].sin_cos();
            let length = 1.0 + 0.1 * actions[0][r];
            let along = length * (cos * grad[1][r] - sin * grad[0][r]);
            match self.fault {
                6 => grad_obs[0][r] = along,
                7 => grad_obs[0][r] -= along,
                _ => grad_obs[0][r] += along,
            }
            if self.fault != 8 {
                grad_actions[0][r] += 0.1 * (cos * grad[0][r] + sin * grad[1][r]);
            }
        }
    }
}

/// 40 rows: more than a tile, and not two.
fn rows(width: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..40 * width).map(|_| rng.uniform(-1.0, 1.0)).collect()
}

#[test]
fn features_whose_forms_part_are_refused() {
    let (obs, actions) = (rows(2, 1), rows(1, 2));
    let check = |fault| check::check_features(&Tip { fault }, &obs, &actions, [2, 1], &Device::flex());
    check(0).unwrap();
    let words = [
        (1, "it replaces column 2, expected one of 2 columns"),
        (2, "the tensor has the shape [40, 1], expected [40, 2]"),
        (3, "column 1 of row 5 is"),
        (4, "column 0 of row 31 is"),
        (5, "column 0 of row 0 is NaN as a tile"),
        (6, "the gradient with respect to input 0 of row 0"),
        (7, "the gradient with respect to input 0 of row 0"),
        (8, "the gradient with respect to input 2 of row 0"),
    ];
    for (fault, words) in words {
        let told = check(fault).unwrap_err().to_string();
        assert!(told.starts_with("check of tip-1 failed: ") && told.contains(words), "{fault}: {told}");
    }
    assert!(matches!(
        check::check_features(&Tip::default(), &obs, &actions[1..], [2, 1], &Device::flex()),
        Err(EnvError::Width { .. })
    ));
}

/// A turn by 120° of a point (x, y), pushed by a force (x, y).
#[derive(Clone, Copy, Default)]
struct Turn {
    fault: u8,
}

fn turn(by: f32, pair: &mut [f32]) {
    let (sin, cos) = by.sin_cos();
    (pair[0], pair[1]) = (cos * pair[0] - sin * pair[1], sin * pair[0] + cos * pair[1]);
}

impl Augment for Turn {
    fn name(&self) -> &str {
        "turn"
    }

    fn copies(&self) -> usize {
        if self.fault == 1 { 0 } else { 3 }
    }

    fn observation(&self, copy: usize, obs: &mut [f32]) {
        let copy = match self.fault {
            2 => copy + 1,
            3 => copy.min(1) * 3,
            _ => copy,
        };
        if copy % 3 > 0 {
            turn(copy as f32 * TAU / 3.0, obs);
        }
        match (self.fault, copy) {
            (4, 2) => obs.fill(0.5),
            (5, 2) => obs[0] = f32::INFINITY,
            (6, 2) => obs[0] *= 1.1,
            _ => {}
        }
    }

    fn action(&self, copy: usize, action: &mut [f32]) {
        if copy > 0 && self.fault != 3 {
            turn(copy as f32 * TAU / 3.0, action);
        }
    }
}

#[test]
fn symmetries_that_are_none_are_refused() {
    let (obs, actions, next) = (rows(2, 1), rows(2, 2), rows(2, 3));
    // How far from the origin: a turn changes nothing.
    let reward = reward_fn(|_, _, next: Tensor<2>| next.square().sum_dim(1).squeeze_dim::<1>(1));
    let check =
        |fault| check::check_augment(&Turn { fault }, &obs, &actions, &next, [2, 2], Some(&reward), &Device::flex());
    check(0).unwrap();
    let words = [
        (1, "0 copies"),
        (2, "copy 0 changes the transition"),
        (3, "copy 1 changes nothing"),
        (4, "copy 2 makes one observation of rows 0 and 1"),
        (5, "copy 2 of an observation holds inf"),
        (6, "copy 2 of row 0 earns"),
    ];
    for (fault, words) in words {
        let told = check(fault).unwrap_err().to_string();
        assert!(told.contains(words), "{fault}: {told}");
    }
}

/// A clock whose phase (columns 1 and 2, cosine and sine) turns by 0.1 per step, and a level that drifts by the action.
struct Clocked {
    spec: EnvSpec,
    phase: f32,
    level: f32,
    steps: usize,
}

impl Clocked {
    fn new() -> Self {
        let actions = mbrl_env::ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
        Self { spec: EnvSpec::new("clocked", BoxSpace::unbounded(3), actions, 0.1), phase: 0.0, level: 0.0, steps: 0 }
    }

    fn seen(&self) -> Vec<f32> {
        vec![self.level, self.phase.cos(), self.phase.sin()]
    }
}

impl Env for Clocked {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        (self.phase, self.level, self.steps) = (Rng::new(seed.unwrap_or(0)).uniform(0.0, TAU), 0.0, 0);
        Ok(self.seen())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.phase += 0.1;
        self.level += action[0];
        self.steps += 1;
        Ok(Step::new(self.seen(), 0.0).with_truncated(self.steps == 30))
    }
}

/// The phase of [`Clocked`]. The values also tell of the level, times 0, so that every gradient is asked for.
#[derive(Clone, Copy, Default)]
struct Phase {
    fault: u8,
}

impl Known for Phase {
    fn name(&self) -> &str {
        "phase-1"
    }

    fn columns(&self) -> &[usize] {
        match self.fault {
            1 => &[2, 1],
            2 => &[0, 1, 2],
            3 => &[1, 3],
            _ => &[1, 2],
        }
    }

    fn tensor(&self, obs: Tensor<2>, _: Tensor<2>, _: Tensor<2>) -> Tensor<2> {
        let (sin, cos) = if self.fault == 4 { 0.11_f32 } else { 0.1 }.sin_cos();
        let turn = Tensor::<1>::from_floats([cos, sin, -sin, cos], &obs.device()).reshape([2, 2]);
        obs.narrow(1, 1, 2).matmul(turn)
    }

    fn tile(&self, obs: &[Lanes], _: &[Lanes], _: &[Lanes], out: &mut [Lanes]) {
        let (sin, cos) = if matches!(self.fault, 4 | 5) { 0.11_f32 } else { 0.1 }.sin_cos();
        for r in 0..TILE {
            (out[0][r], out[1][r]) = (cos * obs[1][r] - sin * obs[2][r], sin * obs[1][r] + cos * obs[2][r]);
        }
    }

    #[expect(clippy::needless_range_loop, reason = "a lane of several columns")]
    fn pullback(&self, _: KnownAt<'_>, grad: &[Lanes], into: KnownGrads<'_>) {
        let (sin, cos) = 0.1_f32.sin_cos();
        for r in 0..TILE {
            into.obs[1][r] += cos * grad[0][r] + sin * grad[1][r];
            into.obs[2][r] += if self.fault == 6 { 0.0 } else { cos * grad[1][r] - sin * grad[0][r] };
            if self.fault == 7 {
                into.next[0][r] += grad[0][r];
            }
        }
    }
}

#[test]
fn known_columns_that_the_world_does_not_keep_to_are_refused() {
    let check = |fault| check::check_known(&Phase { fault }, &mut Clocked::new(), 2, &Device::flex(), &mut Rng::new(0));
    check(0).unwrap();
    let words = [
        (1, "columns [2, 1], expected some of the 3 columns"),
        (2, "not all, in rising order"),
        (3, "columns [1, 3]"),
        (4, "`obs[1]` becomes"),
        (5, "as a tile and"),
        (6, "the gradient with respect to input 2 of row 0"),
        (7, "the gradient with respect to input 4 of row 0"),
    ];
    for (fault, words) in words {
        let told = check(fault).unwrap_err().to_string();
        assert!(told.starts_with("check of phase-1 failed: ") && told.contains(words), "{fault}: {told}");
    }
}
