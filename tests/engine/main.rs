//! The engine alone, against a simulated kernel and in simulated time.

mod decisions;
mod house;
mod properties;
mod restarts;
mod world;
mod writers;
