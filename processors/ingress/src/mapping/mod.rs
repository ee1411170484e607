//! CSV mappings: TOML files that say how the rows of somebody's CSV become claim events. The reference for authors
//! is `docs/mappings.md`.
//!
//! - [`Mapping`]: a mapping, read and checked; [`Mapping::open`] binds it to the columns of a file.
//! - `case_per_row`: one row holds a whole case; rules make events of its columns.
//! - `change_per_row`: one row per change of a case; what differs from the row before makes the events.

mod case_per_row;
mod change_per_row;
mod data;
pub mod dates;
mod keys;
mod spec;
mod transitions;
mod value;

pub use spec::{Kind, Mapping};

/// What is wrong with a mapping, and at which key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct MappingError {
    /// The path of the key, such as `event[2].data.settled.column`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

#[cfg(test)]
mod tests;
