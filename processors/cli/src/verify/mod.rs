//! What `claims verify` is made of: which claims, folding the log, comparing views.

pub mod log;
pub mod sample;
pub mod states;
pub mod views;
