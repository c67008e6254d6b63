//! The value that a learner assigns to a state.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use mbrl_env::Value;
use mbrl_model::mlp::{HostMlp, Pass, Rows};

use super::{
    Critics,
    critics::{reduce, reduce_tensor},
};
use crate::{Actor, Policy, value::forward_tensor};

/// `V(s) = Q(s, π(s))` with the mean action and the critics as the actor sees them: a snapshot, for plans to end in.
///
/// It is computed on the host, or, where observations carry gradients, as Burn tensors, through the critics and the actor.
#[derive(Debug, Clone)]
pub struct PolicyValue(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    actor: Actor,
    critics: HostMlp,
    count: usize,
    reduction: super::Reduction,
    range: super::critics::Range,
}

impl PolicyValue {
    /// Of an actor and its critics as they are now.
    #[must_use]
    pub fn new(actor: &Actor, critics: &Critics) -> Self {
        let config = critics.config();
        let (count, reduction) = (config.count, config.actor);
        Self(Arc::new(Parts {
            actor: actor.clone(),
            critics: critics.network().clone(),
            count,
            reduction,
            range: critics.range(),
        }))
    }

    /// Values `[N]` of observations `[N, O]`.
    #[must_use]
    pub fn of(&self, obs: &[f32]) -> Vec<f32> {
        let Parts { actor, critics, count, reduction, range } = &*self.0;
        let mut inputs = Vec::new();
        actor.inputs().prepare(obs, &mut inputs);
        let actions = actor.mean(&inputs);
        let mut rows = Vec::with_capacity(inputs.len() + actions.len());
        let each = inputs.chunks_exact(actor.inputs().width()).zip(actions.chunks_exact(actor.action_width()));
        for (inputs, actions) in each {
            rows.extend_from_slice(inputs);
            rows.extend_from_slice(actions);
        }
        let mut values = critics.forward(Rows::Shared(&rows), Pass::Infer, None);
        range.apply(&mut values);
        reduce(&values, *count, *reduction)
    }
}

impl Value for PolicyValue {
    fn value(&self, obs: Tensor<2>) -> Tensor<1> {
        if obs.is_autodiff() {
            let Parts { actor, critics, reduction, range, .. } = &*self.0;
            let inputs = actor.inputs().tensor(obs);
            let outputs = forward_tensor(actor.network(), inputs.clone());
            let actions = outputs.narrow(2, 0, actor.action_width()).squeeze_dim::<2>(0).tanh();
            let values = forward_tensor(critics, Tensor::cat(vec![inputs, actions], 1)).squeeze_dim::<2>(2);
            return reduce_tensor(range.apply_tensor(values), *reduction);
        }
        let (device, rows) = (obs.device(), obs.dims()[0]);
        let obs: Vec<f32> = obs.into_data().iter().collect();
        Tensor::from_data(TensorData::new(self.of(&obs), [rows]), &device)
    }
}
