#include "trunk.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "attention.h"
#include "call.h"
#include "pool.h"
#include "run.h"

namespace griffin {
namespace {

#include "scratch.h"

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

void Trunk::recur(const Layer& layer, Call& call, Two state, Two trail) const {
  const auto& w = std::get<RecurrentWeights>(layer.temporal);
  const int64_t width = shape_.lru_width, taps = shape_.conv_width;
  const int64_t bytes = width * size_of(type_), wide = width * wide_size(type_);
  void *conv = state[0], *lru = state[1];
  call.multiply({w.linear_x, w.linear_y}, {call.a, call.b}, call.inner, layer.added);
  for (const Span& s : call.spans) {
    void* x = forward(call.a, s.token * bytes);
    void* cache = forward(conv, s.row * (taps - 1) * bytes);
    if (trail) keep_inputs(s, cache, x, trail[0]);
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

}  // namespace griffin
