//! Pictures instead of numbers.

use std::{fmt, sync::Arc};

use crate::{BoxSpace, Env, EnvError, EnvSpec, Field, Frame, Raster, Simulator, SketchFn, Snapshot, Step};

/// Shows an environment's [sketch](crate::tasks::Task::sketch) instead of its observation: one field of pixels, whole numbers from 0 to
/// 255, `[height, width, channels]`. The observation of the environment inside is hidden, and one picture shows no speeds: a
/// model must look at two, or have memory.
///
/// Actions, rewards and episode ends are those of the environment inside.
///
/// ```
/// use mbrl_env::{Env, FieldKind, Pixels, Raster, tasks};
///
/// let task = tasks::make("pendulum")?;
/// let mut env = Pixels::new(task.env, task.sketch.unwrap(), Raster::gray(32, 32)?)?;
/// let first = env.reset(Some(0))?;
/// assert_eq!((first.len(), env.spec().fields[0].kind), (32 * 32, FieldKind::Pixels));
/// assert!(first.iter().all(|level| level.fract() == 0.0 && (0.0..=255.0).contains(level)));
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Clone)]
pub struct Pixels<E> {
    env: E,
    spec: Arc<EnvSpec>,
    sketch: SketchFn,
    raster: Raster,
    /// The last observation of the environment inside.
    seen: Vec<f32>,
}

impl<E: Env> Pixels<E> {
    /// Shows the pictures that `sketch` makes from observations of `env`, drawn by `raster`.
    ///
    /// # Errors
    /// [`EnvError::Fields`], [`EnvError::Config`] for a picture that cannot be described.
    pub fn new(env: E, sketch: SketchFn, raster: Raster) -> Result<Self, EnvError> {
        let inside = env.spec();
        let shape = raster.shape();
        let width: usize = shape.iter().product();
        let obs = BoxSpace::new(vec![0.0; width], vec![255.0; width])?;
        let mut spec =
            EnvSpec::new(format!("{}-pixels", inside.name), obs, inside.actions.clone(), inside.control_period)
                .with_fields([Field::pixels("camera", shape)])?
                .with_action_fields(inside.action_fields.clone())?;
        spec.max_steps = inside.max_steps;
        Ok(Self { env, spec: Arc::new(spec), sketch, raster, seen: Vec::new() })
    }

    /// The environment inside.
    #[must_use]
    pub fn inner(&self) -> &E {
        &self.env
    }

    fn show(&mut self, seen: Vec<f32>) -> Vec<f32> {
        let picture = self.raster.draw(&(self.sketch)(&seen));
        self.seen = seen;
        picture.into_iter().map(f32::from).collect()
    }
}

impl<E: Env> Env for Pixels<E> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        let seen = self.env.reset(seed)?;
        Ok(self.show(seen))
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        let mut step = self.env.step(action)?;
        step.obs = self.show(std::mem::take(&mut step.obs));
        Ok(step)
    }

    /// The picture that the environment inside draws, or its sketch in colours at any size.
    fn render(&mut self, width: u32, height: u32) -> Result<Frame, EnvError> {
        match self.env.render(width, height) {
            Err(EnvError::NoPicture { .. }) if !self.seen.is_empty() => {
                Raster::coloured(width as usize, height as usize)?.frame(&(self.sketch)(&self.seen))
            }
            drawn => drawn,
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for Pixels<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pixels").field("env", &self.env).field("raster", &self.raster).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Saved {
    inside: Snapshot,
    seen: Vec<f32>,
}

impl<E: Simulator + 'static> Simulator for Pixels<E> {
    fn save(&self) -> Snapshot {
        Snapshot::new(Saved { inside: self.env.save(), seen: self.seen.clone() })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        let foreign = || EnvError::ForeignSnapshot { env: self.spec.name.clone() };
        let Saved { inside, seen } = snapshot.get().ok_or_else(foreign)?;
        self.env.restore(inside)?;
        self.seen.clone_from(seen);
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Simulator> {
        let Self { env, spec, sketch, raster, seen } = self;
        let (spec, seen) = (spec.clone(), seen.clone());
        Box::new(Pixels { env: env.boxed_clone(), spec, sketch: *sketch, raster: *raster, seen })
    }
}
