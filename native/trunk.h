// A whole Griffin, from token ids to the last norm, in one call: the kernels of griffin/ops one after the other,
// so that no time is lost between them. It gives the bits that the ops give one by one.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels.h"
#include "product.h"

namespace griffin {

// Cosines and sines (tokens, half), float32 or wider, of position times frequency, formed in float64.
void rope_table(Type type, const int64_t* position, int64_t tokens, const double* frequency, int64_t half, void* cos,
                void* sin);

class Trunk {
 public:
  // sizes: D, E, F, N, K, H, S, W, gate blocks. Addresses stay the caller's and must outlive this.
  Trunk(Type type, const std::vector<int64_t>& sizes, double eps, const std::vector<double>& frequencies,
        const Matrix& embedding, float scale, const void* final_norm);

  // matrices: linear_x, linear_y, linear_out; tensors: convolution's weight and bias, input gate's, recurrence
  // gate's, recurrent_param.
  void add_recurrent(const void* norm, const std::vector<Matrix>& matrices, const std::vector<const void*>& tensors);
  // matrices: q, k, v, o.
  void add_attention(const void* norm, const std::vector<Matrix>& matrices);
  // matrices: gate, up, down; of the layer that was added last.
  void add_mlp(const void* norm, const std::vector<Matrix>& matrices);

  // Read (B, T) tokens that go on where a state ends, and change the state in place.
  // before: (B,) tokens read before; state: two tensors a layer, (conv, lru) or (k, v); hidden: (B, T, D).
  // between: called before each layer; what it throws ends the call, with the state half changed.
  void run(const int64_t* tokens, int64_t rows, int64_t steps, const int64_t* before, const std::vector<void*>& state,
           void* hidden, int threads, const std::function<void()>& between) const;

 private:
  struct Layer {
    bool recurrent;
    const void* norm;
    std::vector<Matrix> matrices;
    std::vector<const void*> tensors;
    const void* mlp_norm;
    std::vector<Matrix> mlp;
  };
  struct Call;

  void recur(const Layer& layer, Call& call, void* conv, void* lru) const;
  void attend(const Layer& layer, Call& call, void* ring_k, void* ring_v) const;

  Type type_;
  int64_t width_, lru_width_, mlp_width_, heads_, kv_heads_, head_width_, slots_, taps_, gate_blocks_;
  double eps_;
  std::vector<double> frequencies_;
  Matrix embedding_;
  float scale_;
  const void* final_norm_;
  std::vector<Layer> layers_;
};

}  // namespace griffin
