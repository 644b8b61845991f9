// Convolution, gates, decay and scan of a recurrent block in one pass each way, for training. Part
// of sequence.h.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace griffin {

// Steps from one kept h to the next. What lies between is made again for the gradient, and stays in
// a core's cache while it is.
constexpr int64_t kKept = 128;

struct Recurrence {
  Type type;                      // of x, cache, h, left; everything else is wide
  int64_t rows, steps, width, blocks, taps;
  const void* x;                  // (B, T, E)
  const void *weight, *bias;      // the convolution's: (E, W), (E,)
  const void *wi, *bi, *wr, *br;  // the gates': (G, I, I), (G, I)
  const void* param;              // (E,)
  const int64_t* position;        // (B, T)
  const void *cache, *h0;         // (B, W-1, E), (B, E)
  void *h, *left;                 // (B, T, E), (B, W-1, E)
  void *last, *decay;             // (B, E): the last h, the product of a
  void* kept;                     // (B, (T-1) / kKept, E): h after every kKept steps
  uint8_t* memory;                // recurrence_bytes of it: the gates' weights, laid out
};

struct RecurrenceGradient {
  Type type;
  Recurrence of;                  // its inputs and `kept`
  int64_t groups;                 // of neighbouring rows, each with sums of its own
  const void *dh, *dleft;         // as h, left; null: zeros
  const void *dlast, *ddecay;     // (B, E), or null; the latter times the decay
  void *dx, *dcache, *dh0;
  // (groups, G, M) wide: for each block wi, wr (I, I), bi, br, softplus(param) (I,), the
  // convolution's weight (I, W) and bias.
  void* dweights;
};

}  // namespace griffin
