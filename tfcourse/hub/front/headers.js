// The proxy loads this file before its own program (`node --require`).
//
// A learner's server could otherwise register a service worker for the whole host: its script may
// come with a header that allows that. Such a worker would outlive the server, and see the pages of
// everyone else in that browser.
"use strict";

const { ServerResponse } = require("node:http");

const REMOVED = "service-worker-allowed";

for (const method of ["setHeader", "appendHeader"]) {
  const original = ServerResponse.prototype[method];
  ServerResponse.prototype[method] = function (name, value) {
    return String(name).toLowerCase() === REMOVED ? this : original.call(this, name, value);
  };
}
