// What adapters add to the products of a call: scale * (x A^T) B^T, of each row its own.
#include <algorithm>
#include <cstring>

#include "call.h"
#include "pool.h"

namespace griffin {
namespace {

// What adapters add: tokens that are few, of a job's pieces the outputs of the two products (a
// kernel takes kNarrow together, and kWide are one of its own pieces), bytes that one thread reads
// before another would be awake.
constexpr int64_t kFew = 16, kNarrow = 4, kWide = 64, kAlone = 64 << 10;

float widen(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

// To the nearest, ties to even.
uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded);
}

// y += scale * x, each rounded as torch rounds the two operations one by one.
void add_scaled(Type type, const void* x, float scale, int64_t count, void* y) {
  if (type == Type::f32) {
    const float* from = static_cast<const float*>(x);
    float* to = static_cast<float*>(y);
    for (int64_t k = 0; k < count; ++k) to[k] += from[k] * scale;
  } else {
    const uint16_t* from = static_cast<const uint16_t*>(x);
    uint16_t* to = static_cast<uint16_t*>(y);
    for (int64_t k = 0; k < count; ++k) {
      to[k] = narrow(widen(to[k]) + widen(narrow(widen(from[k]) * scale)));
    }
  }
}

}  // namespace

// Of few tokens: to the results `to` (tokens, out) of products of one `from` (tokens, in) add
// what each row's adapter adds. All that is x A^T is one job, and all that is added another, in
// pieces that threads share out: a job costs as much as one of these products, of which there are
// seven a layer and token.
void Trunk::Call::adapt_few(const Matrix* matrices, void* const* to, size_t count,
                            const void* from, const std::vector<LowRank>* added) {
  struct Part {  // what adapter `which` adds to a matrix
    size_t matrix, which;
    int64_t narrow, wide;  // its pieces in the two jobs begin there
  };
  const Type type = trunk.type_;
  const int64_t size = size_of(type), rank = trunk.most_rank_;
  std::vector<Part> parts;
  int64_t narrow = 0, wide = 0, bytes = 0;
  for (size_t m = 0; m < count; ++m) {
    for (size_t which = 0; which < added[m].size(); ++which) {
      const LowRank& one = added[m][which];
      if (!one.rank || read_with[which].empty()) continue;
      parts.push_back({m, which, narrow, wide});
      narrow += (one.rank + kNarrow - 1) / kNarrow;
      wide += (matrices[m].out + kWide - 1) / kWide;
      bytes += one.rank * (matrices[m].in + matrices[m].out) * size;
    }
  }
  if (parts.empty()) return;
  const auto linear = active().sequences->linear;
  const int workers = bytes < kAlone ? 1 : threads;
  // Call `with` the part and the number within it of each piece of [first, last), and each token.
  const auto each = [&](int64_t first, int64_t last, int64_t Part::*begin, const auto& with) {
    size_t at = parts.size() - 1;
    while (parts[at].*begin > first) --at;
    for (int64_t piece = first; piece < last; ++piece) {
      while (at + 1 < parts.size() && parts[at + 1].*begin <= piece) ++at;
      const Part& part = parts[at];
      for (const int64_t token : read_with[part.which]) with(part, piece - part.*begin, token);
    }
  };
  const auto lowered = [&](const Part& part, int64_t token) {
    const int64_t place = static_cast<int64_t>(part.matrix) * tokens + token;
    return static_cast<uint8_t*>(low) + place * rank * size;
  };
  const auto bytes_of = [](const void* at) { return static_cast<const uint8_t*>(at); };
  parallel(workers, narrow, 1, [&](int64_t first, int64_t last) {
    each(first, last, &Part::narrow, [&](const Part& part, int64_t piece, int64_t token) {
      const LowRank& one = added[part.matrix][part.which];
      const int64_t in = matrices[part.matrix].in, o = piece * kNarrow;
      const Linear n{type, 1, in, std::min(kNarrow, one.rank - o),
                     bytes_of(from) + token * in * size, bytes_of(one.a) + o * in * size,
                     nullptr, lowered(part, token) + o * size, nullptr};
      linear(n, 0, 1);
    });
  });
  parallel(workers, wide, 4, [&](int64_t first, int64_t last) {
    each(first, last, &Part::wide, [&](const Part& part, int64_t piece, int64_t token) {
      const LowRank& one = added[part.matrix][part.which];
      const int64_t out = matrices[part.matrix].out, o = piece * kWide;
      const int64_t count = std::min(kWide, out - o);
      float sums[kWide];  // of the trunk's type, which is not wider
      linear(Linear{type, 1, one.rank, count, lowered(part, token),
                    bytes_of(one.b) + o * one.rank * size, nullptr, sums, nullptr},
             0, 1);
      add_scaled(type, sums, one.scale, count,
                 static_cast<uint8_t*>(to[part.matrix]) + (token * out + o) * size);
    });
  });
}

// Add to the results `to` (tokens, out) of a product of `from` (tokens, in) what each row's
// adapter adds.
void Trunk::Call::adapt_many(const std::vector<LowRank>& added, const void* from, int64_t in,
                             void* to, int64_t out) {
  const int64_t size = size_of(trunk.type_);
  for (size_t which = 0; which < added.size(); ++which) {
    const LowRank& one = added[which];
    const std::vector<int64_t>& own = read_with[which];
    if (!one.rank || own.empty()) continue;
    const int64_t count = static_cast<int64_t>(own.size());
    const void* x = from;
    if (count < tokens) {
      const int64_t bytes = in * size;
      for (size_t k = 0; k < own.size(); ++k) {
        std::memcpy(static_cast<uint8_t*>(gathered) + static_cast<int64_t>(k) * bytes,
                    static_cast<const uint8_t*>(from) + own[k] * bytes,
                    static_cast<size_t>(bytes));
      }
      x = gathered;
    }
    const Type type = trunk.type_;
    griffin::run(Linear{type, count, in, one.rank, x, one.a, nullptr, low, nullptr}, threads);
    griffin::run(Linear{type, count, one.rank, out, low, one.b, nullptr, more, nullptr}, threads);
    const int workers = count * out < 65536 ? 1 : threads;
    parallel(workers, count, 1, [&](int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k) {
        const int64_t token = own[static_cast<size_t>(k)];
        add_scaled(type, static_cast<const uint8_t*>(more) + k * out * size, one.scale, out,
                   static_cast<uint8_t*>(to) + token * out * size);
      }
    });
  }
}

void Trunk::Call::adapt(const Matrix* matrices, void* const* to, size_t count, const void* from,
                        const std::vector<LowRank>* added) {
  const Linear probe{trunk.type_, 1, trunk.most_rank_, 1};
  if (tokens <= kFew && !active().sequences->linear_bytes(probe)) {
    return adapt_few(matrices, to, count, from, added);
  }
  for (size_t k = 0; k < count; ++k) {
    adapt_many(added[k], from, matrices[k].in, to[k], matrices[k].out);
  }
}

}  // namespace griffin
