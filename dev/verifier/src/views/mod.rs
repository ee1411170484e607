//! The views as a user reads them: plain CQL, SQL, a consumer, and the command `claims`.

pub mod audit;
pub mod clickhouse;
pub mod cql;
pub mod topics;
