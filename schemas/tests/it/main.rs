//! Tests of the crate from outside.

mod codec;
mod fold;
mod json;
mod samples;
mod validate;
