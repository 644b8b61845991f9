#include "trunk.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "attention.h"
#include "pool.h"
#include "run.h"

namespace griffin {
namespace {

#include "scratch.h"

// Takes pieces of memory, each at the beginning of a cache line; first without any, to count them.
struct Carver {
  uint8_t* memory = nullptr;
  int64_t used = 0;

  template <class T>
  void take(T*& to, int64_t bytes) {
    to = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
    used += (bytes + 63) / 64 * 64;
  }
};

}  // namespace

void rope_table(Type type, const int64_t* position, int64_t tokens, const double* frequency,
                int64_t half, void* cos, void* sin) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < half; ++j) {
      const double angle = static_cast<double>(position[t]) * frequency[j];
      if (type == Type::f64) {
        static_cast<double*>(cos)[t * half + j] = std::cos(angle);
        static_cast<double*>(sin)[t * half + j] = std::sin(angle);
      } else {
        static_cast<float*>(cos)[t * half + j] = static_cast<float>(std::cos(angle));
        static_cast<float*>(sin)[t * half + j] = static_cast<float>(std::sin(angle));
      }
    }
  }
}

Trunk::Trunk(Type type, const Shape& shape, double eps, const std::vector<double>& frequencies,
             const Matrix& embedding, float scale, const void* final_norm)
    : type_(type), shape_(shape), eps_(eps), frequencies_(frequencies), embedding_(embedding),
      scale_(scale), final_norm_(final_norm) {}

void Trunk::add(const RecurrentWeights& temporal, const MlpWeights& mlp) {
  layers_.push_back({temporal, mlp});
  matrices_.insert(matrices_.end(), {temporal.linear_x, temporal.linear_y, temporal.linear_out,
                                     mlp.gate_proj, mlp.up_proj, mlp.down_proj});
}

void Trunk::add(const AttentionWeights& temporal, const MlpWeights& mlp) {
  layers_.push_back({temporal, mlp});
  matrices_.insert(matrices_.end(),
                   {temporal.q_proj, temporal.k_proj, temporal.v_proj, temporal.o_proj,
                    mlp.gate_proj, mlp.up_proj, mlp.down_proj});
}

// What one call works on. Buffers hold a vector for each of the B * T tokens.
struct Trunk::Call {
  const Trunk& trunk;
  int64_t rows, steps, tokens;
  int threads;
  int64_t* position = nullptr;
  void *cos = nullptr, *sin = nullptr;
  void *x = nullptr, *inner = nullptr, *out = nullptr;  // (tokens, D)
  void *a = nullptr, *b = nullptr, *c = nullptr;  // (tokens, the widest of what is between)
  void* left = nullptr;
  uint8_t* product = nullptr;

  void carve(Carver& carver) {
    const Shape& shape = trunk.shape_;
    const int64_t size = size_of(trunk.type_), wide = size < 4 ? 4 : size;
    const int64_t half = static_cast<int64_t>(trunk.frequencies_.size());
    const int64_t attention = shape.heads * shape.head_width;
    const int64_t between = std::max({shape.lru_width, shape.mlp_width, attention});
    carver.take(position, tokens * 8);
    carver.take(cos, tokens * half * wide);
    carver.take(sin, tokens * half * wide);
    for (void** buffer : {&x, &inner, &out}) carver.take(*buffer, tokens * shape.width * size);
    for (void** buffer : {&a, &b, &c}) carver.take(*buffer, tokens * between * size);
    carver.take(left, rows * (shape.conv_width - 1) * shape.lru_width * size);
    int64_t most = 0;
    for (const Matrix& m : trunk.matrices_) most = std::max(most, product_bytes(m, tokens));
    carver.take(product, most);
  }

  template <size_t N>
  void multiply(const Matrix (&matrices)[N], void* const (&to)[N], const void* from) {
    Results results[N];
    for (size_t k = 0; k < N; ++k) results[k] = {to[k], trunk.type_};
    griffin::multiply(matrices, results, static_cast<int>(N), from, trunk.type_, tokens, product,
                      threads);
  }

  // inner = norm(x), or x += out first.
  void norm(const void* weight, bool add, void* to) {
    const Norm n{trunk.type_, tokens, trunk.shape_.width, x, add ? out : nullptr, weight,
                 trunk.eps_, add ? x : nullptr, to};
    griffin::run(n, threads);
  }

  // to = gelu(gate) * value
  void gated(const void* gate, const void* value, int64_t width, void* to) {
    griffin::run(Gated{trunk.type_, tokens * width, gate, value, to}, threads);
  }

  void rotate(void* heads, int64_t count) {
    const int64_t half = static_cast<int64_t>(trunk.frequencies_.size());
    const Rope r{trunk.type_, tokens, count, trunk.shape_.head_width, half, heads, cos, sin};
    if (r.half) griffin::run(r, threads);
  }
};

void Trunk::recur(const RecurrentWeights& w, Call& call, void* conv, void* lru) const {
  const int64_t width = shape_.lru_width, taps = shape_.conv_width;
  call.multiply({w.linear_x, w.linear_y}, {call.a, call.b}, call.inner);
  const Convolution v{type_, call.rows, call.steps, width, taps, call.a, w.conv_weight,
                      w.conv_bias, call.position, conv, call.c, call.left};
  griffin::run(v, call.threads);
  const int64_t bytes = call.rows * (taps - 1) * width * size_of(type_);
  std::memcpy(conv, call.left, static_cast<size_t>(bytes));

  Unit u{};
  u.type = type_;
  u.rows = call.rows;
  u.steps = call.steps;
  u.width = width;
  u.blocks = shape_.gate_blocks;
  u.x = call.c;
  u.wi = w.input_gate_weight;
  u.bi = w.input_gate_bias;
  u.wr = w.recurrent_gate_weight;
  u.br = w.recurrent_gate_bias;
  u.param = w.recurrent_param;
  u.position = call.position;
  u.h0 = lru;
  u.h = call.a;
  u.last = lru;
  griffin::run(u, call.threads);
  call.gated(call.b, call.a, width, call.c);
  call.multiply({w.linear_out}, {call.out}, call.c);
}

void Trunk::attend(const AttentionWeights& w, Call& call, void* ring_k, void* ring_v) const {
  const int64_t slots = shape_.slots;
  call.multiply({w.q_proj, w.k_proj, w.v_proj}, {call.a, call.b, call.c}, call.inner);
  call.rotate(call.a, shape_.heads);
  call.rotate(call.b, shape_.kv_heads);
  Attention n{};
  n.type = type_;
  n.rows = call.rows;
  n.steps = call.steps;
  n.heads = shape_.heads;
  n.kv_heads = shape_.kv_heads;
  n.width = shape_.head_width;
  n.slots = slots;
  n.q = call.a;
  n.k = call.b;
  n.v = call.c;
  n.ring_k = ring_k;
  n.ring_v = ring_v;
  n.y = call.inner;
  griffin::attend(n, call.position, call.threads);
  // Only now: the oldest key, whose slot the new one takes, was still seen.
  const int64_t bytes = shape_.kv_heads * shape_.head_width * size_of(type_);
  const auto keep = [&](void* ring, const void* from, int64_t slot, int64_t token) {
    std::memcpy(static_cast<uint8_t*>(ring) + slot * bytes,
                static_cast<const uint8_t*>(from) + token * bytes, static_cast<size_t>(bytes));
  };
  for (int64_t row = 0; row < call.rows; ++row) {
    for (int64_t step = std::max<int64_t>(0, call.steps - slots); step < call.steps; ++step) {
      const int64_t token = row * call.steps + step;
      const int64_t slot = row * slots + call.position[token] % slots;
      keep(ring_k, call.b, slot, token);
      keep(ring_v, call.c, slot, token);
    }
  }
  call.multiply({w.o_proj}, {call.out}, call.inner);
}

void Trunk::run(const int64_t* tokens, int64_t rows, int64_t steps, const int64_t* before,
                const std::vector<void*>& state, void* hidden, int threads,
                const std::function<void()>& between) const {
  for (int64_t row = 0; row < rows; ++row) check_position(before[row], steps);
  check_ids(embedding_, tokens, rows * steps);
  if (state.size() != 2 * layers_.size()) {
    throw std::invalid_argument("a state has two tensors a layer");
  }
  Call call{*this, rows, steps, rows * steps, threads};
  Carver counter;
  call.carve(counter);
  Carver carver{scratch().get(counter.used), 0};
  call.carve(carver);

  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t step = 0; step < steps; ++step) {
      call.position[row * steps + step] = before[row] + step;
    }
  }
  rope_table(type_, call.position, call.tokens, frequencies_.data(),
             static_cast<int64_t>(frequencies_.size()), call.cos, call.sin);
  parallel(threads, call.tokens, 16, [&](int64_t first, int64_t last) {
    look_up(embedding_, tokens + first, last - first, scale_, type_,
            static_cast<uint8_t*>(call.x) + first * shape_.width * size_of(type_));
  });
  bool add = false;
  for (size_t k = 0; k < layers_.size(); ++k) {
    between();
    const Layer& layer = layers_[k];
    void *first = state[2 * k], *second = state[2 * k + 1];
    if (const auto* recurrent = std::get_if<RecurrentWeights>(&layer.temporal)) {
      call.norm(recurrent->norm, add, call.inner);
      recur(*recurrent, call, first, second);
    } else {
      const auto& attention = std::get<AttentionWeights>(layer.temporal);
      call.norm(attention.norm, add, call.inner);
      attend(attention, call, first, second);
    }
    const MlpWeights& mlp = layer.mlp;
    call.norm(mlp.norm, true, call.inner);
    call.multiply({mlp.gate_proj, mlp.up_proj}, {call.a, call.b}, call.inner);
    call.gated(call.a, call.b, shape_.mlp_width, call.a);
    call.multiply({mlp.down_proj}, {call.out}, call.a);
    add = true;
  }
  call.norm(final_norm_, add, hidden);
}

}  // namespace griffin
