// Takes the walk that README.md describes: node walk.mjs ENDPOINT. PRONGHORN_KEY may name a key file.

import { Client, readKey } from "./pronghorn.mjs";

const key = process.env.PRONGHORN_KEY;
const client = new Client(process.argv[2], key ? readKey(key) : null);
const failed = (promise) => promise.then(() => { throw new Error("did not fail"); }, (error) => error);

console.log("call", await client.call("add", { a: 1, b: 2 }));

const parts = [];
for await (const part of client.stream("count", { n: 200 })) parts.push(part);
console.log(`stream ${parts.length} parts, sum ${parts.reduce((sum, part) => sum + part)}`);

const controller = new AbortController();
const waiting = failed(client.call("wait", null, { signal: controller.signal }));
controller.abort();
console.log("cancel", (await waiting).code);

console.log("deadline", (await failed(client.call("wait", null, { timeoutMs: 50 }))).code);

const error = await failed(client.call("divide", [1, 0]));
console.log("error", error.code, error.details.exception);

const lost = failed(client.call("wait"));
await client.call("add", [1, 2]); // what was sent before it has arrived
console.log("open");
console.log("lost", (await lost).code);

console.log("again", await client.call("add", { a: 1, b: 2 }));
client.close();
