//! The same application on `sessions` and on its peers, each as its documentation recommends, with
//! sessions in memory and signed cookies.
//!
//! | route | does |
//! | --- | --- |
//! | `/begin` | writes the user's name, which begins the session |
//! | `/name` | reads it |
//! | `/count` | reads the counter, waits 2 ms, writes one more |
//! | `/counter` | reads it |
//! | `/set/{field}` | writes one of five fields |
//! | `/fields` | counts the fields that are set |
//! | `/slow` | reads the session, waits 50 ms, writes the counter |
//! | `/logout` | ends the session |

pub mod axum_session;
pub mod sessions;
pub mod tower_sessions;

use std::time::Duration;

/// Between reading and writing the counter.
const PAUSE: Duration = Duration::from_millis(2);
/// Of the slow request.
const LONG_PAUSE: Duration = Duration::from_millis(50);
