// A whole Griffin, from token ids to the last norm, in one call: the kernels of griffin/ops one
// after the other, so that no time is lost between them. It gives the bits that the ops give one by
// one.
#pragma once

#include <cstdint>
#include <functional>
#include <variant>
#include <vector>

#include "kernels.h"
#include "product.h"

namespace griffin {

// Cosines and sines (tokens, half), float32 or wider, of position times frequency, formed in
// float64.
void rope_table(Type type, const int64_t* position, int64_t tokens, const double* frequency,
                int64_t half, void* cos, void* sin);

// A model's sizes, in the letters of griffin/model/__init__.py.
struct Shape {
  int64_t width, lru_width, mlp_width;         // D, E, F
  int64_t heads, kv_heads, head_width, slots;  // N, K, H, S
  int64_t conv_width, gate_blocks;             // W
};

// The weights of a block's two halves. Norms, convolution and gates are not packed.
struct RecurrentWeights {
  const void* norm;
  Matrix linear_x, linear_y, linear_out;
  const void *conv_weight, *conv_bias;
  const void *input_gate_weight, *input_gate_bias;
  const void *recurrent_gate_weight, *recurrent_gate_bias, *recurrent_param;
};
struct AttentionWeights {
  const void* norm;
  Matrix q_proj, k_proj, v_proj, o_proj;
};
struct MlpWeights {
  const void* norm;
  Matrix gate_proj, up_proj, down_proj;
};

// What an adapter adds to a product: scale * (x A^T) B^T with A (rank, inputs) and
// B (outputs, rank) of the trunk's type. rank 0: nothing.
struct LowRank {
  const void *a, *b;
  int64_t rank;
  float scale;
};

class Trunk {
 public:
  // Addresses stay the caller's and must outlive this.
  Trunk(Type type, const Shape& shape, double eps, const std::vector<double>& frequencies,
        const Matrix& embedding, float scale, const void* final_norm);

  void add(const RecurrentWeights& temporal, const MlpWeights& mlp);
  void add(const AttentionWeights& temporal, const MlpWeights& mlp);
  // What each adapter adds to matrix `number` of the layer that was added last: its own in the
  // order of the structs above, then the MLP's.
  void adapt(int64_t number, const std::vector<LowRank>& added);

  // Read tokens that go on where a state ends, and change the state in place.
  // tokens:  those of the first row, then those of the next one: n together.
  // lengths: (B,) tokens of each row, at least one.
  // before:  (B,) tokens read before.
  // state:   two tensors a layer, (conv, lru) or (k, v).
  // trail:   empty, or two tensors a layer for what going back needs (go_back); then no row has
  //          more tokens than a ring has slots. With k = length - 1 tokens of a row behind its
  //          first: inputs of the convolution (k + W-2, E), nothing where k is 0, and h after all
  //          tokens but the last (k, E), wide; or what lay in the slots of those k tokens,
  //          (k, K, H) of keys and of values. Rows follow each other.
  // hidden:  (n, D).
  // chosen:  of each row the adapter that it is read with, -1 for none.
  // between: called before each layer; what it throws ends the call, with the state half changed.
  void run(const int64_t* tokens, const std::vector<int64_t>& lengths, const int64_t* before,
           const std::vector<void*>& state, const std::vector<void*>& trail, void* hidden,
           const std::vector<int64_t>& chosen, int threads,
           const std::function<void()>& between) const;

  // Give one row's state the content that it had after so many tokens of a call, 1 <= read <=
  // length: the ring's slots are put back, and the rest is taken from the row's part of the trail.
  // before: tokens read before that call.
  void go_back(const std::vector<void*>& state, const std::vector<void*>& trail, int64_t before,
               int64_t length, int64_t read) const;

 private:
  struct Layer {
    std::variant<RecurrentWeights, AttentionWeights> temporal;
    MlpWeights mlp;
    std::vector<LowRank> added[7] = {};
  };
  struct Call;
  struct Span;

  int64_t older_inputs() const;  // of the convolution, in a trail before a row's own
  void keep_inputs(const Span& span, void* cache, void* x, void* kept) const;
  using Two = void* const*;  // tensors of a layer
  void recur(const Layer& layer, Call& call, Two state, Two trail) const;
  void attend(const Layer& layer, Call& call, Two state, Two trail) const;

  Type type_;
  Shape shape_;
  double eps_;
  std::vector<double> frequencies_;
  Matrix embedding_;
  float scale_;
  const void* final_norm_;
  std::vector<Layer> layers_;
  std::vector<Matrix> matrices_;  // of all layers, to find what their products need
  int64_t adapters_ = 0, most_rank_ = 0;
};

}  // namespace griffin
