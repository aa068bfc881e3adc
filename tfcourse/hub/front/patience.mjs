// The proxy loads this file before its own program (`node --import`).
//
// With it, a page says something even if the hub, or a learner's server, accepts the request and then
// stays silent, because it is paused, stopped or busy. Otherwise the browser would wait for ever.
// The proxy's own time-out would also cut what may take long, such as saving a large file.
import { subscribe } from "node:diagnostics_channel";
import { readFileSync } from "node:fs";

const PAGE = readFileSync(new URL("proxy_pages/error.html", import.meta.url));

// Milliseconds; a start, the slowest of the hub's pages, answers after 10 seconds at most.
const PATIENCE = 8000;

// JupyterLab asks for these every ten seconds, and tells the learner if there is no answer. A crowded
// machine may be slow, so they get more time than a page.
const WATCH = /^\/user\/[^/]+\/api\/(kernels|sessions|terminals)$/;

// Not pages. They may take long, and a second attempt would not be the same.
const OTHER = /\/(api|nbconvert|oauth_callback)(\/|$)/;

subscribe("http.server.request.start", ({ request, response }) => {
  const patience = patienceFor(request);
  if (!patience) return;
  const timer = setTimeout(() => answer(request, response), patience);
  response.once("close", () => clearTimeout(timer));
});

// Return for how many milliseconds a request waits for an answer, or 0 if it waits forever.
function patienceFor({ method, url, headers }) {
  const path = url.split("?")[0];
  if (method === "GET" && WATCH.test(path)) return 2.5 * PATIENCE;
  // A browser says which requests are for a page. Scripts and the page itself, which asks with HEAD
  // whether there is an answer now, do not.
  const isPage = method === "HEAD" || (method === "GET" && (headers["sec-fetch-mode"] ?? "navigate") === "navigate");
  return isPage && !OTHER.test(path) ? PATIENCE : 0;
}

// Answer with the page, and close the connection: the proxy then gives up its own request, too.
function answer(request, response) {
  if (response.headersSent || !response.socket) return;
  const head = [
    "HTTP/1.1 503 Service Unavailable",
    "Content-Type: text/html; charset=utf-8",
    `Content-Length: ${PAGE.length}`,
    "Cache-Control: no-store",
    "Connection: close",
  ];
  response.socket.write(head.join("\r\n") + "\r\n\r\n");
  response.socket.end(request.method === "HEAD" ? undefined : PAGE);
}
