//! A safe face for the C interface of libchdb.
//!
//! Every handle is owned by one Rust value and released when that is dropped; a connection runs one statement at a
//! time, which the borrow checker enforces (`&mut self`).
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use libloading::Library;

type Handle = *mut c_void;
type Names = *const *const c_char;
type Lengths = *const usize;
/// `query, format, names, values` with lengths, as all `…_with_params_n` calls take them.
type WithParams<R> = unsafe extern "C" fn(
    Handle,
    *const c_char,
    usize,
    *const c_char,
    usize,
    Names,
    Lengths,
    Names,
    Lengths,
    usize,
) -> R;

/// The entry points this server uses.
struct Api {
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut Handle,
    close: unsafe extern "C" fn(*mut Handle),
    query: WithParams<Handle>,
    stream_query: WithParams<Handle>,
    stream_fetch: unsafe extern "C" fn(Handle, Handle) -> Handle,
    stream_cancel: unsafe extern "C" fn(Handle, Handle),
    stream_insert: WithParams<Handle>,
    stream_append: unsafe extern "C" fn(Handle, *const c_void, usize) -> c_int,
    stream_done: unsafe extern "C" fn(Handle) -> Handle,
    cancel_insert: unsafe extern "C" fn(Handle),
    insert_error: unsafe extern "C" fn(Handle) -> *const c_char,
    destroy_insert: unsafe extern "C" fn(Handle),
    destroy_result: unsafe extern "C" fn(Handle),
    result_buffer: unsafe extern "C" fn(Handle) -> *const c_char,
    result_length: unsafe extern "C" fn(Handle) -> usize,
    result_rows_written: unsafe extern "C" fn(Handle) -> u64,
    result_error: unsafe extern "C" fn(Handle) -> *const c_char,
}

/// The error text of the engine, which begins with `Code: N. DB::Exception:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineError(pub String);

impl EngineError {
    /// The number after `Code:`, 1000 (the engine's POCO_EXCEPTION) when there is none.
    pub fn code(&self) -> u32 {
        self.0
            .split_once("Code: ")
            .and_then(|(_, rest)| {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                rest[..end].parse().ok()
            })
            .unwrap_or(1000)
    }
}

/// The loaded engine on one data folder.
pub struct Engine {
    api: Api,
    arguments: Vec<CString>,
}

impl Engine {
    /// Loads the library and opens the data folder.
    pub fn open(library: &Path, data: &Path) -> Result<Arc<Self>> {
        // SAFETY: loading runs the library's initialisers, which is what this program is for. The library is never
        // unloaded (leaked), so the function pointers taken from it stay valid.
        let library: &'static Library = Box::leak(Box::new(
            unsafe { Library::new(library) }.with_context(|| format!("cannot load {}", library.display()))?,
        ));
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the type is that of the declaration in chdb.h of the pinned version.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }
                    .context(concat!("libchdb lacks ", $name))?
            };
        }
        let set_signal_handlers: unsafe extern "C" fn(c_int) = symbol!("chdb_set_signal_handlers_enabled");
        let api = Api {
            connect: symbol!("chdb_connect"),
            close: symbol!("chdb_close_conn"),
            query: symbol!("chdb_query_with_params_n"),
            stream_query: symbol!("chdb_stream_query_with_params_n"),
            stream_fetch: symbol!("chdb_stream_fetch_result"),
            stream_cancel: symbol!("chdb_stream_cancel_query"),
            stream_insert: symbol!("chdb_stream_insert_with_params_n"),
            stream_append: symbol!("chdb_stream_append"),
            stream_done: symbol!("chdb_stream_done"),
            cancel_insert: symbol!("chdb_stream_cancel_insert"),
            insert_error: symbol!("chdb_stream_insert_error"),
            destroy_insert: symbol!("chdb_destroy_insert_stream"),
            destroy_result: symbol!("chdb_destroy_query_result"),
            result_buffer: symbol!("chdb_result_buffer"),
            result_length: symbol!("chdb_result_length"),
            result_rows_written: symbol!("chdb_result_rows_written"),
            result_error: symbol!("chdb_result_error"),
        };
        // SAFETY: takes a flag; signals are handled by this program, so the engine must install no handlers.
        unsafe { set_signal_handlers(0) };
        let path = data.to_str().context("the data folder's name is not UTF-8")?;
        let arguments = vec![CString::new("clickhouse")?, CString::new(format!("--path={path}"))?];
        Ok(Arc::new(Self { api, arguments }))
    }

    /// Opens a connection: a session of its own, with its own settings and current database.
    pub fn connect(self: &Arc<Self>) -> Result<Connection> {
        let mut pointers: Vec<*mut c_char> =
            self.arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len())?;
        // SAFETY: `pointers` holds `count` NUL-terminated strings that outlive the call; the engine copies them.
        let raw = unsafe { (self.api.connect)(count, pointers.as_mut_ptr()) };
        // SAFETY: a non-null result points to the connection handle.
        if raw.is_null() || unsafe { *raw }.is_null() {
            bail!("the engine refused to open its data folder (is another process using it?)");
        }
        Ok(Connection { engine: Arc::clone(self), raw })
    }
}

/// A named query parameter: `{name:Type}` in the statement takes its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Name without `param_`.
    pub name: String,
    /// Value in the engine's escaped text form.
    pub value: String,
}

/// One session of the engine.
pub struct Connection {
    engine: Arc<Engine>,
    raw: *mut Handle,
}

// SAFETY: the engine does not bind connections to threads; `&mut self` keeps use to one thread at a time.
unsafe impl Send for Connection {}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `connect` and is closed once.
        unsafe { (self.engine.api.close)(self.raw) };
    }
}

impl Connection {
    fn handle(&self) -> Handle {
        // SAFETY: `raw` is valid until `drop`.
        unsafe { *self.raw }
    }

    fn call(&self, function: WithParams<Handle>, sql: &str, format: &str, params: &[Param]) -> Handle {
        let names: Vec<_> = params.iter().map(|param| param.name.as_ptr().cast::<c_char>()).collect();
        let name_lengths: Vec<_> = params.iter().map(|param| param.name.len()).collect();
        let values: Vec<_> = params.iter().map(|param| param.value.as_ptr().cast::<c_char>()).collect();
        let value_lengths: Vec<_> = params.iter().map(|param| param.value.len()).collect();
        // SAFETY: every pointer is valid for the length given beside it during the call, and the engine copies what
        // it keeps. The arrays have `params.len()` entries each.
        unsafe {
            function(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                params.len(),
            )
        }
    }

    /// Runs a statement and returns its whole result.
    pub fn query(&mut self, sql: &str, format: &str, params: &[Param]) -> Result<Outcome, EngineError> {
        let raw = self.call(self.engine.api.query, sql, format, params);
        Outcome::take(&self.engine, raw)
    }

    /// Runs a SELECT whose result is fetched piece by piece.
    pub fn stream(&mut self, sql: &str, format: &str, params: &[Param]) -> Result<Select<'_>, EngineError> {
        let raw = self.call(self.engine.api.stream_query, sql, format, params);
        let head = Outcome::take(&self.engine, raw)?;
        Ok(Select { connection: self, head, done: false })
    }

    /// Starts an INSERT (without its FORMAT clause) whose data is appended piece by piece.
    pub fn insert(&mut self, sql: &str, format: &str, params: &[Param]) -> Result<Insert<'_>, EngineError> {
        let raw = self.call(self.engine.api.stream_insert, sql, format, params);
        let insert = Insert { connection: self, raw, finished: false };
        match insert.error() {
            Some(error) => Err(error),
            None => Ok(insert),
        }
    }
}

/// A result in memory.
pub struct Outcome {
    engine: Arc<Engine>,
    raw: Handle,
}

// SAFETY: the result is plain memory owned by this value.
unsafe impl Send for Outcome {}

impl Drop for Outcome {
    fn drop(&mut self) {
        // SAFETY: `raw` came from the engine and is destroyed once.
        unsafe { (self.engine.api.destroy_result)(self.raw) };
    }
}

impl Outcome {
    fn take(engine: &Arc<Engine>, raw: Handle) -> Result<Self, EngineError> {
        if raw.is_null() {
            return Err(EngineError("the engine gave no result".to_owned()));
        }
        let outcome = Self { engine: Arc::clone(engine), raw };
        // SAFETY: `raw` is a live result; the text lives as long as it and is copied.
        let error = unsafe { text((engine.api.result_error)(raw)) };
        match error {
            Some(error) => Err(EngineError(error)),
            None => Ok(outcome),
        }
    }

    /// The formatted rows.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the buffer belongs to the live result and has the length the engine tells; null when empty.
        unsafe {
            let length = (self.engine.api.result_length)(self.raw);
            let start = (self.engine.api.result_buffer)(self.raw);
            if start.is_null() || length == 0 {
                &[]
            } else {
                std::slice::from_raw_parts(start.cast::<u8>(), length)
            }
        }
    }

    /// Rows written, those of materialised views included.
    pub fn rows_written(&self) -> u64 {
        // SAFETY: `raw` is a live result.
        unsafe { (self.engine.api.result_rows_written)(self.raw) }
    }
}

/// A running SELECT.
pub struct Select<'a> {
    connection: &'a mut Connection,
    head: Outcome,
    done: bool,
}

impl Select<'_> {
    /// The next piece, `None` at the end.
    pub fn next(&mut self) -> Result<Option<Outcome>, EngineError> {
        if self.done {
            return Ok(None);
        }
        let engine = &self.connection.engine;
        // SAFETY: both handles are live, and `&mut self` serialises the fetches.
        let raw = unsafe { (engine.api.stream_fetch)(self.connection.handle(), self.head.raw) };
        let piece = Outcome::take(engine, raw);
        match piece {
            Ok(piece) if piece.bytes().is_empty() => {
                self.done = true;
                Ok(None)
            }
            Ok(piece) => Ok(Some(piece)),
            Err(error) => {
                self.done = true;
                Err(error)
            }
        }
    }
}

impl Drop for Select<'_> {
    fn drop(&mut self) {
        if !self.done {
            // SAFETY: both handles are live.
            unsafe {
                (self.connection.engine.api.stream_cancel)(self.connection.handle(), self.head.raw);
            }
        }
    }
}

/// A running INSERT. Dropped before [`Insert::finish`], it is cancelled.
pub struct Insert<'a> {
    connection: &'a mut Connection,
    raw: Handle,
    finished: bool,
}

impl Insert<'_> {
    fn error(&self) -> Option<EngineError> {
        if self.raw.is_null() {
            return Some(EngineError("the engine gave no insert stream".to_owned()));
        }
        // SAFETY: `raw` is a live insert stream; the text is copied.
        unsafe { text((self.connection.engine.api.insert_error)(self.raw)) }.map(EngineError)
    }

    /// Gives the engine more data; waits when the engine is behind.
    pub fn append(&mut self, data: &[u8]) -> Result<(), EngineError> {
        // SAFETY: the engine copies `data` during the call.
        let state =
            unsafe { (self.connection.engine.api.stream_append)(self.raw, data.as_ptr().cast(), data.len()) };
        if state == 0 {
            return Ok(());
        }
        // The stream refuses data once it has failed; its result says why.
        match self.error() {
            Some(error) => Err(error),
            None => match self.complete() {
                Err(error) => Err(error),
                Ok(_) => Err(EngineError("the engine refused more data without a reason".to_owned())),
            },
        }
    }

    /// Ends the data and waits for the commit. Returns the rows written.
    pub fn finish(mut self) -> Result<u64, EngineError> {
        self.complete().map(|outcome| outcome.rows_written())
    }

    fn complete(&mut self) -> Result<Outcome, EngineError> {
        self.finished = true;
        // SAFETY: `raw` is live and is finalised once (`finished`).
        let raw = unsafe { (self.connection.engine.api.stream_done)(self.raw) };
        Outcome::take(&self.connection.engine, raw)
    }
}

impl Drop for Insert<'_> {
    fn drop(&mut self) {
        if self.raw.is_null() {
            return;
        }
        let api = &self.connection.engine.api;
        // SAFETY: `raw` is live; cancelled only when not finalised, destroyed once.
        unsafe {
            if !self.finished {
                (api.cancel_insert)(self.raw);
            }
            (api.destroy_insert)(self.raw);
        }
    }
}

/// Copies a C string; null is `None`.
///
/// # Safety
/// `start` is null or points to a NUL-terminated string.
unsafe fn text(start: *const c_char) -> Option<String> {
    if start.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise.
    Some(unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::EngineError;

    #[test]
    fn the_code_is_read_from_the_text() {
        let error = EngineError("Code: 60. DB::Exception: Unknown table".into());
        assert_eq!(error.code(), 60);
        assert_eq!(EngineError("odd".into()).code(), 1000);
    }
}
