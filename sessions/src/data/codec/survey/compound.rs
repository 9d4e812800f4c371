//! The parts of lists, maps and structs, as they come.

use serde::ser::{self, Serialize};

#[cfg(feature = "messagepack")]
use super::Purpose;
use super::{
    Kind, MAP, Node, Plain, STRUCT, Survey, SurveyError, TUPLE, fold, letters_of, mix, place_of,
};
use crate::data::codec::error::Problem;

/// The elements of a list.
pub(in crate::data::codec) struct Elements<'s> {
    survey: &'s mut Survey,
    variant: Option<&'static str>,
    base: u64,
    /// How it is marked if its elements are scalars of one kind; 0 if that cannot be.
    mark: u8,
    kind: Option<Plain>,
    /// A bit for each kind of scalar, and one for whatever has a structure.
    kinds: u64,
    /// What is in a tuple, each in its place.
    shape: u64,
    sum: u64,
    length: usize,
}

impl<'s> Elements<'s> {
    #[inline]
    pub(super) fn new(survey: &'s mut Survey, base: u64, mark: u8) -> Self {
        let (variant, kind, kinds, shape, sum, length) = (None, None, 0, base, base, 0);
        Self { survey, variant, base, mark, kind, kinds, shape, sum, length }
    }

    #[inline]
    pub(super) fn with_sum(self, sum: u64) -> Self {
        Self { sum, ..self }
    }

    #[inline]
    pub(super) fn in_variant(self, variant: &'static str) -> Self {
        Self { variant: Some(variant), ..self }
    }

    #[inline]
    fn add<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<Node, SurveyError> {
        let node = self.survey.inside(value)?;
        self.length += 1;
        let is_scalar = node.plain.is_some_and(Plain::is_scalar);
        match (self.kind, node.plain) {
            (None, Some(plain)) if is_scalar => self.kind = Some(plain),
            (Some(known), Some(plain)) if known == plain => {}
            _ => self.mark = 0,
        }
        if self.base == TUPLE {
            self.shape = mix(self.shape, node.shape);
        } else {
            self.kinds |= self.survey.kinds(node.shape);
        }
        if self.survey.compares() {
            self.sum = match self.base {
                // Each in its place.
                TUPLE => mix(self.sum, node.sum),
                // In whatever order.
                _ => self.sum.wrapping_add(mix(self.base, node.sum)),
            };
        }
        Ok(node)
    }

    #[inline]
    fn node(self) -> Node {
        let shape = mix(self.shape, self.kinds);
        let node = Survey::structured(shape, self.sum);
        let node = Node { plain: self.plain(), length: self.length, ..node };
        match self.variant {
            Some(variant) => self.survey.many(variant, node),
            None => node,
        }
    }

    #[inline]
    fn plain(&self) -> Option<Plain> {
        match (self.mark, self.kind) {
            (0, _) | (Plain::ARRAY, None) => None,
            (mark, kind) => Some(Plain(mark | kind.map_or(Kind::None as u8, |kind| kind.0))),
        }
    }
}

impl ser::SerializeSeq for Elements<'_> {
    type Ok = Node;
    type Error = SurveyError;

    #[inline]
    fn serialize_element<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), SurveyError> {
        self.add(value).map(drop)
    }

    #[inline]
    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

impl ser::SerializeTuple for Elements<'_> {
    type Ok = Node;
    type Error = SurveyError;

    #[inline]
    fn serialize_element<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), SurveyError> {
        self.add(value).map(drop)
    }

    #[inline]
    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

impl ser::SerializeTupleStruct for Elements<'_> {
    type Ok = Node;
    type Error = SurveyError;

    #[inline]
    fn serialize_field<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), SurveyError> {
        self.add(value).map(drop)
    }

    #[inline]
    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

impl ser::SerializeTupleVariant for Elements<'_> {
    type Ok = Node;
    type Error = SurveyError;

    #[inline]
    fn serialize_field<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), SurveyError> {
        self.add(value).map(drop)
    }

    #[inline]
    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

/// The keys and values of a map.
pub(in crate::data::codec) struct Entries<'s> {
    survey: &'s mut Survey,
    /// As those of a list.
    kinds: u64,
    sum: u64,
    /// That of the key whose value comes next.
    key_sum: u64,
}

impl<'s> Entries<'s> {
    #[inline]
    pub(super) fn new(survey: &'s mut Survey) -> Self {
        Self { survey, kinds: 0, sum: MAP, key_sum: 0 }
    }

    #[inline]
    fn add<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<Node, SurveyError> {
        let node = self.survey.inside(value)?;
        self.kinds |= self.survey.kinds(node.shape);
        Ok(node)
    }
}

impl ser::SerializeMap for Entries<'_> {
    type Ok = Node;
    type Error = SurveyError;

    #[inline]
    fn serialize_key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), SurveyError> {
        let key = self.add(key)?;
        self.key_sum = key.sum;
        #[cfg(feature = "messagepack")]
        if let Purpose::Find(sum) = self.survey.purpose {
            self.survey.has_news |= key.sum == sum;
        }
        match key.is_key || !self.survey.rules.is_json {
            true => Ok(()),
            false => Err(Problem::NoKey.into()),
        }
    }

    #[inline]
    fn serialize_value<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), SurveyError> {
        let value = self.add(value)?;
        if self.survey.compares() {
            // Each under its key, and those in whatever order.
            self.sum = self.sum.wrapping_add(mix(mix(MAP, self.key_sum), value.sum));
        }
        Ok(())
    }

    #[inline]
    fn end(self) -> Result<Node, SurveyError> {
        Ok(Survey::structured(mix(MAP, self.kinds), self.sum))
    }
}

/// The fields of a struct.
pub(in crate::data::codec) struct Members<'s> {
    survey: &'s mut Survey,
    variant: Option<&'static str>,
    shape: u64,
    sum: u64,
}

impl<'s> Members<'s> {
    #[inline]
    pub(super) fn new(survey: &'s mut Survey, name: u64) -> Self {
        Self { survey, variant: None, shape: mix(STRUCT, name), sum: STRUCT }
    }

    #[inline]
    pub(super) fn with_sum(self, sum: u64) -> Self {
        Self { sum, ..self }
    }

    #[inline]
    pub(super) fn in_variant(self, variant: &'static str) -> Self {
        Self { variant: Some(variant), ..self }
    }

    #[inline]
    fn add<V: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &V,
    ) -> Result<(), SurveyError> {
        let node = self.survey.inside(value)?;
        self.shape = fold(self.shape, place_of(key), node.shape);
        if self.survey.compares() {
            self.sum = self.sum.wrapping_add(mix(letters_of(key), node.sum));
        }
        Ok(())
    }

    #[inline]
    fn node(self) -> Node {
        let node = Survey::structured(self.shape, self.sum);
        match self.variant {
            Some(variant) => self.survey.many(variant, node),
            None => node,
        }
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = Node;
    type Error = SurveyError;

    #[inline]
    fn serialize_field<V: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &V,
    ) -> Result<(), SurveyError> {
        self.add(key, value)
    }

    #[inline]
    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}

impl ser::SerializeStructVariant for Members<'_> {
    type Ok = Node;
    type Error = SurveyError;

    #[inline]
    fn serialize_field<V: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &V,
    ) -> Result<(), SurveyError> {
        self.add(key, value)
    }

    #[inline]
    fn end(self) -> Result<Node, SurveyError> {
        Ok(self.node())
    }
}
