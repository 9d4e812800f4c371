//! Fields whose names are also names of something else.

use sessions::Session;

use crate::in_session;

/// Makes a struct of all the names, and a test that sets and reads each through a guard.
macro_rules! test_names {
    ($($field:ident $set:ident)*) => {
        #[derive(Session)]
        #[allow(non_snake_case)]
        struct Names {
            $($field: usize,)*
        }

        #[tokio::test]
        async fn no_name_is_taken() {
            in_session(async |session: Session<Names>| {
                let mut s = session.write().await;
                let mut number = 0;
                $(
                    number += 1;
                    s.$set(number);
                )*
                let last = number;
                number = 0;
                $(
                    number += 1;
                    assert_eq!((s.$field(), s.$field), (number, number), stringify!($field));
                )*
                assert_eq!(number, last);
            })
            .await;
        }
    };
}

test_names! {
    // Methods of `Session`, and what a guard is made of.
    read set_read write set_write save set_save reload set_reload update set_update lock set_lock
    destroy set_destroy discard set_discard login set_login logout set_logout id set_id
    renew_id set_renew_id is_new set_is_new session set_session
    guard set_guard slot set_slot permit set_permit handle set_handle
    // Methods of traits, and of the types that accessors return.
    deref set_deref clone set_clone fmt set_fmt default set_default eq set_eq
    cmp set_cmp hash set_hash next set_next iter set_iter from set_from len set_len
    is_empty set_is_empty get set_get push set_push as_str set_as_str as_ref set_as_ref
    // Names in the generated code.
    tracked set_tracked data set_data value set_value source set_source field set_field
    fields set_fields encoder set_encoder nothing set_nothing put set_put replace set_replace
    get_field set_get_field field_mut_ set_field_mut_ skipped_mut set_skipped_mut
    __data set___data __source set___source __field set___field __encoder set___encoder
    __fields set___fields __stored set___stored __load set___load __wrap set___wrap
    __default_x set___default_x
    // Names like those of accessors, without the field that would have them.
    set_a set_set_a take_b set_take_b reset_c set_reset_c clear_d set_clear_d e_mut set_e_mut
    f_is_dirty set_f_is_dirty set_ set_set_ set set_set take set_take reset set_reset
    // Raw, odd, foreign.
    r#type set_type r#fn set_fn r#async set_async self_ set_self_ Self_ set_Self_
    _private set__private camelCase set_camelCase UPPER set_UPPER x1 set_x1 état set_état
    core set_core std set_std sessions set_sessions u32 set_u32 str set_str String set_String
}

/// A guard's `drop()`, and every type's `into()`, go before what is reached by deref.
#[tokio::test]
async fn drop_and_into_are_read_as_fields() {
    #[derive(Session)]
    struct Visitor {
        drop: u8,
        into: u8,
    }
    in_session(async |session: Session<Visitor>| {
        let mut s = session.write().await;
        s.set_drop(1);
        s.set_into(2);
        assert_eq!((s.drop, s.into), (1, 2));
        assert_eq!((VisitorFields::drop(&s), VisitorFields::into(&s)), (1, 2));
    })
    .await;
}

/// A method of the struct's own stays reachable, and an accessor of the same name goes before it.
#[tokio::test]
async fn accessors_go_before_methods_of_the_struct() {
    #[derive(Session)]
    struct Visitor {
        visits: u32,
    }
    impl Visitor {
        fn visits(&self) -> &'static str {
            "many"
        }
        fn has_come_back(&self) -> bool {
            self.visits > 1
        }
    }
    in_session(async |session: Session<Visitor>| {
        let mut s = session.write().await;
        s.set_visits(2);
        assert_eq!(s.visits(), 2);
        assert!(s.has_come_back());
        assert_eq!(Visitor::visits(&s), "many");
    })
    .await;
}

/// The generated code's own names are no names for a default.
#[tokio::test]
async fn defaults_see_the_names_around_the_struct() {
    mod elsewhere {
        pub fn __default() -> u8 {
            1
        }
    }
    use elsewhere::__default as value;
    fn source() -> u8 {
        2
    }
    static DATA: u8 = 3;

    #[derive(Session)]
    struct Visitor {
        #[session(default = value())]
        value: u8,
        #[session(default = source())]
        source: u8,
        #[session(default = DATA)]
        data: u8,
        #[session(default = { let __data = 3; __data + 1 })]
        local: u8,
    }
    in_session(async |session: Session<Visitor>| {
        let mut s = session.write().await;
        s.reset_local();
        let read = (s.value(), s.take_source(), s.data(), s.local());
        assert_eq!(read, (1, 2, 3, 4));
    })
    .await;
}

/// Constants and statics are patterns where a name is expected.
#[tokio::test]
#[allow(non_upper_case_globals, non_camel_case_types, dead_code)]
async fn constants_around_the_struct_do_no_harm() {
    const data: u8 = 1;
    const tracked: u8 = 1;
    const encoder: u8 = 1;
    static field: u8 = 1;
    struct source;
    struct fields;

    #[derive(Session)]
    struct Visitor {
        visits: u32,
        #[session(skip)]
        scratch: u32,
    }
    in_session(async |session: Session<Visitor>| {
        let mut s = session.write().await;
        s.set_visits(2);
        s.set_scratch(1);
        assert_eq!((s.visits(), s.scratch()), (2, 1));
    })
    .await;
}
