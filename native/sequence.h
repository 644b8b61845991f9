// The kernels that run along time, as a table of functions for each instruction set. All tensors
// contiguous.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "recurrence.h"

namespace griffin {

// Inputs of a gate's block: what a kernel keeps on its stack.
constexpr int64_t kLargestGate = 4096;

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
  // For training: gates before their sigmoid (B, T, E), wide, instead of weights.
  const void *gate_i, *gate_r;
  // Every h, wide: in training (B, T, E). With weights those that `last` is not, (B, T-1, E); or
  // null.
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

// Tokens of one row and one document that follow each other, and the position of the first. They
// see `blocks` blocks of keys and are taken in `groups` groups; so many blocks and groups of other
// segments come before.
struct Segment {
  int64_t row, step, count, position;
  int64_t oldest, blocks, blocks_before, groups, groups_before;  // oldest: the first position seen
};

// Attention of every token to itself and the `slots` tokens before it in its document. Keys are
// taken in blocks of kKeys positions, counted from the document's beginning, and blocks are summed
// in order: neither the cut of the calls nor the number of threads changes a bit.
struct Attention {
  Type type;
  int64_t rows, steps, heads, kv_heads, width, slots;
  const void *q, *k, *v;        // (B, T, N, H), (B, T, K, H), (B, T, K, H)
  // (B, S, K, H): position p in slot p mod S; null if no document goes on.
  const void *ring_k, *ring_v;
  void* y;                      // (B, T, N, H)
  void* lse;                    // (B, T, N) wide, or null: for the gradient, log of the sum of exp
  const Segment* segments;
  int64_t segment_count, blocks, groups;  // blocks and groups of all segments
  int64_t together;             // steps in a group: their queries pass a block of keys together
  uint8_t* memory;              // attention_bytes of them
};
constexpr int64_t kKeys = 128;
constexpr int64_t kMostQueries = 64;   // query heads to a key head
constexpr int64_t kLargestHead = 1024;

// Steps begin..begin+steps-1 of a segment, with the query heads of one key head, and the blocks of
// keys they see; so many blocks of other units come before.
struct AttentionUnit {
  int64_t head, segment, begin, steps, oldest, blocks, blocks_before;
};

// Scores are formed again from q, k and lse, block by block. What a unit adds to its keys is kept
// apart until those before it were added: a key's sum is in the order of its document's positions,
// whatever the number of threads, and whoever else lies in the row.
struct AttentionGradient : Attention {
  const void* dy;               // (B, T, N, H)
  void* dq;                     // (B, T, N, H)
  void *dk, *dv;                // (B, T, K, H) wide; zeros before
  void *dring_k, *dring_v;      // (B, S, K, H) wide; zeros before; null if not wanted
  int64_t chunk;                // most steps of a unit
  const AttentionUnit* units;   // of the same wave
  int64_t unit_count;           // memory: 2 * kKeys * H wide for each of their blocks
};
constexpr int64_t kSlice = 8;  // keys of every block in a piece of attention_gradient_sums

// y = (x + add) normalised, times 1 + weight; x + add, rounded, goes to `sum`.
struct Norm {
  Type type;
  int64_t rows, width;
  const void *x, *add;       // (rows, width); add may be null
  const void* weight;        // (width,)
  double eps;
  void *sum, *y;             // sum may be x itself; null without add
  // Beside a float32 x: add and y are bfloat16.
  bool half_add, half_y;
};

// Of a Norm: dx = what comes back through y, and through the sum itself (dsum). Each block of
// kNormRows rows has its sum of the weight's gradient, and these are summed in order.
struct NormGradient {
  Type type;                 // of x, weight, dsum and dx
  int64_t rows, width;
  const void *x, *weight;    // x: the sum
  const void *dy, *dsum;     // (rows, width); dsum may be null
  double eps;
  void* dx;
  void* half_dx;             // dx once more in bfloat16, or null
  void* blocks;              // (blocks, width) wide
  void* dweight;             // (width,) wide
  bool half_dy;              // dy is bfloat16, beside a float32 x
};
constexpr int64_t kNormRows = 64;

// y = gelu(gate) * x, with the tanh of the paper; all of one length.
struct Gated {
  Type type;
  int64_t count;
  const void *gate, *x;
  void* y;
};

struct GatedGradient {
  Type type;
  int64_t count;
  const void *gate, *x, *dy;
  void *dgate, *dx;
  void* y;                   // what Gated made, made again; or null
};

// Rows of capped logits, a block of the vocabulary's columns. Sums: add their exponentials to
// `total` (a logarithm) and the logit of the target, where it is among them, to `right`. Otherwise:
// logits become the gradient of factor * (total - right) in them before the cap (0: none).
struct Softmax {
  int64_t rows, columns;
  bool sums;
  float* logits;
  const int64_t* target;     // a column, or out of range
  float *total, *right;      // (rows,)
  float cap, factor;
};

// Rotate the first 2 * half entries of each head, in place.
struct Rope {
  Type type;
  int64_t tokens, heads, width, half;
  void* x;                   // (tokens, heads, width)
  const void *cos, *sin;     // (tokens, half) wide
};

// x = cap * tanh(x / cap), in place, float32.
struct SoftCap {
  int64_t count;
  float cap;
  float* x;
};

// y = x W^T + b, all of one type, with W as a checkpoint holds it.
struct Linear {
  Type type;
  int64_t rows, in, out;
  const void *x, *w, *bias;  // (rows, in), (out, in), (out,) or null
  void* y;                   // (rows, out)
  uint8_t* memory;           // linear_bytes of it
};

constexpr int64_t kRun = 2048;  // values in a piece of Gated and SoftCap

struct Sequences {
  int64_t lanes;  // channels in a piece
  void (*scan)(const Scan&, int64_t first, int64_t last);            // pieces of B * channels
  void (*scan_gradient)(const ScanGradient&, int64_t first, int64_t last);
  // Pieces of B * G * channels of a block.
  void (*unit)(const Unit&, int64_t first, int64_t last);
  void (*unit_gradient)(const UnitGradient&, int64_t first, int64_t last);
  void (*convolution)(const Convolution&, int64_t first, int64_t last);  // pieces of B * T
  int64_t (*recurrence_bytes)(const Recurrence&);
  // Pieces of G, of B * G, of groups * G.
  void (*recurrence_weights)(const Recurrence&, int64_t first, int64_t last);
  void (*recurrence)(const Recurrence&, int64_t first, int64_t last);
  void (*recurrence_gradient)(const RecurrenceGradient&, int64_t first, int64_t last);
  int64_t (*attention_bytes)(const Attention&);
  // One token a row: scores, then weighted values of each block of keys (pieces: K * blocks), then
  // their sums (heads * segments). Several tokens: keys and values are laid out (K * blocks), then
  // queries go past (K * groups).
  void (*attention_scores)(const Attention&, int64_t first, int64_t last);
  void (*attention_values)(const Attention&, int64_t first, int64_t last);
  void (*attention_sums)(const Attention&, int64_t first, int64_t last);
  void (*attention_layout)(const Attention&, int64_t first, int64_t last);
  void (*attention_groups)(const Attention&, int64_t first, int64_t last);
  void (*attention_gradient)(const AttentionGradient&, int64_t first, int64_t last);  // units
  // Pieces: kKeys / kSlice.
  void (*attention_gradient_sums)(const AttentionGradient&, int64_t first, int64_t last);
  void (*norm)(const Norm&, int64_t first, int64_t last);            // pieces: rows
  void (*norm_gradient)(const NormGradient&, int64_t first, int64_t last);  // blocks of kNormRows
  void (*gated)(const Gated&, int64_t first, int64_t last);          // pieces: runs of kRun
  void (*gated_gradient)(const GatedGradient&, int64_t first, int64_t last);
  void (*softmax)(const Softmax&, int64_t first, int64_t last);      // pieces: rows
  void (*rope)(const Rope&, int64_t first, int64_t last);            // pieces: tokens
  void (*soft_cap)(const SoftCap&, int64_t first, int64_t last);     // pieces: runs of kRun
  int64_t outputs;                                                   // in a piece of linear
  int64_t (*linear_bytes)(const Linear&);
  void (*linear_prepare)(const Linear&, int64_t first, int64_t last);  // pieces: 16 rows
  void (*linear)(const Linear&, int64_t first, int64_t last);
};

extern const Sequences portable_sequences;
extern const Sequences avx2_sequences;
extern const Sequences avx512_sequences;
extern const Sequences avx512_bf16_sequences;
extern const Sequences amx_sequences;
extern const Sequences neon_sequences;

}  // namespace griffin
