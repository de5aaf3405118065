// The page of keyop dashboard. Whatever comes from a data directory is put into it as text, never as markup.
"use strict";

const MOST_ROWS = 500;
const HISTORY_LOOKS = 60;
const byId = (id) => document.getElementById(id);

// ---- numbers, as keyop top writes them

function scaled(amount, step, letters) {
  let power = 0;
  while (Math.round(amount) >= step && power < letters.length) { amount /= step; power += 1; }
  if (!power) return amount.toFixed(0);
  return (amount < 9.95 ? amount.toFixed(1) : amount.toFixed(0)) + letters[power - 1];
}
function rate(perS) {
  if (perS === null || perS === undefined) return "-";
  if (!perS) return "";
  return perS < 10 ? perS.toFixed(perS < 1 ? 2 : 1) : scaled(perS, 1000, "kMGTP");
}
const size = (length) => scaled(length, 1024, "KMGTP");
const count = (number) => number === null ? "-" : number < 10000 ? number.toLocaleString("en") : scaled(number, 1000, "kMGTP");
function age(then) {
  if (then === null || then === undefined) return "";
  const seconds = Math.max(0, snapshot.taken_unix_s - then);
  if (seconds < 1) return "now";
  for (const [unit, letter] of [[86400, "d"], [3600, "h"], [60, "m"]]) {
    if (seconds >= unit) return Math.floor(seconds / unit) + letter;
  }
  return Math.floor(seconds) + "s";
}

// ---- the tables: title, text of a cell, what it is sorted by; `left` for words, `spare` for what a phone has no room for

const isBad = (number) => number ? "warn" : "soft";
const STATE = { stuck: "bad", retrying: "warn", away: "soft", busy: "good", connected: "good", refused: "bad" };
const column = (title, text, order, more = {}) => ({ title, text, order, ...more });
const NAME = { left: true, name: true, first: true };
const TABLES = {
  channels: {
    nothing: "No channels yet.",
    channel: (row) => row.channel,
    columns: [
      column("Channel", (r) => r.channel, (r) => r.channel, NAME),
      column("Msg/s", (r) => rate(r.messages_per_s), (r) => r.messages_per_s || 0),
      column("Bytes/s", (r) => r.bytes_per_s ? size(r.bytes_per_s) : "", (r) => r.bytes_per_s, { spare: true }),
      column("Size", (r) => size(r.bytes), (r) => r.bytes),
      column("Subscribers", (r) => count(r.subscribers), (r) => r.subscribers, { spare: true }),
      column("Last", (r) => age(r.last_write_unix_s), (r) => r.last_write_unix_s || 0),
      column("Last minute", null, (r) => r.history.reduce((sum, one) => sum + one, 0), { spare: true }),
    ],
  },
  subscribers: {
    nothing: "Nobody has subscribed.",
    channel: (row) => row.channel,
    columns: [
      column("Channel / id", (r) => `${r.channel} / ${r.id}${r.parts > 1 ? ` (${r.parts_held} of ${r.parts})` : ""}`, (r) => r.key, NAME),
      column("State", (r) => r.state, (r) => r.state, { left: true, look: (r) => r.fault ? "bad" : STATE[r.state] }),
      column("Lag", (r) => size(r.lag_bytes), (r) => r.lag_bytes),
      column("Messages", (r) => (r.lag_is_exact ? "" : "~") + count(r.lag_messages), (r) => r.lag_messages, { spare: true }),
      column("Oldest", (r) => age(r.oldest_pending_unix_s), (r) => -(r.oldest_pending_unix_s ?? 1e12)),
      column("Done/s", (r) => rate(r.handled_per_s), (r) => r.handled_per_s),
      column("Failed", (r) => count(r.failed), (r) => r.failed || 0, { spare: true, look: (r) => isBad(r.failed) }),
      column("Dead", (r) => count(r.dead_lettered), (r) => r.dead_lettered || 0, { look: (r) => isBad(r.dead_lettered) }),
    ],
  },
  peers: {
    nothing: "No hub and no client runs here.",
    columns: [
      column("Peer", (r) => `${r.name || "?"} ${r.address}`, (r) => r.name, NAME),
      column("We are", (r) => r.role, (r) => r.role, { left: true, spare: true }),
      column("State", (r) => r.state, (r) => r.state, { left: true, look: (r) => STATE[r.state] || "warn" }),
      column("Out/s", (r) => rate(r.sent_per_s), (r) => r.sent_per_s),
      column("In/s", (r) => rate(r.received_per_s), (r) => r.received_per_s),
      column("Round trip", (r) => r.round_trip_ms === null ? "" : `${r.round_trip_ms.toFixed(1)} ms`, (r) => r.round_trip_ms || 0, { spare: true }),
      column("Behind", (r) => size(r.behind_bytes), (r) => r.behind_bytes),
      column("Waits", (r) => size(r.waiting_bytes), (r) => r.waiting_bytes, { spare: true }),
    ],
  },
  processes: {
    nothing: "Nobody is attached.",
    columns: [
      column("Role", (r) => r.role, (r) => r.role, { left: true, first: true }),
      column("Pid", (r) => String(r.pid ?? "?"), (r) => r.pid || 0, { ascending: true }),
      column("CPU %", (r) => r.cpu_percent === null ? "" : r.cpu_percent.toFixed(1), (r) => r.cpu_percent || 0),
      column("RSS", (r) => r.rss_bytes === null ? "" : size(r.rss_bytes), (r) => r.rss_bytes || 0),
      column("Age", (r) => age(r.started_unix_s), (r) => -(r.started_unix_s || 0), { spare: true }),
      column("Work", (r) => r.work, (r) => r.work, { left: true, wide: true }),
    ],
  },
};
const SAID = {
  open: ["open", "good"], starting: ["starts", "warn"], closing: ["leaves", "warn"], gone: ["has left", "warn"],
  stalled: ["stalled", "bad"], "not running": ["not running", "soft"],
  unseen: ["runs elsewhere: with another /dev/shm or user", "warn"],
  empty: ["not running: nobody has published yet", "soft"],
  "no directory": ["is gone, and so is its directory", "bad"],
};

// ---- what is known

let snapshot = null;
const rows = { channels: new Map(), subscribers: new Map(), peers: new Map(), processes: new Map() };
let shown = "channels";
const sorting = Object.fromEntries(Object.entries(TABLES).map(([name, table]) => [name, { column: table.columns[0], reversed: false }]));
const drawn = new Map(); // key of a row → its element, of the table that is shown

function takeWhole(full) {
  snapshot = full;
  for (const [name, known] of Object.entries(rows)) {
    known.clear();
    for (const row of full[name]) known.set(row.key, row);
  }
}
function takeChanges(changed) {
  Object.assign(snapshot, { taken_unix_s: changed.taken_unix_s, trouble: changed.trouble, writer: changed.writer });
  for (const [name, known] of Object.entries(rows)) {
    for (const key of changed[name].gone) known.delete(key);
    for (const row of changed[name].rows) known.set(row.key, { history: known.get(row.key)?.history || [], ...row });
  }
  for (const row of rows.channels.values()) {
    if (!row.history.length && !row.messages_per_s) continue;
    row.history.push(row.messages_per_s || 0);
    if (row.history.length > HISTORY_LOOKS) row.history.shift();
    if (!row.history.some((one) => one)) row.history = [];
  }
}

// ---- drawing

function setText(element, text) { if (element.textContent !== text) element.textContent = text; }
function setClass(element, name) { if (element.className !== name) element.className = name; }

function drawHead() {
  const [text, look] = SAID[snapshot.writer.state] || [snapshot.writer.state, ""];
  const { mode, stalled, pid } = snapshot.writer;
  setText(byId("directory"), snapshot.data_dir);
  setText(byId("writer"), `writer ${text}${mode ? `, ${mode}` : ""}${stalled ? `: ${stalled}` : ""}${pid ? `, pid ${pid}` : ""}`);
  setClass(byId("writer"), look);
  let total = 0;
  for (const row of rows.channels.values()) total += row.messages_per_s || 0;
  setText(byId("total"), `${rate(total) || "0"} msg/s`);
  for (const button of document.querySelectorAll("nav button")) {
    setText(button.querySelector("span"), rows[button.dataset.table].size.toLocaleString("en"));
    button.setAttribute("aria-pressed", String(button.dataset.table === shown));
  }
  setTrouble(snapshot.trouble);
}
function setTrouble(text) {
  byId("trouble").hidden = !text;
  setText(byId("trouble"), text || "");
}

function classOf(col) {
  return [col.left && "left", col.name && "name", col.wide && "wide", col.spare && "spare"].filter(Boolean).join(" ");
}
function drawHeadings() {
  const line = document.querySelector("thead tr");
  line.replaceChildren(...TABLES[shown].columns.map((col) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.className = classOf(col);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = col.title;
    button.addEventListener("click", () => {
      const sorted = sorting[shown];
      sorted.reversed = sorted.column === col && !sorted.reversed;
      sorted.column = col;
      drawHeadings();
      drawRows();
    });
    const { column: by, reversed } = sorting[shown];
    if (by === col) cell.ariaSort = isDescending(col) !== reversed ? "descending" : "ascending";
    cell.append(button);
    return cell;
  }));
}
const isDescending = (col) => !col.left && !col.ascending;

function chosenRows() {
  const wanted = byId("filter").value.toLowerCase();
  const { columns } = TABLES[shown];
  const words = columns.filter((col) => col.left);
  const matches = (row) => words.some((col) => col.text(row).toLowerCase().includes(wanted));
  const chosen = [...rows[shown].values()].filter((row) => !wanted || matches(row));
  const { column: by, reversed } = sorting[shown];
  const sign = isDescending(by) !== reversed ? -1 : 1;
  const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0;
  const ordered = chosen.map((row) => [by.order(row), row]);
  ordered.sort(([a, one], [b, other]) => sign * compare(a, b) || compare(one.key, other.key));
  return ordered.map(([, row]) => row);
}

function drawRows() {
  const body = document.querySelector("tbody");
  const chosen = chosenRows();
  const kept = chosen.slice(0, MOST_ROWS);
  const keys = new Set(kept.map((row) => row.key));
  for (const [key, element] of drawn) if (!keys.has(key)) { element.remove(); drawn.delete(key); }
  let place = body.firstElementChild;
  for (const row of kept) {
    let element = drawn.get(row.key);
    if (!element) { element = newRow(row.key); drawn.set(row.key, element); }
    fill(element, row);
    if (element === place) place = place.nextElementSibling;
    else body.insertBefore(element, place);
  }
  const hidden = chosen.length - kept.length;
  let nothing = hidden > 0 ? `${hidden.toLocaleString("en")} more: use the filter.` : "";
  if (!chosen.length) nothing = byId("filter").value ? "Nothing matches the filter." : TABLES[shown].nothing;
  setText(byId("nothing"), nothing);
}
function newRow(key) {
  const element = document.createElement("tr");
  const table = TABLES[shown];
  for (const col of table.columns) {
    const cell = document.createElement("td");
    if (!col.text) cell.append(newHistory());
    else if (col.first && table.channel) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "open";
      button.addEventListener("click", () => open(table.channel(rows[shown].get(key))));
      cell.append(button);
    }
    element.append(cell);
  }
  return element;
}
function fill(element, row) {
  TABLES[shown].columns.forEach((col, number) => {
    const cell = element.children[number];
    setClass(cell, `${classOf(col)} ${col.look ? col.look(row) || "" : ""}`.trim());
    if (!col.text) drawHistory(cell.firstElementChild, row.history);
    else {
      const text = col.text(row);
      setText(cell.firstElementChild || cell, text);
      if (col.name) cell.title = row.fault ? `${text}: ${row.fault}` : text;
    }
  });
}
const SVG = "http://www.w3.org/2000/svg";
function newHistory() {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("class", "history");
  picture.setAttribute("viewBox", `0 0 ${HISTORY_LOOKS - 1} 20`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.append(document.createElementNS(SVG, "polyline"));
  return picture;
}
function drawHistory(picture, history) {
  const top = Math.max(...history, 0);
  const first = HISTORY_LOOKS - history.length;
  const points = top ? history.map((one, number) => `${first + number},${(19 - 18 * one / top).toFixed(1)}`).join(" ") : "";
  const line = picture.firstElementChild;
  if (line.getAttribute("points") !== points) line.setAttribute("points", points);
}

function draw() {
  if (!snapshot) return;
  drawHead();
  drawRows();
}
function show(name) {
  shown = name;
  drawn.clear();
  document.querySelector("tbody").replaceChildren();
  drawHeadings();
  draw();
}

// ---- messages of a channel

const DEAD = ".dead-letter";
let opened = "";
function open(channel) {
  opened = channel;
  byId("messages-title").textContent = channel;
  byId("messages-nothing").textContent = "…";
  byId("dead").hidden = channel.endsWith(DEAD);
  document.querySelector("dialog ol").replaceChildren();
  if (!byId("messages").open) byId("messages").showModal();
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ open: channel }));
  else byId("messages-nothing").textContent = "There is no connection.";
}
function drawMessages(answer) {
  if (answer.channel !== opened) return;
  byId("messages-nothing").textContent = answer.trouble || (answer.rows.length ? "" : "No message is there.");
  document.querySelector("dialog ol").replaceChildren(...answer.rows.map(newMessage));
}
function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}
function part(kind, text, look) {
  const element = document.createElement(kind);
  element.textContent = text;
  if (look) element.className = look;
  return element;
}
function newMessage(message) {
  const item = document.createElement("li");
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.append(part("span", message.ts ? message.ts.slice(0, 19).replace("T", " ") : "no time", "soft"));
  if (message.error !== null) {
    const lines = message.error.trim().split("\n");
    summary.append(part("span", `${message.subscriber ? `${message.subscriber}: ` : ""}${lines[lines.length - 1]}`, "warn"));
  } else summary.append(part("span", `${message.payload_type}  ${message.payload}`));
  const facts = [`id ${message.id}`, `time ${message.ts}`, `origin ${message.origin}`, `type ${message.payload_type}`, `offset ${message.offset}`];
  if (message.retries !== null) facts.push(`retries ${message.retries}`);
  details.append(summary, part("pre", facts.join("\n"), "soft"));
  if (message.error !== null) details.append(part("pre", message.error, "bad"));
  details.append(part("pre", pretty(message.payload)));
  item.append(details);
  return item;
}

// ---- the connection

let socket = null;
let patience = 500;
function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket.addEventListener("message", (event) => {
    const said = JSON.parse(event.data);
    if (said.messages) { drawMessages(said.messages); return; }
    if (said.full) takeWhole(said.full); else takeChanges(said.changed);
    patience = 500;
    document.body.classList.remove("stale");
    if (!document.hidden) draw();
  });
  socket.addEventListener("close", () => {
    document.body.classList.add("stale");
    setTrouble("The connection is lost. Trying again.");
    setTimeout(connect, patience);
    patience = Math.min(patience * 2, 10000);
  });
}

for (const button of document.querySelectorAll("nav button")) button.addEventListener("click", () => show(button.dataset.table));
byId("filter").addEventListener("input", drawRows);
byId("again").addEventListener("click", () => open(opened));
byId("dead").addEventListener("click", () => open(opened + DEAD));
byId("close").addEventListener("click", () => byId("messages").close());
document.addEventListener("visibilitychange", draw);
drawHeadings();
connect();
