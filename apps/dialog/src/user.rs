//! A user who wants a table in a restaurant, what is heard of the answers, and what can be learned about them from transcripts.

use std::sync::Arc;

use mbrl_env::{ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Rng, Step, TimeLimit, World, check_action};

/// Things to agree on: dish, area, price.
pub(crate) const SLOTS: usize = 3;
/// Number of values of each.
pub(crate) const VALUES: usize = 4;
/// Number of things that the system can say: ask for each, repeat each and ask whether that is right, book.
pub(crate) const ACTS: usize = 2 * SLOTS + 1;
/// Turns after which the user hangs up.
pub(crate) const MOST_TURNS: u32 = 20;
/// Reward of a right booking; a wrong one costs as much, and each turn costs 1.
pub(crate) const WORTH: f32 = 20.0;

/// An act of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Ask(usize),
    Confirm(usize),
    Book,
}

impl Act {
    pub(crate) fn of(code: f32) -> Self {
        match code as usize {
            slot if slot < SLOTS => Self::Ask(slot),
            act if act < 2 * SLOTS => Self::Confirm(act - SLOTS),
            _ => Self::Book,
        }
    }

    pub(crate) fn code(self) -> f32 {
        match self {
            Self::Ask(slot) => slot as f32,
            Self::Confirm(slot) => (SLOTS + slot) as f32,
            Self::Book => 2.0 * SLOTS as f32,
        }
    }
}

/// The answer that is heard from the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Silence,
    Yes,
    No,
    /// "The slot shall be the value."
    Value(usize, usize),
}

/// Codes of answers are below this.
pub(crate) const ANSWERS: usize = 3 + SLOTS * VALUES;

impl Answer {
    pub(crate) fn of(code: f32) -> Self {
        match code.max(0.0).round() as usize {
            0 => Self::Silence,
            1 => Self::Yes,
            2 => Self::No,
            value => {
                let value = (value - 3).min(SLOTS * VALUES - 1);
                Self::Value(value / VALUES, value % VALUES)
            }
        }
    }

    pub(crate) fn code(self) -> f32 {
        match self {
            Self::Silence => 0.0,
            Self::Yes => 1.0,
            Self::No => 2.0,
            Self::Value(slot, value) => (3 + slot * VALUES + value) as f32,
        }
    }
}

/// The system's notes: the evidence for each value. The value with the most evidence is the one that it repeats and books.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Notebook(pub(crate) [[f32; VALUES]; SLOTS]);

impl Notebook {
    pub(crate) const EMPTY: Self = Self([[0.0; VALUES]; SLOTS]);

    pub(crate) fn noted(&self, slot: usize) -> usize {
        (1..VALUES).fold(0, |best, value| if self.0[slot][value] > self.0[slot][best] { value } else { best })
    }

    pub(crate) fn note(&mut self, act: Act, answer: Answer) {
        match (act, answer) {
            (_, Answer::Value(slot, value)) => self.0[slot][value] += 1.0,
            (Act::Confirm(slot), Answer::Yes) => self.0[slot][self.noted(slot)] += 1.5,
            (Act::Confirm(slot), Answer::No) => self.0[slot][self.noted(slot)] -= 1.5,
            _ => {}
        }
    }
}

/// Probabilities of the heard answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct User {
    /// For a question, by the slot that it asks for: the slot that the answer is about; the last entry is silence.
    pub(crate) topic: [[f64; SLOTS + 1]; SLOTS],
    /// For an answer about a slot, by the wanted value: the heard value.
    pub(crate) heard: [[[f64; VALUES]; VALUES]; SLOTS],
    /// For "is that right?", by slot and whether it is: silence, yes, no.
    pub(crate) confirmed: [[[f64; 3]; 2]; SLOTS],
}

impl User {
    /// The user of this world.
    pub(crate) fn real() -> Self {
        let wrong: [f64; SLOTS] = [0.1, 0.2, 0.3];
        let topic = |asked: usize| {
            let mut of = [0.05; SLOTS + 1];
            (of[asked], of[SLOTS]) = (0.75, 0.15);
            of
        };
        let heard = |slot: usize, wanted: usize| {
            let mut of = [wrong[slot] / (VALUES - 1) as f64; VALUES];
            of[wanted] = 1.0 - wrong[slot];
            of
        };
        Self {
            topic: std::array::from_fn(topic),
            heard: std::array::from_fn(|slot| std::array::from_fn(|wanted| heard(slot, wanted))),
            confirmed: [[[0.1, 0.1, 0.8], [0.1, 0.85, 0.05]]; SLOTS],
        }
    }

    /// Probabilities estimated from counts, as if each answer had been heard half a time before.
    pub(crate) fn learned(transcripts: &[Transcript]) -> Self {
        let mut counts = Self {
            topic: [[0.5; SLOTS + 1]; SLOTS],
            heard: [[[0.5; VALUES]; VALUES]; SLOTS],
            confirmed: [[[0.5; 3]; 2]; SLOTS],
        };
        for Transcript { wanted, turns } in transcripts {
            let mut notebook = Notebook::EMPTY;
            for &(act, answer) in turns {
                match (act, answer) {
                    (Act::Ask(asked), Answer::Value(slot, value)) => {
                        counts.topic[asked][slot] += 1.0;
                        counts.heard[slot][wanted[slot]][value] += 1.0;
                    }
                    (Act::Ask(asked), _) => counts.topic[asked][SLOTS] += 1.0,
                    (Act::Confirm(slot), answer) => {
                        let right = usize::from(notebook.noted(slot) == wanted[slot]);
                        counts.confirmed[slot][right][answer.code() as usize % 3] += 1.0;
                    }
                    (Act::Book, _) => {}
                }
                notebook.note(act, answer);
            }
        }
        counts.topic.iter_mut().for_each(|row| normalize(row));
        counts.heard.iter_mut().flatten().for_each(|row| normalize(row));
        counts.confirmed.iter_mut().flatten().for_each(|row| normalize(row));
        counts
    }

    /// The heard answer of a user with these wishes.
    fn answer(&self, act: Act, wanted: &[usize; SLOTS], notebook: &Notebook, rng: &mut Rng) -> Answer {
        let mut draw = |of: &[f64]| pick(of, rng.uniform_f64(0.0, 1.0));
        match act {
            Act::Ask(asked) => match draw(&self.topic[asked]) {
                SLOTS => Answer::Silence,
                slot => Answer::Value(slot, draw(&self.heard[slot][wanted[slot]])),
            },
            Act::Confirm(slot) => {
                let right = usize::from(notebook.noted(slot) == wanted[slot]);
                [Answer::Silence, Answer::Yes, Answer::No][draw(&self.confirmed[slot][right])]
            }
            Act::Book => Answer::Silence,
        }
    }
}

fn normalize(row: &mut [f64]) {
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

/// The index at which the cumulative probability exceeds a uniform number.
pub(crate) fn pick(of: &[f64], mut uniform: f64) -> usize {
    for (i, probability) in of.iter().enumerate() {
        uniform -= probability;
        if uniform < 0.0 {
            return i;
        }
    }
    of.len() - 1
}

/// A recorded dialogue, with the user's wishes.
#[derive(Debug, Clone)]
pub(crate) struct Transcript {
    pub(crate) wanted: [usize; SLOTS],
    pub(crate) turns: Vec<(Act, Answer)>,
}

impl Transcript {
    /// With a system that asks and repeats at random for six turns.
    pub(crate) fn random(user: &User, rng: &mut Rng) -> Self {
        let wanted = std::array::from_fn(|_| rng.below(VALUES));
        let mut notebook = Notebook::EMPTY;
        let turns = (0..6)
            .map(|_| {
                let act = Act::of(rng.below(2 * SLOTS) as f32);
                let answer = user.answer(act, &wanted, &notebook, rng);
                notebook.note(act, answer);
                (act, answer)
            })
            .collect();
        Self { wanted, turns }
    }
}

/// A dialogue. The observation is the last heard answer.
#[derive(Debug)]
pub(crate) struct Dialogue {
    spec: Arc<EnvSpec>,
    user: User,
    rng: Rng,
    wanted: [usize; SLOTS],
    pub(crate) notebook: Notebook,
}

impl Dialogue {
    pub(crate) fn new() -> Result<Self, EnvError> {
        let obs = BoxSpace::new([0.0], [ANSWERS as f32 - 1.0])?;
        let spec = EnvSpec::new("dialogue", obs, ActionSpace::Discrete(ACTS), 1.0);
        Ok(Self {
            spec: Arc::new(spec),
            user: User::real(),
            rng: Rng::new(0),
            wanted: [0; SLOTS],
            notebook: Notebook::EMPTY,
        })
    }

    pub(crate) fn world() -> Result<World, EnvError> {
        Ok(World::from_env(TimeLimit::new(Self::new()?, MOST_TURNS)?))
    }
}

impl Env for Dialogue {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.wanted = std::array::from_fn(|_| self.rng.below(VALUES));
        self.notebook = Notebook::EMPTY;
        Ok(vec![Answer::Silence.code()])
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        check_action(&self.spec, action)?;
        let act = Act::of(action[0]);
        if act == Act::Book {
            let right = (0..SLOTS).all(|slot| self.notebook.noted(slot) == self.wanted[slot]);
            let worth = f64::from(if right { WORTH } else { -WORTH });
            return Ok(Step::new([Answer::Silence.code()], worth - 1.0).with_terminated(true));
        }
        let answer = self.user.answer(act, &self.wanted, &self.notebook, &mut self.rng);
        self.notebook.note(act, answer);
        Ok(Step::new([answer.code()], -1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notebook_goes_by_what_speaks_for_each_value() {
        let mut notebook = Notebook::EMPTY;
        // No evidence for any value: the first one.
        assert_eq!(notebook.noted(1), 0);
        let hears = |notebook: &mut Notebook, value| notebook.note(Act::Ask(1), Answer::Value(1, value));
        hears(&mut notebook, 3);
        hears(&mut notebook, 2);
        // Equal evidence: the earlier one.
        assert_eq!(notebook.noted(1), 2);
        // A confirmation counts more than one answer, and a denial less than none.
        notebook.note(Act::Confirm(1), Answer::Yes);
        hears(&mut notebook, 3);
        assert_eq!(notebook.noted(1), 2);
        notebook.note(Act::Confirm(1), Answer::No);
        assert_eq!((notebook.noted(1), notebook.noted(0)), (3, 0));
        notebook.note(Act::Confirm(1), Answer::Silence);
        assert_eq!(notebook.0[1], [0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn a_turn_costs_one_and_a_booking_pays_only_where_everything_is_right() {
        let mut world = Dialogue::new().unwrap();
        for right in 0..=SLOTS {
            world.reset(Some(3)).unwrap();
            assert_eq!(world.notebook, Notebook::EMPTY);
            let asked = world.step(&[Act::Ask(0).code()]).unwrap();
            assert_eq!((asked.reward, asked.terminated), (-1.0, false));
            for slot in 0..SLOTS {
                let value = if slot < right { world.wanted[slot] } else { (world.wanted[slot] + 1) % VALUES };
                world.notebook.0[slot] = [0.0; VALUES];
                world.notebook.0[slot][value] = 1.0;
            }
            let booked = world.step(&[Act::Book.code()]).unwrap();
            let worth = if right == SLOTS { 20.0 } else { -20.0 };
            assert_eq!((booked.reward, booked.terminated), (worth - 1.0, true), "{right} right");
        }
    }
}
