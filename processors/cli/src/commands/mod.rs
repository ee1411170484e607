//! One file a command.

pub mod audit;
pub mod completions;
pub mod config;
pub mod dead_letters;
pub mod generate;
pub mod ingest;
pub mod lag;
pub mod replay;
pub mod run;
pub mod schemas;
pub mod tail;
pub mod topics;
pub mod topology;
pub mod verify;
