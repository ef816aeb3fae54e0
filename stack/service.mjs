// What every little server of this directory needs: JSON over HTTP on 127.0.0.1, a line when ready, an end on SIGTERM.

import http from "node:http";

/** A line on stderr; stdout is for the one line of JSON that says "ready". */
export const log = text => console.error(`[${process.argv[1].split("/").pop()}] ${text}`);

/** The first true value of `probe`, asked again until then. An error counts as "not yet". */
export async function until(what, probe, deadline = 60_000) {
  const end = Date.now() + deadline;
  for (let last; ;) {
    try {
      const value = await probe();
      if (value) return value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${deadline / 1000} s${last ? ` (${last.message})` : ""}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

/**
 * Serves `routes`: "METHOD /path" to a function from the parsed JSON body to [status, body].
 * Resolves when it listens; the process ends on SIGTERM or SIGINT.
 */
export async function listen(port, routes) {
  const server = http.createServer(async (request, response) => {
    const handler = routes[`${request.method} ${request.url.split("?")[0]}`];
    const reply = (status, body) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(body));
    };
    try {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      if (handler === undefined) return reply(404, { error: "not found" });
      const text = Buffer.concat(chunks).toString();
      reply(...(await handler(text === "" ? undefined : JSON.parse(text), request)));
    } catch (error) {
      log(error.stack ?? String(error));
      reply(500, { error: error.message ?? String(error) });
    }
  });
  await serve(server, port);
  return server;
}

/** Listens on 127.0.0.1 and arranges for the end. */
export async function serve(server, port) {
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => process.exit(0));
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(Number(port), "127.0.0.1", resolve);
  });
}
