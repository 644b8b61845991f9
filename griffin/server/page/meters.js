// What an answer costs, as a small live picture: how fast it comes, how much of the prompt did not
// have to be read again, and how large the state is, which stays as it is while the conversation
// goes on.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [120, 28];
const BARS = 30; // of the speed's picture
const TICK = 0.2; // seconds a bar stands for

/** Three meters in a <dl>.
 *
 * bytes: of a state; window: tokens of it that are kept verbatim. Both are 0 while unknown.
 */
export class Meters {
  bytes = 0;
  window = 0;
  #speed;
  #prompt;
  #state;
  #pieces = []; // of the answer: when each came, and how long it is
  #bars = [];
  #letters = 4; // in a token, as far as the answers until now tell
  #begun = 0;
  #timer = null;

  constructor(list) {
    this.#speed = new Meter(list, "speed", "Speed");
    this.#prompt = new Meter(list, "prompt", "Prompt");
    this.#state = new Meter(list, "state", "State");
    this.clear();
  }

  clear() {
    this.#speed.show("–", []);
    this.#prompt.show("–", []);
    this.state(0);
  }

  /** Begin an answer. */
  begin() {
    this.#pieces = [];
    this.#bars = [];
    this.#begun = performance.now();
    this.#speed.show("waiting", []);
    this.#prompt.show("reading", []);
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#tick(), TICK * 1000);
  }

  /** Count a piece of the answer. A server quicker than the network sends several tokens in one. */
  piece(text) {
    this.#pieces.push([performance.now(), text.length]);
  }

  /** End an answer. usage, extras: the server's own numbers, if it came to them. */
  end(usage, extras) {
    clearInterval(this.#timer);
    this.#tick();
    const letters = this.#pieces.reduce((sum, [, length]) => sum + length, 0);
    if (usage?.completion_tokens && letters) this.#letters = letters / usage.completion_tokens;
    if (extras?.tokens_per_second !== undefined) {
      this.#speed.say(`${short(extras.tokens_per_second)} tokens/s`);
    }
    else if (!letters) this.#speed.show("–", []);
    if (usage) {
      const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
      const part = usage.prompt_tokens ? cached / usage.prompt_tokens : 0;
      const words = `${whole(cached)} cached, ${whole(usage.prompt_tokens - cached)} read`;
      this.#prompt.show(words, [["back", 0, 1], ["fill", 0, part]]);
    } else this.#prompt.show("–", []);
    if (extras?.state_bytes !== undefined) this.bytes = extras.state_bytes;
  }

  /** Show the state's size beside what it has read. The bar fills as the window does. */
  state(tokens) {
    const read = tokens ? `for ${whole(tokens)} tokens` : "at most";
    const words = `${size(this.bytes)} ${read}`;
    const part = this.window ? Math.min(1, tokens / this.window) : 0;
    this.#state.show(this.bytes ? words : "–", [["back", 0, 1], ["fill", 0, part]]);
  }

  #tick() {
    if (!this.#pieces.length) return;
    const now = performance.now();
    const since = now - Math.min(1000, now - this.#begun);
    const recent = this.#pieces.filter(([time]) => time > since);
    const letters = recent.reduce((sum, [, length]) => sum + length, 0);
    const lately = letters / this.#letters / Math.max(TICK, (now - since) / 1000);
    this.#bars = [...this.#bars, lately].slice(-BARS);
    const most = Math.max(1, ...this.#bars);
    const shapes = this.#bars.map((rate, place) => ["bar", place / BARS, rate / most]);
    this.#speed.show(`≈ ${short(lately)} tokens/s`, shapes);
  }
}

class Meter {
  #value;
  #picture;

  constructor(list, name, label) {
    const group = list.appendChild(document.createElement("div"));
    group.dataset.meter = name;
    group.appendChild(document.createElement("dt")).textContent = label;
    this.#value = group.appendChild(document.createElement("dd"));
    // The words beside it say the same; nobody needs to hear it twice.
    this.#picture = group.appendChild(document.createElementNS(SVG, "svg"));
    this.#picture.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.#picture.setAttribute("preserveAspectRatio", "none");
    this.#picture.setAttribute("aria-hidden", "true");
  }

  say(words) {
    this.#value.textContent = words;
  }

  /** shapes: ["bar", where it begins, its height] or ["back" | "fill", 0, its width], 0 to 1. */
  show(words, shapes) {
    this.say(words);
    this.#picture.replaceChildren(...shapes.map(([kind, from, part]) => {
      const bar = kind === "bar";
      const height = bar ? Math.max(1, part * HEIGHT) : 8;
      return rectangle(kind, {
        x: from * WIDTH,
        y: bar ? HEIGHT - height : (HEIGHT - height) / 2,
        width: bar ? WIDTH / BARS - 1 : part * WIDTH,
        height,
      });
    }));
  }
}

function rectangle(kind, sizes) {
  const made = document.createElementNS(SVG, "rect");
  made.setAttribute("class", kind);
  for (const [name, value] of Object.entries(sizes)) made.setAttribute(name, value.toFixed(2));
  return made;
}

function short(rate) {
  return rate < 10 ? rate.toFixed(1) : rate.toFixed(0);
}

/** Write a count for people. */
export function whole(count) {
  return count.toLocaleString("en");
}

/** Write a number of bytes for people. */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(bytes < 1e4 ? 1 : 0)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
