/// The fields of a [`Visitor`] session, as a guard shows them: typed accessors, and the [`Visitor`] itself to read from.
#[allow(deprecated, non_camel_case_types)]
pub(crate) enum VisitorFields {
    #[doc(hidden)]
    __Tracked(crate::runtime::__private::Tracked<Visitor>),
}
#[allow(dead_code, deprecated, non_camel_case_types, non_snake_case, unreachable_pub)]
const _: () = {
    fn __default_theme() -> Theme {
        Visitor::THEME
    }
    fn __default_type() -> Option<Name> {
        ::core::option::Option::Some(::core::convert::Into::into("guest"))
    }
    fn __default_visits() -> u64 {
        7
    }
    fn __default_others() -> Vec<Visitor> {
        vec![Visitor::default()]
    }
    fn __stored<F: crate::runtime::__private::FieldValue>() {}
    fn __skipped<F: crate::runtime::__private::SkippedValue>() {}
    #[automatically_derived]
    impl crate::runtime::SessionData for Visitor {
        type Fields = VisitorFields;
        type Dirty = [u64; 1];
        const FIELDS: &'static [crate::runtime::__private::FieldInfo] = &[
            crate::runtime::__private::FieldInfo::new("firstDay")
                .aliases(&["since", "from"])
                .version(3)
                .merges(),
            crate::runtime::__private::FieldInfo::new("home"),
            crate::runtime::__private::FieldInfo::new("theme"),
            crate::runtime::__private::FieldInfo::new("kind"),
            crate::runtime::__private::FieldInfo::new("visits").merges(),
            crate::runtime::__private::FieldInfo::new("owner").user(),
            crate::runtime::__private::FieldInfo::new("seen").merges(),
            crate::runtime::__private::FieldInfo::new("messages").merges().flash(),
            crate::runtime::__private::FieldInfo::new("code").ttl(5400000),
            crate::runtime::__private::FieldInfo::new("token").secret(),
        ];
        const __NAME: &'static str = "customer";
        const __LOADS_ALIKE: bool = false;
        fn __load(__reader: &crate::runtime::__private::PayloadReader<'_>) -> Self {
            fn __secret<F: crate::runtime::__private::SecretField>() {}
            __secret::<Option<Secret<String>>>();
            __stored::<Option<u32>>();
            __stored::<Url>();
            __stored::<Theme>();
            __stored::<Option<Name>>();
            __stored::<u64>();
            __stored::<Option<Person>>();
            __stored::<Vec<u32>>();
            __stored::<Vec<String>>();
            __stored::<Option<u32>>();
            __stored::<Option<Secret<String>>>();
            __skipped::<Vec<Visitor>>();
            Self {
                first_day: __reader
                    .field::<
                        Option<u32>,
                    >(0, || crate::runtime::__private::default_of::<Option<u32>>()),
                home: __reader
                    .field::<Url>(1, || crate::runtime::__private::default_of::<Url>()),
                theme: __reader.field::<Theme>(2, || __default_theme()),
                r#type: __reader.field::<Option<Name>>(3, || __default_type()),
                visits: __reader.field::<u64>(4, || __default_visits()),
                owner: __reader
                    .field::<
                        Option<Person>,
                    >(5, || crate::runtime::__private::default_of::<Option<Person>>()),
                seen: __reader
                    .field::<
                        Vec<u32>,
                    >(6, || crate::runtime::__private::default_of::<Vec<u32>>()),
                messages: __reader
                    .field::<
                        Vec<String>,
                    >(7, || crate::runtime::__private::default_of::<Vec<String>>()),
                code: __reader
                    .field::<
                        Option<u32>,
                    >(8, || crate::runtime::__private::default_of::<Option<u32>>()),
                token: __reader
                    .field::<
                        Option<Secret<String>>,
                    >(
                        9,
                        || crate::runtime::__private::default_of::<
                            Option<Secret<String>>,
                        >(),
                    ),
                others: __default_others(),
            }
        }
        fn __load_field(
            &mut self,
            __field: usize,
            __reader: &crate::runtime::__private::PayloadReader<'_>,
        ) {
            __stored::<Option<u32>>();
            __stored::<Url>();
            __stored::<Theme>();
            __stored::<Option<Name>>();
            __stored::<u64>();
            __stored::<Option<Person>>();
            __stored::<Vec<u32>>();
            __stored::<Vec<String>>();
            __stored::<Option<u32>>();
            __stored::<Option<Secret<String>>>();
            __skipped::<Vec<Visitor>>();
            match __field {
                0 => {
                    self.first_day = __reader
                        .field::<
                            Option<u32>,
                        >(0, || crate::runtime::__private::default_of::<Option<u32>>());
                }
                1 => {
                    self.home = __reader
                        .field::<
                            Url,
                        >(1, || crate::runtime::__private::default_of::<Url>());
                }
                2 => self.theme = __reader.field::<Theme>(2, || __default_theme()),
                3 => self.r#type = __reader.field::<Option<Name>>(3, || __default_type()),
                4 => self.visits = __reader.field::<u64>(4, || __default_visits()),
                5 => {
                    self.owner = __reader
                        .field::<
                            Option<Person>,
                        >(
                            5,
                            || crate::runtime::__private::default_of::<Option<Person>>(),
                        );
                }
                6 => {
                    self.seen = __reader
                        .field::<
                            Vec<u32>,
                        >(6, || crate::runtime::__private::default_of::<Vec<u32>>());
                }
                7 => {
                    self.messages = __reader
                        .field::<
                            Vec<String>,
                        >(7, || crate::runtime::__private::default_of::<Vec<String>>());
                }
                8 => {
                    self.code = __reader
                        .field::<
                            Option<u32>,
                        >(8, || crate::runtime::__private::default_of::<Option<u32>>());
                }
                9 => {
                    self.token = __reader
                        .field::<
                            Option<Secret<String>>,
                        >(
                            9,
                            || crate::runtime::__private::default_of::<
                                Option<Secret<String>>,
                            >(),
                        );
                }
                _ => {}
            }
        }
        fn __encode(
            &self,
            __field: usize,
            __encoder: &mut crate::runtime::__private::Encoder<'_>,
        ) -> ::core::result::Result<(), crate::runtime::__private::EncodeError> {
            __stored::<Option<u32>>();
            __stored::<Url>();
            __stored::<Theme>();
            __stored::<Option<Name>>();
            __stored::<u64>();
            __stored::<Option<Person>>();
            __stored::<Vec<u32>>();
            __stored::<Vec<String>>();
            __stored::<Option<u32>>();
            __stored::<Option<Secret<String>>>();
            __skipped::<Vec<Visitor>>();
            match __field {
                0 => __encoder.put::<Option<u32>>(&self.first_day),
                1 => __encoder.put::<Url>(&self.home),
                2 => __encoder.put::<Theme>(&self.theme),
                3 => __encoder.put::<Option<Name>>(&self.r#type),
                4 => __encoder.put::<u64>(&self.visits),
                5 => __encoder.put::<Option<Person>>(&self.owner),
                6 => __encoder.put::<Vec<u32>>(&self.seen),
                7 => __encoder.put::<Vec<String>>(&self.messages),
                8 => __encoder.put::<Option<u32>>(&self.code),
                9 => __encoder.put::<Option<Secret<String>>>(&self.token),
                _ => __encoder.nothing(),
            }
        }
        fn __probe(
            __field: usize,
            __probe: crate::runtime::__private::Probe,
        ) -> ::core::result::Result<(), crate::runtime::__private::EncodeError> {
            __stored::<Option<u32>>();
            __stored::<Url>();
            __stored::<Theme>();
            __stored::<Option<Name>>();
            __stored::<u64>();
            __stored::<Option<Person>>();
            __stored::<Vec<u32>>();
            __stored::<Vec<String>>();
            __stored::<Option<u32>>();
            __stored::<Option<Secret<String>>>();
            __skipped::<Vec<Visitor>>();
            match __field {
                0 => __probe.of::<Option<u32>>(),
                1 => __probe.of::<Url>(),
                2 => __probe.of::<Theme>(),
                3 => __probe.of::<Option<Name>>(),
                4 => __probe.of::<u64>(),
                5 => __probe.of::<Option<Person>>(),
                6 => __probe.of::<Vec<u32>>(),
                7 => __probe.of::<Vec<String>>(),
                8 => __probe.of::<Option<u32>>(),
                9 => __probe.of::<Option<Secret<String>>>(),
                _ => ::core::result::Result::Ok(()),
            }
        }
        fn __merge(
            __field: usize,
            __merge: crate::runtime::__private::Merge<'_>,
        ) -> crate::runtime::__private::Merged {
            match __field {
                0 => {
                    __merge
                        .by::<
                            Option<u32>,
                        >(
                            || crate::runtime::__private::default_of::<Option<u32>>(),
                            |__base, __theirs, __ours| crate::earlier(
                                __base,
                                __theirs,
                                __ours,
                            ),
                        )
                }
                4 => __merge.by_adding::<u64>(|| __default_visits()),
                6 => {
                    __merge
                        .by_uniting::<
                            Vec<u32>,
                        >(|| crate::runtime::__private::default_of::<Vec<u32>>())
                }
                7 => {
                    __merge
                        .by_uniting::<
                            Vec<String>,
                        >(|| crate::runtime::__private::default_of::<Vec<String>>())
                }
                _ => __merge.none(),
            }
        }
        fn __wrap(__tracked: crate::runtime::__private::Tracked<Self>) -> Self::Fields {
            VisitorFields::__Tracked(__tracked)
        }
        fn __tracked(
            __fields: &Self::Fields,
        ) -> &crate::runtime::__private::Tracked<Self> {
            let VisitorFields::__Tracked(__tracked) = __fields;
            __tracked
        }
        fn __tracked_mut(
            __fields: &mut Self::Fields,
        ) -> &mut crate::runtime::__private::Tracked<Self> {
            let VisitorFields::__Tracked(__tracked) = __fields;
            __tracked
        }
    }
    #[allow(clippy::all, clippy::pedantic, clippy::restriction)]
    impl Visitor {
        /** A layer that gives requests such sessions: `SessionLayer::new` with this type.

 # Panics

 As `SessionLayer::new` does.*/
        pub(crate) fn layer(
            store: impl crate::runtime::__private::IntoStorage,
            keys: crate::runtime::Keys,
        ) -> crate::runtime::SessionLayer<Self> {
            crate::runtime::__private::layer(store, keys)
        }
        /// For a layer with other settings: `SessionLayer::builder` with this type.
        pub(crate) fn layer_builder(
            store: impl crate::runtime::__private::IntoStorage,
            keys: crate::runtime::Keys,
        ) -> crate::runtime::SessionLayerBuilder<Self> {
            crate::runtime::SessionLayer::builder(store, keys)
        }
        /// A layer that lets only those requests pass whose user is logged in: `RequireLogin::new` with this type.
        pub(crate) fn require_login() -> crate::runtime::RequireLogin<Self> {
            crate::runtime::RequireLogin::new()
        }
        /// For one with other settings: `RequireLogin::builder` with this type.
        pub(crate) fn require_login_builder() -> crate::runtime::RequireLoginBuilder<
            Self,
        > {
            crate::runtime::RequireLogin::builder()
        }
        crate::runtime::__private::csrf_layers!(pub (crate) fn);
    }
    #[automatically_derived]
    impl ::core::ops::Deref for VisitorFields {
        type Target = Visitor;
        #[inline]
        fn deref(&self) -> &Visitor {
            crate::runtime::__private::get({
                let Self::__Tracked(__tracked) = self;
                __tracked
            })
        }
    }
    #[allow(clippy::all, clippy::pedantic, clippy::restriction)]
    impl VisitorFields {
        /// Reads `first_day`.
        ///
        /// When the visitor came,
        /// in days.
        #[inline]
        pub(crate) fn first_day(&self) -> ::core::option::Option<u32> {
            crate::runtime::__private::get({
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                })
                .first_day
        }
        /// Sets `first_day` to `Some(value)`.
        ///
        /// When the visitor came,
        /// in days.
        #[inline]
        pub(crate) fn set_first_day(&mut self, value: u32) {
            *crate::runtime::__private::set(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                0,
                |__data| &mut __data.first_day,
            ) = ::core::option::Option::Some(value);
        }
        /// Sets `first_day` to `None`.
        ///
        /// When the visitor came,
        /// in days.
        #[inline]
        pub(crate) fn clear_first_day(&mut self) {
            *self.first_day_mut() = ::core::option::Option::None;
        }
        /// Lends `first_day` for changes, and counts it as changed.
        ///
        /// When the visitor came,
        /// in days.
        #[inline]
        pub(crate) fn first_day_mut(&mut self) -> &mut Option<u32> {
            crate::runtime::__private::field_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                0,
                |__data| &mut __data.first_day,
            )
        }
        /// Takes `first_day` out, and leaves its default.
        ///
        /// When the visitor came,
        /// in days.
        #[inline]
        pub(crate) fn take_first_day(&mut self) -> Option<u32> {
            ::core::mem::replace(
                crate::runtime::__private::reset(
                    {
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    },
                    0,
                    |__data| &mut __data.first_day,
                ),
                crate::runtime::__private::default_of::<Option<u32>>(),
            )
        }
        /// Sets `first_day` back to its default.
        ///
        /// When the visitor came,
        /// in days.
        #[inline]
        pub(crate) fn reset_first_day(&mut self) {
            *crate::runtime::__private::reset(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                0,
                |__data| &mut __data.first_day,
            ) = crate::runtime::__private::default_of::<Option<u32>>();
        }
        /// Whether `first_day` has changes that are not saved yet.
        ///
        /// When the visitor came,
        /// in days.
        #[inline]
        pub(crate) fn first_day_is_dirty(&self) -> bool {
            crate::runtime::__private::is_dirty(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                0,
            )
        }
        /// Reads `home`.
        #[inline]
        fn home(&self) -> &Url {
            &crate::runtime::__private::get({
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                })
                .home
        }
        /// Sets `home`.
        #[inline]
        fn set_home(&mut self, value: impl ::core::convert::Into<Url>) {
            *crate::runtime::__private::set(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                1,
                |__data| &mut __data.home,
            ) = ::core::convert::Into::into(value);
        }
        /// Lends `home` for changes, and counts it as changed.
        #[inline]
        fn home_mut(&mut self) -> &mut Url {
            crate::runtime::__private::field_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                1,
                |__data| &mut __data.home,
            )
        }
        /// Takes `home` out, and leaves its default.
        #[inline]
        fn take_home(&mut self) -> Url {
            ::core::mem::replace(
                crate::runtime::__private::reset(
                    {
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    },
                    1,
                    |__data| &mut __data.home,
                ),
                crate::runtime::__private::default_of::<Url>(),
            )
        }
        /// Sets `home` back to its default.
        #[inline]
        fn reset_home(&mut self) {
            *crate::runtime::__private::reset(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                1,
                |__data| &mut __data.home,
            ) = crate::runtime::__private::default_of::<Url>();
        }
        /// Whether `home` has changes that are not saved yet.
        #[inline]
        fn home_is_dirty(&self) -> bool {
            crate::runtime::__private::is_dirty(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                1,
            )
        }
        /// Reads `theme`.
        #[inline]
        fn theme(&self) -> &Theme {
            &crate::runtime::__private::get({
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                })
                .theme
        }
        /// Sets `theme`.
        #[inline]
        fn set_theme(&mut self, value: Theme) {
            *crate::runtime::__private::set(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                2,
                |__data| &mut __data.theme,
            ) = value;
        }
        /// Lends `theme` for changes, and counts it as changed.
        #[inline]
        fn theme_mut(&mut self) -> &mut Theme {
            crate::runtime::__private::field_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                2,
                |__data| &mut __data.theme,
            )
        }
        /// Takes `theme` out, and leaves its default.
        #[inline]
        fn take_theme(&mut self) -> Theme {
            ::core::mem::replace(
                crate::runtime::__private::reset(
                    {
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    },
                    2,
                    |__data| &mut __data.theme,
                ),
                __default_theme(),
            )
        }
        /// Sets `theme` back to its default.
        #[inline]
        fn reset_theme(&mut self) {
            *crate::runtime::__private::reset(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                2,
                |__data| &mut __data.theme,
            ) = __default_theme();
        }
        /// Whether `theme` has changes that are not saved yet.
        #[inline]
        fn theme_is_dirty(&self) -> bool {
            crate::runtime::__private::is_dirty(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                2,
            )
        }
        /// Reads `type`.
        #[inline]
        pub fn r#type(&self) -> ::core::option::Option<&Name> {
            ::core::option::Option::as_ref(
                &crate::runtime::__private::get({
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    })
                    .r#type,
            )
        }
        /// Sets `type` to `Some(value)`.
        #[inline]
        pub fn set_type(&mut self, value: Name) {
            *crate::runtime::__private::set(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                3,
                |__data| &mut __data.r#type,
            ) = ::core::option::Option::Some(value);
        }
        /// Sets `type` to `None`.
        #[inline]
        pub fn clear_type(&mut self) {
            *self.type_mut() = ::core::option::Option::None;
        }
        /// Lends `type` for changes, and counts it as changed.
        #[inline]
        pub fn type_mut(&mut self) -> &mut Option<Name> {
            crate::runtime::__private::field_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                3,
                |__data| &mut __data.r#type,
            )
        }
        /// Takes `type` out, and leaves its default.
        #[inline]
        pub fn take_type(&mut self) -> Option<Name> {
            ::core::mem::replace(
                crate::runtime::__private::reset(
                    {
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    },
                    3,
                    |__data| &mut __data.r#type,
                ),
                __default_type(),
            )
        }
        /// Sets `type` back to its default.
        #[inline]
        pub fn reset_type(&mut self) {
            *crate::runtime::__private::reset(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                3,
                |__data| &mut __data.r#type,
            ) = __default_type();
        }
        /// Whether `type` has changes that are not saved yet.
        #[inline]
        pub fn type_is_dirty(&self) -> bool {
            crate::runtime::__private::is_dirty(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                3,
            )
        }
        /// Reads `visits`.
        #[inline]
        fn visits(&self) -> u64 {
            crate::runtime::__private::get({
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                })
                .visits
        }
        /// Sets `visits`.
        #[inline]
        fn set_visits(&mut self, value: u64) {
            *crate::runtime::__private::set(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                4,
                |__data| &mut __data.visits,
            ) = value;
        }
        /// Lends `visits` for changes, and counts it as changed.
        #[inline]
        fn visits_mut(&mut self) -> &mut u64 {
            crate::runtime::__private::field_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                4,
                |__data| &mut __data.visits,
            )
        }
        /// Takes `visits` out, and leaves its default.
        #[inline]
        fn take_visits(&mut self) -> u64 {
            ::core::mem::replace(
                crate::runtime::__private::reset(
                    {
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    },
                    4,
                    |__data| &mut __data.visits,
                ),
                __default_visits(),
            )
        }
        /// Sets `visits` back to its default.
        #[inline]
        fn reset_visits(&mut self) {
            *crate::runtime::__private::reset(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                4,
                |__data| &mut __data.visits,
            ) = __default_visits();
        }
        /// Whether `visits` has changes that are not saved yet.
        #[inline]
        fn visits_is_dirty(&self) -> bool {
            crate::runtime::__private::is_dirty(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                4,
            )
        }
        /// Reads `owner`.
        #[inline]
        fn owner(&self) -> ::core::option::Option<&Person> {
            ::core::option::Option::as_ref(
                &crate::runtime::__private::get({
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    })
                    .owner,
            )
        }
        /// Does not compile: `owner` is set by `Session::login`.
        #[inline]
        fn set_owner<__User: crate::runtime::__private::SetByLogin>(
            &mut self,
            _value: __User,
        ) {}
        /// Whether `owner` has changes that are not saved yet.
        #[inline]
        fn owner_is_dirty(&self) -> bool {
            crate::runtime::__private::is_dirty(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                5,
            )
        }
        /// Reads `seen`.
        #[inline]
        fn seen(&self) -> &[u32] {
            &crate::runtime::__private::get({
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                })
                .seen
        }
        /// Sets `seen`.
        #[inline]
        fn set_seen(&mut self, value: impl ::core::convert::Into<Vec<u32>>) {
            *crate::runtime::__private::set(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                6,
                |__data| &mut __data.seen,
            ) = ::core::convert::Into::into(value);
        }
        /// Appends to `seen`.
        #[inline]
        fn push_seen(&mut self, value: u32) {
            self.seen_mut().push(value);
        }
        /// Lends `seen` for changes, and counts it as changed.
        #[inline]
        fn seen_mut(&mut self) -> &mut Vec<u32> {
            crate::runtime::__private::field_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                6,
                |__data| &mut __data.seen,
            )
        }
        /// Takes `seen` out, and leaves its default.
        #[inline]
        fn take_seen(&mut self) -> Vec<u32> {
            ::core::mem::replace(
                crate::runtime::__private::reset(
                    {
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    },
                    6,
                    |__data| &mut __data.seen,
                ),
                crate::runtime::__private::default_of::<Vec<u32>>(),
            )
        }
        /// Sets `seen` back to its default.
        #[inline]
        fn reset_seen(&mut self) {
            *crate::runtime::__private::reset(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                6,
                |__data| &mut __data.seen,
            ) = crate::runtime::__private::default_of::<Vec<u32>>();
        }
        /// Whether `seen` has changes that are not saved yet.
        #[inline]
        fn seen_is_dirty(&self) -> bool {
            crate::runtime::__private::is_dirty(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                6,
            )
        }
        /// Sets `messages`.
        #[inline]
        fn set_messages(&mut self, value: impl ::core::convert::Into<Vec<String>>) {
            *crate::runtime::__private::set(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                7,
                |__data| &mut __data.messages,
            ) = ::core::convert::Into::into(value);
        }
        /// Appends to `messages`.
        #[inline]
        fn push_messages(&mut self, value: impl ::core::convert::Into<String>) {
            crate::runtime::__private::field_mut(
                    {
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    },
                    7,
                    |__data| &mut __data.messages,
                )
                .push(::core::convert::Into::into(value));
        }
        /// Takes `messages` out: nobody else gets it.
        #[inline]
        fn take_messages(&mut self) -> Vec<String> {
            crate::runtime::__private::take(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                7,
                |__data| &mut __data.messages,
                crate::runtime::__private::default_of::<Vec<String>>(),
            )
        }
        /// Whether `messages` has changes that are not saved yet.
        #[inline]
        fn messages_is_dirty(&self) -> bool {
            crate::runtime::__private::is_dirty(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                7,
            )
        }
        /// Reads `code`.
        #[inline]
        fn code(&self) -> ::core::option::Option<u32> {
            crate::runtime::__private::get({
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                })
                .code
        }
        /// Sets `code` to `Some(value)`.
        #[inline]
        fn set_code(&mut self, value: u32) {
            *crate::runtime::__private::set(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                8,
                |__data| &mut __data.code,
            ) = ::core::option::Option::Some(value);
        }
        /// Sets `code` to `None`.
        #[inline]
        fn clear_code(&mut self) {
            *self.code_mut() = ::core::option::Option::None;
        }
        /// Lends `code` for changes, and counts it as changed.
        #[inline]
        fn code_mut(&mut self) -> &mut Option<u32> {
            crate::runtime::__private::field_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                8,
                |__data| &mut __data.code,
            )
        }
        /// Takes `code` out, and leaves its default.
        #[inline]
        fn take_code(&mut self) -> Option<u32> {
            ::core::mem::replace(
                crate::runtime::__private::reset(
                    {
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    },
                    8,
                    |__data| &mut __data.code,
                ),
                crate::runtime::__private::default_of::<Option<u32>>(),
            )
        }
        /// Sets `code` back to its default.
        #[inline]
        fn reset_code(&mut self) {
            *crate::runtime::__private::reset(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                8,
                |__data| &mut __data.code,
            ) = crate::runtime::__private::default_of::<Option<u32>>();
        }
        /// Whether `code` has changes that are not saved yet.
        #[inline]
        fn code_is_dirty(&self) -> bool {
            crate::runtime::__private::is_dirty(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                8,
            )
        }
        /// Reads `token`.
        #[inline]
        fn token(&self) -> ::core::option::Option<&Secret<String>> {
            ::core::option::Option::as_ref(
                &crate::runtime::__private::get({
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    })
                    .token,
            )
        }
        /// Sets `token` to `Some(value)`.
        #[inline]
        fn set_token(&mut self, value: impl ::core::convert::Into<Secret<String>>) {
            *crate::runtime::__private::set(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                9,
                |__data| &mut __data.token,
            ) = ::core::option::Option::Some(::core::convert::Into::into(value));
        }
        /// Sets `token` to `None`.
        #[inline]
        fn clear_token(&mut self) {
            *self.token_mut() = ::core::option::Option::None;
        }
        /// Lends `token` for changes, and counts it as changed.
        #[inline]
        fn token_mut(&mut self) -> &mut Option<Secret<String>> {
            crate::runtime::__private::field_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                9,
                |__data| &mut __data.token,
            )
        }
        /// Takes `token` out, and leaves its default.
        #[inline]
        fn take_token(&mut self) -> Option<Secret<String>> {
            ::core::mem::replace(
                crate::runtime::__private::reset(
                    {
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    },
                    9,
                    |__data| &mut __data.token,
                ),
                crate::runtime::__private::default_of::<Option<Secret<String>>>(),
            )
        }
        /// Sets `token` back to its default.
        #[inline]
        fn reset_token(&mut self) {
            *crate::runtime::__private::reset(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                9,
                |__data| &mut __data.token,
            ) = crate::runtime::__private::default_of::<Option<Secret<String>>>();
        }
        /// Whether `token` has changes that are not saved yet.
        #[inline]
        fn token_is_dirty(&self) -> bool {
            crate::runtime::__private::is_dirty(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                9,
            )
        }
        /// Reads `others`.
        #[deprecated = "unused"]
        #[inline]
        fn others(&self) -> &[Visitor] {
            &crate::runtime::__private::get({
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                })
                .others
        }
        /// Sets `others`.
        #[deprecated = "unused"]
        #[inline]
        fn set_others(&mut self, value: impl ::core::convert::Into<Vec<Visitor>>) {
            *crate::runtime::__private::skipped_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                |__data| &mut __data.others,
            ) = ::core::convert::Into::into(value);
        }
        /// Appends to `others`.
        #[deprecated = "unused"]
        #[inline]
        fn push_others(&mut self, value: Visitor) {
            self.others_mut().push(value);
        }
        /// Lends `others` for changes, and counts it as changed.
        #[deprecated = "unused"]
        #[inline]
        fn others_mut(&mut self) -> &mut Vec<Visitor> {
            crate::runtime::__private::skipped_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                |__data| &mut __data.others,
            )
        }
        /// Takes `others` out, and leaves its default.
        #[deprecated = "unused"]
        #[inline]
        fn take_others(&mut self) -> Vec<Visitor> {
            ::core::mem::replace(
                crate::runtime::__private::skipped_mut(
                    {
                        let Self::__Tracked(__tracked) = self;
                        __tracked
                    },
                    |__data| &mut __data.others,
                ),
                __default_others(),
            )
        }
        /// Sets `others` back to its default.
        #[deprecated = "unused"]
        #[inline]
        fn reset_others(&mut self) {
            *crate::runtime::__private::skipped_mut(
                {
                    let Self::__Tracked(__tracked) = self;
                    __tracked
                },
                |__data| &mut __data.others,
            ) = __default_others();
        }
        /// Always `false`, as `others` is never saved.
        #[deprecated = "unused"]
        #[inline]
        fn others_is_dirty(&self) -> bool {
            false
        }
    }
    #[automatically_derived]
    impl crate::runtime::SessionUser for Visitor {
        type User = Person;
        const __FIELD: usize = 5;
        fn __user(&self) -> ::core::option::Option<&Self::User> {
            ::core::option::Option::as_ref(&self.owner)
        }
        fn __begin_as(&mut self, __user: Self::User) {
            self.owner = ::core::option::Option::Some(__user);
        }
        fn __name(__user: &Self::User) -> crate::runtime::__private::String {
            crate::runtime::__private::name_of(&Person::id(__user))
        }
    }
};
