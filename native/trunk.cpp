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

void* forward(void* at, int64_t bytes) { return static_cast<uint8_t*>(at) + bytes; }

void copy(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

int64_t wide_size(Type type) { return std::max<int64_t>(4, size_of(type)); }

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

// Neighbouring rows with as many tokens, which go through a kernel together.
struct Span {
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
  void adapt(const std::vector<LowRank>& added, const void* from, int64_t in, void* to,
             int64_t out) {
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

void Trunk::recur(const Layer& layer, Call& call, Two state, Two trail) const {
  const auto& w = std::get<RecurrentWeights>(layer.temporal);
  const int64_t width = shape_.lru_width, taps = shape_.conv_width;
  const int64_t bytes = width * size_of(type_), wide = width * wide_size(type_);
  void *conv = state[0], *lru = state[1];
  call.multiply({w.linear_x, w.linear_y}, {call.a, call.b}, call.inner, layer.added);
  for (const Span& s : call.spans) {
    void* x = forward(call.a, s.token * bytes);
    void* cache = forward(conv, s.row * (taps - 1) * bytes);
    const int64_t older = older_inputs();
    for (int64_t row = 0; trail && s.steps > 1 && row < s.rows; ++row) {
      void* to = forward(trail[0], (s.inputs + row * (s.steps - 1 + older)) * bytes);
      copy(to, forward(cache, (row + 1) * (taps - 1) * bytes - older * bytes), older * bytes);
      copy(forward(to, older * bytes), forward(x, row * s.steps * bytes), (s.steps - 1) * bytes);
    }
    const Convolution v{type_, s.rows, s.steps, width, taps, x, w.conv_weight, w.conv_bias,
                        call.position + s.token, cache, forward(call.c, s.token * bytes),
                        forward(call.left, s.row * (taps - 1) * bytes)};
    griffin::run(v, call.threads);
  }
  copy(conv, call.left, call.rows * (taps - 1) * bytes);

  for (const Span& s : call.spans) {
    Unit u{};
    u.type = type_;
    u.rows = s.rows;
    u.steps = s.steps;
    u.width = width;
    u.blocks = shape_.gate_blocks;
    u.x = forward(call.c, s.token * bytes);
    u.wi = w.input_gate_weight;
    u.bi = w.input_gate_bias;
    u.wr = w.recurrent_gate_weight;
    u.br = w.recurrent_gate_bias;
    u.param = w.recurrent_param;
    u.position = call.position + s.token;
    u.h0 = forward(lru, s.row * wide);
    u.h = forward(call.a, s.token * bytes);
    u.last = forward(lru, s.row * wide);
    u.every = trail ? forward(trail[1], s.kept * wide) : nullptr;
    griffin::run(u, call.threads);
  }
  call.gated(call.b, call.a, width, call.c);
  call.multiply({w.linear_out}, {call.out}, call.c, layer.added + 2);
}

void Trunk::attend(const Layer& layer, Call& call, Two state, Two trail) const {
  const auto& w = std::get<AttentionWeights>(layer.temporal);
  const int64_t slots = shape_.slots;
  const int64_t heads = shape_.heads * shape_.head_width * size_of(type_);
  const int64_t bytes = shape_.kv_heads * shape_.head_width * size_of(type_);
  call.multiply({w.q_proj, w.k_proj, w.v_proj}, {call.a, call.b, call.c}, call.inner,
                layer.added);
  call.rotate(call.a, shape_.heads);
  call.rotate(call.b, shape_.kv_heads);
  for (const Span& s : call.spans) {
    Attention n{};
    n.type = type_;
    n.rows = s.rows;
    n.steps = s.steps;
    n.heads = shape_.heads;
    n.kv_heads = shape_.kv_heads;
    n.width = shape_.head_width;
    n.slots = slots;
    n.q = forward(call.a, s.token * heads);
    n.k = forward(call.b, s.token * bytes);
    n.v = forward(call.c, s.token * bytes);
    n.ring_k = forward(state[0], s.row * slots * bytes);
    n.ring_v = forward(state[1], s.row * slots * bytes);
    n.y = forward(call.inner, s.token * heads);
    griffin::attend(n, call.position + s.token, call.threads);
    // Only now: the oldest key, whose slot the new one takes, was still seen.
    void* const fresh[] = {call.b, call.c};
    int64_t kept = s.kept;
    for (int64_t row = 0; row < s.rows; ++row) {
      for (int64_t step = std::max<int64_t>(0, s.steps - slots); step < s.steps; ++step) {
        const int64_t token = s.token + row * s.steps + step;
        const int64_t slot = (s.row + row) * slots + call.position[token] % slots;
        for (int side = 0; side < 2; ++side) {
          void* place = forward(state[side], slot * bytes);
          if (trail && step) copy(forward(trail[side], kept * bytes), place, bytes);
          copy(place, forward(fresh[side], token * bytes), bytes);
        }
        kept += step > 0;
      }
    }
  }
  call.multiply({w.o_proj}, {call.out}, call.inner, layer.added + 3);
}

int64_t Trunk::older_inputs() const { return std::max<int64_t>(0, shape_.conv_width - 2); }

void Trunk::run(const int64_t* tokens, const std::vector<int64_t>& lengths, const int64_t* before,
                const std::vector<void*>& state, const std::vector<void*>& trail, void* hidden,
                const std::vector<int64_t>& chosen, int threads,
                const std::function<void()>& between) const {
  const int64_t rows = static_cast<int64_t>(lengths.size());
  Call call{*this, rows, 0, threads};
  int64_t kept = 0, inputs = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t steps = lengths[static_cast<size_t>(row)];
    if (steps < 1 || (!trail.empty() && steps > shape_.slots)) {
      throw std::invalid_argument("a row has one token or more, and with a trail no more than a "
                                  "ring has slots");
    }
    check_position(before[row], steps);
    if (call.spans.empty() || call.spans.back().steps != steps) {
      call.spans.push_back({row, 0, steps, call.tokens, kept, inputs});
    }
    ++call.spans.back().rows;
    call.tokens += steps;
    kept += steps - 1;
    inputs += steps > 1 ? steps - 1 + older_inputs() : 0;
  }
  check_ids(embedding_, tokens, call.tokens);
  if (state.size() != 2 * layers_.size() || (!trail.empty() && trail.size() != state.size())) {
    throw std::invalid_argument("a state has two tensors a layer, and so has a trail");
  }
  if (static_cast<int64_t>(chosen.size()) != (adapters_ ? rows : 0)) {
    throw std::invalid_argument("a row is read with one adapter, or none");
  }
  call.read_with.resize(static_cast<size_t>(adapters_));
  for (size_t row = 0, token = 0; row < chosen.size(); ++row) {
    if (chosen[row] < -1 || chosen[row] >= adapters_) {
      throw std::invalid_argument("no adapter has this number");
    }
    for (int64_t step = 0; step < lengths[row]; ++step, ++token) {
      if (chosen[row] < 0) continue;
      call.read_with[static_cast<size_t>(chosen[row])].push_back(static_cast<int64_t>(token));
    }
  }
  Carver counter;
  call.carve(counter);
  Carver carver{scratch().get(counter.used), 0};
  call.carve(carver);

  int64_t* position = call.position;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t steps = lengths[static_cast<size_t>(row)];
    for (int64_t step = 0; step < steps; ++step) *position++ = before[row] + step;
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
    const Two own = state.data() + 2 * k, kept_of = trail.empty() ? nullptr : trail.data() + 2 * k;
    if (const auto* recurrent = std::get_if<RecurrentWeights>(&layer.temporal)) {
      call.norm(recurrent->norm, add, call.inner);
      recur(layer, call, own, kept_of);
    } else {
      const auto& attention = std::get<AttentionWeights>(layer.temporal);
      call.norm(attention.norm, add, call.inner);
      attend(layer, call, own, kept_of);
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

void Trunk::go_back(const std::vector<void*>& state, const std::vector<void*>& trail,
                    int64_t before, int64_t length, int64_t read) const {
  if (state.size() != 2 * layers_.size() || trail.size() != state.size() || read < 1 ||
      read > length || length > shape_.slots) {
    throw std::invalid_argument("a row goes back to one of a call's tokens");
  }
  if (read == length) return;
  const int64_t width = shape_.lru_width * size_of(type_);
  const int64_t wide = shape_.lru_width * wide_size(type_), taps = shape_.conv_width;
  const int64_t bytes = shape_.kv_heads * shape_.head_width * size_of(type_);
  for (size_t k = 0; k < layers_.size(); ++k) {
    const Two own = state.data() + 2 * k, kept = trail.data() + 2 * k;
    if (layers_[k].temporal.index() == 0) {
      // The last W-1 inputs; where the convolution has no more taps than two, none are older.
      copy(own[0], forward(kept[0], (read - 1) * width), (taps - 1) * width);
      copy(own[1], forward(kept[1], (read - 1) * wide), wide);
      continue;
    }
    for (int64_t step = read; step < length; ++step) {
      const int64_t slot = (before + step) % shape_.slots;
      for (int side = 0; side < 2; ++side) {
        copy(forward(own[side], slot * bytes), forward(kept[side], (step - 1) * bytes), bytes);
      }
    }
  }
}

}  // namespace griffin
