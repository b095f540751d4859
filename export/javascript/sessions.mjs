// ONNX Runtime's sessions behind messages, in Node.js and in a browser's page alike.
//
// {load: base64}                  -> {ok: true, session: number}
// {run: {name: value}, session}   -> {outputs: {name: value}}
// {close: session}                -> {ok: true}
// anything that goes wrong        -> {error: text, refused: true where ONNX Runtime raised it}
//
// A value is {dims, type, data}: type float32, int32 or int64, data base64 of little-endian bytes.

const ARRAYS = { float32: Float32Array, int32: Int32Array, int64: BigInt64Array };

/** The function that answers messages, one after the other. */
export function answering(ort, options) {
  const sessions = new Map();
  let count = 0;

  async function load(text) {
    const session = await asked(() => ort.InferenceSession.create(bytesOf(text), options));
    count += 1;
    sessions.set(count, session);
    return { ok: true, session: count };
  }

  async function run(values, number) {
    const session = sessions.get(number);
    if (!session) throw new Error(`expected the number of a loaded session, found ${number}`);
    const expected = [...session.inputNames].sort().join(", ");
    const found = Object.keys(values).sort().join(", ");
    if (found !== expected) {
      throw new Error(`expected values for the inputs ${expected}; found ${found || "none"}`);
    }
    const feeds = {};
    for (const [name, value] of Object.entries(values)) feeds[name] = tensor(name, value);
    const results = await asked(() => session.run(feeds));
    const outputs = {};
    for (const [name, { dims, type, data }] of Object.entries(results)) {
      if (!(type in ARRAYS)) throw new Error(`the output ${name} is ${type}, which cannot be sent`);
      outputs[name] = { dims, type, data: textOf(data) };
    }
    return { outputs };
  }

  function tensor(name, { dims, type, data }) {
    const kind = ARRAYS[type];
    if (!kind) {
      const known = Object.keys(ARRAYS).join(", ");
      throw new Error(`input ${name}: expected a type of ${known}; found ${type}`);
    }
    const bytes = bytesOf(data);
    const expected = dims.reduce((size, dim) => size * dim, kind.BYTES_PER_ELEMENT);
    if (bytes.length !== expected) {
      throw new Error(`input ${name}: expected ${expected} bytes for ${type} of ` +
        `[${dims}], found ${bytes.length}`);
    }
    return new ort.Tensor(type, new kind(bytes.buffer), dims);
  }

  return async (message) => {
    try {
      if ("load" in message) return await load(message.load);
      if ("run" in message) return await run(message.run, message.session);
      if ("close" in message) {
        await sessions.get(message.close)?.release();
        sessions.delete(message.close);
        return { ok: true };
      }
      throw new Error(`expected load, run or close, found ${Object.keys(message)}`);
    } catch (error) {
      const { refusal } = error;
      const reason = refusal ?? error;
      return {
        error: String(reason?.message ?? reason),
        refused: refusal !== undefined,
        // A trap in WebAssembly leaves the whole runtime in ruins, not only this session.
        ruined: refusal?.name === "RuntimeError",
      };
    }
  };
}

/** What ONNX Runtime does, with its own errors told apart from ours. */
async function asked(call) {
  try {
    return await call();
  } catch (refusal) {
    throw Object.assign(new Error("refused"), { refusal });
  }
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function textOf({ buffer, byteOffset, byteLength }) {
  const bytes = new Uint8Array(buffer, byteOffset, byteLength);
  let letters = "";
  // A function takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 8192) {
    letters += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(letters);
}
