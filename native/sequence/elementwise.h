// Norms, gates and rotations: one pass over memory each.

template <class T>
inline T sum_of(Vec<T> v) {
  T total = 0;
  for (int k = 0; k < kWidth<T>; ++k) total += v[k];
  return total;
}
#if defined(__AVX512F__)
template <>
inline float sum_of<float>(Vec<float> v) {
  return _mm512_reduce_add_ps(reinterpret_cast<__m512>(v));
}
#endif

// Of rows [first, last), with `add` of type A and y of type Y.
template <class X, class A, class Y>
inline void norm_of(const Norm& n, int64_t first, int64_t last) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  const X* weight = static_cast<const X*>(n.weight);
  for (int64_t row = first; row < last; ++row) {
    const X* x = static_cast<const X*>(n.x) + row * n.width;
    if (n.add) {
      const A* add = static_cast<const A*>(n.add) + row * n.width;
      X* sum = static_cast<X*>(n.sum) + row * n.width;
      for (int64_t c = 0; c < n.width; c += W) {
        store(sum + c, load(x + c, n.width - c) + load(add + c, n.width - c), n.width - c);
      }
      x = sum;
    }
    Vec<T> squares[kColumns] = {};
    for (int64_t c = 0; c < n.width; c += W * kColumns) {
      for (int k = 0; k < kColumns; ++k) {
        const int64_t at = c + k * W;
        if (at >= n.width) break;
        const Vec<T> value = load(x + at, n.width - at);
        squares[k] += value * value;
      }
    }
    Vec<T> total{};
    for (int k = 0; k < kColumns; ++k) total += squares[k];
    const T mean = sum_of<T>(total) / static_cast<T>(n.width);
    const T scale =
        T(1) / static_cast<T>(__builtin_sqrt(static_cast<double>(mean + static_cast<T>(n.eps))));
    Y* y = static_cast<Y*>(n.y) + row * n.width;
    for (int64_t c = 0; c < n.width; c += W) {
      const int64_t count = n.width - c;
      store(y + c, load(x + c, count) * scale * (load(weight + c, count) + T(1)), count);
    }
  }
}

template <class X>
inline void norm(const Norm& n, int64_t first, int64_t last) {
  if constexpr (__is_same(X, float)) {
    if (n.half_add && n.half_y) return norm_of<X, Bf16, Bf16>(n, first, last);
    if (n.half_add) return norm_of<X, Bf16, X>(n, first, last);
    if (n.half_y) return norm_of<X, X, Bf16>(n, first, last);
  }
  norm_of<X, X, X>(n, first, last);
}

// gelu(z) = z/2 (1 + tanh u) = z sigmoid(2 u), u = sqrt(2 / pi) (z + 0.044715 z^3): sigmoid(2 u).
template <class T>
inline Vec<T> gelu_slope(Vec<T> z) {
  return sigmoid<T>((z + z * z * z * T(0.044715)) * T(1.5957691216057308));
}

template <class X>
inline void gated(const Gated& g, int64_t first, int64_t last) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  const X *gate = static_cast<const X*>(g.gate), *x = static_cast<const X*>(g.x);
  const int64_t end = last * kRun < g.count ? last * kRun : g.count;
  for (int64_t c = first * kRun; c < end; c += W) {
    const Vec<T> z = load(gate + c, end - c);
    store(static_cast<X*>(g.y) + c, z * gelu_slope<T>(z) * load(x + c, end - c), end - c);
  }
}

template <class X>
inline void rope(const Rope& r, int64_t first, int64_t last) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  for (int64_t token = first; token < last; ++token) {
    const T* cos = static_cast<const T*>(r.cos) + token * r.half;
    const T* sin = static_cast<const T*>(r.sin) + token * r.half;
    for (int64_t head = 0; head < r.heads; ++head) {
      X* x = static_cast<X*>(r.x) + (token * r.heads + head) * r.width;
      for (int64_t c = 0; c < r.half; c += W) {
        const int64_t count = r.half - c;
        const Vec<T> a = load(x + c, count), b = load(x + r.half + c, count);
        const Vec<T> co = load(cos + c, count), si = load(sin + c, count);
        store(x + c, a * co - b * si, count);
        store(x + r.half + c, b * co + a * si, count);
      }
    }
  }
}

inline void soft_cap(const SoftCap& s, int64_t first, int64_t last) {
  constexpr int W = kWidth<float>;
  const int64_t end = last * kRun < s.count ? last * kRun : s.count;
  for (int64_t c = first * kRun; c < end; c += W) {
    const Vec<float> e = exp_minus_1(load(s.x + c, end - c) * (2.0f / s.cap));
    store(s.x + c, e / (e + 2.0f) * s.cap, end - c);  // tanh(v) = (exp(2v) - 1) / (exp(2v) + 1)
  }
}
