// A static server for this page; any other does as well: `node serve.mjs [port] [host]`.
// It adds two headers that isolate the page, because browsers show an isolated page a finer clock.

import { readFile, realpath } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

export const FOLDER = dirname(fileURLToPath(import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
  ".onnx": "application/octet-stream",
};
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cache-Control": "no-cache",
  "X-Content-Type-Options": "nosniff",
};

/** Serve this folder, port 0 for any free one; `instead` maps a path, such as /model.onnx, to
 * another file. Resolves to the listening server and its address. */
export async function serve(port = 0, host = "127.0.0.1", instead = {}) {
  const server = createServer(async (request, response) => {
    try {
      const { pathname } = new URL(request.url, "http://localhost");
      const path = decodeURIComponent(pathname.endsWith("/") ? `${pathname}index.html` : pathname);
      // A link may lead out of the folder, `..` may too: what counts is where the file really is.
      const file = instead[path] ?? (await realpath(join(FOLDER, path)));
      if (!instead[path] && !file.startsWith((await realpath(FOLDER)) + sep)) throw new Error(path);
      const body = await readFile(file);
      const type = TYPES[extname(path)] ?? "application/octet-stream";
      response.writeHead(200, { ...HEADERS, "Content-Type": type }).end(body);
    } catch {
      response.writeHead(404, { ...HEADERS, "Content-Type": "text/plain" }).end("not found\n");
    }
  });
  await new Promise((done, failed) => server.once("error", failed).listen(port, host, done));
  return { server, address: `http://${host}:${server.address().port}/` };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { address } = await serve(Number(process.argv[2] ?? 8000), process.argv[3]);
  console.log(`${address} (ctrl-c ends it)`);
}
