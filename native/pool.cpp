#include "pool.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace griffin {
namespace {

// Long enough to bridge the gap between two kernels that Python calls (a thread that went to sleep
// takes 35 µs to come back), short enough that torch's own threads find the core free when a
// product of theirs begins.
constexpr auto kWait = std::chrono::microseconds(100);
constexpr int kMostThreads = 256;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Wait until `there()` or for about kWait; return whether it is.
template <class There>
bool spin(const There& there) {
  const auto end = std::chrono::steady_clock::now() + kWait;
  do {
    for (int k = 0; k < 100; ++k) {
      if (there()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return there();
}

// Pieces not yet taken by anybody, on a cache line of its own: first in the low half, end in the
// high half.
struct alignas(64) Share {
  std::atomic<uint64_t> range{0};

  static uint64_t pack(uint64_t first, uint64_t end) { return end << 32 | first; }

  bool take(uint64_t grain, bool from_end, int64_t& first, int64_t& last) {
    uint64_t seen = range.load(std::memory_order_relaxed);
    while (true) {
      const uint64_t begin = seen & 0xffffffffu, end = seen >> 32;
      if (begin >= end) return false;
      const uint64_t count = end - begin < grain ? end - begin : grain;
      const uint64_t left = from_end ? pack(begin, end - count) : pack(begin + count, end);
      if (range.compare_exchange_weak(seen, left, std::memory_order_acq_rel)) {
        first = static_cast<int64_t>(from_end ? end - count : begin);
        last = first + static_cast<int64_t>(count);
        return true;
      }
    }
  }
};

class Pool {
 public:
  void run(int threads, int64_t pieces, int64_t grain, Task task, const void* job) {
    std::lock_guard<std::mutex> one_job(callers_);
    if (threads > kMostThreads) threads = kMostThreads;
    while (static_cast<int>(workers_.size()) < threads - 1) {
      const int number = static_cast<int>(workers_.size()) + 1;
      workers_.emplace_back(
          new std::thread([this, number, epoch = epoch_.load()] { work(number, epoch); }));
    }
    task_ = task;
    job_ = job;
    grain_ = grain;
    threads_ = threads;
    for (int t = 0; t < threads; ++t) {
      shares_[t].range.store(Share::pack(pieces * t / threads, pieces * (t + 1) / threads));
    }
    // Every worker answers every epoch, also one with no share, so that none can still be reading
    // the job of an earlier call when the next one is written.
    busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    epoch_.fetch_add(1);
    if (sleepers_.load() > 0) {
      std::lock_guard<std::mutex> hold(sleep_);
      wake_.notify_all();
    }
    take_all(0);
    const auto done = [&] { return busy_.load(std::memory_order_acquire) == 0; };
    if (!spin(done)) {
      while (!done()) std::this_thread::yield();
    }
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  // A piece may fail for want of memory: the caller gets the exception when no thread works any
  // more on what lies on its stack.
  void take_all(int self) {
    int64_t first, last;
    try {
      while (shares_[self].take(grain_, false, first, last)) task_(job_, first, last);
      for (int k = 1; k < threads_; ++k) {
        Share& other = shares_[(self + k) % threads_];
        while (other.take(grain_, true, first, last)) task_(job_, first, last);
      }
    } catch (...) {
      std::lock_guard<std::mutex> hold(failing_);
      failure_ = std::current_exception();
    }
  }

  void work(int number, uint64_t done) {
    while (true) {
      if (!spin([&] { return epoch_.load(std::memory_order_acquire) != done; })) {
        std::unique_lock<std::mutex> hold(sleep_);
        sleepers_.fetch_add(1);
        wake_.wait(hold, [&] { return epoch_.load() != done; });
        sleepers_.fetch_sub(1);
      }
      ++done;
      if (number < threads_) take_all(number);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex callers_;
  std::vector<std::unique_ptr<std::thread>> workers_;
  Share shares_[kMostThreads];
  std::atomic<uint64_t> epoch_{0};
  std::atomic<int> busy_{0};
  std::atomic<int> sleepers_{0};
  std::mutex sleep_, failing_;
  std::exception_ptr failure_;
  std::condition_variable wake_;
  Task task_ = nullptr;
  const void* job_ = nullptr;
  uint64_t grain_ = 1;
  int threads_ = 1;
};

// Never destroyed: its threads may be asleep in it when the process ends. A forked child has none
// of the threads, so it starts with a pool of its own.
std::atomic<Pool*> pool{nullptr};
std::mutex making;

Pool& the_pool() {
  Pool* found = pool.load(std::memory_order_acquire);
  if (found) return *found;
  std::lock_guard<std::mutex> hold(making);
  if (!pool.load()) {
    static std::once_flag once;
    std::call_once(once, [] {
      pthread_atfork([] { making.lock(); }, [] { making.unlock(); },
                     [] {
                       making.unlock();
                       pool.store(nullptr);
                     });
    });
    pool.store(new Pool, std::memory_order_release);
  }
  return *pool.load();
}

}  // namespace

void parallel(int threads, int64_t pieces, int64_t grain, Task task, const void* job) {
  if (pieces <= 0) return;
  if (threads > pieces) threads = static_cast<int>(pieces);
  if (threads <= 1) {  // also alone a grain at a time: it is what stays in the cache
    for (int64_t first = 0; first < pieces; first += grain) {
      task(job, first, first + grain < pieces ? first + grain : pieces);
    }
    return;
  }
  the_pool().run(threads, pieces, grain, task, job);
}

}  // namespace griffin
