//! The application under test.

use axum::{Router, extract::Path, routing::get};
use sessions::{Result, Session};

/// A session with a field of each kind.
#[derive(Session)]
pub struct History {
    owner: u64,
    #[session(merge = add)]
    add: u64,
    update: u64,
    lock: u64,
    /// By `update` and plain writes alike.
    #[session(merge = add)]
    sum: u64,
    a: u64,
    b: u64,
    #[session(merge = union)]
    list: Vec<u64>,
}

/// The application's routes, without a layer.
pub fn routes() -> Router {
    Router::new()
        .route("/begin/{owner}", get(begin))
        .route("/show", get(show))
        .route("/add", get(add))
        .route("/update", get(update))
        .route("/lock", get(lock))
        .route("/sum", get(sum))
        .route("/a/{value}", get(set_a))
        .route("/b/{value}", get(set_b))
        .route("/append/{value}", get(append))
        .route("/discard/{value}", get(discard))
        .route("/renew", get(renew))
        .route("/destroy", get(destroy))
}

async fn begin(Path(owner): Path<u64>, session: Session<History>) {
    session.write().await.set_owner(owner);
}

async fn show(session: Session<History>) -> String {
    let s = session.read().await;
    let list = s.list().iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    format!("{} {} {} {} {} {} {} [{list}]", s.owner, s.add, s.update, s.lock, s.sum, s.a, s.b)
}

/// A request whose cookie has died writes nothing: it would begin a session of its own.
fn ended(session: &Session<History>) -> bool {
    session.began_in_request()
}

const ENDED: &str = "ended";
const DONE: &str = "done";

async fn add(session: Session<History>) -> &'static str {
    if ended(&session) {
        return ENDED;
    }
    let mut s = session.write().await;
    let before = s.add;
    tokio::task::yield_now().await;
    s.set_add(before + 1);
    DONE
}

async fn update(session: Session<History>) -> Result<&'static str> {
    if ended(&session) {
        return Ok(ENDED);
    }
    session.update(|s| *s.update_mut() += 1).await?;
    Ok(DONE)
}

async fn lock(session: Session<History>) -> Result<&'static str> {
    if ended(&session) {
        return Ok(ENDED);
    }
    let mut s = session.lock().await?;
    let before = s.lock;
    tokio::time::sleep(std::time::Duration::from_millis(before % 3)).await;
    s.set_lock(before + 1);
    drop(s);
    session.save().await?;
    Ok(DONE)
}

async fn sum(session: Session<History>) -> Result<&'static str> {
    if ended(&session) {
        return Ok(ENDED);
    }
    // By both ways in turn.
    if session.read().await.sum.is_multiple_of(2) {
        session.update(|s| *s.sum_mut() += 1).await?;
    } else {
        *session.write().await.sum_mut() += 1;
        session.save().await?;
    }
    Ok(DONE)
}

async fn set_a(Path(value): Path<u64>, session: Session<History>) -> &'static str {
    if ended(&session) {
        return ENDED;
    }
    session.write().await.set_a(value);
    DONE
}

async fn set_b(Path(value): Path<u64>, session: Session<History>) -> Result<&'static str> {
    if ended(&session) {
        return Ok(ENDED);
    }
    session.write().await.set_b(value);
    session.save().await?;
    Ok(DONE)
}

async fn append(Path(value): Path<u64>, session: Session<History>) -> &'static str {
    if ended(&session) {
        return ENDED;
    }
    session.write().await.list_mut().push(value);
    DONE
}

async fn discard(Path(value): Path<u64>, session: Session<History>) -> &'static str {
    if ended(&session) {
        return ENDED;
    }
    session.write().await.list_mut().push(value);
    session.discard_request_changes();
    DONE
}

async fn renew(session: Session<History>) -> Result<&'static str> {
    if ended(&session) {
        return Ok(ENDED);
    }
    session.renew_id().await?;
    Ok(DONE)
}

async fn destroy(session: Session<History>) -> Result<&'static str> {
    if ended(&session) {
        return Ok(ENDED);
    }
    session.destroy().await?;
    Ok(DONE)
}
