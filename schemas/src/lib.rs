//! What a claim event is, how it looks on the wire, and what a claim's state is after any set of events.
//!
//! No I/O: `claims-topology` talks to the schema registry, the processors talk to Kafka and the databases.
//!
//! - [`events`]: the envelope and the event types.
//! - [`codec`]: Confluent wire format and Avro; [`codec::SchemaCache`] holds writer schemas.
//! - [`state`] and [`fold`]: a claim's current state, and the order-independent fold.
//! - [`validate`]: what every event must hold to.
//! - [`view`]: an event whose texts stand elsewhere.
//! - [`json`]: the canonical JSON form of an event (one line of NDJSON).

pub mod codec;
mod consistency;
pub mod events;
pub mod fold;
pub mod json;
pub mod state;
pub mod state_codec;
pub mod text;
pub mod validate;
pub mod view;

pub use codec::{DecodeError, EncodeError, SchemaCache};
pub use events::{Event, EventData, EventType, Money, Timestamp, Urgency};
pub use state::{ClaimState, Status};
pub use text::Text;
pub use view::EventView;
