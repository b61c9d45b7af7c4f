//! The driver of links, addresses, neighbours, forwarding databases, routes and
//! rules: what rtnetlink(7) tells of them, and takes.

pub mod codec;
pub mod links;
pub mod mirror;
