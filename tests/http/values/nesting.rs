//! What is nested too deeply is refused where it is set, and not read from a store that has it all the
//! same: nobody's stack ends.

use tokio::sync::Notify;
use zeroize::Zeroize;

use super::*;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tree {
    children: Vec<Tree>,
}

impl Zeroize for Tree {
    fn zeroize(&mut self) {
        self.children.clear();
    }
}

impl Tree {
    /// Two levels a node: its field, and the list in that.
    fn of(nodes: usize) -> Self {
        (1..nodes).fold(Self::default(), |of, _| Self { children: vec![of] })
    }

    fn height(&self) -> usize {
        1 + self.children.iter().map(Self::height).max().unwrap_or(0)
    }
}

/// Puts ours into theirs.
fn graft(_: &Tree, theirs: &Tree, ours: &Tree) -> Tree {
    match theirs.children.first() {
        Some(first) => Tree { children: vec![graft(ours, first, ours)] },
        None => Tree { children: vec![ours.clone()] },
    }
}

#[derive(Session)]
struct Garden {
    tree: Tree,
    #[session(codec = json)]
    readable: Tree,
    #[session(flash)]
    cut: Option<Tree>,
    #[session(ttl = "1h")]
    blooms: Tree,
    #[session(secret)]
    hidden: Secret<Tree>,
    #[session(merge = union)]
    union: Vec<Value>,
    #[session(merge = graft)]
    grafted: Tree,
}

fn value(lists: usize) -> Value {
    (0..lists).fold(json!(1), |of, _| json!([of]))
}

#[tokio::test]
async fn what_is_nested_too_deeply_is_refused_in_every_field() {
    const DEEP: &[Set<Garden>] = &[
        |s| {
            s.set_tree(Tree::of(33));
            s.take_blooms();
        },
        |s| *s.readable_mut() = Tree::of(33),
        |s| {
            s.set_cut(Tree::of(33));
        },
        |s| *s.blooms_mut() = Tree::of(33),
        |s| *s.hidden_mut() = Secret::new(Tree::of(33)),
        |s| s.union_mut().push(value(64)),
        |s| *s.grafted_mut() = Tree::of(1_000),
    ];
    const FITS: &[Set<Garden>] = &[|s| {
        s.set_tree(Tree::of(32));
        s.set_readable(Tree::of(32));
        s.set_cut(Tree::of(31));
        s.set_blooms(Tree::of(32));
        s.set_hidden(Secret::new(Tree::of(31)));
        s.union_mut().push(value(63));
        s.set_grafted(Tree::of(32));
    }];
    fn heights(it: &Garden) -> String {
        let Garden { tree, readable, cut, blooms, hidden, union, grafted } = it;
        let cut = cut.as_ref().map(Tree::height);
        let trees = [tree, readable, blooms, hidden.expose(), grafted].map(Tree::height);
        format!("{trees:?} {cut:?} {}", union == &[value(63)])
    }
    let fields = ["tree", "readable", "cut", "blooms", "hidden", "union", "grafted"];
    for codec in CODECS {
        let said = set_and_show(codec, DEEP, heights).await;
        assert_eq!(said.len(), fields.len());
        for (said, field) in said.into_iter().zip(fields) {
            let said = said.unwrap_err();
            for part in [&*format!("`{field}`"), "nested more than 64 levels deep", "store it flat"]
            {
                assert!(said.contains(part), "{said}");
            }
        }
        let shown = set_and_show(codec, FITS, heights).await;
        assert_eq!(shown, [Ok("[32, 32, 32, 31, 32] Some(31) true".to_string())], "{codec}");
    }
}

/// Two processes have a tree each, which fits, and what becomes of the two does not.
#[tokio::test]
async fn what_a_merge_nests_too_deeply_is_refused() {
    let (arrived, go_on) = (leak(Notify::new()), leak(Notify::new()));
    let said = leak(Mutex::new(None));
    let pair = Pair::new::<Garden>(Codec::Bincode, || {
        let set = async |Path(nodes): Path<usize>, session: Session<Garden>| {
            session.write().await.set_grafted(Tree::of(nodes));
        };
        let set_slowly = async move |session: Session<Garden>| {
            session.write().await.set_grafted(Tree::of(20));
            arrived.notify_one();
            go_on.notified().await;
            *said.lock().unwrap() = session.save().await.err().map(|error| error.to_string());
        };
        let read =
            async |session: Session<Garden>| session.read().await.grafted().height().to_string();
        let routes = Router::new().route("/set/{nodes}", get(set)).route("/read", get(read));
        routes.route("/set_slowly", get(set_slowly))
    })
    .await;
    pair.client.get("/set/2").await.text();
    let other = pair.other();
    let slow = tokio::spawn(async move { other.get("/set_slowly").await.status });
    arrived.notified().await;
    pair.client.get("/set/25").await.text();
    go_on.notify_one();
    assert_eq!(slow.await.unwrap(), 500);
    let said = said.lock().unwrap().take().unwrap();
    assert!(said.contains("`grafted`") && said.contains("store it flat"), "{said}");
    assert_eq!(pair.client.get("/read").await.text(), "25");
    pair.client.get("/set/32").await.text();
}

fn leak<V>(value: V) -> &'static V {
    Box::leak(Box::new(value))
}

/// A field of a stored payload.
fn entry(key: &str, body: &[u8]) -> Vec<u8> {
    let length =
        [body.len() as u8 | 0x80, (body.len() >> 7) as u8 | 0x80, (body.len() >> 14) as u8];
    [&[key.len() as u8], key.as_bytes(), &length, body].concat()
}

#[derive(Session)]
struct Grown {
    tree: Tree,
    value: Value,
    #[session(flash)]
    cut: Option<Tree>,
    #[session(ttl = "1h")]
    blooms: Tree,
    #[session(merge = union)]
    union: Vec<Value>,
    visits: u32,
}

#[tokio::test]
async fn what_a_store_has_all_the_same_is_not_read() {
    const LAYERS: usize = 100_000;
    let messagepack = |open: &[u8], leaf: &[u8]| [&[4], &open.repeat(LAYERS)[..], leaf].concat();
    let json = |open: &str, leaf: &str, close: &str| {
        [&[3], (open.repeat(LAYERS) + leaf + &close.repeat(LAYERS)).as_bytes()].concat()
    };
    let in_messagepack = [
        messagepack(b"\x81\xa8children\x91", b"\x81\xa8children\x90"),
        messagepack(b"\x91", b"\x90"),
    ];
    let in_json = [json(r#"{"children":["#, r#"{"children":[]}"#, "]}"), json("[", "", "]")];
    for [tree, lists] in [in_messagepack, in_json] {
        let fields = [("tree", &tree), ("value", &lists), ("cut", &tree), ("blooms", &tree)];
        let fields = fields.into_iter().chain([("union", &lists)]);
        let mut payload = vec![b"\x01\x00\x06visits\x03\x05\x03\x07".to_vec()];
        payload.extend(fields.map(|(key, body)| entry(key, body)));
        let payload: Vec<&[u8]> = payload.iter().map(Vec::as_slice).collect();
        earlier::read(&payload, |it: &Grown| {
            let Grown { tree, value, cut, blooms, union, visits } = it;
            assert_eq!((tree, value, cut, blooms), (&Tree::default(), &Value::Null, &None, tree));
            assert_eq!((union.len(), visits), (0, &7));
        })
        .await;
    }
}
