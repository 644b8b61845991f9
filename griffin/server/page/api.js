// The server, as the page speaks to it: JSON, server-sent events, and a key if it asks for one.

const KEPT = "griffin-key";

/** A refusal. status: of HTTP, 0 if the connection broke. code: the server's word for it.
 * retryAfter: seconds.
 */
export class ApiError extends Error {
  constructor(status, message, code = null, retryAfter = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

let key = sessionStorage.getItem(KEPT);
let askForKey = null;
let asking = null;

/** Say who asks the user for a key: a function that gives one, or null if the user gives none. */
export function onLocked(ask) {
  askForKey = ask;
}

/** Ask for JSON. body: sent as JSON unless undefined. Throws ApiError. */
export async function call(method, path, body, signal) {
  const response = await send(method, path, body, signal);
  const read = await broken(response.json(), signal);
  return read;
}

/** Give the payloads of an event stream, parsed, until [DONE].
 *
 * Throws ApiError, also for one in mid-stream.
 */
export async function* events(path, body, signal) {
  const response = await send("POST", path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await broken(reader.read(), signal);
      if (done) throw new ApiError(0, "The connection ended before the answer did.");
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue; // comments and keepalives
        const payload = line.slice(5).trim();
        if (payload.startsWith("[DONE]")) return;
        const read = JSON.parse(payload);
        if (read.error) throw new ApiError(200, read.error.message, read.error.code);
        yield read;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have ended by itself
  }
}

async function send(method, path, body, signal) {
  for (;;) {
    const used = key;
    const headers = {};
    if (body !== undefined) headers["content-type"] = "application/json";
    if (used !== null) headers.authorization = `Bearer ${used}`;
    const asked = fetch(path, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
    });
    const response = await broken(asked, signal);
    if (response.ok) return response;
    const problem = await refusal(response);
    if (response.status !== 401 || !(await unlock(used, problem))) throw problem;
  }
}

async function unlock(used, problem) {
  if (key !== used) return true; // another request got one meanwhile
  asking ??= askForKey(used === null ? "" : problem.message).finally(() => (asking = null));
  const given = await asking;
  if (given === null) return false;
  key = given;
  sessionStorage.setItem(KEPT, given);
  return true;
}

async function refusal(response) {
  const text = await response.text();
  const after = Number(response.headers.get("retry-after")) || null;
  let error = null;
  try {
    error = JSON.parse(text).error;
  } catch {
    // Not ours: some proxy's page. Its status says all there is to say.
  }
  const answered = `The server answered ${response.status} ${response.statusText}.`;
  const message = error?.message ?? answered;
  return new ApiError(response.status, message, error?.code ?? null, after);
}

async function broken(promise, signal) {
  try {
    return await promise;
  } catch (error) {
    if (signal?.aborted || error instanceof ApiError) throw error;
    throw new ApiError(0, "The server cannot be reached, or the connection broke.");
  }
}
