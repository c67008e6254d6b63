//! A world small enough to compute by hand, and learners that do nothing or something silly.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{fs, path::Path};

use mbrl_env::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Replay, Rng, Simulator, Situation, Snapshot, Step, TimeLimit,
    Transition, World, check_action,
};
use mbrl_policy::{
    ActMode, Agent, AgentError, CheckpointReader, CheckpointWriter, Learner, RandomAgent, Report, ReportKind,
    WALL_TIME_KEYS,
};
use serde_json::{Map, Value};

/// A point on a line: x' = x + 0.1 a, reward −x'², starts in [−1, 1].
#[derive(Debug, Clone)]
pub(crate) struct Point {
    spec: EnvSpec,
    rng: Rng,
    x: f32,
}

impl Point {
    pub(crate) fn new() -> Self {
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
        let spec = EnvSpec::new("point", BoxSpace::unbounded(1), actions, 0.1);
        Self { spec, rng: Rng::new(0), x: 0.0 }
    }

    pub(crate) fn limited(steps: u32) -> TimeLimit<Self> {
        TimeLimit::new(Self::new(), steps).unwrap()
    }

    /// Of which nothing can be saved.
    pub(crate) fn world(steps: u32) -> World {
        World::from_env(Self::limited(steps))
    }
}

impl Env for Point {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.x = self.rng.uniform(-1.0, 1.0);
        Ok(vec![self.x])
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        check_action(&self.spec, action)?;
        self.x += 0.1 * action[0].clamp(-1.0, 1.0);
        Ok(Step::new([self.x], -f64::from(self.x * self.x)))
    }
}

impl Simulator for Point {
    fn save(&self) -> Snapshot {
        Snapshot::new(self.clone())
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        let state = snapshot.get::<Self>().ok_or(EnvError::ForeignSnapshot { env: "point".into() })?;
        *self = state.clone();
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Simulator> {
        Box::new(self.clone())
    }
}

/// Acts at random, counts, and calls every tenth step a fit.
#[derive(Debug)]
pub(crate) struct Counter {
    agent: RandomAgent,
    pub(crate) seen: Vec<Transition>,
}

impl Counter {
    pub(crate) fn new() -> Self {
        Self { agent: RandomAgent::new(Point::new().spec.actions), seen: Vec::new() }
    }
}

impl Agent for Counter {
    fn name(&self) -> &str {
        "counter"
    }
    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        self.agent.act(situation, mode, rng)
    }
}

impl Learner for Counter {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.seen.push(transition.clone());
        Ok(())
    }
    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        if let Some(last) = self.seen.last_mut() {
            last.truncated = true;
        }
        Ok(())
    }
    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        report.scalar(ReportKind::Plan, "plan/model_steps", self.seen.len() as f64);
        if self.seen.len().is_multiple_of(10) {
            report.scalar(ReportKind::Fit, "model/draw", f64::from(rng.uniform(0.0, 1.0)));
        }
        Ok(())
    }
    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        // A replay keeps every bit; JSON may not.
        let mut replay = Replay::new(1, 1, self.seen.len().max(1))?;
        self.seen.iter().try_for_each(|transition| replay.push(transition))?;
        let mut bytes = Vec::new();
        replay.save(&mut bytes)?;
        into.put("seen.bin", &bytes)
    }
    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let replay = Replay::load(&mut from.get("seen.bin")?)?;
        self.seen = (0..replay.len()).filter_map(|i| replay.get(i)).collect();
        Ok(())
    }
}

/// The lines of a run's metrics without wall times.
pub(crate) fn metrics(folder: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut map: Map<String, Value> = serde_json::from_str(line).unwrap();
            for key in WALL_TIME_KEYS {
                map.remove(key);
            }
            map
        })
        .collect()
}
