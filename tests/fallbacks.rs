//! What is logged of a field that has its default instead of what is stored: why, and the way out, once in
//! a process. In a process of its own, because the log is the whole process's.

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
};

use axum::{Router, routing::get};
use serde::{Deserialize, Serialize};
use sessions::{Keys, MemoryStore, Session, SessionLayer};
use sessions_tests::Server;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// Keeps every warning of the library.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sessions") && *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

const VALUE: &str = "a value that is nobody's business";

#[derive(Session)]
#[session(name = "Visitor")]
struct First {
    name: String,
    account: Account,
}

#[derive(Session)]
#[session(name = "Visitor")]
struct Next {
    name: u64,
    account: Renamed,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Account {
    first: String,
    last: String,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Renamed {
    #[serde(default)]
    given: String,
    last: String,
}

#[tokio::test]
async fn a_field_that_falls_back_says_why_once_in_a_process() {
    async fn set(session: Session<First>) {
        let account = Account { first: VALUE.to_string(), last: VALUE.to_string() };
        {
            let mut s = session.write().await;
            s.set_name(VALUE);
            s.set_account(account);
        }
    }
    async fn read(session: Session<Next>) -> String {
        let s = session.read().await;
        format!("{} {}", s.name(), s.account().given)
    }
    let warnings = Warnings::default();
    tracing::subscriber::set_global_default(warnings.clone()).unwrap();
    let (store, keys) = (Arc::new(MemoryStore::new()), Keys::generate());
    let layer = SessionLayer::<First>::builder(store.clone(), keys.clone());
    let layer = layer.in_another_process().build().unwrap();
    let first = Server::start(Router::new().route("/", get(set)).layer(layer)).await;
    let layer = SessionLayer::<Next>::builder(store, keys).in_another_process().build().unwrap();
    let next = Server::start(Router::new().route("/", get(read)).layer(layer)).await;
    for _ in 0..3 {
        let (writer, reader) = (first.client(), next.client());
        writer.get("/").await.text();
        reader.set_cookie("__Host-id", writer.cookie("__Host-id").as_deref());
        for _ in 0..2 {
            assert_eq!(reader.get("/").await.text(), "0 ");
        }
    }
    let warnings = warnings.0.lock().unwrap();
    let about = |field: &str| -> Vec<&String> {
        warnings.iter().filter(|line| line.contains(&format!("field=\"{field}\""))).collect()
    };
    let [name] = about("name")[..] else { panic!("{warnings:?}") };
    assert!(name.contains("u64") && name.contains("#[session(version = …)]"), "{name}");
    let [account] = about("account")[..] else { panic!("{warnings:?}") };
    assert!(account.contains("Renamed") && account.contains("#[serde(alias"), "{account}");
    assert!(!warnings.concat().contains(VALUE), "{warnings:?}");
}
