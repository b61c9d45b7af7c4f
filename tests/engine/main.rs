//! The engine alone, against a simulated kernel and in simulated time.

mod accounts;
mod chains;
mod conflicts;
mod conntrack;
mod decisions;
mod house;
mod limits;
mod memory;
mod programs;
mod properties;
mod reloads;
mod reporting;
mod restarts;
mod routes;
mod sets;
mod unreported;
mod world;
mod writers;
