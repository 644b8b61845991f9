// Products with packed weights, for AVX-512 with VNNI: one 64-byte load holds the same inputs of 16 outputs.
#include <immintrin.h>

#include "kernels.h"
#include "sequence.h"

namespace griffin {
namespace {

#include "rows.h"

inline __m512i four(const void* bytes) {  // the same four bytes for all 16 outputs
  int32_t bits;
  __builtin_memcpy(&bits, bytes, 4);
  return _mm512_set1_epi32(bits);
}

// Weights are asked for this many bytes before they are multiplied with several rows: the hardware alone does not
// look far enough ahead then. With one row it does better alone, and weights of several panels are in the cache.
constexpr int64_t kAhead = 3072;

template <int R, int P>
inline void ahead(const uint8_t* weights) {
  if constexpr (R > 1 && P == 1) _mm_prefetch(reinterpret_cast<const char*>(weights + kAhead), _MM_HINT_T0);
}

// bf16 weights, float32 activations: pairs of inputs in a lane, so two accumulators.
template <int R, int P>
struct Bf16 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    static_assert(P == 1);
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const float* x[R];
    __m512 even[R], odd[R];
    for (int r = 0; r < R; ++r) {
      x[r] = reinterpret_cast<const float*>(p.prepared + (row + r) * p.row_bytes);
      even[r] = odd[r] = _mm512_setzero_ps();
    }
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    for (int64_t k = 0; k < p.in_padded; k += 2, w += 64) {
      const __m512i pair = _mm512_loadu_si512(w);
      ahead<R, P>(w);
      const __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
      const __m512 second = _mm512_castsi512_ps(_mm512_and_si512(pair, high));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        even[r] = _mm512_fmadd_ps(first, _mm512_set1_ps(x[r][k]), even[r]);
        odd[r] = _mm512_fmadd_ps(second, _mm512_set1_ps(x[r][k + 1]), odd[r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      float sums[kPanel];
      _mm512_storeu_ps(sums, _mm512_add_ps(even[r], odd[r]));
      write(p, row + r, panel, sums);
    }
  }
};

#if defined(__AVX512BF16__)
// bf16 weights and activations: one instruction multiplies and adds a pair of inputs of 16 outputs.
template <int R, int P>
struct Bf16Pairs {
  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const uint8_t* x = p.prepared + row * p.row_bytes;
    __m512 sum[R][P];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) sum[r][n] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < p.in_padded; k += 2, w += 64, x += 4) {
      __m512bh weights[P];
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) {
        weights[n] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(w + n * p.panel_bytes));
        ahead<R, P>(w + n * p.panel_bytes);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512bh pair = reinterpret_cast<__m512bh>(four(x + r * p.row_bytes));
#pragma GCC unroll 4
        for (int n = 0; n < P; ++n) sum[r][n] = _mm512_dpbf16_ps(sum[r][n], weights[n], pair);
      }
    }
    alignas(64) float sums[R][P][kPanel];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) _mm512_store_ps(sums[r][n], sum[r][n]);
    }
    for (int n = 0; n < P; ++n) {
      for (int r = 0; r < R; ++r) write(p, row + r, panel + n, sums[r][n]);
    }
  }
};
#endif

// int8 weights, stored with 128 added because VNNI multiplies unsigned by signed bytes.
template <int R, int P>
struct Int8 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const uint8_t *high = p.prepared + row * p.row_bytes, *low = high + p.in_padded;
    __m512i highs[R][P], lows[R][P];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) highs[r][n] = lows[r][n] = _mm512_setzero_si512();
    }
    for (int64_t k = 0; k < p.in_padded; k += 4, w += 64, high += 4, low += 4) {
      __m512i weights[P];
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) {
        weights[n] = _mm512_loadu_si512(w + n * p.panel_bytes);
        ahead<R, P>(w + n * p.panel_bytes);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i upper = four(high + r * p.row_bytes), lower = four(low + r * p.row_bytes);
#pragma GCC unroll 4
        for (int n = 0; n < P; ++n) {
          highs[r][n] = _mm512_dpbusd_epi32(highs[r][n], weights[n], upper);
          lows[r][n] = _mm512_dpbusd_epi32(lows[r][n], weights[n], lower);
        }
      }
    }
    // Out of the registers first: loops that end in more than a store are not unrolled, and an array that is
    // indexed by a loop lives in memory.
    alignas(64) int32_t h[R][P][kPanel], l[R][P][kPanel];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) {
        _mm512_store_si512(h[r][n], highs[r][n]);
        _mm512_store_si512(l[r][n], lows[r][n]);
      }
    }
    for (int n = 0; n < P; ++n) {
      for (int r = 0; r < R; ++r) {
        int64_t totals[kPanel];
        const int64_t offset = 128 * p.row_sum[row + r];
        for (int o = 0; o < kPanel; ++o) totals[o] = int64_t{256} * h[r][n][o] + l[r][n][o] - offset;
        write_int8(p, row + r, panel + n, totals);
      }
    }
  }
};

// int4 weights: blocks of 64 inputs = 8 vectors of nibbles (a group of 32 in each half), the 2 x 16 scales in
// half precision and, with `Min`, as many smallest values.
template <int R, int P, bool Min>
struct Int4Block {
  // With few rows the high nibbles stay where they are, 16 times too large, and are summed apart: a shift less
  // for each vector, and half as long a chain of sums that wait for each other.
  static constexpr bool kApart = R * P <= 2;

  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const int64_t groups = p.in_padded / kGroup4;
    const uint8_t* x = p.prepared + row * p.row_bytes;
    __m512 total[R][P];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) total[r][n] = _mm512_setzero_ps();
    }
    const __m512i nibble = _mm512_set1_epi8(15), upper = _mm512_set1_epi8(static_cast<char>(0xf0));
    for (int64_t group = 0; group < groups; ++group, x += kGroup4) {
      const uint8_t* v = w + group % 2 * 256;
      const int64_t at = row * groups + group;
      __m512i sum[R][P], highs[R][P];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int n = 0; n < P; ++n) {
          sum[r][n] = Min ? _mm512_setzero_si512() : _mm512_set1_epi32(p.group_offset[at + r * groups]);
          if constexpr (kApart) highs[r][n] = _mm512_setzero_si512();
        }
      }
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        __m512i first[P], second[P];
#pragma GCC unroll 4
        for (int n = 0; n < P; ++n) {
          const __m512i both = _mm512_loadu_si512(v + n * p.panel_bytes + j * 64);
          ahead<R, P>(v + j * 64);
          first[n] = _mm512_and_si512(both, nibble);
          second[n] = kApart ? _mm512_and_si512(both, upper) : _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const uint8_t* from = x + r * p.row_bytes + 8 * j;
          const __m512i four_low = four(from), four_high = four(from + 4);
#pragma GCC unroll 4
          for (int n = 0; n < P; ++n) {
            sum[r][n] = _mm512_dpbusd_epi32(sum[r][n], first[n], four_low);
            __m512i& other = kApart ? highs[r][n] : sum[r][n];
            other = _mm512_dpbusd_epi32(other, second[n], four_high);
          }
        }
      }
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) {
        const uint8_t* scales = w + n * p.panel_bytes + 512 + group % 2 * 32;
        const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          __m512i whole = sum[r][n];
          if constexpr (kApart) whole = _mm512_add_epi32(whole, _mm512_srai_epi32(highs[r][n], 4));
          if constexpr (Min) {
            const __m512 least = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + 64)));
            total[r][n] = _mm512_fmadd_ps(least, _mm512_set1_ps(p.group_sum[at + r * groups]), total[r][n]);
          }
          // Below 2^24 in magnitude, so the conversion is exact.
          const __m512 step = _mm512_mul_ps(scale, _mm512_set1_ps(p.group_scale[at + r * groups]));
          total[r][n] = _mm512_fmadd_ps(step, _mm512_cvtepi32_ps(whole), total[r][n]);
        }
      }
      if (group % 2) w += Min ? 640 : 576;
    }
    alignas(64) float totals[R][P][kPanel];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) _mm512_store_ps(totals[r][n], total[r][n]);
    }
    for (int n = 0; n < P; ++n) {
      for (int r = 0; r < R; ++r) write(p, row + r, panel + n, totals[r][n]);
    }
  }
};

template <int R, int P>
using Int4 = Int4Block<R, P, false>;
template <int R, int P>
using Int4Min = Int4Block<R, P, true>;

void panels(const Product& p, int64_t first, int64_t last) {
  switch (p.format) {
    case Format::bf16:
#if defined(__AVX512BF16__)
      if (p.pairs) return Each<Bf16Pairs, 8, 6, 4>::run(p, first, last);
#endif
      return Each<Bf16, 12, 12, 1>::run(p, first, last);
    case Format::int8: return Each<Int8, 8, 6, 2>::run(p, first, last);
    case Format::int4: return Each<Int4, 8, 4, 2>::run(p, first, last);
    case Format::int4_min: return Each<Int4Min, 8, 4, 2>::run(p, first, last);
  }
}

}  // namespace

#if defined(__AVX512BF16__)
const Kernels avx512_bf16_kernels = {"avx512_bf16", prepare_rows<true>, panels, &avx512_bf16_sequences, true, read_words};
#else
const Kernels avx512_kernels = {"avx512", prepare_rows<true>, panels, &avx512_sequences, false, read_words};
#endif

}  // namespace griffin
