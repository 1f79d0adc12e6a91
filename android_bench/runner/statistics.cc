#include "statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tfq {
namespace {

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[NearestRank(values.size(), 0.5) - 1];
}

Quantile QuantileOf(const std::vector<double>& sorted, double q) {
  Quantile quantile;
  quantile.value = sorted[NearestRank(sorted.size(), q) - 1];
  const Ranks ranks = IntervalRanks(sorted.size(), q);
  if (ranks.low) quantile.low = sorted[ranks.low - 1];
  if (ranks.high) quantile.high = sorted[ranks.high - 1];
  return quantile;
}

}  // namespace

size_t NearestRank(size_t n, double q) {
  // The small subtraction keeps 0.9 * 10 = 9.000000000000002 at rank 9.
  const double rank = std::ceil(static_cast<double>(n) * q - 1e-9);
  return std::clamp<size_t>(rank < 1 ? 1 : static_cast<size_t>(rank), 1, n);
}

Ranks IntervalRanks(size_t n, double q) {
  constexpr double kTail = 0.025;
  const double count = static_cast<double>(n);
  Ranks ranks;
  double cumulative = 0;  // P(B <= k)
  for (size_t k = 0; k < n; ++k) {
    const double chosen = static_cast<double>(k);
    cumulative += std::exp(std::lgamma(count + 1) - std::lgamma(chosen + 1) -
                           std::lgamma(count - chosen + 1) + chosen * std::log(q) +
                           (count - chosen) * std::log1p(-q));
    if (cumulative <= kTail) ranks.low = k + 1;
    if (cumulative >= 1 - kTail) {
      ranks.high = k + 1;
      break;
    }
  }
  return ranks;
}

Summary Summarize(const std::vector<double>& values) {
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  Summary summary;
  summary.count = values.size();
  summary.mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  summary.min = sorted.front();
  summary.max = sorted.back();
  summary.p50 = QuantileOf(sorted, 0.5);
  summary.p90 = QuantileOf(sorted, 0.9);
  summary.p99 = QuantileOf(sorted, 0.99);
  if (values.size() >= 20) {
    const auto tenth = static_cast<std::ptrdiff_t>(values.size() / 10);
    const double first = Median({values.begin(), values.begin() + tenth});
    const double last = Median({values.end() - tenth, values.end()});
    if (first > 0) summary.drift = last / first;
  }
  return summary;
}

}  // namespace tfq
