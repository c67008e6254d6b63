//! The checks find what is wrong: each environment here breaks one rule, and the check must say which.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use mbrl_env::{
    ActionSpace, BoxSpace, Device, Env, EnvError, EnvSpec, Field, Rng, Simulator, Snapshot, Step, Tensor, TimeLimit,
    check, check_action, reward_fn, termination_fn,
};

/// A point on a line that is moved by its action and ends beyond 3. `fault` breaks it.
#[derive(Debug, Clone)]
struct Line {
    spec: EnvSpec,
    position: f32,
    running: bool,
    rng: Rng,
    steps_ever: u32,
    fault: Fault,
    /// Which clone it is.
    clone: u32,
    /// Steps of the episode, where they are counted.
    shared: Arc<Mutex<f32>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    NoName,
    NoPeriod,
    NothingToSee,
    NothingToDo,
    OneFieldTooMany,
    TwoFieldsOfOneName,
    FieldWithoutName,
    ActionFieldMissing,
    TurnOfNothing,
    HalfAFlag,
    WrapsOverTwoTurns,
    LongerThanItSays,
    NanInfo,
    ChangingInfo,
    InfoOfThePast,
    ForgetsItsSeed,
    TakesInfinity,
    StepsBeforeReset,
    StepsAfterTheEnd,
    NarrowObservation,
    NanObservation,
    ObservationOutside,
    NanReward,
    RemembersThePast,
    ClockSeed,
    TakesNan,
    TakesAnyWidth,
    MovesBeforeRefusing,
    RefusesBeyondBounds,
    SnapshotWithoutRng,
    SnapshotWithoutPosition,
    CloneFromTheStart,
    TakesForeignSnapshots,
    MovesBeforeRefusingSnapshots,
    SnapshotsForOnce,
    SnapshotWithoutPhase,
    SharesWithClones,
    TakesItsOwnSnapshotsAlone,
}

impl Line {
    fn new(fault: Fault) -> Self {
        let name = if fault == Fault::NoName { "" } else { "line" };
        let period = if fault == Fault::NoPeriod { 0.0 } else { 0.1 };
        let widths = [usize::from(fault != Fault::NothingToSee), usize::from(fault != Fault::NothingToDo)];
        let actions = ActionSpace::Box(BoxSpace::symmetric(widths[1], 0.5).unwrap());
        let mut spec = EnvSpec::new(name, BoxSpace::symmetric(widths[0], 5.0).unwrap(), actions, period);
        match fault {
            Fault::OneFieldTooMany => spec.fields.push(Field::linear("more", "")),
            Fault::TwoFieldsOfOneName => {
                spec.fields = vec![Field::linear("x", "m"), Field::linear("x", "").with_shape([0])];
            }
            Fault::FieldWithoutName => spec.fields = vec![Field::linear("", "m")],
            Fault::ActionFieldMissing => spec.action_fields.clear(),
            Fault::TurnOfNothing => spec.fields = vec![Field::angle("x").with_turn(0.0)],
            Fault::HalfAFlag => spec.fields = vec![Field::flag("x")],
            Fault::WrapsOverTwoTurns => spec.fields = vec![Field::angle("x").with_turn(0.5).wrapping()],
            Fault::LongerThanItSays => spec.max_steps = Some(3),
            _ => {}
        }
        let (clone, shared) = (0, Arc::default());
        Self { spec, position: 0.0, running: false, rng: Rng::new(0), steps_ever: 0, fault, clone, shared }
    }

    fn obs(&self) -> Vec<f32> {
        match self.fault {
            Fault::NarrowObservation => vec![],
            Fault::NanObservation => vec![f32::NAN],
            Fault::ObservationOutside => vec![self.position + 6.0],
            _ => vec![self.position],
        }
    }
}

impl Env for Line {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        match seed {
            _ if self.fault == Fault::ClockSeed => {}
            Some(seed) => self.rng = Rng::new(seed),
            None if self.fault == Fault::ForgetsItsSeed => self.rng = Rng::new(u64::from(self.steps_ever)),
            None => {}
        }
        *self.shared.lock().unwrap() = 0.0;
        self.position = self.rng.uniform(-1.0, 1.0);
        if self.fault == Fault::RemembersThePast {
            self.position += self.steps_ever as f32 * 1e-6;
        }
        self.running = true;
        Ok(self.obs())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        let may_step_at = match self.fault {
            Fault::StepsBeforeReset => self.steps_ever == 0,
            Fault::StepsAfterTheEnd => self.steps_ever > 0,
            _ => false,
        };
        if !self.running && !may_step_at {
            return Err(EnvError::NeedsReset { env: "line".into(), why: "no episode is running" });
        }
        if self.fault == Fault::MovesBeforeRefusing {
            self.position += 0.01;
        }
        let takes = match self.fault {
            Fault::TakesNan => action.len() == 1,
            Fault::TakesInfinity => matches!(action, [a] if !a.is_nan()),
            Fault::TakesAnyWidth => action.iter().all(|a| a.is_finite()),
            _ => false,
        };
        if !takes {
            check_action(&self.spec, action)?;
        }
        if self.fault == Fault::RefusesBeyondBounds && !self.spec.actions.contains(action) {
            return Err(EnvError::Bounds { what: "action".into(), index: 0, low: -0.5, high: 0.5 });
        }
        self.steps_ever += 1;
        let action = action.first().map_or(0.0, |a| if a.is_nan() { 0.0 } else { a.clamp(-0.5, 0.5) });
        self.position += action + 0.1 * self.rng.uniform(-1.0, 1.0);
        if self.fault == Fault::SharesWithClones {
            let mut steps = self.shared.lock().unwrap();
            *steps += 1.0;
            self.position += 1e-3 * *steps;
        }
        let terminated = self.position.abs() > 3.0;
        self.running &= !terminated;
        let reward = if self.fault == Fault::NanReward { f64::NAN } else { -f64::from(self.position.powi(2)) };
        let step = Step::new(self.obs(), reward).with_terminated(terminated);
        Ok(match self.fault {
            Fault::NanInfo => step.with_info("distance", f64::NAN),
            Fault::ChangingInfo if self.position > 0.0 => step.with_info("right", 1.0),
            Fault::InfoOfThePast => step.with_info("steps", f64::from(self.steps_ever)),
            _ => step.with_info("distance", f64::from(self.position.abs())),
        })
    }
}

impl Simulator for Line {
    fn save(&self) -> Snapshot {
        // Of shared memory the value as it is now.
        let shared = Arc::new(Mutex::new(*self.shared.lock().unwrap()));
        Snapshot::new((Self { shared, ..self.clone() }, AtomicBool::new(true)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        let foreign = || Err(EnvError::ForeignSnapshot { env: "line".into() });
        let Some((saved, fresh)) = snapshot.get::<(Self, AtomicBool)>() else {
            if self.fault == Fault::MovesBeforeRefusingSnapshots {
                self.position += 0.01;
            }
            return if self.fault == Fault::TakesForeignSnapshots { Ok(()) } else { foreign() };
        };
        if self.fault == Fault::TakesItsOwnSnapshotsAlone && saved.clone != self.clone {
            return foreign();
        }
        let before = self.clone();
        self.clone_from(saved);
        (self.clone, self.shared) = (before.clone, before.shared);
        *self.shared.lock().unwrap() = *saved.shared.lock().unwrap();
        match self.fault {
            Fault::SnapshotWithoutRng => self.rng = before.rng,
            Fault::SnapshotWithoutPosition => self.position = before.position,
            Fault::SnapshotWithoutPhase => self.running = before.running,
            Fault::SnapshotsForOnce if !fresh.swap(false, Ordering::Relaxed) => self.position += 0.01,
            _ => {}
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Simulator> {
        let mut clone = self.clone();
        clone.clone += 1;
        if self.fault != Fault::SharesWithClones {
            clone.shared = Arc::new(Mutex::new(*self.shared.lock().unwrap()));
        }
        if self.fault == Fault::CloneFromTheStart {
            clone.position = 0.0;
        }
        Box::new(clone)
    }
}

fn reason(result: Result<(), EnvError>) -> String {
    match result {
        Err(EnvError::Check { reason, .. }) => reason,
        other => panic!("expected a failed check, got {other:?}"),
    }
}

#[test]
fn a_sound_environment_passes() {
    check::check_env(&mut Line::new(Fault::None)).unwrap();
    check::check_simulator(&mut Line::new(Fault::None)).unwrap();
    check::check_env(&mut TimeLimit::new(Line::new(Fault::None), 7).unwrap()).unwrap();
    check::check_simulator(&mut TimeLimit::new(Line::new(Fault::None), 7).unwrap()).unwrap();
}

#[test]
fn check_env_finds_each_fault() {
    for (fault, expected) in [
        (Fault::NoName, "its name is empty"),
        (Fault::NoPeriod, "control_period = 0: expected a positive"),
        (Fault::StepsBeforeReset, "a step before the first reset"),
        (Fault::StepsAfterTheEnd, "a step after the end of an episode"),
        (Fault::NarrowObservation, "observation of 0 entries, expected 1"),
        (Fault::NanObservation, "observation [NaN], expected finite"),
        (Fault::ObservationOutside, "expected between [-5.0] and [5.0]"),
        (Fault::NanReward, "reward NaN"),
        (Fault::RemembersThePast, "two runs of one seed differ: observations at step 0"),
        (Fault::ClockSeed, "two runs of one seed differ: observations at step 0"),
        (Fault::TakesNan, "it took the action [NaN], expected NonFinite"),
        (Fault::TakesAnyWidth, "expected Width"),
        (Fault::MovesBeforeRefusing, "a refused action changed the episode: observations at step 3"),
        (Fault::RefusesBeyondBounds, "it refused an action outside of the bounds"),
        (Fault::NothingToSee, "width of the observations = 0"),
        (Fault::NothingToDo, "width of the actions = 0"),
        (Fault::OneFieldTooMany, "fields of the observation of line: 2 columns in 2 fields, expected 1"),
        (Fault::TwoFieldsOfOneName, "two fields are called `x`"),
        (Fault::FieldWithoutName, "a field without a name"),
        (Fault::ActionFieldMissing, "fields of the action of line: 0 columns in 0 fields, expected 1"),
        (Fault::TurnOfNothing, "a turn of `x` is 0"),
        (Fault::HalfAFlag, "flag x is ["),
        (Fault::WrapsOverTwoTurns, "expected one turn of 0.5"),
        (Fault::LongerThanItSays, "an episode goes on after 3 steps, expected at most 3"),
        (Fault::NanInfo, "info has distance = NaN"),
        (Fault::ChangingInfo, "info has the names"),
        (Fault::InfoOfThePast, "two runs of one seed differ: infos at step 0"),
        (Fault::ForgetsItsSeed, "two runs without a seed, after runs of one seed, differ"),
        (Fault::TakesInfinity, "it took the action [inf], expected NonFinite"),
    ] {
        let found = reason(check::check_env(&mut Line::new(fault)));
        assert!(found.contains(expected), "{fault:?}: `{found}`, expected `{expected}`");
    }
}

#[test]
fn check_simulator_finds_each_fault() {
    for (fault, expected) in [
        (Fault::SnapshotWithoutRng, "a restored snapshot does not go on as the original"),
        (Fault::SnapshotWithoutPosition, "a restored snapshot does not go on as the original"),
        (Fault::CloneFromTheStart, "a clone does not go on as the original"),
        (Fault::TakesForeignSnapshots, "it took a foreign snapshot"),
        (Fault::MovesBeforeRefusingSnapshots, "a foreign snapshot that was refused changed it"),
        (Fault::SnapshotsForOnce, "a snapshot restored for the second time does not go on"),
        (Fault::SnapshotWithoutPhase, "after the end of an episode"),
        (Fault::SharesWithClones, "a clone does not go on as the original, or not independently of it"),
        (Fault::TakesItsOwnSnapshotsAlone, "a clone does not take its original's snapshot"),
    ] {
        let found = reason(check::check_simulator(&mut Line::new(fault)));
        assert!(found.contains(expected), "{fault:?}: `{found}`, expected `{expected}`");
    }
}

#[test]
fn check_reward_agrees_finds_what_does_not() {
    let squared = |_: Tensor<2>, _: Tensor<2>, next: Tensor<2>| -next.square().squeeze_dim::<1>(1);
    let before = |obs: Tensor<2>, _: Tensor<2>, _: Tensor<2>| -obs.square().squeeze_dim::<1>(1);
    let nan = |_: Tensor<2>, _: Tensor<2>, next: Tensor<2>| (next.square().squeeze_dim::<1>(1) + 1.0).neg().log();
    let one = |_: Tensor<2>, _: Tensor<2>, next: Tensor<2>| next.narrow(0, 0, 1).squeeze_dim::<1>(1);
    // A fine for leaving that the environment does not know.
    let fined = move |obs: Tensor<2>, actions: Tensor<2>, next: Tensor<2>| {
        let fine = next.clone().abs().greater_elem(3.0).float().squeeze_dim::<1>(1);
        squared(obs, actions, next) - fine
    };
    let far = |limit: f32| {
        move |_: Tensor<2>, _: Tensor<2>, next: Tensor<2>| next.abs().greater_elem(limit).squeeze_dim::<1>(1)
    };

    let run = |reward: &dyn mbrl_env::Reward, rule: Option<&dyn mbrl_env::Termination>| {
        let mut env = TimeLimit::new(Line::new(Fault::None), 100).unwrap();
        check::check_reward_agrees(&mut env, reward, rule, 10, &Device::flex(), &mut Rng::new(0))
    };
    let (rule, near) = (termination_fn(far(3.0)), termination_fn(far(2.9)));
    let few = termination_fn(move |_: Tensor<2>, _: Tensor<2>, next: Tensor<2>| {
        next.narrow(0, 0, 1).abs().greater_elem(3.0).squeeze_dim::<1>(1)
    });
    run(&reward_fn(squared), Some(&rule)).unwrap();
    let mut env = TimeLimit::new(Line::new(Fault::None), 100).unwrap();
    let (reward, mut rng) = (reward_fn(fined), Rng::new(0));
    check::check_reward_agrees_until_termination(&mut env, &reward, Some(&rule), 10, &Device::flex(), &mut rng)
        .unwrap();
    for (found, expected) in [
        (reason(run(&reward_fn(before), Some(&rule))), "the environment pays"),
        (reason(run(&reward_fn(nan), Some(&rule))), "the batch reward NaN"),
        (reason(run(&reward_fn(one), Some(&rule))), "1 rewards and"),
        (reason(run(&reward_fn(squared), Some(&few))), "and 1 terminations"),
        (reason(run(&reward_fn(fined), Some(&rule))), "the environment pays"),
        (reason(run(&reward_fn(squared), Some(&near))), "terminated = false, the rule true"),
        (reason(run(&reward_fn(squared), None)), "terminated = true, the rule false"),
    ] {
        assert!(found.contains(expected), "`{found}`, expected `{expected}`");
    }
    let no_episode = check::check_reward_agrees(
        &mut Line::new(Fault::None),
        &reward_fn(squared),
        None,
        0,
        &Device::flex(),
        &mut Rng::new(0),
    );
    assert!(matches!(no_episode, Err(EnvError::TooLittleData { .. })));
}

#[test]
fn rows_that_look_at_each_other_are_found() {
    let reward = reward_fn(|_: Tensor<2>, _: Tensor<2>, next: Tensor<2>| {
        let bonus = if next.dims()[0] == 1 { 0.1 } else { 0.0 };
        -next.square().squeeze_dim::<1>(1) + bonus
    });
    let rule =
        termination_fn(|_: Tensor<2>, _: Tensor<2>, next: Tensor<2>| next.abs().greater_elem(3.0).squeeze_dim::<1>(1));
    let mut env = Line::new(Fault::None);
    let result = check::check_reward_agrees(&mut env, &reward, Some(&rule), 3, &Device::flex(), &mut Rng::new(0));
    assert!(reason(result).contains("a row alone and in the batch"));

    // Alone, a row beyond the limit does not end.
    let squared = reward_fn(|_: Tensor<2>, _: Tensor<2>, next: Tensor<2>| -next.square().squeeze_dim::<1>(1));
    let rule = termination_fn(|_: Tensor<2>, _: Tensor<2>, next: Tensor<2>| {
        let limit = if next.dims()[0] == 1 { 30.0 } else { 3.0 };
        next.abs().greater_elem(limit).squeeze_dim::<1>(1)
    });
    let result = check::check_reward_agrees(&mut env, &squared, Some(&rule), 3, &Device::flex(), &mut Rng::new(0));
    assert!(reason(result).contains("a row alone and in the batch"));
}
