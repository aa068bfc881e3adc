// Node.js loads this file before the proxy's own code (`node --require`).
//
// This file removes the header Service-Worker-Allowed. With this header, a learner's server could
// register a service worker for the whole host. The worker would outlive the server, and could read
// other users' pages that are opened in the same browser.
"use strict";

const { ServerResponse } = require("node:http");

const REMOVED = "service-worker-allowed";

for (const method of ["setHeader", "appendHeader"]) {
  const original = ServerResponse.prototype[method];
  ServerResponse.prototype[method] = function (name, value) {
    return String(name).toLowerCase() === REMOVED ? this : original.call(this, name, value);
  };
}
