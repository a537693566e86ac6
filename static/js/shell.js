// The frame of every page: the bar on top, alarms, halting, shortcuts, theme.

import { alarmsOf } from "./alarms.js";
import { showBar } from "./bar.js";
import { connectHalt, showHalt } from "./halt.js";
import { connectKeys } from "./keys.js";
import { changed, paint } from "./live.js";
import { setText } from "./rows.js";
import { connectTheme } from "./theme.js";

const button = document.getElementById("alarms-button");
const panel = document.getElementById("alarms");
const count = document.getElementById("alarms-count");
const announcer = document.getElementById("announcer");
let titles = null;

function showAlarms(state) {
  const alarms = alarmsOf(state);
  const shown = alarms.map((alarm) => `${alarm.kind}|${alarm.title}|${alarm.text}`).join("\n");
  if (panel.dataset.shown !== shown) {
    panel.dataset.shown = shown;
    panel.querySelector("ul").replaceChildren(...alarms.map(line));
  }
  panel.querySelector("p").hidden = alarms.length > 0;
  count.hidden = alarms.length === 0;
  setText(count, String(alarms.length));
  count.className = `badge badge-${alarms.some((alarm) => alarm.kind === "down") ? "down" : "warn"}`;
  setText(document.getElementById("alarms-label"), alarms.length ? `${alarms.length} alarm${alarms.length > 1 ? "s" : ""}` : "No alarms");
  const said = alarms.map((alarm) => alarm.title).join(" ");
  if (said !== titles) setText(announcer, said || (titles ? "Everything is back to normal." : ""));
  titles = said;
}

function line(alarm) {
  const item = document.createElement("li");
  item.className = `alarm-${alarm.kind}`;
  item.append(Object.assign(document.createElement("strong"), { textContent: alarm.title }), ` ${alarm.text}`);
  return item;
}

function toggle(open) {
  panel.hidden = !open;
  button.setAttribute("aria-expanded", String(open));
}
button.addEventListener("click", () => toggle(panel.hidden));
document.addEventListener("click", (event) => event.target.closest(".alarm-place") || toggle(false));
document.addEventListener("keydown", (event) => event.key === "Escape" && toggle(false));

paint(showBar);
paint(showHalt);
paint(showAlarms);
connectHalt(changed);
connectTheme();
connectKeys();
