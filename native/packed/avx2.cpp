// Products with packed weights, for AVX2 with FMA: two 32-byte vectors hold what AVX-512 has in
// one.
#include <immintrin.h>

#include "kernels.h"
#include "sequence.h"

namespace griffin {
namespace {

#include "rows.h"

inline const int16_t* quantised(const Product& p, int64_t row) {
  return reinterpret_cast<const int16_t*>(p.prepared + row * p.row_bytes);
}

inline __m256i four(const int16_t* q) {  // four inputs, for four outputs
  int64_t bits;
  __builtin_memcpy(&bits, q, 8);
  return _mm256_set1_epi64x(bits);
}

inline __m256i four_bytes(const uint8_t* from) {  // four inputs, for eight outputs
  int32_t bits;
  __builtin_memcpy(&bits, from, 4);
  return _mm256_set1_epi32(bits);
}

inline __m256i bytes(const uint8_t* from) {  // 16 bytes = 4 inputs of 4 outputs, as int16
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

// Lanes are sums of two inputs, two to an output: add each output's and put the outputs in order.
inline void add_pairs(const __m256i sums[4], int32_t out[16]) {
  for (int v = 0; v < 4; ++v) {
    alignas(32) int32_t lane[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lane), sums[v]);
    for (int o = 0; o < 4; ++o) out[4 * v + o] = lane[2 * o] + lane[2 * o + 1];
  }
}

template <int R, int P>
struct Bf16 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const float* x[R];
    __m256 even[R][2], odd[R][2];
    for (int r = 0; r < R; ++r) {
      x[r] = reinterpret_cast<const float*>(p.prepared + (row + r) * p.row_bytes);
      for (int v = 0; v < 2; ++v) even[r][v] = odd[r][v] = _mm256_setzero_ps();
    }
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    for (int64_t k = 0; k < p.in_padded; k += 2, w += 64) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32 * v));
        const __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
        const __m256 second = _mm256_castsi256_ps(_mm256_and_si256(pair, high));
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          even[r][v] = _mm256_fmadd_ps(first, _mm256_set1_ps(x[r][k]), even[r][v]);
          odd[r][v] = _mm256_fmadd_ps(second, _mm256_set1_ps(x[r][k + 1]), odd[r][v]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      float sums[kPanel];
      for (int v = 0; v < 2; ++v) {
        _mm256_storeu_ps(sums + 8 * v, _mm256_add_ps(even[r][v], odd[r][v]));
      }
      write(p, row + r, panel, sums);
    }
  }
};

template <int R, int P>
struct Int8 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const __m256i offset = _mm256_set1_epi16(128);
    int64_t totals[R][kPanel] = {};
    for (int64_t at = 0; at < p.in_padded; at += 256) {  // what an int32 lane can hold
      const int64_t end = p.in_padded - at < 256 ? p.in_padded : at + 256;
      __m256i sums[R][4];
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < 4; ++v) sums[r][v] = _mm256_setzero_si256();
      }
      for (int64_t k = at; k < end; k += 4, w += 64) {
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) {
          const __m256i weights = _mm256_sub_epi16(bytes(w + 16 * v), offset);
#pragma GCC unroll 2
          for (int r = 0; r < R; ++r) {
            const __m256i product = _mm256_madd_epi16(weights, four(quantised(p, row + r) + k));
            sums[r][v] = _mm256_add_epi32(sums[r][v], product);
          }
        }
      }
      for (int r = 0; r < R; ++r) {
        int32_t part[kPanel];
        add_pairs(sums[r], part);
        for (int o = 0; o < kPanel; ++o) totals[r][o] += part[o];
      }
    }
    for (int r = 0; r < R; ++r) write_int8(p, row + r, panel, totals[r]);
  }
};

template <int R, int P>
struct Int4 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const int64_t groups = p.in_padded / kGroup4;
    const __m256i nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256 total[R][2];
    for (int r = 0; r < R; ++r) total[r][0] = total[r][1] = _mm256_setzero_ps();
    for (int64_t group = 0; group < groups; ++group) {
      const uint8_t *v = w + group % 2 * 256, *scales = w + 512 + group % 2 * 32;
      // Two products of 15 and 127 in an int16, and eight of those: 30,480 at most, so nothing
      // saturates.
      __m256i sums[R][2];
      for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          const __m256i both =
              _mm256_loadu_si256(reinterpret_cast<const __m256i*>(v + j * 64 + h * 32));
          const __m256i first = _mm256_and_si256(both, nibble);
          const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
#pragma GCC unroll 2
          for (int r = 0; r < R; ++r) {
            const uint8_t* x = p.prepared + (row + r) * p.row_bytes + group * kGroup4 + 8 * j;
            sums[r][h] = _mm256_add_epi16(sums[r][h], _mm256_maddubs_epi16(first, four_bytes(x)));
            sums[r][h] =
                _mm256_add_epi16(sums[r][h], _mm256_maddubs_epi16(second, four_bytes(x + 4)));
          }
        }
      }
      for (int r = 0; r < R; ++r) {
        const int64_t at = (row + r) * groups + group;
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          __m256i whole = _mm256_madd_epi16(sums[r][h], ones);
          whole = _mm256_add_epi32(whole, _mm256_set1_epi32(p.group_offset[at]));
          const __m128i* halves = reinterpret_cast<const __m128i*>(scales + 16 * h);
          const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(halves));
          const __m256 step = _mm256_mul_ps(scale, _mm256_set1_ps(p.group_scale[at]));
          total[r][h] = _mm256_fmadd_ps(step, _mm256_cvtepi32_ps(whole), total[r][h]);
        }
      }
      if (group % 2) w += kBlock4Bytes;
    }
    for (int r = 0; r < R; ++r) {
      float totals[kPanel];
      for (int h = 0; h < 2; ++h) _mm256_storeu_ps(totals + 8 * h, total[r][h]);
      write(p, row + r, panel, totals);
    }
  }
};

}  // namespace

const Kernels avx2_kernels = {
    "avx2", prepare_rows<false>,
    panels<Each<Bf16, 3, 3, 1>, Each<Int8, 2, 2, 1>, Each<Int4, 2, 2, 1>>,
    &avx2_sequences, false, read_words};

}  // namespace griffin
