// The kernels that run along time, as a table of functions for each instruction set. All tensors contiguous.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace griffin {

constexpr int64_t kLargestGate = 4096;  // inputs of a gate's block: what a kernel keeps on its stack

// h[t] = a[t] h[t-1] + x[t]. "Wide" is float32, float64 for float64.
struct Scan {
  Type type;                 // of x, a, h
  int64_t rows, steps, width;
  const void *x, *a;         // (B, T, E)
  const void* h0;            // (B, E) wide
  void* h;                   // (B, T, E)
  void* last;                // (B, E) wide
  void* every;               // (B, T, E) wide, or null: kept for the gradient
};

struct ScanGradient {
  Type type;                 // of a, dh, dx, da
  int64_t rows, steps, width;
  const void *a, *dh;        // (B, T, E)
  const void *every, *h0;    // wide
  const void* dlast;         // (B, E) wide
  void *dx, *da;             // (B, T, E)
  void* dh0;                 // (B, E) wide
};

struct Unit {
  Type type;                 // of x, h, weights and biases
  int64_t rows, steps, width, blocks;
  const void* x;             // (B, T, E)
  const void *wi, *bi;       // input gate: (G, I, I), (G, I)
  const void *wr, *br;       // recurrence gate
  const void* param;         // (E,)
  const int64_t* position;   // (B, T)
  const void* h0;            // (B, E) wide
  void* h;                   // (B, T, E)
  void* last;                // (B, E) wide
  // For training: gates before their sigmoid (B, T, E), wide, instead of weights; every h, wide.
  const void *gate_i, *gate_r;
  void* every;
};

struct UnitGradient {
  Type type;                 // of x and dh
  int64_t rows, steps, width;
  const void *x, *dh;        // (B, T, E)
  const void *gate_i, *gate_r, *every;  // (B, T, E) wide
  const void* param;         // (E,) wide
  const int64_t* position;
  const void *h0, *dlast;    // (B, E) wide
  void *dx, *dgate_i, *dgate_r;         // (B, T, E) wide
  void *drate;               // (B, E) wide, of softplus(param)
  void *dh0;                 // (B, E) wide
};

struct Convolution {
  Type type;
  int64_t rows, steps, width, taps;
  const void* x;             // (B, T, E)
  const void *weight, *bias; // (E, W), (E,)
  const int64_t* position;   // (B, T)
  const void* cache;         // (B, W-1, E)
  void* y;                   // (B, T, E)
  void* left;                // (B, W-1, E)
};

constexpr int64_t kMostTaps = 16;

// One new token against the ring. Slots are read in pieces of kSlots, whatever the number of threads.
struct Attention {
  Type type;
  int64_t rows, heads, kv_heads, width, slots;
  const void *q, *k, *v;     // (B, N, H), (B, K, H)
  const void *ring_k, *ring_v;  // (B, S, K, H)
  const int64_t* held;       // (B, S) position in each slot, negative if none
  const int64_t* position;   // (B,)
  const int64_t* segment;    // (B,) not 0: the ring belongs to another document
  const bool* pad;           // (B,)
  void* y;                   // (B, N, H)
  void* partial;             // wide: (B, K, pieces + 1, N/K, H + 2) largest score, sum, weighted values
};
constexpr int64_t kSlots = 128;
constexpr int64_t kMostQueries = 64;   // query heads to a key head
constexpr int64_t kLargestHead = 1024;

struct Sequences {
  int64_t lanes;  // channels in a piece
  void (*scan)(const Scan&, int64_t first, int64_t last);            // pieces of B * channels
  void (*scan_gradient)(const ScanGradient&, int64_t first, int64_t last);
  void (*unit)(const Unit&, int64_t first, int64_t last);            // pieces of B * G * channels of a block
  void (*unit_gradient)(const UnitGradient&, int64_t first, int64_t last);
  void (*convolution)(const Convolution&, int64_t first, int64_t last);  // pieces of B * T
  void (*attention)(const Attention&, int64_t first, int64_t last);  // pieces of B * K * slots
  void (*attention_end)(const Attention&, int64_t first, int64_t last);  // pieces of B * K
};

extern const Sequences portable_sequences;
extern const Sequences avx2_sequences;
extern const Sequences avx512_sequences;
extern const Sequences neon_sequences;

}  // namespace griffin
