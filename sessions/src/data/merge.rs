//! Three-way merges: what becomes of a field that two processes have changed at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    hash::{BuildHasher, Hash},
};

use crate::{
    data::{
        FieldInfo, FieldValue,
        body::{self, Encoder, Found},
        codec::{Codec, EncodeError, Form, form::Own},
    },
    error::BuildError,
};

/// What a save does about a field that another request has changed at the same time:
/// [`SessionLayerBuilder::with_conflict_policy`](crate::SessionLayerBuilder::with_conflict_policy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// The later save wins, and a `tracing` warning names the field.
    #[default]
    LastWins,
    /// The later save is refused: a [`Conflict`](crate::ErrorKind::Conflict) error, and 409 for the
    /// client.
    Reject,
}

/// How a layer's changes meet those of others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) codec: Codec,
    pub(crate) conflict: Conflict,
}

impl Default for Policy {
    fn default() -> Self {
        Self { codec: Codec::preferred(), conflict: Conflict::default() }
    }
}

impl Policy {
    pub(crate) fn check(self) -> Result<(), BuildError> {
        match Codec::ALL.contains(&self.codec) {
            true => Ok(()),
            false => Err(BuildError::new(
                "no codec: enable one of the features `bincode`, `postcard`, `messagepack`, `json`",
            )),
        }
    }
}

/// The three states of one field, as stored bytes, for generated code to merge.
pub struct Merge<'a> {
    pub(crate) info: &'a FieldInfo,
    pub(crate) codec: Codec,
    /// What ours was made of.
    pub(crate) base: Option<&'a [u8]>,
    pub(crate) theirs: Option<&'a [u8]>,
    pub(crate) ours: &'a [u8],
}

/// The merged field, or nothing where the later save wins.
pub type Merged = Option<Result<Box<[u8]>, EncodeError>>;

impl Merge<'_> {
    /// Merges the values with `merge(base, theirs, ours)`. Where nothing is stored, the field has its
    /// default; what is stored and cannot be read is not merged with.
    pub fn by<F: FieldValue>(
        self,
        default: impl Fn() -> F,
        merge: impl FnOnce(&F, &F, &F) -> F,
    ) -> Merged {
        self.by_as::<Own<F>>(default, merge)
    }

    /// The same of a field whose value is stored in another form.
    pub fn by_as<W: Form>(
        self,
        default: impl Fn() -> W::Value,
        merge: impl FnOnce(&W::Value, &W::Value, &W::Value) -> W::Value,
    ) -> Merged {
        let value = |body: Option<&[u8]>| match body {
            None => Some(default()),
            Some(body) => match body::decode::<W>(body, self.info.version) {
                Ok(Found::Value(value)) => Some(value),
                Ok(Found::Unset | Found::OtherVersion) => Some(default()),
                Err(_) => None,
            },
        };
        let ours = value(Some(self.ours))?;
        // As the writer has seen it.
        let base = value(self.base).unwrap_or_else(&default);
        let merged = merge(&base, &value(self.theirs)?, &ours);
        let mut body = Vec::new();
        let encoded = Encoder::new(self.codec, self.info, &mut body).put_as::<W>(&merged);
        Some(encoded.map(|()| body.into()))
    }

    /// Adds both changes to a number.
    pub fn by_adding<F: FieldValue + Add>(self, default: impl Fn() -> F) -> Merged {
        self.by(default, F::add)
    }

    /// Unites both changes of a collection.
    pub fn by_uniting<F: FieldValue + Union>(self, default: impl Fn() -> F) -> Merged {
        self.by(default, F::union)
    }

    /// For a field without a merge of its own.
    pub fn none(self) -> Merged {
        None
    }
}

/// A number for `#[session(merge = add)]`.
#[diagnostic::on_unimplemented(
    message = "`merge = add` cannot add up `{Self}`",
    label = "not a number",
    note = "it is for integers and floats; give another type a function of its own: \
            `#[session(merge = path::to::function)]` with `fn(base: &F, theirs: &F, ours: &F) -> F`"
)]
pub trait Add {
    /// `theirs + ours - base`: both changes, one after the other. Stops at the ends of the type's
    /// range.
    fn add(base: &Self, theirs: &Self, ours: &Self) -> Self;
}

macro_rules! add_integers {
    ($($integer:ty)*) => {$(
        impl Add for $integer {
            fn add(base: &Self, theirs: &Self, ours: &Self) -> Self {
                // Each step that fits the type is exact; an unsigned number may go down.
                if let Some(more) = ours.checked_sub(*base) {
                    theirs.saturating_add(more)
                } else if let Some(less) = base.checked_sub(*ours) {
                    theirs.saturating_sub(less)
                } else if let Some(theirs) = theirs.checked_sub(*base) {
                    theirs.saturating_add(*ours)
                } else if ours < base {
                    Self::MIN
                } else {
                    Self::MAX
                }
            }
        }
    )*};
}

add_integers!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize);

impl Add for f32 {
    fn add(base: &Self, theirs: &Self, ours: &Self) -> Self {
        theirs + (ours - base)
    }
}

impl Add for f64 {
    fn add(base: &Self, theirs: &Self, ours: &Self) -> Self {
        theirs + (ours - base)
    }
}

/// A collection for `#[session(merge = union)]`.
#[diagnostic::on_unimplemented(
    message = "`merge = union` cannot unite two `{Self}`",
    label = "not a set, map or list of the standard library",
    note = "it is for `HashSet`, `BTreeSet`, `HashMap`, `BTreeMap`, `Vec` and `VecDeque` whose \
            elements can be cloned and compared; give another type a function of its own: \
            `#[session(merge = path::to::function)]` with `fn(base: &F, theirs: &F, ours: &F) -> F`"
)]
pub trait Union {
    /// Theirs, with what we have added and without what we have removed. Of a key that both have
    /// set, our value. What is appended to a list comes behind theirs.
    fn union(base: &Self, theirs: &Self, ours: &Self) -> Self;
}

impl<E: Clone + Eq + Hash, H: BuildHasher + Clone> Union for HashSet<E, H> {
    fn union(base: &Self, theirs: &Self, ours: &Self) -> Self {
        let mut united = theirs.clone();
        united.retain(|element| ours.contains(element) || !base.contains(element));
        united.extend(ours.iter().filter(|element| !base.contains(*element)).cloned());
        united
    }
}

impl<E: Clone + Ord> Union for BTreeSet<E> {
    fn union(base: &Self, theirs: &Self, ours: &Self) -> Self {
        let mut united = theirs.clone();
        united.retain(|element| ours.contains(element) || !base.contains(element));
        united.extend(ours.difference(base).cloned());
        united
    }
}

impl<K: Clone + Eq + Hash, V: Clone + PartialEq, H: BuildHasher + Clone> Union
    for HashMap<K, V, H>
{
    fn union(base: &Self, theirs: &Self, ours: &Self) -> Self {
        let mut united = theirs.clone();
        united.retain(|key, _| ours.contains_key(key) || !base.contains_key(key));
        let changed = ours.iter().filter(|(key, value)| base.get(*key) != Some(*value));
        united.extend(changed.map(|(key, value)| (key.clone(), value.clone())));
        united
    }
}

impl<K: Clone + Ord, V: Clone + PartialEq> Union for BTreeMap<K, V> {
    fn union(base: &Self, theirs: &Self, ours: &Self) -> Self {
        let mut united = theirs.clone();
        united.retain(|key, _| ours.contains_key(key) || !base.contains_key(key));
        let changed = ours.iter().filter(|(key, value)| base.get(*key) != Some(*value));
        united.extend(changed.map(|(key, value)| (key.clone(), value.clone())));
        united
    }
}

impl<E: Clone + PartialEq> Union for Vec<E> {
    fn union(base: &Self, theirs: &Self, ours: &Self) -> Self {
        if let Some(appended) = ours.strip_prefix(&base[..]) {
            return [theirs, appended].concat();
        }
        // Element by element, each as often as it stands there.
        let without = |list: &[E], other: &[E]| {
            let mut left = list.to_vec();
            for element in other {
                if let Some(at) = left.iter().position(|same| same == element) {
                    left.remove(at);
                }
            }
            left
        };
        let (removed, added) = (without(base, ours), without(ours, base));
        [without(theirs, &removed), added].concat()
    }
}

impl<E: Clone + PartialEq> Union for VecDeque<E> {
    fn union(base: &Self, theirs: &Self, ours: &Self) -> Self {
        let [base, theirs, ours] =
            [base, theirs, ours].map(|list| list.iter().cloned().collect::<Vec<E>>());
        Vec::union(&base, &theirs, &ours).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_add_up_whatever_the_direction() {
        assert_eq!(u32::add(&5, &7, &6), 8);
        assert_eq!(u32::add(&5, &7, &4), 6);
        assert_eq!(u32::add(&5, &1, &0), 0, "not below zero");
        assert_eq!(u8::add(&0, &200, &100), 255, "not beyond the end");
        assert_eq!(i8::add(&-100, &0, &100), 127);
        assert_eq!(i8::add(&100, &0, &-100), -128);
        assert_eq!(i8::add(&100, &127, &-100), -73, "although the change has no place in an i8");
        assert_eq!(i8::add(&-100, &100, &-110), 90);
        assert_eq!(i8::add(&-100, &100, &100), 127);
        assert_eq!(i64::add(&-1, &-3, &-2), -4);
        assert_eq!(f64::add(&1.0, &1.5, &3.0), 3.5);
    }

    #[test]
    fn sets_and_maps_keep_both_sides_changes() {
        let set = |text: &str| text.chars().collect::<BTreeSet<char>>();
        let union = Union::union(&set("abc"), &set("abd"), &set("bce"));
        assert_eq!(union, set("bde"), "they dropped c and added d; we dropped a and added e");
        let hash_set = |text: &str| text.chars().collect::<HashSet<char>>();
        let union = Union::union(&hash_set("abc"), &hash_set("abd"), &hash_set("bce"));
        assert_eq!(union, hash_set("bde"));

        let map = |pairs: &[(char, u8)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        let hash_map = |pairs: &[(char, u8)]| pairs.iter().copied().collect::<HashMap<_, _>>();
        let base = [('a', 1), ('b', 1), ('c', 1)];
        let theirs = [('a', 2), ('b', 2), ('d', 2)];
        let ours = [('b', 3), ('c', 1), ('e', 3)];
        let united = [('b', 3), ('d', 2), ('e', 3)];
        assert_eq!(Union::union(&map(&base), &map(&theirs), &map(&ours)), map(&united));
        assert_eq!(
            Union::union(&hash_map(&base), &hash_map(&theirs), &hash_map(&ours)),
            hash_map(&united)
        );
    }

    #[test]
    fn lists_keep_what_both_have_appended() {
        let union = |base: &[u8], theirs: &[u8], ours: &[u8]| {
            Union::union(&base.to_vec(), &theirs.to_vec(), &ours.to_vec())
        };
        assert_eq!(union(&[1, 2], &[1, 2, 3], &[1, 2, 4]), [1, 2, 3, 4]);
        assert_eq!(union(&[], &[5], &[5]), [5, 5], "each has appended one");
        assert_eq!(union(&[1, 2, 2], &[1, 2, 2, 3], &[2, 1, 4]), [1, 2, 3, 4]);
        assert_eq!(union(&[1, 2], &[], &[1, 2, 3]), [3]);
        let deque = |list: &[u8]| list.iter().copied().collect::<VecDeque<u8>>();
        assert_eq!(Union::union(&deque(&[1]), &deque(&[1, 2]), &deque(&[])), deque(&[2]));
    }
}
