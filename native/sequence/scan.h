// The linear scan and its gradient: one pass over memory each, channels side by side.

// Pieces first..last-1 as runs of channels within one row: fn(row, first channel, channels).
template <class Fn>
inline void for_runs(int64_t first, int64_t last, int64_t width, int64_t lanes, const Fn& fn) {
  const int64_t chunks = (width + lanes - 1) / lanes;
  while (first < last) {
    const int64_t row = first / chunks, chunk = first % chunks;
    const int64_t count = last - first < chunks - chunk ? last - first : chunks - chunk;
    const int64_t end = (chunk + count) * lanes < width ? (chunk + count) * lanes : width;
    fn(row, chunk * lanes, end - chunk * lanes);
    first += count;
  }
}

// One step of a run of channels: h = a * h + x, written to `to` and, if it is wanted in the wide
// type, to `every`. What the next step needs, `ahead` from here, is prefetched: a thread's channels
// are a short piece of a step, and the hardware does not know where the next one begins. Behind the
// last step that is wasted, but harmless.
template <class X>
inline void scan_step(const X* x, const X* a, Wide<X>* h, X* to, Wide<X>* every, int64_t count,
                      int64_t ahead) {
  constexpr int W = kWidth<Wide<X>>;
  const auto one = [&](int64_t c, int64_t left) {
    __builtin_prefetch(x + ahead + c);
    __builtin_prefetch(a + ahead + c);
    __builtin_prefetch(to + ahead + c, 1);
    const auto value = load(a + c, left) * load(h + c, left) + load(x + c, left);
    store(h + c, value, left);
    store(to + c, value, left);
    if (every) store(every + c, value, left);
  };
  const int64_t whole = count / W * W;
  for (int64_t c = 0; c < whole; c += W) one(c, W);
  if (whole < count) one(whole, count - whole);
}

template <class X>
inline void scan(const Scan& s, int64_t first, int64_t last) {
  using T = Wide<X>;
  for_runs(first, last, s.width, kLanes<float>, [&](int64_t row, int64_t at, int64_t count) {
    // The running value lives where the last one goes.
    T* h = static_cast<T*>(s.last) + row * s.width + at;
    __builtin_memcpy(h, static_cast<const T*>(s.h0) + row * s.width + at, sizeof(T) * count);
    for (int64_t t = 0; t < s.steps; ++t) {
      const int64_t from = (row * s.steps + t) * s.width + at;
      scan_step(static_cast<const X*>(s.x) + from, static_cast<const X*>(s.a) + from, h,
                static_cast<X*>(s.h) + from, s.every ? static_cast<T*>(s.every) + from : nullptr,
                count, s.width);
    }
  });
}

// One step back of a run of channels: what reaches h[t] goes to x, times the h before it to a,
// times a further back.
template <class X>
inline void scan_step_back(const X* a, const X* dh, const Wide<X>* before, Wide<X>* carry, X* dx,
                           X* da, int64_t count, int64_t ahead) {
  constexpr int W = kWidth<Wide<X>>;
  const auto one = [&](int64_t c, int64_t left) {
    __builtin_prefetch(a - ahead + c);
    __builtin_prefetch(dh - ahead + c);
    __builtin_prefetch(before - ahead + c);
    __builtin_prefetch(dx - ahead + c, 1);
    __builtin_prefetch(da - ahead + c, 1);
    const auto g = load(dh + c, left) + load(carry + c, left);
    store(dx + c, g, left);
    store(da + c, g * load(before + c, left), left);
    store(carry + c, g * load(a + c, left), left);
  };
  const int64_t whole = count / W * W;
  for (int64_t c = 0; c < whole; c += W) one(c, W);
  if (whole < count) one(whole, count - whole);
}

template <class X>
inline void scan_gradient(const ScanGradient& s, int64_t first, int64_t last) {
  using T = Wide<X>;
  for_runs(first, last, s.width, kLanes<float>, [&](int64_t row, int64_t at, int64_t count) {
    T* carry = static_cast<T*>(s.dh0) + row * s.width + at;  // what reaches h[t] from later steps
    __builtin_memcpy(carry, static_cast<const T*>(s.dlast) + row * s.width + at, sizeof(T) * count);
    for (int64_t t = s.steps - 1; t >= 0; --t) {
      const int64_t from = (row * s.steps + t) * s.width + at;
      const T* before = t ? static_cast<const T*>(s.every) + from - s.width
                          : static_cast<const T*>(s.h0) + row * s.width + at;
      scan_step_back(static_cast<const X*>(s.a) + from, static_cast<const X*>(s.dh) + from, before,
                     carry, static_cast<X*>(s.dx) + from, static_cast<X*>(s.da) + from, count,
                     s.width);
    }
  });
}
