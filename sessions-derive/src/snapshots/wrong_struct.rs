::core::compile_error! {
    "unknown attribute `defualt`; did you mean `default`? On a field there are `alias`, `codec`, `default`, `flash`, `into`, `merge`, `rename`, `secret`, `skip`, `ttl`, `user` and `version`"
}
::core::compile_error! {
    "a session cannot have generic parameters; write the type out, or make a struct for each"
}
::core::compile_error! {
    "fields `visits` and `set_visits` would both have an accessor `set_visits()`; give field `set_visits` another name, and keep its key with `#[session(rename = \"set_visits\")]`"
}
/// The fields of a [`Visitor`] session, as a guard shows them: typed accessors, and the [`Visitor`] itself to read from.
#[allow(deprecated)]
enum VisitorFields<T> {
    #[doc(hidden)]
    __Tracked(::core::marker::PhantomData<fn() -> Visitor<T>>),
}
#[automatically_derived]
#[allow(deprecated)]
impl<T> ::core::ops::Deref for VisitorFields<T> {
    type Target = Visitor<T>;
    fn deref(&self) -> &Self::Target {
        ::core::unreachable!()
    }
}
#[allow(deprecated, unused)]
impl<T> VisitorFields<T> {
    /// Reads `name`.
    #[inline]
    fn name(&self) -> &T {
        ::core::unreachable!()
    }
    /// Sets `name`.
    #[inline]
    fn set_name(&mut self, value: T) {
        ::core::unreachable!()
    }
    /// Lends `name` for changes, and counts it as changed.
    #[inline]
    fn name_mut(&mut self) -> &mut T {
        ::core::unreachable!()
    }
    /// Takes `name` out, and leaves its default.
    #[inline]
    fn take_name(&mut self) -> T {
        ::core::unreachable!()
    }
    /// Sets `name` back to its default.
    #[inline]
    fn reset_name(&mut self) {
        ::core::unreachable!()
    }
    /// Whether `name` has changes that are not saved yet.
    #[inline]
    fn name_is_dirty(&self) -> bool {
        ::core::unreachable!()
    }
    /// Reads `visits`.
    #[inline]
    fn visits(&self) -> u32 {
        ::core::unreachable!()
    }
    /// Sets `visits`.
    #[inline]
    fn set_visits(&mut self, value: u32) {
        ::core::unreachable!()
    }
    /// Lends `visits` for changes, and counts it as changed.
    #[inline]
    fn visits_mut(&mut self) -> &mut u32 {
        ::core::unreachable!()
    }
    /// Takes `visits` out, and leaves its default.
    #[inline]
    fn take_visits(&mut self) -> u32 {
        ::core::unreachable!()
    }
    /// Sets `visits` back to its default.
    #[inline]
    fn reset_visits(&mut self) {
        ::core::unreachable!()
    }
    /// Whether `visits` has changes that are not saved yet.
    #[inline]
    fn visits_is_dirty(&self) -> bool {
        ::core::unreachable!()
    }
    /// Sets `set_visits`.
    #[inline]
    fn set_set_visits(&mut self, value: bool) {
        ::core::unreachable!()
    }
    /// Lends `set_visits` for changes, and counts it as changed.
    #[inline]
    fn set_visits_mut(&mut self) -> &mut bool {
        ::core::unreachable!()
    }
    /// Takes `set_visits` out, and leaves its default.
    #[inline]
    fn take_set_visits(&mut self) -> bool {
        ::core::unreachable!()
    }
    /// Sets `set_visits` back to its default.
    #[inline]
    fn reset_set_visits(&mut self) {
        ::core::unreachable!()
    }
    /// Whether `set_visits` has changes that are not saved yet.
    #[inline]
    fn set_visits_is_dirty(&self) -> bool {
        ::core::unreachable!()
    }
}
#[automatically_derived]
#[allow(deprecated, unused)]
impl<T> ::sessions::SessionData for Visitor<T>
where
    Self: ::core::marker::Send + ::core::marker::Sync + 'static,
{
    type Fields = VisitorFields<T>;
    type Dirty = [u64; 1];
    const FIELDS: &'static [::sessions::__private::FieldInfo] = &[];
    const __NAME: &'static str = "";
    fn __load(__reader: &::sessions::__private::PayloadReader<'_>) -> Self {
        ::core::unreachable!()
    }
    fn __load_field(
        &mut self,
        __field: usize,
        __reader: &::sessions::__private::PayloadReader<'_>,
    ) {
        ::core::unreachable!()
    }
    fn __encode(
        &self,
        __field: usize,
        __encoder: &mut ::sessions::__private::Encoder<'_>,
    ) -> ::core::result::Result<(), ::sessions::__private::EncodeError> {
        ::core::unreachable!()
    }
    fn __wrap(__tracked: ::sessions::__private::Tracked<Self>) -> Self::Fields {
        ::core::unreachable!()
    }
    fn __tracked(__fields: &Self::Fields) -> &::sessions::__private::Tracked<Self> {
        ::core::unreachable!()
    }
    fn __tracked_mut(
        __fields: &mut Self::Fields,
    ) -> &mut ::sessions::__private::Tracked<Self> {
        ::core::unreachable!()
    }
}
