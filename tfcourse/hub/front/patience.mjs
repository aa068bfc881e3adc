// Node.js loads this file before the proxy's own code (`node --import`).
//
// The hub or a learner's server can accept a request for a page or a form but then not respond,
// because it is paused, stopped or busy. This file then answers with an error page. Otherwise, the
// browser would wait forever. The proxy's own time-out would also cut off requests that can take
// long, such as saving a large file.
import { subscribe } from "node:diagnostics_channel";
import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";

const PAGE = readFileSync(new URL("proxy_pages/error.html", import.meta.url));

// The time limit for a page request, in milliseconds. A request that starts a server can take up to
// 10 seconds, but POST requests have no time limit.
const PATIENCE = 8000;

// JupyterLab polls these endpoints every ten seconds, and notifies the learner if they do not
// respond. A busy host can be slow, so requests to these endpoints have a longer time limit than
// page requests.
const WATCH = /^\/user\/[^/]+\/api\/(kernels|sessions|terminals)$/;

// Requests to these paths can be slow. The pattern excludes /api/oauth2/authorize, which is a
// page of the hub.
const OTHER = /^\/(hub|(user|services)\/[^/]+)(\/lab)?\/(api(?!\/oauth2\/authorize$)|nbconvert|oauth_callback)(\/|$)/;

subscribe("http.server.request.start", ({ request, response }) => {
  const patience = patienceFor(request);
  let timer;
  if (patience) timer = setTimeout(() => answer(request, response), patience);
  // Other page requests can be slow. A submitted form, for example, waits while the hub checks
  // other users' passwords. Show the error page only if the hub or the server does not respond at
  // all.
  else if (request.headers["sec-fetch-mode"] === "navigate")
    timer = setInterval(() => {
      if (response.headersSent) clearInterval(timer);
      else whenSilent(request, () => answer(request, response));
    }, 0.4 * PATIENCE);
  response.once("close", () => clearTimeout(timer));
});

// Return the time limit for a request, in milliseconds, or 0 if the response can be slow.
function patienceFor({ method, url, headers }) {
  const path = url.split("?")[0];
  if (method === "GET" && WATCH.test(path)) return 2.5 * PATIENCE;
  // Browsers send `sec-fetch-mode: navigate` when they request a page, and other values for
  // requests from scripts. The error page itself polls with HEAD.
  const isPage = method === "HEAD" || (method === "GET" && (headers["sec-fetch-mode"] ?? "navigate") === "navigate");
  return isPage && !OTHER.test(path) ? PATIENCE : 0;
}

// Send a request that a working hub or server answers immediately; call `then` if it times out.
function whenSilent({ url, headers, socket }, then) {
  const server = url.match(/^\/user\/[^/]+\//)?.[0];
  const options = {
    method: "HEAD",
    host: socket.localAddress,
    port: socket.localPort,
    path: server ? `${server}api` : "/hub/health",
    headers: { host: headers.host ?? "" },
    timeout: 0.6 * PATIENCE,
    agent: false,
  };
  const question = httpRequest(options, (response) => response.resume());
  question.on("timeout", () => {
    question.destroy();
    then();
  });
  question.on("error", () => {}); // the proxy has stopped listening, or it closed the connection
  question.end();
}

// Answer with the error page, and close the connection, so that the proxy also aborts its request
// to the hub or the server.
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
