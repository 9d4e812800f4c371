//! Which shapes of which types have been read back already, so that no save does it twice.

use std::{
    any::TypeId,
    hash::{Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::data::codec::survey::fold;

/// Shapes that fall on the same place drive each other out, and are read back once more. 32 KiB.
const PLACES: usize = 4096;

static SEEN: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

/// What is known of one type in one format.
#[derive(Clone, Copy)]
pub(crate) struct Place(u64);

impl Place {
    #[inline]
    pub(crate) fn new<W: 'static>(format: u8) -> Self {
        let mut id = Id(0);
        TypeId::of::<W>().hash(&mut id);
        Self(id.0.rotate_left(u32::from(format)))
    }

    #[inline]
    pub(crate) fn has_seen(self, shape: u64) -> bool {
        let key = self.key(shape);
        SEEN[key as usize % PLACES].load(Relaxed) == key
    }

    pub(crate) fn note(self, shape: u64) {
        let key = self.key(shape);
        SEEN[key as usize % PLACES].store(key, Relaxed);
    }

    /// Never 0, where nothing is known.
    #[inline]
    fn key(self, shape: u64) -> u64 {
        fold(self.0, shape, 0) | 1 << 63
    }
}

/// A type's id is a hash already.
struct Id(u64);

impl Hasher for Id {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(32) ^ number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_formats_and_shapes_are_kept_apart() {
        struct A;
        struct B;
        let places = [Place::new::<A>(1), Place::new::<A>(2), Place::new::<B>(1)];
        places[0].note(7);
        assert_eq!(places.map(|place| place.has_seen(7)), [true, false, false]);
        assert!(!places[0].has_seen(8));
    }
}
