// A client of Pronghorn in Node.js: msgpack over a DEALER socket, written from PROTOCOL.md alone.
//
//   const client = new Client(endpoint);
//   await client.call("add", { a: 1, b: 2 }, { timeoutMs: 1000, signal });
//   for await (const part of client.stream("rows", { table: "orders" })) { ... }
//   client.close();
//   new Client("tcp://host:5555", readKey("shop-front.key"));

import { readFileSync } from "node:fs";

import { decode, Encoder } from "@msgpack/msgpack";
import { Dealer } from "zeromq";

const HELLO = 33, GOODBYE = 34, CALL = 35, CANCEL = 37, CREDIT = 38, ACK = 39;
const WELCOME = 48, RESULT = 49, PART = 51, ERROR = 53, BUNDLE = 56;

const PARTS = 64; // parts that may be on their way to us; their bytes are counted by the broker

export class PronghornError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.name = "PronghornError";
    this.code = code; // NODE_ERROR, DEADLINE_EXCEEDED, ...
    this.outcome = details.outcome; // not_started, maybe_executed, executed
    this.details = details;
  }
}

/** Reads a file of `pronghorn keys new`: the keys `public`, `secret` and `server`. */
export function readKey(path) {
  const lines = readFileSync(path, "utf8").matchAll(/^(\w+) = "(.*)"$/gm);
  return Object.fromEntries([...lines].map(([, name, key]) => [name, key]));
}

export class Client {
  #socket = new Dealer({ immediate: true, probeRouter: true, linger: 200 });
  #encoder = new Encoder({ useBigInt64: false });
  #open = new Map(); // id -> { resolve, reject, onPart }
  #waiting = []; // what is to be sent, in order
  #sending = false;
  #sent = Promise.resolve(); // when all is sent that was waiting
  #closed = false;
  #connected = false; // whether the first welcome to a probe has come
  #lastId = 0;
  #replies = 0; // since the welcome that answered our hello
  #ackAt = Infinity; // acknowledge when there are so many
  #ackEvery = Infinity;

  constructor(endpoint = process.env.PRONGHORN_ENDPOINT, key = null) {
    if (key) {
      this.#socket.curvePublicKey = key.public;
      this.#socket.curveSecretKey = key.secret;
      this.#socket.curveServerKey = key.server;
    }
    this.#socket.connect(endpoint);
    this.#send([HELLO, 0, "node-example/1.0"]);
    this.#receiveAll();
  }

  /** Calls a node; params by name (object) or position (array). An aborted signal cancels it. */
  call(node, params = null, { timeoutMs, signal } = {}) {
    return new Promise((resolve, reject) => {
      this.#start(node, params, timeoutMs ? { timeout_ms: timeoutMs } : null, signal, { resolve, reject });
    });
  }

  /** The parts of a streaming node, as they come. To leave the loop cancels it. */
  async *stream(node, params = null, { timeoutMs, signal } = {}) {
    const parts = [];
    let end = null; // { value } or { error }
    let wake = () => {};
    const options = { stream: [PARTS, null], ...(timeoutMs && { timeout_ms: timeoutMs }) };
    const id = this.#start(node, params, options, signal, {
      resolve: (value) => { end = { value }; wake(); },
      reject: (error) => { end = { error }; wake(); },
      onPart: (value) => { parts.push(value); wake(); },
    });
    try {
      for (let taken = 0; ;) {
        while (parts.length) {
          taken += 1;
          if (!end && taken % (PARTS / 2) === 0) this.#send([CREDIT, id, PARTS / 2]);
          yield parts.shift();
        }
        if (end?.error) throw end.error;
        if (end) return end.value;
        await new Promise((resolve) => { wake = resolve; });
      }
    } finally {
      if (!end) this.#send([CANCEL, id]);
    }
  }

  /** Says goodbye, which cancels what is open. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#send([GOODBYE]);
    this.#end("CANCELLED", "the client was closed");
    this.#sent.finally(() => this.#socket.close());
  }

  #start(node, params, options, signal, entry) {
    const id = ++this.#lastId;
    if (this.#closed) {
      entry.reject(new PronghornError("CANCELLED", "the client is closed", { outcome: "not_started" }));
      return id;
    }
    this.#open.set(id, entry);
    this.#send(options ? [CALL, id, node, params, options] : [CALL, id, node, params]);
    if (signal) {
      const cancel = () => this.#send([CANCEL, id]); // its one reply still comes
      if (signal.aborted) cancel();
      else {
        signal.addEventListener("abort", cancel, { once: true });
        entry.forget = () => signal.removeEventListener("abort", cancel);
      }
    }
    return id;
  }

  #send(message) {
    this.#waiting.push(this.#encoder.encode(message));
    if (!this.#sending) this.#sent = this.#sendAll();
  }

  // A socket takes one message at a time; what has gathered meanwhile goes together in the next.
  async #sendAll() {
    this.#sending = true;
    try {
      while (this.#waiting.length) await this.#socket.send(this.#waiting.splice(0, 1000));
    } catch (error) {
      if (!this.#closed) throw error;
    } finally {
      this.#sending = false;
    }
  }

  async #receiveAll() {
    try {
      for await (const [frame, ...buffers] of this.#socket) {
        const message = decode(frame);
        if (message[0] === BUNDLE) for (const each of message[1]) this.#take(each, []);
        else this.#take(message, buffers);
      }
    } catch (error) {
      this.#end("INTERNAL", String(error));
    }
  }

  #take(message, buffers) {
    const [kind, id] = message;
    if (kind === WELCOME) {
      if (id === null) this.#onConnection();
      else this.#onWelcome(message[2]);
      return;
    }
    if (kind === PART) {
      this.#open.get(id)?.onPart?.(value(message[3], buffers));
      return;
    }
    if (kind !== RESULT && kind !== ERROR) return; // a pong to nobody, and what is newer than us
    if (++this.#replies >= this.#ackAt) {
      this.#ackAt = this.#replies + this.#ackEvery;
      this.#send([ACK, this.#replies]);
    }
    const entry = this.#open.get(id);
    if (!entry) return;
    this.#open.delete(id);
    entry.forget?.();
    if (kind === RESULT) entry.resolve(value(message[2], buffers));
    else entry.reject(new PronghornError(message[2], message[3], message[4] ?? {}));
  }

  // The broker answers the probe of each new connection. A later one than the first means that what
  // was open on the one before is lost.
  #onConnection() {
    if (this.#connected) {
      this.#ackAt = Infinity; // nothing counts before the next session's welcome
      this.#end("BROKER_LOST", "the connection was lost");
      this.#send([HELLO, 0, "node-example/1.0"]);
    }
    this.#connected = true;
  }

  #onWelcome(info) {
    this.#replies = 0;
    this.#ackEvery = Math.max(1, Math.floor(info.limits.grant_requests / 8));
    this.#ackAt = this.#ackEvery;
  }

  #end(code, message) {
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const each of open) {
      each.forget?.();
      each.reject(new PronghornError(code, message, { outcome: "maybe_executed" }));
    }
  }
}

/** Puts a buffer where the value refers to it: only a whole result or part can. */
function value(found, buffers) {
  const refers = buffers.length && found?.type === 1 && found.data instanceof Uint8Array;
  return refers ? buffers[decode(found.data)] : found;
}
