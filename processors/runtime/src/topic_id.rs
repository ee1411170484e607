//! The id that Kafka gave a topic when it was made. A topic deleted and made again has the same name and another id.
//!
//! The Rust binding has no call for it, so this asks librdkafka directly.
#![allow(unsafe_code)]

use rdkafka::{
    ClientContext,
    bindings::{self, rd_kafka_admin_op_t, rd_kafka_resp_err_t},
    client::Client,
};
use std::{
    ffi::{CStr, CString},
    ptr,
    time::Duration,
};

/// Why a topic's id could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicIdError {
    /// The cluster didn't answer.
    #[error("Kafka did not describe topic {topic}: {detail}")]
    Unavailable {
        /// The topic.
        topic: String,
        /// What librdkafka says.
        detail: String,
    },
    /// There is no such topic, or no permission to see it.
    #[error("topic {topic}: {detail}; make it with `claims topics apply`")]
    Refused {
        /// The topic.
        topic: String,
        /// What Kafka says.
        detail: String,
    },
    /// Kafka can't have a topic of that name.
    #[error("topic name {0:?} holds a zero byte")]
    Name(String),
}

/// A topic's id and number of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// The id, as `kafka-topics --describe` shows it; `None`: the cluster is too old to give topics ids.
    pub topic_id: Option<String>,
    /// Number of partitions.
    pub partitions: i32,
}

/// Describes a topic through any client (of an admin client: `inner()`). Blocks for up to `timeout` and a second.
pub fn describe_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<TopicDescription, TopicIdError> {
    let name = CString::new(topic).map_err(|_| TopicIdError::Name(topic.to_owned()))?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: the client outlives the call, and `Request` destroys whatever librdkafka allocated here.
    unsafe { Request::new(client.native_ptr(), &name, timeout_ms).describe(topic, timeout_ms) }
}

/// What one request owns.
struct Request {
    client: *mut bindings::rd_kafka_t,
    queue: *mut bindings::rd_kafka_queue_t,
    topics: *mut bindings::rd_kafka_TopicCollection_t,
    options: *mut bindings::rd_kafka_AdminOptions_t,
    event: *mut bindings::rd_kafka_event_t,
}

impl Request {
    /// # Safety
    /// `client` must live as long as the request.
    unsafe fn new(client: *mut bindings::rd_kafka_t, name: &CStr, timeout_ms: i32) -> Self {
        let mut names = [name.as_ptr()];
        // SAFETY: the names are copied by librdkafka; all pointers are to live objects.
        unsafe {
            let options = bindings::rd_kafka_AdminOptions_new(
                client,
                rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            );
            bindings::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
            Self {
                client,
                queue: bindings::rd_kafka_queue_new(client),
                topics: bindings::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
                options,
                event: ptr::null_mut(),
            }
        }
    }

    /// # Safety
    /// The client must still live.
    unsafe fn describe(mut self, topic: &str, timeout_ms: i32) -> Result<TopicDescription, TopicIdError> {
        let unavailable = |detail: String| TopicIdError::Unavailable { topic: topic.to_owned(), detail };
        // SAFETY: results are read only while `self.event` lives, strings are copied.
        unsafe {
            bindings::rd_kafka_DescribeTopics(self.client, self.topics, self.options, self.queue);
            self.event = bindings::rd_kafka_queue_poll(self.queue, timeout_ms.saturating_add(1_000));
            if self.event.is_null() {
                return Err(unavailable("no answer in time".into()));
            }
            if bindings::rd_kafka_event_error(self.event) != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(unavailable(text(bindings::rd_kafka_event_error_string(self.event))));
            }
            let result = bindings::rd_kafka_event_DescribeTopics_result(self.event);
            if result.is_null() {
                return Err(unavailable("an answer of another kind".into()));
            }
            let mut count = 0;
            let topics = bindings::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if topics.is_null() || count != 1 {
                return Err(unavailable(format!("{count} topics described instead of one")));
            }
            let description = *topics;
            let error = bindings::rd_kafka_TopicDescription_error(description);
            if !error.is_null()
                && bindings::rd_kafka_error_code(error) != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                let detail = text(bindings::rd_kafka_error_string(error));
                return Err(TopicIdError::Refused { topic: topic.to_owned(), detail });
            }
            let mut partitions = 0;
            bindings::rd_kafka_TopicDescription_partitions(description, &mut partitions);
            let id = bindings::rd_kafka_TopicDescription_topic_id(description);
            if id.is_null() {
                return Err(unavailable("no topic id in the answer".into()));
            }
            let topic_id = text(bindings::rd_kafka_Uuid_base64str(id));
            Ok(TopicDescription {
                topic_id: Some(topic_id).filter(|id| !is_zero(id)),
                partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            })
        }
    }
}

/// Whether it is the id that stands for none: zeros in base 64.
fn is_zero(topic_id: &str) -> bool {
    topic_id.chars().all(|c| c == 'A' || c == '=')
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: each was made by `new` or `describe` and is destroyed once.
        unsafe {
            if !self.event.is_null() {
                bindings::rd_kafka_event_destroy(self.event);
            }
            bindings::rd_kafka_AdminOptions_destroy(self.options);
            bindings::rd_kafka_TopicCollection_destroy(self.topics);
            bindings::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// # Safety
/// `string` is null or a zero-terminated string.
unsafe fn text(string: *const std::ffi::c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: as demanded of the caller.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}
