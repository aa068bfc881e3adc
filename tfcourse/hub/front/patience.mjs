// Node.js loads this file before the proxy's own code (`node --import`).
//
// If the hub or a learner's server accepts a page request but does not respond, because it is
// paused, stopped or busy, this file sends an error page. Otherwise, the browser would wait
// indefinitely. The proxy's own time-out is unsuitable, because it would also abort requests that
// can take long, such as saving a large file.
import { subscribe } from "node:diagnostics_channel";
import { readFileSync } from "node:fs";

const PAGE = readFileSync(new URL("proxy_pages/error.html", import.meta.url));

// The time limit for a page request, in milliseconds. The request that starts a server can take up
// to 10 seconds, but it is a POST request, which has no limit.
const PATIENCE = 8000;

// JupyterLab polls these endpoints every ten seconds, and notifies the learner if they do not
// respond. A busy host can be slow, so requests to these endpoints have a longer time limit than
// page requests.
const WATCH = /^\/user\/[^/]+\/api\/(kernels|sessions|terminals)$/;

// These paths do not serve pages. Requests to them can take long, and repeating a request could
// have a different effect.
const OTHER = /\/(api|nbconvert|oauth_callback)(\/|$)/;

subscribe("http.server.request.start", ({ request, response }) => {
  const patience = patienceFor(request);
  if (!patience) return;
  const timer = setTimeout(() => answer(request, response), patience);
  response.once("close", () => clearTimeout(timer));
});

// Return the time limit for a request in milliseconds, or 0 if there is no limit.
function patienceFor({ method, url, headers }) {
  const path = url.split("?")[0];
  if (method === "GET" && WATCH.test(path)) return 2.5 * PATIENCE;
  // Browsers send `sec-fetch-mode: navigate` when they request a page, and other values for
  // requests from scripts. The error page itself polls with HEAD.
  const isPage = method === "HEAD" || (method === "GET" && (headers["sec-fetch-mode"] ?? "navigate") === "navigate");
  return isPage && !OTHER.test(path) ? PATIENCE : 0;
}

// Send the error page and close the connection, so that the proxy also aborts its own request.
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
