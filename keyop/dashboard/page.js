// The page of keyop dashboard: what is known, how it is drawn, the connection. Its tables are in tables.js.
// Whatever comes from a data directory is put into it as text, never as markup.
"use strict";

const MOST_ROWS = 500;
const HISTORY_LOOKS = 60;
const byId = (id) => document.getElementById(id);

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
