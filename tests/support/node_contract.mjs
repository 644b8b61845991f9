// Clients for Node before a live server: node node_contract.mjs URL; prints their versions.
// Lies beside node_modules when it runs.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import Anthropic from "@anthropic-ai/sdk";
import { Ollama } from "ollama";
import OpenAI from "openai";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText, tool, stepCountIs } from "ai";
import { z } from "zod";

const baseURL = `${process.argv[2]}/v1`;
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const asked = { model: "toy", max_output_tokens: 6, seed: 1 };

async function openai() {
  const chat = await client.chat.completions.create({
    model: "toy", seed: 1, max_tokens: 6, messages: [{ role: "user", content: "one" }],
  });
  const first = await client.responses.create({ ...asked, input: "one" });
  assert.equal(first.output_text, chat.choices[0].message.content);
  let text = "";
  const stream = await client.responses.create({
    ...asked, input: "two", previous_response_id: first.id, stream: true,
  });
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  const talk = await client.conversations.create({ metadata: { topic: "owls" } });
  for (const input of ["one", "two"]) {
    const answer = await client.responses.create({ ...asked, input, conversation: talk.id });
    assert.equal(answer.output_text, input === "one" ? first.output_text : text);
  }
  const roles = [];
  for await (const item of client.conversations.items.list(talk.id, { order: "asc", limit: 1 })) {
    roles.push(item.role);
  }
  assert.deepEqual(roles, ["user", "assistant", "user", "assistant"]);
  const given = [];
  for await (const item of client.responses.inputItems.list(first.id)) given.push(item.content[0]);
  assert.deepEqual(given, [{ type: "input_text", text: "one" }]);
  const counted = await client.responses.inputTokens.count({ model: "toy", input: "one" });
  assert.equal(counted.input_tokens, first.usage.input_tokens);
  assert.equal((await client.conversations.delete(talk.id)).deleted, true);
  await assert.rejects(client.conversations.retrieve(talk.id), OpenAI.NotFoundError);
}

async function aiSdk() {
  const sent = [];
  const griffin = createOpenAI({
    baseURL,
    apiKey: "none",
    fetch: (url, options) => {
      sent.push({ ...JSON.parse(options.body), seed: 1 });
      return fetch(url, { ...options, body: JSON.stringify(sent.at(-1)) });
    },
  });
  const model = griffin("toy");
  const messages = [{ role: "user", content: "one" }];
  const options = { model, messages, maxOutputTokens: 6, maxRetries: 0 };
  const first = await generateText(options);
  assert.notEqual(first.text, "");
  messages.push(...first.response.messages, { role: "user", content: "two" });
  const second = streamText(options);
  let text = "";
  for await (const piece of second.textStream) text += piece;
  // What it sent is the answer's id, and what was read is the answer's text.
  assert.deepEqual(sent.at(-1).input.map((item) => item.type ?? item.role), [
    "user", "item_reference", "user",
  ]);
  const whole = await client.responses.create({
    ...asked,
    input: [
      { role: "user", content: "one" },
      { role: "assistant", content: first.text },
      { role: "user", content: "two" },
    ],
  });
  assert.equal(text, whole.output_text);
  messages.push(...(await second.response).messages, { role: "user", content: "three" });
  const weather = tool({
    description: "Tell the weather.",
    inputSchema: z.object({ city: z.enum(["Bonn", "Graz"]) }),
    strict: true,
    execute: async ({ city }) => ({ city, weather: "rain" }),
  });
  const called = await generateText({
    ...options, tools: { weather }, toolChoice: "required", maxOutputTokens: 200,
    stopWhen: stepCountIs(2),
    providerOptions: { openai: { parallelToolCalls: false } },  // or the toy calls until it is cut
  });
  assert.deepEqual(called.steps.map((step) => step.toolResults.length), [1, 1]);
  messages.push(...called.response.messages, { role: "user", content: "four" });
  const last = await generateText(options);
  assert.equal(sent.at(-1).input.filter((item) => item.type === "item_reference").length >= 2, true);
  assert.deepEqual(last.warnings, []);
  // Without a store of its own it sends the text.
  const unkept = await generateText({ ...options, providerOptions: { openai: { store: false } } });
  assert.equal(sent.at(-1).input.some((item) => item.type === "item_reference"), false);
  assert.equal(unkept.text, last.text);
  const chat = await generateText({ ...options, model: griffin.chat("toy") });
  assert.notEqual(chat.text, "");
}

/** Anthropic's and Ollama's: whole, in a stream, and counted, one answer. */
async function others() {
  const asked = { model: "toy", messages: [{ role: "user", content: "one" }] };
  const anthropic = new Anthropic({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
  const more = { ...asked, max_tokens: 6, temperature: 0 };
  const whole = await anthropic.messages.create(more);
  const streamed = await anthropic.messages.stream(more).finalMessage();
  assert.deepEqual(streamed.content, whole.content);
  const counted = await anthropic.messages.countTokens(asked);
  assert.equal(counted.input_tokens, whole.usage.input_tokens);
  const ollama = new Ollama({ host: process.argv[2] });
  const options = { num_predict: 6, temperature: 0 };
  const chat = await ollama.chat({ ...asked, options });
  assert.equal(chat.message.content, whole.content[0].text);
  let text = "";
  for await (const part of await ollama.chat({ ...asked, options, stream: true })) {
    text += part.message.content;
  }
  assert.equal(text, chat.message.content);
}

await openai();
await aiSdk();
await others();
for (const name of ["openai", "ai", "@ai-sdk/openai", "@anthropic-ai/sdk", "ollama"]) {
  const about = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf-8"));
  console.log(name, about.version);
}
