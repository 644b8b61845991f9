// Local attention. A score, a weight and a weighted sum over a block depend on positions alone, and
// blocks are added in order: neither the cut of the calls nor the number of threads changes a bit.

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
template <class How>
inline void gather(const Attention& n, int64_t row, int64_t step, int64_t head, uint8_t* to) {
  using X = typename How::Value;
  const int64_t group = n.heads / n.kv_heads;
  const X* q =
      static_cast<const X*>(n.q) + ((row * n.steps + step) * n.heads + head * group) * n.width;
  for (int64_t g = 0; g < group; ++g) {
    How::query(q + g * n.width, n.width, to + g * How::query_bytes(n.width));
  }
}

// Store what one query of one head comes to.
template <class X>
inline void finish(const Attention& n, int64_t row, int64_t step, int64_t head, const Wide<X>* sums,
                   Wide<X> total) {
  X* y = static_cast<X*>(n.y) + ((row * n.steps + step) * n.heads + head) * n.width;
  for (int64_t c = 0; c < n.width; c += kWidth<Wide<X>>) {
    store(y + c, load(sums + c, n.width - c) / total, n.width - c);
  }
}

// Whether a call has one token a row, whose blocks are shared out among the threads.
inline bool alone(const Attention& n) { return n.steps == 1 && !n.lse; }

// One token a row: what each block comes to, those of a (key head, segment) one after the other.
template <class T>
struct One {
  T* scores;         // (blocks, group, kKeys)
  T *most, *totals;  // (blocks, group)
  T* sums;           // (blocks, group, H)

  static int64_t cell(const Attention& n) { return n.heads / n.kv_heads * (kKeys + 2 + n.width); }

  One(const Attention& n, const Segment& s, int64_t head) {
    const int64_t cells = s.blocks * (n.heads / n.kv_heads);
    scores = reinterpret_cast<T*>(n.memory) + (head * n.blocks + s.blocks_before) * cell(n);
    most = scores + cells * kKeys;
    totals = most + cells;
    sums = totals + cells;
  }
};

template <class How>
inline void one_scores(const Attention& n, int64_t first, int64_t last) {
  using X = typename How::Value;
  using T = Wide<X>;
  const int64_t group = n.heads / n.kv_heads;
  uint8_t* keys = scratch().get(How::key_bytes(n.width) + group * How::query_bytes(n.width));
  uint8_t* queries = keys + How::key_bytes(n.width);
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t head = piece / n.blocks, at = piece % n.blocks;
    const Segment& s = segment_of(n, at, &Segment::blocks_before);
    const int64_t number = at - s.blocks_before;
    const Block<X> block(n, s, head, number);
    gather<How>(n, s.row, s.step, head, queries);
    const One<T> one(n, s, head);
    T* scores = one.scores + number * group * kKeys;
    How::meet(group, queries, block.k, block.first, block.last, n.width, keys, scores);
    for (int64_t g = 0; g < group; ++g) {
      one.most[number * group + g] = limit(n, scores + g * kKeys, block.begin, s.position);
    }
  }
}

template <class How>
inline void one_values(const Attention& n, int64_t first, int64_t last) {
  using X = typename How::Value;
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

// Add a block's sums to those of the blocks before it.
template <class T>
inline void join(T* sums, const T* more, int64_t count) {
  for (int64_t c = 0; c < count; c += kWidth<T>) {
    store(sums + c, load(sums + c, count - c) + load(more + c, count - c), count - c);
  }
}

template <class How>
inline void one_sums(const Attention& n, int64_t first, int64_t last) {
  using X = typename How::Value;
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

template <class How>
inline void layout(const Attention& n, int64_t first, int64_t last) {
  using X = typename How::Value;
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

template <class How>
inline void groups(const Attention& n, int64_t first, int64_t last) {
  using X = typename How::Value;
  using T = Wide<X>;
  const int64_t group = n.heads / n.kv_heads, most_rows = n.together * group;
  // The blocks that a group of steps sees.
  const int64_t most_seen = (n.slots + n.together + kKeys - 1) / kKeys + 1;
  const int64_t step = most_seen * kKeys;
  const int64_t query_bytes = (most_rows * How::query_bytes(n.width) + 63) / 64 * 64;
  const int64_t sum_bytes = (step + 2 + 2 * n.width) * static_cast<int64_t>(sizeof(T));
  uint8_t* memory = scratch().get(query_bytes + most_rows * sum_bytes);
  T *scores = reinterpret_cast<T*>(memory + query_bytes), *sums = scores + most_rows * step;
  T* more = sums + most_rows * n.width;
  T* most = more + most_rows * n.width;
  T* totals = most + most_rows;
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t head = piece / n.groups, which = piece % n.groups;
    const Segment& s = segment_of(n, which, &Segment::groups_before);
    const int64_t begin = (which - s.groups_before) * n.together;
    const int64_t steps = lesser(n.together, s.count - begin), rows = steps * group;
    for (int64_t t = 0; t < steps; ++t) {
      gather<How>(n, s.row, s.step + begin + t, head,
                  memory + t * group * How::query_bytes(n.width));
    }
    const int64_t position = s.position + begin;
    const int64_t oldest = greater(0, position - n.slots) / kKeys;
    const int64_t blocks = (position + steps - 1) / kKeys - oldest + 1;
    const int64_t first_block = head * n.blocks + s.blocks_before + oldest - s.oldest / kKeys;
    const uint8_t* laid = n.memory + first_block * laid_bytes<How>(n);
    for (int64_t r = 0; r < rows; ++r) most[r] = -__builtin_inff();
    // Of block k, the keys that any of the queries sees.
    const auto first_seen = [&](int64_t k) {
      return greater(0, position - n.slots - (oldest + k) * kKeys);
    };
    const auto last_seen = [&](int64_t k) {
      return lesser(kKeys, position + steps - (oldest + k) * kKeys);
    };
    for (int64_t k = 0; k < blocks; ++k) {
      How::score(rows, memory, laid + k * laid_bytes<How>(n), n.width, first_seen(k), last_seen(k),
                 scores + k * kKeys, step);
      for (int64_t r = 0; r < rows; ++r) {
        const T value =
            limit(n, scores + r * step + k * kKeys, (oldest + k) * kKeys, position + r / group);
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
      How::weigh(rows, scores + k * kKeys, step,
                 laid + k * laid_bytes<How>(n) + How::key_bytes(n.width), first_seen(k),
                 last_seen(k), n.width, k ? more : sums);
      if (k) join(sums, more, rows * n.width);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = s.step + begin + r / group, query = head * group + r % group;
      finish<X>(n, s.row, at, query, sums + r * n.width, totals[r]);
      if (n.lse) {
        static_cast<T*>(n.lse)[(s.row * n.steps + at) * n.heads + query] =
            most[r] + static_cast<T>(__builtin_log(static_cast<double>(totals[r])));
      }
    }
  }
}

template <class How>
inline int64_t attention_bytes_of(const Attention& n) {
  using X = typename How::Value;
  const int64_t blocks = n.kv_heads * n.blocks;
  if (alone(n)) return blocks * One<Wide<X>>::cell(n) * static_cast<int64_t>(sizeof(Wide<X>));
  return blocks * laid_bytes<How>(n);
}

// Call fn(How{}) with the layout of this call's blocks.
template <class Fn>
inline void by_layout(const Attention& n, const Fn& fn) {
  switch (n.type) {
    case Type::f64: return fn(Plain<double>{});
    case Type::f32: return fn(Plain<float>{});
    case Type::bf16: break;
  }
#if defined(__AMX_TILE__)
  if (Pairs::fits(n.width)) return fn(TiledPairs{});
#elif defined(__AVX512BF16__)
  if (Pairs::fits(n.width)) return fn(Pairs{});
#endif
  fn(Plain<Bf16>{});
}

inline int64_t attention_bytes(const Attention& n) {
  int64_t bytes = 0;
  by_layout(n, [&](auto how) { bytes = attention_bytes_of<decltype(how)>(n); });
  return bytes;
}

inline void attention_scores(const Attention& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto how) { one_scores<decltype(how)>(n, first, last); });
}

inline void attention_values(const Attention& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto how) { one_values<decltype(how)>(n, first, last); });
}

inline void attention_sums(const Attention& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto how) { one_sums<decltype(how)>(n, first, last); });
}

inline void attention_layout(const Attention& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto how) { layout<decltype(how)>(n, first, last); });
}

inline void attention_groups(const Attention& n, int64_t first, int64_t last) {
  by_layout(n, [&](auto how) { groups<decltype(how)>(n, first, last); });
}
