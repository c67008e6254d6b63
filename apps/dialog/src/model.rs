//! The user's answers as a dynamics model: p(answer | what was said so far, what I say).

use burn::tensor::{Bool, Device, Tensor, TensorData};
use mbrl_env::{Situation, Value};
use mbrl_model::{Draw, Dynamics, DynamicsSpec, Imagined, MemberRule, ModelError, Prediction, belief_of, uniforms};

use crate::user::{Act, Answer, Notebook, SLOTS, User, VALUES, WORTH, pick};

/// Width of a state: the probability of each value of each slot, then the notebook.
const HALF: usize = SLOTS * VALUES;
const STATE: usize = 2 * HALF;

/// What the system knows.
#[derive(Debug, Clone, Copy)]
struct Known {
    likely: [[f64; VALUES]; SLOTS],
    notebook: Notebook,
}

impl Known {
    const NOTHING: Self = Self { likely: [[1.0 / VALUES as f64; VALUES]; SLOTS], notebook: Notebook::EMPTY };

    fn read(row: &[f32]) -> Self {
        let mut known = Self::NOTHING;
        for slot in 0..SLOTS {
            for value in 0..VALUES {
                known.likely[slot][value] = f64::from(row[slot * VALUES + value]);
                known.notebook.0[slot][value] = row[HALF + slot * VALUES + value];
            }
        }
        known
    }

    fn write(&self, row: &mut [f32]) {
        for (i, x) in self.likely.iter().flatten().enumerate() {
            row[i] = *x as f32;
        }
        for (i, x) in self.notebook.0.iter().flatten().enumerate() {
            row[HALF + i] = *x;
        }
    }
}

/// A user whose answer probabilities are known, true ones or learned, but whose wishes are not: the state is what the system knows, and
/// answers are drawn according to the probability of each wish. The model's filter is Bayes's rule. It provides rewards and terminations itself.
#[derive(Debug, Clone)]
pub(crate) struct UserModel {
    spec: DynamicsSpec,
    user: User,
}

impl UserModel {
    pub(crate) fn new(user: User) -> Self {
        let spec = DynamicsSpec::new("user", STATE, 1, &Device::flex());
        Self { spec: spec.with_obs(1).with_view(STATE).with_belief(STATE).with_stochastic(true), user }
    }

    /// The knowledge after an act and an answer.
    fn heard(&self, mut known: Known, act: Act, answer: Answer) -> Known {
        let about = match (act, answer) {
            (_, Answer::Value(slot, value)) => {
                Some((slot, std::array::from_fn(|wanted| self.user.heard[slot][wanted][value])))
            }
            (Act::Confirm(slot), answer) => {
                let noted = known.notebook.noted(slot);
                let of =
                    |wanted: usize| self.user.confirmed[slot][usize::from(wanted == noted)][answer.code() as usize % 3];
                Some((slot, std::array::from_fn(of)))
            }
            _ => None,
        };
        if let Some((slot, factors)) = about {
            let factors: [f64; VALUES] = factors;
            let row = &mut known.likely[slot];
            row.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
            let sum: f64 = row.iter().sum();
            match sum > 0.0 {
                true => row.iter_mut().for_each(|x| *x /= sum),
                false => *row = [1.0 / VALUES as f64; VALUES],
            }
        }
        known.notebook.note(act, answer);
        known
    }

    /// Probabilities of the answers to an act.
    fn answers(&self, known: &Known, act: Act) -> Vec<(Answer, f64)> {
        let mixed = |slot: usize, of: &dyn Fn(usize) -> f64| -> f64 {
            (0..VALUES).map(|wanted| known.likely[slot][wanted] * of(wanted)).sum()
        };
        match act {
            Act::Ask(asked) => {
                let topic = &self.user.topic[asked];
                let values = (0..SLOTS).flat_map(|slot| (0..VALUES).map(move |value| (slot, value)));
                let values = values.map(|(slot, value)| {
                    let heard = mixed(slot, &|wanted| self.user.heard[slot][wanted][value]);
                    (Answer::Value(slot, value), topic[slot] * heard)
                });
                values.chain([(Answer::Silence, topic[SLOTS])]).collect()
            }
            Act::Confirm(slot) => {
                let noted = known.notebook.noted(slot);
                let of = |i: usize| mixed(slot, &|wanted| self.user.confirmed[slot][usize::from(wanted == noted)][i]);
                vec![(Answer::Silence, of(0)), (Answer::Yes, of(1)), (Answer::No, of(2))]
            }
            Act::Book => vec![(Answer::Silence, 1.0)],
        }
    }

    /// The reward of the next turn.
    fn worth(known: &Known, act: Act) -> f32 {
        if act != Act::Book {
            return -1.0;
        }
        let right: f64 = (0..SLOTS).map(|slot| known.likely[slot][known.notebook.noted(slot)]).product();
        (2.0 * right as f32 - 1.0) * WORTH - 1.0
    }

    /// Rows of states and acts, on the host.
    fn rows(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Vec<(Known, Act)>, ModelError> {
        let width = |what, expected, actual| match expected == actual {
            true => Ok(()),
            false => Err(ModelError::Width { what, expected, actual }),
        };
        width("columns of states", STATE, states.dims()[1])?;
        width("columns of actions", 1, actions.dims()[1])?;
        width("rows of actions", states.dims()[0], actions.dims()[0])?;
        let (states, actions) = (host(states), host(actions));
        Ok(states.chunks(STATE).zip(&actions).map(|(row, act)| (Known::read(row), Act::of(*act))).collect())
    }

    fn table(&self, rows: impl ExactSizeIterator<Item = Vec<f32>>) -> Tensor<2> {
        let count = rows.len();
        Tensor::from_data(TensorData::new(rows.flatten().collect::<Vec<f32>>(), [count, STATE]), &self.spec.device)
    }

    /// The mean over all answers, `[S]`.
    fn mean(&self, known: &Known, act: Act) -> Vec<f32> {
        let mut mean = vec![0.0; STATE];
        let mut row = vec![0.0; STATE];
        for (answer, probability) in self.answers(known, act) {
            self.heard(*known, act, answer).write(&mut row);
            mean.iter_mut().zip(&row).for_each(|(mean, x)| *mean += probability as f32 * x);
        }
        mean
    }
}

/// The value of a state where plans end: that of booking there or, if it is larger, that of being nearly sure after the turns that the
/// remaining bits take. A plan is a list of acts that does not wait for answers; this value stands for all later acts that depend on them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TalkingOn;

impl TalkingOn {
    /// The value of a booking that is right with a probability of 0.95.
    const NEARLY_SURE: f64 = 17.0;
    /// That of the handwritten policy: some ten turns for six bits.
    const TURNS_PER_BIT: f64 = 1.6;

    fn of(known: &Known) -> f32 {
        let open: f64 = known.likely.iter().flatten().map(|p| if *p > 0.0 { -p * p.log2() } else { 0.0 }).sum();
        UserModel::worth(known, Act::Book).max((Self::NEARLY_SURE - Self::TURNS_PER_BIT * open) as f32)
    }
}

impl Value for TalkingOn {
    fn value(&self, obs: Tensor<2>) -> Tensor<1> {
        let device = obs.device();
        let worth: Vec<f32> = host(obs).chunks(STATE).map(|row| Self::of(&Known::read(row))).collect();
        let rows = worth.len();
        Tensor::from_data(TensorData::new(worth, [rows]), &device)
    }
}

fn host(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

impl Dynamics for UserModel {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        let rows = self.rows(states, actions)?;
        Ok(Prediction::new(self.table(rows.iter().map(|(known, act)| self.mean(known, *act)))))
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let rows = self.rows(states, actions)?;
        let particles = draw.propagation.particles;
        if particles == 0 || !rows.len().is_multiple_of(particles) {
            let rule = format!("a divisor of {} (the rows), at least 1", rows.len()).into();
            return Err(ModelError::Config { field: "particles", value: particles.to_string(), rule });
        }
        let candidates = (rows.len() / particles).max(1);
        let noisy = draw.propagation.noise && draw.propagation.rule != MemberRule::Expectation;
        // One number per particle and step: all candidates talk with the same user.
        let key = draw.key ^ u64::from(draw.step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let luck = host(uniforms(key, [particles, 1], &self.spec.device));
        let next = rows.iter().enumerate().map(|(i, (known, act))| {
            if !noisy {
                return self.mean(known, *act);
            }
            let answers = self.answers(known, *act);
            let of: Vec<f64> = answers.iter().map(|(_, probability)| *probability).collect();
            let (answer, _) = answers[pick(&of, f64::from(luck[i / candidates]))];
            let mut row = vec![0.0; STATE];
            self.heard(*known, *act, answer).write(&mut row);
            row
        });
        let next = self.table(next);
        let worth: Vec<f32> = rows.iter().map(|(known, act)| Self::worth(known, *act)).collect();
        let ends: Vec<bool> = rows.iter().map(|(_, act)| *act == Act::Book).collect();
        let device = &self.spec.device;
        Ok(Imagined::new(next)
            .with_reward(Tensor::from_data(TensorData::new(worth, [rows.len()]), device))
            .with_terminated(Tensor::<1, Bool>::from_data(TensorData::new(ends, [rows.len()]), device)))
    }

    fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
        belief_of(self, situation)
    }

    fn begin(&self, obs: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let mut row = vec![0.0; STATE];
        Known::NOTHING.write(&mut row);
        Ok(self.table(vec![row; obs.dims()[0]].into_iter()))
    }

    fn follow(&self, beliefs: Tensor<2>, actions: Tensor<2>, obs: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let answers = host(obs);
        let rows = self.rows(beliefs, actions)?;
        Ok(self.table(rows.iter().zip(&answers).map(|((known, act), answer)| {
            let mut row = vec![0.0; STATE];
            self.heard(*known, *act, Answer::of(*answer)).write(&mut row);
            row
        })))
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::Rng;
    use mbrl_model::check::check_dynamics;

    use super::*;
    use crate::user::{ACTS, Transcript};

    /// States along some random dialogues.
    fn states(model: &UserModel, rng: &mut Rng, count: usize) -> Vec<Known> {
        let knows = |transcript: Transcript| {
            transcript
                .turns
                .iter()
                .take(4)
                .fold(Known::NOTHING, |known, (act, answer)| model.heard(known, *act, *answer))
        };
        (0..count).map(|_| knows(Transcript::random(&User::real(), rng))).collect()
    }

    #[test]
    fn it_keeps_the_contract_and_its_probabilities_add_up() {
        let (model, mut rng) = (UserModel::new(User::real()), Rng::new(0));
        let known = states(&model, &mut rng, 21);
        for (known, code) in known.iter().zip((0..ACTS).cycle()) {
            let act = Act::of(code as f32);
            let answers = model.answers(known, act);
            assert!((answers.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-12);
            // Beliefs are right on average: their mean does not move.
            let mut row = vec![0.0; STATE];
            known.write(&mut row);
            let mean = model.mean(known, act);
            assert!(mean[..HALF].iter().zip(&row).all(|(mean, x)| (mean - x).abs() < 1e-5), "{act:?}");
        }
        let rows: Vec<f32> = known
            .iter()
            .flat_map(|known| {
                let mut row = vec![0.0; STATE];
                known.write(&mut row);
                row
            })
            .collect();
        let device = Device::flex();
        let acts: Vec<f32> = (0..21).map(|i| (i % ACTS) as f32).collect();
        let rows = Tensor::from_data(TensorData::new(rows, [21, STATE]), &device);
        check_dynamics(&model, rows, Tensor::from_data(TensorData::new(acts, [21, 1]), &device)).unwrap();
    }

    #[test]
    fn bayes_s_rule_is_that_of_a_slot_by_hand() {
        let model = UserModel::new(User::real());
        let known = model.heard(Known::NOTHING, Act::Ask(0), Answer::Value(0, 2));
        assert!((known.likely[0][2] - 0.9).abs() < 1e-12 && (known.likely[0][1] - 0.1 / 3.0).abs() < 1e-12);
        let known = model.heard(known, Act::Confirm(0), Answer::Yes);
        assert!((known.likely[0][2] - 0.9 * 0.85 / (0.9 * 0.85 + 0.1 * 0.1)).abs() < 1e-12);
        let worth = UserModel::worth(&known, Act::Book);
        // The other two slots are each right with a probability of a quarter.
        let right = known.likely[0][2] as f32 / 16.0;
        assert!((worth - (20.0 * (2.0 * right - 1.0) - 1.0)).abs() < 1e-4);
    }

    #[test]
    fn transcripts_tell_the_user_s_probabilities() {
        let (real, mut rng) = (User::real(), Rng::new(1));
        let transcripts: Vec<Transcript> = (0..2000).map(|_| Transcript::random(&real, &mut rng)).collect();
        let learned = User::learned(&transcripts);
        let pairs = |of: &User| -> Vec<f64> {
            let heard = of.heard.iter().flatten().flatten();
            of.topic.iter().flatten().chain(heard).chain(of.confirmed.iter().flatten().flatten()).copied().collect()
        };
        for (found, real) in pairs(&learned).iter().zip(pairs(&real)) {
            assert!((found - real).abs() < 0.08, "{found}, not {real}");
        }
    }

    #[test]
    fn talking_on_is_worth_a_booking_or_the_turns_that_the_open_bits_take() {
        // Three slots with four values: six bits.
        assert!((TalkingOn::of(&Known::NOTHING) - (17.0 - 1.6 * 6.0)).abs() < 1e-5);
        let mut sure = Known::NOTHING;
        for slot in 0..SLOTS {
            sure.likely[slot] = [0.0, 0.0, 1.0, 0.0];
            sure.notebook.0[slot][2] = 1.0;
        }
        assert_eq!(TalkingOn::of(&sure), 20.0 - 1.0);
        // Sure, but of a value other than the noted one: better not to book.
        sure.notebook = Notebook::EMPTY;
        assert_eq!((UserModel::worth(&sure, Act::Book), TalkingOn::of(&sure)), (-21.0, 17.0));
    }

    #[test]
    fn all_candidates_of_a_particle_talk_with_the_same_user() {
        let (model, particles, candidates) = (UserModel::new(User::real()), 16, 3);
        let device = Device::flex();
        let states = model.begin(Tensor::zeros([particles * candidates, 1], &device)).unwrap();
        let acts = Tensor::zeros([particles * candidates, 1], &device);
        let propagation = mbrl_model::Propagation { rule: MemberRule::TsInf, noise: true, particles };
        let next = host(model.sample(states, acts, Draw::new(propagation, 7)).unwrap().next);
        let of: Vec<&[f32]> = next.chunks(candidates * STATE).collect();
        for same in &of {
            assert!(same.chunks(STATE).all(|row| row == &same[..STATE]));
        }
        assert!(of.iter().any(|other| other != &of[0]), "particles differ");
    }
}
