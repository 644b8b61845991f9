// Products with packed weights, for NEON with the dot product instructions: four vectors hold a
// step of 16 outputs.
#include <arm_neon.h>

#include "kernels.h"
#include "sequence.h"

namespace griffin {
namespace {

#include "rows.h"

inline int8x16_t four(const int8_t* digits) {  // four inputs, for four outputs
  int32_t bits;
  __builtin_memcpy(&bits, digits, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(bits));
}

inline float32x4_t halves(const uint8_t* from) {
  uint16x4_t bits;
  __builtin_memcpy(&bits, from, 8);
  return vcvt_f32_f16(vreinterpret_f16_u16(bits));
}

template <int R, int P>
struct Bf16 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const float* x[R];
    float32x4_t even[R][4], odd[R][4];
    for (int r = 0; r < R; ++r) {
      x[r] = reinterpret_cast<const float*>(p.prepared + (row + r) * p.row_bytes);
      for (int v = 0; v < 4; ++v) even[r][v] = odd[r][v] = vdupq_n_f32(0);
    }
    const uint32x4_t high = vdupq_n_u32(0xffff0000u);
    for (int64_t k = 0; k < p.in_padded; k += 2, w += 64) {
      for (int v = 0; v < 4; ++v) {
        const uint32x4_t pair = vreinterpretq_u32_u8(vld1q_u8(w + 16 * v));
        const float32x4_t first = vreinterpretq_f32_u32(vshlq_n_u32(pair, 16));
        const float32x4_t second = vreinterpretq_f32_u32(vandq_u32(pair, high));
        for (int r = 0; r < R; ++r) {
          even[r][v] = vfmaq_n_f32(even[r][v], first, x[r][k]);
          odd[r][v] = vfmaq_n_f32(odd[r][v], second, x[r][k + 1]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      float sums[kPanel];
      for (int v = 0; v < 4; ++v) vst1q_f32(sums + 4 * v, vaddq_f32(even[r][v], odd[r][v]));
      write(p, row + r, panel, sums);
    }
  }
};

template <int R, int P>
struct Int8 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const int8_t *high[R], *low[R];
    int32x4_t highs[R][4], lows[R][4];
    for (int r = 0; r < R; ++r) {
      high[r] = reinterpret_cast<const int8_t*>(p.prepared + (row + r) * p.row_bytes);
      low[r] = high[r] + p.in_padded;
      for (int v = 0; v < 4; ++v) highs[r][v] = lows[r][v] = vdupq_n_s32(0);
    }
    // Flipping the top bit takes away the 128 that was added.
    const uint8x16_t offset = vdupq_n_u8(128);
    for (int64_t k = 0; k < p.in_padded; k += 4, w += 64) {
      for (int v = 0; v < 4; ++v) {
        const int8x16_t weights = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + 16 * v), offset));
        for (int r = 0; r < R; ++r) {
          highs[r][v] = vdotq_s32(highs[r][v], weights, four(high[r] + k));
          lows[r][v] = vdotq_s32(lows[r][v], weights, four(low[r] + k));
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      int32_t h[kPanel], l[kPanel];
      int64_t totals[kPanel];
      for (int v = 0; v < 4; ++v) {
        vst1q_s32(h + 4 * v, highs[r][v]);
        vst1q_s32(l + 4 * v, lows[r][v]);
      }
      for (int o = 0; o < kPanel; ++o) totals[o] = int64_t{256} * h[o] + l[o];
      write_int8(p, row + r, panel, totals);
    }
  }
};

// int4 and int2: a byte holds 8 / Bits values, of as many fours of inputs. At int3 a third bit,
// the lowest, lies elsewhere.
template <int Bits, int R, bool Low = false>
struct Groups {
  static constexpr int kFours = 8 / Bits;

  // Of two bits twice the value, because it stands for -3, -1, 1 or 3. So of three.
  static void values(uint8x16_t all, int8x16_t (&to)[kFours]) {
    const uint8x16_t mask = vdupq_n_u8(Bits == 4 ? 15 : 6);
    if constexpr (Bits == 4) {
      to[0] = vreinterpretq_s8_u8(vandq_u8(all, mask));
      to[1] = vreinterpretq_s8_u8(vshrq_n_u8(all, 4));
    } else {
      to[0] = vreinterpretq_s8_u8(vandq_u8(vshlq_n_u8(all, 1), mask));
      to[1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(all, 1), mask));
      to[2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(all, 3), mask));
      to[3] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(all, 5), mask));
    }
  }

  // Twice the values of two bits become twice those of three: bits of `low` are the third.
  static void add_low(uint8x16_t low, int j, int8x16_t (&to)[kFours]) {
    for (int k = 0; k < kFours; ++k) {
      const int8_t up = static_cast<int8_t>(1 - low_at(kFours * j + k));
      const uint8x16_t bit = vshlq_u8(low, vdupq_n_s8(up));
      const uint8x16_t twice = vshlq_n_u8(vreinterpretq_u8_s8(to[k]), 1);
      to[k] = vreinterpretq_s8_u8(vorrq_u8(twice, vandq_u8(bit, vdupq_n_u8(2))));
    }
  }

  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const uint8_t* low = Low ? low_bits(p, w, 0) : nullptr;
    const int64_t groups = p.in_padded / kGroup;
    float32x4_t total[R][4];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < 4; ++v) total[r][v] = vdupq_n_f32(0);
    }
    for (int64_t group = 0; group < groups; ++group) {
      const uint8_t* scales = w + 128 * Bits + group % 2 * 32;
      int32x4_t sums[R][4];
      for (int r = 0; r < R; ++r) {
        const int32_t offset = p.group_offset[(row + r) * groups + group];
        for (int v = 0; v < 4; ++v) sums[r][v] = vdupq_n_s32(offset);
      }
      for (int j = 0; j < Bits; ++j) {
        for (int v = 0; v < 4; ++v) {
          int8x16_t weights[kFours];
          values(vld1q_u8(w + (group % 2 * Bits + j) * 64 + 16 * v), weights);
          if constexpr (Low) add_low(vld1q_u8(low + group * (kLowBytes / 2) + 16 * v), j, weights);
          for (int r = 0; r < R; ++r) {
            const uint8_t* prepared =
                p.prepared + (row + r) * p.row_bytes + group * kGroup + 4 * kFours * j;
            const int8_t* x = reinterpret_cast<const int8_t*>(prepared);
            for (int k = 0; k < kFours; ++k) {
              sums[r][v] = vdotq_s32(sums[r][v], weights[k], four(x + 4 * k));
            }
          }
        }
      }
      for (int r = 0; r < R; ++r) {
        const int64_t at = (row + r) * groups + group;
        for (int v = 0; v < 4; ++v) {
          const float32x4_t step = vmulq_n_f32(halves(scales + 8 * v), p.group_scale[at]);
          total[r][v] = vfmaq_f32(total[r][v], step, vcvtq_f32_s32(sums[r][v]));
        }
      }
      if (group % 2) w += block_bytes(Bits);
    }
    for (int r = 0; r < R; ++r) {
      float totals[kPanel];
      for (int v = 0; v < 4; ++v) vst1q_f32(totals + 4 * v, total[r][v]);
      write(p, row + r, panel, totals);
    }
  }
};

template <int R, int P>
using Int4 = Groups<4, R>;
template <int R, int P>
using Int2 = Groups<2, R>;
template <int R, int P>
using Int3 = Groups<2, R, true>;

}  // namespace

const Kernels neon_kernels = {
    "neon", prepare_rows<true>,
    panels<Each<Bf16, 3, 3, 1>, Each<Int8, 3, 3, 1>, Each<Int4, 2, 2, 1>, Each<Int2, 2, 2, 1>,
           Each<Int3, 2, 2, 1>>,
    &neon_sequences, false, read_words};

}  // namespace griffin
