// What one call of a trunk works on, and what it does in every layer. trunk.cpp goes through the
// layers, adapters.cpp adds what adapters add, trail.cpp keeps what going back needs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "product.h"
#include "run.h"
#include "trunk.h"

namespace griffin {

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

inline void* forward(void* at, int64_t bytes) { return static_cast<uint8_t*>(at) + bytes; }

inline void copy(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

inline int64_t wide_size(Type type) { return std::max<int64_t>(4, size_of(type)); }

constexpr int64_t kShared = 3;  // products of one input at most

// Neighbouring rows with as many tokens, which go through a kernel together.
struct Trunk::Span {
  int64_t row, rows, steps;
  int64_t token;  // the first of them
  int64_t kept, inputs;  // vectors of the trail before theirs: h or slots, and the convolution's
};

// What one call works on. Buffers hold a vector for each of the tokens.
struct Trunk::Call {
  const Trunk& trunk;
  int64_t rows, tokens;
  int threads;
  std::vector<Span> spans = {};
  int64_t* position = nullptr;
  void *cos = nullptr, *sin = nullptr;
  void *x = nullptr, *inner = nullptr, *out = nullptr;  // (tokens, D)
  void *a = nullptr, *b = nullptr, *c = nullptr;  // (tokens, the widest of what is between)
  void* left = nullptr;
  uint8_t* product = nullptr;
  std::vector<std::vector<int64_t>> read_with = {};  // the tokens of each adapter
  void *gathered = nullptr, *low = nullptr, *more = nullptr;

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
    if (trunk.most_rank_) {
      const int64_t widest = std::max(between, shape.width);
      carver.take(gathered, tokens * widest * size);
      carver.take(low, kShared * tokens * trunk.most_rank_ * size);
      carver.take(more, tokens * widest * size);
    }
  }

  // Add to the results `to` (tokens, out) of `count` products of one `from` (tokens, in) what each
  // row's adapter adds. adapters.cpp
  void adapt(const Matrix* matrices, void* const* to, size_t count, const void* from,
             const std::vector<LowRank>* added);
  void adapt_few(const Matrix* matrices, void* const* to, size_t count, const void* from,
                 const std::vector<LowRank>* added);
  void adapt_many(const std::vector<LowRank>& added, const void* from, int64_t in, void* to,
                  int64_t out);

  template <size_t N>
  void multiply(const Matrix (&matrices)[N], void* const (&to)[N], const void* from,
                const std::vector<LowRank>* added) {
    Results results[N];
    for (size_t k = 0; k < N; ++k) results[k] = {to[k], trunk.type_};
    griffin::multiply(matrices, results, static_cast<int>(N), from, trunk.type_, tokens, product,
                      threads);
    if (trunk.most_rank_) adapt(matrices, to, N, from, added);
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

}  // namespace griffin
