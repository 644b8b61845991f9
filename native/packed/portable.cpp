// Products with packed weights in plain C++: what runs where no other set does, and the plainest to
// read.
#include "kernels.h"
#include "sequence.h"

namespace griffin {
namespace {

#include "rows.h"

inline float from_half(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
  float out;
  if (exponent == 0) {
    out = static_cast<float>(fraction) * (1.0f / 16777216.0f);
    return sign ? -out : out;
  }
  const uint32_t wide = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
  __builtin_memcpy(&out, &wide, 4);
  return out;
}

// a * b + sum, rounded as the other sets of such a machine do: once where it has an instruction for
// it.
inline float fused(float a, float b, float sum) {
#if defined(__aarch64__)
  return __builtin_fmaf(a, b, sum);
#else
  return a * b + sum;
#endif
}

inline const int16_t* quantised(const Product& p, int64_t row) {
  return reinterpret_cast<const int16_t*>(p.prepared + row * p.row_bytes);
}

template <int R, int P>
struct Bf16 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    static_assert(R == 1);
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const float* x = reinterpret_cast<const float*>(p.prepared + row * p.row_bytes);
    float even[kPanel] = {}, odd[kPanel] = {};
    for (int64_t k = 0; k < p.in_padded; k += 2, w += 64) {
      uint32_t pair[kPanel];
      __builtin_memcpy(pair, w, 64);
      for (int o = 0; o < kPanel; ++o) {
        even[o] = fused(from_bf16(static_cast<uint16_t>(pair[o])), x[k], even[o]);
      }
      for (int o = 0; o < kPanel; ++o) {
        odd[o] = fused(from_bf16(static_cast<uint16_t>(pair[o] >> 16)), x[k + 1], odd[o]);
      }
    }
    for (int o = 0; o < kPanel; ++o) even[o] += odd[o];
    write(p, row, panel, even);
  }
};

template <int R, int P>
struct Int8 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    static_assert(R == 1);
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const int16_t* q = quantised(p, row);
    int64_t totals[kPanel] = {};
    // An int32 holds 256 products of a byte and an int16.
    for (int64_t at = 0; at < p.in_padded; at += 256) {
      const int64_t end = p.in_padded - at < 256 ? p.in_padded : at + 256;
      int32_t sums[kPanel] = {};
      for (int64_t k = at; k < end; k += 4, w += 64) {
        for (int o = 0; o < kPanel; ++o) {
          for (int b = 0; b < 4; ++b) {
            sums[o] += (static_cast<int32_t>(w[4 * o + b]) - 128) * q[k + b];
          }
        }
      }
      for (int o = 0; o < kPanel; ++o) totals[o] += sums[o];
    }
    write_int8(p, row, panel, totals);
  }
};

// int4 and int2: a byte holds 8 / Bits values. Two bits stand for -3, -1, 1 and 3; with a third,
// which is the lowest and lies elsewhere, for -7, -5, ..., 7 half steps.
template <int Bits, int R, bool Low = false>
struct Groups {
  static void run(const Product& p, int64_t panel, int64_t row) {
    static_assert(R == 1);
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const int64_t groups = p.in_padded / kGroup;
    const int8_t* q = reinterpret_cast<const int8_t*>(p.prepared + row * p.row_bytes);
    const uint8_t* low = Low ? low_bits(p, w, 0) : nullptr;
    float totals[kPanel] = {};
    for (int64_t group = 0; group < groups; ++group, q += kGroup) {
      const int64_t at = row * groups + group;
      int32_t sums[kPanel];
      for (int o = 0; o < kPanel; ++o) sums[o] = p.group_offset[at];
      constexpr int kFactor = Bits == 4 ? 1 : 2, kMask = (1 << Bits) - 1, kDeep = 32 / Bits;
      for (int j = 0; j < Bits; ++j) {
        const uint8_t* v = w + (group % 2 * Bits + j) * 64;
        for (int o = 0; o < kPanel; ++o) {
          for (int k = 0; k < kDeep; ++k) {
            int value = v[4 * o + k % 4] >> k / 4 * Bits & kMask;
            if constexpr (Low) {
              value = 2 * value + (low[4 * o + k % 4] >> low_at((kDeep * j + k) / 4) & 1);
            }
            sums[o] += kFactor * value * q[kDeep * j + k];
          }
        }
      }
      uint16_t scale[kPanel];
      __builtin_memcpy(scale, w + 128 * Bits + group % 2 * 32, 32);
      for (int o = 0; o < kPanel; ++o) {
        const float step = from_half(scale[o]) * p.group_scale[at];
        totals[o] = fused(step, static_cast<float>(sums[o]), totals[o]);
      }
      if (group % 2) w += block_bytes(Bits);
      if constexpr (Low) low += kLowBytes / 2;
    }
    write(p, row, panel, totals);
  }
};

template <int R, int P>
using Int4 = Groups<4, R>;
template <int R, int P>
using Int2 = Groups<2, R>;
template <int R, int P>
using Int3 = Groups<2, R, true>;

}  // namespace

const Kernels portable_kernels = {
    "portable", prepare_rows<false>,
    panels<Each<Bf16, 1, 1, 1>, Each<Int8, 1, 1, 1>, Each<Int4, 1, 1, 1>, Each<Int2, 1, 1, 1>,
           Each<Int3, 1, 1, 1>>,
    &portable_sequences, false, read_words};

}  // namespace griffin
