//! Compiles and runs the code in the guides. The crates cannot: published, they come without these files.

#[cfg(doctest)]
#[doc = include_str!("guides/write-a-model.md")]
struct WriteAModel;

#[cfg(doctest)]
#[doc = include_str!("guides/write-a-planner.md")]
struct WriteAPlanner;

#[cfg(doctest)]
#[doc = include_str!("guides/write-an-environment.md")]
struct WriteAnEnvironment;

#[cfg(doctest)]
#[doc = include_str!("guides/real-time.md")]
struct RealTime;

#[cfg(doctest)]
#[doc = include_str!("guides/write-a-physics.md")]
struct WriteAPhysics;
