// What training does between products: gradients of norms and gates, and the loss of logits.

// Of blocks of rows [first, last), with dy of type Y.
template <class X, class Y>
inline void norm_gradient_of(const NormGradient& n, int64_t first, int64_t last) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  const int64_t width = n.width;
  const X* weight = static_cast<const X*>(n.weight);
  for (int64_t block = first; block < last; ++block) {
    T* dweight = static_cast<T*>(n.blocks) + block * width;
    for (int64_t c = 0; c < width; ++c) dweight[c] = 0;
    const int64_t end = lesser((block + 1) * kNormRows, n.rows);
    for (int64_t row = block * kNormRows; row < end; ++row) {
      const X* x = static_cast<const X*>(n.x) + row * width;
      const Y* dy = static_cast<const Y*>(n.dy) + row * width;
      // y = x s (1 + w), s = (mean of squares + eps)^(-1/2), ds/dx = -s^3 x / width.
      Vec<T> squares[kColumns] = {}, dots[kColumns] = {};
      for (int64_t c = 0; c < width; c += W * kColumns) {
        for (int k = 0; k < kColumns; ++k) {
          const int64_t at = c + k * W, count = width - at;
          if (count <= 0) break;
          const Vec<T> value = load(x + at, count);
          squares[k] += value * value;
          dots[k] += load(dy + at, count) * (load(weight + at, count) + T(1)) * value;
        }
      }
      for (int k = 1; k < kColumns; ++k) squares[0] += squares[k], dots[0] += dots[k];
      const T mean = sum_of<T>(squares[0]) / static_cast<T>(width);
      const T scale =
          T(1) / static_cast<T>(__builtin_sqrt(static_cast<double>(mean + static_cast<T>(n.eps))));
      const T back = scale * scale * scale / static_cast<T>(width) * sum_of<T>(dots[0]);
      X* dx = static_cast<X*>(n.dx) + row * width;
      for (int64_t c = 0; c < width; c += W) {
        const int64_t count = width - c;
        const Vec<T> value = load(x + c, count), slope = load(dy + c, count) * scale;
        Vec<T> out = slope * (load(weight + c, count) + T(1)) - value * back;
        if (n.dsum) out += load(static_cast<const X*>(n.dsum) + row * width + c, count);
        store(dx + c, out, count);
        if constexpr (__is_same(X, float)) {
          if (n.half_dx) store(static_cast<Bf16*>(n.half_dx) + row * width + c, out, count);
        }
        store(dweight + c, load(dweight + c, count) + slope * value, count);
      }
    }
  }
}

template <class X>
inline void norm_gradient(const NormGradient& n, int64_t first, int64_t last) {
  if constexpr (__is_same(X, float)) {
    if (n.half_dy) return norm_gradient_of<X, Bf16>(n, first, last);
  }
  norm_gradient_of<X, X>(n, first, last);
}

template <class X>
inline void gated_gradient(const GatedGradient& g, int64_t first, int64_t last) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  const X *gate = static_cast<const X*>(g.gate), *x = static_cast<const X*>(g.x);
  const X* dy = static_cast<const X*>(g.dy);
  const int64_t end = lesser(last * kRun, g.count);
  for (int64_t c = first * kRun; c < end; c += W) {
    const int64_t count = end - c;
    const Vec<T> z = load(gate + c, count), value = load(x + c, count), slope = load(dy + c, count);
    const Vec<T> s = gelu_slope<T>(z), gelu = z * s;
    // d(2 u)/dz = 1.5957691 (1 + 3 * 0.044715 z^2)
    const Vec<T> inner = (z * z * T(0.134145) + T(1)) * T(1.5957691216057308);
    store(static_cast<X*>(g.dgate) + c, slope * value * (s + gelu * (T(1) - s) * inner), count);
    store(static_cast<X*>(g.dx) + c, slope * gelu, count);
    if (g.y) store(static_cast<X*>(g.y) + c, gelu * value, count);
  }
}

inline void add_to_sums(const Softmax& s, const float* logits, int64_t row) {
  constexpr int W = kWidth<float>;
  const int64_t columns = s.columns, whole = columns / W * W;
  Vec<float> highest = all(logits[0]);
  for (int64_t c = 0; c < whole; c += W) {
    const Vec<float> v = load(logits + c, W);
    highest = v > highest ? v : highest;
  }
  float most = logits[0];
  for (int k = 0; k < W; ++k) most = highest[k] > most ? highest[k] : most;
  for (int64_t c = whole; c < columns; ++c) most = logits[c] > most ? logits[c] : most;
  Vec<float> sums{};
  for (int64_t c = 0; c < whole; c += W) sums += exponential(load(logits + c, W) - most);
  double sum = static_cast<double>(sum_of<float>(sums));
  if (whole < columns) {
    const Vec<float> left = exponential(load(logits + whole, columns - whole) - most);
    for (int64_t c = whole; c < columns; ++c) sum += static_cast<double>(left[c - whole]);
  }
  const double here = static_cast<double>(most) + __builtin_log(sum);
  const double before = static_cast<double>(s.total[row]);
  const double high = here > before ? here : before, low = here > before ? before : here;
  s.total[row] = static_cast<float>(high + __builtin_log1p(__builtin_exp(low - high)));
  const int64_t target = s.target[row];
  if (target >= 0 && target < columns) s.right[row] += logits[target];
}

inline void softmax(const Softmax& s, int64_t first, int64_t last) {
  constexpr int W = kWidth<float>;
  for (int64_t row = first; row < last; ++row) {
    float* logits = s.logits + row * s.columns;
    if (s.sums) {
      add_to_sums(s, logits, row);
      continue;
    }
    const float total = s.total[row], factor = s.factor;
    const int64_t target = s.target[row];
    const bool inside = target >= 0 && target < s.columns;
    const float logit = inside ? logits[target] : 0;
    for (int64_t c = 0; c < s.columns; c += W) {
      const int64_t count = s.columns - c;
      const Vec<float> v = load(logits + c, count);
      Vec<float> slope = exponential(v - total) * factor;
      if (s.cap > 0) slope *= 1.0f - v / s.cap * (v / s.cap);
      store(logits + c, slope, count);
    }
    if (inside) {
      const float part = s.cap > 0 ? logit / s.cap : 0;
      logits[target] -= factor * (1.0f - part * part);
    }
  }
}
