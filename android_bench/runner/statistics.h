// Figures of a list of latencies. A quantile is the nearest rank: the smallest value that at least
// q of all values do not exceed. Its interval is distribution-free: B, the number of values below
// the true quantile, is binomial(n, q), so the order statistics [l, u] with P(B < l) <= 0.025 and
// P(B >= u) <= 0.025 enclose it in at least 95 of 100 repetitions (David and Nagaraja, Order
// Statistics, 7.1). It takes the runs as independent, which back-to-back runs of a warming device
// are not quite; the drift says how far from it they are.

#ifndef TFQ_ANDROID_BENCH_RUNNER_STATISTICS_H_
#define TFQ_ANDROID_BENCH_RUNNER_STATISTICS_H_

#include <cstddef>
#include <optional>
#include <vector>

namespace tfq {

struct Ranks {
  size_t low = 0;   // 1-based rank; 0: the values are too few for a lower end
  size_t high = 0;  // 1-based rank; 0: the values are too few for an upper end
};

struct Quantile {
  double value = 0;
  std::optional<double> low, high;  // ends of the 95 % interval
};

struct Summary {
  size_t count = 0;
  double mean = 0, min = 0, max = 0;
  Quantile p50, p90, p99;
  // Median of the last tenth over median of the first tenth, in the order of the runs; none
  // below 20.
  std::optional<double> drift;
};

// Rank of the q quantile of n >= 1 values, 1-based.
size_t NearestRank(size_t n, double q);

// Ranks of the order statistics that enclose the q quantile of n values in 95 of 100 cases.
Ranks IntervalRanks(size_t n, double q);

// `values` in the order in which they were measured; at least one.
Summary Summarize(const std::vector<double>& values);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_STATISTICS_H_
