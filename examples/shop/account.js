// An open account page does not outlive its login, wherever that is ended: the shop tells.
"use strict";

const LIVE = "/account/live";
let login;

const end = (where) => {
  login.close();
  location.assign(where);
};

const listen = () => {
  login = new EventSource(LIVE);
  login.addEventListener("ended", () => end("/login?next=/account"));
  // Another tab has a new login, and so has this browser.
  login.addEventListener("renewed", () => end("/account"));
  // The browser connects again by itself when the connection is lost. After any other answer than a stream,
  // as a proxy's 502 in a deploy, or the way to the login, it never does.
  login.addEventListener("error", () => {
    if (login.readyState === EventSource.CLOSED) setTimeout(ask, 3000);
  });
};

const ask = async () => {
  const request = new AbortController();
  const answer = await fetch(LIVE, { cache: "no-store", signal: request.signal }).catch(() => null);
  request.abort();
  if (answer?.redirected || answer?.status === 401) end("/login?next=/account");
  else listen();
};

// A form leads somewhere itself: what it ends is no news.
document.addEventListener("submit", () => login.close());
listen();
