// Node.js loads this file before the proxy's own code (`node --import`).
//
// This file rejects some requests before the proxy handles them, and limits the memory and log
// space that the proxy uses for visitors and learners' servers.
import { Server, STATUS_CODES } from "node:http";
import { setDefaultHighWaterMark } from "node:stream";
import { pathToFileURL } from "node:url";

const program = pathToFileURL(process.argv[1]);
const { ConfigurableProxy } = await import(new URL("../lib/configproxy.js", program));
const { URLTrie } = await import(new URL("../lib/trie.js", program));

// If this many connections are open and no client reads its response, the proxy uses three quarters
// of the memory available to it. A class of 200 uses about 2000 connections.
const MOST_CONNECTIONS = 3000;
const BUFFER = 16 * 1024; // bytes; the proxy keeps a few such buffers per unread response

// At this rate, which also applies to the hub (bounds.py), a log of 50 MB lasts for days, even if
// all entries are long.
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
    this.proxy.on("error", () => {}); // do not log each WebSocket whose client disappears
  }
  if (kind === "ws") response.on("error", () => {}); // here, `response` is a socket
  const refusal = refusalOf(request);
  if (!refusal) return handleProxy.call(this, kind, request, response, ...rest);
  const { code, ...headers } = refusal;
  if (kind === "web") response.writeHead(code, headers).end();
  else response.end(`HTTP/1.1 ${code} ${STATUS_CODES[code]}\r\nConnection: close\r\n\r\n`);
};

// Return the status code and headers for a request that must not reach the hub or a server. For all
// other requests, return undefined.
function refusalOf({ url, headers }) {
  // If learners share a host name, a service worker from one learner's server could read other
  // learners' pages in the same browser, even after that server has stopped. The course needs no
  // service workers. Browsers always send this header when they request a worker's script; pages
  // cannot prevent it.
  if (headers["service-worker"]) return { code: 403 };
  let path, search;
  try {
    const parsed = new URL(url, "http://localhost");
    path = decodeURIComponent(parsed.pathname); // as the proxy does, but without logging a failure
    search = parsed.search;
  } catch {
    return { code: 400 };
  }
  // Without a trailing slash, a browser would treat the page as a file in /user/, which all servers
  // share. Redirect the request to the server's own folder.
  const name = path.match(/^\/+user\/([^/]+)$/)?.[1];
  return name && { code: 307, Location: `/user/${encodeURIComponent(name)}/${search}` };
}

// The proxy looks up each part of a path in `branches`. Remove the prototype of `branches`, because
// a path could otherwise match an inherited property such as `constructor`.
const { get } = URLTrie.prototype;
URLTrie.prototype.get = function (path) {
  Object.setPrototypeOf(this.branches, null);
  return get.call(this, path);
};

// --- Answers

// Remove the header with which a server could extend the scope of a service worker.
function stripScope(answer) {
  delete answer.headers["service-worker-allowed"];
}

// If the hub or a server stops in the middle of a response, close the connection to the browser.
// Otherwise, the browser would wait for the rest forever.
function passOnTheEnd(answer, request, response) {
  answer.on("close", () => answer.complete || response.destroy());
}

// A server can answer a WebSocket request with an ordinary response of any size. By default, the
// proxy would read that response into memory as fast as it arrives. Instead, read it only as fast
// as the client does.
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
  if (event === "clientError" && rest[0].code === "HPE_HEADER_OVERFLOW") return explain(rest[1]);
  return emit.call(this, event, ...rest);
};

// By default, Node.js answers a request whose headers are too long with an empty page. The usual
// cause is many cookies from learners' pages.
function explain(socket) {
  const text =
    "This request is too long, probably because of too many cookies. " +
    "Delete this site's cookies, then open the page again.\n";
  const headers = `Content-Type: text/plain\r\nContent-Length: ${text.length}\r\nConnection: close`;
  const answers = socket.writable && !socket._httpMessage?._headerSent;
  if (answers) socket.end(`HTTP/1.1 431 ${STATUS_CODES[431]}\r\n${headers}\r\n\r\n${text}`);
  setTimeout(() => socket.destroy(), answers ? 2000 : 0).unref();
  return true;
}

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
