//! Texts that are kept: of a state, and of what is made of it.

/// Up to 23 bytes stand in the text itself, longer ones are shared between its clones. So most of a claim's texts cost no
/// allocation, and a clone of the claim hardly any.
pub use smol_str::SmolStr as Text;

/// The two counters of a shared text.
const COUNTERS_BYTES: usize = 2 * size_of::<usize>();

/// What a text holds in memory beside itself, in bytes.
pub fn heap_bytes(text: &Text) -> usize {
    if text.is_heap_allocated() { text.len() + COUNTERS_BYTES } else { 0 }
}
