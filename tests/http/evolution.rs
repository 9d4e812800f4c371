//! Records written by one build of an application and read by another.

use std::{cell::Cell, convert::Infallible, sync::Arc};

use http::{Request, Response, header};
use serde::{Deserialize, Serialize};
use sessions::{
    Codec, Keys, MemoryStore, Record, Session, SessionData, SessionLayer, Store, StoreError,
    StoreKey,
};
use sessions_tests::hand_on;
use tower::{Layer, ServiceExt};

const CODECS: [Codec; 4] = [Codec::Bincode, Codec::Postcard, Codec::MessagePack, Codec::Json];

/// One browser, one store and one ring of keys, served by different builds of an application.
struct Fleet<S> {
    store: Arc<S>,
    keys: Keys,
    cookie: Option<String>,
}

impl Fleet<MemoryStore> {
    fn new() -> Self {
        Self { store: Arc::default(), keys: Keys::generate(), cookie: None }
    }
}

impl<S: Store> Fleet<S> {
    /// One request to a build with this struct and this codec.
    async fn request<T: SessionData, R>(
        &mut self,
        codec: Codec,
        work: impl AsyncFnOnce(Session<T>) -> R,
    ) -> R {
        let layer = SessionLayer::<T>::builder(self.store.clone(), self.keys.clone())
            .with_codec(codec)
            .build()
            .unwrap();
        let (work, result) = (Cell::new(Some(work)), Cell::new(None));
        let service = layer.layer(tower::service_fn(|request: Request<()>| {
            let (work, result) = (&work, &result);
            async move {
                let session = Session::open(request.extensions()).await.unwrap();
                result.set(Some(work.take().unwrap()(session).await));
                Ok::<_, Infallible>(Response::new(String::new()))
            }
        }));
        let mut request = Request::builder();
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
            self.cookie = Some(cookie.to_str().unwrap().split(';').next().unwrap().to_string());
        }
        result.take().unwrap()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Plan {
    #[default]
    Free,
    Pro,
}

/// The first build.
#[derive(Session)]
#[session(name = "Visitor")]
struct First {
    name: String,
    visits: u32,
    plan: Plan,
    tags: Vec<String>,
}

async fn write_first(fleet: &mut Fleet<impl Store>, codec: Codec) {
    fleet
        .request(codec, async |session: Session<First>| {
            let mut s = session.write().await;
            s.set_name("Zoe");
            s.set_visits(3);
            s.set_plan(Plan::Pro);
            s.set_tags(["a".to_string()]);
        })
        .await;
}

/// What the first build reads, after others have written.
async fn read_first(fleet: &mut Fleet<impl Store>, codec: Codec) -> (String, u32, Plan, usize) {
    fleet
        .request(codec, async |session: Session<First>| {
            let s = session.read().await;
            (s.name.clone(), s.visits, s.plan.clone(), s.tags.len())
        })
        .await
}

#[tokio::test]
async fn fields_can_be_added_removed_and_reordered() {
    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Second {
        visits: u32,
        #[session(default = "light")]
        theme: String,
        name: String,
    }
    for writer in CODECS {
        for reader in CODECS {
            let mut fleet = Fleet::new();
            write_first(&mut fleet, writer).await;
            fleet
                .request(reader, async |session: Session<Second>| {
                    let mut s = session.write().await;
                    assert_eq!((s.name(), s.visits(), s.theme()), ("Zoe", 3, "light"));
                    s.set_visits(4);
                    s.set_theme("dark");
                })
                .await;
            // Side by side during a deploy: what one does not know the other still has.
            let first = read_first(&mut fleet, writer).await;
            assert_eq!(first, ("Zoe".to_string(), 4, Plan::Pro, 1), "{writer:?} {reader:?}");
            let theme = fleet
                .request(writer, async |session: Session<Second>| {
                    session.read().await.theme().to_string()
                })
                .await;
            assert_eq!(theme, "dark");
        }
    }
}

#[tokio::test]
async fn a_renamed_field_keeps_its_data_by_alias() {
    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Renamed {
        #[session(alias = "name", alias = "older still")]
        full_name: String,
        #[session(rename = "visits")]
        count: u32,
    }
    for codec in CODECS {
        let mut fleet = Fleet::new();
        write_first(&mut fleet, codec).await;
        for _ in 0..2 {
            fleet
                .request(codec, async |session: Session<Renamed>| {
                    let mut s = session.write().await;
                    assert_eq!((s.full_name(), s.count() >= 3), ("Zoe", true));
                    let count = s.count() + 1;
                    s.set_count(count);
                })
                .await;
        }
        let (_, visits, plan, tags) = read_first(&mut fleet, codec).await;
        assert_eq!((visits, plan, tags), (5, Plan::Pro, 1));
    }
}

/// Three builds, of which each knows the field by another name; the second one knows the first one's too.
mod renamed {
    use super::*;

    macro_rules! build {
        ($build:ident, $field:ident, $set:ident $(, $attribute:meta)*) => {
            #[derive(Session)]
            #[session(name = "Visitor")]
            pub(super) struct $build {
                $(#[$attribute])*
                $field: u32,
                visits: u32,
            }

            impl $build {
                /// Sets the field, if it is to be set, and something else.
                pub(super) async fn set(fleet: &mut Fleet<MemoryStore>, codec: Codec, to: Option<u32>) {
                    let set = async |session: Session<Self>| {
                        let mut s = session.write().await;
                        let visits = s.visits() + 1;
                        s.set_visits(visits);
                        if let Some(to) = to {
                            s.$set(to);
                        }
                    };
                    fleet.request(codec, set).await;
                }

                pub(super) async fn read(fleet: &mut Fleet<MemoryStore>, codec: Codec) -> u32 {
                    let read = async |session: Session<Self>| session.read().await.$field;
                    fleet.request(codec, read).await
                }
            }
        };
    }

    build!(Before, qty, set_qty, session(merge = add));
    build!(Now, quantity, set_quantity, session(alias = "qty", merge = add));
    build!(After, quantity, set_quantity, session(merge = add));
    build!(Next, amount, set_amount, session(alias = "qty", alias = "quantity", merge = add));
}

/// During a deploy, a browser's requests go now to the one build and now to the other.
#[tokio::test]
async fn builds_that_call_a_field_by_different_names_read_what_the_others_set() {
    use renamed::{After, Before, Now};
    for codec in CODECS {
        for begins_now in [false, true] {
            let mut fleet = Fleet::new();
            if begins_now {
                Now::set(&mut fleet, codec, Some(1)).await;
            } else {
                Before::set(&mut fleet, codec, Some(1)).await;
            }
            for at in (0..4).map(|round| 10 * round + 2) {
                Before::set(&mut fleet, codec, Some(at)).await;
                assert_eq!(Now::read(&mut fleet, codec).await, at);
                Now::set(&mut fleet, codec, None).await;
                assert_eq!(Before::read(&mut fleet, codec).await, at);
                Now::set(&mut fleet, codec, Some(at + 1)).await;
                assert_eq!(Before::read(&mut fleet, codec).await, at + 1);
                Before::set(&mut fleet, codec, None).await;
                assert_eq!(Now::read(&mut fleet, codec).await, at + 1);
            }
            // The next deploy.
            for at in [50, 60] {
                assert_ne!(After::read(&mut fleet, codec).await, 0);
                After::set(&mut fleet, codec, Some(at)).await;
                assert_eq!(Now::read(&mut fleet, codec).await, at);
                Now::set(&mut fleet, codec, Some(at + 1)).await;
                assert_eq!(After::read(&mut fleet, codec).await, at + 1);
            }
        }
    }
}

/// What an earlier build has set is there after any save of one with the alias, and in a build that follows both.
#[tokio::test]
async fn a_renamed_field_that_was_saved_needs_its_alias_no_more() {
    use renamed::{After, Before, Next, Now};
    for codec in CODECS {
        for begins_now in [false, true] {
            let mut fleet = Fleet::new();
            if begins_now {
                Now::set(&mut fleet, codec, Some(1)).await;
            }
            Before::set(&mut fleet, codec, Some(2)).await;
            assert_eq!(Next::read(&mut fleet, codec).await, 2, "without a save in between");
            Now::set(&mut fleet, codec, None).await;
            assert_eq!(After::read(&mut fleet, codec).await, 2);
            After::set(&mut fleet, codec, None).await;
            assert_eq!(After::read(&mut fleet, codec).await, 2);
            Next::set(&mut fleet, codec, Some(3)).await;
            assert_eq!(After::read(&mut fleet, codec).await, 3);
        }
    }
}

/// The same of a field that is a secret.
mod renamed_secret {
    use sessions::Secret;

    use super::*;

    macro_rules! build {
        ($build:ident, $field:ident, $set:ident $(, $attribute:meta)*) => {
            #[derive(Session)]
            #[session(name = "Visitor")]
            pub(super) struct $build {
                $(#[$attribute])*
                $field: Secret<u32>,
                visits: u32,
            }

            impl $build {
                /// Sets the field, or something else, and renews the id if that is wanted.
                pub(super) async fn set(fleet: &mut Fleet<MemoryStore>, to: Option<u32>, renews: bool) {
                    let set = async |session: Session<Self>| {
                        {
                            let mut s = session.write().await;
                            match to {
                                Some(to) => s.$set(to),
                                None => *s.visits_mut() += 1,
                            }
                        }
                        if renews {
                            session.renew_id().await.unwrap();
                        }
                    };
                    fleet.request(Codec::Postcard, set).await;
                }

                pub(super) async fn read(fleet: &mut Fleet<MemoryStore>) -> u32 {
                    let read = async |session: Session<Self>| *session.read().await.$field.expose();
                    fleet.request(Codec::Postcard, read).await
                }
            }
        };
    }

    build!(Before, qty, set_qty, session(secret));
    build!(Now, quantity, set_quantity, session(secret, alias = "qty"));
    build!(Next, amount, set_amount, session(secret, alias = "qty", alias = "quantity"));

    #[tokio::test]
    async fn builds_that_call_a_secret_by_different_names_read_what_the_others_set() {
        let mut fleet = Fleet::new();
        for round in 0..8 {
            let (at, renews) = (10 * round, round % 2 == 1);
            for (number, to) in [(0, Some(at)), (1, Some(at + 1)), (2, Some(at + 2)), (0, None)] {
                let by = (number + round) % 3;
                match by {
                    0 => Before::set(&mut fleet, to, renews).await,
                    1 => Now::set(&mut fleet, to, renews).await,
                    _ => Next::set(&mut fleet, to, renews).await,
                }
                let last = to.unwrap_or(at + 2);
                assert_eq!(Before::read(&mut fleet).await, last, "{by} in {round}");
                assert_eq!(Now::read(&mut fleet).await, last, "{by} in {round}");
                assert_eq!(Next::read(&mut fleet).await, last, "{by} in {round}");
            }
        }
    }
}

#[tokio::test]
async fn a_retyped_field_falls_back_alone() {
    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Retyped {
        #[session(default = 7)]
        name: i64,
        visits: u32,
        tags: Vec<String>,
    }
    for codec in CODECS {
        let mut fleet = Fleet::new();
        write_first(&mut fleet, codec).await;
        fleet
            .request(codec, async |session: Session<Retyped>| {
                let s = session.read().await;
                assert_eq!((s.name(), s.visits(), s.tags()), (7, 3, &["a".to_string()][..]));
            })
            .await;
        // Only looked at: the first build still has its name.
        assert_eq!(read_first(&mut fleet, codec).await.0, "Zoe");
    }
}

#[tokio::test]
async fn an_unknown_variant_falls_back_alone() {
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    enum Older {
        #[default]
        Free,
    }
    #[derive(Session)]
    #[session(name = "Visitor")]
    struct OlderBuild {
        name: String,
        plan: Older,
    }
    for codec in CODECS {
        let mut fleet = Fleet::new();
        write_first(&mut fleet, codec).await;
        fleet
            .request(codec, async |session: Session<OlderBuild>| {
                let mut s = session.write().await;
                assert_eq!((s.name(), s.plan()), ("Zoe", &Older::Free));
                s.set_name("Ada");
            })
            .await;
        let first = read_first(&mut fleet, codec).await;
        assert_eq!((first.0, first.2), ("Ada".to_string(), Plan::Pro), "what it could not read");
    }
}

#[tokio::test]
async fn a_raised_version_drops_the_older_bytes_of_its_field() {
    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Raised {
        name: String,
        /// In another unit now.
        #[session(version = 1)]
        visits: u32,
    }
    for codec in CODECS {
        let mut fleet = Fleet::new();
        write_first(&mut fleet, codec).await;
        for expected in [0, 10] {
            fleet
                .request(codec, async move |session: Session<Raised>| {
                    let mut s = session.write().await;
                    assert_eq!((s.name(), s.visits()), ("Zoe", expected));
                    s.set_visits(10);
                })
                .await;
        }
        assert_eq!(read_first(&mut fleet, codec).await.1, 0, "nor is the newer read as the older");
    }
}

/// Spoils every payload that it hands out.
struct Corrupting(MemoryStore);

impl Store for Corrupting {
    hand_on!(0: create, replace, touch, delete);

    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let record = self.0.load(key).await?;
        Ok(record.map(|record| record.with_payload(*b"\x01\x00\xffgarbage")))
    }
}

#[tokio::test]
async fn corrupt_bytes_give_a_new_session_and_leave_the_old_alone() {
    let store = Arc::new(Corrupting(MemoryStore::new()));
    let mut fleet = Fleet { store: store.clone(), keys: Keys::generate(), cookie: None };
    write_first(&mut fleet, Codec::Bincode).await;
    let before = fleet.cookie.clone();
    fleet
        .request(Codec::Bincode, async |session: Session<First>| {
            assert!(session.began_in_request());
            let mut s = session.write().await;
            assert_eq!((s.name(), s.visits()), ("", 0));
            s.set_name("anew");
        })
        .await;
    assert_ne!(fleet.cookie, before);
    assert_eq!(store.0.len(), 2);
    // Whoever can read the old one still does: another build may know its format.
    let mut other = Fleet { store: Arc::new(store.0.clone()), keys: fleet.keys, cookie: before };
    assert_eq!(read_first(&mut other, Codec::Bincode).await.0, "Zoe");
}

#[tokio::test]
async fn a_value_that_cannot_be_encoded_is_an_error_that_names_its_field() {
    #[derive(Session)]
    #[session(name = "Visitor")]
    struct Odd {
        fine: u8,
        odd: f64,
    }
    let mut fleet = Fleet::new();
    fleet
        .request(Codec::Json, async |session: Session<Odd>| {
            let mut s = session.write().await;
            s.set_fine(1);
            s.set_odd(f64::NAN);
            drop(s);
            let error = session.save().await.unwrap_err();
            assert_eq!(error.kind(), sessions::ErrorKind::Encode);
            assert!(error.to_string().contains("`odd` (`f64`)"), "{error}");
            assert!(session.save().await.is_err(), "it does not go away by itself");
            session.write().await.reset_odd();
            session.save().await.unwrap();
        })
        .await;
    let fine =
        fleet.request(Codec::Json, async |session: Session<Odd>| session.read().await.fine()).await;
    assert_eq!(fine, 1);
}
