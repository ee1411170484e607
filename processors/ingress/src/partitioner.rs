//! Which partition a claim's events go to: the same choice as Kafka's Java client makes for the same key.
//!
//! librdkafka would hash the record key, which is unique per event here; the partition must come from
//! `tenant:claim_id` alone, so it is chosen here and given to the client.

/// Murmur2 as in `org.apache.kafka.common.utils.Utils.murmur2`.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    let mut hash = SEED ^ (data.len() as u32);
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a key, out of `partitions` (at least 1): positive murmur2 modulo the count.
pub fn partition_of(partition_key: &[u8], partitions: i32) -> i32 {
    ((murmur2(partition_key) & 0x7fff_ffff) % partitions.max(1) as u32) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values of the Java client's own unit test (`UtilsTest.testMurmur2`).
    #[test]
    fn hashes_as_the_java_client_does() {
        for (key, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
    }

    proptest! {
        #[test]
        fn any_key_has_a_partition(key: Vec<u8>, partitions in 1..1000_i32) {
            let partition = partition_of(&key, partitions);
            prop_assert!((0..partitions).contains(&partition));
        }
    }
}
