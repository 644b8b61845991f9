// What a call leaves behind so that a row can go back to the state after any of its tokens, and the
// way back (griffin/model/trail.py). Slots of a ring are kept where trunk.cpp fills them.
#include <algorithm>
#include <stdexcept>

#include "call.h"

namespace griffin {

int64_t Trunk::older_inputs() const { return std::max<int64_t>(0, shape_.conv_width - 2); }

// Keep the inputs (steps, E) of a span's convolution, and the W-2 before them, which its cache has.
void Trunk::keep_inputs(const Span& s, void* cache, void* x, void* kept) const {
  if (s.steps == 1) return;
  const int64_t bytes = shape_.lru_width * size_of(type_), taps = shape_.conv_width;
  const int64_t older = older_inputs();
  for (int64_t row = 0; row < s.rows; ++row) {
    void* to = forward(kept, (s.inputs + row * (s.steps - 1 + older)) * bytes);
    copy(to, forward(cache, (row + 1) * (taps - 1) * bytes - older * bytes), older * bytes);
    copy(forward(to, older * bytes), forward(x, row * s.steps * bytes), (s.steps - 1) * bytes);
  }
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
