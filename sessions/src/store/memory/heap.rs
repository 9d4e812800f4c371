//! When sessions expire, sorted as a heap is: in small pieces of memory, because requests wait while a shard is
//! locked, and one large piece would have to be moved when it grows.

use super::entry::Stamp;

/// When a session expires, and what finds it in the table: 12 bytes.
#[derive(Clone, Copy)]
pub(super) struct Due {
    pub(super) hash: u32,
    pub(super) expires: Stamp,
}

impl Due {
    pub(super) fn millis(&self) -> u64 {
        self.expires.millis()
    }
}

/// In a piece: 6 KiB.
const PIECE: usize = 512;

/// An array that grows and shrinks at its end. The shard keeps the order of a heap in it.
#[derive(Default)]
pub(super) struct Heap {
    /// All of them full, but for the last one, which is never empty.
    pieces: Vec<Vec<Due>>,
}

impl Heap {
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self.pieces.as_slice() {
            [] => 0,
            [full @ .., last] => full.len() * PIECE + last.len(),
        }
    }

    pub(super) fn first(&self) -> Option<&Due> {
        self.pieces.first()?.first()
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Due {
        self.pieces[at / PIECE][at % PIECE]
    }

    #[inline]
    pub(super) fn set(&mut self, at: usize, due: Due) {
        self.pieces[at / PIECE][at % PIECE] = due;
    }

    /// What can fail for want of memory, so that a push cannot. The last piece grows by an eighth of all that there
    /// is: to double would leave much of it empty.
    pub(super) fn reserve(&mut self) {
        let eighth = self.len() / 8 + 4;
        match self.pieces.last_mut() {
            Some(last) if last.len() < PIECE => {
                if last.len() == last.capacity() {
                    last.reserve_exact(eighth.min(PIECE - last.len()));
                }
            }
            _ => {
                self.pieces.reserve(1);
                self.pieces.push(Vec::with_capacity(eighth.min(PIECE)));
            }
        }
    }

    pub(super) fn push(&mut self, due: Due) {
        self.reserve();
        if let Some(last) = self.pieces.last_mut() {
            last.push(due);
        }
    }

    /// Takes out the last.
    pub(super) fn pop(&mut self) -> Option<Due> {
        let last = self.pieces.last_mut()?;
        let popped = last.pop();
        if last.is_empty() {
            self.pieces.pop();
        }
        popped
    }

    /// Moves to smaller pieces where there is room for four times as many sessions as there are: with room for twice as
    /// many. The old pieces come back, for the caller to free without the shard's lock. ([`pop`](Self::pop) could do
    /// so too, but with the lock: reads beside a sweep then waited for 2 ms.)
    pub(super) fn shrink(&mut self) -> [Vec<Vec<Due>>; 2] {
        let mut unused = Vec::new();
        if let [only] = &mut self.pieces[..]
            && is_too_large(only)
        {
            let mut smaller = Vec::with_capacity(2 * only.len());
            smaller.extend_from_slice(only);
            unused.push(std::mem::replace(only, smaller));
        }
        let mut before = Vec::new();
        if is_too_large(&self.pieces) {
            let mut smaller = Vec::with_capacity(2 * self.pieces.len());
            smaller.append(&mut self.pieces);
            before = std::mem::replace(&mut self.pieces, smaller);
        }
        [unused, before]
    }

    /// For how many there is room.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.pieces.iter().map(Vec::capacity).sum()
    }
}

fn is_too_large<T>(vec: &Vec<T>) -> bool {
    vec.capacity() > 4 * vec.len() + 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn one_takes_12_bytes() {
        assert_eq!(size_of::<Due>(), 12);
    }

    #[test]
    fn it_has_what_was_pushed_and_little_more_room() {
        let due = |number: usize| Due { hash: number as u32, expires: Stamp::from_millis(0) };
        let mut heap = Heap::default();
        let check = |heap: &Heap, len: usize| {
            assert_eq!(heap.len(), len);
            assert_eq!(heap.first().is_some(), len > 0);
            assert!((0..len).all(|at| heap.get(at).hash == at as u32));
        };
        for len in 0..3 * PIECE {
            if len % 97 == 0 {
                check(&heap, len);
            }
            heap.push(due(len));
            assert!(heap.capacity() <= (len + 1) * 9 / 8 + 4, "{len}");
        }
        heap.set(PIECE, due(7));
        assert_eq!((heap.get(PIECE).hash, heap.get(PIECE - 1).hash), (7, PIECE as u32 - 1));
        heap.set(PIECE, due(PIECE));
        for len in (0..3 * PIECE).rev() {
            assert_eq!(heap.pop().map(|due| due.hash), Some(len as u32));
            assert!(heap.capacity() < len + PIECE, "{len}");
            if len % 97 == 0 {
                check(&heap, len);
            }
        }
        assert!(heap.pop().is_none());
    }

    #[test]
    fn few_that_are_left_have_little_more_room_than_they_need() {
        let due = Due { hash: 0, expires: Stamp::from_millis(0) };
        let mut heap = Heap::default();
        (0..100 * PIECE).for_each(|_| heap.push(due));
        for len in (1..100 * PIECE).rev() {
            heap.pop();
            drop(heap.shrink());
            let most = (4 * len + 4).min(len + PIECE);
            assert!(heap.len() == len && heap.capacity() <= most, "{len}: {}", heap.capacity());
            assert!(heap.pieces.capacity() <= 4 * heap.pieces.len() + 4, "{len}");
        }
    }
}
