//! A login whose store fails or whose client hangs up is a whole login, or none.

use sessions::{Session, testing::Operation};
use sessions_tests::eventually;

use super::{Customer, Shop, shop_with};
use crate::{COOKIE, hold_the_next};

#[tokio::test]
async fn a_login_that_the_store_refuses_changes_nothing() {
    let shop = Shop::start().await;
    let client = shop.visitor().await;
    let cookie = client.cookie(COOKIE);
    for operation in [Operation::Create, Operation::Replace] {
        shop.store.fail_next(operation, 1);
        assert_eq!(client.get("/login/7").await.status, 503, "{operation:?}");
        assert_eq!(client.cookie(COOKIE), cookie);
        assert_eq!(client.get("/who").await.text(), "None");
        assert_eq!(client.get("/cart").await.text(), "[1]");
        assert_eq!((shop.store.store().len(), shop.sessions_of("7").await), (1, 0));
    }
    client.get("/login/7").await.text();
    assert_eq!(client.get("/account").await.text(), "user 7 with 1 items");

    let visitor = shop.client();
    shop.store.fail_next(Operation::Create, 1);
    assert_eq!(visitor.get("/login/7").await.status, 503);
    assert_eq!((visitor.cookie(COOKIE), shop.sessions_of("7").await), (None, 1));
}

#[tokio::test]
async fn without_the_visitors_data_a_login_that_fails_changes_nothing_either() {
    async fn afresh(session: Session<Customer>) -> sessions::Result<()> {
        session.login(7).without_earlier_data().await
    }
    let shop = shop_with("/afresh", afresh).await;
    let client = shop.visitor().await;
    const ALL: u64 = u64::MAX;
    for (operation, deletes, left) in
        [(Operation::Create, ALL, 1), (Operation::Replace, 1, 1), (Operation::Replace, ALL, 2)]
    {
        // Of the last, the record that nobody got to know cannot be taken back, however often that is tried.
        shop.store.fail_next(operation, 1);
        shop.store.fail_next(Operation::Delete, deletes);
        assert_eq!(client.get("/afresh").await.status, 503, "{operation:?}");
        shop.store.heal(Operation::Delete);
        assert_eq!(client.get("/who").await.text(), "None");
        assert_eq!(client.get("/cart").await.text(), "[1]");
        assert_eq!(shop.store.store().len(), left);
    }
}

#[tokio::test]
async fn a_login_is_carried_to_its_end_when_the_client_hangs_up() {
    let shop = Shop::start().await;
    // It creates the new record, and replaces the old one twice.
    let steps = [(Operation::Create, 1), (Operation::Replace, 1), (Operation::Replace, 2)];
    for (user, (operation, times)) in (100..).zip(steps) {
        let client = shop.visitor().await;
        let before = client.copy();
        let mut gate = shop.store.hold(operation);
        let request = client.spawn_get(&format!("/login/{user}"));
        for _ in 1..times {
            gate = hold_the_next(&shop.store, gate, operation).await;
        }
        gate.wait_for_caller().await;
        request.abort();
        gate.release();
        eventually("the login is done", async || {
            shop.sessions_of(&user.to_string()).await == 1 && shop.layer.sessions_in_use() == 0
        })
        .await;
        assert_eq!(before.get("/cart").await.text(), "[]", "{operation:?}: the old id is dead");
    }
}
