// An open account page does not outlive its login, wherever that is ended: the shop tells.
"use strict";

const login = new EventSource("/account/live");
const end = (where) => {
  login.close();
  location.assign(where);
};
login.addEventListener("ended", () => end("/login?next=/account"));
// Another tab has a new login, and so has this browser.
login.addEventListener("renewed", () => end("/account"));
// A form leads somewhere itself: what it ends is no news.
document.addEventListener("submit", () => login.close());
