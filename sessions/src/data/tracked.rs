//! The value of a session together with what has been changed in it.

use crate::data::{SessionData, payload::PayloadReader};

/// A session's data and its dirty bits. Only generated code reaches the mutable half.
pub struct Tracked<T: SessionData> {
    data: T,
    /// Changed under earlier guards and not saved yet.
    unsaved: T::Dirty,
    /// Reached for by the guard that has it now.
    touched: T::Dirty,
    /// Of the flash fields, those that this guard has taken.
    taken: T::Dirty,
    /// Set by this guard, to whatever: that is stored, and be it the default.
    assigned: T::Dirty,
    /// Set back by this guard to whatever the default is.
    reset: T::Dirty,
    /// Changed by any guard, since they were loaded.
    changed: T::Dirty,
    /// The `changed` fields have to be loaded again before the next guard sees them.
    is_stale: bool,
    /// When the first of the fields falls back to its default, in milliseconds.
    until: u64,
    /// The slot whose guard has checked it out: two guards' fields can change places
    /// (`std::mem::swap`).
    checked_out_to: usize,
}

impl<T: SessionData> Tracked<T> {
    pub(crate) fn clean(data: T) -> Self {
        let none = || T::Dirty::NONE;
        let (unsaved, touched, taken, changed) = (none(), none(), none(), none());
        let (assigned, reset) = (none(), none());
        let (is_stale, until, checked_out_to) = (false, u64::MAX, 0);
        Self {
            data,
            unsaved,
            touched,
            taken,
            assigned,
            reset,
            changed,
            is_stale,
            until,
            checked_out_to,
        }
    }

    /// It shows what there was before one of its fields ends, at the latest at this time.
    pub(crate) fn expire_at(&mut self, time: u64) {
        self.until = self.until.min(time);
    }

    /// Whether all of it still holds.
    pub(crate) fn is_valid(&self, now: u64) -> bool {
        now < self.until
    }

    pub(crate) fn data(&self) -> &T {
        &self.data
    }

    pub(crate) fn is_dirty(&self, field: usize) -> bool {
        self.touched.contains(field) || self.unsaved.contains(field)
    }

    pub(crate) fn check_out_to(&mut self, borrower: usize) {
        self.checked_out_to = borrower;
    }

    pub(crate) fn is_checked_out_to(&self, borrower: usize) -> bool {
        self.checked_out_to == borrower
    }

    /// Whether a writer has had it since it was loaded.
    pub(crate) fn was_checked_out(&self) -> bool {
        self.checked_out_to != 0
    }

    /// Has the fields that writers have changed loaded again.
    pub(crate) fn mark_stale(&mut self) {
        self.is_stale = true;
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Loads the fields again that writers have changed. All of them are stored.
    pub(crate) fn reload_changed(&mut self, payload: &[u8]) {
        let mut reader = PayloadReader::empty(T::FIELDS);
        reader.read_fields(payload, &self.changed);
        for field in self.changed.fields() {
            self.data.__load_field(field, &reader);
        }
        (self.changed, self.unsaved) = (T::Dirty::NONE, T::Dirty::NONE);
        (self.is_stale, self.checked_out_to) = (false, 0);
    }

    /// What its guard may have changed: all of it, if it is not what the guard checked out, but for the
    /// user, whom it cannot have changed; another session's is not this one's.
    pub(crate) fn touched_fields(&self, borrower: usize) -> T::Dirty {
        if self.is_checked_out_to(borrower) {
            return self.touched;
        }
        let mut all = T::Dirty::NONE;
        for (field, info) in T::FIELDS.iter().enumerate() {
            all.set(field, !info.user);
        }
        all
    }

    /// Whether its guard has taken the field's value, whatever it has set since.
    pub(crate) fn is_taken(&self, field: usize) -> bool {
        self.taken.contains(field)
    }

    /// Whether the guard's last word on the field was to set it.
    pub(crate) fn is_assigned(&self, field: usize) -> bool {
        self.assigned.contains(field)
    }

    /// Whether it was to set the field back.
    pub(crate) fn is_reset(&self, field: usize) -> bool {
        self.reset.contains(field)
    }

    /// The guard is done: no field counts as touched any more, and only the `unsaved` ones as dirty.
    pub(crate) fn mark_clean_except(&mut self, unsaved: impl Iterator<Item = usize>) {
        self.changed.add(&self.touched);
        (self.touched, self.taken, self.unsaved) = (T::Dirty::NONE, T::Dirty::NONE, T::Dirty::NONE);
        (self.assigned, self.reset) = (T::Dirty::NONE, T::Dirty::NONE);
        unsaved.for_each(|field| self.unsaved.set(field, true));
    }

    /// The one way to change a stored field: the method that gives out the `&mut` has set the bit.
    pub(crate) fn field_mut<F>(
        &mut self,
        field: usize,
        project: impl FnOnce(&mut T) -> &mut F,
    ) -> &mut F {
        self.touched.set(field, true);
        project(&mut self.data)
    }

    /// The same to give it a value.
    pub(crate) fn assign<F>(
        &mut self,
        field: usize,
        project: impl FnOnce(&mut T) -> &mut F,
    ) -> &mut F {
        self.assigned.set(field, true);
        self.reset.set(field, false);
        self.field_mut(field, project)
    }

    /// The same to give it its default. To change it in place after that changes nothing, unless it
    /// then has another value.
    pub(crate) fn reset<F>(
        &mut self,
        field: usize,
        project: impl FnOnce(&mut T) -> &mut F,
    ) -> &mut F {
        self.reset.set(field, true);
        self.assigned.set(field, false);
        self.field_mut(field, project)
    }

    /// Takes the value of a flash field.
    pub(crate) fn take<F>(
        &mut self,
        field: usize,
        project: impl FnOnce(&mut T) -> &mut F,
        default: F,
    ) -> F {
        self.taken.set(field, true);
        std::mem::replace(self.reset(field, project), default)
    }

    /// A skipped field is never stored, so that there is nothing to track.
    pub(crate) fn skipped_mut<F>(&mut self, project: impl FnOnce(&mut T) -> &mut F) -> &mut F {
        project(&mut self.data)
    }
}

/// A set of field numbers.
pub trait DirtyBits: Copy + Send + Sync + 'static {
    /// The empty set.
    const NONE: Self;
    /// Whether the field is in the set.
    fn contains(&self, field: usize) -> bool;
    /// Puts the field into the set, or takes it out.
    fn set(&mut self, field: usize, dirty: bool);
    /// Puts all of these into the set.
    fn add(&mut self, others: &Self);
    /// How many there are.
    fn count(&self) -> usize;
    /// The fields of the set, in order.
    fn fields(self) -> impl Iterator<Item = usize>;
}

impl<const WORDS: usize> DirtyBits for [u64; WORDS] {
    const NONE: Self = [0; WORDS];

    fn contains(&self, field: usize) -> bool {
        self.get(field / 64).is_some_and(|word| word & (1 << (field % 64)) != 0)
    }

    fn set(&mut self, field: usize, dirty: bool) {
        let Some(word) = self.get_mut(field / 64) else { return };
        let bit = 1 << (field % 64);
        *word = if dirty { *word | bit } else { *word & !bit };
    }

    fn add(&mut self, others: &Self) {
        self.iter_mut().zip(others).for_each(|(word, other)| *word |= other);
    }

    fn count(&self) -> usize {
        self.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn fields(mut self) -> impl Iterator<Item = usize> {
        let mut at = 0;
        std::iter::from_fn(move || {
            while let Some(word) = self.get_mut(at) {
                if *word == 0 {
                    at += 1;
                    continue;
                }
                let lowest = word.trailing_zeros() as usize;
                *word &= *word - 1;
                return Some(at * 64 + lowest);
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_independent() {
        let mut bits = <[u64; 2]>::NONE;
        for field in [0, 63, 64, 127] {
            bits.set(field, true);
        }
        bits.set(63, false);
        let fields = |bits: [u64; 2]| {
            let set: Vec<usize> = bits.fields().collect();
            assert_eq!(set.len(), bits.count());
            assert!((0..200).filter(|field| bits.contains(*field)).eq(set.iter().copied()));
            set
        };
        assert_eq!(fields(bits), [0, 64, 127]);
        let mut more = <[u64; 2]>::NONE;
        more.set(1, true);
        more.add(&bits);
        assert_eq!(fields(more), [0, 1, 64, 127]);
        assert_eq!(fields([u64::MAX; 2]).len(), 128);
        assert_eq!(fields(<[u64; 2]>::NONE), [0; 0]);
    }
}
