//! The proof: worlds to run the whole chain in, in memory and on real parts.

pub mod load_world;
pub mod memory_world;
pub mod real_world;
