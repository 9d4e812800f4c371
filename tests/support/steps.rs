//! A place at which a test stops what it looks at.

use std::sync::Arc;

use tokio::sync::Notify;

/// Lets a test stop a handler, a task or a layer in the middle.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// Told when the place is reached.
    pub arrived: Arc<Notify>,
    /// Told by the test, to go on.
    pub go_on: Arc<Notify>,
}

impl Steps {
    /// Tells the test that the place is reached, and waits until the test says to go on.
    pub async fn stop(&self) {
        self.arrived.notify_one();
        self.go_on.notified().await;
    }
}
