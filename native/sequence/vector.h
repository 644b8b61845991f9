// Vectors of one register's width in the compiler's own notation, so that one source serves every
// set. Included within an unnamed namespace: no set's code can serve another.

// kRows: rows of a product's tile; kRows * kColumns accumulators fit the registers.
#if defined(__AVX512F__)
constexpr int kBytes = 64;
constexpr int kRows = 6;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
constexpr int kRows = 3;
#elif defined(__aarch64__)
constexpr int kBytes = 16;
constexpr int kRows = 6;
#else
constexpr int kBytes = 16;
constexpr int kRows = 3;
#endif
constexpr int kColumns = 4;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kWideColumns = 16;  // of a tile of one row, so that it reads long pieces
#elif defined(__AVX2__)
constexpr int kWideColumns = 8;
#else
constexpr int kWideColumns = 4;
#endif

using Bf16 = uint16_t;

template <class T>
struct Vectors;
template <>
struct Vectors<float> {
  typedef float V __attribute__((vector_size(kBytes)));
  typedef int32_t I __attribute__((vector_size(kBytes)));
  typedef uint32_t U __attribute__((vector_size(kBytes)));
  typedef uint16_t H __attribute__((vector_size(kBytes / 2)));
  static constexpr int width = kBytes / 4;
};
template <>
struct Vectors<double> {
  typedef double V __attribute__((vector_size(kBytes)));
  typedef int64_t I __attribute__((vector_size(kBytes)));
  static constexpr int width = kBytes / 8;
};

template <class X>
struct WideOf {
  using type = float;
};
template <>
struct WideOf<double> {
  using type = double;
};
template <class X>
using Wide = typename WideOf<X>::type;
template <class T>
using Vec = typename Vectors<T>::V;
template <class T>
constexpr int kWidth = Vectors<T>::width;
template <class T>
constexpr int kLanes = kWidth<T> * kColumns;

template <class T>
inline Vec<T> all(T value) {
  return Vec<T>{} + value;
}

inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }

inline float widen(float value) { return value; }
inline double widen(double value) { return value; }
inline float widen(Bf16 bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float out;
  __builtin_memcpy(&out, &wide, 4);
  return out;
}

// The first `count` of a vector's entries, zeros behind them; the whole vector where there are as
// many.
template <class X>
inline Vec<Wide<X>> load(const X* from, int64_t count) {
  using T = Wide<X>;
  if constexpr (__is_same(X, Bf16)) {
    typename Vectors<float>::H bits{};
    if (count >= kWidth<T>) {
      __builtin_memcpy(&bits, from, sizeof bits);
    } else {
      for (int64_t k = 0; k < count; ++k) bits[k] = from[k];
    }
    return reinterpret_cast<Vec<T>>(__builtin_convertvector(bits, Vectors<float>::U) << 16);
  } else {
    Vec<T> out{};
    if (count >= kWidth<T>) {
      __builtin_memcpy(&out, from, sizeof out);
    } else {
      for (int64_t k = 0; k < count; ++k) out[k] = from[k];
    }
    return out;
  }
}

template <class X>
inline void store(X* to, Vec<Wide<X>> value, int64_t count) {
  if constexpr (__is_same(X, Bf16)) {
#if defined(__AVX512BF16__)
    // One instruction; what is smaller than every normal number becomes 0.
    const auto half =
        reinterpret_cast<Vectors<float>::H>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(value)));
#else
    using U = Vectors<float>::U;
    const U bits = reinterpret_cast<U>(value);
    const U rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    // NaN stays NaN.
    const U kept = (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40) : rounded;
    const auto half = __builtin_convertvector(kept, Vectors<float>::H);
#endif
    if (count >= kWidth<float>) {
      __builtin_memcpy(to, &half, sizeof half);
    } else {
      for (int64_t k = 0; k < count; ++k) to[k] = half[k];
    }
  } else {
    if (count >= kWidth<X>) {
      __builtin_memcpy(to, &value, sizeof value);
    } else {
      for (int64_t k = 0; k < count; ++k) to[k] = value[k];
    }
  }
}

template <class T>
inline Vec<T> square_root(Vec<T> v) {
  for (int k = 0; k < kWidth<T>; ++k) v[k] = __builtin_sqrt(v[k]);
  return v;
}
template <>
inline Vec<float> square_root<float>(Vec<float> v) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec<float>>(_mm512_sqrt_ps(reinterpret_cast<__m512>(v)));
#elif defined(__AVX2__)
  return reinterpret_cast<Vec<float>>(_mm256_sqrt_ps(reinterpret_cast<__m256>(v)));
#else
  for (int k = 0; k < kWidth<float>; ++k) v[k] = __builtin_sqrtf(v[k]);
  return v;
#endif
}

// exp(v) = scale * (1 + p): whole powers of two split off, a polynomial for the rest; within 2
// units of the last place from -87 to 88, at its end values outside.
inline void split_exponential(Vec<float> v, Vec<float>& scale, Vec<float>& p) {
  using I = Vectors<float>::I;
  const Vec<float> low = all(-87.0f), high = all(88.0f);
  v = v < low ? low : v;
  v = v > high ? high : v;
  const Vec<float> shifted = v * 1.44269504f + 12582912.0f;
  const I power = reinterpret_cast<I>(shifted) - 0x4b400000;
  const Vec<float> whole = shifted - 12582912.0f;
  const Vec<float> r = v - whole * 0.693359375f + whole * 2.12194440e-4f;
  p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r;
  scale = reinterpret_cast<Vec<float>>((power + 127) << 23);
}

inline Vec<float> exponential(Vec<float> v) {
  Vec<float> scale, p;
  split_exponential(v, scale, p);
  return v == v ? scale * p + scale : v;
}
inline Vec<double> exponential(Vec<double> v) {
  for (int k = 0; k < kWidth<double>; ++k) v[k] = __builtin_exp(v[k]);
  return v;
}

// exp(v) - 1 with all its digits near 0.
inline Vec<float> exp_minus_1(Vec<float> v) {
  Vec<float> scale, p;
  split_exponential(v, scale, p);
  return v == v ? scale * p + (scale - 1.0f) : v;
}
inline Vec<double> exp_minus_1(Vec<double> v) {
  for (int k = 0; k < kWidth<double>; ++k) v[k] = __builtin_expm1(v[k]);
  return v;
}

// 1 / v, to the last bit or the one before it.
template <class T>
inline Vec<T> reciprocal(Vec<T> v) {
  return T(1) / v;
}
#if defined(__AVX512F__)
// Dividing is what a gate would wait for longest: an estimate of 14 bits, and one of Newton's
// steps.
template <>
inline Vec<float> reciprocal<float>(Vec<float> v) {
  const __m512 x = reinterpret_cast<__m512>(v), r = _mm512_rcp14_ps(x);
  return reinterpret_cast<Vec<float>>(
      _mm512_fmadd_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1)), r));
}
#endif

template <class T>
inline Vec<T> sigmoid(Vec<T> v) {
  return reciprocal<T>(exponential(-v) + T(1));
}

// log(1 + exp(v)).
inline Vec<float> softplus(Vec<float> v) {
  const Vec<float> zero{};
  const Vec<float> positive = v > zero ? v : zero;
  const Vec<float> u = exponential(v - 2.0f * positive);  // exp(-|v|)
  const Vec<float> s = u / (u + 2.0f), q = s * s;  // log(1 + u) = 2 artanh(s)
  Vec<float> p = q * (1.0f / 15) + 1.0f / 13;
  p = p * q + 1.0f / 11;
  p = p * q + 1.0f / 9;
  p = p * q + 1.0f / 7;
  p = p * q + 1.0f / 5;
  p = p * q + 1.0f / 3;
  return positive + 2.0f * s * (p * q + 1.0f);
}
inline Vec<double> softplus(Vec<double> v) {
  for (int k = 0; k < kWidth<double>; ++k) {
    v[k] = (v[k] > 0 ? v[k] : 0) + __builtin_log1p(__builtin_exp(v[k] > 0 ? -v[k] : v[k]));
  }
  return v;
}

// sums[r][c] = the sum over i of x[r][i] * w[i][c], in the order of i whatever R: a row of the
// product has the same bits however many are computed with it. x is wide, its rows x_step apart and
// their entries x_next; `lanes` columns exist.
template <int R, bool Whole, class X>
inline void tile(const Wide<X>* x, int64_t x_step, const X* w, int64_t w_step, int64_t count,
                 int64_t lanes, Vec<Wide<X>> (*sums)[kColumns], int64_t x_next = 1) {
  using T = Wide<X>;
  Vec<T> sum[R][kColumns] = {};
  for (int64_t i = 0; i < count; ++i, w += w_step, x += x_next) {
    Vec<T> column[kColumns];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      column[c] = load(w + c * kWidth<T>, Whole ? kWidth<T> : lanes - c * kWidth<T>);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) sum[r][c] += column[c] * x[r * x_step];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < kColumns; ++c) sums[r][c] = sum[r][c];
  }
}

// The same for one row and more columns.
template <class X>
inline void wide_tile(const Wide<X>* x, const X* w, int64_t w_step, int64_t count,
                      Vec<Wide<X>>* sums) {
  using T = Wide<X>;
  Vec<T> sum[kWideColumns] = {};
  for (int64_t i = 0; i < count; ++i, w += w_step) {
#pragma GCC unroll 16
    for (int c = 0; c < kWideColumns; ++c) sum[c] += load(w + c * kWidth<T>, kWidth<T>) * x[i];
  }
  for (int c = 0; c < kWideColumns; ++c) sums[c] = sum[c];
}

template <int R>
struct Count {
  static constexpr int value = R;
};

// Call fn(Count<rows>), rows being one of 1..Most, so that loops over rows unroll.
template <int Most, class Fn>
inline void for_count(int rows, const Fn& fn) {
  if constexpr (Most == 1) {
    fn(Count<1>{});
  } else if (rows == Most) {
    fn(Count<Most>{});
  } else {
    for_count<Most - 1>(rows, fn);
  }
}

template <class X>
inline void tiles(int rows, const Wide<X>* x, int64_t x_step, const X* w, int64_t w_step,
                  int64_t count, int64_t lanes, Vec<Wide<X>> (*sums)[kColumns],
                  int64_t x_next = 1) {
  const bool whole = lanes >= kLanes<Wide<X>>;
  for_count<kRows>(rows, [&](auto r) {
    if (whole) {
      tile<decltype(r)::value, true, X>(x, x_step, w, w_step, count, lanes, sums, x_next);
    } else {
      tile<decltype(r)::value, false, X>(x, x_step, w, w_step, count, lanes, sums, x_next);
    }
  });
}
