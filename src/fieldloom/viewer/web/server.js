// Requests to the server, and its answers.

// What the server refused, with its sentence.
export class Refused extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

export class Lost extends Error {
  constructor() {
    super("The server does not answer.");
  }
}

export const connection = new EventTarget(); // "lost": a request found no server

async function send(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connection.dispatchEvent(new Event("lost"));
    throw new Lost();
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Refused(told.error || `The server answered with status ${answer.status}.`,
    answer.status);
}

export async function getJson(path, signal) {
  return (await send(path, { signal })).json();
}

export async function getBlob(path, signal) {
  return (await send(path, { signal })).blob();
}

export async function getNumbers(path, signal) {
  return new Float32Array(await (await send(path, { signal })).arrayBuffer());
}

// body: an object, sent as JSON, or a file as it is.
export async function post(path, body = {}, signal) {
  const file = body instanceof Blob, headers = { "X-Fieldloom": "view" };
  if (!file) headers["Content-Type"] = "application/json";
  return (await send(path, { method: "POST", headers, signal,
    body: file ? body : JSON.stringify(body) })).json();
}

// Whether an error only says that what was asked is no longer wanted, or that the server is lost,
// which the page says in one place.
export function isOver(error) {
  return error.name === "AbortError" || error instanceof Lost;
}
