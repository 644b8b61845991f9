// The depthwise convolution over the last few inputs, which come from this call and, before it, the
// cache.

// The input `back` places before step t of a row, null where the document does not reach. Pads
// stand between the cache and the first token.
template <class X>
inline const X* input(const Convolution& v, int64_t row, int64_t t, int64_t back, int64_t since,
                      int64_t pads) {
  if (back > since) return nullptr;
  const int64_t at = t - back;
  if (at >= pads) return static_cast<const X*>(v.x) + (row * v.steps + at) * v.width;
  const int64_t slot = v.taps - 1 + at - pads;
  if (slot < 0) return nullptr;
  return static_cast<const X*>(v.cache) + (row * (v.taps - 1) + slot) * v.width;
}

// Steps first..last-1 of one row.
template <class X>
inline void convolve(const Convolution& v, int64_t row, int64_t first, int64_t last) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  const int64_t reach = v.taps - 1;
  const X *weight = static_cast<const X*>(v.weight), *bias = static_cast<const X*>(v.bias);
  const int64_t* position = v.position + row * v.steps;
  int64_t pads = 0;
  while (pads < v.steps && position[pads] < 0) ++pads;
  // Places back that the document of step t goes, as far as a tap could ask.
  const auto since = [&](int64_t t) {
    int64_t back = 0;
    while (back < reach && (back > t || position[t - back] != 0)) ++back;
    return back;
  };
  for (int64_t c = 0; c < v.width; c += W) {
    const int64_t n = v.width - c;
    Vec<T> taps[kMostTaps] = {};
    for (int64_t back = 0; back <= reach; ++back) {
      for (int k = 0; k < W && k < n; ++k) {
        taps[back][k] = widen(weight[(c + k) * v.taps + reach - back]);
      }
    }
    const Vec<T> start = load(bias + c, n);
    for (int64_t t = first; t < last; ++t) {
      Vec<T> sum{};
      if (position[t] >= 0) {
        sum = start;
        const int64_t most = since(t);
        for (int64_t back = 0; back <= most; ++back) {
          const X* from = input<X>(v, row, t, back, most, pads);
          if (!from) break;
          sum += load(from + c, n) * taps[back];
        }
      }
      store(static_cast<X*>(v.y) + (row * v.steps + t) * v.width + c, sum, n);
    }
  }
  if (last < v.steps) return;
  // The last step leaves the next cache: its own input and those before it, or the old cache after
  // pads only.
  const int64_t most = since(last - 1);
  for (int64_t slot = 0; slot < reach; ++slot) {
    const X* from = input<X>(v, row, last - 1, reach - 1 - slot, most, pads);
    X* to = static_cast<X*>(v.left) + (row * reach + slot) * v.width;
    for (int64_t c = 0; c < v.width; ++c) to[c] = from ? from[c] : X{};
  }
}

template <class X>
inline void convolution(const Convolution& v, int64_t first, int64_t last) {
  while (first < last) {
    const int64_t row = first / v.steps;
    const int64_t end = (row + 1) * v.steps < last ? (row + 1) * v.steps : last;
    convolve<X>(v, row, first - row * v.steps, end - row * v.steps);
    first = end;
  }
}
