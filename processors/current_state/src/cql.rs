//! The views in the CQL database.
//!
//! - [`connect`](fn@connect): a session with the configured nodes, user and TLS.
//! - [`schema`]: keyspace and tables.
//! - [`rows`]: what is bound to the statements.
//! - [`statements`]: the statements, prepared.
//! - [`packing`]: which statements go in one request.
//! - [`sink`]: batches of claims into the tables.
//! - [`source`]: which topic the rows were made from.
//! - [`errors`]: which failures pass, which are the row's fault, and which are final.

pub mod errors;
pub mod packing;
pub mod rows;
pub mod schema;
pub mod sink;
pub mod source;
pub mod statements;

mod connect;

pub use connect::connect;
pub use sink::CqlSink;
