//! Code of the application's that runs in the middle of a response's save: what counts and logs for the layer.

use std::{
    convert::Infallible,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use http::{Request, Response, header};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use sessions::{Keys, MemoryStore, Session, SessionLayer};
use tower::{Layer, ServiceExt, service_fn};
use tracing::{Subscriber, span, subscriber::Interest};

#[derive(Session)]
struct Customer {
    #[session(user)]
    user: Option<u64>,
    cart: Vec<u32>,
}

/// Does something, once, when this counter is about to count.
struct OnCount {
    counter: &'static str,
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl OnCount {
    fn new(counter: &'static str, hook: impl FnOnce() + Send + 'static) -> Self {
        Self { counter, hook: Mutex::new(Some(Box::new(hook))) }
    }
}

impl Recorder for OnCount {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() == self.counter {
            let hook = self.hook.lock().unwrap().take();
            hook.into_iter().for_each(|hook| hook());
        }
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// One request with this cookie, whose response, or panic, is given.
async fn request<F>(
    layer: &SessionLayer<Customer>,
    cookie: &str,
    handler: impl FnOnce(Session<Customer>) -> F + Send + 'static,
) -> Result<Response<String>, tokio::task::JoinError>
where
    F: Future<Output = String> + Send + 'static,
{
    let mut handler = Some(handler);
    let service = layer.layer(service_fn(move |request: Request<()>| {
        let handler = handler.take().unwrap();
        async move {
            let session = Session::<Customer>::open(request.extensions()).await.unwrap();
            Ok::<_, Infallible>(Response::new(handler(session).await))
        }
    }));
    let request = Request::builder().header(header::COOKIE, cookie).body(()).unwrap();
    // In a task, which catches a panic.
    let response = tokio::spawn(async move { service.oneshot(request).await.unwrap() }).await?;
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Ok(Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap()))
}

async fn adds(session: Session<Customer>) -> String {
    session.write().await.cart_mut().push(7);
    String::new()
}

async fn shows(session: Session<Customer>) -> String {
    let s = session.read().await;
    format!("{:?} {:?}", s.user(), s.cart())
}

fn set_cookie(response: &Response<String>) -> &str {
    response.headers()[header::SET_COOKIE].to_str().unwrap()
}

fn cookie(response: &Response<String>) -> &str {
    set_cookie(response).split(';').next().unwrap()
}

#[tokio::test]
async fn a_recorder_that_panics_when_a_response_has_saved_takes_its_response_alone() {
    let layer = SessionLayer::<Customer>::new(MemoryStore::new(), Keys::generate());
    let begun = request(&layer, "", adds).await.unwrap();
    {
        let recorder = OnCount::new("sessions_saved_total", || panic!("the recorder's"));
        let _here = metrics::set_default_local_recorder(&recorder);
        assert!(request(&layer, cookie(&begun), adds).await.unwrap_err().is_panic());
    }
    assert_eq!(request(&layer, cookie(&begun), shows).await.unwrap().body(), "None [7, 7]");
    assert_eq!(layer.sessions_in_use(), 0);
}

/// Panics once when it is armed.
struct PanicsOnce;

static IS_ARMED: AtomicBool = AtomicBool::new(false);

impl Subscriber for PanicsOnce {
    fn register_callsite(&self, _: &'static tracing::Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        assert!(!IS_ARMED.swap(false, SeqCst), "the subscriber's");
        false
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Both where the response has the only handle, and where it has not.
#[tokio::test]
async fn what_a_request_has_written_is_saved_although_a_subscriber_panics_before_the_save() {
    let layer = SessionLayer::<Customer>::new(MemoryStore::new(), Keys::generate());
    let begun = request(&layer, "", adds).await.unwrap();
    let _here = tracing::subscriber::set_default(PanicsOnce);
    // A place that logs and that another test's thread, which has no subscriber, meets first is silent here as well.
    // So all places that log in a save are met once, and then asked about again.
    request(&layer, cookie(&begun), adds).await.unwrap();
    tracing::callsite::rebuild_interest_cache();
    for (is_alone, cart) in [(true, "[7, 7, 7]"), (false, "[7, 7, 7, 7]")] {
        let (leave, left) = mpsc::channel();
        let handler = async move |session: Session<Customer>| {
            adds(session.clone()).await;
            if !is_alone {
                leave.send(session).unwrap();
            }
            IS_ARMED.store(true, SeqCst);
            String::new()
        };
        assert!(request(&layer, cookie(&begun), handler).await.unwrap_err().is_panic());
        layer.wait_for_background_saves().await;
        let shown = request(&layer, cookie(&begun), shows).await.unwrap();
        assert_eq!(*shown.body(), format!("None {cart}"), "alone: {is_alone}");
        drop(left);
    }
}

/// A task of the request, in a thread of its own, logs in while the response saves what was there before: from the
/// save until the response looks which session it has.
#[tokio::test]
async fn the_cookie_of_a_login_in_the_middle_of_a_response_lasts_as_long_as_the_login() {
    const MONTH: Duration = Duration::from_secs(30 * 24 * 3_600);
    let layer = SessionLayer::<Customer>::new(MemoryStore::new(), Keys::generate());
    let (arrive, arrived) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel();
    let handler = async move |session: Session<Customer>| {
        adds(session.clone()).await;
        thread::spawn(move || {
            // The login's session is stored, and is not the request's yet.
            let hook = move || {
                arrive.send(()).unwrap();
                may_go_on.recv().unwrap();
            };
            let recorder = OnCount::new("sessions_begun_total", hook);
            let _here = metrics::set_default_local_recorder(&recorder);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let login = session.login(1).without_earlier_data().remember_for(MONTH);
            done.send(runtime.block_on(login.into_future())).unwrap();
        });
        arrived.recv().unwrap();
        String::new()
    };
    let recorder = OnCount::new("sessions_begun_total", move || {
        go_on.send(()).unwrap();
        is_done.recv().unwrap().unwrap();
    });
    let response = {
        let _here = metrics::set_default_local_recorder(&recorder);
        request(&layer, "", handler).await.unwrap()
    };
    assert!(set_cookie(&response).contains("Max-Age"), "{}", set_cookie(&response));
    assert_eq!(request(&layer, cookie(&response), shows).await.unwrap().body(), "Some(1) []");
}
