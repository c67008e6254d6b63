//! The Adroit hand of gymnasium-robotics, read at run time.

use std::{
    f64::consts::PI,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use mbrl_env::{
    BoxSpace, EnvError, Field, Knowledge, Rng, TimeLimit, World,
    mujoco::{Camera, Controls, InitialState, Model, MujocoEnv, Rules, Sim, StepOutcome, View},
    tasks::Task,
};

use super::{baoding::Baoding, info, judged_by, part, reorient::Reorient, world};
use crate::{
    objective::{Batched, judge},
    robot::HandConfig,
    scene::{MEMORY, PhysicsConfig, Variation, balls, cube},
    task::{
        AdroitPenConfig, AdroitPenObjective, BaodingAdroitConfig, BaodingGoal, ReorientAdroitConfig,
        adroit::{ABOVE_PALM, ELLIPSE, RANGES, pen},
        baoding::{Targets, exchange},
        reorient::{CubeRotations, known},
    },
};

const MODELS: &str = "MBRL_ADROIT_MODELS";
/// PDDM's sliding, torsional and rolling friction; the wheel's is (1, 0.5, 0.01).
const FRICTION: [f64; 3] = [1.0, 0.005, 0.001];
/// Where PDDM's balls start (m).
const BALLS_AT: [[f64; 3]; 2] = [[-0.029, -0.001, 0.19], [0.03, 0.01, 0.19]];
/// The phase at which the first ball starts, as in PDDM.
const START_PHASE: f64 = 3.0 * PI / 4.0;
/// Where the cube is dropped, as in PDDM, and where its target is shown (m).
const CUBE_AT: [[f64; 3]; 2] = [[0.0, -0.02, 0.24], [0.0, 0.16, 0.25]];

/// The folder of the hand's files.
fn folder() -> Result<PathBuf, EnvError> {
    const FETCH: &str = "`crates/mbrl-hand/scripts/get-adroit` fetches them";
    let refuse = |reason: String| Err(EnvError::Engine { reason });
    match std::env::var_os(MODELS).map(PathBuf::from) {
        None => refuse(format!("set {MODELS} to the folder of gymnasium-robotics' Adroit hand; {FETCH}")),
        Some(folder) if !folder.is_dir() => {
            let folder = folder.display();
            refuse(format!("{folder}: no such folder, expected gymnasium-robotics' Adroit hand ({MODELS}); {FETCH}"))
        }
        Some(folder) => Ok(folder),
    }
}

/// The content of a file that others include, without its root element.
fn included(folder: &Path, name: &str) -> Result<String, EnvError> {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).map_err(|source| EnvError::Io { path: path.clone(), source })?;
    let inside = text.split_once("<mujocoinclude>").and_then(|(_, rest)| rest.rsplit_once("</mujocoinclude>"));
    let (inside, _) = inside.ok_or_else(|| unknown(&path, "no <mujocoinclude>"))?;
    Ok(inside.to_owned())
}

fn unknown(path: &Path, what: &str) -> EnvError {
    let reason = format!("{what}: not the file of gymnasium-robotics 1.4.2");
    EnvError::Format { path: path.to_owned(), reason }
}

/// Replaces every occurrence of a text that must be there.
fn patch(text: &mut String, path: &Path, from: &str, to: &str) -> Result<(), EnvError> {
    if !text.contains(from) {
        return Err(unknown(path, &format!("no `{from}`")));
    }
    *text = text.replace(from, to);
    Ok(())
}

/// Meshes and textures by their full paths.
fn compiler(folder: &Path) -> String {
    let resources = folder.join("resources");
    let (meshes, textures) = (resources.join("meshes"), resources.join("textures"));
    format!(
        "<compiler angle=\"radian\" autolimits=\"true\" meshdir=\"{}\" texturedir=\"{}\"/>",
        meshes.display(),
        textures.display()
    )
}

/// The hand as PDDM had it, with objects.
fn scene(physics: &PhysicsConfig, variation: &Variation, objects: &str) -> Result<String, EnvError> {
    let folder = folder()?;
    let (assets, model) = (folder.join("adroit_assets.xml"), folder.join("adroit_model.xml"));
    let mut head = included(&folder, "adroit_assets.xml")?;
    let [slide, twist, roll] = FRICTION;
    let slide = slide * variation.friction;
    patch(&mut head, &assets, r#"friction="1 0.5 0.01""#, &format!("friction=\"{slide} {twist} {roll}\""))?;
    // Steps and solver are the task's.
    patch(&mut head, &assets, r#"<option iterations="20" noslip_iterations="20"/>"#, "")?;
    let names = HandConfig::names();
    for (name, factor) in names.iter().zip(&variation.kp) {
        let kp = factor * if name.starts_with("WR") { 5.0 } else { 1.0 };
        head = servo(&head, name, kp).ok_or_else(|| unknown(&assets, &format!("no servo of {name}")))?;
    }
    let mut hand = included(&folder, "adroit_model.xml")?;
    patch(
        &mut hand,
        &model,
        r#"size="0.00705 0.012" pos="0 0 0.012" type="capsule""#,
        r#"size="0.0075 0.011" pos="0 -0.003 0.012" euler="0.35 0 0" type="capsule""#,
    )?;
    patch(
        &mut hand,
        &model,
        r#"size="0.00918 0.013" pos="0 0 0.013" type="capsule""#,
        r#"size="0.01 0.01" pos="-0.004 0 0.0121" euler="0 -0.35 0" type="capsule""#,
    )?;
    let PhysicsConfig { timestep, iterations, ls_iterations, warm_start } = physics;
    let flag = if *warm_start { "" } else { "<flag warmstart=\"disable\"/>" };
    let compiler = compiler(&folder);
    Ok(format!(
        r#"<mujoco model="adroit">{head}{compiler}
<option timestep="{timestep}" iterations="{iterations}" ls_iterations="{ls_iterations}" noslip_iterations="20">{flag}</option>
<size nuserdata="{MEMORY}"/>
<asset><texture name="dice" type="cube" builtin="flat" mark="cross" width="64" height="64" rgb1=".85 .55 .25" rgb2=".85 .55 .25" markrgb="0 0 0"/>
<material name="dice" texture="dice"/></asset>
<worldbody><light directional="false" diffuse=".8 .8 .8" specular=".3 .3 .3" pos="0 1 4" dir="0 -1 -4"/>
<geom name="ground" type="plane" size="1 1 5" material="groundplane" contype="1" conaffinity="1"/>
<body name="forearm" pos="0 -0.54 0.19" euler="-1.57 0 0">
<inertial pos="0.001 -0.002 0.29" quat="0.982 -0.016 0 -0.188" mass="4" diaginertia="0.01 0.01 0.0075"/>
<geom name="V_forearm" class="D_Vizual" pos="0 -.01 .181" euler="0 0 -1.57" mesh="forearm_simple"/>
{hand}</body>
{objects}</worldbody></mujoco>"#
    ))
}

/// The servo of a joint, with another stiffness; `None` if the joint has none.
fn servo(text: &str, joint: &str, kp: f64) -> Option<String> {
    let begin = text.find(&format!("<general name=\"A_{joint}\""))?;
    let end = begin + text[begin..].find("/>")?;
    let range = RANGES[HandConfig::names().iter().position(|name| *name == joint)?];
    let new = format!(
        "<general name=\"A_{joint}\" joint=\"{joint}\" ctrlrange=\"{} {}\" biastype=\"affine\" gainprm=\"{kp} 0 0\" biasprm=\"0 -{kp} 0\"",
        range[0], range[1]
    );
    Some([&text[..begin], &new, &text[end..]].concat())
}

impl BaodingAdroitConfig {
    /// The task, with its knowledge.
    ///
    /// # Errors
    /// [`EnvError::Config`]; [`EnvError::Engine`], [`EnvError::Io`] and [`EnvError::Format`] where the hand's files are not as they should be;
    /// those of the engine.
    pub fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.check()?;
        let targets = self.targets()?;
        let make = |variation: &Variation| {
            let (model, servo) = (self.model(variation)?, self.servo());
            let play = Baoding {
                goal: self.goal,
                period: self.period,
                start_noise: self.start_noise,
                objective: self.objective(),
                servo: servo.clone(),
                targets,
                shown_by: [model.mocap("target0")?, model.mocap("target1")?],
                start_phase: START_PHASE,
                shown: 0.26,
                view: ([0.0, -0.06, 0.2], 0.5, [120.0, -45.0]),
            };
            Ok((model, play, servo))
        };
        let env = world(name, &self.choices(), &Self::layout(), &HandConfig::names(), make)?;
        let mut knowledge = Knowledge::none().with_known(targets.known());
        if self.goal != BaodingGoal::Place {
            knowledge = knowledge.with_augment(exchange());
        }
        Ok(judged_by(self.objective(), env, knowledge))
    }

    fn model(&self, variation: &Variation) -> Result<Model, EnvError> {
        let [slide, twist, roll] = FRICTION;
        let objects = balls(variation, [slide * variation.friction, twist, roll], BALLS_AT);
        Model::from_xml(&scene(&self.physics, variation, &objects)?)
    }

    /// The targets in the world: on PDDM's ellipse with the wrist in the key pose.
    fn targets(&self) -> Result<Targets, EnvError> {
        let model = self.model(&Variation::default())?;
        let palm = model.body("palm")?;
        let mut sim = Sim::new(&model)?;
        let mut qpos = model.initial_state().qpos;
        qpos[..24].copy_from_slice(&self.servo().rest);
        sim.set_state(&qpos, &vec![0.0; model.nv()])?;
        let (at, axes) = (sim.xpos(palm), sim.data().xmat()[palm]);
        let [[across, along], [rx, rz]] = ELLIPSE;
        // Rows of the matrix are the world's axes; the palm's own are x across, −y up, z along.
        let world = |row: usize, [x, y, z]: [f64; 3]| axes[3 * row] * x + axes[3 * row + 1] * y + axes[3 * row + 2] * z;
        let centre = [0, 1].map(|row| at[row] + world(row, [across, -ABOVE_PALM, along]));
        Ok(Targets { centre, radii: [world(0, [rx, 0.0, 0.0]), world(1, [0.0, 0.0, rz])], lead: self.lead })
    }
}

impl ReorientAdroitConfig {
    /// The task, with its knowledge.
    ///
    /// # Errors
    /// As [`BaodingAdroitConfig::task`].
    pub fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.check()?;
        let make = |variation: &Variation| {
            let model = Model::from_xml(&scene(&self.physics, variation, &cube(variation, CUBE_AT))?)?;
            let servo = self.servo();
            let play = Reorient {
                // Fingers point along y, and z × y is −x.
                goals: self.goals.iter().map(|turn| turn.rotation((0, -1.0))).collect(),
                start_noise: self.start_noise,
                objective: self.objective(),
                servo: servo.clone(),
                target: model.mocap("target")?,
                view: ([0.0, -0.02, 0.2], 0.6, [120.0, -40.0]),
            };
            Ok((model, play, servo))
        };
        let env = world(name, &self.choices(), &Self::layout(), &HandConfig::names(), make)?;
        let knowledge = Knowledge::none().with_known(known()).with_augment(CubeRotations::new());
        Ok(judged_by(self.objective(), env, knowledge))
    }
}

/// `AdroitHandPen-v1`.
struct Pen {
    objective: AdroitPenObjective,
    object: usize,
    middle: usize,
    /// Top and bottom of the pen and of its target.
    ends: [usize; 4],
    target: usize,
}

impl AdroitPenConfig {
    /// The task; its batch reward agrees with the environment.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    pub fn task(&self, name: &str) -> Result<Task, EnvError> {
        let env = World::from_simulator(TimeLimit::new(self.init(name)?, 200)?);
        Ok(Task::new(env).with_reward(Arc::new(Batched(self.objective()))))
    }

    /// The environment alone, without a time limit.
    ///
    /// # Errors
    /// [`EnvError::Engine`], [`EnvError::Io`] and [`EnvError::Format`] where the hand's files are not as they should be.
    pub fn init(&self, name: &str) -> Result<MujocoEnv, EnvError> {
        let folder = folder()?;
        let path = folder.join("adroit_pen.xml");
        let mut text = fs::read_to_string(&path).map_err(|source| EnvError::Io { path: path.clone(), source })?;
        let model = included(&folder, "adroit_model.xml")?;
        patch(&mut text, &path, r#"<include file="adroit_model.xml"/>"#, &model)?;
        // The target's orientation changes with each episode, so it belongs to the state instead of the model.
        patch(&mut text, &path, r#"<body name="target" pos="#, r#"<body name="target" mocap="true" pos="#)?;
        let mut assets = included(&folder, "adroit_assets.xml")? + &compiler(&folder);
        // Gymnasium-Robotics sets the wrist's servos to 10 and the others to 1.
        for joint in HandConfig::names() {
            let kp = if joint.starts_with("WR") { 10.0 } else { 1.0 };
            let missing = || unknown(&path, &format!("no servo of {joint}"));
            assets = gains(&assets, joint, kp).ok_or_else(missing)?;
        }
        patch(&mut text, &path, r#"<include file='adroit_assets.xml'/>"#, &assets)?;
        let model = Model::from_xml(&text)?;
        let ends = ["object_top", "object_bottom", "target_top", "target_bottom"];
        let sites = ends.iter().map(|end| model.site(end)).collect::<Result<Vec<_>, _>>()?;
        let rules = Pen {
            objective: self.objective(),
            object: model.body("Object")?,
            middle: model.site("eps_ball")?,
            ends: std::array::from_fn(|k| sites[k]),
            target: model.mocap("target")?,
        };
        MujocoEnv::new(name, &model, 5, Arc::new(rules))
    }
}

/// The servo of a joint, with another stiffness and otherwise unchanged.
fn gains(text: &str, joint: &str, kp: f64) -> Option<String> {
    let begin = text.find(&format!("<general name=\"A_{joint}\""))?;
    let end = begin + text[begin..].find("/>")?;
    let element = &text[begin..end];
    let without = |element: &str, key: &str| -> String {
        match element.split_once(&format!("{key}=\"")) {
            None => element.to_owned(),
            Some((before, rest)) => before.to_owned() + rest.split_once('"').map_or("", |(_, after)| after),
        }
    };
    let plain = without(&without(element, "gainprm"), "biasprm");
    let new = format!("{plain} gainprm=\"{kp} 0 0\" biasprm=\"0 -{kp} 0\"");
    Some([&text[..begin], &new, &text[end..]].concat())
}

fn unit(from: [f64; 3], to: [f64; 3], length: f64) -> [f64; 3] {
    std::array::from_fn(|k| (to[k] - from[k]) / length)
}

impl Rules for Pen {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        let (nq, nv) = (sim.qpos().len(), sim.qvel().len());
        let (at, middle) = (sim.xpos(self.object), sim.site_xpos(self.middle));
        let [top, bottom, goal_top, goal_bottom] = self.ends.map(|end| sim.site_xpos(end));
        // Both are 130 mm long.
        let (direction, wanted) = (unit(bottom, top, 0.13), unit(goal_bottom, goal_top, 0.13));
        obs.extend_from_slice(&sim.qpos()[..nq - 6]);
        obs.extend(at);
        obs.extend_from_slice(&sim.qvel()[nv - 6..]);
        obs.extend(direction);
        obs.extend(wanted);
        obs.extend((0..3).map(|k| at[k] - middle[k]));
        obs.extend((0..3).map(|k| direction[k] - wanted[k]));
        debug_assert_eq!(obs.len(), pen::WIDTH);
    }

    fn fields(&self, _: &Model) -> Option<Vec<Field>> {
        Some(AdroitPenConfig::fields())
    }

    fn actions(&self, _: &Model) -> Option<(BoxSpace, Vec<Field>)> {
        let fields = HandConfig::names().iter().map(|name| Field::linear(*name, "")).collect();
        BoxSpace::symmetric(24, 1.0).ok().map(|space| (space, fields))
    }

    fn start(&self, state: &mut InitialState, rng: &mut Rng) {
        let ((sx, cx), (sy, cy)) =
            ((rng.uniform_f64(-1.0, 1.0) / 2.0).sin_cos(), (rng.uniform_f64(-1.0, 1.0) / 2.0).sin_cos());
        // About x, then about y.
        state.mocap_quat[self.target] = [cx * cy, sx * cy, cx * sy, sx * sy];
    }

    fn apply(&self, action: &[f32], controls: &mut Controls<'_>) {
        for ((control, action), [low, high]) in controls.ctrl_mut().iter_mut().zip(action).zip(RANGES) {
            *control = 0.5 * (low + high) + f64::from(action.clamp(-1.0, 1.0)) * 0.5 * (high - low);
        }
    }

    fn judge(&self, _: &[f64], sim: &Sim, _: &[f32]) -> StepOutcome {
        let mut next = Vec::new();
        self.observe(sim, &mut next);
        let next: Vec<f64> = next.into_iter().map(|x| f64::from(x as f32)).collect();
        let (reward, _) = judge(&self.objective, &next);
        let [away, similar] = AdroitPenObjective::closeness(&|column: usize| next[column]);
        let success = f64::from(u8::from(away < 0.075 && similar > 0.95));
        let mut outcome = StepOutcome::new(reward);
        outcome.info = info([("success", success)]);
        outcome
    }

    fn camera(&self, model: &Model) -> Camera {
        let [x, y, z] = part::<3>(&[0.0, -0.2, 0.2], 0);
        Camera::Free(View { lookat: [x, y, z], distance: 0.8, azimuth: 120.0, elevation: -35.0, ..View::of(model) })
    }
}
