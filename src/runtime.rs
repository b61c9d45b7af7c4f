//! One loop: events in, step, actions out.
