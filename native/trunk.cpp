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

// What adapters add: tokens that are few, of a job's pieces the outputs of the two products (a
// kernel takes kNarrow together, and kWide are one of its own pieces), bytes that one thread reads
// before another would be awake.
constexpr int64_t kFew = 16, kNarrow = 4, kWide = 64, kAlone = 64 << 10;
constexpr int64_t kShared = 3;  // products of one input at most

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
  layers_.push_back({temporal, mlp, {}});
  matrices_.insert(matrices_.end(), {temporal.linear_x, temporal.linear_y, temporal.linear_out,
                                     mlp.gate_proj, mlp.up_proj, mlp.down_proj});
}

void Trunk::add(const AttentionWeights& temporal, const MlpWeights& mlp) {
  layers_.push_back({temporal, mlp, {}});
  matrices_.insert(matrices_.end(),
                   {temporal.q_proj, temporal.k_proj, temporal.v_proj, temporal.o_proj,
                    mlp.gate_proj, mlp.up_proj, mlp.down_proj});
}

void Trunk::adapt(int64_t number, const std::vector<LowRank>& added) {
  layers_.back().added[number] = added;
  adapters_ = std::max(adapters_, static_cast<int64_t>(added.size()));
  for (const LowRank& one : added) most_rank_ = std::max(most_rank_, one.rank);
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
  std::vector<std::vector<int64_t>> read_with = {};  // the rows of each adapter
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

  // Of few tokens: to the results `to` (tokens, out) of products of one `from` (tokens, in) add
  // what each row's adapter adds. All that is x A^T is one job, and all that is added another, in
  // pieces that threads share out: a job costs as much as one of these products, of which there are
  // seven a layer and token.
  template <size_t N>
  void adapt_few(const Matrix (&matrices)[N], void* const (&to)[N], const void* from,
                 const std::vector<LowRank>* added) {
    struct Part {  // what adapter `which` adds to a matrix
      size_t matrix, which;
      int64_t narrow, wide;  // its pieces in the two jobs begin there
    };
    const Type type = trunk.type_;
    const int64_t size = size_of(type), rank = trunk.most_rank_;
    std::vector<Part> parts;
    int64_t narrow = 0, wide = 0, bytes = 0;
    for (size_t m = 0; m < N; ++m) {
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
        for (const int64_t row : read_with[part.which]) {
          for (int64_t step = 0; step < steps; ++step) {
            with(part, piece - part.*begin, row * steps + step);
          }
        }
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
  void adapt(const std::vector<LowRank>& added, const void* from, int64_t in, void* to,
             int64_t out) {
    const int64_t size = size_of(trunk.type_);
    for (size_t which = 0; which < added.size(); ++which) {
      const LowRank& one = added[which];
      const std::vector<int64_t>& own = read_with[which];
      if (!one.rank || own.empty()) continue;
      const int64_t count = static_cast<int64_t>(own.size()) * steps;
      const void* x = from;
      if (count < tokens) {
        const int64_t bytes = steps * in * size;
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
          const int64_t token = own[static_cast<size_t>(k / steps)] * steps + k % steps;
          add_scaled(type, static_cast<const uint8_t*>(more) + k * out * size, one.scale, out,
                     static_cast<uint8_t*>(to) + token * out * size);
        }
      });
    }
  }

  template <size_t N>
  void multiply(const Matrix (&matrices)[N], void* const (&to)[N], const void* from,
                const std::vector<LowRank>* added) {
    Results results[N];
    for (size_t k = 0; k < N; ++k) results[k] = {to[k], trunk.type_};
    griffin::multiply(matrices, results, static_cast<int>(N), from, trunk.type_, tokens, product,
                      threads);
    if (!trunk.most_rank_) return;
    const Linear probe{trunk.type_, 1, trunk.most_rank_, 1};
    if (tokens <= kFew && !active().sequences->linear_bytes(probe)) {
      return adapt_few(matrices, to, from, added);
    }
    for (size_t k = 0; k < N; ++k) {
      adapt(added[k], from, matrices[k].in, to[k], matrices[k].out);
    }
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

void Trunk::recur(const Layer& layer, Call& call, void* conv, void* lru) const {
  const auto& w = std::get<RecurrentWeights>(layer.temporal);
  const int64_t width = shape_.lru_width, taps = shape_.conv_width;
  call.multiply({w.linear_x, w.linear_y}, {call.a, call.b}, call.inner, layer.added);
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
  call.multiply({w.linear_out}, {call.out}, call.c, layer.added + 2);
}

void Trunk::attend(const Layer& layer, Call& call, void* ring_k, void* ring_v) const {
  const auto& w = std::get<AttentionWeights>(layer.temporal);
  const int64_t slots = shape_.slots;
  call.multiply({w.q_proj, w.k_proj, w.v_proj}, {call.a, call.b, call.c}, call.inner,
                layer.added);
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
  call.multiply({w.o_proj}, {call.out}, call.inner, layer.added + 3);
}

void Trunk::run(const int64_t* tokens, int64_t rows, int64_t steps, const int64_t* before,
                const std::vector<void*>& state, void* hidden, const std::vector<int64_t>& chosen,
                int threads, const std::function<void()>& between) const {
  for (int64_t row = 0; row < rows; ++row) check_position(before[row], steps);
  check_ids(embedding_, tokens, rows * steps);
  if (state.size() != 2 * layers_.size()) {
    throw std::invalid_argument("a state has two tensors a layer");
  }
  if (static_cast<int64_t>(chosen.size()) != (adapters_ ? rows : 0)) {
    throw std::invalid_argument("a row is read with one adapter, or none");
  }
  Call call{*this, rows, steps, rows * steps, threads};
  call.read_with.resize(static_cast<size_t>(adapters_));
  for (size_t row = 0; row < chosen.size(); ++row) {
    if (chosen[row] < -1 || chosen[row] >= adapters_) {
      throw std::invalid_argument("no adapter has this number");
    }
    if (chosen[row] >= 0) {
      call.read_with[static_cast<size_t>(chosen[row])].push_back(static_cast<int64_t>(row));
    }
  }
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
      recur(layer, call, first, second);
    } else {
      const auto& attention = std::get<AttentionWeights>(layer.temporal);
      call.norm(attention.norm, add, call.inner);
      attend(layer, call, first, second);
    }
    const MlpWeights& mlp = layer.mlp;
    call.norm(mlp.norm, true, call.inner);
    const std::vector<LowRank>* added = layer.added + (layer.temporal.index() == 0 ? 3 : 4);
    call.multiply({mlp.gate_proj, mlp.up_proj}, {call.a, call.b}, call.inner, added);
    call.gated(call.a, call.b, shape_.mlp_width, call.a);
    call.multiply({mlp.down_proj}, {call.out}, call.a, added + 2);
    add = true;
  }
  call.norm(final_norm_, add, hidden);
}

}  // namespace griffin
