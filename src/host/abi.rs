//! The proxy-wasm ABI, without the SDK's panics.
//!
//! `proxy_wasm::hostcalls` panics on each status that it did not foresee, and its string getters on each byte that is not
//! UTF-8: either ends the worker's VM. Here every status is a value. Only callouts still go through the SDK, because its
//! dispatcher must learn their tokens (see [`call`]).

#![allow(unsafe_code)] // the imports below are the reason this file exists

use std::ptr::{null, null_mut};
use std::time::Duration;

/// A status other than Ok, as the host gave it. Source: proxy-wasm ABI 0.2.1, `WasmResult`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failed(pub(super) u32);

/// Header maps. Source: ABI 0.2.1, `WasmHeaderMapType`.
#[derive(Clone, Copy)]
pub(super) enum Map {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
    ResponseTrailers = 3,
    CallResponse = 6,
}

/// Buffers. Source: ABI 0.2.1, `WasmBufferType`.
#[derive(Clone, Copy)]
pub(super) enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// What [`resume`] resumes. Source: ABI 0.2.1, `WasmStreamType`.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Request = 0,
    Response = 1,
}

/// Log levels. Source: ABI 0.2.1, `LogLevel`.
#[derive(Clone, Copy)]
pub(super) enum Level {
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// Kinds of metrics. Source: ABI 0.2.1, `MetricType`.
#[derive(Clone, Copy)]
pub(super) enum Metric {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(kind: u32, start: usize, max: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(map: u32, key: *const u8, key_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;
    fn proxy_replace_header_map_value(map: u32, key: *const u8, key_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_add_header_map_value(map: u32, key: *const u8, key_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, data: *const u8, size: usize) -> u32;
    fn proxy_get_shared_data(key: *const u8, key_size: usize, data: *mut *mut u8, size: *mut usize, cas: *mut u32) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, data: *const u8, size: usize, cas: u32) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_set_buffer_bytes(kind: u32, start: usize, max: usize, data: *const u8, size: usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_done() -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

unsafe extern "C" {
    /// Not the host's: the SDK's own, in this module.
    safe fn proxy_on_queue_ready(root: u32, queue: u32);
}

fn checked(status: u32) -> Result<(), Failed> {
    if status == 0 { Ok(()) } else { Err(Failed(status)) }
}

/// Takes over a buffer that the host allocated through the SDK's `proxy_on_memory_allocate`.
fn owned(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: the host got `data` from our allocator as a Vec<u8> of this capacity and has given it up.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

/// Runs a getter that returns a buffer.
fn fetched(get: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, Failed> {
    let (mut data, mut size) = (null_mut(), 0);
    let status = get(&mut data, &mut size);
    let bytes = owned(data, size);
    checked(status).map(|()| bytes)
}

/// Writes a line to Envoy's log, component `wasm`.
pub(super) fn log(level: Level, message: &str) {
    // SAFETY: pointer and length are those of a live str. A log line that cannot be written is nobody's problem.
    let _ = unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Nanoseconds since the Unix epoch; 0 if the host cannot tell.
pub(super) fn now() -> u64 {
    let mut time = 0;
    // SAFETY: `time` outlives the call.
    let _ = unsafe { proxy_get_current_time_nanoseconds(&mut time) };
    time
}

/// Sets the period of the root context's tick.
pub(super) fn set_tick(period: Duration) {
    let millis = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: no pointers.
    let _ = unsafe { proxy_set_tick_period_milliseconds(millis) };
}

/// Up to `max` bytes of a buffer; empty where there is none.
pub(super) fn buffer(kind: Buffer, max: usize) -> Vec<u8> {
    // SAFETY: the pointers outlive the call.
    fetched(|data, size| unsafe { proxy_get_buffer_bytes(kind as u32, 0, max, data, size) }).unwrap_or_default()
}

/// Replaces the first `length` bytes of a buffer, which must be all that it has.
pub(super) fn replace_buffer(kind: Buffer, length: usize, bytes: &[u8]) -> Result<(), Failed> {
    // SAFETY: pointer and length are those of a live slice.
    checked(unsafe { proxy_set_buffer_bytes(kind as u32, 0, length, bytes.as_ptr(), bytes.len()) })
}

/// Adds bytes at the end of a buffer.
pub(super) fn append_buffer(kind: Buffer, bytes: &[u8]) -> Result<(), Failed> {
    // A start beyond the end is Envoy's sign for appending.
    // SAFETY: pointer and length are those of a live slice.
    checked(unsafe { proxy_set_buffer_bytes(kind as u32, usize::MAX, 0, bytes.as_ptr(), bytes.len()) })
}

/// All headers of a map, for [`pairs`].
pub(super) fn header_bytes(map: Map) -> Vec<u8> {
    // SAFETY: the pointers outlive the call.
    fetched(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) }).unwrap_or_default()
}

/// What is in them: in order, names in lower case as Envoy keeps them.
pub(super) fn pairs(bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    decode_pairs(bytes).unwrap_or_default()
}

/// Reads the ABI's serialized map: count, then (name length, value length) for each, then the texts, each ended by a NUL.
fn decode_pairs(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let word = |at: usize| -> Option<usize> {
        let raw: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(raw)).ok()
    };
    let count = word(0)?;
    let mut text = count.checked_mul(8)?.checked_add(4)?;
    let mut take = |size: usize| -> Option<&[u8]> {
        let end = text.checked_add(size)?;
        let part = bytes.get(text..end)?;
        text = end.checked_add(1)?;
        Some(part)
    };
    let mut pairs = Vec::with_capacity(count.min(256));
    for index in 0..count {
        let at = index.checked_mul(8)?.checked_add(4)?;
        let (name, value) = (word(at)?, word(at.checked_add(4)?)?);
        pairs.push((take(name)?, take(value)?));
    }
    Some(pairs)
}

fn encode_pairs(pairs: &[(&str, &str)]) -> Vec<u8> {
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
    let texts = pairs.iter().flat_map(|(name, value)| [*name, *value]);
    // Of each text, its length and a NUL.
    let size = texts
        .clone()
        .fold(4_usize, |size, text| size.saturating_add(text.len()).saturating_add(5));
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&u32::try_from(pairs.len()).unwrap_or(0).to_le_bytes());
    for (name, value) in pairs {
        bytes.extend_from_slice(&length(name));
        bytes.extend_from_slice(&length(value));
    }
    for text in texts {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// The first value of a header.
pub(super) fn header(map: Map, name: &str) -> Option<Vec<u8>> {
    // SAFETY: the pointers outlive the call.
    fetched(|data, size| unsafe { proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size) }).ok()
}

/// Removes every value of a header.
pub(super) fn remove_header(map: Map, name: &str) -> Result<(), Failed> {
    // SAFETY: pointer and length are those of a live str.
    checked(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// Replaces all values of a header by one.
pub(super) fn set_header(map: Map, name: &str, value: &str) -> Result<(), Failed> {
    // SAFETY: pointers and lengths are those of live strs.
    checked(unsafe { proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Adds a value to a header.
pub(super) fn add_header(map: Map, name: &str, value: &str) -> Result<(), Failed> {
    // SAFETY: pointers and lengths are those of live strs.
    checked(unsafe { proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// A property of the stream, such as `["xds", "route_name"]`; `None` where it is not known.
pub(super) fn property(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.join("\0");
    // SAFETY: the pointers outlive the call.
    fetched(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) }).ok()
}

/// Sets filter state of the stream: `wasm.<name>` for access logs and other filters.
pub(super) fn set_property(name: &str, value: &[u8]) -> Result<(), Failed> {
    // SAFETY: pointers and lengths are those of live slices.
    checked(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// A value of the shared data with its version.
pub(super) fn shared(key: &str) -> Option<(Vec<u8>, u32)> {
    let mut cas = 0;
    // SAFETY: the pointers outlive the call.
    let value = fetched(|data, size| unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut cas) }).ok()?;
    Some((value, cas))
}

/// Sets a value of the shared data if its version is still `cas`; `u32::MAX` for a key that must be absent.
pub(super) fn set_shared(key: &str, value: &[u8], cas: u32) -> Result<(), Failed> {
    // SAFETY: pointers and lengths are those of live slices.
    checked(unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) })
}

/// Lets a paused request or response go on.
pub(super) fn resume(stream: Stream) -> Result<(), Failed> {
    // SAFETY: no pointers.
    checked(unsafe { proxy_continue_stream(stream as u32) })
}

/// Resets a stream: its client sees that the answer is not complete.
pub(super) fn reset(stream: Stream) -> Result<(), Failed> {
    // SAFETY: no pointers.
    checked(unsafe { proxy_close_stream(stream as u32) })
}

/// Answers the request in the backend's place. `details` is `%RESPONSE_CODE_DETAILS%` in access logs.
pub(super) fn reply(status: u16, details: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(), Failed> {
    let headers = encode_pairs(headers);
    let (body_data, body_size) = if body.is_empty() {
        (null(), 0)
    } else {
        (body.as_ptr(), body.len())
    };
    // SAFETY: pointers and lengths are those of live slices. -1: not a gRPC answer.
    checked(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body_data,
            body_size,
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

/// Makes a stream the one that header calls, replies and resumes act on. An error means that it is gone.
pub(super) fn set_effective_context(context: u32) -> Result<(), Failed> {
    // SAFETY: no pointers.
    checked(unsafe { proxy_set_effective_context(context) })
}

/// Says that a root context whose `on_done` returned false has nothing left to do.
pub(super) fn done() {
    // SAFETY: no pointers.
    let _ = unsafe { proxy_done() };
}

/// Defines a metric, or finds the one of that name.
pub(super) fn define_metric(kind: Metric, name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the pointers outlive the call.
    checked(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) }).ok()?;
    Some(id)
}

/// Adds to a counter or a gauge. Adding 0 to a counter is an error in Envoy, so it is not asked for.
pub(super) fn increment(metric: u32, by: i64) {
    if by != 0 {
        // SAFETY: no pointers.
        let _ = unsafe { proxy_increment_metric(metric, by) };
    }
}

/// Records a value in a histogram, or sets a gauge.
pub(super) fn record(metric: u32, value: u64) {
    // SAFETY: no pointers.
    let _ = unsafe { proxy_record_metric(metric, value) };
}

/// Makes the SDK take the calls that follow in this callback for the root context's. Only from a callback of a stream; the root must exist.
///
/// The SDK hands an answer to the context whose callback ran last before the call, and drops it where that is gone: nobody would hear how
/// a call ended whose client has left. There is no other way to tell it than to let it run a callback of the root, here one that does
/// nothing. Not needed any more once the SDK hands answers of streams that are gone to their root.
pub(super) fn enter_root(root: u32) {
    proxy_on_queue_ready(root, 0);
}

/// Sends an HTTP request to a cluster; the answer arrives at the context that is active.
///
/// `Err` means that nothing was sent and nothing will arrive: no such cluster, no healthy endpoint, circuit open.
/// This one goes through the SDK, whose dispatcher has to learn the token; the statuses that Envoy gives here are those
/// that the SDK knows (Ok, BadArgument, InternalFailure).
pub(super) fn call(cluster: &str, headers: Vec<(&str, &str)>, body: Option<&[u8]>, timeout: Duration) -> Result<u32, Failed> {
    proxy_wasm::hostcalls::dispatch_http_call(cluster, headers, body, Vec::new(), timeout).map_err(|status| Failed(status as u32))
}
