#include "attention.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "pool.h"
#include "run.h"

namespace griffin {
namespace {

#include "scratch.h"

// Rows of queries that pass a block of keys together: as many as keep their scores in the
// second-level cache.
constexpr int64_t kQueries = 60;

// Of a unit of the gradient: as many rows of queries and steps as pay for laying out its keys, and
// no more than half a window, so that long rows have work for many threads.
constexpr int64_t kMostRows = 4096;
constexpr int64_t kLeastSteps = 256;

// What a pad reads: its own value, for every head; it is never used.
void read_itself(const Attention& n, int64_t row, int64_t step) {
  const int64_t bytes = size_of(n.type) * n.width;
  const int64_t group = n.heads / n.kv_heads;
  const int64_t token = row * n.steps + step;
  for (int64_t head = 0; head < n.heads; ++head) {
    std::memcpy(static_cast<uint8_t*>(n.y) + (token * n.heads + head) * bytes,
                static_cast<const uint8_t*>(n.v) + (token * n.kv_heads + head / group) * bytes,
                static_cast<size_t>(bytes));
  }
  if (n.lse) {
    const int64_t wide = (n.type == Type::f64 ? 8 : 4) * n.heads;
    std::memset(static_cast<uint8_t*>(n.lse) + token * wide, 0, static_cast<size_t>(wide));
  }
}

// Its queries move nothing, its value all heads that read it.
void give_back(const AttentionGradient& n, int64_t row, int64_t step) {
  const int64_t group = n.heads / n.kv_heads, token = row * n.steps + step;
  const int64_t bytes = size_of(n.type) * n.heads * n.width;
  std::memset(static_cast<uint8_t*>(n.dq) + token * bytes, 0, static_cast<size_t>(bytes));
  for (int64_t at = 0; at < n.heads * n.width; ++at) {
    const int64_t from = token * n.heads * n.width + at;
    const int64_t to = (token * n.kv_heads + at / n.width / group) * n.width + at % n.width;
    if (n.type == Type::f64) {
      static_cast<double*>(n.dv)[to] += static_cast<const double*>(n.dy)[from];
      continue;
    }
    float value;
    if (n.type == Type::f32) {
      value = static_cast<const float*>(n.dy)[from];
    } else {
      const uint32_t bits = uint32_t{static_cast<const uint16_t*>(n.dy)[from]} << 16;
      std::memcpy(&value, &bits, sizeof value);
    }
    static_cast<float*>(n.dv)[to] += value;
  }
}

// The segments of a call; of each pad, pad(row, step). Fills what is said of them in `n`.
template <class Pad>
std::vector<Segment> segments_of(Attention& n, const int64_t* position, const Pad& pad) {
  const int64_t group = n.heads / n.kv_heads;
  n.together = kQueries / group > 1 ? kQueries / group : 1;
  n.blocks = n.groups = 0;
  std::vector<Segment> segments;
  for (int64_t row = 0; row < n.rows; ++row) {
    const int64_t* at = position + row * n.steps;
    int64_t step = 0;
    for (; step < n.steps && at[step] < 0; ++step) pad(row, step);
    while (step < n.steps) {
      int64_t end = step + 1;
      check_position(at[step], n.steps);
      if (at[step] > 0 && !n.ring_k) {
        throw std::invalid_argument("a document goes on, and there is no ring of its keys");
      }
      while (end < n.steps && at[end] != 0) {
        if (at[end] != at[end - 1] + 1) {
          throw std::invalid_argument("position " + std::to_string(at[end]) + " follows " +
                                      std::to_string(at[end - 1]) + " within a document");
        }
        ++end;
      }
      Segment s{};
      s.row = row;
      s.step = step;
      s.count = end - step;
      s.position = at[step];
      s.oldest = s.position > n.slots ? s.position - n.slots : 0;
      s.blocks = (s.position + s.count - 1) / kKeys - s.oldest / kKeys + 1;
      s.blocks_before = n.blocks;
      s.groups = (s.count + n.together - 1) / n.together;
      s.groups_before = n.groups;
      n.blocks += s.blocks;
      n.groups += s.groups;
      segments.push_back(s);
      step = end;
    }
  }
  return segments;
}

// Every chunk of queries of every segment and key head, those of a key in order of position.
std::vector<AttentionUnit> units_of(const AttentionGradient& n) {
  std::vector<AttentionUnit> units;
  for (int64_t head = 0; head < n.kv_heads; ++head) {
    for (int64_t segment = 0; segment < n.segment_count; ++segment) {
      const Segment& s = n.segments[segment];
      for (int64_t begin = 0; begin < s.count; begin += n.chunk) {
        const int64_t steps = s.count - begin < n.chunk ? s.count - begin : n.chunk;
        const int64_t position = s.position + begin;
        const int64_t oldest = (position > n.slots ? position - n.slots : 0) / kKeys;
        const int64_t blocks = (position + steps - 1) / kKeys - oldest + 1;
        units.push_back({head, segment, begin, steps, oldest, blocks, 0});
      }
    }
  }
  return units;
}

}  // namespace

void check_position(int64_t position, int64_t steps) {
  if (position < 0 || position > kMostPositions - steps) {
    throw std::invalid_argument("position " + std::to_string(position) +
                                " is outside 0 to 2^53, with the tokens that follow it");
  }
}

void attend(Attention n, const int64_t* position, int threads) {
  const int64_t group = n.heads / n.kv_heads;
  const std::vector<Segment> segments = segments_of(
      n, position, [&](int64_t row, int64_t step) { read_itself(n, row, step); });
  if (segments.empty()) return;
  n.segments = segments.data();
  n.segment_count = static_cast<int64_t>(segments.size());
  const Sequences& kernels = *active().sequences;
  n.memory = scratch().get(kernels.attention_bytes(n));

  // Fewer threads where there is little to do.
  const int64_t seen = n.slots < n.blocks * kKeys ? n.slots : n.blocks * kKeys;
  const int64_t work = n.rows * n.steps * n.heads * seen * n.width / 32768 + 1;
  threads = work < threads ? static_cast<int>(work) : threads;
  const auto phase = [&](int64_t pieces, void (*run)(const Attention&, int64_t, int64_t)) {
    parallel(threads, n.kv_heads * pieces, 1,
             [&](int64_t first, int64_t last) { run(n, first, last); });
  };
  if (n.steps == 1 && !n.lse) {
    phase(n.blocks, kernels.attention_scores);
    phase(n.blocks, kernels.attention_values);
    phase(n.segment_count * group, kernels.attention_sums);
  } else {
    phase(n.blocks, kernels.attention_layout);
    phase(n.groups, kernels.attention_groups);
  }
}

void attend_back(AttentionGradient n, const int64_t* position, int threads) {
  const int64_t wide = n.type == Type::f64 ? 8 : 4, width = n.kv_heads * n.width * wide;
  for (void* sums : {n.dk, n.dv}) {
    std::memset(sums, 0, static_cast<size_t>(n.rows * n.steps * width));
  }
  for (void* sums : {n.dring_k, n.dring_v}) {
    if (sums) std::memset(sums, 0, static_cast<size_t>(n.rows * n.slots * width));
  }
  const std::vector<Segment> segments =
      segments_of(n, position, [&](int64_t row, int64_t step) { give_back(n, row, step); });
  n.segments = segments.data();
  n.segment_count = static_cast<int64_t>(segments.size());
  const int64_t half = (n.slots / 2 + kKeys - 1) / kKeys * kKeys;
  const int64_t few = kMostRows / (n.heads / n.kv_heads) / kKeys * kKeys;
  n.chunk = half > kLeastSteps ? half : kLeastSteps;
  n.chunk = few < n.chunk ? few : n.chunk;
  n.chunk = n.chunk > kKeys ? n.chunk : kKeys;
  std::vector<AttentionUnit> units = units_of(n);

  // So many units at once, then what they give to their keys is added.
  const size_t wave = static_cast<size_t>(4 * threads);
  const Sequences& kernels = *active().sequences;
  for (size_t begin = 0; begin < units.size(); begin += wave) {
    n.units = units.data() + begin;
    n.unit_count = static_cast<int64_t>(units.size() - begin < wave ? units.size() - begin : wave);
    int64_t blocks = 0;
    for (int64_t k = 0; k < n.unit_count; ++k) {
      AttentionUnit& u = units[begin + static_cast<size_t>(k)];
      u.blocks_before = blocks;
      blocks += u.blocks;
    }
    n.memory = scratch().get(blocks * 2 * kKeys * n.width * wide);
    parallel(threads, n.unit_count, 1, [&](int64_t first, int64_t last) {
      kernels.attention_gradient(n, first, last);
    });
    parallel(threads, kKeys / kSlice, 1, [&](int64_t first, int64_t last) {
      kernels.attention_gradient_sums(n, first, last);
    });
  }
}

}  // namespace griffin
