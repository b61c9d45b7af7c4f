//! The scenarios, one file each.

mod without;
