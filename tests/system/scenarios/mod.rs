//! The scenarios, one file each.

mod bus;
mod conflicts;
mod diagnose;
mod endurance;
mod firewalld;
mod flood;
mod history;
mod killed;
mod lacking;
mod latency;
mod managers;
mod package;
mod pods;
mod reload;
mod restart;
mod routes;
mod second;
mod unit;
mod units;
mod without;
mod writer;
