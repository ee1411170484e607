//! Tests of the crate from outside.
// The helpers of tests may fail loudly, as the tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod codec;
mod encode;
mod evolution;
mod fold;
mod json;
mod line;
mod samples;
mod schema_rules;
mod validate;
