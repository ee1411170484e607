//! What `claims dead-letters` is made of: entries of the topic, what they amount to, reading, retrying, discarding.

pub mod book;
pub mod discard;
pub mod letter;
pub mod retry;
pub mod topic;
