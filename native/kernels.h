// The kernels of one instruction set, as a table of functions; every set is compiled into the
// module.
#pragma once

#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>  // for scratch.h, which is included within namespaces
#endif

namespace griffin {

enum class Type : int { f32 = 0, bf16 = 1, f64 = 2 };
enum class Format : int { bf16 = 0, int8 = 1, int4 = 2, int2 = 3, int3 = 4 };

constexpr int kPanel = 16;         // output rows stored together
constexpr int kTogether = 4;       // panels that a block of many rows is multiplied with, at most
constexpr int kBlock = 64;         // inputs in a block of such a panel: two groups of 32
constexpr int kGroup = 32;         // inputs that share a scale there, of weights and activations
constexpr int kLargestByte = 127;  // of an activation there: one signed byte
constexpr int kLargest = 32512;    // for int8: 127 * 256, so that two signed bytes hold it
// Bytes of a block whose values have so many bits: they, then 2 x 16 scales in half precision.
constexpr int block_bytes(int bits) { return 2 * kGroup * kPanel * bits / 8 + 2 * kPanel * 2; }
// Of the lowest bits of a block of int3, whose other bits and scales are a block of int2: they lie
// apart, so that either is one stream.
constexpr int kLowBytes = 2 * kGroup * kPanel / 8;
// Which bit of a byte is the lowest of four `four` of a group's inputs: where upper bits lie half a
// byte apart, these do.
constexpr int low_at(int four) { return four / 4 * 2 + four % 2 + four / 2 % 2 * 4; }
// Kernels read `prepared` in whole groups of so many rows; those behind the last are not used.
constexpr int kRowsTogether = 16;

// A product of few or many rows with a packed matrix.
struct Product {
  Format format;
  const uint8_t* data;     // panels of 16 output rows, one after the other
  const float* scale;      // int8: one an output row, padded to whole panels
  const uint8_t* low;      // int3: the lowest bits, panels one after the other
  int64_t out, in;         // as the caller sees them
  int64_t in_padded;       // as they are stored
  int64_t panel_bytes;
  const void* x;           // (rows, in), rows `in` apart
  Type x_type;
  const void* bias;        // (out,) of bias_type, or null
  Type bias_type;
  void* y;                 // (rows, out)
  Type y_type;
  int64_t rows;
  bool pairs;              // x and weights are bfloat16 and the kernels multiply pairs of them
  // What `prepare` makes of x, each row `row_bytes` after the last.
  uint8_t* prepared;
  int64_t row_bytes;
  float* row_scale;        // int8: (rows,) step of the quantised activations
  int64_t* row_sum;        // int8: (rows,) their sum
  float* group_scale;      // (rows, in_padded / 32) step of each group's activations, at int3 half
  int32_t* group_offset;   // the same shape: the group's sum times -8, at int2 -3, at int3 -7
};

struct Sequences;  // sequence.h

struct Kernels {
  const char* name;
  void (*prepare)(const Product&, int64_t first_row, int64_t last_row);
  void (*panels)(const Product&, int64_t first_panel, int64_t last_panel);
  const Sequences* sequences;
  bool pairs;  // has instructions for pairs of bfloat16
  // The sum of so many words: to measure how fast memory is read.
  uint64_t (*read)(const uint64_t* from, int64_t count);
  // Bytes of weights that stay in a core's cache while many rows are multiplied with them, and the
  // most of one panel among them.
  int64_t piece = 384 << 10, deepest = INT64_MAX;
};

extern const Kernels portable_kernels;
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
extern const Kernels avx512_bf16_kernels;
extern const Kernels amx_kernels;
extern const Kernels neon_kernels;

// The tables this machine can run, the fastest first; their number.
int available(const Kernels* const** tables);
// Those in this build, whatever the machine; what the machine can run, the fastest first, whatever
// the build.
int compiled(const Kernels* const** tables);
int of_machine(const char* const** names);
const Kernels& active();
// Use the named table from now on; false if this machine has none of that name.
bool force(const char* name);

}  // namespace griffin
