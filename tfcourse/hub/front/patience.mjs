// The proxy loads this file before its own program (`node --import`).
//
// If the hub or a learner's server accepts a request for a page and then stays silent, because it is
// paused, stopped or busy, this file answers with an error page. Otherwise, the browser would wait
// forever. The proxy's own time-out would also cut off requests that can take long, such as saving a
// large file.
import { subscribe } from "node:diagnostics_channel";
import { readFileSync } from "node:fs";

const PAGE = readFileSync(new URL("proxy_pages/error.html", import.meta.url));

// How long a request for a page may wait, in milliseconds. The start of a server, which is the
// hub's slowest page, answers after 10 seconds at most.
const PATIENCE = 8000;

// JupyterLab polls these endpoints every ten seconds, and tells the learner if there is no answer.
// A busy machine can be slow, so the endpoints get more time than a page.
const WATCH = /^\/user\/[^/]+\/api\/(kernels|sessions|terminals)$/;

// Requests with these paths are not for pages. They can take long, and repeating one could have a
// different effect.
const OTHER = /\/(api|nbconvert|oauth_callback)(\/|$)/;

subscribe("http.server.request.start", ({ request, response }) => {
  const patience = patienceFor(request);
  if (!patience) return;
  const timer = setTimeout(() => answer(request, response), patience);
  response.once("close", () => clearTimeout(timer));
});

// Return how many milliseconds a request may wait for an answer, or 0 if it may wait forever.
function patienceFor({ method, url, headers }) {
  const path = url.split("?")[0];
  if (method === "GET" && WATCH.test(path)) return 2.5 * PATIENCE;
  // A browser marks requests for pages with this header. Scripts do not send it, and the error page
  // itself polls with HEAD.
  const isPage = method === "HEAD" || (method === "GET" && (headers["sec-fetch-mode"] ?? "navigate") === "navigate");
  return isPage && !OTHER.test(path) ? PATIENCE : 0;
}

// Answer with the error page, and close the connection, so that the proxy abandons its own request,
// too.
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
