// OpenAI's client for Node in a web page, from another origin than the server's, which stands
// after #. What came of it is window.told.

import OpenAI from "./node_modules/openai/index.mjs";

const client = new OpenAI({
  baseURL: `${location.hash.slice(1)}/v1`,
  apiKey: "none",
  dangerouslyAllowBrowser: true,
  maxRetries: 0,
});

async function ask() {
  const messages = [{ role: "user", content: "one" }];
  const chat = await client.chat.completions
    .create({ model: "toy", seed: 1, max_tokens: 6, messages })
    .withResponse();
  const wanted = { model: "toy", seed: 1, max_output_tokens: 6, input: "one", stream: true };
  let streamed = "";
  for await (const event of await client.responses.create(wanted)) {
    if (event.type === "response.output_text.delta") streamed += event.delta;
  }
  const refused = await client.models.retrieve("nope").catch((error) => error.status);
  const state = chat.response.headers.get("x-griffin-state");
  return { whole: chat.data.choices[0].message.content, streamed, state, refused };
}

try {
  window.told = await ask();
} catch (error) {
  window.told = { error: error.constructor.name };
}
