//! Goals: rewards, terminations and values as batch functions, separate from the environment and from any model of it.
//!
//! The goal is defined here, so it can change at any time, also in the middle of an episode.
//! Rewards have rank 1: `[N] + [N, 1]` does not compile instead of making `[N, N]`.

use std::{fmt, sync::Arc};

use burn::tensor::{Bool, Tensor};

/// Reward `r(o, a, o')` of N rows.
pub trait Reward: Send + Sync {
    /// `obs` `[N, O]`, `actions` `[N, A]` in the environment's units, `next_obs` `[N, O]` → `[N]`.
    fn reward(&self, obs: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1>;
}

/// Whether a step ended the task, for N rows.
pub trait Termination: Send + Sync {
    /// `obs` `[N, O]`, `actions` `[N, A]`, `next_obs` `[N, O]` → `[N]`.
    fn terminated(&self, obs: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool>;
}

/// Expected return from N observations on.
pub trait Value: Send + Sync {
    /// `obs` `[N, O]` → `[N]`.
    fn value(&self, obs: Tensor<2>) -> Tensor<1>;
}

macro_rules! forwarded {
    ($($Pointer:ty),+) => {$(
        impl<T: Reward + ?Sized> Reward for $Pointer {
            fn reward(&self, obs: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
                (**self).reward(obs, actions, next_obs)
            }
        }

        impl<T: Termination + ?Sized> Termination for $Pointer {
            fn terminated(&self, obs: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool> {
                (**self).terminated(obs, actions, next_obs)
            }
        }

        impl<T: Value + ?Sized> Value for $Pointer {
            fn value(&self, obs: Tensor<2>) -> Tensor<1> {
                (**self).value(obs)
            }
        }
    )+};
}

forwarded!(&T, Box<T>, Arc<T>);

macro_rules! closure_adapter {
    ($(#[$doc:meta])* $function:ident, $Type:ident, $Trait:ident, $method:ident, ($($arg:ident),+), $Out:ty) => {
        $(#[$doc])*
        pub fn $function<F>(f: F) -> $Type<F>
        where
            F: Fn($(closure_adapter!(@tensor $arg)),+) -> $Out + Send + Sync,
        {
            $Type(f)
        }

        #[doc = concat!("A closure as a [`", stringify!($Trait), "`], made by [`", stringify!($function), "`].")]
        #[derive(Clone)]
        pub struct $Type<F>(F);

        impl<F> fmt::Debug for $Type<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($Type), "(..)"))
            }
        }

        impl<F> $Trait for $Type<F>
        where
            F: Fn($(closure_adapter!(@tensor $arg)),+) -> $Out + Send + Sync,
        {
            fn $method(&self, $($arg: Tensor<2>),+) -> $Out {
                (self.0)($($arg),+)
            }
        }
    };
    (@tensor $arg:ident) => { Tensor<2> };
}

closure_adapter!(
    /// A closure as a reward: `(obs, actions, next_obs) -> [N]`.
    reward_fn, RewardFn, Reward, reward, (obs, actions, next_obs), Tensor<1>
);
closure_adapter!(
    /// A closure as a termination rule: `(obs, actions, next_obs) -> [N]`.
    termination_fn, TerminationFn, Termination, terminated, (obs, actions, next_obs), Tensor<1, Bool>
);
closure_adapter!(
    /// A closure as a value function: `(obs) -> [N]`.
    value_fn, ValueFn, Value, value, (obs), Tensor<1>
);
