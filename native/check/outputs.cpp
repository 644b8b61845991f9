#include "check/outputs.h"

#include "attention.h"
#include "trunk.h"

namespace griffin {
namespace {

constexpr Type kTypes[] = {Type::f32, Type::bf16, Type::f64};
constexpr Format kFormats[] = {Format::bf16, Format::int8, Format::int4, Format::int2,
                               Format::int3};
constexpr int kThreads = 2;

Type wide(Type type) { return type == Type::f64 ? Type::f64 : Type::f32; }
const char* text(Type type) {
  return type == Type::f32 ? "float32" : type == Type::bf16 ? "bfloat16" : "float64";
}
const char* text(Format format) {
  constexpr const char* kNames[] = {"bf16", "int8", "int4", "int2", "int3"};
  return kNames[static_cast<int>(format)];
}

double rounding(Type type) {
  return type == Type::f64 ? 1e-12 : type == Type::f32 ? 1e-5 : 1.0 / 128;
}

std::vector<int64_t> positions(int64_t rows, int64_t steps) {
  std::vector<int64_t> out;
  for (int64_t row = 0; row < rows; ++row) {  // pads, one document, and in its middle another
    for (int64_t t = 0; t < steps; ++t) {
      out.push_back(t < row ? -1 : t < steps / 2 || t < row + 2 ? t - row : t - steps / 2);
    }
  }
  return out;
}

void products(Outputs& out) {
  for (Format format : kFormats) {
    for (Type x_type : {Type::f32, Type::bf16}) {
      for (int64_t rows : {1, 2, 3, 4, 7, 19}) {
        for (int64_t in : {1, 3, 64, 97, 321, 2560}) {
          Numbers numbers;
          const Type type = rows % 2 ? Type::f32 : Type::bf16;
          const Packed packed(numbers, format, in % 50, in, 1, in % 3 ? &type : nullptr);
          Tensor x = numbers.uniform(x_type, rows * in, -10, 10), y(type, rows * (in % 50));
          for (int64_t k = 0; rows > 2 && k < in; ++k) x.set(in + k, 0);
          if (rows > 3) x.set(2 * in, HUGE_VAL);
          std::vector<uint8_t> memory(
              static_cast<size_t>(product_bytes(packed.matrix, rows) + 64));
          const uintptr_t start = (reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64;
          const Results results{y, type};
          multiply(&packed.matrix, &results, 1, x, x_type, rows, reinterpret_cast<uint8_t*>(start),
                   kThreads);
          out.push_back({std::string("product ") + text(format) + " of " + text(x_type) + ", " +
                             std::to_string(rows) + " x " + std::to_string(in),
                         y, format == Format::int8 ? 0 : rounding(type)});
        }
      }
    }
    Numbers numbers;
    const Packed packed(numbers, format, 50, 99, 1);
    for (Type type : {Type::f32, Type::bf16}) {
      const int64_t ids[] = {0, 49, 17};
      Tensor y(type, 3 * 99);
      look_up(packed.matrix, ids, 3, 2.5f, type, y);
      out.push_back({std::string("look up ") + text(format) + " as " + text(type), y, 0});
    }
  }
}

void along_time(Outputs& out, Type type, int64_t rows, int64_t steps, int64_t width,
                int64_t blocks) {
  const std::string of = std::string(" ") + text(type) + ", " + std::to_string(rows) + " x " +
                         std::to_string(steps) + " x " + std::to_string(width);
  const Type w = wide(type);
  const int64_t n = rows * steps * width, row = rows * width, size = width / blocks;
  const double near = rounding(type), exact = rounding(w);
  Numbers numbers;
  const std::vector<int64_t> position = positions(rows, steps);
  Tensor x = numbers.uniform(type, n), a = numbers.uniform(type, n, 0, 1);
  Tensor h0 = numbers.uniform(w, row), dlast = numbers.uniform(w, row);
  Tensor h(type, n), last(w, row), every(w, n), dx(type, n), da(type, n), dh0(w, row);
  run(Scan{type, rows, steps, width, x, a, h0, h, last, every}, kThreads);
  run(ScanGradient{type, rows, steps, width, a, x, every, h0, dlast, dx, da, dh0}, kThreads);
  out.insert(out.end(), {{"scan" + of, h, near}, {"scan's last" + of, last, exact},
                         {"scan's gradient" + of, da, near}, {"scan's h0" + of, dh0, exact}});

  Tensor wi = numbers.uniform(type, width * size), bi = numbers.uniform(type, width);
  Tensor wr = numbers.uniform(type, width * size), br = numbers.uniform(type, width);
  Tensor param = numbers.uniform(type, width, -4, 4);
  Tensor unit_h(type, n), unit_last(w, row);
  run(Unit{type, rows, steps, width, blocks, x, wi, bi, wr, br, param, position.data(), h0, unit_h,
           unit_last, nullptr, nullptr, nullptr}, kThreads);
  out.push_back({"unit" + of, unit_h, near});
  out.push_back({"unit's last" + of, unit_last, exact * 10});

  Tensor gate_i = numbers.uniform(w, n, -3, 3), gate_r = numbers.uniform(w, n, -3, 3);
  Tensor wide_param = numbers.uniform(w, width, -4, 4);
  run(Unit{type, rows, steps, width, 1, x, nullptr, nullptr, nullptr, nullptr, wide_param,
           position.data(), h0, h, last, gate_i, gate_r, every}, kThreads);
  Tensor dunit(w, n), di(w, n), dr(w, n), drate(w, row), dunit_h0(w, row);
  run(UnitGradient{type, rows, steps, width, x, a, gate_i, gate_r, every, wide_param,
                   position.data(), h0, dlast, dunit, di, dr, drate, dunit_h0}, kThreads);
  out.insert(out.end(), {{"unit of gates" + of, every, exact * 10},
                         {"unit's gradient" + of, dunit, exact * 10},
                         {"input gate's gradient" + of, di, exact * 10},
                         {"recurrence gate's gradient" + of, dr, exact * 10},
                         {"rate's gradient" + of, drate, exact * 10}});

  const int64_t taps = 4;
  Tensor weight = numbers.uniform(type, width * taps), bias = numbers.uniform(type, width);
  Tensor cache = numbers.uniform(type, rows * (taps - 1) * width);
  Tensor y(type, n), left(type, rows * (taps - 1) * width);
  run(Convolution{type, rows, steps, width, taps, x, weight, bias, position.data(), cache, y,
                  left}, kThreads);
  out.push_back({"convolution" + of, y, near});
  out.push_back({"convolution's cache" + of, left, 0});
}

// Training's kernel for a whole recurrent block, long enough for a second kept h.
void recurrences(Outputs& out, Type type, int64_t rows, int64_t steps, int64_t width,
                 int64_t blocks) {
  const std::string of = std::string(" ") + text(type) + ", " + std::to_string(rows) + " x " +
                         std::to_string(steps) + " x " + std::to_string(width);
  const Type w = wide(type);
  const int64_t n = rows * steps * width, row = rows * width, size = width / blocks, taps = 4;
  const int64_t kept_steps = (steps - 1) / kKept, cached = rows * (taps - 1) * width;
  // Gates are multiplied in pairs of bfloat16 by some sets, in float32 by others.
  const double near = rounding(type) * (type == Type::bf16 ? 4 : 100);
  Numbers numbers;
  const std::vector<int64_t> position = positions(rows, steps);
  Tensor x = numbers.uniform(type, n), dh = numbers.uniform(type, n);
  Tensor weight = numbers.uniform(w, width * taps), bias = numbers.uniform(w, width);
  Tensor wi = numbers.uniform(w, width * size, -0.2, 0.2), bi = numbers.uniform(w, width);
  Tensor wr = numbers.uniform(w, width * size, -0.2, 0.2), br = numbers.uniform(w, width);
  Tensor param = numbers.uniform(w, width, -4, 4), cache = numbers.uniform(type, cached);
  Tensor h0 = numbers.uniform(w, row), dlast = numbers.uniform(w, row);
  Tensor ddecay = numbers.uniform(w, row), dleft = numbers.uniform(type, cached);
  Tensor h(type, n), left(type, cached), last(w, row), decay(w, row), kept(w, row * kept_steps);
  const Recurrence u{type, rows, steps, width, blocks, taps, x,    weight,
                     bias, wi,   bi,    wr,    br,     param, position.data(), cache,
                     h0,   h,    left,  last,  decay,  kept,  nullptr};
  run(u, kThreads);
  Tensor dx(type, n), dcache(type, cached), dh0(w, row);
  Tensor dweights(w, width * (2 * size + taps + 4));
  run(RecurrenceGradient{type, u, 1, dh, dleft, dlast, ddecay, dx, dcache, dh0, dweights},
      kThreads);
  out.insert(out.end(), {{"recurrence" + of, h, near}, {"recurrence's cache" + of, left, 0},
                         {"recurrence's last" + of, last, near},
                         {"recurrence's decay" + of, decay, near},
                         {"recurrence's gradient" + of, dx, near},
                         {"recurrence's cache's gradient" + of, dcache, near},
                         {"recurrence's h0's gradient" + of, dh0, near},
                         {"recurrence's weights' gradients" + of, dweights, near}});
}

void attentions(Outputs& out, Type type, int64_t steps, int64_t start, int64_t heads,
                int64_t kv_heads, int64_t width) {
  const int64_t rows = 2, slots = 150;
  Numbers numbers;
  Attention n{};
  n.type = type;
  n.rows = rows;
  n.steps = steps;
  n.heads = heads;
  n.kv_heads = kv_heads;
  n.width = width;
  n.slots = slots;
  const int64_t queries = rows * steps * heads * width, keys = rows * steps * kv_heads * width;
  Tensor q = numbers.uniform(type, queries, -2, 2), k = numbers.uniform(type, keys, -2, 2);
  Tensor v = numbers.uniform(type, keys), y(type, queries);
  Tensor ring_k = numbers.uniform(type, rows * slots * kv_heads * width, -2, 2);
  Tensor ring_v = numbers.uniform(type, rows * slots * kv_heads * width);
  n.q = q;
  n.k = k;
  n.v = v;
  n.ring_k = ring_k;
  n.ring_v = ring_v;
  n.y = y;
  std::vector<int64_t> position = positions(rows, steps);
  for (int64_t t = 0; t < steps; ++t) position[static_cast<size_t>(t)] = start + t;
  attend(n, position.data(), kThreads);
  const std::string of = std::string(" ") + text(type) + ", " + std::to_string(steps) +
                         " tokens at " + std::to_string(start) + ", heads of " +
                         std::to_string(width);
  out.push_back({"attention" + of, y, rounding(type)});

  const Type w = wide(type);
  AttentionGradient g{};
  static_cast<Attention&>(g) = n;
  Tensor lse(w, rows * steps * heads), dy = numbers.uniform(type, queries), dq(type, queries);
  Tensor dk(w, keys), dv(w, keys), dring_k(w, ring_k.count()), dring_v(w, ring_v.count());
  g.lse = n.lse = lse;
  attend(n, position.data(), kThreads);
  g.dy = dy;
  g.dq = dq;
  g.dk = dk;
  g.dv = dv;
  g.dring_k = dring_k;
  g.dring_v = dring_v;
  attend_back(g, position.data(), kThreads);
  const double near = rounding(w) * 10;
  out.insert(out.end(), {{"attention's lse" + of, lse, near},
                         {"queries' gradient" + of, dq, rounding(type)},
                         {"keys' gradient" + of, dk, type == Type::bf16 ? 1e-3 : near},
                         {"values' gradient" + of, dv, type == Type::bf16 ? 1e-3 : near},
                         {"ring's gradient" + of, dring_k, type == Type::bf16 ? 1e-3 : near}});
}

void one_pass(Outputs& out, Type type) {
  const std::string of = std::string(" ") + text(type);
  const Type w = wide(type);
  const double near = rounding(type);
  Numbers numbers;
  const int64_t rows = 3, width = 77;
  Tensor x = numbers.uniform(type, rows * width), add = numbers.uniform(type, rows * width);
  Tensor weight = numbers.uniform(type, width), sum(type, rows * width), y(type, rows * width);
  run(Norm{type, rows, width, x, add, weight, 1e-6, sum, y}, kThreads);
  out.push_back({"norm" + of, y, near});
  out.push_back({"norm's sum" + of, sum, 0});
  Tensor gate = numbers.uniform(type, rows * width, -9, 9), gated(type, rows * width);
  run(Gated{type, rows * width, gate, x, gated}, kThreads);
  out.push_back({"gated" + of, gated, near});
  Tensor cos = numbers.uniform(w, rows * 5), sin = numbers.uniform(w, rows * 5);
  run(Rope{type, rows, 7, 11, 5, x, cos, sin}, kThreads);
  out.push_back({"rope" + of, x, near});
  if (type == Type::f32) {
    Tensor logits = numbers.uniform(type, 333, -90, 90);
    run(SoftCap{333, 30, static_cast<float*>(static_cast<void*>(logits))}, kThreads);
    out.push_back({"soft cap", logits, near});
  }
  for (int64_t many : {1, 5, 20}) {
    const int64_t in = 37 * many, outputs = 70;
    Tensor from = numbers.uniform(type, many * in), matrix = numbers.uniform(type, outputs * in);
    Tensor bias = numbers.uniform(type, outputs), to(type, many * outputs);
    run(Linear{type, many, in, outputs, from, matrix, bias, to, nullptr}, kThreads);
    out.push_back({"linear" + of + ", " + std::to_string(many) + " rows", to, near});
  }
}

// A whole model: 50 tokens at once, then some one by one.
void trunks(Outputs& out, Format format, Type type) {
  const int64_t D = 64, E = 96, F = 80, N = 4, H = 16, S = 40, W = 4, G = 3, rows = 2, long_ = 50;
  Numbers numbers;
  const Packed embedding(numbers, format, 256, D, 1);
  Tensor norm = numbers.uniform(type, D), conv = numbers.uniform(type, E * W);
  Tensor bias = numbers.uniform(type, E), gates = numbers.uniform(type, E * E / G);
  Tensor param = numbers.uniform(type, E, -4, 4);
  const Packed x(numbers, format, E, D, 0.25, &type), to(numbers, format, D, E, 0.25, &type);
  const Packed q(numbers, format, N * H, D, 0.25), k(numbers, format, H, D, 0.25);
  const Packed o(numbers, format, D, N * H, 0.25, &type), up(numbers, format, F, D, 0.25);
  const Packed down(numbers, format, D, F, 0.25);
  std::vector<double> frequencies;
  for (int j = 0; j < H / 4; ++j) frequencies.push_back(std::exp2(-j));
  Trunk trunk(type, {D, E, F, N, 1, H, S, W, G}, 1e-6, frequencies, embedding.matrix, 8, norm);
  const MlpWeights mlp{norm, up.matrix, up.matrix, down.matrix};
  std::vector<Tensor> state;
  for (int layer = 0; layer < 3; ++layer) {
    if (layer == 1) {
      trunk.add(AttentionWeights{norm, q.matrix, k.matrix, k.matrix, o.matrix}, mlp);
      for (int side = 0; side < 2; ++side) state.push_back(numbers.uniform(type, rows * S * H));
    } else {
      trunk.add(RecurrentWeights{norm, x.matrix, x.matrix, to.matrix, conv, bias, gates, bias,
                                 gates, bias, param}, mlp);
      state.push_back(numbers.uniform(type, rows * (W - 1) * E, 0, 0));
      state.push_back(numbers.uniform(Type::f32, rows * E, 0, 0));
    }
  }
  std::vector<void*> tensors(state.begin(), state.end());
  const std::string of = std::string(" ") + text(format) + " " + text(type);
  int64_t before[] = {0, 0};
  for (int64_t steps : {long_, int64_t{1}, int64_t{1}}) {
    std::vector<int64_t> ids;
    for (int64_t t = 0; t < rows * steps; ++t) ids.push_back(numbers.bits() % 256);
    Tensor hidden(type, rows * steps * D);
    trunk.run(ids.data(), {steps, steps}, before, tensors, {}, hidden, {}, kThreads, [] {});
    for (int64_t& at : before) at += steps;
    out.push_back({"trunk" + of + " at " + std::to_string(before[0]), hidden,
                   type == Type::f32 ? 1e-3 : 0.1});
  }
}

}  // namespace

Outputs all_outputs(const char* set) {
  force(set);
  Outputs out;
  products(out);
  for (Type type : kTypes) {
    along_time(out, type, 2, 9, 42, 2);
    along_time(out, type, 5, 1, 40, 1);
    along_time(out, type, 1, 1, 128, 2);
    recurrences(out, type, 2, 2, 42, 2);
    recurrences(out, type, 2, 150, 40, 1);
    for (int64_t heads : {2, 4}) {
      attentions(out, type, 1, 400, heads, 1, 32);
      attentions(out, type, 70, 130, heads, 2, 20);
    }
    one_pass(out, type);
  }
  for (Format format : kFormats) {
    for (Type type : {Type::f32, Type::bf16}) trunks(out, format, type);
  }
  return out;
}

}  // namespace griffin
