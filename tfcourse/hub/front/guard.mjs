// The proxy loads this file before its own program (`node --import`).
//
// This file refuses requests before the proxy handles them, and limits the memory and the log that
// visitors and learners' servers can make the proxy use.
import { Server, STATUS_CODES } from "node:http";
import { setDefaultHighWaterMark } from "node:stream";
import { pathToFileURL } from "node:url";

const program = pathToFileURL(process.argv[1]);
const { ConfigurableProxy } = await import(new URL("../lib/configproxy.js", program));
const { URLTrie } = await import(new URL("../lib/trie.js", program));

// If nobody reads the answers of so many connections, the proxy takes three quarters of its memory. A
// class of 200 uses about 2000 connections.
const MOST_CONNECTIONS = 3000;
const BUFFER = 16 * 1024; // bytes; of an answer that nobody reads, the proxy keeps a few of these

// As on the hub (bounds.py), a log of 50 MB lasts for weeks at this rate.
const ENTRIES_AT_ONCE = 300;
const SECONDS_PER_ENTRY = 10;
const LONGEST_ENTRY = 2000; // characters

// --- Requests

const { handleProxy } = ConfigurableProxy.prototype;
ConfigurableProxy.prototype.handleProxy = function (kind, request, response, ...rest) {
  if (!this.proxy.listenerCount("proxyReqWs")) {
    this.proxy.on("proxyRes", stripScope);
    this.proxy.on("proxyRes", passOnTheEnd);
    this.proxy.on("proxyReqWs", relaySlowly);
    this.proxy.on("error", () => {}); // otherwise, each WebSocket whose client vanishes is logged
  }
  if (kind === "ws") response.on("error", () => {}); // here, `response` is a socket
  const refusal = refusalOf(request);
  if (!refusal) return handleProxy.call(this, kind, request, response, ...rest);
  const { code, ...headers } = refusal;
  if (kind === "web") response.writeHead(code, headers).end();
  else response.end(`HTTP/1.1 ${code} ${STATUS_CODES[code]}\r\nConnection: close\r\n\r\n`);
};

// Return the answer to a request that must not reach the hub or a server, or undefined.
function refusalOf({ url, headers }) {
  // Where learners share a host name, a service worker could see everyone else's pages that are opened
  // in the same browser, and it would outlive the server. The course needs no workers. Browsers send
  // this header with the request for a worker's script, and pages cannot prevent that.
  if (headers["service-worker"]) return { code: 403 };
  let path, search;
  try {
    const parsed = new URL(url, "http://localhost");
    path = decodeURIComponent(parsed.pathname); // as the proxy does, but the proxy logs the failure
    search = parsed.search;
  } catch {
    return { code: 400 };
  }
  // Without the slash, a server's files would seem to be in the folder that all servers share.
  const name = path.match(/^\/+user\/([^/]+)$/)?.[1];
  return name && { code: 307, Location: `/user/${encodeURIComponent(name)}/${search}` };
}

// The proxy looks up a part of a path in this object, which would otherwise inherit `constructor`.
const { get } = URLTrie.prototype;
URLTrie.prototype.get = function (path) {
  Object.setPrototypeOf(this.branches, null);
  return get.call(this, path);
};

// --- Answers

// Remove the header with which a server could give a service worker a larger scope.
function stripScope(answer) {
  delete answer.headers["service-worker-allowed"];
}

// If the hub or a server stops in the middle of an answer, the browser would wait for the rest forever.
function passOnTheEnd(answer, request, response) {
  answer.on("close", () => answer.complete || response.destroy());
}

// A server can answer a request for a WebSocket with an ordinary response, of any size. The proxy would
// read it into memory as fast as it arrives. Instead, let the server wait for the client.
function relaySlowly(outgoing, request, socket) {
  outgoing.on("upgrade", stripScope);
  outgoing.on("response", (answer) => {
    stripScope(answer);
    answer.on("data", () => socket.writableNeedDrain && answer.pause());
    socket.on("drain", () => answer.resume());
    socket.on("close", () => outgoing.destroy());
  });
}

// --- Connections

setDefaultHighWaterMark(false, BUFFER);

const { emit } = Server.prototype;
Server.prototype.emit = function (event, ...rest) {
  if (event === "listening") this.maxConnections = MOST_CONNECTIONS;
  return emit.call(this, event, ...rest);
};

// --- The log

let allowed = ENTRIES_AT_ONCE;
let last = performance.now();

const write = process.stdout.write;
process.stdout.write = function (entry, ...rest) {
  const now = performance.now();
  allowed = Math.min(ENTRIES_AT_ONCE, allowed + (now - last) / 1000 / SECONDS_PER_ENTRY);
  last = now;
  if (allowed < 1) return true;
  allowed -= 1;
  let text = String(entry).trimEnd();
  if (text.length > LONGEST_ENTRY) text = `${text.slice(0, LONGEST_ENTRY)} ... [${text.length} characters]`;
  if (allowed < 1) text += " [More entries are left out for a while.]";
  return write.call(this, `${text}\n`, ...rest);
};
