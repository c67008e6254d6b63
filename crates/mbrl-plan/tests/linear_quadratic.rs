//! Planners against the exact optimum of linear-quadratic problems with inactive bounds.

mod lq;
