//! What `claims replay` is made of: which partitions, the plan in words, the group, control of processes, progress.

pub mod control;
pub mod group;
pub mod plan;
pub mod progress;
pub mod selection;
