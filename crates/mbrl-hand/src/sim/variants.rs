//! Episodes with varying physics.

use mbrl_env::{Env, EnvError, EnvSpec, Frame, Rng, Scene, Simulator, Snapshot, Step};

/// Variants of one environment: each episode uses one of them, drawn from its seed.
pub(crate) struct Variants {
    all: Vec<Box<dyn Simulator>>,
    now: usize,
    rng: Rng,
}

impl Variants {
    /// At least one.
    pub(crate) fn new(all: Vec<Box<dyn Simulator>>) -> Self {
        Self { all, now: 0, rng: Rng::new(0) }
    }
}

impl Env for Variants {
    fn spec(&self) -> &EnvSpec {
        self.all[0].spec()
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.now = self.rng.below(self.all.len());
        self.all[self.now].reset(Some(self.rng.key()))
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.all[self.now].step(action)
    }

    fn render(&mut self, width: u32, height: u32) -> Result<Frame, EnvError> {
        self.all[self.now].render(width, height)
    }

    fn scene(&mut self) -> Option<Scene> {
        self.all[self.now].scene()
    }
}

struct Saved {
    now: usize,
    rng: Rng,
    inside: Snapshot,
}

impl Simulator for Variants {
    fn save(&self) -> Snapshot {
        Snapshot::new(Saved { now: self.now, rng: self.rng.clone(), inside: self.all[self.now].save() })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        let foreign = || EnvError::ForeignSnapshot { env: self.spec().name.clone() };
        let saved: &Saved = snapshot.get().ok_or_else(foreign)?;
        self.all
            .get_mut(saved.now)
            .ok_or_else(|| EnvError::ForeignSnapshot { env: String::new() })?
            .restore(&saved.inside)?;
        (self.now, self.rng) = (saved.now, saved.rng.clone());
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Simulator> {
        let all = self.all.iter().map(|env| env.boxed_clone()).collect();
        Box::new(Self { all, now: self.now, rng: self.rng.clone() })
    }
}
