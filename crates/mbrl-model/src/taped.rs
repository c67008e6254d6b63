//! One imagined step with its backward pass, for learning through a model.

use burn::tensor::Tensor;

use crate::{Draw, Dynamics, Imagined, ModelError, dynamics::check_size};

/// The backward pass through one imagined step of N rows. It can be used once.
pub trait Pullback: Send {
    /// From the gradients of a loss with respect to the next states `[N, S]` and the rewards `[N]`, computes those with respect
    /// to the states `[N, S]` and the actions `[N, A]`. Without `reward`, or where the model gives none, rewards do not count.
    ///
    /// # Errors
    /// [`ModelError::Width`] for gradients of another size.
    fn pull(self: Box<Self>, next: Tensor<2>, reward: Option<Tensor<1>>) -> Result<[Tensor<2>; 2], ModelError>;
}

/// An imagined step, and its backward pass.
#[non_exhaustive]
pub struct Taped {
    /// What [`sample`](Dynamics::sample) gives, without a graph for gradients.
    pub imagined: Imagined,
    /// The backward pass.
    pub pullback: Box<dyn Pullback>,
}

impl Taped {
    /// A step and its backward pass.
    #[must_use]
    pub fn new(imagined: Imagined, pullback: Box<dyn Pullback>) -> Self {
        Self { imagined, pullback }
    }
}

impl std::fmt::Debug for Taped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taped").field("imagined", &self.imagined).finish_non_exhaustive()
    }
}

/// The default [`Dynamics::sample_taped`]: [`sample`](Dynamics::sample) with Burn's autodiff. Public, so that a faster one can
/// be compared with it.
///
/// # Errors
/// As `sample`; [`ModelError::Unsupported`] for a model without gradients, and in a build without the feature `train`.
pub fn sample_taped_by_autodiff<D: Dynamics + ?Sized>(
    model: &D,
    states: Tensor<2>,
    actions: Tensor<2>,
    draw: Draw,
) -> Result<Taped, ModelError> {
    let spec = model.spec();
    if !spec.differentiable {
        return Err(ModelError::Unsupported {
            model: spec.name.clone(),
            what: "say how its outputs follow its inputs",
        });
    }
    taped(model, states, actions, draw)
}

#[cfg(not(feature = "train"))]
fn taped<D: Dynamics + ?Sized>(model: &D, _: Tensor<2>, _: Tensor<2>, _: Draw) -> Result<Taped, ModelError> {
    let what = "go back by Burn's autodiff, which comes with the feature `train`";
    Err(ModelError::Unsupported { model: model.spec().name.clone(), what })
}

#[cfg(feature = "train")]
fn taped<D: Dynamics + ?Sized>(
    model: &D,
    states: Tensor<2>,
    actions: Tensor<2>,
    draw: Draw,
) -> Result<Taped, ModelError> {
    let of = |tensor: Tensor<2>| tensor.detach().autodiff().require_grad();
    let inputs = [of(states), of(actions)];
    let [states, actions] = inputs.clone();
    let Imagined { next, reward, terminated } = model.sample(states, actions, draw)?;
    let plain = |next: Tensor<2>| if next.is_autodiff() { next.inner() } else { next };
    let mut imagined = Imagined::new(plain(next.clone()));
    imagined.reward = reward.clone().map(|reward| if reward.is_autodiff() { reward.inner() } else { reward });
    imagined.terminated = terminated;
    Ok(Taped::new(imagined, Box::new(Graph { inputs, next, reward })))
}

/// Outputs that know the graph they come from.
#[cfg(feature = "train")]
struct Graph {
    inputs: [Tensor<2>; 2],
    next: Tensor<2>,
    reward: Option<Tensor<1>>,
}

#[cfg(feature = "train")]
impl Pullback for Graph {
    fn pull(self: Box<Self>, next: Tensor<2>, reward: Option<Tensor<1>>) -> Result<[Tensor<2>; 2], ModelError> {
        check_sizes(self.next.dims(), &next, reward.as_ref())?;
        // Outputs that depend on nothing have no graph to go back through; this sum has one.
        let [states, actions] = self.inputs.clone().map(|input| input.sum() * 0.0);
        let mut sum = states + actions;
        if self.next.is_autodiff() {
            sum = sum + (self.next * next.autodiff()).sum();
        }
        if let (Some(reward), Some(gradient)) = (self.reward.filter(Tensor::is_autodiff), reward) {
            sum = sum + (reward * gradient.autodiff()).sum();
        }
        let gradients = sum.backward();
        Ok(self.inputs.map(|input| match input.grad(&gradients) {
            Some(gradient) => gradient,
            // Nothing depends on it.
            None => input.inner().zeros_like(),
        }))
    }
}

/// Refuses gradients of other sizes than `[N, S]` and `[N]`.
pub(crate) fn check_sizes(
    [rows, width]: [usize; 2],
    next: &Tensor<2>,
    reward: Option<&Tensor<1>>,
) -> Result<(), ModelError> {
    check_size("rows of the gradient of the next states", rows, next.dims()[0])?;
    check_size("columns of the gradient of the next states", width, next.dims()[1])?;
    reward.map_or(Ok(()), |reward| check_size("entries of the gradient of the rewards", rows, reward.dims()[0]))
}
