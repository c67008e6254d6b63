//! The digits of the five-fingered hand relative to objects: features of several tasks.

use std::marker::PhantomData;

use crate::{
    Servo,
    blocks::{Block, Formula, Input},
    kinematics::{Chain, Frame},
    robot::HandConfig,
    scalar::{Scalar, Vector, scaled, subtract},
};

/// Digits by the prefix of their joints' names.
const DIGITS: [&str; 5] = ["FF", "MF", "RF", "LF", "TH"];
/// A digit's links, by the bodies at which they begin.
const LINKS: [&str; 3] = ["proximal", "middle", "distal"];

/// A digit, with the wrist before it.
#[derive(Debug, Clone)]
pub(crate) struct Digit {
    /// Indices of its joints and of the wrist's.
    joints: Vec<usize>,
    chain: Chain,
    /// Where its links begin in the chain.
    links: Vec<usize>,
    /// The centre of the tip, in the last link's frame.
    tip: f64,
    /// Radii of the links.
    pub(crate) radii: [f64; 3],
}

/// Positions of a digit's links (m).
pub(crate) struct Place<S> {
    /// Origins of proximal, middle and distal link, and the centre of the tip.
    pub(crate) points: Vec<Vector<S>>,
}

impl<S: Scalar> Place<S> {
    pub(crate) fn tip(&self) -> &Vector<S> {
        &self.points[3]
    }
}

impl Digit {
    /// All five.
    pub(crate) fn all(hand: &HandConfig) -> Vec<Self> {
        let robot = hand.body();
        let names = HandConfig::names();
        let of = |digit: &&str| {
            let joints: Vec<usize> =
                (0..names.len()).filter(|j| names[*j].starts_with("WR") || names[*j].starts_with(digit)).collect();
            let order: Vec<&str> = joints.iter().map(|j| names[*j]).collect();
            let chain = Chain::to(&robot, &format!("{digit}distal"), &order)?;
            let (lengths, radii) = match *digit {
                "TH" => (HandConfig::THUMB, HandConfig::THUMB_RADIUS),
                _ => (HandConfig::FINGER, HandConfig::FINGER_RADIUS),
            };
            let links = LINKS.map(|link| format!("{digit}{link}"));
            let links = chain.stops(&links.each_ref().map(String::as_str));
            Some(Self { joints, chain, links, tip: lengths[2] - radii[2], radii })
        };
        DIGITS.iter().filter_map(of).collect()
    }

    /// Joint angles, actions, then columns of objects.
    pub(crate) fn inputs(&self, objects: &[usize]) -> Vec<Input> {
        let joints = self.joints.iter().copied();
        joints
            .clone()
            .map(Input::Obs)
            .chain(joints.map(Input::Action))
            .chain(objects.iter().copied().map(Input::Obs))
            .collect()
    }

    /// Number of joints, including the wrist's.
    pub(crate) fn width(&self) -> usize {
        self.joints.len()
    }

    fn place<S: Scalar>(&self, angles: &[S]) -> Place<S> {
        Place { points: self.chain.points(angles, &self.links, &[self.tip, 0.0, 0.0]) }
    }

    /// Where it is, where it is commanded to be, and by how much its own joints are commanded to turn.
    pub(crate) fn places<S: Scalar>(&self, servo: &Servo, inputs: &[S]) -> ([Place<S>; 2], Vec<S>) {
        let n = self.width();
        let command = |j: usize| servo.command(self.joints[j], &inputs[n + j], &inputs[j]);
        let commanded: Vec<S> = (0..n).map(command).collect();
        let turns = (2..n).map(|j| commanded[j].clone() - inputs[j].clone()).collect();
        ([self.place(&inputs[..n]), self.place(&commanded)], turns)
    }
}

/// The palm, moved by the wrist.
#[derive(Debug, Clone)]
pub(crate) struct Palm(Option<Chain>);

impl Palm {
    pub(crate) fn new(hand: &HandConfig) -> Self {
        Self(Chain::to(&hand.body(), "palm", &["WRJ1", "WRJ0"]))
    }

    /// A block with the wrist's angles and actions, and columns of objects.
    pub(crate) fn block(objects: &[usize], width: usize) -> Block {
        let wrist = [Input::Obs(0), Input::Obs(1), Input::Action(0), Input::Action(1)];
        let inputs = wrist.into_iter().chain(objects.iter().copied().map(Input::Obs)).collect();
        Block { inputs, width: width + 2 }
    }

    /// The palm's frame, and by how much the wrist is commanded to turn.
    pub(crate) fn frame<S: Scalar>(&self, servo: &Servo, inputs: &[S]) -> (Option<Frame<S>>, [S; 2]) {
        let turn = |j: usize| servo.command(j, &inputs[2 + j], &inputs[j]) - inputs[j].clone();
        (self.0.as_ref().map(|chain| chain.frame(&inputs[..2])), [turn(0), turn(1)])
    }
}

/// The difference from another point to this one, clipped to ± `limit` (m).
#[inline(always)]
pub(crate) fn beside<S: Scalar>(point: &Vector<S>, origin: &Vector<S>, limit: f64) -> Vector<S> {
    subtract(point, origin).map(|x| x.clamp(-limit, limit))
}

/// The point at distance `along` (m) on the axis of an object at `at`.
pub(crate) fn on_axis<S: Scalar>(at: &Vector<S>, axis: &Vector<S>, along: f64) -> Vector<S> {
    crate::scalar::add(at, &scaled(axis, along))
}

/// The `k`th point of objects that are listed one after the other.
pub(crate) fn point<S: Scalar>(objects: &[S], k: usize) -> Vector<S> {
    std::array::from_fn(|i| objects[3 * k + i].clone())
}

/// The features that a task computes of a hand relative to its objects.
pub(crate) trait Look: 'static {
    /// Stored with models.
    const NAME: &'static str;
    /// Numbers per digit, without the commanded turns of its joints.
    const WIDTH: usize;

    fn hand() -> HandConfig {
        HandConfig::default()
    }

    /// Columns of the objects that digits are described relative to.
    fn objects() -> Vec<usize>;

    /// Columns of points that are given in the palm's frame.
    fn in_palm() -> Vec<usize>;

    /// How many numbers [`once`](Self::once) appends.
    const ONCE: usize = 0;

    /// Columns that [`once`](Self::once) reads.
    fn whole() -> Vec<usize> {
        Vec::new()
    }

    /// Appends the features of the objects alone.
    fn once<S: Scalar>(_objects: &[S], _out: &mut Vec<S>) {}

    /// Appends the features of a digit that is at one place and commanded to be at the other.
    fn look<S: Scalar>(digit: &Digit, places: &[Place<S>; 2], objects: &[S], out: &mut Vec<S>);
}

/// The hand relative to objects: a block for each digit, one for the palm, and one for the objects alone.
pub(crate) struct Beside<L> {
    servo: Servo,
    digits: Vec<Digit>,
    palm: Palm,
    blocks: Vec<Block>,
    look: PhantomData<fn() -> L>,
}

impl<L: Look> Beside<L> {
    pub(crate) fn new(servo: Servo) -> Self {
        let hand = L::hand();
        let (digits, palm) = (Digit::all(&hand), Palm::new(&hand));
        let (objects, in_palm) = (L::objects(), L::in_palm());
        let of = |digit: &Digit| Block { inputs: digit.inputs(&objects), width: L::WIDTH + digit.width() - 2 };
        let mut blocks: Vec<Block> = digits.iter().map(of).collect();
        blocks.push(Palm::block(&in_palm, in_palm.len()));
        if L::ONCE > 0 {
            blocks.push(Block { inputs: L::whole().into_iter().map(Input::Obs).collect(), width: L::ONCE });
        }
        Self { servo, digits, palm, blocks, look: PhantomData }
    }
}

impl<L: Look> Formula for Beside<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn evaluate<S: Scalar>(&self, block: usize, inputs: &[S], out: &mut Vec<S>) {
        let Some(digit) = self.digits.get(block) else {
            if block > self.digits.len() {
                return L::once(inputs, out);
            }
            let (frame, turns) = self.palm.frame(&self.servo, inputs);
            let objects = &inputs[4..];
            out.extend(turns);
            for at in (0..objects.len() / 3).map(|k| point(objects, k)) {
                out.extend(frame.as_ref().map_or(at.clone(), |frame| frame.inside(&at)));
            }
            return;
        };
        let (places, turns) = digit.places(&self.servo, inputs);
        L::look(digit, &places, &inputs[2 * digit.width()..], out);
        out.extend(turns);
    }
}
