// One new token's attention over the ring. A piece is kSlots slots of one key head: scores of all its query
// heads, their largest, and the values weighted relative to it; `attention_end` joins the pieces in order,
// so that the number of threads changes nothing.

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

// Scores of R queries, `q_step` apart, with `count` keys; each is summed alike whatever R.
template <int R, bool Whole, class X>
inline void dots(const Wide<X>* q, int64_t q_step, const X* k, int64_t k_step, int64_t count, int64_t width,
                 Wide<X>* scores) {
  using T = Wide<X>;
  for (int64_t s = 0; s < count; ++s, k += k_step) {
    Vec<T> sums[R] = {};
    for (int64_t c = 0; c < width; c += kWidth<T>) {
      const int64_t n = Whole ? kWidth<T> : width - c;
      const Vec<T> key = load(k + c, n);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) sums[r] += load(q + r * q_step + c, n) * key;
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) scores[r * kSlots + s] = sum_of<T>(sums[r]);
  }
}

// A piece of consecutive keys and values, rows `step` apart, some of which are seen.
template <class X>
inline void attend(const Attention& n, const X* q, const X* k, const X* v, int64_t step, const bool* seen,
                   int64_t count, Wide<X>* out) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  const int64_t group = n.heads / n.kv_heads;
  const T scale = T(1) / static_cast<T>(__builtin_sqrt(static_cast<double>(n.width)));
  T wide[kRows * kLargestHead];
  T scores[kMostQueries * kSlots];
  for (int64_t query = 0; query < group; query += kRows) {
    const int64_t rows = group - query < kRows ? group - query : kRows;
    for (int64_t c = 0; c < rows * n.width; ++c) wide[c] = widen(q[query * n.width + c]) * scale;
    // Also of slots that are not seen, whose scores are then left out: most calls have none.
    for_count<kRows>(static_cast<int>(rows), [&](auto r) {
      if (n.width % W == 0) {
        dots<decltype(r)::value, true, X>(wide, n.width, k, step, count, n.width, scores + query * kSlots);
      } else {
        dots<decltype(r)::value, false, X>(wide, n.width, k, step, count, n.width, scores + query * kSlots);
      }
    });
  }
  for (int64_t query = 0; query < group; ++query) {
    T* score = scores + query * kSlots;
    T most = -__builtin_inff(), total = 0;
    for (int64_t s = 0; s < count; ++s) {
      if (seen[s] && !(score[s] <= most)) most = score[s];
    }
    for (int64_t s = 0; s < count; ++s) score[s] = seen[s] ? score[s] - most : T(-1000);
    for (int64_t s = 0; s < count; s += W) store(score + s, exponential(load(score + s, count - s)), count - s);
    for (int64_t s = 0; s < count; ++s) {
      if (!seen[s]) score[s] = 0;
      total += score[s];
    }
    T* mine = out + query * (n.width + 2);
    mine[0] = most;
    mine[1] = total;
  }
  for (int64_t c = 0; c < n.width; c += kLanes<T>) {
    const int64_t lanes = n.width - c < kLanes<T> ? n.width - c : kLanes<T>;
    for (int64_t query = 0; query < group; query += kRows) {
      const int rows = static_cast<int>(group - query < kRows ? group - query : kRows);
      Vec<T> sums[kRows][kColumns];
      tiles<X>(rows, scores + query * kSlots, kSlots, v + c, step, count, lanes, sums);
      for (int r = 0; r < rows; ++r) {
        T* to = out + (query + r) * (n.width + 2) + 2 + c;
        for (int d = 0; d < kColumns; ++d) store(to + d * W, sums[r][d], lanes - d * W);
      }
    }
  }
}

template <class X>
inline void attention(const Attention& n, int64_t first, int64_t last) {
  using T = Wide<X>;
  const int64_t pieces = (n.slots + kSlots - 1) / kSlots, group = n.heads / n.kv_heads;
  const int64_t size = group * (n.width + 2);
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t row = piece / (n.kv_heads * (pieces + 1)), head = piece / (pieces + 1) % n.kv_heads;
    const int64_t part = piece % (pieces + 1);
    const X* q = static_cast<const X*>(n.q) + (row * n.heads + head * group) * n.width;
    T* out = static_cast<T*>(n.partial) + piece * size;
    bool seen[kSlots];
    if (part == pieces) {  // the token itself
      seen[0] = true;
      const int64_t own = (row * n.kv_heads + head) * n.width;
      attend<X>(n, q, static_cast<const X*>(n.k) + own, static_cast<const X*>(n.v) + own, n.width, seen, 1, out);
      continue;
    }
    const int64_t slot = part * kSlots, count = n.slots - slot < kSlots ? n.slots - slot : kSlots;
    const bool own = n.segment[row] == 0 && !n.pad[row];
    bool any = false;
    for (int64_t s = 0; s < count; ++s) {
      const int64_t held = n.held[row * n.slots + slot + s];
      seen[s] = own && held >= 0 && held >= n.position[row] - n.slots;
      any = any || seen[s];
    }
    if (!any) {
      for (int64_t query = 0; query < group; ++query) out[query * (n.width + 2) + 1] = 0;
      continue;
    }
    const int64_t at = ((row * n.slots + slot) * n.kv_heads + head) * n.width;
    attend<X>(n, q, static_cast<const X*>(n.ring_k) + at, static_cast<const X*>(n.ring_v) + at,
              n.kv_heads * n.width, seen, count, out);
  }
}

template <class X>
inline void attention_end(const Attention& n, int64_t first, int64_t last) {
  using T = Wide<X>;
  const int64_t pieces = (n.slots + kSlots - 1) / kSlots + 1, group = n.heads / n.kv_heads;
  const int64_t step = n.width + 2;
  for (int64_t piece = first; piece < last; ++piece) {
    const T* parts = static_cast<const T*>(n.partial) + piece * pieces * group * step;
    for (int64_t query = 0; query < group; ++query) {
      T most = -__builtin_inff(), total = 0;
      for (int64_t k = 0; k < pieces; ++k) {
        const T* part = parts + (k * group + query) * step;
        if (part[1] > 0 && part[0] > most) most = part[0];
        if (!(part[1] >= 0)) most = part[1];  // NaN
      }
      T sum[kLargestHead] = {};
      for (int64_t k = 0; k < pieces; ++k) {
        const T* part = parts + (k * group + query) * step;
        if (part[1] == 0) continue;
        const T weight = static_cast<T>(__builtin_exp(static_cast<double>(part[0] - most)));
        total += part[1] * weight;
        for (int64_t c = 0; c < n.width; ++c) sum[c] += part[2 + c] * weight;
      }
      X* y = static_cast<X*>(n.y) + (piece * group + query) * n.width;
      for (int64_t c = 0; c < n.width; c += kWidth<T>) {
        store(y + c, load(sum + c, n.width - c) / total, n.width - c);
      }
    }
  }
}
