//! Logins at another provider in Chromium, who decides by itself which cookies come along.

use tokio::runtime::Runtime;

use crate::{COOKIE, provider, webdriver::Browser};

#[test]
fn a_provider_that_redirects_or_posts_a_form_leads_back_to_the_same_session() {
    for (name, mode) in [("redirected", None), ("form-posted", Some("form_post"))] {
        let Some(browser) = Browser::start(name) else { return };
        let runtime = Runtime::new().expect("a runtime");
        let provider = runtime.block_on(provider::start(|_| provider::KEY));
        // Another site than the shop's, which is at `127.0.0.1`.
        let issuer = format!("http://localhost:{}", provider.client().address().port());
        let (_shop, address) = provider::start_shop(&issuer, mode);
        let text = |selector| {
            browser.script(&format!("return document.querySelector('{selector}').innerText"))
        };
        let shows = |hello: &str| {
            // The provider's page leads on by itself.
            browser.until(&format!("document.querySelector('h1')?.innerText === '{hello}'"));
            let path = browser.script("return location.pathname + location.search");
            assert_eq!((path, text("p")), ("/".into(), "1 teapots".into()), "{name}");
        };
        browser.go(&format!("http://{address}/"));
        browser.follow("[formaction='/cart']");
        shows("Hello, nobody");
        let before = browser.cookie(COOKIE).expect("a session");
        assert_eq!(before["sameSite"], "Lax");
        browser.follow("[formaction='/login']");
        shows("Hello, ada <1> & co");
        let after = browser.cookie(COOKIE).expect("a session");
        assert_eq!(after["sameSite"], "Lax");
        assert_ne!(after["value"], before["value"], "{name}");
    }
}
