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

  // Read (B, T) tokens that go on where a state ends, and change the state in place.
  // before:  (B,) tokens read before.
  // state:   two tensors a layer, (conv, lru) or (k, v).
  // hidden:  (B, T, D).
  // chosen:  of each row the adapter that it is read with, -1 for none.
  // between: called before each layer; what it throws ends the call, with the state half changed.
  void run(const int64_t* tokens, int64_t rows, int64_t steps, const int64_t* before,
           const std::vector<void*>& state, void* hidden, const std::vector<int64_t>& chosen,
           int threads, const std::function<void()>& between) const;

 private:
  struct Layer {
    std::variant<RecurrentWeights, AttentionWeights> temporal;
    MlpWeights mlp;
    std::vector<LowRank> added[7] = {};
  };
  struct Call;

  void recur(const Layer& layer, Call& call, void* conv, void* lru) const;
  void attend(const Layer& layer, Call& call, void* ring_k, void* ring_v) const;

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
