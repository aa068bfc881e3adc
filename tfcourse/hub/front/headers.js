// The proxy loads this file before its own program (`node --require`).
//
// This file removes the header Service-Worker-Allowed, with which a learner's server could register
// a service worker for the whole host. Such a worker would outlive the server, and see everyone
// else's pages that are opened in the same browser.
"use strict";

const { ServerResponse } = require("node:http");

const REMOVED = "service-worker-allowed";

for (const method of ["setHeader", "appendHeader"]) {
  const original = ServerResponse.prototype[method];
  ServerResponse.prototype[method] = function (name, value) {
    return String(name).toLowerCase() === REMOVED ? this : original.call(this, name, value);
  };
}
