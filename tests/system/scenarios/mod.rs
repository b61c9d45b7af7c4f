//! The scenarios, one file each.

mod bus;
mod endurance;
mod history;
mod killed;
mod lacking;
mod latency;
mod reload;
mod restart;
mod unit;
mod without;
mod writer;
