// Weights of 4, 3 and 2 bits for AVX-512, one file's part: included within its unnamed namespace.

// int4 and int2 weights: blocks of 64 inputs = 8 or 4 vectors, whose bytes hold 8 / Bits values (a
// group of 32 in each half), the 2 x 16 scales in half precision. At int3 a third bit, the lowest,
// lies elsewhere.
template <int Bits, bool Low = false>
struct Values {
  static constexpr int kFours = 8 / Bits;  // of inputs, in the bytes of a vector

  // Of two bits twice the value, because it stands for -3, -1, 1 or 3. So of three.
  static __m512i take(__m512i all, int k, __m512i low, int j) {
    const __m512i mask = _mm512_set1_epi8(Bits == 4 ? 15 : Low ? 12 : 6);
    if (Bits == 4) return _mm512_and_si512(k ? _mm512_srli_epi16(all, 4) : all, mask);
    const __m512i upper = _mm512_and_si512(moved(all, 2 * k - 1 - Low), mask);
    if constexpr (!Low) return upper;
    const __m512i bit = moved(low, low_at(kFours * j + k) - 1);
    return _mm512_or_si512(upper, _mm512_and_si512(bit, _mm512_set1_epi8(2)));
  }

  // Two values of two or three bits in each byte, k = n in the lower half and n + 2 in the upper.
  static __m512i pair(__m512i all, int n, __m512i low, int j) {
    if constexpr (!Low) return moved(all, 2 * n);
    const __m512i uppers = _mm512_set1_epi8(0x66);  // bits that are of `all`, the others of `low`
    return _mm512_ternarylogic_epi32(uppers, moved(all, 2 * n - 1), moved(low, 2 * j + n), 0xca);
  }

  static __m512i moved(__m512i bits, int down) {
    return down < 0 ? _mm512_slli_epi16(bits, down < 0 ? -down : 0)
                    : _mm512_srli_epi16(bits, down < 0 ? 0 : down);
  }
};

template <int Bits, int R, int P, bool Low = false>
struct Groups {
  static constexpr int kFours = Values<Bits>::kFours;
  // With few rows the high nibbles stay where they are, 16 times too large, and are summed apart: a
  // shift less for each vector, and half as long a chain of sums that wait for each other. Of two
  // or three bits a value lies in each nibble.
  static constexpr bool kApart = R * P <= 2, kPairs = kApart && Bits == 2;

  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const int64_t groups = p.in_padded / kGroup;
    const uint8_t* x = p.prepared + row * p.row_bytes;
    const uint8_t* low = Low ? low_bits(p, w, 0) : w;
    __m512 total[R][P];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) total[r][n] = _mm512_setzero_ps();
    }
    const __m512i lower = _mm512_set1_epi8(Low ? 0x07 : 0x03);
    const __m512i upper = _mm512_set1_epi8(static_cast<char>(kPairs ? Low ? 0x70 : 0x30 : 0xf0));
    // A whole block at a time, so that every load goes ahead by the same stride: the hardware sees
    // that and looks ahead.
#pragma GCC unroll 1
    for (int64_t block = 0; block < groups; block += 2, w += block_bytes(Bits)) {
#pragma GCC unroll 2
     for (int half = 0; half < 2; ++half, x += kGroup) {
      const uint8_t* v = w + half * 64 * Bits;
      const int64_t at = row * groups + block + half;
      if constexpr (Low) ahead<R, P>(low + (block + half) * (kLowBytes / 2));
      __m512i sum[R][P], highs[R][P];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int n = 0; n < P; ++n) {
          sum[r][n] = kPairs ? _mm512_setzero_si512()
                             : _mm512_set1_epi32(p.group_offset[at + r * groups]);
          if constexpr (kApart) highs[r][n] = _mm512_setzero_si512();
        }
      }
#pragma GCC unroll 4
      for (int j = 0; j < Bits; ++j) {
        __m512i values[kFours][P];
#pragma GCC unroll 4
        for (int n = 0; n < P; ++n) {
          const __m512i all = _mm512_loadu_si512(v + n * p.panel_bytes + j * 64);
          ahead<R, P>(v + j * 64);
          __m512i third = all;
          if constexpr (Low) {
            third = _mm512_loadu_si512(low + n * low_bytes(p) + (block + half) * (kLowBytes / 2));
          }
          if constexpr (kPairs) {
#pragma GCC unroll 2
            for (int k = 0; k < 2; ++k) {
              const __m512i both = Values<Bits, Low>::pair(all, k, third, j);
              values[k][n] = _mm512_and_si512(both, lower);
              values[k + 2][n] = _mm512_and_si512(both, upper);
            }
            continue;
          }
#pragma GCC unroll 4
          for (int k = 0; k < kFours; ++k) {
            values[k][n] = kApart && k ? _mm512_and_si512(all, upper)
                                       : Values<Bits, Low>::take(all, k, third, j);
          }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const uint8_t* from = x + r * p.row_bytes + 4 * kFours * j;
#pragma GCC unroll 4
          for (int k = 0; k < kFours; ++k) {
            const __m512i inputs = four(from + 4 * k);
#pragma GCC unroll 4
            for (int n = 0; n < P; ++n) {
              __m512i& to = kApart && k >= kFours / 2 ? highs[r][n] : sum[r][n];
              to = _mm512_dpbusd_epi32(to, values[k][n], inputs);
            }
          }
        }
      }
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) {
        const uint8_t* scales = w + n * p.panel_bytes + 128 * Bits + half * 32;
        const __m512 scale = halves(scales);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          __m512i whole = sum[r][n];
          if constexpr (kApart) whole = _mm512_add_epi32(whole, _mm512_srai_epi32(highs[r][n], 4));
          if constexpr (kPairs) {
            const __m512i offset = _mm512_set1_epi32(p.group_offset[at + r * groups]);
            whole = _mm512_add_epi32(_mm512_add_epi32(whole, whole), offset);
          }
          // Below 2^24 in magnitude, so the conversion is exact.
          const __m512 step = _mm512_mul_ps(scale, _mm512_set1_ps(p.group_scale[at + r * groups]));
          total[r][n] = _mm512_fmadd_ps(step, _mm512_cvtepi32_ps(whole), total[r][n]);
        }
      }
     }
    }
    alignas(64) float totals[R][P][kPanel];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) _mm512_store_ps(totals[r][n], total[r][n]);
    }
    for (int n = 0; n < P; ++n) {
      for (int r = 0; r < R; ++r) write(p, row + r, panel + n, _mm512_load_ps(totals[r][n]));
    }
  }
};

template <int R, int P>
using Int4 = Groups<4, R, P>;
template <int R, int P>
using Int2 = Groups<2, R, P>;
template <int R, int P>
using Int3 = Groups<2, R, P, true>;
