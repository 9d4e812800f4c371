// The race: the one thing in the shop that needs a script.
"use strict";

const RUNNERS = 50;
const start = document.querySelector("#start");
const track = document.querySelector("#track");
const result = document.querySelector("#result");
let running = false;

// Without the token, the shop would take the requests for another site's.
const headers = { "x-csrf-token": document.querySelector("meta[name=csrf-token]").content };

const post = async (path) => {
  const response = await fetch(path, { method: "POST", headers });
  if (response.status === 403) throw new Error("this page is out of date, please load it again");
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return response.text();
};

const show = (text, kind = "") => {
  result.textContent = text;
  result.className = `result ${kind}`;
};

const race = async () => {
  await post("/race/finish"); // A race that was broken off may have left some behind.
  const lanes = Array.from({ length: RUNNERS }, () => document.createElement("li"));
  track.replaceChildren(...lanes);
  show(`${RUNNERS} requests are on their way …`);

  const began = performance.now();
  await Promise.all(lanes.map(async (lane) => {
    lane.textContent = await post("/race/arrive");
    lane.className = "in";
  }));
  const seconds = ((performance.now() - began) / 1000).toFixed(2);

  const arrived = Number(await post("/race/finish"));
  if (arrived === RUNNERS) {
    show(`${arrived} of ${RUNNERS} arrived, none was lost. It took ${seconds} s.`, "good");
  } else {
    show(`${arrived} of ${RUNNERS} arrived. Does your browser keep the shop’s cookie?`, "bad");
  }
};

start.hidden = false;
start.addEventListener("click", async () => {
  if (running) return;
  running = true;
  start.setAttribute("aria-disabled", "true");
  try {
    await race();
  } catch (error) {
    show(`The race was broken off: ${error.message}.`, "bad");
  }
  start.removeAttribute("aria-disabled");
  start.textContent = "Race again";
  running = false;
});
