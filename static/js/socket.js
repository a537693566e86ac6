// The WebSocket to /ws/dashboard: reconnects with growing pauses and asks for a fresh snapshot when a message is missing.

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30000;
const SILENCE_MS = 40000; // heartbeats come every 15 s

/**
 * Events: "message" (detail is the envelope; a "snapshot" replaces everything), "lost" (detail.retryAt),
 * "expired" when the login has ended.
 */
export class DashboardSocket extends EventTarget {
  #socket = null;
  #pause = FIRST_PAUSE_MS;
  #timer = null;
  #watchdog = null;
  #sequence = null; // of the last message in order; null while a snapshot is awaited
  #snapshotAt = "";

  start() {
    this.#open();
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
  }

  /** Connects at once if a pause is running. */
  retryNow() {
    if (this.#timer === null) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#open();
  }

  #open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws/dashboard`);
    this.#socket = socket;
    this.#sequence = null;
    let opened = false;
    socket.addEventListener("open", () => {
      opened = true;
      this.#watch();
    });
    socket.addEventListener("message", (event) => {
      this.#watch();
      this.#receive(JSON.parse(event.data));
    });
    socket.addEventListener("close", (event) => this.#lost(socket, opened, event.code));
  }

  #receive(message) {
    if (message.type === "snapshot") {
      this.#pause = FIRST_PAUSE_MS;
      this.#sequence = message.seq;
      this.#snapshotAt = message.timestamp;
    } else if (this.#sequence === null) {
      return; // a snapshot is on its way
    } else if (message.seq <= this.#sequence && message.timestamp <= this.#snapshotAt) {
      if (message.type !== "heartbeat") return; // overtaken by the snapshot, which contains it
    } else if (message.type === "heartbeat" && message.seq === this.#sequence) {
      // the connection's own, between two of the engine's numbered messages
    } else if (message.seq !== this.#sequence + 1) {
      this.#sequence = null;
      this.#socket.send(JSON.stringify({ type: "snapshot" }));
      return;
    } else {
      this.#sequence = message.seq;
    }
    this.dispatchEvent(new CustomEvent("message", { detail: message }));
  }

  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#socket.close(), SILENCE_MS);
  }

  async #lost(socket, opened, code) {
    if (socket !== this.#socket) return;
    clearTimeout(this.#watchdog);
    if (code === 4401 || (!opened && (await loginHasEnded()))) {
      this.dispatchEvent(new CustomEvent("expired"));
      return;
    }
    const pause = this.#pause * (0.8 + 0.4 * Math.random());
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE_MS);
    this.#timer = setTimeout(() => this.retryNow(), pause);
    this.dispatchEvent(new CustomEvent("lost", { detail: { retryAt: Date.now() + pause } }));
  }
}

async function loginHasEnded() {
  try {
    return (await fetch(location.href, { method: "HEAD", redirect: "manual" })).type === "opaqueredirect";
  } catch {
    return false; // the server is away; that says nothing about the login
  }
}
