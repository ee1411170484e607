//! What the development tasks are made of: the services that the pipeline stands on, as processes or containers. A
//! library, so that the fault suite can start, kill and start again services of its own.

pub mod alone;
pub mod services;
