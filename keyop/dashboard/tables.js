// The tables of the page: their columns, what a cell says, what rows are sorted by.
"use strict";

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
