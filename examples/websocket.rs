//! A session that is used after its response has left: a websocket counts messages in it, and is closed
//! when the session ends.
//!
//! Run it with `cargo run -p sessions-examples --bin websocket`, and open the page in two tabs:
//! they are two connections of one session. It listens on port 3000, or the one that is its argument.
//!
//! ```text
//! cargo add axum --features ws
//! cargo add sessions
//! cargo add tokio --features macros,net,rt-multi-thread
//! ```

use std::pin::pin;

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    response::{Html, Redirect, Response},
    routing::{any, get, post},
};
use sessions::{Keys, MemoryStore, Session, SessionLayer};
use tokio::net::TcpListener;

#[derive(Session)]
struct Chatter {
    connections: u32,
    messages: u32,
}

const PAGE: &str = r#"<!doctype html><html lang=en><meta charset=utf-8><title>Websocket</title>
<form><label>Message <input autofocus autocomplete=off></label> <button>Send</button></form>
<ol aria-live=polite></ol>
<script>
  const socket = new WebSocket("/socket");
  const show = (text) => document.querySelector("ol").appendChild(
    Object.assign(document.createElement("li"), { textContent: text }));
  socket.onmessage = (event) => show(event.data);
  socket.onclose = () => show("The connection is closed.");
  document.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    socket.send(document.querySelector("input").value);
    event.target.reset();
  };
</script></html>"#;

/// The page asks for no session, so that the websocket's request may be the one that begins it.
async fn page() -> Html<&'static str> {
    Html(PAGE)
}

async fn connect(upgrade: WebSocketUpgrade, session: Session<Chatter>) -> Response {
    // A new session's cookie travels with the response, so the session has to be written before
    // the upgrade response leaves. Later there is no response to put a cookie on, and `save` would
    // fail with `ErrorKind::NoCookie`.
    *session.write().await.connections_mut() += 1;
    upgrade.on_upgrade(|socket| async move {
        if let Err(error) = talk(socket, session).await {
            eprintln!("a connection ended: {error}");
        }
    })
}

async fn talk(mut socket: WebSocket, session: Session<Chatter>) -> Result<(), axum::BoxError> {
    let mut ended = pin!(session.ended());
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            // By a logout in another tab, or in another process, or because its time is over.
            _ = &mut ended => return Ok(socket.send(Message::Close(None)).await?),
        };
        let Some(message) = message else { return Ok(()) };
        let Message::Text(text) = message? else { continue };
        let answer = {
            // Not held while waiting for the next message: other requests want their turn.
            let mut s = session.write().await;
            *s.messages_mut() += 1;
            format!("“{text}” is message {} ({} connections so far)", s.messages, s.connections)
        };
        // Nobody saves after the response but we. An error here says that the session has ended
        // just now, or that the store is down.
        session.save().await?;
        socket.send(answer.into()).await?;
    }
}

/// Ends the session, and with it every connection that uses it.
async fn leave(session: Session<Chatter>) -> sessions::Result<Redirect> {
    session.destroy().await?;
    Ok(Redirect::to("/"))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new()
        .route("/", get(page))
        .route("/socket", any(connect))
        .route("/leave", post(leave))
        // A browser opens a websocket for the page of any site, with the cookies of its visitor. The
        // layer lets pages of this site alone do so. A handler can ask for itself: `OriginCheck`.
        .layer(Chatter::csrf_layer())
        .layer(SessionLayer::<Chatter>::new(MemoryStore::new(), Keys::generate()));
    let port = std::env::args().nth(1).unwrap_or("3000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("websocket listens on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
