//! The faults, by what they break.

pub mod clock;
pub mod databases;
pub mod disk;
pub mod kills;
pub mod members;
pub mod network;
pub mod services;
pub mod zombie;
