#include "trunk.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

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

void rope_table(Type type, const int64_t* position, int64_t tokens, const double* frequency, int64_t half, void* cos,
                void* sin) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < half; ++j) {
      const double angle = static_cast<double>(position[t] > 0 ? position[t] : 0) * frequency[j];
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

Trunk::Trunk(Type type, const std::vector<int64_t>& sizes, double eps, const std::vector<double>& frequencies,
             const Matrix& embedding, float scale, const void* final_norm)
    : type_(type), width_(sizes.at(0)), lru_width_(sizes.at(1)), mlp_width_(sizes.at(2)), heads_(sizes.at(3)),
      kv_heads_(sizes.at(4)), head_width_(sizes.at(5)), slots_(sizes.at(6)), taps_(sizes.at(7)),
      gate_blocks_(sizes.at(8)), eps_(eps), frequencies_(frequencies), embedding_(embedding), scale_(scale),
      final_norm_(final_norm) {}

void Trunk::add_recurrent(const void* norm, const std::vector<Matrix>& matrices,
                          const std::vector<const void*>& tensors) {
  layers_.push_back({true, norm, matrices, tensors, nullptr, {}});
}

void Trunk::add_attention(const void* norm, const std::vector<Matrix>& matrices) {
  layers_.push_back({false, norm, matrices, {}, nullptr, {}});
}

void Trunk::add_mlp(const void* norm, const std::vector<Matrix>& matrices) {
  layers_.back().mlp_norm = norm;
  layers_.back().mlp = matrices;
}

// What one call works on. Buffers hold a vector for each of the B * T tokens.
struct Trunk::Call {
  const Trunk& trunk;
  int64_t rows, steps, tokens;
  int threads;
  int64_t *position = nullptr;
  void *cos = nullptr, *sin = nullptr;
  void *x = nullptr, *inner = nullptr, *out = nullptr;    // (tokens, D)
  void *a = nullptr, *b = nullptr, *c = nullptr;          // (tokens, the widest of what is between)
  void* left = nullptr;
  uint8_t* product = nullptr;

  void carve(Carver& carver) {
    const int64_t size = size_of(trunk.type_), wide = size < 4 ? 4 : size;
    const int64_t half = static_cast<int64_t>(trunk.frequencies_.size());
    const int64_t attention = trunk.heads_ * trunk.head_width_;
    const int64_t between = std::max({trunk.lru_width_, trunk.mlp_width_, attention});
    carver.take(position, tokens * 8);
    carver.take(cos, tokens * half * wide);
    carver.take(sin, tokens * half * wide);
    for (void** buffer : {&x, &inner, &out}) carver.take(*buffer, tokens * trunk.width_ * size);
    for (void** buffer : {&a, &b, &c}) carver.take(*buffer, tokens * between * size);
    carver.take(left, rows * (trunk.taps_ - 1) * trunk.lru_width_ * size);
    int64_t most = 0;
    for (const Layer& layer : trunk.layers_) {
      for (const Matrix& m : layer.matrices) most = std::max(most, product_bytes(m, tokens));
      for (const Matrix& m : layer.mlp) most = std::max(most, product_bytes(m, tokens));
    }
    carver.take(product, most);
  }

  template <size_t N>
  void multiply(const Matrix* matrices, void* const (&to)[N], const void* from) {
    Results results[N];
    for (size_t k = 0; k < N; ++k) results[k] = {to[k], trunk.type_};
    griffin::multiply(matrices, results, static_cast<int>(N), from, trunk.type_, tokens, product, threads);
  }

  // inner = norm(x), or x += out first.
  void norm(const void* weight, bool add, void* to) {
    const Norm n{trunk.type_, tokens, trunk.width_, x, add ? out : nullptr, weight, trunk.eps_, add ? x : nullptr, to};
    griffin::run(n, threads);
  }

  // to = gelu(gate) * value
  void gated(const void* gate, const void* value, int64_t width, void* to) {
    griffin::run(Gated{trunk.type_, tokens * width, gate, value, to}, threads);
  }

  void rotate(void* heads, int64_t count) {
    const Rope r{trunk.type_, tokens, count, trunk.head_width_, static_cast<int64_t>(trunk.frequencies_.size()), heads,
                 cos, sin};
    if (r.half) griffin::run(r, threads);
  }
};

void Trunk::recur(const Layer& layer, Call& call, void* conv, void* lru) const {
  call.multiply(layer.matrices.data(), {call.a, call.b}, call.inner);
  const Convolution v{type_, call.rows, call.steps, lru_width_, taps_, call.a, layer.tensors[0], layer.tensors[1],
                      call.position, conv, call.c, call.left};
  griffin::run(v, call.threads);
  std::memcpy(conv, call.left, static_cast<size_t>(call.rows * (taps_ - 1) * lru_width_ * size_of(type_)));

  const auto& t = layer.tensors;
  const Unit u{type_, call.rows, call.steps, lru_width_, gate_blocks_, call.c, t[2], t[3], t[4], t[5], t[6],
               call.position, lru, call.a, lru, nullptr, nullptr, nullptr};
  griffin::run(u, call.threads);
  call.gated(call.b, call.a, lru_width_, call.c);
  call.multiply(&layer.matrices[2], {call.out}, call.c);
}

void Trunk::attend(const Layer& layer, Call& call, void* ring_k, void* ring_v) const {
  call.multiply(layer.matrices.data(), {call.a, call.b, call.c}, call.inner);
  call.rotate(call.a, heads_);
  call.rotate(call.b, kv_heads_);
  Attention n{};
  n.type = type_;
  n.rows = call.rows;
  n.steps = call.steps;
  n.heads = heads_;
  n.kv_heads = kv_heads_;
  n.width = head_width_;
  n.slots = slots_;
  n.q = call.a;
  n.k = call.b;
  n.v = call.c;
  n.ring_k = ring_k;
  n.ring_v = ring_v;
  n.y = call.inner;
  griffin::attend(n, call.position, call.threads);
  // Only now: the oldest key, whose slot the new one takes, was still seen.
  const int64_t bytes = kv_heads_ * head_width_ * size_of(type_);
  for (int64_t row = 0; row < call.rows; ++row) {
    for (int64_t step = std::max<int64_t>(0, call.steps - slots_); step < call.steps; ++step) {
      const int64_t from = row * call.steps + step, to = row * slots_ + call.position[from] % slots_;
      std::memcpy(static_cast<uint8_t*>(ring_k) + to * bytes, static_cast<uint8_t*>(call.b) + from * bytes,
                  static_cast<size_t>(bytes));
      std::memcpy(static_cast<uint8_t*>(ring_v) + to * bytes, static_cast<uint8_t*>(call.c) + from * bytes,
                  static_cast<size_t>(bytes));
    }
  }
  call.multiply(&layer.matrices[3], {call.out}, call.inner);
}

void Trunk::run(const int64_t* tokens, int64_t rows, int64_t steps, const int64_t* before,
                const std::vector<void*>& state, void* hidden, int threads,
                const std::function<void()>& between) const {
  Call call{*this, rows, steps, rows * steps, threads};
  Carver counter;
  call.carve(counter);
  Carver carver{scratch().get(counter.used), 0};
  call.carve(carver);

  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t step = 0; step < steps; ++step) call.position[row * steps + step] = before[row] + step;
  }
  rope_table(type_, call.position, call.tokens, frequencies_.data(), static_cast<int64_t>(frequencies_.size()),
             call.cos, call.sin);
  parallel(threads, call.tokens, 16, [&](int64_t first, int64_t last) {
    look_up(embedding_, tokens + first, last - first, scale_, type_,
            static_cast<uint8_t*>(call.x) + first * width_ * size_of(type_));
  });
  bool add = false;
  for (size_t k = 0; k < layers_.size(); ++k) {
    between();
    const Layer& layer = layers_[k];
    call.norm(layer.norm, add, call.inner);
    layer.recurrent ? recur(layer, call, state[2 * k], state[2 * k + 1])
                    : attend(layer, call, state[2 * k], state[2 * k + 1]);
    call.norm(layer.mlp_norm, true, call.inner);
    call.multiply(layer.mlp.data(), {call.a, call.b}, call.inner);
    call.gated(call.a, call.b, mlp_width_, call.a);
    call.multiply(&layer.mlp[2], {call.out}, call.a);
    add = true;
  }
  call.norm(final_norm_, add, hidden);
}

}  // namespace griffin
