//! Reads the node's files, and what their formats have in common.

pub mod assignments;
pub mod drop_in;
pub mod glob;
pub mod ordered;
pub mod shell;
pub mod tree;
pub mod units;
