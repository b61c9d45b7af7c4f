//! What is done: `/proc/sys` is read and written, the journal and systemd are told.
//!
//! An effect only performs actions. It decides nothing.
