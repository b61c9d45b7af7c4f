//! Reads, writes and watches what is guarded; one folder for each way to the kernel.
//!
//! A driver decides nothing, and knows no other driver.

pub mod sysctl;
