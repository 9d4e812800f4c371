//! One build writes, and the next one, in which types have changed, reads: right, or the default.

use super::*;

mod old {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) enum Role {
        Guest,
        User,
        Group(u32),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Account {
        pub(super) id: u32,
        pub(super) newsletter: bool,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Name {
        pub(super) first: String,
        pub(super) last: String,
    }

    impl Name {
        pub(super) fn ada() -> Self {
            Self { first: "Ada".to_string(), last: "Byron".to_string() }
        }
    }
}

mod new {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) enum Role {
        Guest,
        Admin,
        User,
        Group(i32),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Account {
        pub(super) id: u32,
        pub(super) is_admin: bool,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Name {
        pub(super) last: String,
        pub(super) first: String,
        #[serde(default)]
        pub(super) middle: String,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Renamed {
        #[serde(default)]
        pub(super) given: String,
        pub(super) last: String,
    }
}

/// Lends a field.
macro_rules! paste_mut {
    ($s:ident, role) => {
        $s.role_mut()
    };
    ($s:ident, group) => {
        $s.group_mut()
    };
    ($s:ident, number_as_role) => {
        $s.number_as_role_mut()
    };
    ($s:ident, text_as_role) => {
        $s.text_as_role_mut()
    };
    ($s:ident, account) => {
        $s.account_mut()
    };
    ($s:ident, name) => {
        $s.name_mut()
    };
    ($s:ident, renamed) => {
        $s.renamed_mut()
    };
    ($s:ident, seen) => {
        $s.seen_mut()
    };
    ($s:ident, unseen) => {
        $s.unseen_mut()
    };
    ($s:ident, small) => {
        $s.small_mut()
    };
    ($s:ident, below) => {
        $s.below_mut()
    };
    ($s:ident, large) => {
        $s.large_mut()
    };
    ($s:ident, list) => {
        $s.list_mut()
    };
    ($s:ident, flag) => {
        $s.flag_mut()
    };
    ($s:ident, byte) => {
        $s.byte_mut()
    };
    ($s:ident, ratio) => {
        $s.ratio_mut()
    };
    ($s:ident, letter) => {
        $s.letter_mut()
    };
    ($s:ident, array) => {
        $s.array_mut()
    };
    ($s:ident, numbers) => {
        $s.numbers_mut()
    };
}

/// The fields of a session in two builds, with the value that the first sets and the one that the second
/// reads.
macro_rules! changes {
    ($($field:ident: $old:ty = $value:expr => $new:ty = $read:expr;)*) => {
        #[derive(Session)]
        #[session(name = "Visitor")]
        struct First {
            $($field: Option<$old>,)*
        }

        #[derive(Session)]
        #[session(name = "Visitor")]
        struct Next {
            $($field: Option<$new>,)*
        }

        async fn set(session: Session<First>) {
            let mut s = session.write().await;
            $(*paste_mut!(s, $field) = Some($value);)*
        }

        async fn read(session: Session<Next>) {
            let s = session.read().await;
            $(assert_eq!(s.$field, $read, stringify!($field));)*
        }
    };
}

changes! {
    // An inserted variant makes nobody an administrator, and a number is no role.
    role: old::Role = old::Role::User => new::Role = Some(new::Role::User);
    group: old::Role = old::Role::Group(5) => new::Role = Some(new::Role::Group(5));
    number_as_role: u32 = 1 => new::Role = None;
    text_as_role: String = "Guest".to_string() => new::Role = Some(new::Role::Guest);
    // Nor does a bool in the place of another.
    account: old::Account = old::Account { id: 7, newsletter: true } => new::Account = None;
    // Fields keep their names, wherever they stand.
    name: old::Name = old::Name::ada() => new::Name = Some(new::Name {
        last: "Byron".to_string(),
        first: "Ada".to_string(),
        middle: String::new(),
    });
    renamed: old::Name = old::Name::ada() => new::Renamed = None;
    // A sign changes no number.
    seen: i64 = 1_790_000_000 => u64 = Some(1_790_000_000);
    unseen: u64 = 1_790_000_000 => i64 = Some(1_790_000_000);
    small: u8 = 5 => i32 = Some(5);
    below: i32 = -3 => u32 = None;
    large: u8 = 200 => i8 = None;
    list: Vec<u32> = vec![1, 2] => Vec<i64> = Some(vec![1, 2]);
    flag: bool = true => i32 = None;
    // What can be converted is.
    byte: u8 = 251 => u32 = Some(251);
    ratio: f32 = 1.5 => f64 = Some(1.5);
    letter: char = 'x' => String = Some("x".to_string());
    array: [u32; 2] = [7, 8] => Vec<u32> = Some(vec![7, 8]);
    numbers: Vec<u32> = vec![104, 105] => String = None;
}

#[tokio::test]
async fn what_the_next_build_reads_is_right_or_the_default() {
    for codec in CODECS {
        let (store, keys) = (Arc::new(MemoryStore::new()), Keys::generate());
        let layer = SessionLayer::<First>::builder(store.clone(), keys.clone());
        let layer = layer.with_codec(codec).in_another_process().build().unwrap();
        let first = Server::start(Router::new().route("/", get(set)).layer(layer)).await;
        let layer = SessionLayer::<Next>::builder(store, keys)
            .with_codec(codec)
            .in_another_process()
            .build()
            .unwrap();
        let next = Server::start(Router::new().route("/", get(read)).layer(layer)).await;
        let (writer, reader) = (first.client(), next.client());
        writer.get("/").await.text();
        reader.set_cookie(COOKIE, writer.cookie(COOKIE).as_deref());
        reader.get("/").await.text();
    }
}
