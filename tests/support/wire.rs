//! A server in memory that tells its clients what changes, over connections that take their time, stand
//! still and end: what Redis does with `CLIENT TRACKING … NOLOOP`, in a time that a test can stop.
//!
//! Each client has one connection at a time, on which questions arrive in order, and answers and news in
//! the order in which the server sent them. The server tells a client of a change of a key that it has
//! read since the last one, unless the client has made the change itself.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use sessions::{
    Created, MemoryStore, Record, Replaced, Store, StoreError, StoreKey,
    store::{Around, Feed, Watch, Watcher},
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep},
};

use crate::history::Random;

/// The server.
pub struct WireServer {
    memory: MemoryStore,
    wires: Mutex<Vec<Arc<Wire>>>,
    /// One question at a time is carried out.
    busy: tokio::sync::Mutex<()>,
    random: Mutex<Random>,
    longest: Duration,
}

/// A client of a [`WireServer`], as one process has it. Clones share the connection.
#[derive(Clone)]
pub struct WireStore(Arc<Client>);

struct Client {
    server: Arc<WireServer>,
    watcher: Mutex<Option<Watcher>>,
    current: Mutex<Option<Connection>>,
    is_frozen: Arc<AtomicBool>,
    thaws: Arc<Notify>,
}

#[derive(Clone)]
struct Connection {
    wire: Arc<Wire>,
    questions: mpsc::UnboundedSender<(Question, oneshot::Sender<Answer>)>,
    feed: Option<Feed>,
}

/// The server's end of a connection.
struct Wire {
    read: Mutex<HashSet<StoreKey>>,
    sends: mpsc::UnboundedSender<Message>,
    is_cut: AtomicBool,
    cut: Notify,
}

enum Message {
    Changed(StoreKey),
    AllChanged,
    Answer(Answer, oneshot::Sender<Answer>),
}

#[derive(Clone)]
enum Question {
    Load(StoreKey),
    Create(StoreKey, Record),
    Replace(StoreKey, Record, u64),
    Touch(StoreKey, SystemTime),
    Delete(StoreKey),
    Nothing,
}

enum Answer {
    Loaded(Option<Record>),
    Created(Created),
    Replaced(Replaced),
    Deleted(bool),
    Nothing,
}

impl WireServer {
    /// One whose messages take up to so long, each way.
    pub fn new(memory: MemoryStore, seed: u64, longest: Duration) -> Arc<Self> {
        let random = Mutex::new(Random(seed));
        let (wires, busy) = Default::default();
        Arc::new(Self { memory, wires, busy, random, longest })
    }

    /// One more process.
    pub fn client(self: &Arc<Self>) -> WireStore {
        WireStore(Arc::new(Client {
            server: self.clone(),
            watcher: Mutex::default(),
            current: Mutex::default(),
            is_frozen: Arc::default(),
            thaws: Arc::default(),
        }))
    }

    /// Tells all who are connected that everything may have changed.
    pub fn tell_all(&self) {
        for wire in &*self.wires.lock().unwrap() {
            let _ = wire.sends.send(Message::AllChanged);
        }
    }

    async fn take_time(&self) {
        if self.longest.is_zero() {
            return;
        }
        let share = self.random.lock().unwrap().below(1000) as f64 / 1000.0;
        sleep(self.longest.mul_f64(share)).await;
    }

    /// A caller does not always look at once at an answer that has arrived: news that came behind the answer
    /// are told before that then.
    async fn be_busy(&self) {
        if self.random.lock().unwrap().below(4) == 0 {
            self.take_time().await;
        }
    }

    /// As a whole, together with what is sent because of it.
    async fn carry_out(&self, question: Question, wire: &Arc<Wire>) -> Answer {
        let _busy = self.busy.lock().await;
        let failed = "a memory store does not fail";
        let (answer, changed, read) = match question {
            Question::Load(key) => {
                let found = self.memory.load(&key).await.expect(failed);
                (Answer::Loaded(found), None, Some(key))
            }
            Question::Create(key, record) => {
                let created = self.memory.create(&key, &record).await.expect(failed);
                let changed = (created == Created::Done).then_some(key);
                (Answer::Created(created), changed, Some(key))
            }
            Question::Replace(key, record, based_on) => {
                let replaced = self.memory.replace(&key, &record, based_on).await.expect(failed);
                let changed = (replaced == Replaced::Done).then_some(key);
                (Answer::Replaced(replaced), changed, Some(key))
            }
            Question::Touch(key, expires_at) => {
                self.memory.touch(&key, expires_at).await.expect(failed);
                (Answer::Nothing, Some(key), None)
            }
            Question::Delete(key) => {
                let deleted = self.memory.delete(&key).await.expect(failed);
                (Answer::Deleted(deleted), Some(key), None)
            }
            Question::Nothing => (Answer::Nothing, None, None),
        };
        if let Some(key) = changed {
            for other in &*self.wires.lock().unwrap() {
                let was_read = other.read.lock().unwrap().remove(&key);
                if was_read && !Arc::ptr_eq(other, wire) {
                    let _ = other.sends.send(Message::Changed(key));
                }
            }
        }
        if let Some(key) = read {
            wire.read.lock().unwrap().insert(key);
        }
        answer
    }
}

impl WireStore {
    /// Neither answers nor news get through any more, until [`thaw`](Self::thaw): a path that stands
    /// still, and a connection that lives. What is asked the server carries out all the same.
    pub fn freeze(&self) {
        self.0.is_frozen.store(true, SeqCst);
    }

    /// What has stood still goes on.
    pub fn thaw(&self) {
        self.0.is_frozen.store(false, SeqCst);
        self.0.thaws.notify_waiters();
    }

    /// Ends the connection. What the server has been sent it may still carry out.
    pub fn cut(&self) {
        let connection = self.0.current.lock().unwrap().take();
        if let Some(Connection { wire, feed, .. }) = connection {
            self.0.server.wires.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &wire));
            wire.is_cut.store(true, SeqCst);
            wire.cut.notify_waiters();
            if let Some(feed) = feed {
                feed.end();
            }
        }
    }

    fn connection(&self) -> Connection {
        let client = &self.0;
        let mut current = client.current.lock().unwrap();
        if let Some(connection) = &*current {
            return connection.clone();
        }
        let (sends, sent) = mpsc::unbounded_channel();
        let (questions, asked) = mpsc::unbounded_channel();
        let (is_cut, cut) = Default::default();
        let wire = Arc::new(Wire { read: Mutex::default(), sends, is_cut, cut });
        client.server.wires.lock().unwrap().push(wire.clone());
        let feed = client.watcher.lock().unwrap().as_ref().map(Watcher::feed);
        tokio::spawn(serve(self.path(), wire.clone(), asked));
        tokio::spawn(deliver(self.path(), wire.clone(), sent, feed.clone()));
        let connection = Connection { wire, questions, feed };
        *current = Some(connection.clone());
        connection
    }

    fn path(&self) -> Path {
        let Client { server, is_frozen, thaws, .. } = &*self.0;
        Path { server: server.clone(), is_frozen: is_frozen.clone(), thaws: thaws.clone() }
    }

    async fn ask(
        &self,
        operation: &'static str,
        question: Question,
    ) -> Result<(Answer, Option<Feed>), StoreError> {
        let Connection { questions, feed, .. } = self.connection();
        let (answers, answer) = oneshot::channel();
        let sent = Instant::now();
        let _ = questions.send((question, answers));
        match answer.await {
            Ok(answer) => {
                self.0.server.be_busy().await;
                if let Some(feed) = &feed {
                    feed.confirm(sent.into_std());
                }
                Ok((answer, feed))
            }
            Err(cut) => Err(StoreError::new("wire", operation, cut)),
        }
    }
}

struct Path {
    server: Arc<WireServer>,
    is_frozen: Arc<AtomicBool>,
    thaws: Arc<Notify>,
}

impl Path {
    /// Waits until what the server has sent gets through.
    async fn pass(&self) {
        self.server.take_time().await;
        loop {
            let thaws = self.thaws.notified();
            if !self.is_frozen.load(SeqCst) {
                return;
            }
            thaws.await;
        }
    }
}

/// What arrives at the server it carries out, whether the connection is still there or not.
async fn serve(
    path: Path,
    wire: Arc<Wire>,
    mut asked: mpsc::UnboundedReceiver<(Question, oneshot::Sender<Answer>)>,
) {
    while let Some((question, answers)) = asked.recv().await {
        path.server.take_time().await;
        let answer = path.server.carry_out(question, &wire).await;
        let _ = wire.sends.send(Message::Answer(answer, answers));
    }
}

async fn deliver(
    path: Path,
    wire: Arc<Wire>,
    mut sent: mpsc::UnboundedReceiver<Message>,
    feed: Option<Feed>,
) {
    loop {
        let cut = wire.cut.notified();
        if wire.is_cut.load(SeqCst) {
            return;
        }
        let next = async {
            let message = sent.recv().await;
            path.pass().await;
            message
        };
        let message = tokio::select! {
            message = next => message,
            () = cut => return,
        };
        match (message, &feed) {
            (None, _) => return,
            (Some(Message::Answer(answer, answers)), _) => drop(answers.send(answer)),
            (Some(Message::Changed(key)), Some(feed)) => feed.changed(&key),
            (Some(Message::AllChanged), Some(feed)) => feed.forget_all(),
            (Some(_), None) => {}
        }
    }
}

impl Store for WireStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        Ok(self.load_watched(key).await?.0)
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let _around = self.around(key);
        Ok(self.create_watched(key, record).await?.0)
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let _around = self.around(key);
        Ok(self.replace_watched(key, record, based_on).await?.0)
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        let _around = self.around(key);
        self.ask("touch", Question::Touch(*key, expires_at)).await?;
        Ok(())
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let _around = self.around(key);
        match self.ask("delete", Question::Delete(*key)).await? {
            (Answer::Deleted(deleted), _) => Ok(deleted),
            _ => unreachable!("answers come in order"),
        }
    }
}

impl WireStore {
    fn around(&self, key: &StoreKey) -> Option<Around> {
        self.0.watcher.lock().unwrap().as_ref().map(|watcher| watcher.around(key))
    }
}

impl Watch for WireStore {
    fn watch(&self, watcher: &Watcher) -> Result<(), StoreError> {
        let mut known = self.0.watcher.lock().unwrap();
        if known.as_ref().is_some_and(|known| !known.is_closed()) {
            return Err(StoreError::permanent("wire", "watch", "there is a near cache already"));
        }
        *known = Some(watcher.clone());
        drop(known);
        self.cut();
        Ok(())
    }

    async fn load_watched(
        &self,
        key: &StoreKey,
    ) -> Result<(Option<Record>, Option<Feed>), StoreError> {
        match self.ask("load", Question::Load(*key)).await? {
            (Answer::Loaded(found), feed) => Ok((found, feed)),
            _ => unreachable!("answers come in order"),
        }
    }

    async fn create_watched(
        &self,
        key: &StoreKey,
        record: &Record,
    ) -> Result<(Created, Option<Feed>), StoreError> {
        match self.ask("create", Question::Create(*key, record.clone())).await? {
            (Answer::Created(created), feed) => Ok((created, feed)),
            _ => unreachable!("answers come in order"),
        }
    }

    async fn replace_watched(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<(Replaced, Option<Feed>), StoreError> {
        match self.ask("replace", Question::Replace(*key, record.clone(), based_on)).await? {
            (Answer::Replaced(replaced), feed) => Ok((replaced, feed)),
            _ => unreachable!("answers come in order"),
        }
    }

    async fn renew(&self, _feed: &Feed) {
        let _ = self.ask("renew", Question::Nothing).await;
    }
}
