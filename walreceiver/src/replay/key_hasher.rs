//! [`KeyHasher`]: hashes the small keys of the page cache, which nobody outside chooses freely: block numbers and file numbers.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`KeyHasher`]s.
pub(super) type KeyHashing = BuildHasherDefault<KeyHasher>;

/// Multiplies and folds; a lookup costs a few cycles, where the standard hasher costs a hundred.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyHasher(u64);

/// The golden ratio in 64 bits, odd.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

impl KeyHasher {
    fn add(&mut self, value: u64) {
        let product = u128::from(self.0.rotate_left(26) ^ value) * u128::from(FACTOR);
        let [low, high] = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
        self.0 = u64::try_from(low ^ high).unwrap_or(0);
    }
}

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.add(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.add(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.add(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }

    fn write_isize(&mut self, value: isize) {
        // The discriminant of an enumeration.
        self.add(u64::try_from(value).unwrap_or(0));
    }
}
