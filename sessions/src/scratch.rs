//! A buffer for bytes that are copied elsewhere at once: one a thread, which most calls need not
//! allocate.

use std::cell::Cell;

/// A larger buffer is given back to the allocator instead of being kept: 8 KiB hold the fields of
/// nearly all sessions, with what stands around them.
const LARGEST_KEPT: usize = 8 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs `work` with an empty buffer. A call inside of `work`, where a field's `Serialize` may lead,
/// has a buffer of its own.
///
/// What `work` leaves in the buffer stays in memory until the thread needs the buffer again: nothing
/// secret belongs there.
pub(crate) fn with_buffer<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // The thread may be about to end.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    let result = work(&mut buffer);
    if buffer.capacity() <= LARGEST_KEPT {
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_empty_and_used_again_and_never_twice_at_once() {
        let first = with_buffer(|buffer| {
            buffer.extend([1; 100]);
            with_buffer(|inner| {
                assert_eq!(inner.capacity(), 0, "it is not the outer one");
                inner.extend([2; 10]);
            });
            assert_eq!(*buffer, [1; 100]);
            buffer.as_ptr()
        });
        let again = with_buffer(|buffer| (buffer.is_empty(), buffer.as_ptr()));
        assert_eq!(again, (true, first));
        with_buffer(|buffer| buffer.reserve(LARGEST_KEPT + 1));
        assert_eq!(with_buffer(|buffer| buffer.capacity()), 0, "too large to be kept");
    }
}
