//! Tests of the crate from outside.

mod codec;
mod json;
mod samples;
