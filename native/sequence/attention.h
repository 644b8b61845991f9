// Local attention. A block is kKeys positions of one key head: its keys are laid out so that a vector holds the
// same input of neighbouring keys, its values so that a vector holds neighbouring columns. A score, a weight and
// a weighted sum over a block depend on positions alone, and blocks are added in order.

// How blocks lie and are multiplied: in float32 (or float64) for every instruction set.
template <class X>
struct Plain {
  using T = Wide<X>;

  static int64_t key_bytes(int64_t width) { return kKeys * width * static_cast<int64_t>(sizeof(T)); }
  static int64_t value_bytes(int64_t width) { return kKeys * width * static_cast<int64_t>(sizeof(X)); }
  static int64_t query_bytes(int64_t width) { return width * static_cast<int64_t>(sizeof(T)); }

  // Keys first..last-1 of the block; zeros stand for the others.
  static void keys(const X* const* from, int64_t first, int64_t last, int64_t width, void* to) {
    T* out = static_cast<T*>(to);
    for (int64_t c = 0; c < width; ++c) {
      for (int64_t s = 0; s < kKeys; ++s) out[c * kKeys + s] = s >= first && s < last ? widen(from[s][c]) : T(0);
    }
  }

  static void values(const X* const* from, int64_t first, int64_t last, int64_t width, void* to) {
    X* out = static_cast<X*>(to);
    for (int64_t s = first; s < last; ++s) {
      __builtin_memcpy(out + s * width, from[s], sizeof(X) * static_cast<uint64_t>(width));
    }
  }

  static void query(const X* from, int64_t width, void* to) {
    for (int64_t c = 0; c < width; ++c) static_cast<T*>(to)[c] = widen(from[c]);
  }

  // scores[r][s] of `rows` queries, query_bytes apart, with all keys of the block.
  static void score(int64_t rows, const void* queries, const void* keys, int64_t width, T* scores, int64_t step) {
    constexpr int W = kWidth<T>;
    const T *q = static_cast<const T*>(queries), *k = static_cast<const T*>(keys);
    for (int64_t row = 0; row < rows; row += kRows) {
      const int count = static_cast<int>(rows - row < kRows ? rows - row : kRows);
      for (int64_t s = 0; s < kKeys; s += kLanes<T>) {
        Vec<T> sums[kRows][kColumns];
        tiles<T>(count, q + row * width, width, k + s, kKeys, width, kLanes<T>, sums);
        for (int r = 0; r < count; ++r) {
          for (int c = 0; c < kColumns; ++c) store(scores + (row + r) * step + s + c * W, sums[r][c], W);
        }
      }
    }
  }

  static void prepare(T*, int64_t) {}

  // out[r] = the sum over keys first..last-1 of weights[r][s] times its value.
  static void weigh(int64_t rows, const T* weights, int64_t step, const void* values, int64_t first, int64_t last,
                    int64_t width, T* out) {
    constexpr int W = kWidth<T>;
    const X* v = static_cast<const X*>(values) + first * width;
    for (int64_t row = 0; row < rows; row += kRows) {
      const int count = static_cast<int>(rows - row < kRows ? rows - row : kRows);
      for (int64_t c = 0; c < width; c += kLanes<T>) {
        const int64_t lanes = width - c < kLanes<T> ? width - c : kLanes<T>;
        Vec<T> sums[kRows][kColumns];
        tiles<X>(count, weights + row * step + first, step, v + c, width, last - first, lanes, sums);
        for (int r = 0; r < count; ++r) {
          T* to = out + (row + r) * width + c;
          for (int d = 0; d < kColumns; ++d) store(to + d * W, sums[r][d], lanes - d * W);
        }
      }
    }
  }
};

#if defined(__AVX512BF16__)
// bfloat16 heads in pairs: a product of pairs is exact before it is summed, and weights are split into two
// bfloat16 numbers, which together keep 16 bits of them.
struct Pairs {
  using T = float;
  static constexpr int kTileRows = 12;  // by two vectors: 24 sums, and keys and weights read once for 10 heads

  static bool fits(int64_t width) { return width % 32 == 0; }
  static int64_t key_bytes(int64_t width) { return kKeys * width * 2; }
  static int64_t value_bytes(int64_t width) { return kKeys * width * 2; }
  static int64_t query_bytes(int64_t width) { return width * 2; }

  // 16 rows of 16 pairs become 16 pairs of 16 rows.
  static void transpose(__m512i (&r)[16]) {
    __m512i t[16];
    for (int k = 0; k < 8; ++k) {
      t[2 * k] = _mm512_unpacklo_epi32(r[2 * k], r[2 * k + 1]);
      t[2 * k + 1] = _mm512_unpackhi_epi32(r[2 * k], r[2 * k + 1]);
    }
    for (int k = 0; k < 4; ++k) {
      r[4 * k] = _mm512_unpacklo_epi64(t[4 * k], t[4 * k + 2]);
      r[4 * k + 1] = _mm512_unpackhi_epi64(t[4 * k], t[4 * k + 2]);
      r[4 * k + 2] = _mm512_unpacklo_epi64(t[4 * k + 1], t[4 * k + 3]);
      r[4 * k + 3] = _mm512_unpackhi_epi64(t[4 * k + 1], t[4 * k + 3]);
    }
    for (int k = 0; k < 4; ++k) {
      const __m512i a = _mm512_shuffle_i32x4(r[k], r[4 + k], 0x88), b = _mm512_shuffle_i32x4(r[k], r[4 + k], 0xdd);
      const __m512i c = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0x88);
      const __m512i d = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0xdd);
      t[k] = _mm512_shuffle_i32x4(a, c, 0x88);
      t[4 + k] = _mm512_shuffle_i32x4(b, d, 0x88);
      t[8 + k] = _mm512_shuffle_i32x4(a, c, 0xdd);
      t[12 + k] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    for (int k = 0; k < 16; ++k) r[k] = t[k];
  }

  static void keys(const Bf16* const* from, int64_t first, int64_t last, int64_t width, void* to) {
    uint32_t* out = static_cast<uint32_t*>(to);
    for (int64_t s = 0; s < kKeys; s += 16) {
      for (int64_t c = 0; c < width; c += 32) {
        __m512i rows[16];
        for (int k = 0; k < 16; ++k) {
          const bool there = s + k >= first && s + k < last;
          rows[k] = there ? _mm512_loadu_si512(from[s + k] + c) : _mm512_setzero_si512();
        }
        transpose(rows);
        for (int k = 0; k < 16; ++k) _mm512_storeu_si512(out + (c / 2 + k) * kKeys + s, rows[k]);
      }
    }
  }

  static void values(const Bf16* const* from, int64_t first, int64_t last, int64_t width, void* to) {
    alignas(64) uint16_t low[32], high[32];
    for (int k = 0; k < 16; ++k) {
      low[2 * k] = static_cast<uint16_t>(k);
      low[2 * k + 1] = static_cast<uint16_t>(32 + k);
      high[2 * k] = static_cast<uint16_t>(16 + k);
      high[2 * k + 1] = static_cast<uint16_t>(48 + k);
    }
    const __m512i first_half = _mm512_load_si512(low), second_half = _mm512_load_si512(high);
    uint32_t* out = static_cast<uint32_t*>(to);
    for (int64_t s = first & ~int64_t{1}; s < last; s += 2) {
      for (int64_t c = 0; c < width; c += 32) {
        const __m512i a = s >= first ? _mm512_loadu_si512(from[s] + c) : _mm512_setzero_si512();
        const __m512i b = s + 1 < last ? _mm512_loadu_si512(from[s + 1] + c) : _mm512_setzero_si512();
        uint32_t* at = out + s / 2 * width + c;
        _mm512_storeu_si512(at, _mm512_permutex2var_epi16(a, first_half, b));
        _mm512_storeu_si512(at + 16, _mm512_permutex2var_epi16(a, second_half, b));
      }
    }
  }

  static void query(const Bf16* from, int64_t width, void* to) {
    __builtin_memcpy(to, from, sizeof(Bf16) * static_cast<uint64_t>(width));
  }

  static __m512bh pair(const void* bytes) {  // the same pair for all 16 lanes
    int32_t bits;
    __builtin_memcpy(&bits, bytes, 4);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits));
  }

  static void score(int64_t rows, const void* queries, const void* keys, int64_t width, float* scores,
                    int64_t step) {
    for (int64_t row = 0; row < rows; row += kTileRows) {
      const Bf16* q = static_cast<const Bf16*>(queries) + row * width;
      for_count<kTileRows>(static_cast<int>(rows - row < kTileRows ? rows - row : kTileRows), [&](auto r) {
        constexpr int R = decltype(r)::value;
        for (int64_t s = 0; s < kKeys; s += 32) {
          const uint32_t* k = static_cast<const uint32_t*>(keys) + s;
          __m512 sums[R][2];
#pragma GCC unroll 12
          for (int n = 0; n < R; ++n) sums[n][0] = sums[n][1] = _mm512_setzero_ps();
          for (int64_t i = 0; i < width; i += 2, k += kKeys) {
            const __m512bh left = reinterpret_cast<__m512bh>(_mm512_loadu_si512(k));
            const __m512bh right = reinterpret_cast<__m512bh>(_mm512_loadu_si512(k + 16));
#pragma GCC unroll 12
            for (int n = 0; n < R; ++n) {
              const __m512bh x = pair(q + n * width + i);
              sums[n][0] = _mm512_dpbf16_ps(sums[n][0], left, x);
              sums[n][1] = _mm512_dpbf16_ps(sums[n][1], right, x);
            }
          }
#pragma GCC unroll 12
          for (int n = 0; n < R; ++n) {
            _mm512_storeu_ps(scores + (row + n) * step + s, sums[n][0]);
            _mm512_storeu_ps(scores + (row + n) * step + s + 16, sums[n][1]);
          }
        }
      });
    }
  }

  // Weights of a block, in place: 64 pairs of their leading 8 bits, then 64 pairs of what is left.
  static void prepare(float* weights, int64_t) {
    __m512i high[4], low[4];
    for (int k = 0; k < 4; ++k) {
      const __m512 a = _mm512_loadu_ps(weights + 32 * k), b = _mm512_loadu_ps(weights + 32 * k + 16);
      const __m512bh both = _mm512_cvtne2ps_pbh(b, a);
      high[k] = reinterpret_cast<__m512i>(both);
      const __m512i first = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(high[k])), 16);
      const __m512i second = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(high[k], 1)), 16);
      low[k] = reinterpret_cast<__m512i>(
          _mm512_cvtne2ps_pbh(b - _mm512_castsi512_ps(second), a - _mm512_castsi512_ps(first)));
    }
    for (int k = 0; k < 4; ++k) _mm512_storeu_si512(weights + 16 * k, high[k]);
    for (int k = 0; k < 4; ++k) _mm512_storeu_si512(weights + 64 + 16 * k, low[k]);
  }

  static void weigh(int64_t rows, const float* weights, int64_t step, const void* values, int64_t first,
                    int64_t last, int64_t width, float* out) {
    for (int64_t row = 0; row < rows; row += kTileRows) {
      for_count<kTileRows>(static_cast<int>(rows - row < kTileRows ? rows - row : kTileRows), [&](auto r) {
        constexpr int R = decltype(r)::value;
        const float* w = weights + row * step;
        for (int64_t c = 0; c < width; c += 32) {
          __m512 sums[R][2];
#pragma GCC unroll 12
          for (int n = 0; n < R; ++n) sums[n][0] = sums[n][1] = _mm512_setzero_ps();
          for (int64_t u = first / 2; u < (last + 1) / 2; ++u) {
            const uint32_t* v = static_cast<const uint32_t*>(values) + u * width + c;
            const __m512bh left = reinterpret_cast<__m512bh>(_mm512_loadu_si512(v));
            const __m512bh right = reinterpret_cast<__m512bh>(_mm512_loadu_si512(v + 16));
#pragma GCC unroll 12
            for (int n = 0; n < R; ++n) {
              const __m512bh high = pair(w + n * step + u), low = pair(w + n * step + 64 + u);
              sums[n][0] = _mm512_dpbf16_ps(sums[n][0], left, high);
              sums[n][1] = _mm512_dpbf16_ps(sums[n][1], right, high);
              sums[n][0] = _mm512_dpbf16_ps(sums[n][0], left, low);
              sums[n][1] = _mm512_dpbf16_ps(sums[n][1], right, low);
            }
          }
#pragma GCC unroll 12
          for (int n = 0; n < R; ++n) {
            _mm512_storeu_ps(out + (row + n) * width + c, sums[n][0]);
            _mm512_storeu_ps(out + (row + n) * width + c + 16, sums[n][1]);
          }
        }
      });
    }
  }
};
#endif

inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }

// The segment that holds block (or group) `at` of all, by the count of those before it.
inline const Segment& segment_of(const Attention& n, int64_t at, int64_t Segment::*before) {
  int64_t low = 0, high = n.segment_count;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    n.segments[middle].*before <= at ? low = middle : high = middle;
  }
  return n.segments[low];
}

// One block of one key head: where its keys and values lie, in the ring or among the new ones.
template <class X>
struct Block {
  int64_t begin, first, last;  // position of its first key; the keys that exist, counted from there
  const X *k[kKeys], *v[kKeys];

  Block(const Attention& n, const Segment& s, int64_t head, int64_t number) {
    begin = (s.oldest / kKeys + number) * kKeys;
    first = greater(s.oldest - begin, 0);
    last = lesser(s.position + s.count - begin, kKeys);
    for (int64_t at = first; at < last; ++at) {
      const int64_t position = begin + at;
      const bool fresh = position >= s.position;
      const int64_t row = fresh ? s.row * n.steps + s.step + position - s.position
                                : s.row * n.slots + position % n.slots;
      const int64_t offset = (row * n.kv_heads + head) * n.width;
      k[at] = static_cast<const X*>(fresh ? n.k : n.ring_k) + offset;
      v[at] = static_cast<const X*>(fresh ? n.v : n.ring_v) + offset;
    }
  }
};

// Scale scores, hide what the query at `position` does not see, and return the largest.
template <class T>
inline T limit(const Attention& n, T* scores, int64_t begin, int64_t position) {
  constexpr int W = kWidth<T>;
  const T scale = T(1) / static_cast<T>(__builtin_sqrt(static_cast<double>(n.width)));
  const T hidden = -__builtin_inff();
  const int64_t from = lesser(greater(position - n.slots - begin, 0), kKeys);
  const int64_t to = lesser(greater(position + 1 - begin, 0), kKeys);
  for (int64_t s = 0; s < from; ++s) scores[s] = hidden;
  for (int64_t s = to; s < kKeys; ++s) scores[s] = hidden;
  Vec<T> most = all(hidden);
  for (int64_t s = 0; s < kKeys; s += W) {
    const Vec<T> value = load(scores + s, W) * scale;
    most = value > most ? value : most;
    store(scores + s, value, W);
  }
  T largest = hidden;
  for (int k = 0; k < W; ++k) largest = most[k] > largest ? most[k] : largest;
  return largest;
}

// Turn scores into weights relative to the largest, and return their sum.
template <class T>
inline T exponentials(T* scores, T most) {
  constexpr int W = kWidth<T>;
  const Vec<T> hidden = all(static_cast<T>(-__builtin_inff())), zero{};
  Vec<T> total{};
  for (int64_t s = 0; s < kKeys; s += W) {
    const Vec<T> score = load(scores + s, W);
    const Vec<T> weight = score == hidden ? zero : exponential(score - most);
    total += weight;
    store(scores + s, weight, W);
  }
  return sum_of<T>(total);
}

// The queries of one token: one after the other, as the block's products take them.
template <class X, class How>
inline void gather(const Attention& n, int64_t row, int64_t step, int64_t head, uint8_t* to) {
  const int64_t group = n.heads / n.kv_heads;
  const X* q = static_cast<const X*>(n.q) + ((row * n.steps + step) * n.heads + head * group) * n.width;
  for (int64_t g = 0; g < group; ++g) How::query(q + g * n.width, n.width, to + g * How::query_bytes(n.width));
}

// What one query of one head comes to.
template <class X>
inline void finish(const Attention& n, int64_t row, int64_t step, int64_t head, const Wide<X>* sums, Wide<X> total) {
  X* y = static_cast<X*>(n.y) + ((row * n.steps + step) * n.heads + head) * n.width;
  for (int64_t c = 0; c < n.width; c += kWidth<Wide<X>>) {
    store(y + c, load(sums + c, n.width - c) / total, n.width - c);
  }
}

// One token a row: what each block leaves, the blocks of a (key head, segment) one after the other.
template <class T>
struct One {
  T *scores, *most, *totals, *sums;  // (blocks, group, kKeys), (blocks, group) twice, (blocks, group, H)

  static int64_t cell(const Attention& n) { return n.heads / n.kv_heads * (kKeys + 2 + n.width); }

  One(const Attention& n, const Segment& s, int64_t head) {
    const int64_t cells = s.blocks * (n.heads / n.kv_heads);
    scores = reinterpret_cast<T*>(n.memory) + (head * n.blocks + s.blocks_before) * cell(n);
    most = scores + cells * kKeys;
    totals = most + cells;
    sums = totals + cells;
  }
};

inline Scratch& scratch() {
  static thread_local Scratch held;
  return held;
}

template <class X, class How>
inline void one_scores(const Attention& n, int64_t first, int64_t last) {
  using T = Wide<X>;
  const int64_t group = n.heads / n.kv_heads;
  uint8_t* keys = scratch().get(How::key_bytes(n.width) + group * How::query_bytes(n.width));
  uint8_t* queries = keys + How::key_bytes(n.width);
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t head = piece / n.blocks, at = piece % n.blocks;
    const Segment& s = segment_of(n, at, &Segment::blocks_before);
    const int64_t number = at - s.blocks_before;
    const Block<X> block(n, s, head, number);
    How::keys(block.k, block.first, block.last, n.width, keys);
    gather<X, How>(n, s.row, s.step, head, queries);
    const One<T> one(n, s, head);
    T* scores = one.scores + number * group * kKeys;
    How::score(group, queries, keys, n.width, scores, kKeys);
    for (int64_t g = 0; g < group; ++g) {
      one.most[number * group + g] = limit(n, scores + g * kKeys, block.begin, s.position);
    }
  }
}

template <class X, class How>
inline void one_values(const Attention& n, int64_t first, int64_t last) {
  using T = Wide<X>;
  const int64_t group = n.heads / n.kv_heads;
  uint8_t* values = scratch().get(How::value_bytes(n.width));
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t head = piece / n.blocks, at = piece % n.blocks;
    const Segment& s = segment_of(n, at, &Segment::blocks_before);
    const int64_t number = at - s.blocks_before;
    const Block<X> block(n, s, head, number);
    How::values(block.v, block.first, block.last, n.width, values);
    const One<T> one(n, s, head);
    T* scores = one.scores + number * group * kKeys;
    for (int64_t g = 0; g < group; ++g) {
      T most = one.most[g];
      for (int64_t k = 1; k < s.blocks; ++k) {
        most = one.most[k * group + g] > most ? one.most[k * group + g] : most;
      }
      one.totals[number * group + g] = exponentials(scores + g * kKeys, most);
      How::prepare(scores + g * kKeys, kKeys);
    }
    How::weigh(group, scores, kKeys, values, block.first, block.last, n.width,
               one.sums + number * group * n.width);
  }
}

// Add the block to what the blocks before it gave; the first one begins.
template <class T>
inline void join(T* sums, const T* more, int64_t count) {
  for (int64_t c = 0; c < count; c += kWidth<T>) {
    store(sums + c, load(sums + c, count - c) + load(more + c, count - c), count - c);
  }
}

template <class X, class How>
inline void one_sums(const Attention& n, int64_t first, int64_t last) {
  using T = Wide<X>;
  const int64_t group = n.heads / n.kv_heads;
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t head = piece / group / n.segment_count, query = piece % group;
    const Segment& s = n.segments[piece / group % n.segment_count];
    const One<T> one(n, s, head);
    T *sums = one.sums + query * n.width, *total = one.totals + query;
    for (int64_t k = 1; k < s.blocks; ++k) {
      join(sums, sums + k * group * n.width, n.width);
      *total += total[k * group];
    }
    finish<X>(n, s.row, s.step, head * group + query, sums, *total);
  }
}

// Several tokens: all blocks are laid out once, keys and values side by side.
template <class How>
inline int64_t laid_bytes(const Attention& n) {
  return (How::key_bytes(n.width) + How::value_bytes(n.width) + 63) / 64 * 64;
}

template <class X, class How>
inline void layout(const Attention& n, int64_t first, int64_t last) {
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t head = piece / n.blocks, at = piece % n.blocks;
    const Segment& s = segment_of(n, at, &Segment::blocks_before);
    const int64_t number = at - s.blocks_before;
    const Block<X> block(n, s, head, number);
    uint8_t* to = n.memory + piece * laid_bytes<How>(n);
    How::keys(block.k, block.first, block.last, n.width, to);
    How::values(block.v, block.first, block.last, n.width, to + How::key_bytes(n.width));
  }
}

template <class X, class How>
inline void groups(const Attention& n, int64_t first, int64_t last) {
  using T = Wide<X>;
  const int64_t group = n.heads / n.kv_heads, most_rows = n.together * group;
  const int64_t most_seen = (n.slots + n.together + kKeys - 1) / kKeys + 1;  // blocks that a group of steps sees
  const int64_t step = most_seen * kKeys;
  const int64_t query_bytes = (most_rows * How::query_bytes(n.width) + 63) / 64 * 64;
  uint8_t* memory = scratch().get(query_bytes + most_rows * (step + 2 + 2 * n.width) * static_cast<int64_t>(sizeof(T)));
  T *scores = reinterpret_cast<T*>(memory + query_bytes), *sums = scores + most_rows * step;
  T *more = sums + most_rows * n.width, *most = more + most_rows * n.width, *totals = most + most_rows;
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t head = piece / n.groups, which = piece % n.groups;
    const Segment& s = segment_of(n, which, &Segment::groups_before);
    const int64_t begin = (which - s.groups_before) * n.together;
    const int64_t steps = lesser(n.together, s.count - begin), rows = steps * group;
    for (int64_t t = 0; t < steps; ++t) {
      gather<X, How>(n, s.row, s.step + begin + t, head, memory + t * group * How::query_bytes(n.width));
    }
    const int64_t position = s.position + begin;
    const int64_t oldest = greater(0, position - n.slots) / kKeys, blocks = (position + steps - 1) / kKeys - oldest + 1;
    const uint8_t* laid =
        n.memory + (head * n.blocks + s.blocks_before + oldest - s.oldest / kKeys) * laid_bytes<How>(n);
    for (int64_t r = 0; r < rows; ++r) most[r] = -__builtin_inff();
    for (int64_t k = 0; k < blocks; ++k) {
      How::score(rows, memory, laid + k * laid_bytes<How>(n), n.width, scores + k * kKeys, step);
      for (int64_t r = 0; r < rows; ++r) {
        const T value = limit(n, scores + r * step + k * kKeys, (oldest + k) * kKeys, position + r / group);
        most[r] = value > most[r] ? value : most[r];
      }
    }
    for (int64_t r = 0; r < rows; ++r) totals[r] = 0;
    for (int64_t k = 0; k < blocks; ++k) {
      for (int64_t r = 0; r < rows; ++r) {
        T* at = scores + r * step + k * kKeys;
        totals[r] += exponentials(at, most[r]);
        How::prepare(at, kKeys);
      }
      const int64_t start = (oldest + k) * kKeys;
      How::weigh(rows, scores + k * kKeys, step, laid + k * laid_bytes<How>(n) + How::key_bytes(n.width),
                 greater(0, position - n.slots - start), lesser(kKeys, position + steps - start), n.width,
                 k ? more : sums);
      if (k) join(sums, more, rows * n.width);
    }
    for (int64_t r = 0; r < rows; ++r) {
      finish<X>(n, s.row, s.step + begin + r / group, head * group + r % group, sums + r * n.width, totals[r]);
    }
  }
}

template <class X, class How>
inline int64_t attention_bytes_of(const Attention& n) {
  const int64_t blocks = n.kv_heads * n.blocks;
  if (n.steps == 1) return blocks * One<Wide<X>>::cell(n) * static_cast<int64_t>(sizeof(Wide<X>));
  return blocks * laid_bytes<How>(n);
}

template <class X, class How>
struct Chosen {
  using Value = X;
  using Layout = How;
};

// Call fn(Chosen<X, How>{}) with the type and the layout of this call.
template <class Fn>
inline void by_layout(const Attention& n, const Fn& fn) {
  switch (n.type) {
    case Type::f64: return fn(Chosen<double, Plain<double>>{});
    case Type::f32: return fn(Chosen<float, Plain<float>>{});
    case Type::bf16: break;
  }
#if defined(__AVX512BF16__)
  if (Pairs::fits(n.width)) return fn(Chosen<Bf16, Pairs>{});
#endif
  fn(Chosen<Bf16, Plain<Bf16>>{});
}

inline int64_t attention_bytes(const Attention& n) {
  int64_t bytes = 0;
  by_layout(n, [&](auto c) { bytes = attention_bytes_of<typename decltype(c)::Value, typename decltype(c)::Layout>(n); });
  return bytes;
}

inline void attention_scores(const Attention& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto c) { one_scores<typename decltype(c)::Value, typename decltype(c)::Layout>(n, first, last); });
}

inline void attention_values(const Attention& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto c) { one_values<typename decltype(c)::Value, typename decltype(c)::Layout>(n, first, last); });
}

inline void attention_sums(const Attention& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto c) { one_sums<typename decltype(c)::Value, typename decltype(c)::Layout>(n, first, last); });
}

inline void attention_layout(const Attention& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto c) { layout<typename decltype(c)::Value, typename decltype(c)::Layout>(n, first, last); });
}

inline void attention_groups(const Attention& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto c) { groups<typename decltype(c)::Value, typename decltype(c)::Layout>(n, first, last); });
}
