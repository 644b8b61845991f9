// The gradient of local attention. Weights are formed again block by block of keys, as in
// FlashAttention (arXiv:2205.14135): w = exp(q k - lse), dv = w^T dy, dw = dy v^T,
// ds = w (dw - sum of dy y), dq = ds k, dk = ds^T q. The products of what is given, q k and dy v,
// are formed as the forward forms its scores; the others have wide factors.

// out[r][c] += the sum over i < count of x[r * x_step + i * x_next] * w[i][c].
template <class T>
inline void add_product(int64_t rows, const T* x, int64_t x_step, int64_t x_next, const T* w,
                        int64_t w_step, int64_t count, int64_t width, T* out, int64_t out_step) {
  constexpr int W = kWidth<T>;
  for (int64_t row = 0; row < rows; row += kRows) {
    const int some = static_cast<int>(lesser(rows - row, kRows));
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      const int64_t lanes = lesser(width - c, kLanes<T>);
      Vec<T> sums[kRows][kColumns];
      tiles<T>(some, x + row * x_step, x_step, w + c, w_step, count, lanes, sums, x_next);
      for (int r = 0; r < some; ++r) {
        T* to = out + (row + r) * out_step + c;
        for (int d = 0; d < kColumns && d * W < lanes; ++d) {
          store(to + d * W, load(to + d * W, lanes - d * W) + sums[r][d], lanes - d * W);
        }
      }
    }
  }
}

// What one thread needs for a unit: its queries, and a block of keys at a time.
template <class How>
struct Workplace {
  using T = Wide<typename How::Value>;
  T *q, *dy, *dq, *lse, *delta;         // (rows, H) and (rows,)
  T* k;                                 // (kKeys, H)
  T *scores, *changes;                  // (together, kKeys)
  uint8_t *queries, *dys, *keys, *values;  // as the layout has them

  Workplace(int64_t rows, int64_t together, int64_t width) {
    const auto size = [](int64_t count) {
      return (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    };
    const int64_t wide = size(rows * width), laid = rows * How::query_bytes(width);
    const int64_t again = How::kWide ? 0 : wide;  // queries that are laid out wide serve for both
    const int64_t bytes[] = {again, again, wide, size(rows), size(rows), size(kKeys * width),
                             size(together * kKeys), size(together * kKeys), laid, laid,
                             How::key_bytes(width), How::key_bytes(width)};
    T** const numbers[] = {&q, &dy, &dq, &lse, &delta, &k, &scores, &changes};
    uint8_t** const others[] = {&queries, &dys, &keys, &values};
    int64_t total = 0;
    for (const int64_t some : bytes) total += (some + 63) / 64 * 64;
    uint8_t* at = scratch().get(total);
    for (int n = 0; n < 12; at += (bytes[n++] + 63) / 64 * 64) {
      if (n < 8) *numbers[n] = reinterpret_cast<T*>(at);
      else *others[n - 8] = at;
    }
    if (How::kWide) {
      q = reinterpret_cast<T*>(queries);
      dy = reinterpret_cast<T*>(dys);
    }
  }
};

template <class X>
inline void widen_row(const X* from, Wide<X>* to, int64_t count) {
  constexpr int W = kWidth<Wide<X>>;
  for (int64_t c = 0; c < count; c += W) store(to + c, load(from + c, count - c), count - c);
}

// Scores and what reaches the weights become the weights and what reaches the scores, for one query
// and the keys first..last-1 of a block, of which it sees from..to-1.
template <class T>
inline void turn(const AttentionGradient& n, T* scores, T* changes, T lse, T delta, int64_t first,
                 int64_t last, int64_t from, int64_t to) {
  constexpr int W = kWidth<T>;
  const T scale = T(1) / static_cast<T>(__builtin_sqrt(static_cast<double>(n.width)));
  for (int64_t s = first / W * W; s < last; s += W) {
    const Vec<T> weight = exponential(load(scores + s, W) * scale - lse);
    const Vec<T> change = weight * (load(changes + s, W) - delta) * scale;
    store(scores + s, weight, W);
    store(changes + s, change, W);
  }
  for (int64_t s = first; s < from; ++s) scores[s] = changes[s] = 0;
  for (int64_t s = to; s < last; ++s) scores[s] = changes[s] = 0;
}

// The queries of a unit: widened, and of each the sum of dy y.
template <class How>
inline void gather_queries(const AttentionGradient& n, const AttentionUnit& u,
                           const Workplace<How>& at) {
  using X = typename How::Value;
  using T = Wide<X>;
  const Segment& s = n.segments[u.segment];
  const int64_t group = n.heads / n.kv_heads;
  for (int64_t r = 0; r < u.steps * group; ++r) {
    const int64_t token = s.row * n.steps + s.step + u.begin + r / group;
    const int64_t query = token * n.heads + u.head * group + r % group;
    const X* q = static_cast<const X*>(n.q) + query * n.width;
    const X* y = static_cast<const X*>(n.y) + query * n.width;
    const X* given = static_cast<const X*>(n.dy) + query * n.width;
    T* dy = at.dy + r * n.width;
    if (!How::kWide) {
      widen_row(q, at.q + r * n.width, n.width);
      widen_row(given, dy, n.width);
    }
    How::query(q, n.width, at.queries + r * How::query_bytes(n.width));
    How::query(given, n.width, at.dys + r * How::query_bytes(n.width));
    Vec<T> sum{};
    for (int64_t c = 0; c < n.width; c += kWidth<T>) {
      sum += load(dy + c, n.width - c) * load(y + c, n.width - c);
    }
    at.delta[r] = sum_of<T>(sum);
    at.lse[r] = static_cast<const T*>(n.lse)[query];
  }
}

template <class How>
inline void units(const AttentionGradient& n, int64_t first, int64_t last) {
  using X = typename How::Value;
  using T = Wide<X>;
  const int64_t group = n.heads / n.kv_heads, width = n.width;
  const Workplace<How> at(n.chunk * group, n.together * group, width);
  for (int64_t piece = first; piece < last; ++piece) {
    const AttentionUnit& u = n.units[piece];
    const Segment& s = n.segments[u.segment];
    gather_queries<How>(n, u, at);
    const uint64_t query_bytes = sizeof(T) * static_cast<uint64_t>(u.steps * group * width);
    __builtin_memset(at.dq, 0, query_bytes);
    for (int64_t number = 0; number < u.blocks; ++number) {
      const Block<X> block(n, s, u.head, u.oldest + number - s.oldest / kKeys);
      How::keys(block.k, block.first, block.last, width, at.keys);
      How::keys(block.v, block.first, block.last, width, at.values);
      for (int64_t k = block.first; k < block.last; ++k) {
        widen_row(block.k[k], at.k + k * width, width);
      }
      T* dk = reinterpret_cast<T*>(n.memory) + (u.blocks_before + number) * 2 * kKeys * width;
      T* dv = dk + kKeys * width;
      __builtin_memset(dk, 0, sizeof(T) * static_cast<uint64_t>(2 * kKeys * width));
      for (int64_t begin = 0; begin < u.steps; begin += n.together) {
        const int64_t steps = lesser(n.together, u.steps - begin), rows = steps * group;
        const int64_t position = s.position + u.begin + begin - block.begin;
        const int64_t from = greater(position - n.slots, block.first);
        const int64_t to = lesser(position + steps, block.last);
        if (from >= to) continue;
        const T *q = at.q + begin * group * width, *dy = at.dy + begin * group * width;
        const int64_t laid = begin * group * How::query_bytes(width);
        How::score(rows, at.queries + laid, at.keys, width, from, to, at.scores, kKeys);
        How::score(rows, at.dys + laid, at.values, width, from, to, at.changes, kKeys);
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t where = position + r / group;
          turn(n, at.scores + r * kKeys, at.changes + r * kKeys, at.lse[begin * group + r],
               at.delta[begin * group + r], from, to,
               lesser(greater(where - n.slots, from), to),
               greater(lesser(where + 1, to), from));
        }
        add_product(rows, at.changes + from, kKeys, 1, at.k + from * width, width, to - from,
                    width, at.dq + begin * group * width, width);
        // Where nobody asks for the gradient of the ring, that of the new keys alone.
        const int64_t wanted = n.dring_k ? from : greater(from, s.position - block.begin);
        if (wanted >= to) continue;
        add_product(to - wanted, at.scores + wanted, 1, kKeys, dy, width, rows, width,
                    dv + wanted * width, width);
        add_product(to - wanted, at.changes + wanted, 1, kKeys, q, width, rows, width,
                    dk + wanted * width, width);
      }
    }
    for (int64_t r = 0; r < u.steps * group; ++r) {
      const int64_t token = s.row * n.steps + s.step + u.begin + r / group;
      X* dq = static_cast<X*>(n.dq) + (token * n.heads + u.head * group + r % group) * width;
      for (int64_t c = 0; c < width; c += kWidth<T>) {
        store(dq + c, load(at.dq + r * width + c, width - c), width - c);
      }
    }
  }
}

inline void attention_gradient(const AttentionGradient& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto how) { units<decltype(how)>(n, first, last); });
}

// Add what the units of a wave give to their keys, one unit after the other.
template <class T>
inline void attention_gradient_sums(const AttentionGradient& n, int64_t first, int64_t last) {
  for (int64_t piece = 0; piece < n.unit_count; ++piece) {
    const AttentionUnit& u = n.units[piece];
    const Segment& s = n.segments[u.segment];
    for (int64_t number = 0; number < u.blocks; ++number) {
      const int64_t before = u.blocks_before + number;
      const T* dk = reinterpret_cast<const T*>(n.memory) + before * 2 * kKeys * n.width;
      const int64_t begin = (u.oldest + number) * kKeys;
      const int64_t end = lesser(last * kSlice, s.position + s.count - begin);
      for (int64_t k = greater(first * kSlice, s.oldest - begin); k < end; ++k) {
        const int64_t position = begin + k;
        const bool fresh = position >= s.position;
        if (!fresh && !n.dring_k) continue;
        const int64_t row = fresh ? s.row * n.steps + s.step + position - s.position
                                  : s.row * n.slots + position % n.slots;
        const int64_t offset = (row * n.kv_heads + u.head) * n.width;
        join(static_cast<T*>(fresh ? n.dk : n.dring_k) + offset, dk + k * n.width, n.width);
        join(static_cast<T*>(fresh ? n.dv : n.dring_v) + offset, dk + (kKeys + k) * n.width,
             n.width);
      }
    }
  }
}
